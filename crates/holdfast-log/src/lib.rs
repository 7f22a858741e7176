//! The Raft log and vote on disk. The only code that writes log bytes.
//!
//! **What it is.** One ordered stream of records (entries, votes, truncations, purges, committed positions) in
//! segment files that are filled with zeros ahead of their use and used again after a purge. One writer loop drains
//! a queue into one buffer, writes it once, makes it durable once, and then answers in order; nothing waits for more
//! to come. A second loop, the file keeper, prepares the next segment and recycles old ones, off that path.
//!
//! **What it is not.** It knows nothing of Raft beyond log ids: it does not decide what to truncate or purge. It does
//! not lock its directory; the server locks the whole data directory.
//!
//! # Invariants
//!
//! 1. A callback runs only after its operation, and all before it, are durable; never after a failed write or fsync,
//!    which stop the member ([`holdfast_env::Spawn::halt`]) and are never tried again.
//! 2. What was durable is there after a crash, or the log refuses to open and names the file, the byte and the way
//!    on. What was never appended, or had been truncated, never appears.
//! 3. A segment is removed or used again only after the purge that emptied it is durable, oldest first.
//! 4. `purged <= last`; entries are contiguous behind `purged`.
//!
//! # Layout
//!
//! Files in the directory: `<epoch>.seg`, a segment; `<number>.spare`, a file that waits to become one and whose
//! content means nothing. Both numbers are 16 hexadecimal digits. Epochs grow by one and are never used twice. All
//! integers are little-endian.
//!
//! ```text
//! segment   0    magic "HOLDFAST"            16  epoch, u64
//!           8    format version, u8 (1)      24  length of the file, u64
//!           9    zero, 3 bytes               32  Raft group, u64 (0)
//!           12   CRC32C of 0..12 and 16..48  40  tag of this use of the file, u64, random, not zero
//!                                            48  zero, up to 4096
//!           4096 records, one behind the other, each padded with zeros to a multiple of 8 bytes
//!
//! record    0    CRC32C over the segment's epoch (u64), the record's offset in the file (u64), and the bytes from 4
//!                to the end of the body
//!           4    length of the body, u32
//!           8    the segment's tag, u64
//!           16   how many bytes before this record the write that carried it began, u32
//!           20   kind, u8; zero, 3 bytes
//!           24   body
//!
//! kind      1 head       option(purged), option(last), option(committed), u8 has-vote, u32 length, vote,
//!                        u32 count, count × (u64 epoch, u64 first entry or all ones, u64 end of its records)
//!           2 entry      id, payload
//!           3 vote       the vote
//!           4 truncate   option(last entry that stays)
//!           5 purge      id of the last entry that is gone
//!           6 committed  id
//!           id = u64 term, u64 index; option(id) = u8 is-some, id or zeros
//! ```
//!
//! The first record of each segment is a head: the vote and the positions survive the segments before it, and a start
//! needs only the heads and the last segment. A write is padded with zeros to what the disk writes at once (a sector of
//! 512 bytes past the system's cache, where the file system takes that, and a page of 4 KiB through it), and the next
//! write begins by writing that part again: the kernel never reads a block in order to write it. It never crosses segments and follows
//! only after the one before it is durable: so an intact record proves that all bytes before the beginning of *its*
//! write had been durable. Damage in front of that point is refused; damage behind it is a torn write and is cut.
//! The tag keeps a value that a client wrote, and that a recycled file still holds, from passing for a record.
//! What cannot be told from a torn write is bit rot in the last write; the next write protects it.
//! A disk sector of 512 bytes is assumed to be written whole or not at all.
//!
//! Module map: `format` has the bytes, `segment` one file, `contents` what lies where, `recover` opening,
//! `writer` and `files` the two loops, `shared` the state between them and the cache, `stats` the figures.

mod contents;
mod error;
mod files;
mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod recover;
mod segment;
mod shared;
mod stats;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{Env, LogId, LogIndex, TaskHandle};
use parking_lot::Mutex;
use tokio::sync::Notify;

use contents::{Located, Run, next_index};
pub use error::LogError;
pub use format::entry_bytes;
use format::{BLOCK_BYTES, Record};
use shared::{Budget, Cache, Inner, Op, Shared};
pub use stats::{FSYNC_BUCKETS, LogStats};

/// The default size of a segment file.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// The default size of the tail kept in memory.
pub const CACHE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many bytes may wait for the writer before [`Log::room`] waits.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The smallest segment: a header, a head, and an entry of a few KiB.
const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES;

/// One log entry. The payload is opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub id: LogId,
    /// What it carries.
    pub payload: Bytes,
}

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The last entry that was purged; entries up to it are gone.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` when there is none behind it.
    pub last: Option<LogId>,
    /// The last saved vote, opaque.
    pub vote: Option<Bytes>,
    /// The last saved committed position.
    pub committed: Option<LogId>,
}

/// Sizes; every limit has a flag in the server.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The directory, created when missing.
    pub dir: PathBuf,
    /// The size of one segment file in bytes, rounded up to whole blocks of 4 KiB, at least 16 KiB; default 64 MiB.
    /// No entry may be larger than half of it.
    pub segment_bytes: u64,
    /// How many bytes of the tail are kept in memory for readers; default 64 MiB. What is not on disk yet is kept
    /// in any case.
    pub cache_bytes_max: usize,
}

impl LogConfig {
    /// A log in this directory, with the default sizes.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), segment_bytes: SEGMENT_BYTES, cache_bytes_max: CACHE_BYTES_MAX }
    }
}

/// Called once the operation is durable. Callbacks run in the order of the operations, on the writer's thread: they
/// must not block. A callback that never runs is dropped: the log failed or was shut down.
pub type Durable = Box<dyn FnOnce() + Send>;

/// A handle to the open log. Cheap to clone. When the last one is dropped, the writer writes what is queued and ends.
#[derive(Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

/// Shared by all clones of a [`Log`]; its end closes the log.
struct Handle {
    shared: Arc<Shared>,
    loops: Mutex<Vec<TaskHandle>>,
}

impl Log {
    /// Opens or creates the log. A torn tail is cut; damage before valid records is refused. When it is refused,
    /// nothing on disk is changed.
    pub fn open(env: &Env, config: LogConfig) -> Result<Self, LogError> {
        let segment_bytes = config.segment_bytes.max(SEGMENT_BYTES_MIN).next_multiple_of(BLOCK_BYTES);
        let recovered = recover::recover(env, &config.dir, segment_bytes)?;
        let mut inner = Inner::new(recovered.contents, recovered.prepared, recovered.retired);
        writer::plan_files(&mut inner);
        let shared = Arc::new(Shared {
            dir: config.dir,
            segment_bytes,
            cache_bytes_max: config.cache_bytes_max,
            inner: Mutex::new(inner),
            writer_wake: Notify::new(),
            files_wake: Notify::new(),
            room: Notify::new(),
        });
        let writer = writer::Writer::new(env.clone(), Arc::clone(&shared), recovered.tail);
        let keeper = files::Keeper::new(env.clone(), Arc::clone(&shared), recovered.spares);
        let loops = vec![
            env.spawn.dedicated("log-writer", Box::pin(writer.run())),
            env.spawn.dedicated("log-files", Box::pin(keeper.run())),
        ];
        Ok(Self { handle: Arc::new(Handle { shared, loops: Mutex::new(loops) }) })
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// What the log holds, including what is not yet durable.
    pub fn state(&self) -> LogState {
        self.shared().inner.lock().state.clone()
    }

    /// Appends entries; they are readable on return and durable when `done` is called. Their indexes must follow on
    /// [`LogState::last`]; an empty log that was never purged may begin anywhere. Never waits; call [`Log::room`]
    /// before, and refuse new work while [`Log::is_full`]. Without room on the disk the entries stay queued, and
    /// `done` is called once there is some. On error nothing happened, and `done` is dropped.
    pub fn append(&self, entries: Vec<Entry>, done: Durable) -> Result<(), LogError> {
        let shared = self.shared();
        let bytes = shared.check_sizes(&entries)?;
        let mut inner = shared.inner.lock();
        inner.check_open()?;
        inner.check_next(&entries)?;
        inner.append(&entries);
        inner.enqueue(bytes, Op::Append(entries, done));
        drop(inner);
        shared.writer_wake.notify_one();
        Ok(())
    }

    /// Waits until fewer than [`QUEUE_BYTES_MAX`] bytes wait for the disk. Fails when the log is closed.
    pub async fn room(&self) -> Result<(), LogError> {
        let shared = self.shared();
        loop {
            let woken = shared.room.notified();
            futures::pin_mut!(woken);
            // Registered before the check, so that a wake-up between the two is not lost.
            woken.as_mut().enable();
            {
                let inner = shared.inner.lock();
                inner.check_open()?;
                if inner.queued_bytes < QUEUE_BYTES_MAX {
                    return Ok(());
                }
            }
            woken.await;
        }
    }

    /// True while the disk has no room for another segment, mostly long before the current one is used up.
    /// Proposals should be refused then: what is left of the current segment is for what Raft itself needs. Entries
    /// that do not fit there wait, and what is queued behind them with them, but for purges. Clears itself once there
    /// is space.
    pub fn is_full(&self) -> bool {
        self.shared().inner.lock().stats.is_full
    }

    /// Saves the vote; durable when `done` is called. Ordered with appends.
    pub fn save_vote(&self, vote: Bytes, done: Durable) -> Result<(), LogError> {
        let shared = self.shared();
        let bytes = format::record_bytes(vote.len());
        let bytes_max = shared.record_bytes_max();
        if bytes as u64 > bytes_max / 4 {
            return Err(LogError::TooLarge { bytes: bytes as u64, bytes_max: bytes_max / 4 });
        }
        let mut inner = shared.inner.lock();
        inner.check_open()?;
        inner.state.vote = Some(vote.clone());
        inner.enqueue(bytes, Op::Vote(vote, done));
        drop(inner);
        shared.writer_wake.notify_one();
        Ok(())
    }

    /// Records how far the log is committed; written with the next write, never waits for the disk and never causes
    /// a write by itself, except at shutdown. It becomes durable only with or behind all that was queued before it.
    pub fn save_committed(&self, committed: LogId) -> Result<(), LogError> {
        let mut inner = self.shared().inner.lock();
        inner.check_open()?;
        inner.state.committed = Some(committed);
        // Never before what it speaks of: it rides on the last operation in the queue.
        match inner.queue.back_mut() {
            Some(before) => before.committed = Some(committed),
            None => inner.committed = Some(committed),
        }
        Ok(())
    }

    /// Drops all entries behind `last` (all, when `None`). Durable before any later append is.
    pub fn truncate_after(&self, last: Option<LogId>) -> Result<(), LogError> {
        let shared = self.shared();
        let mut inner = shared.inner.lock();
        inner.check_open()?;
        inner.truncate(last);
        inner.enqueue(format::record_bytes(17), Op::Truncate(last));
        drop(inner);
        shared.writer_wake.notify_one();
        Ok(())
    }

    /// Marks entries up to `through` as gone; files are recycled elsewhere. `through` may be beyond the last entry
    /// (after a snapshot install): then the log starts anew behind it. Does nothing when all that is gone already.
    pub fn purge(&self, through: LogId) -> Result<(), LogError> {
        let shared = self.shared();
        let mut inner = shared.inner.lock();
        inner.check_open()?;
        if inner.state.purged.is_some_and(|purged| purged.index() >= through.index()) {
            return Ok(());
        }
        inner.purge(through);
        inner.enqueue(format::record_bytes(16), Op::Purge(through));
        drop(inner);
        shared.writer_wake.notify_one();
        Ok(())
    }

    /// The entries of `from..to`, from the front, until `bytes_max` of payload is passed; at least one when there is
    /// one. Begins behind [`LogState::purged`] when `from` is not. Blocks on the disk when they are no longer cached.
    /// Fails with [`LogError::Damaged`] when what is on disk is not intact.
    pub fn read(&self, from: LogIndex, to: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let mut budget = Budget::new(bytes_max);
        let mut entries = Vec::new();
        let mut cached = Vec::new();
        let runs = self.plan_read(from, to, &mut budget, &mut cached)?;
        for run in runs {
            read_run(&run, &mut budget, &mut entries)?;
            if budget.is_spent() {
                return Ok(entries);
            }
        }
        for entry in cached {
            if !budget.take(&entry) {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The saved committed position when the log holds that very entry, or had purged it; `None` otherwise. Blocks on
    /// the disk when the entry is not cached.
    pub fn committed_and_held(&self) -> Result<Option<LogId>, LogError> {
        let state = self.state();
        let Some(committed) = state.committed else { return Ok(None) };
        if state.purged.is_some_and(|purged| committed.index() <= purged.index()) {
            return Ok(Some(committed).filter(|committed| Some(*committed) <= state.purged));
        }
        let held = self.read(committed.index(), committed.index().next(), 0)?;
        Ok(held.first().map(|entry| entry.id).filter(|held| *held == committed))
    }

    /// Under one lock: which entries come from files, and the ones behind them that are in memory.
    fn plan_read(
        &self,
        from: LogIndex,
        to: LogIndex,
        budget: &mut Budget,
        cached: &mut Vec<Entry>,
    ) -> Result<Vec<Run>, LogError> {
        loop {
            let (file, end) = {
                let inner = self.shared().inner.lock();
                let from = from.max(next_index(inner.state.purged));
                let to = to.min(next_index(inner.state.last));
                if from >= to {
                    return Ok(Vec::new());
                }
                let split = inner.cache.first().map_or(to, |first| first.clamp(from, to));
                match inner.contents.locate(from, split) {
                    Located::Runs(runs) => {
                        inner.cache.read(split, to, &mut budget.clone(), cached);
                        return Ok(runs);
                    }
                    Located::NeedsMarks(file, end) => (file, end),
                }
            };
            let marks = recover::load_marks(&file, end)?;
            let mut inner = self.shared().inner.lock();
            if let Some(slot) = inner.contents.slots.iter_mut().find(|slot| slot.epoch == file.id.epoch) {
                slot.marks.get_or_insert(marks);
            }
        }
    }

    /// The figures since the log was opened.
    pub fn stats(&self) -> LogStats {
        let inner = self.shared().inner.lock();
        LogStats {
            queued_bytes: inner.queued_bytes,
            cached_bytes: inner.cache.bytes(),
            ..inner.stats.clone()
        }
    }

    /// Writes and syncs what is queued, then ends the writer. Operations are refused from now on; reads still work.
    pub async fn shutdown(&self) {
        self.handle.close();
        let loops = std::mem::take(&mut *self.handle.loops.lock());
        for task in loops {
            task.join().await;
        }
    }
}

impl Handle {
    fn close(&self) {
        self.shared.inner.lock().is_closing = true;
        self.shared.writer_wake.notify_one();
        self.shared.files_wake.notify_one();
        self.shared.room.notify_waiters();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.shared().dir).finish_non_exhaustive()
    }
}

/// Reads the entries of one run. Each record is verified again.
fn read_run(run: &Run, budget: &mut Budget, entries: &mut Vec<Entry>) -> Result<(), LogError> {
    let bytes = run.file.read(run.offset, run.end)?;
    let mut scan =
        segment::Scan { bytes: &bytes, base: run.offset, segment: run.file.id, offset: run.offset };
    let mut index = run.index;
    while index < run.to {
        let at = scan.offset;
        let Some((_, found)) = scan.next() else {
            return Err(run.file.damaged(at, "a record that had been made durable is not intact"));
        };
        let Record::Entry(entry) = found.record else { continue };
        if entry.id.index() != index {
            return Err(run.file.damaged(at, "another entry lies where one had been made durable"));
        }
        index = index.next();
        if entry.id.index() >= run.from {
            if !budget.take(&entry) {
                return Ok(());
            }
            entries.push(entry);
        }
    }
    Ok(())
}

impl Inner {
    fn new(
        contents: contents::Contents,
        prepared: Option<Arc<segment::SegmentFile>>,
        retired: Vec<Arc<segment::SegmentFile>>,
    ) -> Self {
        let state = LogState {
            purged: contents.purged,
            last: contents.last,
            vote: contents.vote.clone(),
            committed: contents.committed,
        };
        let requested = prepared.as_ref().map_or(0, |prepared| prepared.id.epoch);
        Self {
            state,
            committed: None,
            queue: std::collections::VecDeque::new(),
            queued_bytes: 0,
            sequence: 0,
            cache: Cache::default(),
            contents,
            prepared,
            wanted: None,
            requested,
            retired: retired.into(),
            is_closing: false,
            has_failed: false,
            is_writer_gone: false,
            stats: LogStats::default(),
        }
    }
}
