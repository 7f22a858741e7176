//! The engine without files: for members that keep nothing but log and snapshot, and for simulation.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Engine, Pair};
use crate::error::StoreError;

/// A map behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    map: RwLock<Map>,
}

#[derive(Debug, Default)]
struct Map {
    pairs: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

impl Map {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let key_len = key.len();
        let old = match value {
            Some(value) => {
                self.bytes += key_len + value.len();
                self.pairs.insert(key.into(), value.into())
            }
            None => self.pairs.remove(&key[..]),
        };
        if let Some(old) = old {
            self.bytes -= key_len + old.len();
        }
    }
}

impl Engine for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.map.read().pairs.get(key).cloned())
    }

    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError> {
        let map = self.map.read();
        let below = map.pairs.range::<[u8], _>((Bound::Included(&key[..1]), Bound::Included(key)));
        Ok(below.last().map(|(k, v)| (k.clone(), v.clone())))
    }

    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        let map = self.map.read();
        let mut found = Vec::new();
        let mut bytes = 0;
        for (key, value) in map.pairs.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if key[0] != from[0] || found.len() == pairs_max || bytes > bytes_max {
                break;
            }
            bytes += value.len();
            found.push((key.clone(), value.clone()));
        }
        Ok(found)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut map = self.map.write();
        for (key, value) in batch.into_ops() {
            map.set(key, value);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.map.read().bytes as u64
    }
}
