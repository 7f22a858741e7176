//! What the handles, the writer and the file keeper share: the logical state, the queue, and the tail in memory.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{LogId, LogIndex};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::contents::{Contents, next_index};
use crate::error::LogError;
use crate::format;
use crate::segment::SegmentFile;
use crate::{Durable, Entry, LogState, LogStats};

/// Shared by all parts of one open log.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) cache_bytes_max: usize,
    /// Held for bookkeeping only, never while a file is touched.
    pub(crate) inner: Mutex<Inner>,
    /// Wakes the writer: work is queued, a prepared segment arrived, or the log is closing.
    pub(crate) writer_wake: Notify,
    /// Wakes the file keeper: a segment is wanted or retired, or the writer has ended.
    pub(crate) files_wake: Notify,
    /// Wakes who waits for room in the queue.
    pub(crate) room: Notify,
}

/// The state under the lock. The handles change the logical part, the writer the durable part.
pub(crate) struct Inner {
    /// What the log holds, with what is queued.
    pub(crate) state: LogState,
    /// A committed position to be written, saved when the queue was empty; later ones ride on what is queued.
    pub(crate) committed: Option<LogId>,
    pub(crate) queue: VecDeque<Queued>,
    pub(crate) queued_bytes: usize,
    /// Counts queued operations.
    pub(crate) sequence: u64,
    pub(crate) cache: Cache,
    /// What is on disk.
    pub(crate) contents: Contents,
    /// The next segment, ready to be written to.
    pub(crate) prepared: Option<Arc<SegmentFile>>,
    /// The epoch of the segment that the file keeper should prepare.
    pub(crate) wanted: Option<u64>,
    /// The highest epoch that was ever asked for.
    pub(crate) requested: u64,
    /// Segments that hold nothing any more, oldest first.
    pub(crate) retired: VecDeque<Arc<SegmentFile>>,
    /// No more operations are taken: shut down or dropped.
    pub(crate) is_closing: bool,
    /// A write failed; nothing is answered any more.
    pub(crate) has_failed: bool,
    /// The writer has ended.
    pub(crate) is_writer_gone: bool,
    pub(crate) stats: LogStats,
}

/// An operation on its way to the disk.
pub(crate) struct Queued {
    pub(crate) sequence: u64,
    /// Its size in the file.
    pub(crate) bytes: usize,
    pub(crate) op: Op,
    /// The last committed position saved while nothing was queued behind this. It may speak of this operation, and is
    /// not to be written before it.
    pub(crate) committed: Option<LogId>,
}

/// What is to be written.
pub(crate) enum Op {
    Append(Vec<Entry>, Durable),
    Vote(Bytes, Durable),
    Truncate(Option<LogId>),
    Purge(LogId),
}

/// The last entries, contiguous up to the last one of the log; empty after a start. Entries that are not on disk yet
/// are always here.
#[derive(Default)]
pub(crate) struct Cache {
    entries: VecDeque<(u64, Entry)>,
    bytes: usize,
    /// Operations up to this one are on disk.
    pub(crate) written: u64,
}

/// What an entry in memory is counted with, beside its payload.
const ENTRY_OVERHEAD_BYTES: usize = 64;

impl Cache {
    fn cost(entry: &Entry) -> usize {
        entry.payload.len() + ENTRY_OVERHEAD_BYTES
    }

    /// Bytes in use.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, sequence: u64, entry: Entry) {
        self.bytes += Self::cost(&entry);
        self.entries.push_back((sequence, entry));
    }

    /// Forgets the entries from `next` on.
    pub(crate) fn truncate(&mut self, next: LogIndex) {
        while self.entries.back().is_some_and(|(_, entry)| entry.id.index() >= next) {
            self.bytes -= self.entries.pop_back().map_or(0, |(_, entry)| Self::cost(&entry));
        }
    }

    /// Forgets the entries up to `through`.
    pub(crate) fn purge(&mut self, through: LogIndex) {
        while self.entries.front().is_some_and(|(_, entry)| entry.id.index() <= through) {
            self.pop_front();
        }
    }

    /// Forgets the oldest entries that are on disk while there are too many bytes.
    pub(crate) fn trim(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && self.entries.front().is_some_and(|(sequence, _)| *sequence <= self.written)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, entry)| Self::cost(&entry));
    }

    /// The first entry held.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        self.entries.front().map(|(_, entry)| entry.id.index())
    }

    /// Copies the entries `from..to` until `budget` is used up.
    pub(crate) fn read(&self, from: LogIndex, to: LogIndex, budget: &mut Budget, out: &mut Vec<Entry>) {
        let Some(first) = self.first() else { return };
        let skip = usize::try_from(from.get().saturating_sub(first.get())).unwrap_or(usize::MAX);
        for (_, entry) in self.entries.iter().skip(skip) {
            if entry.id.index() >= to || !budget.take(entry) {
                return;
            }
            out.push(entry.clone());
        }
    }
}

/// How much more a read may give: entries until the limit is passed, at least one.
#[derive(Clone)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: usize,
}

impl Budget {
    /// A budget of so many payload bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, used: 0 }
    }

    /// True when the entry may be given.
    pub(crate) fn take(&mut self, entry: &Entry) -> bool {
        let is_open = !self.is_spent();
        self.used = self.used.saturating_add(entry.payload.len().max(1));
        is_open
    }

    /// True when no more may be given.
    pub(crate) fn is_spent(&self) -> bool {
        self.used > 0 && self.used >= self.bytes_max
    }
}

impl Inner {
    /// Queues an operation and gives it its number.
    pub(crate) fn enqueue(&mut self, bytes: usize, op: Op) {
        self.sequence += 1;
        self.queued_bytes += bytes;
        self.queue.push_back(Queued { sequence: self.sequence, bytes, op, committed: None });
    }

    /// True when the file keeper has something to do: a segment to prepare, or one to recycle, which may have waited
    /// for a reader.
    pub(crate) fn has_file_work(&self) -> bool {
        self.wanted.is_some() || !self.retired.is_empty()
    }

    /// Fails once the log takes no more operations.
    pub(crate) fn check_open(&self) -> Result<(), LogError> {
        if self.is_closing || self.has_failed { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Fails when the entries do not follow on the end of the log or on each other. An empty log that was never
    /// purged may begin anywhere.
    pub(crate) fn check_next(&self, entries: &[Entry]) -> Result<(), LogError> {
        let mut expected = self.state.last.map(|last| last.index().next());
        for entry in entries {
            let index = entry.id.index();
            if expected.is_some_and(|expected| expected != index) {
                return Err(LogError::NotNext { index, last: self.state.last });
            }
            expected = Some(index.next());
        }
        Ok(())
    }

    /// Applies an append to the logical state.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        // The operation gets this number when it is queued right after this, under the same lock.
        let sequence = self.sequence + 1;
        for entry in entries {
            self.cache.push(sequence, entry.clone());
        }
        if let Some(last) = entries.last() {
            self.state.last = Some(last.id);
        }
    }

    /// Applies a truncation to the logical state.
    pub(crate) fn truncate(&mut self, last: Option<LogId>) {
        self.cache.truncate(next_index(last));
        self.state.last = last.max(self.state.purged);
    }

    /// Applies a purge to the logical state.
    pub(crate) fn purge(&mut self, through: LogId) {
        self.cache.purge(through.index());
        self.state.purged = Some(through);
        if self.state.last.is_none_or(|last| last.index() <= through.index()) {
            self.state.last = Some(through);
        }
    }
}

impl Shared {
    /// How many bytes one record may take, so that a segment always has room for it behind its head.
    pub(crate) fn record_bytes_max(&self) -> u64 {
        self.segment_bytes / 2
    }

    /// Fails when an entry is too large for a segment.
    pub(crate) fn check_sizes(&self, entries: &[Entry]) -> Result<usize, LogError> {
        let bytes_max = self.record_bytes_max();
        let mut total = 0;
        for entry in entries {
            let bytes = format::entry_bytes(entry.payload.len());
            if bytes as u64 > bytes_max {
                return Err(LogError::TooLarge { bytes: bytes as u64, bytes_max });
            }
            total += bytes;
        }
        Ok(total)
    }
}
