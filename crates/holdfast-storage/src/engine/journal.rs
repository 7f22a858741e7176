//! The engine of the simulation: a map in memory, and an append-only file of batches on the [`Disk`] it is given.
//!
//! sled and redb do their own file access and cannot run on a simulated disk. This one makes the same promises by the
//! same means as any engine (write, sync, and a torn tail that is recognised), so that crashes between commit and flush,
//! generations and their switch mean something in a simulation. It never shrinks; it is not for production.
//!
//! # Layout
//! Frames one after the other, from offset 0:
//!
//! ```text
//! body length u32 LE | CRC-32C of the body, going on from the CRC of the frame before, u32 LE | body
//! body: operations, each  key length u32 LE | value length u32 LE, or u32::MAX for a delete | key | value
//! ```
//! The chained CRC keeps a frame that an earlier life has left from counting behind a newer one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, BufMut, Bytes};
use holdfast_env::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;

use super::memory::Memory;
use super::{Batch, Engine, Pair};
use crate::error::StoreError;

const FRAME_HEADER_BYTES: usize = 8;
const DELETE: u32 = u32::MAX;

/// A map, and the file it is read from.
pub(crate) struct Journal {
    map: Memory,
    file: Box<dyn DiskFile>,
    tail: Mutex<Tail>,
    /// An append failed: what is behind the tail is not known, and nothing may be built on it.
    is_broken: AtomicBool,
}

/// Where the next frame goes.
#[derive(Debug, Clone, Copy, Default)]
struct Tail {
    offset: u64,
    crc: u32,
}

impl Journal {
    /// Opens or creates the file in `dir`, up to its first frame that is not whole.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let path: PathBuf = dir.join("store.journal");
        let mode = match disk.exists(&path).map_err(StoreError::Failed)? {
            true => OpenMode::ReadWrite,
            false => OpenMode::CreateNew,
        };
        let file = disk.open(&path, mode).map_err(StoreError::Failed)?;
        let map = Memory::default();
        let tail = replay(&*file, &map)?;
        // What follows the tail must not come back behind what is written there next.
        file.set_len(tail.offset).map_err(StoreError::Failed)?;
        file.sync_all().map_err(StoreError::Failed)?;
        Ok(Self { map, file, tail: Mutex::new(tail), is_broken: AtomicBool::new(false) })
    }

    fn append(&self, frame: &[u8], tail: &mut Tail, crc: u32) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::Acquire) {
            return Err(StoreError::Failed(std::io::Error::other("an earlier write failed")));
        }
        self.file.write_all_at(frame, tail.offset).map_err(|error| {
            self.is_broken.store(true, Ordering::Release);
            StoreError::Failed(error)
        })?;
        *tail = Tail { offset: tail.offset + frame.len() as u64, crc };
        Ok(())
    }
}

/// Applies the whole frames of the file; gives where they end.
fn replay(file: &dyn DiskFile, map: &Memory) -> Result<Tail, StoreError> {
    let len = file.len().map_err(StoreError::Failed)?;
    let mut content = vec![0; usize::try_from(len).expect("a simulated file fits into memory")];
    file.read_exact_at(&mut content, 0).map_err(StoreError::Failed)?;
    let mut tail = Tail::default();
    let mut rest = Bytes::from(content);
    while rest.len() >= FRAME_HEADER_BYTES {
        let (len, crc) = (rest.get_u32_le() as usize, rest.get_u32_le());
        // No batch is empty, so that zeros are not a frame.
        if len == 0 || rest.len() < len {
            break;
        }
        let body = rest.split_to(len);
        if crc32c::crc32c_append(tail.crc, &body) != crc {
            break;
        }
        map.apply(decode(body)?)?;
        tail = Tail { offset: tail.offset + (FRAME_HEADER_BYTES + len) as u64, crc };
    }
    Ok(tail)
}

fn decode(mut body: Bytes) -> Result<Batch, StoreError> {
    let short = || StoreError::damaged("an operation of the journal is cut off");
    let mut batch = Batch::default();
    while !body.is_empty() {
        if body.len() < FRAME_HEADER_BYTES {
            return Err(short());
        }
        let (key, value) = (body.get_u32_le() as usize, body.get_u32_le());
        let value_len = if value == DELETE { 0 } else { value as usize };
        if body.len() < key + value_len {
            return Err(short());
        }
        let key = body.split_to(key).to_vec();
        match value {
            DELETE => batch.delete(key),
            _ => batch.put(key, body.split_to(value_len).to_vec()),
        }
    }
    Ok(batch)
}

/// The body of a frame, and the batch again.
fn encode(batch: Batch) -> (Vec<u8>, Batch) {
    let (mut frame, mut again) = (vec![0; FRAME_HEADER_BYTES], Batch::default());
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a batch is bounded far below 4 GiB");
    for (key, value) in batch.into_ops() {
        frame.put_u32_le(len(&key));
        frame.put_u32_le(value.as_deref().map_or(DELETE, len));
        frame.put_slice(&key);
        match value {
            Some(value) => {
                frame.put_slice(&value);
                again.put(key, value);
            }
            None => again.delete(key),
        }
    }
    (frame, again)
}

impl Engine for Journal {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.map.get(key)
    }

    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError> {
        self.map.get_le(key)
    }

    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        self.map.scan(from, pairs_max, bytes_max)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.ops() == 0 {
            return Ok(());
        }
        let (mut frame, batch) = encode(batch);
        let mut tail = self.tail.lock();
        let body_len = u32::try_from(frame.len() - FRAME_HEADER_BYTES).expect("as above");
        let crc = crc32c::crc32c_append(tail.crc, &frame[FRAME_HEADER_BYTES..]);
        frame[..4].copy_from_slice(&body_len.to_le_bytes());
        frame[4..FRAME_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        self.append(&frame, &mut tail, crc)?;
        self.map.apply(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let _tail = self.tail.lock();
        self.file.sync_data().map_err(|error| {
            self.is_broken.store(true, Ordering::Release);
            StoreError::Failed(error)
        })
    }

    fn disk_bytes(&self) -> u64 {
        self.tail.lock().offset
    }
}

#[cfg(test)]
mod tests {
    use holdfast_env::RealDisk;

    use super::*;

    fn put(key: &str, value: &str) -> Batch {
        let mut batch = Batch::default();
        batch.put(key.as_bytes().to_vec(), value.as_bytes().to_vec());
        batch
    }

    #[test]
    fn a_torn_frame_ends_the_journal_and_never_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let path = dir.path().join("store.journal");
        let journal = Journal::open(&disk, dir.path()).unwrap();
        for key in ["a1", "a2", "a3"] {
            journal.apply(put(key, "x")).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        let frame = whole.len() / 3;
        let mut torn = whole.clone();
        torn[frame + FRAME_HEADER_BYTES] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        let journal = Journal::open(&disk, dir.path()).unwrap();
        assert!(journal.get(b"a1").unwrap().is_some());
        assert!(journal.get(b"a2").unwrap().is_none());
        assert_eq!(journal.disk_bytes(), frame as u64);
        journal.apply(put("b2", "x")).unwrap();
        drop(journal);
        // The old third frame behind the new second one, as a disk could have kept it.
        let mut mixed = std::fs::read(&path).unwrap();
        mixed.extend_from_slice(&whole[2 * frame..]);
        std::fs::write(&path, &mixed).unwrap();
        let journal = Journal::open(&disk, dir.path()).unwrap();
        assert!(journal.get(b"b2").unwrap().is_some());
        assert!(journal.get(b"a3").unwrap().is_none());
    }
}
