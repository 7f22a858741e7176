//! A leader that can do only half of its work gives leadership away.
//!
//! - Its stable store has failed: its log is whole, and others apply what it commits, but it sees no lease come and go, so
//!   that none would end while it leads, and none be kept alive.
//! - Its log's disk has no room: it must refuse every write, while the others may have room.
//!
//! Without anybody who could lead in its place it goes on; it may also be elected again. Then it waits longer each time:
//! when the others have no room either, leadership must not go round and round.

use std::sync::Arc;

use super::{best_successor, transfer_to};
use crate::limits::HAND_OVER_PAUSE_MAX;
use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::Raft;

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>, raft: Raft, peers: Arc<Peers>) {
    let look = shared.config.election_timeout / 2;
    let hand_over = async {
        let mut pause = look;
        loop {
            shared.env.clock.sleep(pause).await;
            let Some(why) = unfit(&shared) else {
                pause = look;
                continue;
            };
            if let Some(to) = best_successor(&shared, &raft, &peers) {
                tracing::warn!(to = format!("{to:x}"), why, "another member is to lead");
                transfer_to(&shared, &raft, to, 2 * look).await;
                pause = (2 * pause).min(HAND_OVER_PAUSE_MAX);
            }
        }
    };
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        () = hand_over => {}
    }
}

/// Why this member should not lead, when it should not.
fn unfit(shared: &Shared) -> Option<&'static str> {
    if shared.storage.is_poisoned() {
        return Some("the stable store has failed");
    }
    shared.log.is_full().then_some("the disk of the log has no room")
}
