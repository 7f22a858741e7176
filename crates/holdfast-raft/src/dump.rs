//! Starts dumps when the log has grown enough, when a compaction has left the snapshot much larger than what is retained,
//! and at once when the snapshot was found damaged; lets the log go behind a finished one.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{LogId, LogIndex};
use holdfast_log::Log;
use holdfast_storage::Storage;
use openraft::async_runtime::watch::WatchReceiver;

use crate::limits::{DUMP_AGAIN, DUMP_HANDOVER, FRAME_PAYLOAD_BYTES, PURGE_AGAIN};
use crate::log_size::LogSize;
use crate::shared::Shared;
use crate::types::{Raft, from_raft};

/// A snapshot that has outgrown what it holds is written anew only when that gives back this share of the dump threshold, too.
const OUTGROWN_SHARE: u64 = 4;

/// What the loop woke up for.
enum Cause {
    /// The log has grown, a dump was demanded, or a snapshot is finished.
    Hint,
    /// A scrub is over.
    Scrubbed,
    /// The snapshot was found damaged.
    Damaged,
    /// It is time to look again.
    Again,
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>, raft: Raft) {
    let mut scrubs = shared.storage.scrubs();
    let mut damaged = shared.storage.damaged_snapshots();
    // True when openraft does not know of the newest snapshot yet.
    let mut is_late = false;
    loop {
        let again = if is_late { Some(PURGE_AGAIN) } else { look_again(&shared) };
        // All arms are cancel-safe: they only watch.
        let cause = tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = shared.dump_hint.notified() => Cause::Hint,
            // The storage ends with us.
            Ok(()) = damaged.changed() => Cause::Damaged,
            Ok(()) = scrubs.changed() => Cause::Scrubbed,
            () = shared.env.clock.sleep(again.unwrap_or_default()), if again.is_some() => Cause::Again,
        };
        let is_missing = is_missing(&shared);
        is_late = !is_known(&shared, &raft);
        let (purgeable, wants_dump) = {
            let mut log_size = shared.log_size.lock();
            let bytes = shared.config.dump_log_bytes;
            // Without a snapshot, what is left of the log and the stable store are all that this member has.
            let purgeable = if is_missing || is_late { None } else { log_size.purgeable(bytes) };
            (purgeable, log_size.wants_dump(bytes))
        };
        if let Some(index) = purgeable {
            tracing::info!(index, "the log goes up to here");
            // Fails only when openraft has stopped, and then so do we.
            raft.trigger().purge_log(index).await.ok();
        }
        if is_missing && matches!(cause, Cause::Damaged | Cause::Again) {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                // Given up, the dump may still be made.
                begun = shared.demand_dump() => if let Err(error) = begun {
                    tracing::error!(%error, "the snapshot is damaged, and no dump can replace it now: no follower can be sent one");
                }
            }
        }
        let is_demanded = shared.demanded.lock().is_some();
        let is_smaller = matches!(cause, Cause::Scrubbed) && is_snapshot_outgrown(&shared);
        if wants_dump || is_smaller || is_demanded {
            // Nothing happens when one is running already.
            raft.trigger().snapshot().await.ok();
        }
    }
}

/// When to look again although nothing has happened: a demanded dump waits until openraft has done with the one before,
/// and a dump that was to replace a damaged snapshot may have failed.
fn look_again(shared: &Shared) -> Option<Duration> {
    if shared.demanded.lock().is_some() {
        Some(DUMP_HANDOVER)
    } else if is_missing(shared) {
        Some(DUMP_AGAIN)
    } else {
        None
    }
}

/// True when openraft has heard of the newest snapshot. A dump is known here a moment sooner, and openraft lets the log go
/// only behind the snapshot that it knows.
fn is_known(shared: &Shared, raft: &Raft) -> bool {
    let newest = shared.storage.current_snapshot().and_then(|snapshot| snapshot.applied.log_id);
    let known = raft.data_metrics().borrow_watched().snapshot.as_ref().map(from_raft);
    known.map(LogId::index) >= newest.map(LogId::index)
}

/// True when the log does not begin at its beginning, and no snapshot holds what is missing.
fn is_missing(shared: &Shared) -> bool {
    shared.storage.current_snapshot().is_none() && shared.log.state().purged.is_some()
}

/// True when the newest snapshot is more than twice what a dump now would write at most, with [`OUTGROWN_SHARE`] on top: then
/// writing it again gives back more than it costs. Happens at the end of a scrub, so at most once for a compaction.
fn is_snapshot_outgrown(shared: &Shared) -> bool {
    let snapshot = shared.storage.current_snapshot().map_or(0, |snapshot| snapshot.bytes);
    snapshot > 2 * shared.storage.status().logical_bytes + shared.config.dump_log_bytes / OUTGROWN_SHARE
}

/// The sizes at a start. What lies between the last snapshot and the applied entry is estimated from its first part,
/// so that a start does not read all of it.
pub(crate) fn size_at_start(storage: &Storage, log: &Log) -> LogSize {
    let snapshot = storage.current_snapshot();
    let from =
        snapshot.as_ref().and_then(|snapshot| snapshot.applied.log_id).map_or(0, |id| id.index().get() + 1);
    let from = from.max(log.state().purged.map_or(0, |purged| purged.index().get() + 1));
    let to = storage.applied().log_id.map_or(0, |id| id.index().get() + 1);
    let log_bytes = match log.read(LogIndex::new(from), LogIndex::new(to.max(from)), FRAME_PAYLOAD_BYTES) {
        Ok(sample) if !sample.is_empty() => {
            let bytes: u64 =
                sample.iter().map(|entry| holdfast_log::entry_bytes(entry.payload.len()) as u64).sum();
            u64::try_from(u128::from(bytes) * u128::from(to - from) / sample.len() as u128)
                .unwrap_or(u64::MAX)
        }
        Ok(_) => 0,
        Err(error) => {
            tracing::warn!(%error, "cannot estimate the size of the log; the next dump may come late");
            0
        }
    };
    LogSize::new(snapshot.map_or(0, |snapshot| snapshot.bytes), log_bytes)
}
