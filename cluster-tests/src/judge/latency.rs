//! Order statistics of durations.

use std::fmt;
use std::time::Duration;

/// Minimum, median, 90th and 99th percentile and maximum of some durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// How many there were.
    pub count: usize,
    /// The smallest.
    pub min: Duration,
    /// The middle one; of two middle ones, their mean.
    pub median: Duration,
    /// The smallest that at least nine tenths do not exceed.
    pub p90: Duration,
    /// The smallest that at least 99 of 100 do not exceed.
    pub p99: Duration,
    /// The largest.
    pub max: Duration,
}

impl Spread {
    /// Of at least one duration; `None` of none.
    pub fn of(durations: &[Duration]) -> Option<Self> {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        let count = sorted.len();
        let max = *sorted.last()?;
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
        let p90 = sorted[(count * 9).div_ceil(10) - 1];
        let (min, p99) = (sorted[0], sorted[(count * 99).div_ceil(100) - 1]);
        Some(Self { count, min, median, p90, p99, max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_millis();
        write!(
            f,
            "median {} ms, p90 {} ms, max {} ms of {}",
            ms(self.median),
            ms(self.p90),
            ms(self.max),
            self.count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: &[u64]) -> Spread {
        let durations: Vec<_> = ms.iter().copied().map(Duration::from_millis).collect();
        Spread::of(&durations).unwrap()
    }

    #[test]
    fn spread_of_one_two_and_twenty() {
        assert_eq!(of(&[7]).to_string(), "median 7 ms, p90 7 ms, max 7 ms of 1");
        assert_eq!(of(&[9, 1]).to_string(), "median 5 ms, p90 9 ms, max 9 ms of 2");
        let twenty: Vec<u64> = (1..=20).rev().collect();
        assert_eq!(of(&twenty).to_string(), "median 10 ms, p90 18 ms, max 20 ms of 20");
        assert_eq!(Spread::of(&[]), None);
    }
}
