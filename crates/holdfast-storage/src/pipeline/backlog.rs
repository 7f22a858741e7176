//! What is visible and waits for the committer. Bounded by the memtable budget: the dispatcher holds entries back.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::control::{CommitPosition, Fence};
use crate::limits::COMMIT_BYTES;
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
    /// Bytes of the slices before the first fence.
    bytes: usize,
    fences: usize,
    closed: bool,
}

enum Item {
    Slice(ReadySlice),
    Fence(Fence),
}

/// A visible slice with its records.
pub(crate) struct ReadySlice {
    /// Its records, ascending.
    pub(crate) records: Vec<Arc<Stored>>,
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
    /// Bytes before the first fence.
    pub(crate) bytes: usize,
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
        let (was_empty, before) = (inner.items.is_empty(), inner.bytes);
        if inner.fences == 0 {
            inner.bytes += slice.bytes;
        }
        let completes = before < COMMIT_BYTES && inner.bytes >= COMMIT_BYTES;
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
        inner.bytes = 0;
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
            bytes: inner.bytes,
            slices: matches!(inner.items.front(), Some(Item::Slice(_))),
            fence: inner.fences > 0,
            closed: inner.closed,
        }
    }

    /// Takes slices before the first fence, of about `bytes_max` together, at least one when there is one.
    pub(crate) fn take_slices(&self, bytes_max: usize) -> Vec<ReadySlice> {
        let mut inner = self.inner.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(Item::Slice(slice)) = inner.items.front() {
            if !taken.is_empty() && bytes + slice.bytes > bytes_max {
                break;
            }
            bytes += slice.bytes;
            let Some(Item::Slice(slice)) = inner.items.pop_front() else { break };
            taken.push(slice);
        }
        inner.bytes -= bytes;
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
        let next = inner.items.iter().map_while(|item| match item {
            Item::Slice(slice) => Some(slice.bytes),
            Item::Fence(_) => None,
        });
        inner.bytes = next.sum();
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
        inner.bytes = 0;
        inner.fences = 0;
        bytes
    }
}
