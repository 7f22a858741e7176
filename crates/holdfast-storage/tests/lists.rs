//! Long lists, whose values are read in another order than they are asked for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::*;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{KeyRange, RangeEnd};
use holdfast_storage::*;

const KEYS: u64 = 5_000;

/// Every number below `count` once, in an order that has nothing to do with it.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    // A step without a common divisor with `count`.
    (0..count).map(move |n| n * 2_741 % count)
}

fn key(number: u64) -> String {
    format!("key/{number:08}")
}

/// Mostly short; now and then one that is cut into pieces.
fn value(number: u64, version: u64) -> String {
    let len = match number % 500 {
        7 => 70_000,
        13 => 0,
        other => other * other % 700,
    };
    format!("{number}.{version}").repeat(usize::try_from(len / 5 + 1).unwrap())
}

fn everything() -> Range {
    range(KeyRange { start: Bytes::from_static(b"\0"), end: RangeEnd::Unbounded })
}

fn pairs(response: RangeResponse) -> Vec<(Bytes, Bytes)> {
    response.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

/// A member whose keys were written in no order, some of them again later, and some deleted; with what it should hold.
async fn filled(member: &mut Member) -> BTreeMap<Bytes, Bytes> {
    let mut expected = BTreeMap::new();
    let mut commands = Vec::new();
    for number in shuffled(KEYS) {
        commands.push(put(&key(number), &value(number, 1)));
        expected.insert(Bytes::from(key(number)), Bytes::from(value(number, 1)));
    }
    for number in shuffled(KEYS).filter(|number| number % 3 == 0) {
        commands.push(put(&key(number), &value(number, 2)));
        expected.insert(Bytes::from(key(number)), Bytes::from(value(number, 2)));
    }
    for number in shuffled(KEYS).filter(|number| number % 10 == 1) {
        commands.push(delete(&key(number)));
        expected.remove(key(number).as_bytes());
    }
    while !commands.is_empty() {
        let rest = commands.split_off(commands.len().min(500));
        member.run(std::mem::replace(&mut commands, rest)).await;
    }
    expected
}

fn check(member: &Member, expected: &BTreeMap<Bytes, Bytes>, engine: EngineKind) {
    let expected: Vec<(Bytes, Bytes)> = expected.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let list = |request: Range| member.storage.range(&request).unwrap().0;
    let whole = pairs(list(everything()));
    assert!(whole == expected, "{engine:?}: {} of {} pairs", whole.len(), expected.len());
    for page_keys in [1, 3, 100, 1_700] {
        let (mut found, mut request) = (Vec::new(), Range { limit: Some(page_keys), ..everything() });
        loop {
            let page = list(request.clone());
            let (more, page) = (page.more, pairs(page));
            let last = page.last().unwrap().0.clone();
            found.extend(page);
            if !more {
                break;
            }
            request.range.start = [&last[..], &[0]].concat().into();
            if found.len() > 2_000 && page_keys < 100 {
                break;
            }
        }
        assert!(found == expected[..found.len()], "{engine:?}, pages of {page_keys}");
    }
    let mut descending = pairs(list(Range { order: SortOrder::Descend, ..everything() }));
    descending.reverse();
    assert!(descending == expected, "{engine:?}, descending");
    let without = pairs(list(Range { keys_only: true, ..everything() }));
    assert!(without.iter().all(|(_, value)| value.is_empty()) && without.len() == expected.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_has_every_value_with_its_key_whatever_order_they_were_written_in() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        // A cache for some of the values.
        let config = StorageConfig { memory_bytes: 16 << 20, ..config(dir.path(), engine) };
        let mut member = Member::open_with(config.clone()).await;
        let expected = filled(&mut member).await;
        check(&member, &expected, engine);
        member.drained().await;
        member.close().await;
        // Everything is cold now.
        let member = Member::open_with(config).await;
        check(&member, &expected, engine);
        check(&member, &expected, engine);
        member.close().await;
    }
}
