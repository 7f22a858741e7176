//! What a member knows of consensus, and the task that watches openraft for it.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{LogId, LogIndex, Term};
use holdfast_mvcc::types::MemberId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{Instant, RaftMetrics, ServerState};

use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::{Raft, TypeConfig};

/// What a member knows of consensus now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The current term.
    pub term: Term,
    /// The leader, while there are signs of it; `None` at the latest one election timeout after the last one.
    pub leader: Option<MemberId>,
    /// True when this member leads and still reaches a quorum.
    pub is_leader: bool,
    /// True when this member does not vote and is not to.
    pub is_learner: bool,
    /// True when this member votes; by a change of members that is under way, both before and behind it.
    pub votes: bool,
    /// The last entry in the local log.
    pub last_log: Option<LogIndex>,
    /// The last entry known to be committed.
    pub committed: Option<LogId>,
    /// How often a new leader was seen since the start.
    pub leader_changes: u64,
    /// Proposals waiting now.
    pub proposals_pending: u64,
    /// Proposals that ended without an answer since the start.
    pub proposals_failed: u64,
    /// Entries committed since the start.
    pub proposals_committed: u64,
    /// How long this member, as the leader, has held batches of writes back since the start because a dump was behind.
    pub writes_paced: Duration,
    /// Leases whose end this member has proposed as the leader, because their time was over.
    pub leases_expired: u64,
    /// Keep-alives that this member has granted as the leader.
    pub leases_renewed: u64,
}

/// The leader, if there are signs of it: `None` when it has been silent for an election timeout, or when it is this
/// member and it no longer reaches a quorum.
pub(crate) fn live_leader(shared: &Shared, metrics: &RaftMetrics<TypeConfig>) -> Option<u64> {
    let leader = metrics.current_leader?;
    let here = shared.config.id.0;
    let silence_max = shared.config.election_timeout;
    let is_heard = shared.leadership.lock().is_alive(leader, shared.env.clock.now(), silence_max);
    let is_alive = if leader == here {
        let is_alone = metrics.membership_config.membership().voter_ids().all(|voter| voter == here);
        let is_acked = metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() <= silence_max);
        // Heard of at its own election: a quorum has just voted.
        is_alone || is_acked || is_heard
    } else {
        is_heard
    };
    is_alive.then_some(leader)
}

/// Watches openraft: notes when this member is elected, keeps links to all members, and stops the member when openraft
/// fails.
pub(crate) struct Watcher {
    pub(crate) shared: Arc<Shared>,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
}

impl Watcher {
    /// Runs until the node stops.
    pub(crate) async fn run(self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (leading, membership) = {
                let metrics = metrics.borrow_and_update();
                let leading = (metrics.state == ServerState::Leader).then_some(metrics.vote);
                (leading, Arc::clone(&metrics.membership_config))
            };
            if let Some(vote) = leading {
                self.shared.leader_sign(vote.leader_id.term, vote.leader_id.voted_for);
            }
            for (&peer, node) in membership.nodes().filter(|(peer, _)| **peer != self.shared.config.id.0) {
                self.peers.link(peer, node);
            }
            self.peers.unlink_removed();
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                () = self.shared.roster.changed() => {}
                changed = metrics.changed() => if changed.is_err() {
                    return self.openraft_ended();
                },
            }
        }
    }

    /// openraft ends by itself only when a log or storage operation failed: the member cannot keep its promises.
    fn openraft_ended(&self) {
        let running = self.raft.metrics().borrow_watched().running_state.clone();
        match running {
            Err(Fatal::Stopped) => {}
            Err(fatal) => self.shared.env.spawn.halt(&format!("consensus failed: {fatal}")),
            Ok(()) => self.shared.env.spawn.halt("consensus ended without a word"),
        }
        self.shared.proposals.close();
        self.shared.stop.cancel();
    }
}
