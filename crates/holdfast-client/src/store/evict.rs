//! Which object goes first when a store in memory is full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::limits::WhenFull;

/// When an object was used last, in ticks of its store's [`Order`].
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicU64);

/// The objects in the order in which they go. Written under the store's writer lock; readers only touch marks.
pub(super) struct Order {
    when_full: WhenFull,
    /// By the tick of each object's place. The object's mark may be newer: it is moved when its turn comes.
    places: BTreeMap<u64, (Bytes, Arc<Mark>)>,
}

impl Order {
    pub(super) fn new(when_full: WhenFull) -> Self {
        Self { when_full, places: BTreeMap::new() }
    }

    /// A place at the end for an object that was just written. `None` when nothing is ever evicted. The place of its
    /// older self stays behind, and is skipped when its turn comes, as the mark in it is not the object's any more.
    pub(super) fn place(&mut self, key: &Bytes, clock: &AtomicU64) -> Option<Arc<Mark>> {
        if self.when_full == WhenFull::Reject {
            return None;
        }
        let tick = clock.fetch_add(1, Ordering::Relaxed);
        let mark = Arc::new(Mark(AtomicU64::new(tick)));
        self.places.insert(tick, (key.clone(), Arc::clone(&mark)));
        Some(mark)
    }

    /// Places that are kept, of objects and of their older selves.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Removes places that `is_current` denies.
    pub(super) fn sweep(&mut self, is_current: impl Fn(&Bytes, &Arc<Mark>) -> bool) {
        self.places.retain(|_, (key, mark)| is_current(key, mark));
    }

    /// The object that goes next. `None` when there is none.
    pub(super) fn next(&mut self, is_current: impl Fn(&Bytes, &Arc<Mark>) -> bool) -> Option<Bytes> {
        while let Some((place, (key, mark))) = self.places.pop_first() {
            if !is_current(&key, &mark) {
                continue;
            }
            let used = mark.0.load(Ordering::Relaxed);
            if used > place {
                // Read since it was put here: it waits where that belongs. Ticks are unique, so nobody is there.
                self.places.insert(used, (key, mark));
                continue;
            }
            return Some(key);
        }
        None
    }
}

impl Mark {
    /// Notes that the object was read.
    pub(super) fn touch(&self, clock: &AtomicU64) {
        self.0.fetch_max(clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }
}
