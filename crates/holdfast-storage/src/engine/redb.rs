//! The engine over redb: commits without durability, then one durable commit per flush. redb keeps the order: what
//! survives a crash is the last durable commit or a state behind it.
//!
//! A durable commit carries the state of redb's allocator, so that an open after a crash need not walk through the whole
//! database: 0.2 s for 300 MB that are in the system's cache. That walk would check pages that the packs' own checksums
//! cover when they are read.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};

use super::{Batch, Engine, Pair};
use crate::error::StoreError;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("stable");

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
        // redb has no figure of its own without a write transaction.
        std::fs::metadata(&self.file).map_or(0, |m| m.len())
    }
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
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
