//! How many bytes of log lie between two applied entries, as they are in its files: what decides when to dump and what
//! to purge.

use std::collections::VecDeque;

/// A mark is set each time this many bytes were applied since the one before.
const MARK_BYTES: u64 = 64 << 10;

/// More marks than this are thinned out: every second goes.
const MARKS_MAX: usize = 4096;

/// Of the log before a snapshot, this share of what makes a dump due at least is kept until there is much behind it, for
/// followers that are a little behind: sending them entries is much cheaper than sending a snapshot. 8 MiB by default:
/// some five times what etcd keeps.
const KEPT_SHARE: u64 = 8;

/// Of what makes a dump due, this share is not counted: the padding of the log's batches, and what comes in until it begins.
const UNCOUNTED_SHARE: u64 = 32;

/// How much log is kept before a snapshot when `bytes_min` make a dump due at least.
fn kept_bytes(bytes_min: u64) -> u64 {
    bytes_min / KEPT_SHARE
}

/// Running totals over the applied entries of this process.
#[derive(Debug, Default)]
pub(crate) struct LogSize {
    /// Bytes applied since the start.
    total: u64,
    /// Positions with the total up to and including them, ascending.
    marks: VecDeque<(u64, u64)>,
    mark_bytes: u64,
    /// The total where the last snapshot ends. May lie before the start of this process.
    snapshot_total: i128,
    /// The last snapshot's size.
    snapshot_bytes: u64,
    /// After a failed dump, the total before which no other is wanted.
    retry_total: u64,
}

impl LogSize {
    /// Starts with a snapshot of `snapshot_bytes`, behind which `log_bytes` were applied already.
    pub(crate) fn new(snapshot_bytes: u64, log_bytes: u64) -> Self {
        Self {
            mark_bytes: MARK_BYTES,
            snapshot_total: -i128::from(log_bytes),
            snapshot_bytes,
            ..Self::default()
        }
    }

    /// Counts an applied entry.
    pub(crate) fn applied(&mut self, index: u64, bytes: u64) {
        self.total += bytes;
        let marked = self.marks.back().map_or(0, |mark| mark.1);
        if self.total - marked < self.mark_bytes {
            return;
        }
        self.marks.push_back((index, self.total));
        if self.marks.len() > MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
            self.mark_bytes *= 2;
        }
    }

    /// Notes a finished snapshot: its size, and the entry that it ends with. A dump may have been sealed later than it was
    /// asked for, so that only its entry tells how much log there is behind it.
    pub(crate) fn snapshot_taken(&mut self, bytes: u64, last: u64) {
        self.snapshot_bytes = bytes;
        self.snapshot_total = self.snapshot_total.max(i128::from(self.total_at(last)));
    }

    /// How much log there is behind this entry, less than a mark too much.
    pub(crate) fn behind(&self, index: u64) -> u64 {
        self.total - self.total_at(index)
    }

    /// How much log behind a snapshot makes a dump due: with what is not counted here, `bytes_min` or the snapshot's size.
    pub(crate) fn due(&self, bytes_min: u64) -> u64 {
        let bytes = bytes_min.max(self.snapshot_bytes);
        bytes - bytes / UNCOUNTED_SHARE
    }

    /// The total up to this entry, less than a mark too little.
    fn total_at(&self, index: u64) -> u64 {
        let marks = self.marks.partition_point(|mark| mark.0 <= index);
        marks.checked_sub(1).map_or(0, |last| self.marks[last].1)
    }

    /// Notes a dump that failed. A disk without room would only be filled by trying again at once: the next dump
    /// waits for another quarter of what makes one due.
    pub(crate) fn dump_failed(&mut self, bytes_min: u64) {
        self.retry_total = self.total + self.due(bytes_min) / 4;
    }

    /// Notes a snapshot that came from the leader: everything before is gone.
    pub(crate) fn snapshot_installed(&mut self, bytes: u64) {
        self.marks.clear();
        self.snapshot_bytes = bytes;
        self.snapshot_total = i128::from(self.total);
    }

    /// True when the log behind the last snapshot exceeds both `bytes_min` and the snapshot's size.
    pub(crate) fn wants_dump(&self, bytes_min: u64) -> bool {
        let log_bytes = i128::from(self.total) - self.snapshot_total;
        self.total >= self.retry_total && log_bytes > i128::from(self.due(bytes_min))
    }

    /// The highest index up to which entries may go. Before the last snapshot's end [`kept_bytes`] are kept until there is so
    /// much log behind it that a dump is due. Forgets the marks up to there.
    pub(crate) fn purgeable(&mut self, bytes_min: u64) -> Option<u64> {
        let kept = if self.wants_dump(bytes_min) { 0 } else { kept_bytes(bytes_min) };
        let limit = self.snapshot_total - i128::from(kept);
        let mut index = None;
        while let Some(&(mark, total)) = self.marks.front() {
            if i128::from(total) > limit {
                break;
            }
            index = Some(mark);
            self.marks.pop_front();
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_wanted_behind_both_bounds() {
        let mut size = LogSize::new(2 * MARK_BYTES, MARK_BYTES);
        assert!(!size.wants_dump(10));
        size.applied(1, MARK_BYTES);
        assert!(size.wants_dump(10), "with what is not counted, it is more than the snapshot");
        assert!(!size.wants_dump(4 * MARK_BYTES));
        size.snapshot_taken(5, 1);
        assert!(!size.wants_dump(0));
    }

    #[test]
    fn a_failed_dump_is_not_tried_again_at_once() {
        let mut size = LogSize::new(0, 0);
        let (bytes_min, due) = (3_200, 3_100);
        size.applied(1, due + 1);
        assert!(size.wants_dump(bytes_min));
        size.dump_failed(bytes_min);
        assert!(!size.wants_dump(bytes_min));
        size.applied(2, due / 4 - 1);
        assert!(!size.wants_dump(bytes_min));
        size.applied(3, 1);
        assert!(size.wants_dump(bytes_min));
    }

    #[test]
    fn what_is_kept_reaches_back_from_the_snapshot() {
        let mut size = LogSize::new(0, 0);
        for index in 1..=10 {
            size.applied(index, MARK_BYTES);
        }
        assert_eq!(size.purgeable(0), None);
        size.snapshot_taken(1, 8);
        let bytes_min = 3 * KEPT_SHARE * MARK_BYTES;
        assert_eq!(size.purgeable(bytes_min), Some(5));
        assert_eq!(size.purgeable(bytes_min), None);
        size.applied(11, bytes_min);
        assert_eq!(
            size.purgeable(bytes_min),
            Some(8),
            "what is due to go with the next dump takes its place"
        );
        size.snapshot_installed(1);
        assert_eq!(size.purgeable(0), None);
    }

    #[test]
    fn a_dump_that_was_sealed_later_than_it_was_asked_for_leaves_less_log_behind_it() {
        let mut size = LogSize::new(0, 0);
        for index in 1..=10 {
            size.applied(index, MARK_BYTES);
        }
        assert_eq!((size.behind(7), size.behind(0), size.behind(10)), (3 * MARK_BYTES, 10 * MARK_BYTES, 0));
        size.snapshot_taken(1, 9);
        assert!(!size.wants_dump(2 * MARK_BYTES));
        size.snapshot_taken(1, 2);
        assert!(!size.wants_dump(2 * MARK_BYTES), "an older one takes nothing back");
    }

    #[test]
    fn marks_are_bounded() {
        let mut size = LogSize::new(0, 0);
        for index in 0..3 * MARKS_MAX as u64 {
            size.applied(index, MARK_BYTES);
        }
        assert!(size.marks.len() <= MARKS_MAX);
        assert!(size.marks.iter().is_sorted());
    }
}
