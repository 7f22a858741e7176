//! Moving leadership to another voter.
//!
//! A leader that has asked another one to take over takes no writes any more, whatever comes of it. So it asks only one
//! that has all of its log, and when that does not take over in time, campaigns again itself.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;

use crate::limits::{RETRY_PAUSE, within};
use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::Raft;

/// The connected voter with the longest log, other than this member, if this member leads.
pub(crate) fn best_successor(shared: &Shared, raft: &Raft, peers: &Peers) -> Option<u64> {
    let metrics = raft.metrics().borrow_watched().clone();
    if metrics.state != ServerState::Leader {
        return None;
    }
    let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
    let candidates = metrics.replication.unwrap_or_default().into_iter();
    candidates
        .filter(|(id, matching)| *id != shared.config.id.0 && voters.contains(id) && matching.is_some())
        .filter(|(id, _)| peers.get(*id).is_some_and(|link| link.is_connected()))
        .max_by_key(|(id, matching)| (*matching, *id))
        .map(|(id, _)| id)
}

/// Moves leadership to `to`. True when this member does not lead any more. Takes at most twice `limit`.
pub(crate) async fn transfer_to(shared: &Arc<Shared>, raft: &Raft, to: u64, limit: Duration) -> bool {
    let clock = &*shared.env.clock;
    let has_caught_up = async {
        while !has_all(raft, to) {
            clock.sleep(RETRY_PAUSE).await;
        }
    };
    if within(clock, limit, has_caught_up).await.is_none() {
        tracing::warn!(to = format!("{to:x}"), "the member that was to lead does not catch up");
        return false;
    }
    if raft.trigger().transfer_leader(to).await.is_err() {
        return true;
    }
    let began = clock.now();
    if within(clock, limit, until_other_leader(shared, raft)).await.is_some() {
        tracing::info!(to = format!("{to:x}"), took = ?clock.now().since(began), "leadership was handed over");
        return true;
    }
    tracing::warn!(to = format!("{to:x}"), "leadership was not taken over in time; campaigning again");
    // Ends the state in which this leader takes no writes. Fails only when openraft has stopped.
    raft.trigger().elect(false).await.ok();
    false
}

/// True when `to` has all of our log, or we do not lead any more.
fn has_all(raft: &Raft, to: u64) -> bool {
    let metrics = raft.metrics().borrow_watched().clone();
    let matching = metrics.replication.and_then(|replication| replication.get(&to).copied().flatten());
    metrics.state != ServerState::Leader || matching.map(|matching| matching.index) >= metrics.last_log_index
}

async fn until_other_leader(shared: &Shared, raft: &Raft) {
    let mut server = raft.server_metrics();
    let here = shared.config.id.0;
    while server.borrow_and_update().current_leader.is_none_or(|leader| leader == here) {
        if server.changed().await.is_err() {
            return;
        }
    }
}
