//! Tests of the start: what it makes durable, what it refuses, what it rebuilds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_env::Fault;
use holdfast_mvcc::PieceMax;
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::{Op, ReadAt, Txn};
use holdfast_mvcc::types::{Change, Record, RecordId, Revision};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::engine::tests::Watched;
use crate::engine::{self, Batch, Engine, EngineFactory};
use crate::pack::{PackKind, newer_pack};
use crate::tests::common::*;
use crate::types::{ChangesMax, DispatchBody, DispatchItem, DispatcherState};
use crate::{EngineKind, EventSink, ExportError, PieceRequest, ReadError, Storage, StorageError};

const ON_DISK: [EngineKind; 2] = [EngineKind::Sled, EngineKind::Redb];

type Watching = Arc<Mutex<Vec<Arc<Watched>>>>;

/// Engines on disk that can be looked into.
fn watched(kind: EngineKind) -> (EngineFactory, Watching) {
    let made = Watching::default();
    let kept = Arc::clone(&made);
    let disk: Arc<dyn holdfast_env::Disk> = Arc::new(holdfast_env::RealDisk);
    let factory: EngineFactory = Arc::new(move |dir| {
        let engine = Arc::new(Watched::new(engine::open(kind, &disk, dir, 1 << 20)?));
        kept.lock().push(Arc::clone(&engine));
        Ok(engine as Arc<dyn Engine>)
    });
    (factory, made)
}

async fn open(dir: &Path, kind: EngineKind) -> (Member, Watching) {
    let events = Arc::new(Events::default());
    let (factory, engines) = watched(kind);
    let sink = Arc::clone(&events) as Arc<dyn EventSink>;
    let storage = Storage::open_with(&env(), config(dir, kind), sink, factory).await.unwrap();
    (Member::over(storage, events), engines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_counts_as_durable_was_flushed_by_this_start() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open(dir.path(), kind).await;
        member.run(vec![put("k", "v")]).await;
        member.close().await;
        let (member, engines) = open(dir.path(), kind).await;
        assert_eq!(member.storage.status().durable, Some(log_id(0)), "{kind:?}");
        // Nothing was dispatched, so the committer has flushed nothing: it was the start.
        assert_eq!(engines.lock()[0].flushes.load(Ordering::SeqCst), 1, "{kind:?}");
        engines.lock().clear();
        member.close().await;
    }
}

/// What lies beside the packs: head and position.
fn positions(engine: &dyn Engine) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in engine.scan(b"a", 100, usize::MAX).unwrap() {
        batch.put(key.to_vec(), value.to_vec());
    }
    batch
}

/// What a commit that was interrupted has left lies above the stored head, and its entries come again: their compares must
/// see what they saw the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compare_that_comes_again_sees_what_it_saw_the_first_time() {
    for fault in [None, Some(Fault::ReplaySeesFuture)] {
        let (dir, kind) = (tempfile::tempdir().unwrap(), EngineKind::Redb);
        let mut member = Member::open(dir.path(), kind).await;
        member.run(vec![put("k", "old")]).await;
        member.close().await;
        let mut before = Batch::default();
        change(dir.path(), kind, |engine| {
            before = positions(engine);
            Batch::default()
        });
        let mut member = Member::open(dir.path(), kind).await;
        member.run(vec![swap("k", "old", "new")]).await;
        member.close().await;
        change(dir.path(), kind, |_| before);
        let env = fault.map_or_else(env, |fault| planted(env(), fault));
        let mut member = Member::open_in(&env, config(dir.path(), kind)).await;
        assert_eq!(member.next, 1, "the swap comes again");
        member.run(vec![swap("k", "old", "new")]).await;
        let expected = fault.is_none().then_some("new");
        assert_eq!(member.get("k").as_deref(), expected, "{fault:?}");
        member.close().await;
    }
}

/// All files below a directory with their content, but for what engines write whenever they are opened.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let inner = content(&path);
            found.insert(path, Vec::new());
            found.extend(inner);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// The names, and the content of what is not an engine's.
fn ours(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_engine = |path: &Path| path.parent().is_some_and(|p| p.starts_with(dir.join("gen-1")));
    let mut found = content(dir);
    // sled writes snapshots of its page table when it is opened and closed.
    found.retain(|path, _| !path.file_name().unwrap().to_string_lossy().starts_with("snap."));
    found.iter_mut().filter(|(path, _)| is_engine(path)).for_each(|(_, bytes)| bytes.clear());
    found
}

/// A directory with some data, a snapshot, and an interrupted transfer.
async fn written(dir: &Path, kind: EngineKind) {
    let mut member = Member::open(dir, kind).await;
    member.run((0..50).map(|n| put(&format!("k{n}"), &"x".repeat(3000))).collect()).await;
    member.dump().await;
    member.run(vec![put("k", "behind the snapshot")]).await;
    member.close().await;
    std::fs::write(dir.join("snapshots/recv-7.tmp"), b"half").unwrap();
}

/// Changes the engine's content behind the member's back.
fn change(dir: &Path, kind: EngineKind, change: impl FnOnce(&dyn Engine) -> Batch) {
    let disk: Arc<dyn holdfast_env::Disk> = Arc::new(holdfast_env::RealDisk);
    let engine = engine::open(kind, &disk, &dir.join("gen-1"), 1 << 20).unwrap();
    let batch = change(&*engine);
    engine.apply(batch).unwrap();
    engine.flush().unwrap();
}

async fn refused_as_newer(dir: &Path, kind: EngineKind, case: &str) {
    let before = ours(dir);
    for _ in 0..2 {
        let opened = Storage::open(&env(), config(dir, kind), Arc::new(Events::default())).await;
        let Err(error @ StorageError::NewerFormat { .. }) = opened else {
            panic!("{kind:?}, {case}: {opened:?}");
        };
        let message = error.to_string();
        assert!(message.contains(", this release reads up to "), "{message}");
        assert!(message.contains(&*dir.to_string_lossy()), "{message}");
    }
    assert!(ours(dir) == before, "{kind:?}, {case}: something was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_stable_store_is_refused_and_left_as_it_is() {
    for kind in ON_DISK {
        for key in ["aapplied", "ahead"] {
            let dir = tempfile::tempdir().unwrap();
            written(dir.path(), kind).await;
            change(dir.path(), kind, |engine| {
                let mut stored = engine.get(key.as_bytes()).unwrap().unwrap().to_vec();
                stored[2] += 1;
                let mut batch = Batch::default();
                batch.put(key.as_bytes().to_vec(), stored);
                batch
            });
            refused_as_newer(dir.path(), kind, key).await;
        }
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), kind).await;
        change(dir.path(), kind, |engine| {
            let (key, _) = engine.scan(b"m", 1, 1).unwrap().remove(0);
            let mut stored = vec![0];
            stored.extend_from_slice(&newer_pack(PackKind::Meta));
            let mut batch = Batch::default();
            batch.put(key.to_vec(), stored);
            batch
        });
        refused_as_newer(dir.path(), kind, "a meta pack").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_snapshot_is_refused_and_left_as_it_is() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), kind).await;
        let name = std::fs::read_dir(dir.path().join("snapshots")).unwrap().map(|e| e.unwrap().path());
        let path = name.into_iter().find(|p| p.extension().unwrap() == "snap").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        make_newer(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        refused_as_newer(dir.path(), kind, "a snapshot").await;
    }
}

/// Breaks a byte in the first value pack, which no start reads.
fn damage_a_value(dir: &Path, kind: EngineKind) {
    change(dir, kind, |engine| {
        let (key, stored) = engine.scan(b"v", 1, 1).unwrap().remove(0);
        let mut stored = stored.to_vec();
        *stored.last_mut().unwrap() ^= 1;
        let mut batch = Batch::default();
        batch.put(key.to_vec(), stored);
        batch
    });
}

async fn run_into_the_damage(member: &mut Member) -> String {
    let (respond, answer) = tokio::sync::oneshot::channel();
    let body = DispatchBody::Command {
        command: swap("k0", "y", "z"),
        caller: Caller::Server,
        respond: Some(respond),
    };
    let dispatched = member.storage.dispatch(vec![DispatchItem { log_id: log_id(member.next), body }]).await;
    // It may be poisoned before the dispatch returns.
    assert!(matches!(dispatched, Ok(()) | Err(StorageError::Poisoned { .. })), "{dispatched:?}");
    assert!(within(answer).await.is_err());
    member.until("poisoned", |s| s.state == DispatcherState::Poisoned).await;
    member.storage.dispatch(Vec::new()).await.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_found_while_running_is_repaired_by_a_restart() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), kind).await;
        damage_a_value(dir.path(), kind);
        let mut member = Member::open(dir.path(), kind).await;
        assert_eq!(member.storage.applied().log_id, Some(log_id(50)), "{kind:?}: a start does not see it");
        let told = run_into_the_damage(&mut member).await;
        assert!(told.contains("restart the member, which rebuilds it"), "{told}");
        member.close().await;
        let mut member = Member::open(dir.path(), kind).await;
        assert_eq!(member.storage.applied().log_id, Some(log_id(49)), "{kind:?}: the snapshot's position");
        assert!(dir.path().join("gen-1.bad").exists());
        member.run(vec![put("k", "behind the snapshot"), swap("k0", "y", "z")]).await;
        assert_eq!(member.get("k1"), Some("x".repeat(3000)));
        assert_eq!(member.get("k0"), None, "evaluated at last");
        assert_eq!(member.storage.status().state, DispatcherState::Normal);
        member.close().await;
    }
}

/// The name of a way to read, and a read that takes it over the damaged value; true when it was told.
type Meets = (&'static str, fn(&Member) -> bool);

/// Every way in which readers come to the stable store. `k0` lies in the pack that is damaged; its put has revision 2.
const READS: [Meets; 7] = [
    ("a get", |m| matches!(m.get_at("k0", ReadAt::Latest), Err(ReadError::Store(_)))),
    ("a transaction", |m| {
        let ops = vec![Op::Range(range(key_range("k0")))];
        let txn = Txn { compares: Vec::new(), success: ops, failure: Vec::new() };
        matches!(m.storage.read_txn(&txn), Err(ReadError::Store(_)))
    }),
    ("a piece of a list", |m| {
        let request = PieceRequest { range: key_range("k0"), at: ReadAt::Latest, after: None };
        let max = PieceMax { keys: 10, bytes: 1 << 20, keys_only: false };
        matches!(m.storage.range_piece(&request, &max), Err(ReadError::Store(_)))
    }),
    ("changes", |m| {
        let max = ChangesMax { revisions: 10, bytes: 1 << 20 };
        matches!(m.storage.changes(Revision::new(2), max), Err(ReadError::Store(_)))
    }),
    ("previous values", |m| {
        let id = RecordId::new(Revision::new(1000), 0);
        let deleted = Record { id, key: Bytes::from_static(b"k0"), change: Change::Delete };
        matches!(m.storage.previous(&[deleted]), Err(ReadError::Store(_)))
    }),
    ("the hash of the history", |m| matches!(m.storage.history_hash(None), Err(ReadError::Store(_)))),
    ("an export", |m| {
        let began = tokio::task::block_in_place(|| Handle::current().block_on(m.storage.export()));
        matches!(began.unwrap().page(1 << 20), Err(ExportError::Store(_)))
    }),
];

/// A start reads no values, so it is not enough that the reader is told: what is not noted is there again after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_only_a_reader_meets_is_noted_before_the_reader_is_told() {
    for (kind, (how, meets)) in ON_DISK.into_iter().flat_map(|kind| READS.map(|read| (kind, read))) {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), kind).await;
        damage_a_value(dir.path(), kind);
        let member = Member::open(dir.path(), kind).await;
        assert!(meets(&member), "{kind:?}, {how}: the reader is not told");
        // Whoever kills the member now finds the note.
        assert!(dir.path().join("gen-1/DAMAGED").exists(), "{kind:?}, {how}: not noted");
        member.until("poisoned", |s| s.state == DispatcherState::Poisoned).await;
        let told = member.storage.dispatch(Vec::new()).await.unwrap_err().to_string();
        assert!(told.contains("restart the member, which rebuilds it"), "{told}");
        member.close().await;
        let mut member = Member::open(dir.path(), kind).await;
        assert!(dir.path().join("gen-1.bad").exists(), "{kind:?}, {how}");
        member.run(vec![put("k", "behind the snapshot")]).await;
        assert_eq!(member.get("k0"), Some("x".repeat(3000)), "{kind:?}, {how}");
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_cannot_be_repaired_is_left_and_says_what_to_do() {
    for kind in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), kind).await;
        damage_a_value(dir.path(), kind);
        for entry in std::fs::read_dir(dir.path().join("snapshots")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().unwrap() == "snap" {
                std::fs::write(path, b"rotten").unwrap();
            }
        }
        for _ in 0..2 {
            let mut member = Member::open(dir.path(), kind).await;
            assert_eq!(member.storage.applied().log_id, Some(log_id(50)), "{kind:?}");
            let told = run_into_the_damage(&mut member).await;
            assert!(told.contains("remove this member from the cluster and add it again"), "{told}");
            member.close().await;
        }
        assert!(!dir.path().join("gen-1.bad").exists(), "nothing is thrown away");
    }
}

/// Writes noise over 1 KiB of what the engine's largest file has in it, at a place that `part` of 32 says.
fn damage_the_file(dir: &Path, part: usize) {
    let is_file = |path: &PathBuf| path.is_file();
    let files = std::fs::read_dir(dir.join("gen-1")).unwrap().map(|entry| entry.unwrap().path());
    let largest = files.filter(is_file).max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let at = used * part / 32;
    for (n, byte) in bytes.iter_mut().skip(at).take(1024).enumerate() {
        *byte = u8::try_from((n * n / 7 + n + part) % 251).unwrap();
    }
    std::fs::write(&largest, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Libraries panic over some of it, most of all when they have not been closed. What is not noticed by the start is never
/// told as something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_overwritten_anywhere_opens() {
    for kind in ON_DISK {
        let source = tempfile::tempdir().unwrap();
        written(source.path(), kind).await;
        let running = Member::open(source.path(), kind).await;
        for part in 0..32 {
            let dir = tempfile::tempdir().unwrap();
            copy(source.path(), dir.path());
            damage_the_file(dir.path(), part);
            let member = Member::open(dir.path(), kind).await;
            let applied = member.storage.applied().log_id;
            assert!([Some(log_id(49)), Some(log_id(50))].contains(&applied), "{kind:?}, {part}: {applied:?}");
            for key in 0..50 {
                let read = member.get_at(&format!("k{key}"), ReadAt::Latest);
                let is_right = matches!(&read, Ok(Some(value)) if *value == "x".repeat(3000));
                assert!(is_right || read.is_err(), "{kind:?}, {part}: k{key}: {read:?}");
            }
            member.close().await;
        }
        running.close().await;
    }
}
