//! The life of a dump: who may end it, what it waits for, and what happens to it when something else comes in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use holdfast_env::{BoxFuture, Clock, Env, Failpoint, Faults, Monotonic, UnixMillis};
use holdfast_storage::*;

const ENGINES: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

fn cancelled<T>(result: &Result<T, StorageError>) -> Option<CancelReason> {
    match result {
        Err(StorageError::DumpCancelled { reason }) => Some(*reason),
        _ => None,
    }
}

/// What is in the directory of the snapshots.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("snapshots")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A clock that can be put forward.
struct Ahead {
    inner: Arc<dyn Clock>,
    by_ms: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Monotonic {
        self.inner.now().after(Duration::from_millis(self.by_ms.load(Ordering::SeqCst)))
    }
    fn wall(&self) -> UnixMillis {
        self.inner.wall()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }
}

fn with_clock(env: Env) -> (Env, Arc<Ahead>) {
    let clock = Arc::new(Ahead { inner: Arc::clone(&env.clock), by_ms: AtomicU64::new(0) });
    (Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..env }, clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_dump_leaves_the_older_snapshot_and_nothing_else() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (env, gate) = gated_env("dump-");
        let mut member = Member::open_in(&env, config(dir.path(), engine)).await;
        assert!(!member.storage.cancel_dump(CancelReason::Admin), "none runs");
        member.run(vec![put("k", "1")]).await;
        let older = member.dump().await;
        member.until("merged", |s| s.state == DispatcherState::Normal).await;
        member.run(vec![put("k", "2")]).await;
        gate.close();
        let first = within(member.storage.start_dump()).await.unwrap();
        let joined = within(member.storage.start_dump()).await.unwrap();
        member.run(vec![put("k", "3")]).await;
        let pending = within(member.storage.start_dump()).await.unwrap();
        assert!(member.storage.cancel_dump(CancelReason::Admin));
        gate.open();
        assert_eq!(cancelled(&within(first).await), Some(CancelReason::Admin), "{engine:?}");
        assert_eq!(cancelled(&within(joined).await), Some(CancelReason::Admin));
        let next = within(pending).await.unwrap();
        assert_eq!(next.applied.log_id, Some(log_id(2)), "who waits for the next one gets it");
        assert!(next.applied.log_id > older.applied.log_id);
        member.until("merged", |s| s.state == DispatcherState::Normal).await;
        assert_eq!(names(dir.path()), [format!("{}.snap", next.id)]);
        let figures = member.storage.status().dispatch;
        let ends: Vec<_> = figures.dumps.iter().map(|(result, count, _)| (result.label(), *count)).collect();
        assert_eq!(ends, [("ok", 2), ("admin", 1)]);
        let image = member.image();
        member.close().await;
        if engine != EngineKind::Memory {
            let member = Member::open(dir.path(), engine).await;
            assert_eq!(member.image(), image);
            member.close().await;
        }
    }
}

/// WH22: a dump on demand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_ends_at_its_deadline_and_the_next_one_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated_env("dump-");
    let (env, clock) = with_clock(env);
    let mut member = Member::open_in(&env, config(dir.path(), EngineKind::Redb)).await;
    member.run(vec![put("k", "1")]).await;
    gate.close();
    let dump = within(member.storage.start_dump_by_policy()).await.unwrap();
    member.until("it has begun", |s| s.state == DispatcherState::Dumping).await;
    clock.by_ms.store(30 * 60 * 1000, Ordering::SeqCst);
    gate.open();
    assert_eq!(cancelled(&within(dump).await), Some(CancelReason::Deadline));
    assert!(names(dir.path()).is_empty());
    let refused = member.storage.start_dump_by_policy().await.err();
    assert!(matches!(refused, Some(StorageError::DumpPostponed { wait }) if wait > Duration::from_secs(20)));
    clock.by_ms.fetch_add(31_000, Ordering::SeqCst);
    within(within(member.storage.start_dump_by_policy()).await.unwrap()).await.unwrap();
    member.close().await;
}

/// K24, in a dump.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_cancels_the_dump_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated_env("dump-");
    let mut member = Member::open_in(&env, config(dir.path(), EngineKind::Redb)).await;
    member.run(vec![put("k", "1")]).await;
    let older = member.dump().await;
    member.run(vec![put("k", "2")]).await;
    gate.fail(Some(io::ErrorKind::StorageFull));
    let dump = within(member.storage.start_dump()).await.unwrap();
    assert_eq!(cancelled(&within(dump).await), Some(CancelReason::NoSpace));
    member.until("merged", |s| s.state == DispatcherState::Normal).await;
    assert_eq!(names(dir.path()), [format!("{}.snap", older.id)]);
    assert_eq!(member.storage.current_snapshot().unwrap().id, older.id);
    member.run(vec![put("k", "3")]).await;
    assert!(matches!(
        member.storage.start_dump_by_policy().await.err(),
        Some(StorageError::DumpPostponed { .. })
    ));
    gate.fail(None);
    assert_eq!(member.dump().await.applied.log_id, Some(log_id(2)));
    drop(within(member.storage.start_dump_by_policy()).await.unwrap());
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_not_begun_without_room_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated_env("dump-");
    let mut member = Member::open_in(&env, config(dir.path(), EngineKind::Memory)).await;
    member.run(vec![put("k", &"x".repeat(10_000))]).await;
    gate.set_free(20_000);
    let refused = member.storage.start_dump().await.err().unwrap();
    let StorageError::NoSpaceForDump { free_bytes: 20_000, needed_bytes, .. } = &refused else {
        panic!("{refused:?}");
    };
    assert!(*needed_bytes > 20_000 && *needed_bytes < 22_000, "{needed_bytes}");
    assert!(refused.to_string().contains("free space on that disk"), "{refused}");
    assert_eq!(member.storage.status().state, DispatcherState::Normal);
    gate.set_free(22_000);
    within(within(member.storage.start_dump()).await.unwrap()).await.unwrap();
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_a_dump() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let (env, gate) = gated_env("dump-");
        let mut member = Member::open_in(&env, config(dir.path(), engine)).await;
        member.run(vec![put("k", "1")]).await;
        gate.close();
        let dump = within(member.storage.start_dump()).await.unwrap();
        member.run(vec![put("k", "2")]).await;
        let storage = member.storage.clone();
        let ended = tokio::spawn(async move { storage.shutdown().await });
        let heard = async {
            while member.storage.dispatch(Vec::new()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(heard).await;
        gate.open();
        let ended_as = within(dump).await;
        // Which of the two the dispatcher hears of first is not decided: the end of the dump, or its own.
        assert!(
            cancelled(&ended_as) == Some(CancelReason::Shutdown)
                || matches!(ended_as, Err(StorageError::Closed)),
            "{engine:?}: {ended_as:?}"
        );
        within(ended).await.unwrap();
        drop(member);
        assert!(names(dir.path()).is_empty());
        if engine != EngineKind::Memory {
            let member = Member::open(dir.path(), engine).await;
            assert_eq!(member.get("k"), Some("2".into()), "the overlay was stored on the way out");
            member.close().await;
        }
    }
}

/// The queue is full and the memory budget used up; what ends the dump still gets through, and an install, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_events_do_not_wait_behind_writes() {
    for installs in [false, true] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
        source.run((0..2000).map(|n| put("far", &n.to_string())).collect()).await;
        let newer = source.dump().await;
        let (env, gate) = gated_env("dump-");
        let tiny = StorageConfig { memory_bytes: 128 << 10, ..config(dirs[1].path(), EngineKind::Redb) };
        let mut member = Member::open_in(&env, tiny).await;
        member.run(vec![put("k", "0")]).await;
        gate.close();
        let dump = within(member.storage.start_dump()).await.unwrap();
        let value = "x".repeat(20_000);
        // One message more than the queue takes, beside what the dispatcher has taken.
        let full = async {
            loop {
                let one = member.dispatch(vec![put("k", &value)]);
                if tokio::time::timeout(Duration::from_millis(200), one).await.is_err() {
                    return;
                }
            }
        };
        within(full).await;
        let status = member.storage.status();
        assert!(status.memtable_bytes >= 64 << 10, "{status:?}");
        assert_eq!(status.state, DispatcherState::Dumping);
        if installs {
            let storage = member.storage.clone();
            let installed = tokio::spawn(async move { install(&newer, &storage).await });
            member.until("the install is taken", |s| s.state == DispatcherState::Installing).await;
            gate.open();
            assert_eq!(cancelled(&within(dump).await), Some(CancelReason::Install));
            within(installed).await.unwrap().unwrap();
            assert_eq!(member.get("far"), Some("1999".into()));
        } else {
            gate.open();
            within(dump).await.unwrap();
            let written = member.next;
            member.until("all is applied", |s| s.visible.log_id >= Some(log_id(written - 2))).await;
            assert_eq!(member.get("k"), Some(value));
        }
        source.close().await;
        member.close().await;
    }
}

/// A dump during an install waits for its end and shows the new state; a second install is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_during_an_install_shows_what_was_installed() {
    for engine in ENGINES {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
        source.run((0..100).map(|n| put("k", &n.to_string())).collect()).await;
        let snapshot = source.dump().await;
        // The switch stands still until it is let go.
        let stopped = Arc::new(StopAt::new(Failpoint::InstallSwitched));
        let env = Env { faults: Faults::new(Arc::clone(&stopped) as _), ..env() };
        let mut member = Member::open_in(&env, config(dirs[1].path(), engine)).await;
        member.run(vec![put("mine", "1")]).await;
        let (storage, sent) = (member.storage.clone(), snapshot.clone());
        let installing = tokio::spawn(async move { install(&sent, &storage).await });
        stopped.reached().await;
        let storage = member.storage.clone();
        let dump = tokio::spawn(async move { storage.start_dump().await.unwrap().await });
        let storage = member.storage.clone();
        let again = tokio::spawn(async move { install(&snapshot, &storage).await });
        stopped.let_go();
        within(installing).await.unwrap().unwrap();
        let dumped = within(dump).await.unwrap().unwrap();
        assert_eq!(dumped.applied.log_id, Some(log_id(99)), "{engine:?}");
        within(again).await.unwrap().unwrap();
        assert_eq!(member.image(), source.image(), "{engine:?}");
        let skipped = member.storage.status().dispatch.skipped_snapshots;
        assert!(skipped <= 1, "{skipped}");
        member.close().await;
        source.close().await;
    }
}

/// An install while the overlay of a dump is merged: the rest of the overlay goes first, then the state is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_during_a_merge_replaces_the_state() {
    for engine in ENGINES {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
        source.run((0..100).map(|n| put("k", &n.to_string())).collect()).await;
        let snapshot = source.dump().await;
        let stopped = Arc::new(StopAt::new(Failpoint::MergeMid));
        let (env, gate) = gated_env("dump-");
        let env = Env { faults: Faults::new(Arc::clone(&stopped) as _), ..env };
        let mut member = Member::open_in(&env, config(dirs[1].path(), engine)).await;
        member.run(vec![put("mine", "1")]).await;
        gate.close();
        let dump = within(member.storage.start_dump()).await.unwrap();
        member.run(vec![put("mine", "2")]).await;
        gate.open();
        within(dump).await.unwrap();
        stopped.reached().await;
        let storage = member.storage.clone();
        let waits = tokio::spawn(async move { storage.start_dump().await.unwrap().await });
        member.until("the request is taken", |s| s.queue_messages == 0).await;
        let storage = member.storage.clone();
        let installing = tokio::spawn(async move { install(&snapshot, &storage).await });
        member.until("the install is taken", |s| s.state == DispatcherState::Installing).await;
        stopped.let_go();
        within(installing).await.unwrap().unwrap();
        let waited = within(waits).await.unwrap();
        // Asked for before the install: cancelled by it, unless it came to the dispatcher behind it.
        assert!(cancelled(&waited) == Some(CancelReason::Install) || waited.is_ok(), "{waited:?}");
        assert_eq!(member.image(), source.image(), "{engine:?}");
        member.next = 100;
        member.run(vec![put("k", "behind")]).await;
        member.drained().await;
        assert_eq!(member.get("k"), Some("behind".into()));
        member.close().await;
        source.close().await;
    }
}

fn pages(count: u64) -> Vec<holdfast_mvcc::command::Command> {
    (0..count).map(|n| put(&format!("k{n}"), &"x".repeat(20_000))).collect()
}

/// Above a quarter of the budget the oldest of what waits is stored under the dump (K20), which does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_stored_under_the_dump_and_the_dump_does_not_notice() {
    for engine in ENGINES {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let stopped = Arc::new(StopAt::new(Failpoint::DumpReadBlock));
        let env = Env { faults: Faults::new(Arc::clone(&stopped) as _), ..env() };
        // Of a small budget half goes to what sled takes in any case.
        let memory_bytes = if engine == EngineKind::Sled { 16 << 20 } else { 8 << 20 };
        let small = StorageConfig { memory_bytes, ..config(dirs[0].path(), engine) };
        let mut member = Member::open_in(&env, small).await;
        for some in pages(200).chunks(20) {
            member.run(some.to_vec()).await;
        }
        // A commit of its own: the last pack is small, and the next commit would go on in it.
        member.drained().await;
        member.run(vec![delete("k7"), put("small", "before")]).await;
        let before = member.image();
        let dump = within(member.storage.start_dump()).await.unwrap();
        stopped.reached().await;
        let sealed_at = member.storage.status().stable;
        // 3 MiB are more than a quarter of the 8 that are shared out, and less than a half.
        member.run((0..150).map(|n| put(&format!("k{n}"), &"y".repeat(20_000))).collect()).await;
        member.run(vec![delete("k9"), put("small", "after"), compact(100)]).await;
        stopped.let_go();
        let snapshot = within(dump).await.unwrap();
        member.until("merged", |s| s.state == DispatcherState::Normal).await;
        assert!(stopped.count(Failpoint::DrainUnderDumpMid) > 0, "{engine:?}");
        assert_eq!(snapshot.applied.log_id, sealed_at);
        let figures = member.storage.status().dispatch;
        assert_eq!(figures.pressure[..2], [0, 1], "{engine:?}: it came to the second level at once");
        let target = Member::open(dirs[1].path(), EngineKind::Memory).await;
        install(&snapshot, &target.storage).await.unwrap();
        assert_eq!(target.image(), before, "{engine:?}");
        member.drained().await;
        let image = member.image();
        member.close().await;
        target.close().await;
        if engine != EngineKind::Memory {
            let member = Member::open(dirs[0].path(), engine).await;
            assert_eq!(member.image(), image, "{engine:?}");
            member.close().await;
        }
    }
}

/// At half of the budget a dump that nobody needs ends; one that somebody needs holds entries back and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_half_of_the_budget_only_a_dump_that_is_needed_goes_on() {
    for demanded in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let stopped = Arc::new(StopAt::new(Failpoint::DumpReadBlock));
        let env = Env { faults: Faults::new(Arc::clone(&stopped) as _), ..env() };
        let small = StorageConfig { memory_bytes: 4 << 20, ..config(dir.path(), EngineKind::Redb) };
        let mut member = Member::open_in(&env, small).await;
        for some in pages(60).chunks(20) {
            member.run(some.to_vec()).await;
        }
        let dump = match demanded {
            true => within(member.storage.start_dump()).await.unwrap(),
            false => within(member.storage.start_dump_by_policy()).await.unwrap(),
        };
        stopped.reached().await;
        let written = member.dispatch(pages(150)).await;
        member.until("entries are held back", |s| s.memtable_bytes >= 2 << 20).await;
        let highest = member.storage.status().memtable_bytes;
        assert!(highest < (2 << 20) + 64 * 21_000, "{highest}");
        stopped.let_go();
        let ended = within(dump).await;
        for answer in written {
            within(answer).await.unwrap();
        }
        if demanded {
            ended.unwrap();
        } else {
            assert_eq!(cancelled(&ended), Some(CancelReason::Overlay));
            member.until("merged", |s| s.state == DispatcherState::Normal).await;
            let wait = member.storage.start_dump_by_policy().await.err();
            assert!(matches!(wait, Some(StorageError::DumpPostponed { .. })));
        }
        member.drained().await;
        member.close().await;
    }
}
