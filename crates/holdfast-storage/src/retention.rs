//! Which records a compaction leaves: one rule for dump, scrub and history hash.
//!
//! At a compact revision c a record is retained when it is above c; or when it is the put that its key shows at c; or
//! when it is a delete at exactly c.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_mvcc::types::{Change, KeyRange, RangeEnd, Record, RecordId, Revision};
use holdfast_mvcc::{RecordMeta, State};
use parking_lot::RwLock;

use crate::error::StoreError;
use crate::limits::LOCK_KEYS_MAX;
use crate::pack::{Run, metas};
use crate::view::View;

/// The rule at one compact revision. Valid while the index still knows that revision: that is, while nobody scrubs
/// beyond it.
pub(crate) struct Retention {
    state: Arc<RwLock<State>>,
    compact_revision: Option<Revision>,
}

impl Retention {
    /// At this compact revision; `None` retains everything.
    pub(crate) fn new(view: &View, compact_revision: Option<Revision>) -> Self {
        Self { state: Arc::clone(&view.state), compact_revision }
    }

    /// How many of these records are retained.
    pub(crate) fn count(&self, metas: &[RecordMeta]) -> usize {
        metas.len() - self.gone_of(metas).len()
    }

    /// The records of a run that are not retained, ascending. Decodes nothing of a run that is retained whole.
    pub(crate) fn gone(&self, run: &Run) -> Result<Vec<RecordId>, StoreError> {
        if self.compact_revision.is_none_or(|at| run.first.revision > at) {
            return Ok(Vec::new());
        }
        Ok(self.gone_of(&metas(&run.meta)?))
    }

    fn gone_of(&self, metas: &[RecordMeta]) -> Vec<RecordId> {
        let Some(compact_revision) = self.compact_revision else { return Vec::new() };
        let mut gone = Vec::new();
        for some in metas.chunks(LOCK_KEYS_MAX) {
            let state = self.state.read();
            let is_gone =
                |m: &&RecordMeta| !is_retained(&state, compact_revision, m.id, &m.key, m.put.is_some());
            gone.extend(some.iter().filter(is_gone).map(|m| m.id));
        }
        gone
    }

    /// Those of the records that are retained.
    pub(crate) fn filter(&self, mut records: Vec<Record>) -> Vec<Record> {
        let Some(compact_revision) = self.compact_revision else { return records };
        if records.first().is_none_or(|r| r.id.revision > compact_revision) {
            return records;
        }
        let mut kept = Vec::with_capacity(records.len());
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(LOCK_KEYS_MAX));
            let state = self.state.read();
            kept.extend(records.into_iter().filter(|r| {
                let is_put = matches!(r.change, Change::Put(_));
                is_retained(&state, compact_revision, r.id, &r.key, is_put)
            }));
            records = rest;
        }
        kept
    }
}

fn is_retained(state: &State, compact_revision: Revision, id: RecordId, key: &Bytes, is_put: bool) -> bool {
    if id.revision > compact_revision {
        return true;
    }
    if !is_put {
        return id.revision == compact_revision;
    }
    let range = KeyRange { start: key.clone(), end: RangeEnd::Single };
    let alive = state.chunk(&range, None, compact_revision, 1);
    alive.keys.first().is_some_and(|key| key.id == id)
}
