//! Who leads, as far as this member can tell right now.
//!
//! openraft names the leader of the last vote it saw, also when that leader has been silent for an hour. Here a leader
//! counts only while there are signs of it: its appends on a follower, a quorum's answers on the leader itself.

use std::time::Duration;

use holdfast_env::Monotonic;

/// The newest leader that there were signs of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    term: u64,
    leader: u64,
    /// The last sign.
    at: Monotonic,
}

/// Who leads, as far as this member can tell. Written by the peer server and the watcher of openraft's state.
#[derive(Debug, Default)]
pub(crate) struct Leadership {
    seen: Option<Seen>,
    changes: u64,
}

impl Leadership {
    /// Notes a sign of `leader`, elected in `term`. True when that is a new leader; signs of older ones are ignored.
    pub(crate) fn sign(&mut self, term: u64, leader: u64, at: Monotonic) -> bool {
        match self.seen {
            Some(seen) if seen.term > term => false,
            Some(ref mut seen) if (seen.term, seen.leader) == (term, leader) => {
                seen.at = seen.at.max(at);
                false
            }
            Some(_) | None => {
                self.seen = Some(Seen { term, leader, at });
                self.changes += 1;
                true
            }
        }
    }

    /// How often a new leader was seen.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// True when there was a sign of `leader` at most `silence_max` ago.
    pub(crate) fn is_alive(&self, leader: u64, now: Monotonic, silence_max: Duration) -> bool {
        self.seen.is_some_and(|seen| seen.leader == leader && now.since(seen.at) <= silence_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(millis))
    }

    const MAX: Duration = Duration::from_millis(1000);

    #[test]
    fn a_silent_leader_is_none() {
        let mut leadership = Leadership::default();
        assert!(!leadership.is_alive(1, at(0), MAX));
        assert!(leadership.sign(1, 1, at(0)));
        assert!(!leadership.sign(1, 1, at(500)));
        assert!(leadership.is_alive(1, at(1500), MAX));
        assert!(!leadership.is_alive(1, at(1501), MAX));
        assert!(!leadership.is_alive(2, at(500), MAX));
    }

    #[test]
    fn each_new_leader_counts_and_older_ones_do_not_come_back() {
        let mut leadership = Leadership::default();
        assert!(leadership.sign(3, 1, at(0)));
        assert!(!leadership.sign(2, 2, at(1)));
        assert!(leadership.sign(4, 2, at(2)));
        assert!(leadership.sign(5, 2, at(3)));
        assert!(leadership.is_alive(2, at(3), MAX));
        assert_eq!(leadership.changes(), 3);
    }
}
