//! What is visible, or about to be, and not yet in the stable store.
//!
//! Records are found by id; shards keep workers out of each other's way. A record leaves when it is committed. The
//! *active* memtable takes new records; at the start and the end of a dump it is sealed and a fresh one, the
//! *overlay*, takes over.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_mvcc::types::{Change, PutRecord, RecordId, Revision};
use parking_lot::RwLock;

use crate::record::Stored;
use crate::types::MemtableFigures;
use crate::view::FixedHasher;

/// Records by id, in shards by key.
#[derive(Debug)]
pub(crate) struct Memtable {
    /// Written by the worker of the shard and, to remove, by the committer; looked up by readers, iterated only
    /// where the order does not matter.
    shards: Vec<RwLock<Shard>>,
    /// Sums over the shards, for status.
    records: AtomicUsize,
    bytes: AtomicUsize,
}

/// Nobody outside chooses the ids: a plain hash is enough.
type Shard = HashMap<RecordId, Arc<Stored>, BuildHasherDefault<FixedHasher>>;

impl Memtable {
    /// An empty one with so many shards.
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        let shards = (0..shards).map(|_| RwLock::default()).collect();
        Arc::new(Self { shards, records: AtomicUsize::new(0), bytes: AtomicUsize::new(0) })
    }

    /// How many shards there are.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How much there is, about: while records come and go, the two figures may not belong together.
    pub(crate) fn figures(&self) -> MemtableFigures {
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        MemtableFigures { records, bytes }
    }

    /// Adds records of one shard.
    pub(crate) fn insert(&self, shard: usize, records: &[Arc<Stored>]) {
        let mut map = self.shards[shard].write();
        for stored in records {
            map.insert(stored.record.id, Arc::clone(stored));
        }
        drop(map);
        self.records.fetch_add(records.len(), Ordering::Relaxed);
        self.bytes.fetch_add(records.iter().map(|stored| stored.bytes()).sum(), Ordering::Relaxed);
    }

    /// The put with this id, when it is here.
    pub(crate) fn put(&self, key: &[u8], id: RecordId) -> Option<PutRecord> {
        let shard = self.shards[shard_of(key, self.shards.len())].read();
        match &shard.get(&id)?.record.change {
            Change::Put(put) => Some(put.clone()),
            Change::Delete => None,
        }
    }

    /// The records up to a revision, in no order.
    pub(crate) fn up_to(&self, at: Revision) -> Vec<Arc<Stored>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read();
            found.extend(shard.values().filter(|s| s.record.id.revision <= at).cloned());
        }
        found
    }

    /// Forgets committed records.
    pub(crate) fn remove(&self, committed: &[Arc<Stored>]) {
        for stored in committed {
            let shard = shard_of(&stored.record.key, self.shards.len());
            self.shards[shard].write().remove(&stored.record.id);
        }
        self.records.fetch_sub(committed.len(), Ordering::Relaxed);
        self.bytes.fetch_sub(committed.iter().map(|stored| stored.bytes()).sum(), Ordering::Relaxed);
    }
}

/// The shard of a key: a fixed hash, so that simulated runs repeat.
pub(crate) fn shard_of(key: &[u8], shards: usize) -> usize {
    crc32c::crc32c(key) as usize % shards
}
