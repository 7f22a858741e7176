//! What the tasks of one node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_env::{BoxFuture, Env, LogIndex};
use holdfast_log::Log;
use holdfast_storage::{Snapshot, Storage, StorageError, Visible};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::leadership::Leadership;
use crate::log_size::LogSize;
use crate::pace::Pace;
use crate::peer::roster::Roster;
use crate::proposals::Proposals;
use crate::types::RaftVote;

/// What the tasks of one node share. The fields say who writes them.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) config: NodeConfig,
    pub(crate) log: Log,
    pub(crate) storage: Storage,
    pub(crate) proposals: Arc<Proposals>,
    /// How far readers see; written by the storage.
    pub(crate) visible: watch::Receiver<Visible>,
    /// Bytes of log; written by the state machine and the snapshot builder.
    pub(crate) log_size: Mutex<LogSize>,
    /// Told when [`Shared::log_size`] wants a dump, one was demanded, or a snapshot is finished. The dump loop waits on it.
    pub(crate) dump_hint: Notify,
    /// A dump that was begun without openraft, until openraft takes it up; then it knows how far the log may go.
    pub(crate) demanded: Mutex<Option<RunningDump>>,
    /// Holds appends back while a dump is behind.
    pub(crate) pace: Pace,
    /// Ends all tasks; cancelled by shutdown.
    pub(crate) stop: CancellationToken,
    pub(crate) counters: Counters,
    pub(crate) leadership: Mutex<Leadership>,
    /// The newest vote that this member has given: in front of the moment in which anybody can learn of it. Written by the
    /// log store.
    pub(crate) vote_given: Mutex<Option<RaftVote>>,
    /// Who must not take part any more; shared with the connections.
    pub(crate) roster: Arc<Roster>,
}

/// A dump on its way: gives the snapshot.
pub(crate) type RunningDump = BoxFuture<'static, Result<Snapshot, StorageError>>;

/// Figures since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// The index behind the last entry known to be committed; 0 when there is none. Written by the log store.
    committed_end: AtomicU64,
    /// Written by askers that got no answer.
    pub(crate) proposals_failed: AtomicU64,
    /// Written by the state machine.
    pub(crate) proposals_committed: AtomicU64,
}

impl Counters {
    /// Notes that entries up to `index` are committed.
    pub(crate) fn committed(&self, index: LogIndex) {
        self.committed_end.fetch_max(index.get() + 1, Ordering::Relaxed);
    }

    /// The index behind the last entry known to be committed.
    pub(crate) fn committed_end(&self) -> u64 {
        self.committed_end.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Begins a dump now, whatever came of the one before; returns when it is sealed.
    pub(crate) async fn demand_dump(&self) -> Result<(), StorageError> {
        let done = self.storage.start_dump().await?;
        *self.demanded.lock() = Some(done);
        self.dump_hint.notify_one();
        Ok(())
    }

    /// Notes a sign of `leader`, elected in `term`.
    pub(crate) fn leader_sign(&self, term: u64, leader: u64) {
        if self.leadership.lock().sign(term, leader, self.env.clock.now()) {
            tracing::info!(term, leader = format!("{leader:x}"), "there is a new leader");
        }
    }

    /// How often a new leader was seen.
    pub(crate) fn leader_changes(&self) -> u64 {
        self.leadership.lock().changes()
    }

    /// Committed entries whose effects are not visible here yet.
    pub(crate) fn apply_lag(&self) -> u64 {
        let visible_end = self.visible.borrow().log_id.map_or(0, |id| id.index().get() + 1);
        self.counters.committed_end().saturating_sub(visible_end)
    }

    /// True when new proposals must wait until applying has caught up. Never on a member that applies nothing any
    /// more: as a leader it still serves the others.
    pub(crate) fn is_overloaded(&self) -> bool {
        !self.storage.is_poisoned() && self.apply_lag() > self.config.apply_lag_max
    }
}
