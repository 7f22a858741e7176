//! The engine over sled, the default.
//!
//! What sled needs from its user, and gets here:
//! - its `flush` does not reach the drive: we sync the file through a handle of our own behind it;
//! - messages above a quarter segment go to blob files that nobody syncs: segments of 4 MiB and values of at most
//!   32 KiB keep all messages below that;
//! - a batch holds a process-wide lock that blocks readers: batches are bounded;
//! - only its background flush collects segments: it stays on;
//! - its cache keeps to its limit only when pages are asked for again and again, as small pages are: here whoever asks
//!   for a page asks up to [`ACCESSES`] times;
//! - damage shows at open or on a read: the caller throws the store away and rebuilds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{Disk, OpenMode};
use sled::{Config, Db, IVec};

use super::{Batch, Engine, Pair};
use crate::error::StoreError;
use crate::limits::SLED_PACK_BYTES;

/// A quarter of it is above the largest leaf that values of 32 KiB make.
const SEGMENT_BYTES: usize = 4 << 20;

/// How often a page of full packs is asked for when it is read or written once; one of smaller packs is asked for as much
/// less often. sled notes accesses for each of the 256 parts of its cache in blocks of 64, and evicts from a part only when a block is full. Our pages are large (up to 16 packs, or values
/// of up to 32 KiB) and asked for a few times: all of a store of some GiB would be in memory before the first one goes. With
/// this the cache is what sled cannot go below, the newest page of each part, and up to three more of them, since a block is
/// full after four pages. A further access takes a third of a microsecond, the first one of a page that is not in memory some
/// hundred.
const ACCESSES: usize = 16;

/// As [`ACCESSES`], with a cache below [`SMALL_CACHE_BYTES`]: each page fills a block, so that nothing stays beside the newest
/// page of each part. A list of everything takes half as much CPU again.
const ACCESSES_SMALL: usize = 64;

/// Half of what the newest pages of all parts come to.
const SMALL_CACHE_BYTES: usize = 8 << 20;

/// Behind so many bytes of values, a pair is taken for one of another page: half of what a page of packs can have.
const PAGE_VALUE_BYTES: usize = 8 * SLED_PACK_BYTES;

/// sled lets its lock go a moment after the last handle is dropped, on a thread of its own: so often an open asks before it
/// says that somebody else uses the files ...
const LOCK_TRIES: u32 = 50;

/// ... and so long it waits in between.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How often sled's own thread flushes and collects segments.
const FLUSH_EVERY_MS: u64 = 1000;

/// A sled database.
pub(crate) struct Sled {
    db: Db,
    disk: Arc<dyn Disk>,
    file: PathBuf,
    accesses: usize,
}

impl Sled {
    /// Opens or creates the database in `dir`.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let config = Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes as u64)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let mut tries = 0;
        let db = loop {
            tries += 1;
            match config.open().map_err(opening) {
                Err(StoreError::InUse) if tries < LOCK_TRIES => std::thread::sleep(LOCK_PAUSE),
                opened => break opened?,
            }
        };
        let accesses = if cache_bytes < SMALL_CACHE_BYTES { ACCESSES_SMALL } else { ACCESSES };
        Ok(Self { db, disk: Arc::clone(disk), file: dir.join("db"), accesses })
    }

    /// Has sled note that the page of this key was asked for: see [`ACCESSES`].
    fn note_access(&self, key: &[u8]) -> Result<(), StoreError> {
        self.note_accesses(self.accesses, key)
    }

    /// As [`Sled::note_access`], for a page of which this value is one: its neighbours are mostly of its size.
    fn note_access_of(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let part = (value.len() * self.accesses).div_ceil(SLED_PACK_BYTES);
        self.note_accesses(part.min(self.accesses), key)
    }

    fn note_accesses(&self, number: usize, key: &[u8]) -> Result<(), StoreError> {
        (1..number).try_for_each(|_| self.db.contains_key(key).map(drop).map_err(running))
    }
}

/// Tells pages apart by the bytes that have passed.
#[derive(Default)]
struct Pages {
    bytes: usize,
}

impl Pages {
    /// True when this value is taken for one of the next page.
    fn turn(&mut self, value_bytes: usize) -> bool {
        self.bytes += value_bytes;
        let is_next = self.bytes > PAGE_VALUE_BYTES;
        if is_next {
            self.bytes = 0;
        }
        is_next
    }
}

impl Engine for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.db.get(key).map_err(running)?;
        match &found {
            Some(value) => self.note_access_of(key, value)?,
            // The page was read all the same, and nothing tells its size.
            None => self.note_access(key)?,
        }
        Ok(found.as_ref().map(bytes))
    }

    fn get_le(&self, key: &[u8]) -> Result<Option<Pair>, StoreError> {
        let Some(found) = self.db.range(&key[..1]..=key).next_back() else { return Ok(None) };
        let (found, value) = found.map_err(running)?;
        self.note_access_of(&found, &value)?;
        Ok(Some(pair((found, value))))
    }

    fn scan(&self, from: &[u8], pairs_max: usize, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        let end = [from[0] + 1];
        let mut found = Vec::new();
        let (mut taken, mut pages) = (0, Pages::default());
        for next in self.db.range(from..&end[..]).take(pairs_max) {
            let (key, value) = pair(next.map_err(running)?);
            taken += value.len();
            if pages.turn(value.len()) {
                self.note_access(&key)?;
            }
            found.push((key, value));
            if taken > bytes_max {
                break;
            }
        }
        Ok(found)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut ops = sled::Batch::default();
        let (mut touched, mut pages) = (Vec::new(), Pages::default());
        for (key, value) in batch.into_ops() {
            if pages.turn(value.as_ref().map_or(0, Vec::len)) {
                touched.push(key.clone());
            }
            match value {
                Some(value) => ops.insert(key, value),
                None => ops.remove(key),
            }
        }
        self.db.apply_batch(ops).map_err(running)?;
        touched.iter().try_for_each(|key| self.note_access(key))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(running)?;
        let file = self.disk.open(&self.file, OpenMode::ReadWrite).map_err(StoreError::Failed)?;
        file.sync_data().map_err(StoreError::Failed)
    }

    fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    fn pack_bytes(&self) -> usize {
        SLED_PACK_BYTES
    }
}

fn bytes(value: &IVec) -> Bytes {
    Bytes::copy_from_slice(value)
}

fn pair((key, value): (IVec, IVec)) -> Pair {
    (bytes(&key), bytes(&value))
}

/// At open, a held lock has its own meaning; sled reports it as an I/O error with that text and no kind of its own.
/// Files of another sled are not damaged; any other complaint about its configuration file means that it is.
fn opening(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => StoreError::InUse,
        sled::Error::Unsupported(why) if why.contains("pagecache version") => {
            StoreError::Newer(format!("sled: {why}"))
        }
        other => running(other),
    }
}

fn running(error: sled::Error) -> StoreError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error {
        sled::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
            StoreError::Failed(error)
        }
        other => StoreError::Damaged(format!("sled: {other}")),
    }
}
