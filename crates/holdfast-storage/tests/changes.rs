//! What watches read: all changes from a revision on, what was before a change, and what the event sink is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::*;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{Change, Record, Revision};
use holdfast_storage::*;

const ENGINES: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

const ALL: ChangesMax = ChangesMax { revisions: usize::MAX, bytes: usize::MAX };

fn rev(revision: u64) -> Revision {
    Revision::new(revision)
}

/// What a record did, in short.
fn told(record: &Record) -> (u64, String) {
    let what = match &record.change {
        Change::Put(put) => format!("={}", String::from_utf8_lossy(&put.value)),
        Change::Delete => " gone".to_owned(),
    };
    (record.id.revision.get(), format!("{}{what}", String::from_utf8_lossy(&record.key)))
}

fn changes(member: &Member, from: u64) -> Vec<(u64, String)> {
    let found = member.storage.changes(rev(from), ALL).unwrap();
    found.records.iter().map(told).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_whole_revisions_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    let pair = Command::Txn(Txn {
        compares: Vec::new(),
        success: vec![Op::Put(put_op("a", "1")), Op::Put(put_op("b", "2"))],
        failure: Vec::new(),
    });
    member.run(vec![put("x", "0"), pair, delete("a")]).await;
    let expected = [(2, "x=0"), (3, "a=1"), (3, "b=2"), (4, "a gone")].map(|(r, what)| (r, what.to_owned()));
    for drained in [false, true] {
        if drained {
            member.drained().await;
        }
        assert_eq!(changes(&member, 0), expected);
        assert_eq!(changes(&member, 3), expected[1..]);
        let one = member.storage.changes(rev(2), ChangesMax { revisions: 2, bytes: usize::MAX }).unwrap();
        assert_eq!((one.records.len(), one.through, one.newest), (3, rev(3), rev(4)));
        let least = member.storage.changes(rev(3), ChangesMax { revisions: 1, bytes: 0 }).unwrap();
        assert_eq!((least.records.len(), least.through), (2, rev(3)), "a revision is never cut");
        let future = member.storage.changes(rev(7), ALL).unwrap();
        assert_eq!((future.records.len(), future.through, future.newest), (0, rev(6), rev(4)));
    }
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_before_a_change() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open(dir.path(), engine).await;
        member.run(vec![put("k", "1"), put("k", "2"), delete("k"), put("k", "3")]).await;
        let records = member.storage.changes(rev(0), ALL).unwrap().records;
        let before = |records: &[Record]| -> Vec<Option<(String, u64)>> {
            let found = member.storage.previous(records).unwrap().into_iter();
            found.map(|kv| kv.map(|kv| (String::from_utf8(kv.value.to_vec()).unwrap(), kv.version))).collect()
        };
        let expected = [None, Some(("1".to_owned(), 1)), Some(("2".to_owned(), 2)), None];
        assert_eq!(before(&records), expected, "{engine:?}");
        let hot: Vec<_> = records.iter().map(|r| member.storage.previous_if_hot(r).unwrap()).collect();
        assert_eq!(hot, member.storage.previous(&records).unwrap());
        member.close().await;
    }
}

fn range_delete(from: &str, before: &str) -> Command {
    let end = holdfast_mvcc::types::RangeEnd::Before(before.to_owned().into());
    let range = holdfast_mvcc::types::KeyRange { start: from.to_owned().into(), end };
    Command::DeleteRange(DeleteRange { range, prev_kv: false })
}

/// A watch from exactly the compact revision misses nothing that happened at it: not what was deleted there, and not
/// after a scrub, a restart, a dump, an install, or on another member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_exactly_the_compact_revision_stays() {
    for engine in ENGINES {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut member = Member::open(dirs[0].path(), engine).await;
        let last = Command::Txn(Txn {
            compares: Vec::new(),
            success: vec![
                Op::Put(put_op("d", "new")),
                Op::DeleteRange(DeleteRange { range: key_range("a"), prev_kv: false }),
                Op::DeleteRange(DeleteRange { range: key_range("never"), prev_kv: false }),
                Op::Put(put_op("e", "first")),
            ],
            failure: Vec::new(),
        });
        member.run(vec![put("a", "1"), put("b", "1"), put("c", "1"), put("d", "1"), put("a", "2")]).await;
        member.run(vec![range_delete("b", "d"), last, put("a", "3"), delete("e")]).await;
        // 7: b and c are deleted. 8: d is put, a deleted, e created. 9: a is created. 10: e is deleted.
        let told = |some: &[(u64, &str)]| -> Vec<(u64, String)> {
            some.iter().map(|(revision, what)| (*revision, (*what).to_owned())).collect()
        };
        let later = [(8, "d=new"), (8, "a gone"), (8, "e=first"), (9, "a=3"), (10, "e gone")];
        let at_seven = told(&[&[(7, "b gone"), (7, "c gone")], &later[..]].concat());
        for (compacted, expected) in [(7, at_seven), (8, told(&later)), (10, told(&later[4..]))] {
            member.run(vec![compact(compacted)]).await;
            let hash = member.storage.history_hash(None).unwrap();
            assert_eq!(changes(&member, compacted), expected, "{engine:?}: {compacted}, before the scrub");
            within(member.storage.scrubbed(rev(compacted))).await.unwrap();
            assert_eq!(changes(&member, compacted), expected, "{engine:?}: {compacted}, after the scrub");
            let records = member.storage.changes(rev(compacted), ALL).unwrap().records;
            let before = member.storage.previous(&records).unwrap();
            let at_it = records.iter().zip(before).filter(|(record, _)| record.id.revision == rev(compacted));
            assert!(at_it.into_iter().all(|(_, before)| before.is_none()), "what was before is compacted");
            let snapshot = member.dump().await;
            let other = tempfile::tempdir().unwrap();
            let installed = Member::open(other.path(), engine).await;
            install(&snapshot, &installed.storage).await.unwrap();
            assert_eq!(changes(&installed, compacted), expected, "{engine:?}: {compacted}, after an install");
            assert_eq!(installed.storage.history_hash(None).unwrap(), hash);
            installed.close().await;
            member.close().await;
            member = Member::open(dirs[0].path(), engine).await;
            assert_eq!(changes(&member, compacted), expected, "{engine:?}: {compacted}, after a restart");
            assert_eq!(member.storage.history_hash(None).unwrap(), hash);
        }
        let mut straight = Member::open(dirs[1].path(), EngineKind::Memory).await;
        straight.run(vec![put("x", "1"), delete("x"), compact(3)]).await;
        assert_eq!(changes(&straight, 3), told(&[(3, "x gone")]), "the newest revision is compacted, too");
        straight.close().await;
        member.close().await;
    }
}

/// Catches up again and again, and says how far it came: the revisions come one by one, or it is told that they are
/// compacted.
fn follow(storage: &Storage, until: u64) -> u64 {
    let (mut next, mut seen) = (2, 0);
    while next <= until {
        let found = match storage.changes(rev(next), ChangesMax { revisions: 40, bytes: 64 << 10 }) {
            Ok(found) => found,
            Err(ReadError::Refused(Refusal::Compacted { compact_revision, .. })) => {
                assert!(compact_revision > rev(next));
                next = compact_revision.get();
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        for record in &found.records {
            assert_eq!(record.id.revision, rev(next), "none is missing");
            let Change::Put(put) = &record.change else { panic!("{record:?}") };
            assert!(put.value.starts_with(format!("{next} ").as_bytes()), "{record:?}");
            next += 1;
        }
        assert_eq!(found.through, rev(next - 1));
        let before = storage.previous(&found.records).unwrap();
        for (record, before) in found.records.iter().zip(before) {
            if let Some(before) = before {
                assert_eq!(
                    (before.mod_revision.get() + 5, &before.key),
                    (record.id.revision.get(), &record.key)
                );
            }
        }
        seen += found.records.len() as u64;
        if found.records.is_empty() {
            std::thread::yield_now();
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_miss_nothing_while_everything_moves() {
    const REVISIONS: u64 = 1500;
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let small = StorageConfig { memory_bytes: 512 << 10, ..config(dir.path(), engine) };
        let mut member = Member::open_with(small).await;
        let follow = || {
            let storage = member.storage.clone();
            tokio::task::spawn_blocking(move || follow(&storage, REVISIONS + 1))
        };
        let followers = [follow(), follow()];
        for first in (2..REVISIONS + 2).step_by(50) {
            let value = |n: u64| format!("{n} {}", "x".repeat(usize::try_from(n * 37 % 2000).unwrap()));
            member.run((first..first + 50).map(|n| put(&format!("k{}", n % 5), &value(n))).collect()).await;
            match first / 50 % 6 {
                2 => drop(member.run(vec![compact(first - 30)]).await),
                4 => drop(member.dump().await),
                _ => {}
            }
        }
        for follower in followers {
            let seen = within(follower).await.unwrap();
            assert!(seen > 0, "{engine:?}");
        }
        member.close().await;
    }
}
