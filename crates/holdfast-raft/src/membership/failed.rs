//! A leader whose stable store has failed gives leadership away. It could go on: its log is whole, and others apply what it
//! commits. But it sees no lease come and go, so that none would end while it leads, and none be kept alive.

use std::sync::Arc;

use super::{best_successor, transfer_to};
use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::Raft;

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>, raft: Raft, peers: Arc<Peers>) {
    let limit = shared.config.election_timeout;
    let hand_over = async {
        shared.poisoned.notified().await;
        loop {
            // Without anybody who could lead in its place it goes on; it may also be elected again.
            if let Some(to) = best_successor(&shared, &raft, &peers) {
                tracing::warn!(
                    to = format!("{to:x}"),
                    "the stable store has failed: another member is to lead"
                );
                transfer_to(&shared, &raft, to, limit).await;
            }
            shared.env.clock.sleep(limit).await;
        }
    };
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        () = hand_over => {}
    }
}
