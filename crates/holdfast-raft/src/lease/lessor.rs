//! The loop that begins and ends a reign, and proposes the ends of leases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{BoxFuture, Fault};
use holdfast_mvcc::command::{Command, LEASES_MAX, LeaseExpire};
use holdfast_mvcc::types::{LeaseRef, Term};
use openraft::async_runtime::watch::WatchReceiver;

use super::deadlines::Deadlines;
use super::{Leases, Reign};
use crate::codec::{self, Proposal};
use crate::limits::{EXPIRE_BATCH_MAX, EXPIRE_RETRY, LESSOR_PERIOD, within};
use crate::proposer::{ServerMetrics, append_local};
use crate::shared::Shared;
use crate::types::Raft;

/// The loop's state.
pub(crate) struct Lessor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) raft: Raft,
    pub(crate) leases: Arc<Leases>,
    pub(crate) metrics: ServerMetrics,
}

impl Lessor {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut proposed: Option<BoxFuture<'static, ()>> = None;
        loop {
            self.follow_leadership();
            if proposed.is_none() {
                proposed = self.propose();
            }
            let rest = self.rest(proposed.is_some());
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                changed = self.metrics.changed() => if changed.is_err() { return },
                () = settled(&mut proposed), if proposed.is_some() => proposed = None,
                () = shared.storage.lease_changed() => self.catch_up(),
                () = shared.env.clock.sleep(rest) => {}
            }
        }
    }

    /// Begins a reign when this member leads in another term than before, and ends it when it does not.
    fn follow_leadership(&self) {
        let shared = &self.shared;
        let leads_in = {
            let metrics = self.metrics.borrow_watched();
            // A member whose store has failed sees no lease come and go.
            let leads = metrics.current_leader == Some(shared.config.id.0) && !shared.storage.is_poisoned();
            leads.then_some(metrics.vote.leader_id.term)
        };
        let mut reign = self.leases.reign.lock();
        if reign.as_ref().map(|reign| reign.term) == leads_in {
            return;
        }
        *reign = leads_in.map(|term| {
            let (now, grace) = (shared.env.clock.now(), shared.config.election_timeout);
            let deadlines = Deadlines::begin(now, grace, shared.storage.follow_leases());
            tracing::debug!(term, next = ?deadlines.next(), "the deadlines of all leases begin anew");
            Reign { term, deadlines }
        });
        if reign.is_none() {
            shared.storage.unfollow_leases();
        }
    }

    fn catch_up(&self) {
        if let Some(reign) = &mut *self.leases.reign.lock() {
            reign.catch_up(&self.shared.storage, self.shared.env.clock.now());
        }
    }

    /// Proposes the end of leases whose time is over, so many at once that other writes are not held up.
    fn propose(&self) -> Option<BoxFuture<'static, ()>> {
        let (term, due) = {
            let mut reign = self.leases.reign.lock();
            let reign = reign.as_mut()?;
            let now = self.shared.env.clock.now();
            reign.catch_up(&self.shared.storage, now);
            (reign.term, reign.deadlines.due(now, EXPIRE_RETRY, EXPIRE_BATCH_MAX))
        };
        if due.is_empty() {
            return None;
        }
        tracing::debug!(term, leases = due.len(), "the time of leases is over");
        self.leases.expired.fetch_add(due.len() as u64, Ordering::Relaxed);
        let ends = self.ends(term, due);
        if self.shared.env.faults.is_planted(Fault::LeaseExpiryUnfenced) {
            return Some(Box::pin(propose_anywhere(Arc::clone(&self.shared), ends)));
        }
        let payloads = ends.into_iter().map(|end| self.payload(end)).collect();
        let (shared, raft) = (Arc::clone(&self.shared), self.raft.clone());
        Some(Box::pin(async move {
            // What was refused, or is not known to be applied, comes again, unless another member leads by then.
            if let Err(refusal) = append_local(&shared, &raft, payloads).await {
                tracing::debug!(?refusal, "leases could not be ended now");
            }
        }))
    }

    /// Leases with keys each in an entry of its own, so that what dies together shares a revision and nothing else does;
    /// those without in as few as can be.
    fn ends(&self, term: u64, due: Vec<LeaseRef>) -> Vec<Command> {
        let is_empty = |lease: &LeaseRef| self.shared.storage.is_lease_empty(lease.id);
        let (empty, with_keys): (Vec<_>, Vec<_>) = due.into_iter().partition(is_empty);
        let groups = with_keys.chunks(1).chain(empty.chunks(LEASES_MAX));
        let end = |group: &[LeaseRef]| LeaseExpire { term: Term(term), leases: group.to_vec() };
        groups.map(|group| Command::LeaseExpire(end(group))).collect()
    }

    fn payload(&self, end: Command) -> Bytes {
        let sequence = self.shared.proposals.skip();
        codec::encode_proposal(Proposal::of_server(self.shared.config.id.0, sequence, end))
    }

    /// How long nothing happens by itself.
    fn rest(&self, waits: bool) -> Duration {
        let next = self.leases.reign.lock().as_ref().and_then(|reign| reign.deadlines.next());
        match next {
            // Not for each lease by itself: what ends within one period ends together.
            Some(next) if !waits => next.since(self.shared.env.clock.now()).max(LESSOR_PERIOD),
            Some(_) | None => EXPIRE_RETRY,
        }
    }
}

/// What [`Fault::LeaseExpiryUnfenced`] does: the ends wait for whoever leads next.
async fn propose_anywhere(shared: Arc<Shared>, ends: Vec<Command>) {
    let limit = 4 * shared.config.election_timeout;
    let origin = shared.config.id.0;
    let encode = |sequence, end| Ok(codec::encode_proposal(Proposal::of_server(origin, sequence, end)));
    let submitted: Vec<_> = ends
        .into_iter()
        .filter_map(|end| shared.proposals.submit(|sequence| encode(sequence, end)).ok())
        .collect();
    for (_ticket, answered) in submitted {
        // Answered, or not known to be: the lease comes again.
        drop(within(&*shared.env.clock, limit, answered).await);
    }
}

async fn settled(proposed: &mut Option<BoxFuture<'static, ()>>) {
    match proposed {
        Some(proposed) => proposed.await,
        None => std::future::pending().await,
    }
}
