//! What is counted while a run goes on: calls by workload and second, acknowledged writes, leaders.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answered.
    pub ok: u64,
    /// Certainly without an effect: refused, or a read without an answer.
    pub failed: u64,
    /// Perhaps with an effect.
    pub unknown: u64,
}

impl Tally {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.ok + self.failed + self.unknown
    }

    fn count(&mut self, end: End) {
        match end {
            End::Ok | End::Written => self.ok += 1,
            End::Failed => self.failed += 1,
            End::Unknown => self.unknown += 1,
        }
    }
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Answered.
    Ok,
    /// Answered, and it was a write.
    Written,
    /// Certainly without an effect.
    Failed,
    /// Perhaps with an effect.
    Unknown,
}

#[derive(Debug, Default)]
struct Inner {
    tallies: BTreeMap<&'static str, Tally>,
    seconds: Vec<Tally>,
    writes: Vec<Duration>,
    leaders: Vec<(Duration, Option<usize>)>,
}

/// The book of a run. All times are since it began.
#[derive(Debug, Default)]
pub struct Book {
    inner: Mutex<Inner>,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the lock panics")
    }

    /// A call has ended.
    pub fn count(&self, workload: &'static str, end: End, at: Duration) {
        let mut inner = self.lock();
        inner.tallies.entry(workload).or_default().count(end);
        let second = usize::try_from(at.as_secs()).unwrap_or(0);
        if inner.seconds.len() <= second {
            inner.seconds.resize(second + 1, Tally::default());
        }
        inner.seconds[second].count(end);
        if end == End::Written {
            inner.writes.push(at);
        }
    }

    /// A member was found to lead, or none.
    pub fn leads(&self, leader: Option<usize>, at: Duration) {
        let mut inner = self.lock();
        if inner.leaders.last().is_none_or(|(_, last)| *last != leader) {
            inner.leaders.push((at, leader));
        }
    }

    /// Calls by workload.
    pub fn tallies(&self) -> BTreeMap<&'static str, Tally> {
        self.lock().tallies.clone()
    }

    /// Calls by second.
    pub fn seconds(&self) -> Vec<Tally> {
        self.lock().seconds.clone()
    }

    /// Who led, from which moment on.
    pub fn leaders(&self) -> Vec<(Duration, Option<usize>)> {
        self.lock().leaders.clone()
    }

    /// When writes were acknowledged, in order.
    pub fn writes(&self) -> Vec<Duration> {
        let mut writes = self.lock().writes.clone();
        writes.sort_unstable();
        writes
    }
}

/// The longest time without an acknowledged write between two moments.
pub fn longest_gap(writes: &[Duration], from: Duration, to: Duration) -> Duration {
    let first = writes.partition_point(|write| *write < from);
    let behind = writes.partition_point(|write| *write <= to);
    let moments: Vec<Duration> = [&[from], &writes[first..behind.max(first)], &[to.max(from)]].concat();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_measured_within_the_bounds() {
        let s = Duration::from_secs;
        let writes = [s(1), s(2), s(9), s(10), s(30)];
        assert_eq!(longest_gap(&writes, s(0), s(10)), s(7));
        assert_eq!(longest_gap(&writes, s(9), s(12)), s(2));
        assert_eq!(longest_gap(&[], s(3), s(5)), s(2));
    }
}
