//! Judges whether something that goes on in a member delays writes: p99 of puts with it and without it.

use std::fmt;
use std::time::Duration;

/// How much larger p99 may be.
const RATIO_MAX: f64 = 1.5;

/// Puts that have to be measured on each side: with fewer, p99 is the worst of a handful.
const PUTS_MIN: usize = 1_000;

/// Switches of dumps that have to be measured: of fewer, p99 is the worst of them.
pub const SWITCHES_MIN: f64 = 100.0;

/// What goes on while puts are measured, and their times in interleaved windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// What goes on.
    pub what: String,
    /// Times of puts without it, a list for each window.
    pub calm: Vec<Vec<Duration>>,
    /// Times of puts with it, a list for each window.
    pub busy: Vec<Vec<Duration>>,
    /// The share of the busy windows in which it was seen to go on.
    pub share: f64,
    /// How often it was done in them.
    pub times: u64,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// It delays writes.
    Delayed { what: String, calm: Duration, busy: Duration },
    /// Too few puts, or it hardly went on: nothing was compared.
    NotCompared { what: String, puts: usize, share: f64 },
    /// At a switch of a dump, writers stood still for longer than they may.
    Stalled { at: String, p99_at_most: f64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delayed { what, calm, busy } => {
                write!(f, "{what}: p99 {busy:?} with it, {calm:?} without")
            }
            Self::NotCompared { what, puts, share } => {
                write!(f, "{what}: not compared: {puts} puts, seen in {share:.2} of the time")
            }
            Self::Stalled { at, p99_at_most } => {
                write!(f, "writers stood still at the {at} of a dump: p99 up to {p99_at_most} s")
            }
        }
    }
}

/// The smallest that at least 99 of 100 do not exceed; nothing of nothing.
pub fn p99<'a>(times: impl IntoIterator<Item = &'a Duration>) -> Option<Duration> {
    let mut sorted: Vec<Duration> = times.into_iter().copied().collect();
    sorted.sort_unstable();
    let place = (sorted.len() * 99).div_ceil(100).checked_sub(1)?;
    sorted.get(place).copied()
}

impl Comparison {
    /// p99 without and with it: of each side, the median of its windows. What disturbs one window alone comes from
    /// elsewhere.
    pub fn p99(&self) -> Option<(Duration, Duration)> {
        let median = |windows: &[Vec<Duration>]| {
            let mut all: Vec<Duration> = windows.iter().filter_map(p99).collect();
            all.sort_unstable();
            all.get(all.len().checked_sub(1)? / 2).copied()
        };
        Some((median(&self.calm)?, median(&self.busy)?))
    }

    /// Whether it delays writes.
    pub fn judge(&self) -> Option<Finding> {
        let what = self.what.clone();
        let puts = [&self.calm, &self.busy].map(|side| side.iter().map(Vec::len).sum::<usize>());
        let puts = puts[0].min(puts[1]);
        let Some((calm, busy)) = self.p99().filter(|_| puts >= PUTS_MIN && self.share >= 0.1) else {
            return Some(Finding::NotCompared { what, puts, share: self.share });
        };
        (busy > calm.mul_f64(RATIO_MAX)).then_some(Finding::Delayed { what, calm, busy })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        let (calm, busy) = self.p99().unwrap_or_default();
        let ratio = busy.as_secs_f64() / calm.as_secs_f64();
        write!(
            f,
            "{}: p99 {:.2} ms without, {:.2} ms with it, ratio {ratio:.2}; windows:",
            self.what,
            ms(Some(calm)),
            ms(Some(busy))
        )?;
        for (calm, busy) in self.calm.iter().zip(&self.busy) {
            write!(f, " {:.2}/{:.2}", ms(p99(calm)), ms(p99(busy)))?;
        }
        write!(f, " ms; done {} times, it went on in {:.0} % of the time", self.times, self.share * 100.0)
    }
}

/// The upper bound of the bucket that holds p99, in seconds; buckets are cumulative. Nothing of nothing.
pub fn p99_bucket(buckets: &[(f64, f64)]) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    buckets.iter().find(|(_, count)| *count >= total * 0.99).map(|(bound, _)| *bound)
}

/// Whether writers stood still for longer than a millisecond at a switch. Few switches are not judged.
pub fn judge_switch(at: &str, buckets: &[(f64, f64)]) -> Option<Finding> {
    buckets.last().filter(|(_, count)| *count >= SWITCHES_MIN)?;
    let p99_at_most = p99_bucket(buckets)?;
    (p99_at_most > 0.001).then(|| Finding::Stalled { at: at.to_owned(), p99_at_most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ms: u64) -> Vec<Duration> {
        (1..=1_000).map(|place| Duration::from_millis(if place > 980 { ms } else { 1 })).collect()
    }

    fn comparison(calm: u64, busy: u64) -> Comparison {
        let (calm, busy) = (vec![window(calm)], vec![window(busy)]);
        Comparison { what: "x".to_owned(), calm, busy, share: 0.5, times: 1 }
    }

    #[test]
    fn half_as_much_again_passes_and_more_is_found() {
        assert_eq!(comparison(10, 15).judge(), None);
        assert!(matches!(comparison(10, 16).judge(), Some(Finding::Delayed { .. })));
    }

    #[test]
    fn the_windows_are_judged_by_their_median() {
        let of = |ms: [u64; 3]| ms.map(window).to_vec();
        let one = Comparison { calm: of([10, 10, 10]), busy: of([11, 400, 12]), ..comparison(0, 0) };
        assert_eq!(one.p99(), Some((Duration::from_millis(10), Duration::from_millis(12))));
        let two = Comparison { busy: of([11, 400, 400]), ..one };
        assert!(matches!(two.judge(), Some(Finding::Delayed { .. })));
    }

    #[test]
    fn what_did_not_go_on_proves_nothing() {
        let rare = Comparison { share: 0.01, ..comparison(10, 10) };
        assert!(matches!(rare.judge(), Some(Finding::NotCompared { .. })));
        let few = Comparison { busy: vec![vec![Duration::from_millis(1); 9]], ..comparison(10, 10) };
        assert!(matches!(few.judge(), Some(Finding::NotCompared { puts: 9, .. })));
    }

    #[test]
    fn a_switch_that_takes_long_is_found() {
        let quick = [(0.001, 99.0), (0.002, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(judge_switch("start", &quick), None);
        let slow = [(0.001, 90.0), (0.002, 100.0), (f64::INFINITY, 100.0)];
        let found = Finding::Stalled { at: "start".to_owned(), p99_at_most: 0.002 };
        assert_eq!(judge_switch("start", &slow), Some(found));
        let few = slow.map(|(bound, count)| (bound, count / 2.0));
        assert_eq!(judge_switch("start", &few), None);
        assert_eq!(judge_switch("start", &[]), None);
    }
}
