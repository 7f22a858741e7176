//! Changes of a cache, for one who follows them.

use std::fmt;
use std::sync::Arc;

use super::change::Change;
use super::health::RelistReason;
use super::hub::{Hub, Inlet};
use super::snapshot::Snapshot;

/// What a subscription tells.
pub enum InformerEvent<T> {
    /// All that there was when it began. First, and once.
    Synced {
        /// It.
        snapshot: Arc<Snapshot<T>>,
    },
    /// What has happened in one revision.
    Changed {
        /// The state with it.
        snapshot: Arc<Snapshot<T>>,
        /// Never none; one for each key.
        changes: Arc<[Change<T>]>,
    },
    /// All was listed again: what is different now.
    Relisted {
        /// Why.
        reason: RelistReason,
        /// The state with it.
        snapshot: Arc<Snapshot<T>>,
        /// One for each key, in their order; none when nothing is different.
        changes: Arc<[Change<T>]>,
    },
    /// More has happened than was read and could be kept: what is different now, and not what was so in between.
    Lagged {
        /// The revision of the state that was told before.
        from: u64,
        /// The state now.
        snapshot: Arc<Snapshot<T>>,
        /// One for each key, in their order; none when nothing is different.
        changes: Arc<[Change<T>]>,
    },
}

impl<T> InformerEvent<T> {
    /// The state with what it tells.
    pub fn snapshot(&self) -> &Arc<Snapshot<T>> {
        match self {
            Self::Synced { snapshot }
            | Self::Changed { snapshot, .. }
            | Self::Relisted { snapshot, .. }
            | Self::Lagged { snapshot, .. } => snapshot,
        }
    }

    /// What has changed since the event before; none for the first.
    pub fn changes(&self) -> &[Change<T>] {
        match self {
            Self::Synced { .. } => &[],
            Self::Changed { changes, .. } | Self::Relisted { changes, .. } | Self::Lagged { changes, .. } => {
                changes
            }
        }
    }
}

impl<T> fmt::Debug for InformerEvent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        match self {
            Self::Synced { .. } => write!(f, "synced ({snapshot:?})"),
            Self::Changed { changes, .. } => write!(f, "{changes:?} ({snapshot:?})"),
            Self::Relisted { reason, changes, .. } => {
                write!(f, "relisted ({reason:?}): {changes:?} ({snapshot:?})")
            }
            Self::Lagged { from, changes, .. } => {
                write!(f, "lagged from {from}: {changes:?} ({snapshot:?})")
            }
        }
    }
}

/// Follows a cache; made by [`super::Reader::subscribe`]. What it does not read waits, up to a bound; behind that it is
/// told the difference between what it was told last and what there is. It holds nobody up.
///
/// It keeps the state that it was told last. Dropping it ends it.
pub struct Subscription<T> {
    hub: Arc<Hub<T>>,
    changes_max: usize,
    inlet: Option<Inlet<T>>,
    /// The state of the event before.
    known: Option<Arc<Snapshot<T>>>,
    /// To be told before anything else.
    first: Option<Arc<Snapshot<T>>>,
}

impl<T> Subscription<T> {
    pub(super) fn new(hub: Arc<Hub<T>>, changes_max: usize) -> Self {
        let mut subscription = Self { hub, changes_max, inlet: None, known: None, first: None };
        if let Some((inlet, newest)) = subscription.hub.join(changes_max) {
            subscription.inlet = Some(inlet);
            // Before the first list is complete there is no state: its step will be the first.
            subscription.first = Some(newest).filter(|newest| newest.revision() > 0);
        }
        subscription
    }

    /// Waits for what comes next; `None` when the informer has ended and all is told. Cancel-safe.
    pub async fn next(&mut self) -> Option<InformerEvent<T>> {
        if let Some(snapshot) = self.first.take() {
            self.known = Some(Arc::clone(&snapshot));
            return Some(InformerEvent::Synced { snapshot });
        }
        loop {
            let Some(inlet) = &mut self.inlet else { return self.come_back() };
            let Some(step) = inlet.steps.recv().await else {
                // It was too slow, or nothing is published any more.
                self.inlet = None;
                continue;
            };
            inlet.took(&step);
            let snapshot = Arc::clone(&step.snapshot);
            if self.known.replace(Arc::clone(&snapshot)).is_none() {
                return Some(InformerEvent::Synced { snapshot });
            }
            let changes = Arc::clone(&step.changes);
            return Some(match step.relisted {
                Some(reason) => InformerEvent::Relisted { reason, snapshot, changes },
                None => InformerEvent::Changed { snapshot, changes },
            });
        }
    }

    /// Follows again, and tells what is different.
    fn come_back(&mut self) -> Option<InformerEvent<T>> {
        let (inlet, snapshot) = self.hub.join(self.changes_max)?;
        self.inlet = Some(inlet);
        let known = self.known.replace(Arc::clone(&snapshot));
        let Some(known) = known else { return Some(InformerEvent::Synced { snapshot }) };
        let changes = snapshot.changes_since(&known).into();
        Some(InformerEvent::Lagged { from: known.revision(), snapshot, changes })
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        if let Some(inlet) = &self.inlet {
            self.hub.leave(inlet);
        }
    }
}

impl<T> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("known", &self.known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
