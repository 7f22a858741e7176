//! The check of the snapshot that a start has found, in pieces and when there is nothing else to do.

use holdfast_env::{Clock, Monotonic};
use std::time::Duration;

use super::shared::Shared;
use crate::error::StorageError;
use crate::limits::CHECK_AFTER;
use crate::snapshot::format::Verification;

/// Frames of one piece: about a block of the file.
const FRAMES: usize = 16;

/// What the committer knows of it.
pub(crate) struct SnapshotCheck {
    /// When to begin; `None` when all is done.
    due: Option<Monotonic>,
    running: Option<(String, Verification)>,
}

impl SnapshotCheck {
    /// Begins a while from now.
    pub(crate) fn after(clock: &dyn Clock) -> Self {
        Self { due: Some(clock.now().after(CHECK_AFTER)), running: None }
    }

    /// True when a piece may be done.
    pub(crate) fn is_due(&self, clock: &dyn Clock) -> bool {
        self.due.is_some_and(|due| clock.now() >= due)
    }

    /// How long until it may begin; `None` when nothing is left to do.
    pub(crate) fn rest(&self, clock: &dyn Clock) -> Option<Duration> {
        self.due.map(|due| due.since(clock.now()))
    }

    /// Does a bounded piece of work. A bad snapshot is put out of the way; the store that runs does not need it.
    pub(crate) fn slice(&mut self, shared: &Shared) {
        match self.step(shared) {
            Ok(false) => return,
            Ok(true) => {}
            // The next start looks again.
            Err(error) => tracing::warn!(%error, "the snapshot could not be checked"),
        }
        self.due = None;
        self.running = None;
    }

    fn step(&mut self, shared: &Shared) -> Result<bool, StorageError> {
        let (id, mut check) = match self.running.take() {
            Some(running) => running,
            None => match shared.snapshots.unchecked()? {
                Some(found) => found,
                None => return Ok(true),
            },
        };
        let outcome = match check.step(FRAMES) {
            Ok(false) => {
                let is_replaced = shared.snapshots.is_checked(&id);
                self.running = Some((id, check));
                return Ok(is_replaced);
            }
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        tracing::info!(snapshot = id, good = outcome.is_ok(), "the snapshot that was found is checked");
        shared.snapshots.checked(&id, outcome)?;
        Ok(true)
    }
}
