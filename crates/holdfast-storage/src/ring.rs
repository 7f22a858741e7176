//! The newest changes, in memory and in order: what watches near the head read.
//!
//! The ring holds every change from one revision on, whole revisions without a gap. The sequencer adds to it before it
//! opens the gate: so whatever is visible is here or in the stable store. Only what the stable store holds ever leaves
//! it, whatever the dispatcher does meanwhile, so its bytes are bounded by the larger of its own limit and what the
//! memtable budget lets wait. Its records are those of the memtables, not copies.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_mvcc::types::{Change, PutRecord, RecordId, Revision};
use parking_lot::Mutex;

use crate::record::Stored;

/// The newest changes. One belongs to each view's state: an install begins a new one.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Pushed to by the sequencer, told what is stored by the committer, paged through by readers.
    inner: Mutex<Inner>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Inner {
    /// Ascending.
    records: VecDeque<Arc<Stored>>,
    /// Every change from this revision on is here.
    from: Revision,
    /// The stable store holds everything up to here.
    stored: Revision,
    bytes: usize,
}

impl Ring {
    /// For changes behind `newest`, all of which the stable store holds.
    pub(crate) fn behind(newest: Revision, bytes_max: usize) -> Arc<Self> {
        let inner = Inner { records: VecDeque::new(), from: newest.next(), stored: newest, bytes: 0 };
        Arc::new(Self { inner: Mutex::new(inner), bytes_max })
    }

    /// Adds whole revisions, which follow those that are here.
    pub(crate) fn push(&self, records: &[Arc<Stored>]) {
        let mut inner = self.inner.lock();
        for stored in records {
            let last = inner.records.back().map(|last| last.record.id);
            assert!(last < Some(stored.record.id), "changes ascend");
            inner.bytes += stored.bytes();
            inner.records.push_back(Arc::clone(stored));
        }
        inner.shrink(self.bytes_max);
    }

    /// The stable store now holds everything up to this revision.
    pub(crate) fn stored(&self, through: Revision) {
        let mut inner = self.inner.lock();
        assert!(inner.stored <= through, "the stable store never steps back");
        inner.stored = through;
        inner.shrink(self.bytes_max);
    }

    /// Every change from this revision on is here.
    pub(crate) fn from(&self) -> Revision {
        self.inner.lock().from
    }

    /// The put with this id, when it is here.
    pub(crate) fn put(&self, id: RecordId) -> Option<PutRecord> {
        let inner = self.inner.lock();
        let place = inner.records.binary_search_by_key(&id, |stored| stored.record.id).ok()?;
        match &inner.records[place].record.change {
            Change::Put(put) => Some(put.clone()),
            Change::Delete => None,
        }
    }

    /// The puts with these ids, ascending, as far as they are here, each with what came with its id: for many of them less than
    /// one by one.
    pub(crate) fn puts<T>(
        &self,
        ids: impl Iterator<Item = (RecordId, T)>,
        mut found: impl FnMut(T, PutRecord),
    ) {
        let inner = self.inner.lock();
        let mut from = 0;
        for (id, of_whom) in ids {
            // Neighbours in the list are mostly neighbours here: the steps from the last one grow.
            let is_before = |place: usize| inner.records[place].record.id < id;
            let (mut step, mut end) = (1, from);
            while end < inner.records.len() && is_before(end) {
                from = end + 1;
                end += step;
                step *= 2;
            }
            end = end.min(inner.records.len());
            while from < end {
                let middle = from + (end - from) / 2;
                if is_before(middle) {
                    from = middle + 1;
                } else {
                    end = middle;
                }
            }
            if let Some(stored) = inner.records.get(from)
                && stored.record.id == id
                && let Change::Put(put) = &stored.record.change
            {
                found(of_whom, put.clone());
            }
        }
    }

    /// The next changes from `next` on, at most so many; `None` when some of them have left.
    pub(crate) fn page(&self, next: RecordId, records_max: usize) -> Option<Vec<Arc<Stored>>> {
        let inner = self.inner.lock();
        if next.revision < inner.from {
            return None;
        }
        let start = inner.records.partition_point(|stored| stored.record.id < next);
        let end = inner.records.len().min(start + records_max);
        Some(inner.records.range(start..end).cloned().collect())
    }
}

impl Inner {
    /// Lets the oldest revisions go while there is too much, as far as they are stored.
    fn shrink(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.records.front()
            && oldest.record.id.revision <= self.stored
        {
            // The rest of its revision goes on, too: its first change decides what is complete.
            self.from = oldest.record.id.revision.next();
            self.bytes -= oldest.bytes();
            self.records.pop_front();
            while let Some(rest) = self.records.front()
                && rest.record.id.revision < self.from
            {
                self.bytes -= rest.bytes();
                self.records.pop_front();
            }
        }
    }
}
