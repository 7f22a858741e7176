//! What the segments hold, as far as it is on disk: which segment has which entries, and where to begin reading.
//! Pure bookkeeping; the writer keeps it up to date, recovery rebuilds it, readers look things up.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{LogId, LogIndex};

use crate::format::{Head, HeadRow, Record};
use crate::segment::SegmentFile;

/// Entries at most this many bytes apart have a mark: what a read of one entry may have to read in vain.
const MARK_EVERY_BYTES: u64 = 64 * 1024;

/// Says that the entries from `index` up to the next mark's index lie one after another from `offset` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) index: LogIndex,
    pub(crate) offset: u64,
}

/// The marks of one segment, ascending in index and in offset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    marks: Vec<Mark>,
    /// The entry that would follow on what the last mark leads to; `None` after a truncation.
    next: Option<LogIndex>,
}

impl Marks {
    /// Notes an entry written at `offset`.
    pub(crate) fn entry(&mut self, index: LogIndex, offset: u64) {
        let is_near = self.marks.last().is_some_and(|last| offset - last.offset < MARK_EVERY_BYTES);
        if self.next != Some(index) || !is_near {
            self.marks.push(Mark { index, offset });
        }
        self.next = Some(index.next());
    }

    /// Forgets the entries from `next` on.
    pub(crate) fn truncate(&mut self, next: LogIndex) {
        while self.marks.last().is_some_and(|last| last.index >= next) {
            self.marks.pop();
        }
        self.next = None;
    }

    /// What a segment holds, by its records.
    pub(crate) fn replay(&mut self, record: &Record, offset: u64) {
        match record {
            Record::Entry(entry) => self.entry(entry.id.index(), offset),
            Record::Truncate(last) => self.truncate(next_index(*last)),
            Record::Purge(_) | Record::Head(_) | Record::Vote(_) | Record::Committed(_) => {}
        }
    }
}

/// One segment in use.
pub(crate) struct Slot {
    pub(crate) epoch: u64,
    /// `None` only during recovery.
    pub(crate) file: Option<Arc<SegmentFile>>,
    /// The lowest entry it holds that has not been truncated; may be purged. It holds all entries up to the `first`
    /// of the next segment that has one.
    pub(crate) first: Option<LogIndex>,
    /// Where its records end.
    pub(crate) end: u64,
    /// `None` until somebody reads a segment that an earlier run wrote.
    pub(crate) marks: Option<Marks>,
}

/// The durable state of the log.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    pub(crate) vote: Option<Bytes>,
    /// Oldest first, without gaps in their epochs; the last one is written to.
    pub(crate) slots: VecDeque<Slot>,
}

/// A piece of a segment to read entries from.
pub(crate) struct Run {
    pub(crate) file: Arc<SegmentFile>,
    /// The entries wanted, `from..to`.
    pub(crate) from: LogIndex,
    pub(crate) to: LogIndex,
    /// The entry that lies at `offset`; at most `from`.
    pub(crate) index: LogIndex,
    pub(crate) offset: u64,
    /// Where to stop reading.
    pub(crate) end: u64,
}

/// Where entries are to be read.
pub(crate) enum Located {
    /// In these pieces, in order.
    Runs(Vec<Run>),
    /// The marks of this segment have to be loaded first.
    NeedsMarks(Arc<SegmentFile>, u64),
}

/// The index behind `last`; the first of all when there is none.
pub(crate) fn next_index(last: Option<LogId>) -> LogIndex {
    last.map_or_else(LogIndex::default, |last| last.index().next())
}

impl Contents {
    /// The state a new segment of `epoch` begins with, and the slot for it.
    pub(crate) fn begin_segment(&mut self, file: Arc<SegmentFile>, end: u64) {
        let marks = Some(Marks::default());
        self.slots.push_back(Slot { epoch: file.id.epoch, file: Some(file), first: None, end, marks });
    }

    /// The head for the segment that follows.
    pub(crate) fn head(&self) -> Head {
        let earlier =
            self.slots.iter().map(|slot| HeadRow { epoch: slot.epoch, first: slot.first, end: slot.end });
        Head {
            purged: self.purged,
            last: self.last,
            committed: self.committed,
            vote: self.vote.clone(),
            earlier: earlier.collect(),
        }
    }

    /// Applies a record of the current segment that became durable.
    pub(crate) fn apply(&mut self, record: &Record, offset: u64) {
        match record {
            Record::Head(head) => self.apply_head(head),
            Record::Entry(entry) => self.apply_entry(entry.id, offset),
            // Copied, because the bytes may be a slice of a whole segment.
            Record::Vote(vote) => self.vote = Some(Bytes::copy_from_slice(vote)),
            Record::Truncate(last) => self.apply_truncate(*last),
            Record::Purge(through) => self.apply_purge(*through),
            Record::Committed(committed) => self.committed = Some(*committed),
        }
    }

    fn apply_head(&mut self, head: &Head) {
        self.purged = head.purged;
        self.last = head.last;
        self.committed = head.committed;
        self.vote = head.vote.as_deref().map(Bytes::copy_from_slice);
    }

    /// Notes an entry written to the current segment.
    pub(crate) fn apply_entry(&mut self, id: LogId, offset: u64) {
        let slot = self.slots.back_mut().expect("an entry was written to a segment");
        if slot.first.is_none_or(|first| id.index() < first) {
            slot.first = Some(id.index());
        }
        if let Some(marks) = &mut slot.marks {
            marks.entry(id.index(), offset);
        }
        self.last = Some(id);
    }

    fn apply_truncate(&mut self, last: Option<LogId>) {
        self.forget_from(next_index(last));
        self.last = last.max(self.purged);
    }

    fn apply_purge(&mut self, through: LogId) {
        if self.last.is_none_or(|last| last.index() <= through.index()) {
            self.forget_from(LogIndex::default());
            self.last = Some(through);
        }
        self.purged = Some(through);
    }

    fn forget_from(&mut self, next: LogIndex) {
        for slot in self.slots.iter_mut().rev() {
            if slot.first.is_some_and(|first| first >= next) {
                slot.first = None;
            }
            if let Some(marks) = &mut slot.marks {
                marks.truncate(next);
            }
            if slot.first.is_some() {
                break;
            }
        }
    }

    /// Removes the oldest segments that hold nothing any more.
    pub(crate) fn take_dead(&mut self) -> Vec<Slot> {
        let mut dead = Vec::new();
        while self.slots.len() > 1 && self.is_oldest_dead() {
            dead.extend(self.slots.pop_front());
        }
        dead
    }

    fn is_oldest_dead(&self) -> bool {
        let is_empty = self.slots[0].first.is_none();
        let follower = self.slots.iter().skip(1).find_map(|slot| slot.first);
        is_empty || follower.is_some_and(|first| self.purged.is_some() && first <= next_index(self.purged))
    }

    /// Where the entries `from..to` lie; all of them are on disk.
    pub(crate) fn locate(&self, from: LogIndex, to: LogIndex) -> Located {
        let mut runs = Vec::new();
        // Nothing is wanted from the files: an entry in front of `from` may not even be on disk yet.
        if from >= to {
            return Located::Runs(runs);
        }
        let mut to = to;
        for slot in self.slots.iter().rev() {
            let Some(first) = slot.first.filter(|first| *first < to) else { continue };
            let file = slot.file.as_ref().expect("recovery has opened all segments in use");
            let Some(marks) = &slot.marks else { return Located::NeedsMarks(Arc::clone(file), slot.end) };
            let low = first.max(from);
            let mut end = slot.end;
            for mark in marks.marks.iter().rev() {
                if mark.index < to {
                    let (file, from) = (Arc::clone(file), mark.index.max(low));
                    runs.push(Run { file, from, to, index: mark.index, offset: mark.offset, end });
                    to = mark.index;
                }
                end = mark.offset;
                if mark.index <= low {
                    break;
                }
            }
            to = to.min(first);
            if first <= from {
                break;
            }
        }
        runs.reverse();
        Located::Runs(runs)
    }
}
