//! Space comes back by itself: real engines, whose files stay large after a compaction, are replaced by smaller ones
//! while writes, reads, dumps and installs go on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::VecDeque;
use std::path::Path;

use common::*;
use holdfast_mvcc::command::{Command, ReadAt};
use holdfast_mvcc::types::Revision;
use holdfast_storage::EngineKind;

const KEYS: u64 = 100;
const LARGE: u64 = 4;
/// So many that the files stay far above the bound at which they are replaced: sled gives some space back by itself.
const ROUNDS: u64 = 24;

/// For the scrub of a whole store while the engine is written to at full speed: alone it takes 10 to 16 s on two cores.
async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(5 * DEADLINE, work).await.expect("the scrub ends while writes go on")
}

/// 30,000 characters that do not compress to much.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + u8::try_from(state >> 40 & 63).unwrap())
    };
    (0..30_000).map(|_| next()).collect()
}

fn round(number: u64) -> Vec<Command> {
    (0..KEYS).map(|key| put(&format!("key/{key}"), &noise(number * KEYS + key))).collect()
}

/// Values that are longer than what a chore works on at a time.
fn large() -> Vec<Command> {
    (0..LARGE).map(|key| put(&format!("large/{key}"), &noise(key).repeat(20))).collect()
}

fn generations(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("gen-"));
    names.sort();
    names
}

/// A member with 72 MB of history, and one in memory that was told the same.
async fn loaded(dir: &Path, engine: EngineKind) -> (Member, Member) {
    let (mut member, mut other) =
        (Member::open(dir, engine).await, Member::open(&dir.join("other"), EngineKind::Memory).await);
    for commands in std::iter::once(large()).chain((0..ROUNDS).map(round)) {
        member.run(commands.clone()).await;
        other.run(commands).await;
    }
    member.drained().await;
    (member, other)
}

async fn compact_both(member: &mut Member, other: &mut Member) -> u64 {
    let revision = LARGE + KEYS * ROUNDS + 1;
    for member in [member, other] {
        member.run(vec![compact(revision)]).await;
    }
    revision
}

/// Writes a little on both until the directory of the first generation is gone.
async fn write_until_replaced(member: &mut Member, other: &mut Member, dir: &Path) -> u64 {
    let mut writes = 0;
    while generations(dir).iter().any(|name| name == "gen-1") {
        writes += 1;
        assert!(writes < 20_000, "the files stay as they are: {:?}", member.storage.status());
        let value = format!("{writes}");
        for member in [&mut *member, &mut *other] {
            member.run(vec![put("live", &value)]).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    writes
}

async fn shrinks(engine: EngineKind) {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, mut other) = loaded(dir.path(), engine).await;
    let before = member.storage.status().disk_bytes;
    assert!(before > 50 << 20, "{engine:?}: {before}");
    let revision = compact_both(&mut member, &mut other).await;
    let writes = write_until_replaced(&mut member, &mut other, dir.path()).await;
    for member in [&member, &other] {
        within(member.storage.scrubbed(Revision::new(revision))).await.unwrap();
        member.drained().await;
    }
    let after = member.storage.status().disk_bytes;
    assert!(after < before / 3, "{engine:?}: {before} became {after}");
    assert_eq!(member.image(), other.image(), "{engine:?}");
    assert_eq!(member.dump().await.id, other.dump().await.id, "{engine:?}");
    let image = member.image();
    member.close().await;
    let member = Member::open(dir.path(), engine).await;
    assert_eq!(member.image(), image, "{engine:?}");
    assert_eq!(member.get("live").unwrap(), writes.to_string());
    member.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sleds_files_are_replaced_by_smaller_ones() {
    shrinks(EngineKind::Sled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redbs_files_are_replaced_by_smaller_ones() {
    shrinks(EngineKind::Redb).await;
}

/// Dumps, and reads in the past, go on all the time; a reader in the old generation keeps it readable.
#[tokio::test(flavor = "multi_thread")]
async fn dumps_and_old_readers_do_not_mind() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, mut other) = loaded(dir.path(), EngineKind::Redb).await;
    let revision = compact_both(&mut member, &mut other).await;
    let storage = member.storage.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let at = ReadAt::Revision(Revision::new(revision));
        for key in (0..KEYS).cycle().take(2000) {
            let request = holdfast_mvcc::command::Range { at, ..range(key_range(&format!("key/{key}"))) };
            let (found, _) = storage.range(&request).unwrap();
            assert_eq!(found.kvs[0].value, noise((ROUNDS - 1) * KEYS + key), "key/{key}");
        }
    });
    for _ in 0..3 {
        member.dump().await;
        for member in [&mut member, &mut other] {
            member.run(vec![put("between", "dumps")]).await;
        }
    }
    write_until_replaced(&mut member, &mut other, dir.path()).await;
    assert_eq!(member.dump().await.id, other.dump().await.id);
    reader.await.unwrap();
    assert_eq!(member.image(), other.image());
    member.close().await;
}

/// A process that ends in the middle leaves a directory that the next start removes, and begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_one_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, mut other) = loaded(dir.path(), EngineKind::Sled).await;
    compact_both(&mut member, &mut other).await;
    let wait = async {
        while generations(dir.path()).len() < 2 {
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
    };
    within(wait).await;
    member.close().await;
    let mut member = Member::open(dir.path(), EngineKind::Sled).await;
    write_until_replaced(&mut member, &mut other, dir.path()).await;
    assert_eq!(member.image(), other.image());
    member.close().await;
}

/// The state that replaces ours while it is copied wins.
#[tokio::test(flavor = "multi_thread")]
async fn an_install_in_between_replaces_both() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, mut other) = loaded(dir.path(), EngineKind::Redb).await;
    compact_both(&mut member, &mut other).await;
    for number in 0..3 {
        other.run(vec![put("later", &format!("{number}"))]).await;
        let snapshot = other.dump().await;
        install(&snapshot, &member.storage).await.unwrap();
        assert_eq!(member.get("later").unwrap(), number.to_string());
        member.next = other.next;
    }
    assert_eq!(member.image(), other.image());
    let wait = async {
        while generations(dir.path()).len() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    within(wait).await;
    member.close().await;
}

/// There is always something to commit, and all the same what was compacted goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_never_pause_do_not_hold_the_scrub_back() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let (mut member, mut other) = loaded(dir.path(), engine).await;
        let revision = compact_both(&mut member, &mut other).await;
        let storage = member.storage.clone();
        let scrubbed = tokio::spawn(async move { storage.scrubbed(Revision::new(revision)).await });
        let value = "v".repeat(8 << 10);
        let mut answers = VecDeque::new();
        let writing = async {
            while !scrubbed.is_finished() {
                let batch = (0..64).map(|n| put(&format!("busy/{n}"), &value)).collect();
                answers.extend(member.dispatch(batch).await);
                while answers.len() > 512 {
                    answers.pop_front().unwrap().await.unwrap();
                }
            }
        };
        patiently(writing).await;
        within(scrubbed).await.unwrap().unwrap();
        member.close().await;
    }
}

/// Each batch comes with a compaction, and all the same what the first one made unreadable goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_that_never_pause_do_not_hold_the_scrub_back() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let (mut member, mut other) = loaded(dir.path(), engine).await;
        let mut revision = compact_both(&mut member, &mut other).await;
        let storage = member.storage.clone();
        let scrubbed = tokio::spawn(async move { storage.scrubbed(Revision::new(revision)).await });
        let value = "v".repeat(8 << 10);
        let compacting = async {
            while !scrubbed.is_finished() {
                let mut batch: Vec<_> = (0..64).map(|n| put(&format!("busy/{n}"), &value)).collect();
                revision += 64;
                batch.push(compact(revision));
                for answer in member.dispatch(batch).await {
                    answer.await.unwrap();
                }
            }
        };
        patiently(compacting).await;
        within(scrubbed).await.unwrap().unwrap();
        member.close().await;
    }
}

/// Nobody writes, and nobody has to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_replaced_goes_with_nobody_doing_anything() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let (mut member, mut other) = loaded(dir.path(), engine).await;
        compact_both(&mut member, &mut other).await;
        let gone = async {
            while generations(dir.path()).iter().any(|name| name == "gen-1") {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        within(gone).await;
        assert_eq!(member.image(), other.image(), "{engine:?}");
        member.close().await;
    }
}
