//! Tests of the running storage that look at what reaches the engine, or break it.

#[path = "../tests/common/mod.rs"]
pub(crate) mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use parking_lot::Mutex;

use crate::engine::tests::Watched;
use crate::engine::{self, Engine, EngineFactory};
use crate::types::{DispatchBody, DispatchItem, DispatcherState};
use crate::{EngineKind, EventSink, ReadError, Storage, StorageConfig, StorageError};

/// Memory engines that can be looked into.
fn watched() -> (EngineFactory, Arc<Mutex<Vec<Arc<Watched>>>>) {
    let made: Arc<Mutex<Vec<Arc<Watched>>>> = Arc::default();
    let kept = Arc::clone(&made);
    let disk: Arc<dyn holdfast_env::Disk> = Arc::new(holdfast_env::RealDisk);
    let factory: EngineFactory = Arc::new(move |dir| {
        let engine = Arc::new(Watched::new(engine::open(EngineKind::Memory, &disk, dir, 0)?));
        kept.lock().push(Arc::clone(&engine));
        Ok(engine as Arc<dyn Engine>)
    });
    (factory, made)
}

async fn open(env: &holdfast_env::Env, config: StorageConfig) -> (Member, Arc<Mutex<Vec<Arc<Watched>>>>) {
    let events = Arc::new(Events::default());
    let (factory, engines) = watched();
    let sink = Arc::clone(&events) as Arc<dyn EventSink>;
    let storage = Storage::open_with(env, config, sink, factory).await.unwrap();
    (Member::over(storage, events), engines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_to_the_engine_while_dumping() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated_env("dump-");
    let (mut member, engines) = open(&env, config(dir.path(), EngineKind::Memory)).await;
    member.run((0..100).map(|n| put(&format!("k{n}"), "before")).collect()).await;
    gate.close();
    let done = member.storage.start_dump().await.unwrap();
    let sealed_at = member.storage.status().visible;
    member.until("drained", |s| s.stable == sealed_at.log_id).await;
    let engine = Arc::clone(&engines.lock()[0]);
    let batches = engine.batches.load(Ordering::SeqCst);
    for n in 0..50 {
        member.run(vec![put(&format!("k{n}"), &"x".repeat(10_000))]).await;
    }
    member.run(vec![compact(120)]).await;
    let during = member.storage.status();
    assert_eq!(during.state, DispatcherState::Dumping);
    assert_eq!(during.stable, sealed_at.log_id, "the store stands still");
    assert!(during.memtable_bytes > 400_000);
    assert_eq!(member.get("k3"), Some("x".repeat(10_000)), "writes go on and are visible");
    assert_eq!(engine.batches.load(Ordering::SeqCst), batches);
    gate.open();
    let snapshot = within(done).await.unwrap();
    assert_eq!(snapshot.applied.log_id, sealed_at.log_id);
    member.until("merged", |s| s.state == DispatcherState::Normal).await;
    member.drained().await;
    assert!(engine.batches.load(Ordering::SeqCst) > batches);
    within(member.storage.scrubbed(holdfast_mvcc::types::Revision::new(120))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_reads_and_status_do_not_wait_for_an_evaluation() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, _) = open(&env(), config(dir.path(), EngineKind::Memory)).await;
    member.run(vec![put("k", "v")]).await;
    let request = range(key_range("k"));
    let (found, _) = member.storage.range_if_hot(&request).expect("it was just written").unwrap();
    assert_eq!(found.count, 1);
    let before = member.storage.status();
    assert_eq!(before.keys, 1);
    let view = member.storage.shared().view.load_full();
    let evaluating = view.state.write();
    // With a wait in either, this test would never end.
    assert!(member.storage.range_if_hot(&request).is_none());
    let during = member.storage.status();
    assert_eq!((during.keys, during.logical_bytes), (before.keys, before.logical_bytes));
    drop(evaluating);
    assert!(member.storage.range_if_hot(&request).is_some());
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_engine_poisons_and_answers_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, engines) = open(&env(), config(dir.path(), EngineKind::Memory)).await;
    member.run(vec![put("k", "v")]).await;
    member.drained().await;
    engines.lock()[0].broken.store(true, Ordering::SeqCst);
    let answers = member.run(vec![put("k", "w")]).await;
    assert_eq!(answers.len(), 1, "an answer does not wait for the store");
    member.until("poisoned", |s| s.state == DispatcherState::Poisoned).await;
    let refused = member.storage.dispatch(Vec::new()).await;
    assert!(matches!(refused, Err(StorageError::Poisoned { .. })), "{refused:?}");
    assert!(matches!(member.storage.start_dump().await, Err(StorageError::Poisoned { .. })));
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_is_an_error_and_not_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = StorageConfig { memory_bytes: 8 << 10, ..config(dir.path(), EngineKind::Memory) };
    let (mut member, engines) = open(&env(), tiny).await;
    for n in 0..100 {
        member.run(vec![put(&format!("k{n}"), &"x".repeat(1000))]).await;
    }
    member.drained().await;
    engines.lock()[0].broken.store(true, Ordering::SeqCst);
    assert!(matches!(member.get_at("k0", holdfast_mvcc::command::ReadAt::Latest), Err(ReadError::Store(_))));
    // Evaluation that needs the value cannot go on either.
    let (respond, answer) = tokio::sync::oneshot::channel();
    let body = DispatchBody::Command { command: swap("k0", "y", "z"), respond: Some(respond) };
    let dispatched = member.storage.dispatch(vec![DispatchItem { log_id: log_id(member.next), body }]).await;
    assert!(matches!(dispatched, Ok(()) | Err(StorageError::Poisoned { .. })), "{dispatched:?}");
    assert!(within(answer).await.is_err());
    member.until("poisoned", |s| s.state == DispatcherState::Poisoned).await;
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_cancels_a_dump() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut ahead = Member::open(dirs[0].path(), EngineKind::Memory).await;
    ahead.run((0..50).map(|n| put("k", &n.to_string())).collect()).await;
    let snapshot = ahead.dump().await;
    let (env, gate) = gated_env("dump-");
    let (mut behind, _) = open(&env, config(dirs[1].path(), EngineKind::Memory)).await;
    behind.run(vec![put("k", "0"), put("k", "1")]).await;
    gate.close();
    let dump = behind.storage.start_dump().await.unwrap();
    let storage = behind.storage.clone();
    let installing = tokio::spawn(async move { install(&snapshot, &storage).await });
    behind.until("installing", |s| s.state == DispatcherState::Installing).await;
    gate.open();
    within(installing).await.unwrap().unwrap();
    assert!(matches!(within(dump).await, Err(StorageError::DumpFailed { .. })));
    assert_eq!(behind.image(), ahead.image());
    behind.next = 50;
    behind.run(vec![put("k", "next")]).await;
    assert_eq!(behind.get("k"), Some("next".into()));
    behind.close().await;
    ahead.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_of_writes_does_not_leave_a_pack_each() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, engines) = open(&env(), config(dir.path(), EngineKind::Memory)).await;
    for n in 0..8 {
        member.run(vec![put("k", &n.to_string())]).await;
        member.drained().await;
    }
    let engine = Arc::clone(&engines.lock()[0]);
    assert_eq!(engine.batches.load(Ordering::SeqCst), 8);
    for kind in [b"m", b"v"] {
        assert_eq!(engine.scan(kind, 100, 1 << 20).unwrap().len(), 1);
    }
    assert_eq!(member.all().len(), 1);
    member.close().await;
}
