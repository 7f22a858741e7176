//! What the leader does by itself: makes voters of those that are to vote later once they have caught up, and finishes
//! changes that were left half done by a leader that stopped.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, ServerState};

use super::change::Changes;
use crate::limits::{KEEPER_PERIOD, PROMOTE_LAG_MAX, within};

/// What there is to do.
enum Task {
    FinishJoint,
    /// One of these is to vote as soon as it has caught up.
    Promote(Vec<u64>),
}

/// Runs until the node stops.
pub(crate) async fn run(changes: Changes) {
    let shared = changes.shared.clone();
    let mut metrics = changes.raft.server_metrics();
    loop {
        let task = {
            let metrics = metrics.borrow_and_update();
            (metrics.state == ServerState::Leader)
                .then(|| task(metrics.membership_config.membership()))
                .flatten()
        };
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = shared.env.clock.sleep(KEEPER_PERIOD), if task.is_some() => {}
            changed = metrics.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
        }
        if let Some(task) = task {
            let limit = 2 * shared.config.election_timeout;
            let work = carry_out(&changes, task);
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                // Given up, it is tried again.
                _ = within(&*shared.env.clock, limit, work) => {}
            }
        }
    }
}

fn task(membership: &crate::types::Membership) -> Option<Task> {
    if membership.get_joint_config().len() > 1 {
        return Some(Task::FinishJoint);
    }
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    let later = membership.nodes().filter(|(id, node)| node.votes_later && !voters.contains(id));
    let later: Vec<u64> = later.map(|(id, _)| *id).collect();
    (!later.is_empty()).then_some(Task::Promote(later))
}

async fn carry_out(changes: &Changes, task: Task) {
    // Whoever has the turn does more than we would.
    let Ok(_turn) = changes.turn.try_lock() else { return };
    let is_committed = {
        let metrics = changes.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.log_id() == metrics.committed_membership_config.log_id()
    };
    if !is_committed {
        // openraft takes no further change before that.
        return;
    }
    match task {
        Task::FinishJoint => changes.finish_joint().await,
        Task::Promote(later) => {
            let ready = later.into_iter().find(|id| has_caught_up(changes, *id));
            if let Some(id) = ready {
                let outcome = changes.propose(ChangeMembers::AddVoterIds([id].into())).await;
                tracing::info!(member = format!("{id:x}"), ?outcome, "a member that has caught up votes now");
            }
        }
    }
}

fn has_caught_up(changes: &Changes, id: u64) -> bool {
    let metrics = changes.raft.metrics().borrow_watched().clone();
    let matching = metrics.replication.and_then(|replication| replication.get(&id).copied().flatten());
    let is_connected = changes.peers.get(id).is_some_and(|link| link.is_connected());
    is_connected
        && matching
            .is_some_and(|matching| matching.index + PROMOTE_LAG_MAX >= metrics.last_log_index.unwrap_or(0))
}
