//! Notices that the member has been without a leader for too long: streams that want one are ended then.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic};
use holdfast_raft::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Looks for the leader until `ended`, and counts up `lost` whenever it has been away for nearly
/// [`limits::LEADERLESS_ELECTION_TIMEOUTS`].
pub(super) async fn run(
    node: Node,
    clock: Arc<dyn Clock>,
    election_timeout: Duration,
    lost: watch::Sender<u64>,
    ended: CancellationToken,
) {
    let pause = election_timeout / 4;
    // The loss is noticed up to a pause late, and the streams end within their time all the same.
    let patience = election_timeout * limits::LEADERLESS_ELECTION_TIMEOUTS - pause;
    let mut missed_since: Option<Monotonic> = None;
    let mut is_told = false;
    loop {
        tokio::select! {
            // Both only wait.
            () = ended.cancelled() => return,
            () = clock.sleep(pause) => {}
        }
        if node.health().leader.is_some() {
            missed_since = None;
            is_told = false;
            continue;
        }
        let now = clock.now();
        let since = *missed_since.get_or_insert(now);
        if !is_told && now.since(since) >= patience {
            tracing::warn!("no leader for a while: watch streams that want one are ended");
            lost.send_modify(|times| *times += 1);
            is_told = true;
        }
    }
}
