//! One life of one member, and what must hold in it at any time.

use std::sync::Arc;

use holdfast_log::Log;
use holdfast_raft::Node;
use holdfast_storage::{DispatcherState, Storage, Visible};
use parking_lot::Mutex;

use super::full::Full;
use super::harm::Harmed;
use super::history::Violation;
use crate::world::SimSpawn;

/// One life of one member, from start to crash. Cheap to clone.
#[derive(Clone)]
pub(super) struct Life {
    /// Consensus.
    pub node: Node,
    /// The state.
    pub storage: Storage,
    /// The log.
    pub log: Log,
    /// Its tasks.
    pub spawn: SimSpawn,
    /// What its readers have seen last.
    pub seen: Arc<Mutex<Visible>>,
}

impl Life {
    /// True until it crashes.
    pub(super) fn is_alive(&self) -> bool {
        !self.spawn.has_ended()
    }

    /// What `operation` gives, or `None` when the member crashes first.
    pub(super) async fn until_crash<T>(&self, operation: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            output = operation => Some(output),
            () = self.spawn.ended() => None,
        }
    }

    /// What must hold at any time.
    pub(super) fn check(
        &self,
        index: usize,
        full: Option<Full>,
        harmed: &mut Option<Harmed>,
    ) -> Result<(), Violation> {
        let status = self.storage.status();
        let log = self.log.state();
        let wrong = |what: &str| {
            Err(Violation::new(format!(
                "member {index}: {what}: {status:?}, log {:?}..{:?}",
                log.purged, log.last
            )))
        };
        if status.state == DispatcherState::Poisoned && !full.is_some_and(Full::may_stop_members) {
            return wrong("its store is poisoned although its disk is sound");
        }
        if status.durable > status.stable || status.stable > status.visible.log_id {
            return wrong("positions are not durable <= stable <= visible");
        }
        if status.snapshot > status.durable {
            return wrong("the snapshot is ahead of the durable store");
        }
        let snapshot = status.snapshot.map(|snapshot| snapshot.index().get());
        if harmed.is_some_and(|harmed| harmed.snapshot.is_none() || snapshot > harmed.snapshot) {
            *harmed = None;
        }
        if log.purged > status.snapshot && harmed.is_none() {
            return wrong("the log is purged beyond the snapshot");
        }
        if log.last.max(status.snapshot) < status.stable {
            return wrong("the log ends before the stable store");
        }
        let mut seen = self.seen.lock();
        if status.visible.revision < seen.revision || status.visible.log_id < seen.log_id {
            return wrong("what readers see stepped back");
        }
        *seen = status.visible;
        Ok(())
    }
}
