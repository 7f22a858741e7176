//! Judges leases that were kept alive, or were not, while leaders were stopped and went on.
//!
//! # What is judged, and why so
//! *Nothing early.* An acknowledged grant or keep-alive is worth the whole time to live, from the moment on at which it was
//! asked for: whoever acknowledged it began to count later. A key that a watcher was told to be deleted before that, or a
//! lease that a member said does not exist, ended early. A watcher is told later than it happened, never sooner.
//!
//! *Everything in time.* A lease is due when its time to live is over, counted from the end of the last try to keep it alive
//! (a try without an answer may have had its effect), and has to be gone two election timeouts later. When the leader is
//! lost before that, nobody counts, and the next leader cannot know what was renewed: it gives all of the time again, and
//! one election timeout more. So from the moment at which the next leader is first seen, a lease has the same time once
//! more. A lease that was overdue already when the leader was last seen is late, whoever comes next.

use std::fmt;
use std::time::Duration;

/// How much later than it happened something may be seen on a busy machine: an event, or who leads.
pub const SIGHT: Duration = Duration::from_millis(300);

/// One lease with one key. All times are from the begin of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its key.
    pub key: String,
    /// What was granted.
    pub ttl: Duration,
    /// When the grant, and each acknowledged keep-alive, was asked for.
    pub renewed: Vec<Duration>,
    /// When the last of the tries to keep it alive ended, the grant among them.
    pub last_try: Duration,
    /// When a member first said that there is no such lease.
    pub told_gone: Option<Duration>,
    /// When a watcher was first told that the key is deleted.
    pub deleted: Option<Duration>,
    /// When the key was first found gone by a watcher that a compaction had taken events from, if none was told before: it
    /// went at some time before that.
    pub found_gone: Option<Duration>,
}

/// One leader after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When the one before was last seen to lead.
    pub lost: Duration,
    /// When the next one was first seen to lead.
    pub seen: Duration,
}

/// A time in which the leader was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When it was stopped.
    pub from: Duration,
    /// When it went on.
    pub to: Duration,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// That of all members.
    pub election_timeout: Duration,
    /// All leases.
    pub leases: Vec<Held>,
    /// Each change of leaders, in order.
    pub changes: Vec<Change>,
    /// Each time the leader was stopped, in order.
    pub stops: Vec<Stop>,
    /// When the record ends.
    pub ended: Duration,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A key was deleted although its lease was acknowledged to live.
    Early { key: String, at: Duration, by: Duration },
    /// A member said that a lease does not exist which was acknowledged to live.
    DeniedEarly { key: String, at: Duration, by: Duration },
    /// A key was deleted later than it had to be.
    Late { key: String, at: Duration, by: Duration },
    /// A key is still there.
    Never { key: String, by: Duration },
    /// A stop that shows nothing: no other member came to lead, or no lease was kept alive through it.
    NotTried { stop: usize },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Early { key, at, by } => write!(f, "{key} ended at {at:.1?}, {by:.2?} too early"),
            Self::DeniedEarly { key, at, by } => {
                write!(f, "the lease of {key} was said not to exist at {at:.1?}, {by:.2?} too early")
            }
            Self::Late { key, at, by } => write!(f, "{key} ended at {at:.1?}, {by:.2?} too late"),
            Self::Never { key, by } => write!(f, "{key} did not end, {by:.2?} after it had to"),
            Self::NotTried { stop } => write!(f, "stop {stop} shows nothing"),
        }
    }
}

impl Held {
    /// Until when it lives, at least.
    pub fn must_live_until(&self) -> Duration {
        self.renewed.iter().max().map_or(Duration::ZERO, |renewed| *renewed + self.ttl)
    }
}

impl Record {
    /// By when a lease has to be gone.
    fn must_be_gone_by(&self, lease: &Held) -> Duration {
        let time = lease.ttl + 2 * self.election_timeout;
        let mut by = lease.last_try + time;
        for change in &self.changes {
            if change.lost > by {
                break;
            }
            by = by.max(change.seen + time);
        }
        by + SIGHT
    }

    fn judge_lease(&self, lease: &Held) -> Vec<Finding> {
        let (key, must_live) = (|| lease.key.clone(), lease.must_live_until());
        let mut findings = Vec::new();
        if let Some(at) = lease.deleted.or(lease.found_gone).filter(|at| *at < must_live) {
            findings.push(Finding::Early { key: key(), at, by: must_live - at });
        }
        if let Some(at) = lease.told_gone.filter(|at| *at < must_live) {
            findings.push(Finding::DeniedEarly { key: key(), at, by: must_live - at });
        }
        let must_be_gone = self.must_be_gone_by(lease);
        match lease.deleted {
            Some(at) if at > must_be_gone => {
                findings.push(Finding::Late { key: key(), at, by: at - must_be_gone });
            }
            None if lease.found_gone.is_none() && self.ended > must_be_gone => {
                findings.push(Finding::Never { key: key(), by: self.ended - must_be_gone });
            }
            _ => {}
        }
        findings
    }

    /// Whether a stop was what it has to be: another member led in it, and a lease was kept alive through that one.
    fn shows_something(&self, stop: Stop) -> bool {
        let seen =
            self.changes.iter().map(|change| change.seen).find(|seen| (stop.from..stop.to).contains(seen));
        seen.is_some_and(|seen| {
            let mut renewed = self.leases.iter().flat_map(|lease| &lease.renewed);
            renewed.any(|renewed| (seen..stop.to).contains(renewed))
        })
    }

    /// Judges the run.
    pub fn judge(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.leases.iter().flat_map(|lease| self.judge_lease(lease)).collect();
        let stops = self.stops.iter().enumerate();
        let empty = stops.filter(|(_, stop)| !self.shows_something(**stop));
        findings.extend(empty.map(|(stop, _)| Finding::NotTried { stop }));
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Granted at 0, kept alive at 1 s, 3 s and 4 s, and then no more.
    fn held() -> Held {
        Held {
            key: "k".to_owned(),
            ttl: ms(2_000),
            renewed: vec![ms(0), ms(1_000), ms(3_000), ms(4_000)],
            last_try: ms(4_100),
            told_gone: Some(ms(7_000)),
            deleted: Some(ms(6_500)),
            found_gone: None,
        }
    }

    /// The leader is stopped at 1.5 s, another one leads at 2.8 s.
    fn sound() -> Record {
        Record {
            election_timeout: ms(1_000),
            leases: vec![held()],
            changes: vec![Change { lost: ms(1_480), seen: ms(2_800) }],
            stops: vec![Stop { from: ms(1_500), to: ms(4_500) }],
            ended: ms(20_000),
        }
    }

    fn doctored(doctor: impl FnOnce(&mut Record)) -> Vec<Finding> {
        let mut record = sound();
        doctor(&mut record);
        record.judge()
    }

    #[test]
    fn a_sound_record_passes() {
        assert_eq!(sound().judge(), []);
        // At the very last moment: 4.1 s, 2 s to live, two election timeouts.
        assert_eq!(doctored(|record| record.leases[0].deleted = Some(ms(8_100) + SIGHT)), []);
        // The record ends before the lease has to.
        let unfinished = doctored(|record| {
            record.ended = ms(8_000);
            (record.leases[0].deleted, record.leases[0].told_gone) = (None, None);
        });
        assert_eq!(unfinished, []);
    }

    #[test]
    fn what_ends_early_is_found() {
        let early = doctored(|record| record.leases[0].deleted = Some(ms(5_950)));
        assert_eq!(early, [Finding::Early { key: "k".to_owned(), at: ms(5_950), by: ms(50) }]);
        let denied = doctored(|record| record.leases[0].told_gone = Some(ms(5_000)));
        assert_eq!(denied, [Finding::DeniedEarly { key: "k".to_owned(), at: ms(5_000), by: ms(1_000) }]);
    }

    #[test]
    fn what_ends_late_or_never_is_found() {
        let late = doctored(|record| record.leases[0].deleted = Some(ms(8_500)));
        assert_eq!(late, [Finding::Late { key: "k".to_owned(), at: ms(8_500), by: ms(100) }]);
        let never = doctored(|record| record.leases[0].deleted = None);
        assert!(matches!(never[..], [Finding::Never { .. }]));
    }

    #[test]
    fn what_nobody_saw_go_may_be_late_and_not_early() {
        let found_gone = |at| {
            move |record: &mut Record| {
                (record.leases[0].deleted, record.leases[0].found_gone) = (None, Some(ms(at)));
            }
        };
        assert_eq!(doctored(found_gone(15_000)), []);
        let early = doctored(found_gone(5_900));
        assert_eq!(early, [Finding::Early { key: "k".to_owned(), at: ms(5_900), by: ms(100) }]);
    }

    #[test]
    fn a_new_leader_gives_the_time_again_unless_it_was_over() {
        let again = |record: &mut Record| {
            record.changes.push(Change { lost: ms(8_000), seen: ms(9_000) });
            record.leases[0].deleted = Some(ms(13_200));
        };
        assert_eq!(doctored(again), []);
        let overdue = doctored(|record| {
            again(record);
            record.changes[1].lost = ms(8_200);
        });
        assert!(matches!(overdue[..], [Finding::Late { .. }]), "{overdue:?}");
    }

    #[test]
    fn a_stop_that_shows_nothing_is_told() {
        assert_eq!(doctored(|record| record.changes.clear()), [Finding::NotTried { stop: 0 }]);
        let unkept =
            doctored(|record| record.leases[0].renewed.retain(|at| *at != ms(3_000) && *at != ms(4_000)));
        assert_eq!(unkept, [Finding::NotTried { stop: 0 }]);
    }
}
