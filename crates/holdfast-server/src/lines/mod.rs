//! Lines that calls stand in: what locks and elections have in common.
//!
//! A line is all keys below `<name>/`. Who stands in it has a key there, `<name>/<lease in hex>`, attached to its lease;
//! the one whose key is the oldest, by create revision, is at the head: it holds the lock, it is elected. So a line needs
//! nothing but keys and leases, and clients that make their own lines so (etcd's do) stand in the same ones.
//!
//! ```text
//!   enter: one transaction ──► key is the oldest ──────────────────────────────► head
//!          put, unless there   │                                                   ▲
//!                              ▼                                                   │ nobody in front, and the own key
//!                            look (linearizable) ◄── the one in front is gone ─────┤ is there: as of one revision
//!                              └─► watch the one in front, and the own key ────────┘
//! ```
//!
//! # Invariants
//! - Nobody is told that it is at the head unless one linearizable read showed its own key, as it was created, and none
//!   in front of it. Keys in front never come into being later: their create revisions are lower.
//! - Only the one behind is woken when a key goes: each waits for the newest key that is older than its own.
//! - A call whose client has gone, or whose time is over, gives its key up. The task that waits does so, not the call:
//!   the call may be dropped at any moment, also while its key is being made.
//! - A lease that the server granted for a call is known to nobody else before the answer. When the call fails, it is
//!   revoked, and its key with it.
//! - When the outcome of the first transaction is not known, a key may be left, as long as its client's lease lives.
//!
//! # Module map
//! `place` one candidate's way, [`requests`] what it asks of the store.

mod place;
pub mod requests;

use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::Spawn;
use holdfast_mvcc::types::{LeaseId, Revision};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frontend::{Call, Frontend};
use crate::status::Failure;
use place::Standing;

/// All calls of a member that stand in lines.
pub struct Lines {
    frontend: Arc<Frontend>,
    spawn: Arc<dyn Spawn>,
    places: Arc<Semaphore>,
    standing: TaskTracker,
}

/// Who wants to stand in which line.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The line's name.
    pub name: Bytes,
    /// Whose key it will be; `None`: of a lease that the server grants for it.
    pub lease: Option<LeaseId>,
    /// What for.
    pub purpose: Purpose,
}

/// What a place at the head is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To hold a lock. The key has no value.
    Lock,
    /// To be elected, with this value, also when the key is there already.
    Election(Bytes),
}

/// A place at the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The key.
    pub key: Bytes,
    /// The revision at which it was made.
    pub created: Revision,
    /// The lease it lives with.
    pub lease: LeaseId,
    /// The store's revision when the call entered the line.
    pub entered_at: Revision,
    /// The store's revision when it was seen to be at the head.
    pub head_at: Revision,
}

impl Lines {
    /// No lines yet.
    pub fn new(frontend: Arc<Frontend>, spawn: Arc<dyn Spawn>) -> Self {
        let places = Arc::new(Semaphore::new(frontend.limits.waiting_calls_max));
        Self { frontend, spawn, places, standing: TaskTracker::new() }
    }

    /// Takes one of the places that calls may wait in on this member.
    pub fn take_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Failure::TooManyWaiting)
    }

    /// Stands in a line until it is at the head. Dropping the future gives the place up, whenever that is.
    ///
    /// Errors: the key is lost, the time is over, the member stops; the place is given up then. When the key could not
    /// be made, it may be there all the same, if the failure says so.
    pub async fn stand(&self, candidate: Candidate, call: Call) -> Result<Head, Failure> {
        let place = self.take_place()?;
        let gone = CancellationToken::new();
        let gone_with_this_call = gone.clone().drop_guard();
        let (answer, answered) = oneshot::channel();
        let standing = Standing { frontend: Arc::clone(&self.frontend), gone, call };
        let run = async move {
            standing.run(candidate, answer).await;
            drop(place);
        };
        // Owned by the tracker: a stop waits for all of them.
        drop(self.spawn.task("line", Box::pin(self.standing.track_future(run))));
        let head = answered.await.unwrap_or(Err(Failure::Stopped));
        drop(gone_with_this_call);
        head
    }

    /// Grants a lease for a call without one. Nobody keeps it alive.
    pub async fn grant(&self, call: Call) -> Result<LeaseId, Failure> {
        place::grant(&self.frontend, call).await
    }

    /// Waits until nobody stands in line any more; those who do give up when the member stops.
    pub async fn ended(&self) {
        self.standing.close();
        self.standing.wait().await;
    }
}

/// Whether a step may be tried again: consensus could not say anything for now.
pub fn is_passing(failure: &Failure) -> bool {
    use holdfast_raft::NodeError::{ApplyTimedOut, LeaderChanged, NoLeader, TimedOut, TooManyRequests};
    matches!(failure, Failure::Node(NoLeader | LeaderChanged | TooManyRequests | TimedOut(_) | ApplyTimedOut))
}
