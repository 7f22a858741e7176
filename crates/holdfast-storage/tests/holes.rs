//! The four holes of the design that this engine comes from, each closed. The first is in `failpoints.rs`, with a planted
//! fault: a delete that is merged must not be forgotten.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;

use common::*;
use holdfast_env::{Env, Failpoint, Faults};
use holdfast_mvcc::command::{Command, Op, Txn};
use holdfast_storage::*;

const ENGINES: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

/// Second hole (WH7): between the end of a dump and the end of the merge, what was written meanwhile is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_vanishes_between_the_end_of_a_dump_and_the_end_of_the_merge() {
    for engine in ENGINES {
        for at in [Failpoint::DumpFinishFenced, Failpoint::MergeMid, Failpoint::MergeDone] {
            let dir = tempfile::tempdir().unwrap();
            let stopped = Arc::new(StopAt::new(at));
            let (env, gate) = gated_env("dump-");
            let env = Env { faults: Faults::new(Arc::clone(&stopped) as _), ..env };
            let mut member = Member::open_in(&env, config(dir.path(), engine)).await;
            member.run(vec![put("k", "1"), put("gone", "1")]).await;
            gate.close();
            let dump = within(member.storage.start_dump()).await.unwrap();
            member.run(vec![put("k", "2"), put("new", "1"), delete("gone")]).await;
            let expected = member.image();
            gate.open();
            stopped.reached().await;
            assert_eq!(member.image(), expected, "{engine:?} at {at}");
            assert_eq!((member.get("k"), member.get("gone")), (Some("2".into()), None));
            stopped.let_go();
            within(dump).await.unwrap();
            member.drained().await;
            assert_eq!(member.image(), expected, "{engine:?} behind {at}");
            member.close().await;
        }
    }
}

/// Third hole (WH9): several workers put records out of order; it must not be seen, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_workers_leaves_the_same_state_and_order() {
    // Slices of more than 64 KiB, which go through the workers.
    let commands: Vec<Command> = (0..64)
        .map(|n: u32| {
            let value = format!("{n}-{}", "x".repeat(2000));
            let some = |key: u32| Op::Put(put_op(&format!("k{}", key % 9), &value));
            let ops = vec![some(n), some(n + 1), some(n + 4)];
            Command::Txn(Txn { compares: Vec::new(), success: ops, failure: Vec::new() })
        })
        .collect();
    let mut images = Vec::new();
    for workers in [1, 2, 3, 5, 8, 16] {
        let dir = tempfile::tempdir().unwrap();
        let many = StorageConfig { workers, ..config(dir.path(), EngineKind::Memory) };
        let mut member = Member::open_with(many).await;
        member.run(commands.clone()).await;
        member.run(commands.clone()).await;
        member.drained().await;
        let events: Vec<_> =
            member.events.0.lock().unwrap().iter().flat_map(|(some, _)| some.clone()).collect();
        assert_eq!(events.len(), 2 * 64 * 3);
        assert!(events.windows(2).all(|two| two[0].id < two[1].id), "{workers} workers");
        let snapshot = member.dump().await;
        images.push((member.image(), snapshot.id));
        member.close().await;
    }
    assert!(images.windows(2).all(|two| two[0] == two[1]));
}

/// Fourth hole (WH4, I1): the log may go up to a snapshot, so the store is durable up to there before it is dumped, and
/// stays there when the log goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_never_ahead_of_what_the_store_has_on_disk() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let stopped = Arc::new(StopAt::new(Failpoint::DumpReadBlock));
        let env = Env { faults: Faults::new(Arc::clone(&stopped) as _), ..env() };
        let mut member = Member::open_in(&env, config(dir.path(), engine)).await;
        member.run((0..50).map(|n| put("k", &n.to_string())).collect()).await;
        let dump = within(member.storage.start_dump()).await.unwrap();
        stopped.reached().await;
        let status = member.storage.status();
        assert_eq!((status.durable, status.stable), (Some(log_id(49)), Some(log_id(49))), "{engine:?}");
        assert_eq!(status.snapshot, None, "not before it is whole");
        stopped.let_go();
        let snapshot = within(dump).await.unwrap();
        let status = member.storage.status();
        assert!(snapshot.applied.log_id <= status.durable, "{status:?}");
        assert_eq!(status.snapshot, snapshot.applied.log_id);
        member.close().await;
    }
}
