//! Sizes and places.

use std::path::PathBuf;

use crate::limits::RING_BYTES_MAX;

/// Which engine keeps the stable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// sled; the default.
    #[default]
    Sled,
    /// redb.
    Redb,
    /// In memory: gone at the end of the process, rebuilt from snapshot and log.
    Memory,
}

/// Sizes and places; every limit has a flag in the server.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The directory of the stable store and the snapshots, created when missing.
    pub dir: PathBuf,
    /// The engine of the stable store.
    pub engine: EngineKind,
    /// How many write workers; default min(cores, 8).
    pub workers: usize,
    /// The memory budget for values in bytes; default 512 MiB. Half of it may be needed for what is not yet in the
    /// stable store, most of it only while a dump runs. What is held all the time is small beside it: a thirty-second
    /// each for our cache of values and for the engine's own, a sixty-fourth (at most 32 MiB) for the newest changes,
    /// which watches read. The rest is for queues, and for what an allocator takes beside all that.
    pub memory_bytes: usize,
    /// A checkpoint of the key index is written after so many revisions, and later when it is large; default 65,536,
    /// whose metadata a start reads in a tenth of a second.
    pub checkpoint_revisions: u64,
}

impl StorageConfig {
    /// Bytes that may wait in memtables before new entries are held back.
    pub(crate) fn memtable_bytes_max(&self) -> usize {
        self.memory_bytes / 2
    }
    /// Bytes that may wait while a dump runs before it hurries.
    pub(crate) fn overlay_hurry_bytes(&self) -> usize {
        self.memory_bytes / 8
    }
    /// Bytes that may wait while a dump runs before some of them go to the stable store under it.
    pub(crate) fn overlay_drain_bytes(&self) -> usize {
        self.memory_bytes / 4
    }
    /// Bytes of cached values.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.memory_bytes / 32
    }
    /// Bytes of the newest changes, beside those that are not yet in the stable store.
    pub(crate) fn ring_bytes(&self) -> usize {
        (self.memory_bytes / 64).min(RING_BYTES_MAX)
    }
    /// Bytes for the engine's own cache; below 1 MiB sled cannot work.
    pub(crate) fn engine_cache_bytes(&self) -> usize {
        (self.memory_bytes / 32).max(1 << 20)
    }
}
