//! What is visible and waits for the committer. Bounded by the memtable budget: the dispatcher holds entries back.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_mvcc::types::LeaseChange;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::control::{CommitPosition, Fence};
use crate::limits::{COMMIT_BYTES, COMMIT_LEASES_MAX, SLICE_LEASES_MAX};
use crate::memtable::Memtable;
use crate::record::Stored;

/// Slices and fences in log order, from the sequencer to the committer.
#[derive(Default)]
pub(crate) struct Backlog {
    inner: Mutex<Inner>,
    /// Wakes the committer.
    notify: Notify,
}

#[derive(Default)]
struct Inner {
    items: VecDeque<Item>,
    /// Of the slices before the first fence.
    load: Load,
    fences: usize,
    closed: bool,
}

/// How much slices are together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// What they were accounted with.
    pub(crate) bytes: usize,
    /// Changes of leases.
    leases: usize,
}

impl Load {
    /// True when a commit should not wait for more.
    pub(crate) fn is_full(self) -> bool {
        self.bytes >= COMMIT_BYTES || self.leases + SLICE_LEASES_MAX > COMMIT_LEASES_MAX
    }

    fn add(&mut self, slice: &ReadySlice) {
        self.bytes += slice.bytes;
        self.leases += slice.leases.len();
    }

    fn remove(&mut self, other: Self) {
        self.bytes -= other.bytes;
        self.leases -= other.leases;
    }
}

enum Item {
    Slice(ReadySlice),
    Fence(Fence),
}

/// A visible slice with its records.
pub(crate) struct ReadySlice {
    /// Its records, ascending.
    pub(crate) records: Vec<Arc<Stored>>,
    /// What became of leases, in order.
    pub(crate) leases: Vec<LeaseChange>,
    /// Where they are until they are committed.
    pub(crate) memtable: Arc<Memtable>,
    /// The position behind them.
    pub(crate) position: CommitPosition,
    /// What they were accounted with.
    pub(crate) bytes: usize,
}

/// What waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    /// How much waits before the first fence.
    pub(crate) load: Load,
    /// True when slices wait before the first fence.
    pub(crate) slices: bool,
    /// True when a fence waits.
    pub(crate) fence: bool,
    /// True when nothing more will come.
    pub(crate) closed: bool,
}

impl Backlog {
    /// Adds a slice. Wakes the committer when it is the first one, or completes what a commit waits for: in between
    /// the committer lingers by its own timer, and a wake-up for each slice costs more than the slice.
    pub(crate) fn push_slice(&self, slice: ReadySlice) {
        let mut inner = self.inner.lock();
        let (was_empty, before) = (inner.items.is_empty(), inner.load);
        if inner.fences == 0 {
            inner.load.add(&slice);
        }
        let completes = !before.is_full() && inner.load.is_full();
        inner.items.push_back(Item::Slice(slice));
        drop(inner);
        if was_empty || completes {
            self.notify.notify_one();
        }
    }

    /// Adds a fence.
    pub(crate) fn push_fence(&self, fence: Fence) {
        let mut inner = self.inner.lock();
        inner.fences += 1;
        inner.items.push_back(Item::Fence(fence));
        drop(inner);
        self.notify.notify_one();
    }

    /// With a planted fault only: puts a fence before what waits.
    pub(crate) fn push_fence_first(&self, fence: Fence) {
        let mut inner = self.inner.lock();
        inner.fences += 1;
        inner.load = Load::default();
        inner.items.push_front(Item::Fence(fence));
        drop(inner);
        self.notify.notify_one();
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.notify.notify_one();
    }

    /// Wakes the committer for another reason.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Resolves after the next push that matters, close or wake; one that came before counts.
    pub(crate) async fn changed(&self) {
        self.notify.notified().await;
    }

    /// What waits now.
    pub(crate) fn waiting(&self) -> Waiting {
        let inner = self.inner.lock();
        Waiting {
            load: inner.load,
            slices: matches!(inner.items.front(), Some(Item::Slice(_))),
            fence: inner.fences > 0,
            closed: inner.closed,
        }
    }

    /// Takes slices before the first fence, of about `bytes_max` together, at least one when there is one; never of more
    /// than [`COMMIT_LEASES_MAX`] changes of leases.
    pub(crate) fn take_slices(&self, bytes_max: usize) -> Vec<ReadySlice> {
        let mut inner = self.inner.lock();
        let mut taken = Vec::new();
        let mut load = Load::default();
        while let Some(Item::Slice(slice)) = inner.items.front() {
            let mut with = load;
            with.add(slice);
            if !taken.is_empty() && (with.bytes > bytes_max || with.leases > COMMIT_LEASES_MAX) {
                break;
            }
            load = with;
            let Some(Item::Slice(slice)) = inner.items.pop_front() else { break };
            taken.push(slice);
        }
        inner.load.remove(load);
        taken
    }

    /// Takes the fence at the front, if there is one.
    pub(crate) fn take_fence(&self) -> Option<Fence> {
        let mut inner = self.inner.lock();
        if !matches!(inner.items.front(), Some(Item::Fence(_))) {
            return None;
        }
        let Some(Item::Fence(fence)) = inner.items.pop_front() else { return None };
        inner.fences -= 1;
        let mut load = Load::default();
        for item in &inner.items {
            let Item::Slice(slice) = item else { break };
            load.add(slice);
        }
        inner.load = load;
        Some(fence)
    }

    /// Drops everything that waits, and returns how many bytes that was. For a store that can take nothing any more.
    pub(crate) fn clear(&self) -> usize {
        let mut inner = self.inner.lock();
        let slices = inner.items.iter().map(|item| match item {
            Item::Slice(slice) => slice.bytes,
            Item::Fence(_) => 0,
        });
        let bytes = slices.sum();
        inner.items.clear();
        inner.load = Load::default();
        inner.fences = 0;
        bytes
    }
}
