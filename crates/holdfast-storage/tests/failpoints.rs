//! That every point of the crash table is reached, in its order, and that the planted faults do harm.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::sync::Arc;

use common::*;
use holdfast_env::{Env, Failpoint, Fault, Faults};
use holdfast_storage::*;

const ENGINES: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

/// A dump with writes during it, in the order in which its points are reached.
const DUMP: [Failpoint; 13] = [
    Failpoint::DumpStartQueued,
    Failpoint::DumpStartSealed,
    Failpoint::DumpStartFenced,
    Failpoint::DumpStartDrained,
    Failpoint::DumpReadBlock,
    Failpoint::DumpWriteBlock,
    Failpoint::DumpFileSynced,
    Failpoint::DumpFileRenamed,
    Failpoint::DumpCurrentUpdated,
    Failpoint::DumpFinishFenced,
    Failpoint::CommitBeforeFlush,
    Failpoint::MergeMid,
    Failpoint::MergeDone,
];

/// An install.
const INSTALL: [Failpoint; 6] = [
    Failpoint::InstallRecv,
    Failpoint::InstallVerified,
    Failpoint::DumpFileRenamed,
    Failpoint::InstallGenWritten,
    Failpoint::InstallSwitched,
    Failpoint::InstallCleanup,
];

/// True when `points` occur among `hits` in this order.
fn in_order(hits: &[Failpoint], points: &[Failpoint]) -> bool {
    let mut left = points.iter().peekable();
    for hit in hits {
        left.next_if_eq(&hit);
    }
    left.peek().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_point_is_reached_in_its_order() {
    for engine in ENGINES {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let noted = Arc::new(Noted::default());
        let (env, gate) = gated_env("dump-");
        let env = Env { faults: Faults::new(Arc::clone(&noted) as Arc<dyn holdfast_env::Sabotage>), ..env };
        let taken = || std::mem::take(&mut *noted.hits.lock().unwrap());
        let mut member = Member::open_in(&env, config(dirs[0].path(), engine)).await;
        member.run(vec![put("large", &"x".repeat(3 << 20))]).await;
        member.drained().await;
        let commit = [Failpoint::ApplyAfterCommit, Failpoint::CommitMidBatch, Failpoint::CommitBeforeFlush];
        assert!(in_order(&taken(), &commit), "{engine:?}");

        gate.close();
        let dump = within(member.storage.start_dump()).await.unwrap();
        member.run(vec![put("during", "the dump")]).await;
        gate.open();
        let snapshot = within(dump).await.unwrap();
        member.until("merged", |s| s.state == DispatcherState::Normal).await;
        let hits = taken();
        assert!(in_order(&hits, &DUMP), "{engine:?}: {hits:?}");

        let mut target = Member::open_in(&env, config(dirs[1].path(), engine)).await;
        target.run(vec![]).await;
        install(&snapshot, &target.storage).await.unwrap();
        // The committer goes on when the install is done for us already.
        target.next = 1;
        target.run(vec![put("during", "the dump")]).await;
        target.drained().await;
        let hits = taken();
        assert!(in_order(&hits, &INSTALL), "{engine:?}: {hits:?}");
        member.close().await;
        target.close().await;
    }
}

/// One thread: what was dispatched just before is still on its way when the dump begins.
#[tokio::test(flavor = "current_thread")]
async fn a_dump_without_its_fence_misses_what_was_on_its_way() {
    for (env, differs) in [(one_thread(), false), (planted(one_thread(), Fault::DumpWithoutFence), true)] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut source = Member::open_in(&env, config(dirs[0].path(), EngineKind::Memory)).await;
        source.run(vec![put("a", "1")]).await;
        let answers = source.dispatch(vec![put("b", "2")]).await;
        let snapshot = source.dump().await;
        for answer in answers {
            within(answer).await.unwrap();
        }
        assert_eq!(snapshot.applied.log_id, Some(log_id(1)));
        let target = Member::open_in(&one_thread(), config(dirs[1].path(), EngineKind::Memory)).await;
        install(&snapshot, &target.storage).await.unwrap();
        assert_eq!(target.all() != source.all(), differs, "{:?}", target.all());
        source.close().await;
        target.close().await;
    }
}

/// WH6: an older write never wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_merge_that_knows_no_deletes_brings_keys_back_with_a_restart() {
    for (is_planted, after) in [(false, None), (true, Some("1".to_owned()))] {
        let dir = tempfile::tempdir().unwrap();
        let (env, gate) = gated_env("dump-");
        let env = if is_planted { planted(env, Fault::MergeWithoutGuard) } else { env };
        let mut member = Member::open_in(&env, config(dir.path(), EngineKind::Redb)).await;
        member.run(vec![put("k", "1")]).await;
        gate.close();
        let dump = within(member.storage.start_dump()).await.unwrap();
        member.run(vec![delete("k")]).await;
        gate.open();
        within(dump).await.unwrap();
        member.drained().await;
        assert_eq!(member.get("k"), None);
        member.close().await;
        let member = Member::open(dir.path(), EngineKind::Redb).await;
        assert_eq!(member.get("k"), after);
        member.close().await;
    }
}
