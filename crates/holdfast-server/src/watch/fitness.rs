//! Notices that this member's data cannot be trusted, or does not go on: watch streams are ended then, so that their
//! clients resume on another member and do not wait here for events that never come, or are wrong.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::Clock;
use holdfast_mvcc::command::Alarm;
use holdfast_storage::Storage;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Looks until `ended`; `corrupt` is the alarm for this member whose data differs from the others'.
pub(super) async fn run(
    storage: Storage,
    corrupt: Alarm,
    clock: Arc<dyn Clock>,
    pause: Duration,
    unfit: watch::Sender<bool>,
    ended: CancellationToken,
) {
    loop {
        let is_unfit = storage.is_poisoned() || storage.alarms().contains(&corrupt);
        let has_changed = unfit.send_if_modified(|was| std::mem::replace(was, is_unfit) != is_unfit);
        if has_changed && is_unfit {
            tracing::error!("this member's data cannot be trusted: watch streams are ended");
        }
        tokio::select! {
            // Both only wait.
            () = ended.cancelled() => return,
            () = clock.sleep(pause) => {}
        }
    }
}
