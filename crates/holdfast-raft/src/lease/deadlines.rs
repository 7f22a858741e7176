//! When leases end: a plain value, told the time with each call. Only the leader has one, from the moment on at which it
//! became the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_env::Monotonic;
use holdfast_mvcc::types::{Lease, LeaseChange, LeaseId, LeaseRef, LogIndex};

/// The deadlines of all leases.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    leases: BTreeMap<LeaseId, Kept>,
    /// When what is to be looked at next: a lease that has time left, at its deadline; one that is being ended, when that
    /// should be tried again.
    queue: BTreeSet<(Monotonic, LeaseId)>,
    /// Added to each time to live when all begin anew.
    grace: Duration,
}

/// A lease with a deadline.
#[derive(Debug, Clone, Copy)]
struct Kept {
    granted_at: LogIndex,
    granted_seconds: u64,
    deadline: Monotonic,
    /// Its place in the queue.
    queued: Monotonic,
    /// True from the deadline on: its end is proposed, and nothing keeps it alive any more.
    is_ending: bool,
}

/// What became of a keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// The lease has all of its time again: so many seconds.
    Renewed(u64),
    /// There is no such lease.
    Unknown,
    /// Its time is over, and its end not decided yet: it must not be kept alive, and is not gone.
    Ending,
}

impl Deadlines {
    /// All of these get their whole time and `grace` from now on: whoever led before may have renewed them until now, and
    /// clients have to find the new leader.
    pub(super) fn begin(
        now: Monotonic,
        grace: Duration,
        leases: impl IntoIterator<Item = (LeaseId, Lease)>,
    ) -> Self {
        let mut deadlines = Self { grace, ..Self::default() };
        deadlines.follow_anew(now, leases);
        deadlines
    }

    /// Takes these leases for all that there are: those that are known keep their deadline. One with an id that is known,
    /// but granted by another entry, is not known.
    pub(super) fn follow_anew(&mut self, now: Monotonic, leases: impl IntoIterator<Item = (LeaseId, Lease)>) {
        let mut before = std::mem::take(&mut self.leases);
        self.queue.clear();
        for (id, lease) in leases {
            let known = before.remove(&id).filter(|kept| kept.granted_at == lease.granted_at);
            let kept = known.unwrap_or_else(|| Kept::new(lease, now, self.grace));
            self.insert(id, kept);
        }
    }

    /// Notes what a command did to a lease.
    pub(super) fn apply(&mut self, now: Monotonic, change: LeaseChange) {
        match (change.lease, self.leases.get(&change.id)) {
            // A checkpoint.
            (Some(_), Some(_)) => {}
            (Some(lease), None) => self.insert(change.id, Kept::new(lease, now, Duration::ZERO)),
            (None, _) => {
                if let Some(gone) = self.leases.remove(&change.id) {
                    self.queue.remove(&(gone.queued, change.id));
                }
            }
        }
    }

    /// Gives a lease all of its time again, unless that is over.
    pub(super) fn renew(&mut self, now: Monotonic, id: LeaseId) -> Renewal {
        let Some(kept) = self.leases.get(&id) else { return Renewal::Unknown };
        if kept.is_ending || kept.deadline <= now {
            return Renewal::Ending;
        }
        let granted_seconds = kept.granted_seconds;
        let deadline = now.after(Duration::from_secs(granted_seconds));
        // What is left of the grace is not taken away.
        self.queue_at(id, deadline.max(kept.deadline));
        Renewal::Renewed(granted_seconds)
    }

    /// How much time a lease has left, and how many seconds it was granted.
    pub(super) fn left(&self, now: Monotonic, id: LeaseId) -> Option<(Duration, u64)> {
        self.leases.get(&id).map(|kept| (kept.deadline.since(now), kept.granted_seconds))
    }

    /// Takes up to `leases_max` leases whose time is over, those first that are over the longest. They are ending from here
    /// on, and come again after `retry` if they are still there.
    pub(super) fn due(&mut self, now: Monotonic, retry: Duration, leases_max: usize) -> Vec<LeaseRef> {
        let due: Vec<LeaseId> =
            self.queue.iter().take_while(|(at, _)| *at <= now).take(leases_max).map(|(_, id)| *id).collect();
        let mut ending = Vec::with_capacity(due.len());
        for id in due {
            if let Some(kept) = self.leases.get_mut(&id) {
                kept.is_ending = true;
                self.queue.remove(&(kept.queued, id));
                kept.queued = now.after(retry);
                self.queue.insert((kept.queued, id));
                ending.push(LeaseRef { id, granted_at: kept.granted_at });
            }
        }
        ending
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Monotonic> {
        self.queue.first().map(|(at, _)| *at)
    }

    fn insert(&mut self, id: LeaseId, kept: Kept) {
        self.queue.insert((kept.queued, id));
        self.leases.insert(id, kept);
    }

    fn queue_at(&mut self, id: LeaseId, deadline: Monotonic) {
        if let Some(kept) = self.leases.get_mut(&id) {
            self.queue.remove(&(kept.queued, id));
            (kept.deadline, kept.queued) = (deadline, deadline);
            self.queue.insert((deadline, id));
        }
    }
}

impl Kept {
    fn new(lease: Lease, now: Monotonic, grace: Duration) -> Self {
        let seconds = lease.remaining_seconds.unwrap_or(lease.granted_seconds);
        let deadline = now.after(Duration::from_secs(seconds)).after(grace);
        Self {
            granted_at: lease.granted_at,
            granted_seconds: lease.granted_seconds,
            deadline,
            queued: deadline,
            is_ending: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETRY: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    const GRANT: LogIndex = LogIndex(3);
    const LEASE: LeaseRef = LeaseRef { id: LeaseId(7), granted_at: GRANT };

    fn lease(granted_seconds: u64) -> Lease {
        Lease { granted_at: GRANT, granted_seconds, remaining_seconds: None }
    }

    fn granted(id: i64, seconds: u64) -> LeaseChange {
        LeaseChange { id: LeaseId(id), lease: Some(lease(seconds)) }
    }

    #[test]
    fn a_lease_ends_at_its_deadline_and_is_tried_again() {
        let mut deadlines = Deadlines::default();
        deadlines.apply(at(1), granted(7, 5));
        assert_eq!((deadlines.next(), deadlines.due(at(5), RETRY, 9)), (Some(at(6)), vec![]));
        assert_eq!(deadlines.due(at(6), RETRY, 9), [LEASE]);
        assert_eq!((deadlines.next(), deadlines.due(at(6), RETRY, 9)), (Some(at(7)), vec![]));
        assert_eq!(deadlines.due(at(8), RETRY, 9), [LEASE], "it was not ended");
        deadlines.apply(at(8), LeaseChange { id: LeaseId(7), lease: None });
        assert_eq!((deadlines.next(), deadlines.left(at(8), LeaseId(7))), (None, None));
    }

    #[test]
    fn nothing_keeps_alive_what_is_over() {
        let mut deadlines = Deadlines::default();
        deadlines.apply(at(0), granted(7, 5));
        assert_eq!(deadlines.renew(at(4), LeaseId(7)), Renewal::Renewed(5));
        assert_eq!(deadlines.left(at(4), LeaseId(7)), Some((Duration::from_secs(5), 5)));
        assert_eq!(deadlines.renew(at(9), LeaseId(7)), Renewal::Ending, "before anybody looked");
        assert_eq!(deadlines.due(at(9), RETRY, 9), [LEASE]);
        assert_eq!(deadlines.renew(at(9), LeaseId(7)), Renewal::Ending);
        deadlines.apply(at(9), LeaseChange { id: LeaseId(7), lease: None });
        assert_eq!(deadlines.renew(at(9), LeaseId(7)), Renewal::Unknown);
        deadlines.apply(at(9), granted(7, 3));
        assert_eq!(deadlines.renew(at(9), LeaseId(7)), Renewal::Renewed(3), "another one with its id");
    }

    #[test]
    fn a_new_leader_gives_all_of_the_time_or_what_the_checkpoint_says() {
        let checkpoint = Lease { remaining_seconds: Some(60), ..lease(600) };
        let leases = [(LeaseId(1), lease(10)), (LeaseId(2), checkpoint)];
        let mut deadlines = Deadlines::begin(at(100), Duration::from_secs(1), leases);
        assert_eq!(deadlines.left(at(100), LeaseId(1)), Some((Duration::from_secs(11), 10)));
        assert_eq!(deadlines.left(at(100), LeaseId(2)), Some((Duration::from_secs(61), 600)));
        deadlines.renew(at(100), LeaseId(1));
        assert_eq!(deadlines.left(at(100), LeaseId(1)), Some((Duration::from_secs(11), 10)));
        deadlines.follow_anew(at(105), [(LeaseId(1), lease(10)), (LeaseId(3), lease(4))]);
        assert_eq!(deadlines.left(at(105), LeaseId(1)), Some((Duration::from_secs(6), 10)));
        assert_eq!(deadlines.left(at(105), LeaseId(2)), None);
        assert_eq!(deadlines.left(at(105), LeaseId(3)), Some((Duration::from_secs(5), 4)));
    }

    /// The thread was lost, and with it that a lease was revoked and its id granted again.
    #[test]
    fn what_has_the_id_of_a_lease_that_was_known_begins_anew() {
        let again = Lease { granted_at: LogIndex(9), ..lease(5) };
        let mut deadlines = Deadlines::default();
        deadlines.apply(at(0), granted(7, 5));
        deadlines.follow_anew(at(4), [(LeaseId(7), again)]);
        assert_eq!(deadlines.left(at(4), LeaseId(7)), Some((Duration::from_secs(5), 5)));
        assert_eq!(deadlines.due(at(5), RETRY, 9), [], "that was the old one's deadline");
        assert_eq!(deadlines.due(at(9), RETRY, 9), [LeaseRef { granted_at: LogIndex(9), ..LEASE }]);
        deadlines.follow_anew(at(9), [(LeaseId(7), Lease { granted_at: LogIndex(12), ..lease(5) })]);
        assert_eq!(deadlines.renew(at(9), LeaseId(7)), Renewal::Renewed(5), "it is not the one that ends");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Grant(i64, u64),
        Remove(i64),
        Renew(i64),
        Pass(u64),
        Due(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..5_i64, 1..9_u64).prop_map(|(id, seconds)| Step::Grant(id, seconds)),
            (0..5_i64).prop_map(Step::Remove),
            (0..5_i64).prop_map(Step::Renew),
            (0..5_u64).prop_map(Step::Pass),
            (0..4_usize).prop_map(Step::Due),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// No lease is due before its time, none is kept alive after it, and none is forgotten.
        #[test]
        fn no_lease_ends_early_and_none_is_forgotten(steps in proptest::collection::vec(step(), 0..80)) {
            let mut deadlines = Deadlines::default();
            let mut model: BTreeMap<i64, (u64, u64, bool)> = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Grant(id, seconds) => {
                        model.entry(id).or_insert((seconds, now + seconds, false));
                        deadlines.apply(at(now), granted(id, seconds));
                    }
                    Step::Remove(id) => {
                        model.remove(&id);
                        deadlines.apply(at(now), LeaseChange { id: LeaseId(id), lease: None });
                    }
                    Step::Renew(id) => {
                        let expected = match model.get_mut(&id) {
                            None => Renewal::Unknown,
                            Some((_, end, is_ending)) if *is_ending || *end <= now => Renewal::Ending,
                            Some((seconds, end, _)) => {
                                *end = now + *seconds;
                                Renewal::Renewed(*seconds)
                            }
                        };
                        prop_assert_eq!(deadlines.renew(at(now), LeaseId(id)), expected);
                    }
                    Step::Pass(seconds) => now += seconds,
                    Step::Due(most) => {
                        for due in deadlines.due(at(now), RETRY, most) {
                            let (_, end, is_ending) = model.get_mut(&due.id.0).unwrap();
                            prop_assert!(*end <= now);
                            *is_ending = true;
                        }
                    }
                }
            }
            let all = deadlines.due(at(now + 100), RETRY, usize::MAX);
            prop_assert_eq!(all.len(), model.len());
        }
    }
}
