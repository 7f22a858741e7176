//! Dumps and installs from the outside, and what a start makes of what it finds on disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use holdfast_env::{BoxFuture, Clock, Env, Monotonic, UnixMillis};
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::Revision;
use holdfast_storage::*;

const ENGINES: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

fn some_commands(n: u64) -> Vec<Command> {
    let mut commands: Vec<Command> = (0..n)
        .map(|n| match n % 5 {
            4 => delete(&format!("k{}", n % 11)),
            _ => put(
                &format!("k{}", n % 13),
                &format!("{n}-{}", "x".repeat(usize::try_from(n % 997).unwrap())),
            ),
        })
        .collect();
    commands.push(compact(n / 3));
    commands
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let found = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    found.filter(|p| p.extension().is_some_and(|e| e == extension)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_carries_the_state_between_engines() {
    let mut ids = Vec::new();
    for (from, to) in [
        (EngineKind::Sled, EngineKind::Redb),
        (EngineKind::Redb, EngineKind::Memory),
        (EngineKind::Memory, EngineKind::Sled),
    ] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut source = Member::open(dirs[0].path(), from).await;
        source.run(some_commands(600)).await;
        let snapshot = source.dump().await;
        let target = Member::open(dirs[1].path(), to).await;
        install(&snapshot, &target.storage).await.unwrap();
        assert_eq!(target.image(), source.image(), "{from:?} to {to:?}");
        let status = target.storage.status();
        assert_eq!((status.visible.log_id, status.stable), (Some(log_id(600)), Some(log_id(600))));
        assert_eq!(target.storage.applied().log_id, Some(log_id(600)));
        let current = target.storage.current_snapshot().unwrap();
        assert_eq!((&current.id, current.bytes), (&snapshot.id, snapshot.bytes));
        let image = source.image();
        ids.push(snapshot.id);
        source.close().await;
        target.close().await;
        for (dir, engine) in [(&dirs[0], from), (&dirs[1], to)] {
            let again = Member::open(dir.path(), engine).await;
            assert_eq!(again.image(), image, "{engine:?} after a restart");
            again.close().await;
        }
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "equal content has an equal name: {ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_content_does_not_depend_on_the_scrub_or_on_earlier_dumps() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let commands = some_commands(400);
    let mut one = Member::open(dirs[0].path(), EngineKind::Redb).await;
    for some in commands.chunks(7) {
        one.run(some.to_vec()).await;
    }
    within(one.storage.scrubbed(Revision::new(133))).await.unwrap();
    let mut other = Member::open(dirs[1].path(), EngineKind::Memory).await;
    other.run(commands[..100].to_vec()).await;
    other.dump().await;
    other.run(commands[100..].to_vec()).await;
    assert_eq!(one.dump().await.id, other.dump().await.id);
    one.close().await;
    other.close().await;
}

/// WH3: one snapshot is kept, and those in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_join_the_running_dump_or_share_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated_env("dump-");
    let mut member = Member::open_in(&env, config(dir.path(), EngineKind::Redb)).await;
    member.run(vec![put("k", "1")]).await;
    gate.close();
    let first = member.storage.start_dump().await.unwrap();
    let joined = member.storage.start_dump().await.unwrap();
    member.run(vec![put("k", "2")]).await;
    let pending = member.storage.start_dump().await.unwrap();
    let pending_too = member.storage.start_dump().await.unwrap();
    gate.open();
    let (first, joined) = (within(first).await.unwrap(), within(joined).await.unwrap());
    assert_eq!(first.id, joined.id);
    assert_eq!(first.applied.log_id, Some(log_id(0)));
    let (pending, pending_too) = (within(pending).await.unwrap(), within(pending_too).await.unwrap());
    assert_eq!(pending.id, pending_too.id);
    assert_eq!(pending.applied.log_id, Some(log_id(1)));
    assert_eq!(member.dump().await.id, pending.id, "as new as the state already");
    assert_eq!(files(&dir.path().join("snapshots"), "snap").len(), 1, "one snapshot is kept");
    // Who has the older one open reads on.
    let mut bytes = vec![0; usize::try_from(first.bytes).unwrap()];
    first.file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[..8], b"HOLDSNAP");
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_of_nothing_can_be_installed() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let source = Member::open(dirs[0].path(), EngineKind::Memory).await;
    let snapshot = source.dump().await;
    let target = Member::open(dirs[1].path(), EngineKind::Memory).await;
    install(&snapshot, &target.storage).await.unwrap();
    assert_eq!(target.image(), source.image());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_of_older_versions_can_be_installed() {
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
    source.run(vec![put("k", "1")]).await;
    let snapshot = source.dump().await;
    let mut before = vec![0; usize::try_from(snapshot.bytes).unwrap()];
    snapshot.file.read_exact_at(&mut before, 0).unwrap();
    assert_eq!(before[8], 4);
    for (version, dir) in [1, 2, 3].into_iter().zip(&dirs[1..]) {
        before[8] = version;
        before[12..16].fill(0);
        let target = Member::open(dir.path(), EngineKind::Memory).await;
        let mut incoming = target.storage.receive_snapshot().unwrap();
        incoming.write(&before).unwrap();
        within(target.storage.install(incoming)).await.unwrap();
        assert_eq!(target.image(), source.image());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_snapshot_changes_nothing() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut source = Member::open(dirs[0].path(), EngineKind::Redb).await;
    source.run(vec![put("k", "1")]).await;
    let old = source.dump().await;
    let mut target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    target.run(vec![put("k", "1"), put("k", "2")]).await;
    let before = target.image();
    install(&old, &target.storage).await.unwrap();
    assert_eq!(target.image(), before);
    target.run(vec![put("k", "3")]).await;
    assert_eq!(target.get("k"), Some("3".into()));
    target.close().await;
    let target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    assert_eq!(target.get("k"), Some("3".into()));
    target.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_transfer_is_refused_and_changes_nothing() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
    source.run(some_commands(100)).await;
    let snapshot = source.dump().await;
    let mut whole = vec![0; usize::try_from(snapshot.bytes).unwrap()];
    snapshot.file.read_exact_at(&mut whole, 0).unwrap();
    let mut target = Member::open(dirs[1].path(), EngineKind::Memory).await;
    target.run(vec![put("k", "mine")]).await;
    let before = target.image();
    let step = whole.len() / 40 + 1;
    let bytes = (0..whole.len()).step_by(step).chain(whole.len() - 8..whole.len()).map(|at| (at, 0x10));
    // Every bit of the start: none makes it the file of another release.
    let start = (0..16).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit)));
    for (at, change) in bytes.chain(start) {
        let mut bad = whole.clone();
        bad[at] ^= change;
        let mut incoming = target.storage.receive_snapshot().unwrap();
        incoming.write(&bad).unwrap();
        let refused = within(target.storage.install(incoming)).await;
        assert!(matches!(refused, Err(StorageError::BadSnapshot { .. })), "byte {at}: {refused:?}");
    }
    for len in [0, 7, 20, whole.len() / 2, whole.len() - 1] {
        let mut incoming = target.storage.receive_snapshot().unwrap();
        incoming.write(&whole[..len]).unwrap();
        let refused = within(target.storage.install(incoming)).await;
        assert!(matches!(refused, Err(StorageError::BadSnapshot { .. })), "{len} bytes: {refused:?}");
    }
    let mut newer = whole.clone();
    make_newer(&mut newer);
    let mut incoming = target.storage.receive_snapshot().unwrap();
    incoming.write(&newer).unwrap();
    let refused = within(target.storage.install(incoming)).await;
    assert!(matches!(refused, Err(StorageError::NewerFormat { .. })), "{refused:?}");
    drop(target.storage.receive_snapshot().unwrap());
    assert_eq!(target.image(), before);
    target.run(vec![put("k", "still mine")]).await;
    assert_eq!(target.get("k"), Some("still mine".into()), "it goes on as before");
    assert!(
        std::fs::read_dir(dirs[1].path().join("snapshots")).unwrap().next().is_none(),
        "nothing is left over"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_starts_from_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    member.run(some_commands(100)).await;
    member.dump().await;
    let image = member.image();
    member.run(vec![put("k", "lost, and replayed from the log")]).await;
    assert_eq!(member.storage.status().durable, Some(log_id(100)));
    member.close().await;
    let member = Member::open(dir.path(), EngineKind::Memory).await;
    assert_eq!(member.storage.applied().log_id, Some(log_id(100)));
    assert_eq!(member.image(), image);
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_engine_is_set_aside_and_rebuilt_from_the_snapshot() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open(dir.path(), engine).await;
        member.run(some_commands(200)).await;
        member.dump().await;
        let image = member.image();
        member.run(vec![put("k", "replayed from the log")]).await;
        member.close().await;
        let generation = dir.path().join("gen-1");
        for entry in std::fs::read_dir(&generation).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.iter_mut().for_each(|b| *b ^= 0x5a);
                std::fs::write(&path, bytes).unwrap();
            }
        }
        let member = Member::open(dir.path(), engine).await;
        assert_eq!(member.storage.applied().log_id, Some(log_id(200)), "{engine:?}");
        assert_eq!(member.image(), image, "{engine:?}");
        assert!(dir.path().join("gen-1.bad").exists());
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_snapshot_is_set_aside_at_start() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = dir.path().join("snapshots");
        let mut member = Member::open(dir.path(), engine).await;
        member.run(some_commands(50)).await;
        member.dump().await;
        member.close().await;
        std::fs::write(snapshots.join("recv-7.tmp"), b"half").unwrap();
        let path = files(&snapshots, "snap").remove(0);
        let mut bytes = std::fs::read(&path).unwrap();
        // In the footer, which every start reads.
        let end = bytes.len() - 20;
        bytes[end] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let member = Member::open(dir.path(), engine).await;
        assert!(member.storage.current_snapshot().is_none(), "{engine:?}");
        assert_eq!(files(&snapshots, "bad").len(), 1);
        assert!(files(&snapshots, "tmp").is_empty());
        let expected = if engine == EngineKind::Memory { None } else { Some(log_id(50)) };
        assert_eq!(member.storage.applied().log_id, expected, "{engine:?}");
        member.close().await;
    }
}

/// Changes a bit in the middle of a file; gives what it was.
fn rot(path: &Path) -> Vec<u8> {
    let whole = std::fs::read(path).unwrap();
    let mut rotten = whole.clone();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    std::fs::write(path, rotten).unwrap();
    whole
}

/// A store that was closed behind a dump: the snapshot, and where its file is.
async fn dumped(dir: &Path, engine: EngineKind) -> (Snapshot, PathBuf) {
    let mut member = Member::open(dir, engine).await;
    member.run(some_commands(50)).await;
    let snapshot = member.dump().await;
    member.close().await;
    (snapshot, files(&dir.join("snapshots"), "snap").remove(0))
}

/// A start that does not need the content does not read it: rot is found a while later, and before any use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_rots_inside_is_found_before_it_is_used() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = dir.path().join("snapshots");
        let mut member = Member::open(dir.path(), engine).await;
        member.run(some_commands(50)).await;
        member.dump().await;
        let image = member.image();
        member.close().await;
        rot(&files(&snapshots, "snap").remove(0));
        let hurried = Env { clock: Arc::new(Hurried(env().clock)), ..env() };
        let member = Member::open_in(&hurried, config(dir.path(), engine)).await;
        if engine == EngineKind::Memory {
            assert_eq!(member.storage.applied().log_id, None, "it cannot be used");
        } else {
            assert_eq!(member.image(), image, "{engine:?}");
        }
        member.until("it is found", |status| status.snapshot.is_none()).await;
        assert_eq!(files(&snapshots, "bad").len(), 1, "{engine:?}");
        assert!(files(&snapshots, "snap").is_empty(), "{engine:?}");
        member.close().await;
    }
}

/// Who sends it has it read through, once, and again when somebody has found it bad.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_read_through_before_it_is_sent() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = dir.path().join("snapshots");
        let (good, path) = dumped(dir.path(), engine).await;
        let member = Member::open(dir.path(), engine).await;
        let mut damaged = member.storage.damaged_snapshots();
        within(member.storage.check_snapshot(&good.id)).await.unwrap();
        let whole = rot(&path);
        within(member.storage.check_snapshot(&good.id)).await.expect("it is read once");
        member.storage.doubt_snapshot(&good.id);
        let found = within(member.storage.check_snapshot(&good.id)).await;
        assert!(matches!(found, Err(StorageError::BadSnapshot { .. })), "{engine:?}: {found:?}");
        assert_eq!(*damaged.borrow_and_update(), 1);
        assert_eq!(files(&snapshots, "bad").len(), 1, "{engine:?}");
        let gone = within(member.storage.check_snapshot(&good.id)).await;
        assert!(matches!(gone, Err(StorageError::NotCurrent { .. })), "{engine:?}: {gone:?}");
        // Of the same state, so it has the same name.
        assert_eq!(member.dump().await.id, good.id);
        within(member.storage.check_snapshot(&good.id)).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{engine:?}");
        assert!(!damaged.has_changed().unwrap());
        member.close().await;
    }
}

/// And a dump that would only repeat it is made all the same, and replaces it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_dump_is_spared_for_a_snapshot_that_was_not_read() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let (good, path) = dumped(dir.path(), engine).await;
        let whole = rot(&path);
        let member = Member::open(dir.path(), engine).await;
        assert_eq!(member.dump().await.id, good.id, "{engine:?}");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{engine:?}");
        member.close().await;
    }
}

/// A clock on which all goes a hundred times as fast.
struct Hurried(Arc<dyn Clock>);

const HURRY: u32 = 100;

impl Clock for Hurried {
    fn now(&self) -> Monotonic {
        Monotonic::from_start(self.0.now().since_start() * HURRY)
    }
    fn wall(&self) -> UnixMillis {
        self.0.wall()
    }
    fn sleep(&self, duration: std::time::Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration / HURRY)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_that_are_not_current_go() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
    source.run(some_commands(100)).await;
    let snapshot = source.dump().await;
    let target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    install(&snapshot, &target.storage).await.unwrap();
    target.close().await;
    assert!(!dirs[1].path().join("gen-1").exists());
    std::fs::create_dir(dirs[1].path().join("gen-3")).unwrap();
    let target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    assert!(!dirs[1].path().join("gen-3").exists());
    assert_eq!(std::fs::read_to_string(dirs[1].path().join("CURRENT")).unwrap(), "gen-2\n");
    assert_eq!(target.image(), source.image());
    target.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_ahead_of_the_store_is_installed_at_start() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut source = Member::open(dirs[0].path(), EngineKind::Redb).await;
    source.run(some_commands(100)).await;
    let snapshot = source.dump().await;
    let mut target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    target.run(vec![put("k", "old")]).await;
    target.close().await;
    // As if the install had been interrupted between the snapshot and the switch.
    let name = format!("{}.snap", snapshot.id);
    std::fs::copy(dirs[0].path().join("snapshots").join(&name), dirs[1].path().join("snapshots").join(&name))
        .unwrap();
    let target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    assert_eq!(target.image(), source.image());
    target.close().await;
    source.close().await;
}

/// In simulation all loops share one thread: none of them may block on another.
#[tokio::test(flavor = "current_thread")]
async fn one_thread_is_enough() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let world = one_thread();
    let small = |dir: &Path| StorageConfig { memory_bytes: 256 << 10, ..config(dir, EngineKind::Memory) };
    let mut source = Member::open_in(&world, small(dirs[0].path())).await;
    let commands = some_commands(500);
    source.run(commands[..250].to_vec()).await;
    let dump = within(source.storage.start_dump()).await.unwrap();
    source.run(commands[250..].to_vec()).await;
    let snapshot = within(dump).await.unwrap();
    within(source.storage.scrubbed(Revision::new(166))).await.unwrap();
    let mut target = Member::open_in(&world, small(dirs[1].path())).await;
    install(&snapshot, &target.storage).await.unwrap();
    target.next = 250;
    target.run(commands[250..].to_vec()).await;
    assert_eq!(target.image(), source.image());
    source.close().await;
    target.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_can_be_verified_before_the_install() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
    source.run(some_commands(100)).await;
    let snapshot = source.dump().await;
    let mut whole = vec![0; usize::try_from(snapshot.bytes).unwrap()];
    snapshot.file.read_exact_at(&mut whole, 0).unwrap();
    let target = Member::open(dirs[1].path(), EngineKind::Redb).await;
    let before = target.image();
    let mut incoming = target.storage.receive_snapshot().unwrap();
    incoming.write(&whole[..100]).unwrap();
    assert!(matches!(incoming.verify(), Err(StorageError::BadSnapshot { .. })), "it is not whole yet");
    incoming.write(&whole[100..]).unwrap();
    assert_eq!(incoming.verify().unwrap(), snapshot.applied);
    assert_eq!(incoming.verify().unwrap(), snapshot.applied, "as often as one likes");
    assert_eq!(target.image(), before, "nothing has changed yet");
    within(target.storage.install(incoming)).await.unwrap();
    assert_eq!(target.image(), source.image());
    target.close().await;
}
