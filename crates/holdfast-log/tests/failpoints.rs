//! That the points of a purge are reached in their order, and that the planted faults do what they say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{all, append, config, entry, env, id, vote};
use holdfast_env::{Disk, DiskFile, DiskLock, Env, Failpoint, Fault, Faults, OpenMode, RealDisk, Sabotage};
use holdfast_log::{Log, LogConfig};
use parking_lot::Mutex;

/// Remembers the points, and plants one fault.
#[derive(Default)]
struct Noted {
    hits: Mutex<Vec<Failpoint>>,
    planted: Option<Fault>,
}

impl Sabotage for Noted {
    fn hit(&self, at: Failpoint) {
        self.hits.lock().push(at);
    }
    fn is_planted(&self, fault: Fault) -> bool {
        self.planted == Some(fault)
    }
}

/// The real disk, counting what is made durable.
#[derive(Default)]
struct CountingDisk {
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Syncs of data.
    syncs: AtomicU64,
    /// The most bytes that one sync, of any kind, has had to write.
    most: AtomicU64,
}

struct CountingFile {
    file: Box<dyn DiskFile>,
    counts: Arc<Counts>,
    /// Bytes that no sync has written yet.
    dirty: AtomicU64,
}

impl CountingFile {
    fn is_clean(&self) {
        self.counts.most.fetch_max(self.dirty.swap(0, Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl DiskFile for CountingFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.dirty.fetch_add(data.len() as u64, Ordering::SeqCst);
        self.file.write_all_at(data, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.is_clean();
        self.counts.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.is_clean();
        self.file.sync_all()
    }
}

impl Disk for CountingDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let (file, counts) = (RealDisk.open(path, mode)?, Arc::clone(&self.counts));
        Ok(Box::new(CountingFile { file, counts, dirty: AtomicU64::new(0) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        RealDisk.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
}

/// K14 and K15. WH20 and WH21: oldest segments first.
#[tokio::test(flavor = "multi_thread")]
async fn a_purge_comes_to_its_points_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let noted = Arc::new(Noted::default());
    let env = Env { faults: Faults::new(Arc::clone(&noted) as Arc<dyn Sabotage>), ..env() };
    let log = Log::open(&env, config(dir.path())).unwrap();
    for index in 0..60 {
        append(&log, vec![entry(1, index, 1000)]).await;
    }
    assert!(noted.hits.lock().is_empty());
    log.purge(id(1, 55)).unwrap();
    log.shutdown().await;
    let hits = noted.hits.lock().clone();
    let count = |point| hits.iter().filter(|hit| **hit == point).count();
    assert_eq!(hits[..2], [Failpoint::PurgeMarked, Failpoint::PurgeSegment]);
    assert!(count(Failpoint::PurgeSegment) >= 4, "{hits:?}");
    assert_eq!(count(Failpoint::CleanupInSnapshot), count(Failpoint::PurgeSegment), "{hits:?}");
}

/// How many syncs came before each of three appends was acknowledged.
async fn syncs_before_acks(planted: Option<Fault>) -> [u64; 3] {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(CountingDisk::default());
    let noted = Noted { planted, ..Noted::default() };
    let env = Env { disk: Arc::clone(&disk) as _, faults: Faults::new(Arc::new(noted)), ..env() };
    let log = Log::open(&env, config(dir.path())).unwrap();
    let before = disk.counts.syncs.load(Ordering::SeqCst);
    let mut syncs = [0; 3];
    for (index, count) in (0..).zip(&mut syncs) {
        append(&log, vec![entry(1, index, 10)]).await;
        *count = disk.counts.syncs.load(Ordering::SeqCst) - before;
    }
    log.shutdown().await;
    assert_eq!(all(&Log::open(&common::env(), config(dir.path())).unwrap()).len(), 3);
    syncs
}

/// WH2: a log that is durable before an answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_faults_of_the_sync_are_seen_on_the_disk() {
    assert_eq!(syncs_before_acks(None).await, [1, 2, 3]);
    assert_eq!(syncs_before_acks(Some(Fault::NoFsync)).await, [0, 0, 0]);
    assert_eq!(syncs_before_acks(Some(Fault::AckBeforeFsync)).await, [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_that_is_not_saved_is_forgotten() {
    for (planted, remembered) in [(None, true), (Some(Fault::VoteNotSaved), false)] {
        let dir = tempfile::tempdir().unwrap();
        let noted = Noted { planted, ..Noted::default() };
        let env = Env { faults: Faults::new(Arc::new(noted)), ..env() };
        let log = Log::open(&env, config(dir.path())).unwrap();
        vote(&log, "for-7").await;
        append(&log, vec![entry(1, 0, 10)]).await;
        log.shutdown().await;
        let log = Log::open(&env, config(dir.path())).unwrap();
        assert_eq!(log.state().vote.is_some(), remembered);
    }
}

/// Behind a segment of zeros that goes to the disk at once, the syncs of what clients wait for would stand in line.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_filled_in_small_steps() {
    const SEGMENT_BYTES: u64 = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(CountingDisk::default());
    let env = Env { disk: Arc::clone(&disk) as _, ..env() };
    let log = Log::open(&env, LogConfig { segment_bytes: SEGMENT_BYTES, ..config(dir.path()) }).unwrap();
    // The first one was filled when nobody waited; the next one is filled ahead of its use.
    disk.counts.most.store(0, Ordering::SeqCst);
    while log.stats().segments_created == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    log.shutdown().await;
    let most = disk.counts.most.load(Ordering::SeqCst);
    assert!(most > 0 && most <= 128 << 10, "{most} bytes at once");
}
