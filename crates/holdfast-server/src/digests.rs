//! Compares the members' data from time to time, on the leader, and raises an alarm for whoever differs.
//!
//! The alarm is replicated state: with it nothing is changed any more, on any member, and the member that it names
//! serves no data. It stands until somebody clears it, after that member was replaced.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::Clock;
use holdfast_mvcc::command::{Alarm, AlarmKind, Command};
use tokio_util::sync::CancellationToken;

use crate::frontend::Frontend;
use crate::limits;

/// Runs until `stop`.
pub async fn run(frontend: Arc<Frontend>, clock: Arc<dyn Clock>, period: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            // Neither holds anything.
            () = stop.cancelled() => return,
            () = clock.sleep(period) => {}
        }
        tokio::select! {
            // A comparison that is dropped has changed nothing; an alarm that was proposed may still be raised.
            () = stop.cancelled() => return,
            () = compare(&frontend) => {}
        }
    }
}

async fn compare(frontend: &Frontend) {
    // What is wrong has been logged, and it is tried again.
    let Ok(Some(found)) = frontend.node.compare_digests(limits::DIGEST_LIMIT).await else { return };
    let revision = found.revision.get();
    if found.differing.is_empty() {
        tracing::info!(revision, members = found.compared.len(), "the members hold the same data");
        return;
    }
    for member in found.differing {
        let alarm = Alarm { member, kind: AlarmKind::Corrupt };
        tracing::error!(
            member = format!("{:x}", member.0),
            revision,
            "this member's data differs from the others': replace it with holdfast join --replace, then clear the alarm"
        );
        if !frontend.storage.alarms().contains(&alarm) {
            let raised = frontend.propose(Command::RaiseAlarm(alarm), frontend.internal_call()).await;
            if let Err(failure) = raised {
                tracing::warn!(?failure, "the alarm is not raised yet; it is with the next comparison");
            }
        }
    }
}
