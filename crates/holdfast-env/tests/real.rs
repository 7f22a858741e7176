//! The real world keeps the promises of the traits.

use std::io::ErrorKind;
use std::time::Duration;

use holdfast_env::{
    Clock, Disk, OpenMode, OsRng, RealClock, RealDisk, RealSpawn, Rng, Spawn, create_dir_synced,
};

#[test]
fn a_lock_is_exclusive_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = RealDisk.lock(&path).unwrap();
    // Another open file of the same process is refused like another process.
    assert_eq!(RealDisk.lock(&path).err().unwrap().kind(), ErrorKind::WouldBlock);
    drop(held);
    RealDisk.lock(&path).map(drop).unwrap();
}

#[test]
fn files_are_created_once_written_at_places_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(RealDisk.open(&path, OpenMode::ReadWrite).err().unwrap().kind(), ErrorKind::NotFound);
    let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
    assert!(file.is_empty().unwrap());
    assert_eq!(RealDisk.open(&path, OpenMode::CreateNew).err().unwrap().kind(), ErrorKind::AlreadyExists);
    file.write_all_at(b"tail", 4).unwrap();
    file.write_all_at(b"head", 0).unwrap();
    file.sync_data().unwrap();
    let mut bytes = [0; 8];
    RealDisk.open(&path, OpenMode::Read).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"headtail");
    file.set_len(6).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.read_exact_at(&mut bytes, 0).err().unwrap().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(file.len().unwrap(), 6);
    let reader = RealDisk.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err(), "opened for reading only");
}

#[test]
fn directories_list_sorted_and_names_move() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    create_dir_synced(&RealDisk, &deep).unwrap();
    create_dir_synced(&RealDisk, &deep).unwrap();
    for name in ["c", "a", "b"] {
        RealDisk.open(&deep.join(name), OpenMode::CreateNew).map(drop).unwrap();
    }
    RealDisk.rename(&deep.join("c"), &deep.join("a")).unwrap();
    RealDisk.sync_dir(&deep).unwrap();
    assert_eq!(RealDisk.read_dir(&deep).unwrap(), [deep.join("a"), deep.join("b")]);
    RealDisk.remove_file(&deep.join("a")).unwrap();
    RealDisk.remove_dir_all(&deep).unwrap();
    assert!(!RealDisk.exists(&deep).unwrap());
    assert!(RealDisk.free_bytes(dir.path()).unwrap() > 0);
}

#[test]
fn what_is_created_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b");
    create_dir_synced(&RealDisk, &deep).unwrap();
    RealDisk.open(&deep.join("file"), OpenMode::CreateNew).map(drop).unwrap();
    RealDisk.lock(&deep.join("lock")).map(drop).unwrap();
    for (path, mode) in [("a", 0o700), ("a/b", 0o700), ("a/b/file", 0o600), ("a/b/lock", 0o600)] {
        let found = dir.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}: {found:o}");
    }
}

#[tokio::test]
async fn loops_run_as_tasks_and_on_threads_and_their_end_is_seen() {
    let spawn = RealSpawn::new(tokio::runtime::Handle::current());
    let clock = RealClock::new(tokio::runtime::Handle::current());
    let start = clock.now();
    let sleep = clock.sleep(Duration::from_millis(5));
    let task = spawn.task("a-task", Box::pin(async {}));
    // A thread of its own may wait for timers of the runtime.
    let dedicated = spawn.dedicated("a-thread", sleep);
    assert_eq!((task.name(), dedicated.name()), ("a-task", "a-thread"));
    task.join().await;
    dedicated.join().await;
    let (told, niceness) = tokio::sync::oneshot::channel();
    let look = async move { told.send(rustix::process::getpriority_process(None)).unwrap() };
    spawn.background("a-slow-thread", Box::pin(look)).join().await;
    let ours = rustix::process::getpriority_process(None).unwrap();
    assert!(niceness.await.unwrap().unwrap() > ours, "it gives way, and nobody else does");
    assert!(clock.now().since(start) >= Duration::from_millis(5));
    assert!(clock.wall().0 > 1_700_000_000_000);
    assert_ne!(OsRng.next_u64(), OsRng.next_u64());
}
