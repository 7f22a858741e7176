//! The engine under the stable store: an ordered map of bytes with atomic batches.
//!
//! One tree; the first byte of a key is its *kind*, and no operation looks across kinds. Engines know nothing of
//! records or revisions. All of them obey one contract, which `tests` holds as one suite:
//!
//! - `apply` is atomic: after a crash all of a batch is there, or nothing;
//! - batches survive in order: a later batch is never there without an earlier one;
//! - what was applied before a `flush` that returned is there after a power cut;
//! - reads see every batch that was applied before they began.

mod guarded;
mod journal;
mod memory;
mod redb;
mod sled;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::Disk;

use crate::config::{EngineKind, StorageConfig};
use crate::error::StoreError;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX, PACK_BYTES};

/// An ordered map of bytes. Calls may block on files.
pub(crate) trait Engine: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// The greatest key at or below `key` within the kind of `key`, with its value.
    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError>;
    /// Pairs of the kind of `from`, ascending, from `from` (inclusive) on. Ends behind `pairs_max` pairs, or behind
    /// the pair that makes the values exceed `bytes_max`; empty means that there is nothing at or above `from`.
    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError>;
    /// Applies all of a batch, or nothing.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;
    /// Makes all that was applied durable.
    fn flush(&self) -> Result<(), StoreError>;
    /// Bytes on disk (or in memory).
    fn disk_bytes(&self) -> u64;
    /// What values should have at most, where it is the user's to choose: at most [`PACK_BYTES`].
    fn pack_bytes(&self) -> usize {
        PACK_BYTES
    }
}

/// A key and its value.
pub(crate) type Pair = (Bytes, Bytes);

/// Puts and deletes that are applied together. When a key occurs twice, the later operation counts.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    ops: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
}

impl Batch {
    /// Sets the value of a key.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.ops.push((key, Some(value)));
    }
    /// Removes a key; fine when it is missing.
    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.ops.push((key, None));
    }
    /// Operations so far.
    pub(crate) fn ops(&self) -> usize {
        self.ops.len()
    }
    /// Bytes of keys and values so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
    /// The operations, after a check of the bounds.
    fn into_ops(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        assert!(self.ops.len() <= BATCH_OPS_MAX, "a batch of {} operations", self.ops.len());
        assert!(self.bytes <= BATCH_BYTES_MAX, "a batch of {} bytes", self.bytes);
        self.ops
    }
}

/// Opens or creates an engine in a directory.
pub(crate) type EngineFactory = Arc<dyn Fn(&Path) -> Result<Arc<dyn Engine>, StoreError> + Send + Sync>;

/// Opens the configured engine.
pub(crate) fn factory(disk: &Arc<dyn Disk>, config: &StorageConfig) -> EngineFactory {
    let (disk, kind, cache_bytes) = (Arc::clone(disk), config.engine, config.engine_cache_bytes());
    Arc::new(move |dir| open(kind, &disk, dir, cache_bytes))
}

/// The engine of the simulation, on any disk.
pub(crate) fn journal_factory(disk: &Arc<dyn Disk>) -> EngineFactory {
    let disk = Arc::clone(disk);
    Arc::new(move |dir| Ok(Arc::new(journal::Journal::open(&disk, dir)?) as Arc<dyn Engine>))
}

/// Opens or creates the engine's files in `dir`, which exists. `cache_bytes` bounds its own cache as far as the
/// engine allows.
pub(crate) fn open(
    kind: EngineKind,
    disk: &Arc<dyn Disk>,
    dir: &Path,
    cache_bytes: usize,
) -> Result<Arc<dyn Engine>, StoreError> {
    Ok(match kind {
        EngineKind::Sled => Arc::new(guarded::open(|| sled::Sled::open(disk, dir, cache_bytes))?),
        EngineKind::Redb => Arc::new(guarded::open(|| redb::Redb::open(dir, cache_bytes))?),
        EngineKind::Memory => Arc::new(memory::Memory::default()),
    })
}
