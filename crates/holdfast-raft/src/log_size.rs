//! How many bytes of log lie between two applied entries, as they are in its files: what decides when to dump and what
//! to purge.

use std::collections::VecDeque;

/// A mark is set each time this many bytes were applied since the one before.
const MARK_BYTES: u64 = 64 << 10;

/// More marks than this are thinned out: every second goes.
const MARKS_MAX: usize = 4096;

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

    /// The total now.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Notes a finished snapshot: its size, and the total where it was sealed.
    pub(crate) fn snapshot_taken(&mut self, bytes: u64, sealed_total: u64) {
        self.snapshot_bytes = bytes;
        self.snapshot_total = i128::from(sealed_total);
    }

    /// Notes a dump that failed. A disk without room would only be filled by trying again at once: the next dump
    /// waits for another quarter of what makes one due.
    pub(crate) fn dump_failed(&mut self, bytes_min: u64) {
        self.retry_total = self.total + bytes_min.max(self.snapshot_bytes) / 4;
    }

    /// Notes a snapshot that came from the leader: everything before is gone.
    pub(crate) fn snapshot_installed(&mut self, bytes: u64) {
        self.marks.clear();
        let total = self.total;
        self.snapshot_taken(bytes, total);
    }

    /// True when the log behind the last snapshot exceeds both `bytes_min` and the snapshot's size.
    pub(crate) fn wants_dump(&self, bytes_min: u64) -> bool {
        let log_bytes = i128::from(self.total) - self.snapshot_total;
        self.total >= self.retry_total && log_bytes > i128::from(bytes_min.max(self.snapshot_bytes))
    }

    /// The highest index up to which entries may go, when about `keep_bytes` before the last snapshot's end are kept
    /// for followers that are a little behind. Forgets the marks up to there.
    pub(crate) fn purgeable(&mut self, keep_bytes: u64) -> Option<u64> {
        let limit = self.snapshot_total - i128::from(keep_bytes);
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
        let mut size = LogSize::new(100, 60);
        assert!(!size.wants_dump(10));
        size.applied(1, 41);
        assert!(size.wants_dump(10));
        assert!(!size.wants_dump(101));
        size.snapshot_taken(5, 41);
        assert!(!size.wants_dump(0));
    }

    #[test]
    fn a_failed_dump_is_not_tried_again_at_once() {
        let mut size = LogSize::new(0, 0);
        size.applied(1, 101);
        assert!(size.wants_dump(100));
        size.dump_failed(100);
        assert!(!size.wants_dump(100));
        size.applied(2, 24);
        assert!(!size.wants_dump(100));
        size.applied(3, 1);
        assert!(size.wants_dump(100));
    }

    #[test]
    fn what_is_kept_reaches_back_from_the_snapshot() {
        let mut size = LogSize::new(0, 0);
        for index in 1..=10 {
            size.applied(index, MARK_BYTES);
        }
        assert_eq!(size.purgeable(0), None);
        size.snapshot_taken(1, 8 * MARK_BYTES);
        assert_eq!(size.purgeable(3 * MARK_BYTES), Some(5));
        assert_eq!(size.purgeable(3 * MARK_BYTES), None);
        size.snapshot_installed(1);
        assert_eq!(size.purgeable(0), None);
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
