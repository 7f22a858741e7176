//! The part of the crate `base2histogram` that openraft uses, in half a KiB a histogram.
//!
//! openraft counts the sizes of its batches, which nobody asks it for: what we show comes from our own metrics. The crate
//! that it does so with fills tables for sixteen resolutions when the first value comes, 25 MiB that stay in every member's
//! memory. Here a bucket is a power of two, and a percentile is the upper end of its bucket.

use std::fmt;
use std::marker::PhantomData;

/// A bucket for zero, and one for each number of bits that a value may have.
const BUCKETS: usize = 1 + u64::BITS as usize;

/// How often values of each size were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    // What the other crate keeps beside each period; openraft has one period, and nothing beside it.
    data: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// Nothing seen.
    pub fn new() -> Self {
        Self { counts: [0; BUCKETS], data: PhantomData }
    }

    /// A value was seen.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// A value was seen so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let count = &mut self.counts[bits(value) as usize];
        *count = count.saturating_add(times);
    }

    /// All that is kept of what was seen; all zero if nothing was.
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        let at = |permille| self.at(samples, permille);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The upper end of the bucket that so many thousandths of all samples do not exceed.
    fn at(&self, samples: u64, permille: u64) -> u64 {
        let rank = (u128::from(samples) * u128::from(permille)).div_ceil(1000);
        let mut seen = 0;
        let reached = (0..).zip(&self.counts).find(|(_, count)| {
            seen += u128::from(**count);
            seen >= rank.max(1)
        });
        reached.map_or(0, |(bits, _)| largest(bits))
    }
}

/// How many bits a value has, which names its bucket.
fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// The largest value of so many bits.
fn largest(bits: u32) -> u64 {
    u64::MAX.checked_shr(u64::BITS - bits).unwrap_or(0)
}

/// Order statistics. Unit: that of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say which percentile each of them is")]
pub struct PercentileStats {
    /// Values seen.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "{samples} samples; p0.1 {p0_1}, p1 {p1}, p5 {p5}, p10 {p10}, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}"
        )
    }
}

/// Several histograms, a line each.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    lines: Vec<(String, PercentileStats)>,
}

impl AsciiChart {
    /// Without a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more line.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "openraft hands it over by value")]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push((name.into(), histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(name, stats)| writeln!(f, "{name}: {stats}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_upper_ends_of_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p99, 0);
        histogram.record(0);
        (1..=100).for_each(|value| histogram.record(value));
        histogram.record_n(u64::MAX, 2);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p90), (103, 0, 63, 127));
        assert_eq!(stats.p99_9, u64::MAX);
    }

    #[test]
    fn a_value_is_in_the_bucket_of_its_size() {
        let ends: Vec<u64> = [0, 1, 2, 3, 4, 1 << 63].map(|value| largest(bits(value))).into();
        assert_eq!(ends, [0, 1, 3, 3, 7, u64::MAX]);
    }

    #[test]
    fn counts_do_not_overflow() {
        let mut histogram = Histogram::<()>::new();
        histogram.record_n(1, u64::MAX);
        histogram.record_n(2, u64::MAX);
        assert_eq!(histogram.percentile_stats().samples, u64::MAX);
    }

    #[test]
    fn a_chart_has_a_line_for_each() {
        let chart = AsciiChart::new().add("some", Histogram::new());
        assert_eq!(
            chart.to_string(),
            "some: 0 samples; p0.1 0, p1 0, p5 0, p10 0, p50 0, p90 0, p99 0, p99.9 0\n"
        );
    }
}
