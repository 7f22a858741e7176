//! Sizes and places.

use std::path::PathBuf;

use crate::limits::{RING_BYTES_MAX, SLED_BYTES_MIN};

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

impl EngineKind {
    /// What it has in memory whatever the size of its cache, in bytes.
    fn bytes_min(self) -> usize {
        match self {
            Self::Sled => SLED_BYTES_MIN,
            Self::Redb | Self::Memory => 0,
        }
    }
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
    /// each for the engine's own cache and (at most 32 MiB) for the newest changes, which watches and gets read. An
    /// eighth is for values that were read and are older than those. The rest is for queues, and for what an allocator
    /// takes beside all that. What sled takes whatever its limits goes off first, up to half of it.
    pub memory_bytes: usize,
    /// A checkpoint of the key index is written after so many revisions, and later when it is large; default 65,536,
    /// whose metadata a start reads in a tenth of a second.
    pub checkpoint_revisions: u64,
}

impl StorageConfig {
    /// What is shared out: the budget without what the engine takes in any case, and at least half of it.
    fn shared_bytes(&self) -> usize {
        self.memory_bytes.saturating_sub(self.engine.bytes_min()).max(self.memory_bytes / 2)
    }
    /// Bytes that may wait in memtables before new entries are held back.
    pub(crate) fn memtable_bytes_max(&self) -> usize {
        self.shared_bytes() / 2
    }
    /// Bytes that may wait while a dump runs before it hurries.
    pub(crate) fn overlay_hurry_bytes(&self) -> usize {
        self.shared_bytes() / 8
    }
    /// Bytes that may wait while a dump runs before some of them go to the stable store under it.
    pub(crate) fn overlay_drain_bytes(&self) -> usize {
        self.shared_bytes() / 4
    }
    /// Bytes of cached values.
    pub(crate) fn cache_bytes(&self) -> usize {
        self.shared_bytes() / 8
    }
    /// Bytes of the newest changes, beside those that are not yet in the stable store.
    pub(crate) fn ring_bytes(&self) -> usize {
        (self.shared_bytes() / 32).min(RING_BYTES_MAX)
    }
    /// Bytes for the engine's own cache; below 1 MiB sled cannot work.
    pub(crate) fn engine_cache_bytes(&self) -> usize {
        (self.shared_bytes() / 32).max(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sled_takes_in_any_case_comes_off_what_is_shared_out() {
        let shared = |engine, memory_bytes| {
            let checkpoint_revisions = 1;
            let config =
                StorageConfig { dir: PathBuf::new(), engine, workers: 1, memory_bytes, checkpoint_revisions };
            config.shared_bytes()
        };
        assert_eq!(shared(EngineKind::Redb, 128 << 20), 128 << 20);
        assert_eq!(shared(EngineKind::Sled, 512 << 20), 448 << 20);
        assert_eq!(shared(EngineKind::Sled, 64 << 20), 32 << 20, "not less than half of a small one");
    }
}
