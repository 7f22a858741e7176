//! Figures of the log, in plain form; the server turns them into metrics.

use std::time::Duration;

/// How many bounds [`LogStats::fsync_buckets`] has, without the last, unbounded bucket.
pub const FSYNC_BUCKETS: usize = 14;

/// The figures since the log was opened, but for the gauges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogStats {
    /// How often data was made durable.
    pub fsyncs: u64,
    /// How long all of these took together.
    pub fsync_total: Duration,
    /// How long the last one took.
    pub fsync_last: Duration,
    /// How many took at most 1 ms, 2 ms, 4 ms … 8.192 s ([`LogStats::bucket_bound`]), then how many took longer.
    /// Each fsync counts in one bucket only.
    pub fsync_buckets: [u64; FSYNC_BUCKETS + 1],
    /// Bytes written to segments, with what pads them and what was written again.
    pub written_bytes: u64,
    /// Entries written.
    pub entries: u64,
    /// Segment files that were filled with zeros.
    pub segments_created: u64,
    /// Segment files that were used again.
    pub segments_recycled: u64,
    /// Gauge: segment files in use.
    pub segments: usize,
    /// Gauge: bytes waiting to be written.
    pub queued_bytes: usize,
    /// Gauge: bytes of entries in memory.
    pub cached_bytes: usize,
    /// Gauge: true while there is no room for another segment file.
    pub is_full: bool,
}

impl LogStats {
    /// The inclusive upper bound of a bucket; `None` for the last one.
    pub fn bucket_bound(bucket: usize) -> Option<Duration> {
        (bucket < FSYNC_BUCKETS).then(|| Duration::from_millis(1 << bucket))
    }

    /// Counts an fsync.
    pub(crate) fn observe_fsync(&mut self, took: Duration) {
        let bucket = (0..FSYNC_BUCKETS)
            .find(|bucket| Self::bucket_bound(*bucket).is_some_and(|bound| took <= bound))
            .unwrap_or(FSYNC_BUCKETS);
        self.fsyncs += 1;
        self.fsync_total += took;
        self.fsync_last = took;
        self.fsync_buckets[bucket] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_fsync_counts_in_the_first_bucket_that_holds_it() {
        let mut stats = LogStats::default();
        for millis in [0, 1, 2, 3, 8192, 9000] {
            stats.observe_fsync(Duration::from_millis(millis));
        }
        assert_eq!(stats.fsync_buckets, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(stats.fsync_total, Duration::from_millis(6 + 8192 + 9000));
    }
}
