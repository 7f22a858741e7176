//! The contract that every engine obeys, as one suite, and an engine that counts and fails on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use holdfast_env::{Disk, RealDisk};

use super::{Batch, Engine, Pair, open};
use crate::config::EngineKind;
use crate::error::StoreError;

const KINDS: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

/// Counts what is asked of it, and refuses it on demand.
pub(crate) struct Watched {
    inner: Arc<dyn Engine>,
    pub(crate) batches: AtomicUsize,
    pub(crate) flushes: AtomicUsize,
    pub(crate) reads: AtomicUsize,
    pub(crate) broken: AtomicBool,
}

impl Watched {
    pub(crate) fn new(inner: Arc<dyn Engine>) -> Self {
        Self {
            inner,
            batches: AtomicUsize::new(0),
            flushes: AtomicUsize::new(0),
            reads: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }
    fn read(&self) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.check()
    }
    fn check(&self) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            Err(StoreError::damaged("broken on purpose"))
        } else {
            Ok(())
        }
    }
}

impl Engine for Watched {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read()?;
        self.inner.get(key)
    }
    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError> {
        self.read()?;
        self.inner.get_le(key)
    }
    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        self.read()?;
        self.inner.scan(from, pairs_max, bytes_max)
    }
    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.check()?;
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.inner.apply(batch)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.check()?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.inner.flush()
    }
    fn disk_bytes(&self) -> u64 {
        self.inner.disk_bytes()
    }
}

fn with_each(test: impl Fn(EngineKind, &dyn Fn() -> Arc<dyn Engine>)) {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        test(kind, &|| open(kind, &disk, dir.path(), 16 << 20).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    // The engine of the simulation has no kind of its own; a failure without a change elsewhere is its own.
    test(EngineKind::Redb, &|| super::journal_factory(&disk)(dir.path()).unwrap());
}

fn batch(puts: &[(&str, &str)], deletes: &[&str]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in puts {
        batch.put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
    }
    for key in deletes {
        batch.delete(key.as_bytes().to_vec());
    }
    batch
}

fn text(pair: &Pair) -> (&str, &str) {
    (std::str::from_utf8(&pair.0).unwrap(), std::str::from_utf8(&pair.1).unwrap())
}

#[test]
fn reads_see_applied_batches() {
    with_each(|kind, open| {
        let engine = open();
        assert_eq!(engine.get(b"a1").unwrap(), None, "{kind:?}");
        engine.apply(batch(&[("a1", "x"), ("a2", "y")], &[])).unwrap();
        engine.apply(batch(&[("a1", "z")], &["a2", "a9"])).unwrap();
        assert_eq!(engine.get(b"a1").unwrap().as_deref(), Some(&b"z"[..]), "{kind:?}");
        assert_eq!(engine.get(b"a2").unwrap(), None, "{kind:?}");
    });
}

#[test]
fn the_later_operation_on_a_key_counts() {
    with_each(|kind, open| {
        let engine = open();
        let mut batch = Batch::default();
        batch.put(b"a1".to_vec(), b"x".to_vec());
        batch.delete(b"a1".to_vec());
        batch.delete(b"a2".to_vec());
        batch.put(b"a2".to_vec(), b"y".to_vec());
        engine.apply(batch).unwrap();
        assert_eq!(engine.get(b"a1").unwrap(), None, "{kind:?}");
        assert_eq!(engine.get(b"a2").unwrap().as_deref(), Some(&b"y"[..]), "{kind:?}");
    });
}

#[test]
fn get_le_stays_within_its_kind() {
    with_each(|kind, open| {
        let engine = open();
        engine.apply(batch(&[("a5", "1"), ("b3", "2"), ("b5", "3"), ("c1", "4")], &[])).unwrap();
        let le = |key: &str| engine.get_le(key.as_bytes()).unwrap();
        assert_eq!(le("b2"), None, "{kind:?}");
        assert_eq!(text(&le("b3").unwrap()), ("b3", "2"), "{kind:?}");
        assert_eq!(text(&le("b4").unwrap()), ("b3", "2"), "{kind:?}");
        assert_eq!(text(&le("b9").unwrap()), ("b5", "3"), "{kind:?}");
    });
}

#[test]
fn scan_is_ascending_bounded_and_within_its_kind() {
    with_each(|kind, open| {
        let engine = open();
        engine
            .apply(batch(&[("a1", "1"), ("b1", "22"), ("b2", "22"), ("b3", "22"), ("c1", "3")], &[]))
            .unwrap();
        let keys = |from: &str, pairs, bytes| {
            let found = engine.scan(from.as_bytes(), pairs, bytes).unwrap();
            found.iter().map(|p| text(p).0.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys("b", 10, 100), ["b1", "b2", "b3"], "{kind:?}");
        assert_eq!(keys("b2", 10, 100), ["b2", "b3"], "{kind:?}");
        assert_eq!(keys("b", 2, 100), ["b1", "b2"], "{kind:?}");
        assert_eq!(keys("b", 10, 3), ["b1", "b2"], "{kind:?}");
        assert_eq!(keys("b4", 10, 100), Vec::<String>::new(), "{kind:?}");
    });
}

#[test]
fn flushed_content_is_there_after_a_reopen() {
    with_each(|kind, open| {
        if kind == EngineKind::Memory {
            return;
        }
        let engine = open();
        engine.apply(batch(&[("a1", "x")], &[])).unwrap();
        engine.flush().unwrap();
        assert!(engine.disk_bytes() > 0, "{kind:?}");
        drop(engine);
        assert_eq!(open().get(b"a1").unwrap().as_deref(), Some(&b"x"[..]), "{kind:?}");
    });
}

#[test]
fn a_second_opener_is_told_that_it_is_in_use() {
    for kind in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let first = open(kind, &disk, dir.path(), 1 << 20).unwrap();
        assert!(matches!(open(kind, &disk, dir.path(), 1 << 20), Err(StoreError::InUse)), "{kind:?}");
        drop(first);
    }
}

#[test]
fn packs_never_become_sled_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let engine = open(EngineKind::Sled, &disk, dir.path(), 16 << 20).unwrap();
    for n in 0..400_u32 {
        let mut batch = Batch::default();
        let mut key = b"v".to_vec();
        key.extend_from_slice(&n.to_be_bytes());
        batch.put(key, vec![n.to_le_bytes()[0]; crate::limits::PIECE_BYTES + 64]);
        engine.apply(batch).unwrap();
    }
    engine.flush().unwrap();
    let blobs = std::fs::read_dir(dir.path().join("blobs")).map_or(0, std::iter::Iterator::count);
    assert_eq!(blobs, 0);
}

#[test]
#[should_panic(expected = "a batch of 257 operations")]
fn an_oversized_batch_is_a_broken_invariant() {
    let mut batch = Batch::default();
    for n in 0..=256_u32 {
        batch.delete(n.to_be_bytes().to_vec());
    }
    batch.into_ops();
}
