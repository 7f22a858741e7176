//! The engine over redb: commits without durability, then one durable commit per flush. redb keeps the order: what
//! survives a crash is the last durable commit or a state behind it.
//!
//! A durable commit carries the state of redb's allocator, so that an open after a crash need not walk through the whole
//! database: 0.2 s for 300 MB that are in the system's cache. That walk would check pages that the packs' own checksums
//! cover when they are read.

use std::ops::Bound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::{Batch, Engine, Pair};
use crate::error::StoreError;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("stable");

/// Bytes of a block as the operating system counts them for a file.
const BLOCK: u64 = 512;

/// A redb database.
pub(crate) struct Redb {
    db: Database,
    file: PathBuf,
}

impl Redb {
    /// Opens or creates the database in `dir`.
    pub(crate) fn open(dir: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let file = dir.join("store.redb");
        let db = Database::builder().set_cache_size(cache_bytes).create(&file).map_err(failed)?;
        let engine = Self { db, file };
        engine.write(Durability::Immediate, Batch::default())?;
        Ok(engine)
    }

    fn table(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        self.db.begin_read().map_err(failed)?.open_table(TABLE).map_err(failed)
    }

    fn write(&self, durability: Durability, batch: Batch) -> Result<(), StoreError> {
        let mut txn = self.db.begin_write().map_err(failed)?;
        txn.set_durability(durability).map_err(failed)?;
        txn.set_quick_repair(matches!(durability, Durability::Immediate));
        {
            let mut table = txn.open_table(TABLE).map_err(failed)?;
            for (key, value) in batch.into_ops() {
                match value {
                    Some(value) => drop(table.insert(&key[..], &value[..]).map_err(failed)?),
                    None => drop(table.remove(&key[..]).map_err(failed)?),
                }
            }
        }
        txn.commit().map_err(failed)
    }
}

impl Engine for Redb {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.table()?.get(key).map_err(failed)?;
        Ok(value.map(|v| Bytes::copy_from_slice(v.value())))
    }

    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError> {
        let table = self.table()?;
        let mut below = table.range::<&[u8]>(&key[..1]..=key).map_err(failed)?;
        match below.next_back() {
            Some(found) => {
                let (key, value) = found.map_err(failed)?;
                Ok(Some((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value()))))
            }
            None => Ok(None),
        }
    }

    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        let table = self.table()?;
        let end = [from[0] + 1];
        let mut found = Vec::new();
        let mut taken = 0;
        let bounds = (Bound::Included(from), Bound::Excluded(&end[..]));
        for next in table.range::<&[u8]>(bounds).map_err(failed)?.take(pairs_max) {
            let (key, value) = next.map_err(failed)?;
            taken += value.value().len();
            found.push((Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value())));
            if taken > bytes_max {
                break;
            }
        }
        Ok(found)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.write(Durability::None, batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, Batch::default())
    }

    fn disk_bytes(&self) -> u64 {
        // redb has no figure of its own without a write transaction. It makes its file longer ahead of need; what was
        // never written takes no blocks.
        std::fs::metadata(&self.file).map_or(0, |m| m.blocks() * BLOCK)
    }
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        // It refuses everything once a write has failed, for lack of space perhaps: that says nothing of what is there.
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
            StoreError::Failed(std::io::Error::other(error))
        }
        redb::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
            StoreError::Failed(error)
        }
        // The one thing that redb calls corrupt and is not: a file of a later redb.
        redb::Error::Corrupted(why) if why.starts_with("Expected file format version") => {
            StoreError::Newer(format!("redb: {why}"))
        }
        other => StoreError::Damaged(format!("redb: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PACK_BYTES;

    /// One byte of form before it, and a key as packs have it.
    #[test]
    fn a_full_pack_takes_no_more_than_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Redb::open(dir.path(), 8 << 20).unwrap();
        let before = engine.disk_bytes();
        let packs: u32 = 512;
        for number in 0..packs {
            let mut batch = Batch::default();
            let mut key = vec![b'p'; 14];
            key.extend_from_slice(&number.to_be_bytes());
            batch.put(key, vec![0x5a; PACK_BYTES + 1]);
            engine.apply(batch).unwrap();
            if number % 64 == 0 {
                engine.flush().unwrap();
            }
        }
        engine.flush().unwrap();
        let (taken, given) = (engine.disk_bytes() - before, u64::from(packs) * PACK_BYTES as u64);
        assert!(taken < given / 4 * 5, "{taken} bytes of files for {given}");
    }

    #[test]
    fn what_is_only_reserved_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Redb::open(dir.path(), 1 << 20).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&engine.file).unwrap();
        let (before, long) = (engine.disk_bytes(), 1 << 30);
        file.set_len(long).unwrap();
        assert!(engine.disk_bytes() < before + long / 2);
    }
}
