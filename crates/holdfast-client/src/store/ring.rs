//! The latest changes of a store in memory, for watches, and its latest states, for reads of the past.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cow::View;
use super::item::Change;

/// Bounded on both; what is older is forgotten.
pub(super) struct Ring<V> {
    /// Ascending by version, several may share one.
    changes: VecDeque<Arc<Change<V>>>,
    /// Ascending by version, the newest being what is published. Empty when nobody asked for states.
    states: VecDeque<Arc<View<V>>>,
    /// Changes of this version and older ones are not known any more.
    forgotten: u64,
    changes_max: usize,
}

impl<V> Ring<V> {
    pub(super) fn new(changes_max: usize) -> Self {
        Self { changes: VecDeque::new(), states: VecDeque::new(), forgotten: 0, changes_max }
    }

    pub(super) fn record(&mut self, change: Change<V>) {
        assert!(self.changes.back().is_none_or(|last| last.version <= change.version), "versions ascend");
        self.changes.push_back(Arc::new(change));
        while self.changes.len() > self.changes_max
            && let Some(oldest) = self.changes.pop_front()
        {
            self.forgotten = oldest.version;
        }
    }

    pub(super) fn record_state(&mut self, state: Arc<View<V>>) {
        self.states.push_back(state);
        // The state before the oldest known change is the oldest that is of use.
        while self.states.len() > self.changes_max.saturating_add(1) {
            self.states.pop_front();
        }
    }

    /// Nothing before this state is known.
    pub(super) fn forget(&mut self, state: Option<Arc<View<V>>>, version: u64) {
        self.changes.clear();
        self.states.clear();
        self.states.extend(state);
        self.forgotten = version;
    }

    /// At most `max` changes behind a version. `Err` with the oldest version that one can go on after, when some are
    /// forgotten.
    pub(super) fn after(&self, version: u64, max: usize) -> Result<Vec<Arc<Change<V>>>, u64> {
        if version < self.forgotten {
            return Err(self.forgotten);
        }
        let start = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(start..).take(max).cloned().collect())
    }

    /// The state at a version that is not in the future. `Err` with the oldest one known, when it is forgotten.
    pub(super) fn state(&self, version: u64) -> Result<Arc<View<V>>, u64> {
        let end = self.states.partition_point(|state| state.version() <= version);
        let oldest = self.states.front().map_or(0, |state| state.version());
        let state = end.checked_sub(1).and_then(|at| self.states.get(at));
        state.cloned().ok_or(oldest)
    }
}
