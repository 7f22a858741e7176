//! The lives of leases: deadlines with the leader, ends that are proposed in its term, keep-alives that are answered by
//! who certainly leads.
//!
//! # What keeps a lease from ending early
//! 1. A keep-alive is answered by the leader of one term, after a quorum has confirmed in a round that began behind the
//!    keep-alive that it leads. A leader that was stopped, or cut off, answers none.
//! 2. A new leader counts every lease from the moment it leads: that is behind each confirmation of those before it.
//! 3. A proposal to end leases carries the term it was made in, never leaves the member that made it, and is refused when
//!    it is applied in another term. So it was the leader that answers the keep-alives who judged, or nobody.
//! 4. Once the end of a lease is proposed its keep-alives wait for the outcome.
//! 5. Such a proposal names the entry that granted the lease. It may wait long for its place in the log; when the lease was
//!    revoked meanwhile and its id granted again, it ends nothing.
//!
//! Questions that wait on a member go to the leader together, and those of one request share a confirmation: what many
//! clients keep alive costs little more than what one does.
//!
//! Leases may live longer than they were granted for, by the time without a leader and one election timeout for each new
//! one. Nothing notes how much time they have left ([`LeaseCheckpoint`] is understood and not proposed): a new leader gives
//! all of it, as etcd does by default.
//!
//! Module map: `asking` on any member, `question` what goes between them, `answering` by the leader, from its `deadlines`;
//! `lessor` begins and ends a reign and proposes the ends.
//!
//! [`LeaseCheckpoint`]: holdfast_mvcc::command::LeaseCheckpoint

mod answering;
mod asking;
mod deadlines;
mod lessor;
mod question;

use std::sync::atomic::AtomicU64;

use holdfast_env::Monotonic;
use holdfast_storage::Storage;
use parking_lot::Mutex;

use deadlines::Deadlines;

pub(crate) use asking::{AskLoop, Asker, Asks};
pub(crate) use lessor::Lessor;
pub(crate) use question::{Question, refusal};
#[cfg(any(test, fuzzing))]
pub(crate) use question::{from_proto as questions_from_proto, to_proto as question_to_proto};

/// How much time a lease has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLeft {
    /// What is left of it; zero when its end is being decided.
    pub left: std::time::Duration,
    /// What was granted, in seconds.
    pub granted_seconds: u64,
}

/// The leases of this member, while it leads.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Written by the lessor, and by who keeps leases alive.
    reign: Mutex<Option<Reign>>,
    /// Leases whose end this member has proposed, since its start.
    pub(crate) expired: AtomicU64,
    /// Keep-alives that this member has granted, since its start.
    pub(crate) renewed: AtomicU64,
}

/// The time in which this member leads.
#[derive(Debug)]
struct Reign {
    term: u64,
    deadlines: Deadlines,
}

impl Reign {
    /// Takes in what happened to leases since the last time.
    fn catch_up(&mut self, storage: &Storage, now: Monotonic) {
        match storage.take_lease_changes() {
            Some(changes) => changes.into_iter().for_each(|change| self.deadlines.apply(now, change)),
            None => self.deadlines.follow_anew(now, storage.follow_leases()),
        }
    }
}
