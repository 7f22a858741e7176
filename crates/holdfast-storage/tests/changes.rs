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
