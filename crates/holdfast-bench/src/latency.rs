//! Latencies in a histogram of constant relative error, so that a percentile far out is as exact as the median.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Above it, everything counts as this much: no goal speaks of such latencies.
const HIGHEST: Duration = Duration::from_secs(120);
/// A percentile is right to one part in a thousand.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies of many operations.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// What reports say of latencies, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
    pub(crate) mean_us: u64,
}

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        let highest = u64::try_from(HIGHEST.as_micros()).unwrap_or(u64::MAX);
        Self(Histogram::new_with_bounds(1, highest, SIGNIFICANT_DIGITS).expect("the bounds are constants"))
    }

    /// Counts one operation.
    pub(crate) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// How many were counted.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// What reports say.
    pub(crate) fn percentiles(&self) -> Percentiles {
        if self.0.is_empty() {
            return Percentiles::default();
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of positive numbers below 120 million"
        )]
        let mean_us = self.0.mean().round() as u64;
        Percentiles {
            p50_us: self.0.value_at_quantile(0.5),
            p90_us: self.0.value_at_quantile(0.9),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
            mean_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), Percentiles::default());
        for micros in 1..=1000 {
            latencies.record(us(micros));
        }
        let found = latencies.percentiles();
        assert_eq!((found.p50_us, found.p90_us, found.p99_us, found.max_us), (500, 900, 990, 1000));
        assert_eq!((found.p999_us, found.mean_us, latencies.count()), (999, 501, 1000));
    }

    #[test]
    fn one_in_a_thousand_is_seen_and_nothing_is_lost_at_the_ends() {
        let mut latencies = Latencies::new();
        for _ in 0..998 {
            latencies.record(us(100));
        }
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(3600));
        let found = latencies.percentiles();
        assert_eq!(found.p99_us, 100);
        assert!(found.max_us >= 119_000_000, "{found:?}");
        assert_eq!(latencies.count(), 1000);
    }
}
