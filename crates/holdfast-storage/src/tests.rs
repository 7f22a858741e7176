//! Tests of the running storage that look at what reaches the engine, or break it.

#[path = "../tests/common/mod.rs"]
pub(crate) mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::*;
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::{Range, SortOrder, SortTarget};
use holdfast_mvcc::types::{KeyRange, RangeEnd, Revision};
use parking_lot::Mutex;

use crate::engine::tests::Watched;
use crate::engine::{self, Engine, EngineFactory};
use crate::types::{DispatchBody, DispatchItem, DispatcherState};
use crate::{
    CancelReason, ChangesMax, EngineKind, EventSink, ReadError, Storage, StorageConfig, StorageError,
};

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

/// WH11: writes of a dump go to the overlay.
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
async fn a_read_is_long_by_the_keys_that_it_looks_at() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, _) = open(&env(), config(dir.path(), EngineKind::Memory)).await;
    let mut written = 0;
    for (keys, is_long) in [(100, false), (1_000, false), (1_100, true), (2_000, true), (9_000, true)] {
        member.run((written..keys).map(|n| put(&format!("k{n:05}"), "v")).collect()).await;
        written = keys;
        let all = Range {
            range: KeyRange { start: "k".into(), end: RangeEnd::Before("l".into()) },
            ..range(key_range("k"))
        };
        let of = |request: &Range| member.storage.is_long(request);
        assert_eq!(of(&all), is_long, "{keys} keys");
        assert!(!of(&Range { limit: Some(10), ..all.clone() }));
        assert!(!of(&Range { limit: Some(500), ..all.clone() }));
        assert_eq!(of(&Range { limit: Some(5_000), ..all.clone() }), is_long);
        assert!(!of(&Range { count_only: true, ..all.clone() }));
        // The first by another order: all of them are looked at.
        let newest =
            Range { limit: Some(1), order: SortOrder::Ascend, target: SortTarget::Create, ..all.clone() };
        assert_eq!(of(&newest), is_long);
        assert!(!of(&Range { range: key_range("k00007"), ..all }));
    }
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
    let body = DispatchBody::Command {
        command: swap("k0", "y", "z"),
        caller: Caller::Server,
        respond: Some(respond),
    };
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
    // Cancelled before, it would end at once, and nobody would see the state.
    gate.until_it_holds().await;
    let storage = behind.storage.clone();
    let installing = tokio::spawn(async move { install(&snapshot, &storage).await });
    behind.until("installing", |s| s.state == DispatcherState::Installing).await;
    gate.open();
    within(installing).await.unwrap().unwrap();
    assert!(matches!(within(dump).await, Err(StorageError::DumpCancelled { reason: CancelReason::Install })));
    assert_eq!(behind.image(), ahead.image());
    behind.next = 50;
    behind.run(vec![put("k", "next")]).await;
    assert_eq!(behind.get("k"), Some("next".into()));
    behind.close().await;
    ahead.close().await;
}

const ALL: ChangesMax = ChangesMax { revisions: usize::MAX, bytes: usize::MAX };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_near_the_head_read_nothing_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    // A ring of 64 KiB, next to no cache.
    let small = StorageConfig { memory_bytes: 4 << 20, ..config(dir.path(), EngineKind::Memory) };
    let (mut member, engines) = open(&env(), small).await;
    let value = "x".repeat(500);
    for _ in 0..20 {
        member.run((0..100).map(|n| put(&format!("k{n}"), &value)).collect()).await;
    }
    member.drained().await;
    let engine = Arc::clone(&engines.lock()[0]);
    let newest = member.storage.visible().borrow().revision.get();
    let read = |from: u64, max: ChangesMax| {
        let before = engine.reads.load(Ordering::SeqCst);
        let found = member.storage.changes(Revision::new(from), max).unwrap();
        (found.records.len(), engine.reads.load(Ordering::SeqCst) - before)
    };
    assert_eq!(newest, 2001);
    assert_eq!(read(newest - 49, ALL), (50, 0), "from memory");
    assert_eq!(read(newest, ALL), (1, 0));
    assert_eq!(read(newest + 1, ALL), (0, 0));
    // One run holds about 60 of them; a slice from far back costs where it lies, not what lies behind it.
    let slice = ChangesMax { revisions: 50, bytes: 64 << 10 };
    for from in [1, 700, 1400] {
        let (records, reads) = read(from, slice);
        assert_eq!(records, 50);
        assert!(reads <= 12, "from {from}: {reads} reads");
    }
    assert_eq!(read(0, ALL).0, 2000);
    // The states before ten neighbours are neighbours, too.
    let records = member.storage.changes(Revision::new(newest - 9), ALL).unwrap().records;
    let before = engine.reads.load(Ordering::SeqCst);
    assert!(member.storage.previous(&records).unwrap().iter().all(Option::is_some));
    let cold = engine.reads.load(Ordering::SeqCst) - before;
    assert!(cold <= 2, "{cold} reads for ten neighbours");
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn previous_states_of_neighbours_cost_one_read() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = StorageConfig { memory_bytes: 8 << 10, ..config(dir.path(), EngineKind::Memory) };
    let (mut member, engines) = open(&env(), tiny).await;
    for round in 0..10 {
        let value = format!("{round}{}", "x".repeat(300));
        for some in (0..50).collect::<Vec<u32>>().chunks(10) {
            member.run(some.iter().map(|n| put(&format!("k{n}"), &value)).collect()).await;
        }
    }
    member.drained().await;
    let engine = Arc::clone(&engines.lock()[0]);
    let records =
        member.storage.changes(Revision::new(102), ChangesMax { revisions: 50, ..ALL }).unwrap().records;
    assert!(records.iter().any(|record| member.storage.previous_if_hot(record).is_none()), "it is cold");
    let before = engine.reads.load(Ordering::SeqCst);
    let previous = member.storage.previous(&records).unwrap();
    assert!(previous.iter().all(|kv| kv.as_ref().is_some_and(|kv| kv.value.starts_with(b"1x"))));
    // A run ends at 8 KiB at the earliest: each is read once, not each value.
    let reads = engine.reads.load(Ordering::SeqCst) - before;
    assert!(reads <= 50 * 330 / (crate::limits::PACK_BYTES / crate::limits::TAIL_FRACTION) + 2, "{reads}");
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_visible_is_not_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut member, _) = open(&env(), config(dir.path(), EngineKind::Memory)).await;
    member.run(vec![put("k", "1")]).await;
    let view = member.storage.shared().view.load_full();
    let record = holdfast_mvcc::types::Record {
        id: holdfast_mvcc::types::RecordId::new(Revision::new(3), 0),
        key: "k".into(),
        change: holdfast_mvcc::types::Change::Delete,
    };
    // The sequencer has added it, and not yet opened the gate.
    view.ring.push(&[Arc::new(crate::record::Stored::new(record))]);
    let found = member.storage.changes(Revision::NONE, ALL).unwrap();
    assert_eq!((found.records.len(), found.through, found.newest), (1, Revision::new(2), Revision::new(2)));
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

/// What was visible and not committed when the generation was replaced is found by who was let in before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_in_a_replaced_generation_miss_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = StorageConfig { memory_bytes: 1 << 20, ..config(dir.path(), EngineKind::Redb) };
    let mut member = Member::open_with(small).await;
    for round in 0..16 {
        member.run((0..100).map(|n| put(&format!("k{n}"), &noise(round * 100 + n))).collect()).await;
    }
    member.run(vec![compact(1601)]).await;
    let storage = member.storage.clone();
    let shared = storage.shared();
    let mut held = std::collections::VecDeque::new();
    for n in 0.. {
        assert!(n < 20_000, "it is not replaced: {:?}", storage.status());
        member.run(vec![put(&format!("live/{n}"), &n.to_string())]).await;
        let entered = crate::read::enter(shared, |gate| Ok(gate.enter_window())).unwrap();
        if entered.view.generation.number() > 1 {
            break;
        }
        held.push_back((n, entered));
        if held.len() > 30 {
            held.pop_front();
        }
        // The copy goes on when there is nothing to commit.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // More than memtables, ring and cache hold.
    for round in 0..4 {
        member.run((0..50).map(|n| put(&format!("k{n}"), &noise(round * 50 + n))).collect()).await;
    }
    member.drained().await;
    assert!(!held.is_empty());
    for (n, entered) in held {
        let key = format!("live/{n}");
        let chunk = entered.view.state.read().chunk(&key_range(&key), None, entered.pin.window.newest, 1);
        let mut values = crate::view::ValueReader::new(&entered.view, &shared.cache);
        let found = values.put(key.as_bytes(), chunk.keys[0].id).unwrap();
        assert_eq!(found.value, n.to_string(), "{key}");
    }
    member.close().await;
}
