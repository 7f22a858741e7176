//! The heart of the stores in memory: an ordered map of which each version is a value that shares what did not change.
//!
//! A reader takes the newest version, which is a pointer, and keeps it as long as it likes: no write waits for it, and it
//! waits for no write. A writer makes the next version beside it, in O(log n), under a lock that only writers take.
//!
//! ```text
//!   writers ── lock ── next version ──┐ swap        readers ── load ── newest version
//!                        shares all but the path    watches ── ring of changes, by version
//! ```
//!
//! # Invariants
//! - Versions ascend by one for each change; an empty store begins at [`FIRST`], as etcd does.
//! - A change is in the ring when its version can be read, and can be read when it is in the ring: both become so under the
//!   ring's lock.

use std::ops::Bound;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rpds::RedBlackTreeMapSync;
use tokio::sync::watch;

use super::evict::{Mark, Order};
use super::item::{Change, ChangeKind, Item};
use super::limits::{Limit, Limits, TooLarge, WhenFull};
use super::ring::Ring;

/// The version of a store to which nothing was written.
pub(crate) const FIRST: u64 = 1;

/// Places of older selves that are kept before they are swept, beside one for each object.
const STALE_PLACES_MAX: usize = 1_024;

const LOCK: &str = "nobody panics with this lock";

/// A store in memory.
pub(crate) struct Cow<V> {
    limits: Limits,
    keeps_states: bool,
    newest: ArcSwap<View<V>>,
    /// Taken by writers, for as long as a write takes; before the ring's.
    writer: Mutex<Order>,
    /// Taken by writers and by watches, for a handful of pushes or copies.
    ring: Mutex<Ring<V>>,
    latest: watch::Sender<u64>,
    /// Ticks of the order of evictions.
    clock: AtomicU64,
}

/// One version of the store.
pub(crate) struct View<V> {
    entries: RedBlackTreeMapSync<Bytes, Entry<V>>,
    version: u64,
    bytes: u64,
}

/// An object, and what the store knows about it beside.
pub(crate) struct Entry<V> {
    item: Item<V>,
    bytes: u64,
    mark: Option<Arc<Mark>>,
}

/// What a write does, decided while nobody else writes.
pub(crate) enum Decision<V> {
    /// Puts this, of so many encoded bytes.
    Put(V, u64),
    /// Deletes the key, which exists.
    Delete,
}

/// What a write came to.
pub(crate) struct Written<V> {
    pub(crate) previous: Option<Item<V>>,
    /// None after a deletion.
    pub(crate) current: Option<Item<V>>,
    pub(crate) version: u64,
}

/// Versions behind a point, or what is wrong with asking for them.
pub(crate) enum Asked {
    /// It is forgotten; this is the oldest that is known.
    Compacted { oldest: u64 },
    /// It is not there yet.
    Future { current: u64 },
}

impl<V> View<V> {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Item<V>> {
        self.entries.get(key).map(|entry| &entry.item)
    }

    /// In the order of the keys.
    pub(crate) fn prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a Item<V>> {
        self.prefix_behind(prefix, None)
    }

    /// In the order of the keys, those behind one.
    pub(crate) fn prefix_behind<'a>(
        &'a self,
        prefix: &'a [u8],
        behind: Option<&'a [u8]>,
    ) -> impl Iterator<Item = &'a Item<V>> {
        let from = match behind {
            Some(behind) if behind >= prefix => Bound::Excluded(behind),
            Some(_) | None => Bound::Included(prefix),
        };
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (from, Bound::Unbounded);
        let items = self.entries.range::<[u8], _>(range).map(|(_, entry)| &entry.item);
        items.take_while(move |item| item.key.starts_with(prefix))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.size()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_current(&self, key: &Bytes, mark: &Arc<Mark>) -> bool {
        let own = self.entries.get(key).and_then(|entry| entry.mark.as_ref());
        own.is_some_and(|own| Arc::ptr_eq(own, mark))
    }
}

impl<V: Clone> Cow<V> {
    /// An empty store. `keeps_states` lets the past be read, as far as changes are remembered.
    pub(crate) fn new(limits: Limits, keeps_states: bool) -> Self {
        let view = Arc::new(View { entries: RedBlackTreeMapSync::new_sync(), version: FIRST, bytes: 0 });
        let mut ring = Ring::new(limits.changes_max);
        if keeps_states {
            ring.record_state(Arc::clone(&view));
        }
        Self {
            limits,
            keeps_states,
            newest: ArcSwap::new(view),
            writer: Mutex::new(Order::new(limits.when_full)),
            ring: Mutex::new(ring),
            latest: watch::Sender::new(FIRST),
            clock: AtomicU64::new(1),
        }
    }

    /// The newest version.
    pub(crate) fn view(&self) -> Arc<View<V>> {
        self.newest.load_full()
    }

    /// An object by its key, with the version of which it is true; its use is noted.
    pub(crate) fn get(&self, key: &[u8]) -> (Option<Item<V>>, u64) {
        let view = self.newest.load();
        let entry = view.entries.get(key);
        if self.limits.when_full == WhenFull::EvictLru
            && let Some(mark) = entry.and_then(|entry| entry.mark.as_ref())
        {
            mark.touch(&self.clock);
        }
        (entry.map(|entry| entry.item.clone()), view.version)
    }

    /// The store as it was at a version.
    pub(crate) fn view_at(&self, version: u64) -> Result<Arc<View<V>>, Asked> {
        let ring = self.ring.lock().expect(LOCK);
        let newest = self.newest.load_full();
        if version > newest.version {
            return Err(Asked::Future { current: newest.version });
        }
        if version == newest.version {
            return Ok(newest);
        }
        ring.state(version).map_err(|oldest| Asked::Compacted { oldest: oldest.max(FIRST) })
    }

    /// At most `max` changes behind a version. Empty when there is none yet.
    pub(crate) fn changes(&self, after: u64, max: usize) -> Result<Vec<Arc<Change<V>>>, Asked> {
        let ring = self.ring.lock().expect(LOCK);
        ring.after(after, max).map_err(|oldest| Asked::Compacted { oldest })
    }

    /// Shows the version of the store, and when it grows.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// Decides about a key and does so, while nobody else writes.
    ///
    /// Errors: those of `decide`; no room.
    pub(crate) fn write<E: From<TooLarge>>(
        &self,
        key: &Bytes,
        decide: impl FnOnce(Option<&Item<V>>, u64) -> Result<Decision<V>, E>,
    ) -> Result<Written<V>, E> {
        let mut order = self.writer.lock().expect(LOCK);
        let view = self.newest.load_full();
        let previous = view.get(key).cloned();
        match decide(previous.as_ref(), view.version)? {
            Decision::Put(value, bytes) => {
                let mut steps = self.make_room(&mut order, &view, key, bytes)?;
                let base = steps.last().map_or(&view, |(next, _)| next);
                let created = previous.as_ref().map_or(base.version + 1, |item| item.created);
                let mark = order.place(key, &self.clock);
                let step = base.with(key, value, created, bytes, mark);
                let current = step.1.current.clone();
                let version = step.0.version;
                steps.push(step);
                self.publish(&mut order, steps);
                Ok(Written { previous, current, version })
            }
            Decision::Delete => {
                let step = view.without(key, ChangeKind::Deleted).expect("only what exists is deleted");
                let version = step.0.version;
                self.publish(&mut order, vec![step]);
                Ok(Written { previous, current: None, version })
            }
        }
    }

    /// What has to go, step by step, so that an object of so many bytes has room at `key`.
    fn make_room(
        &self,
        order: &mut Order,
        view: &Arc<View<V>>,
        key: &Bytes,
        bytes: u64,
    ) -> Result<Vec<Step<V>>, TooLarge> {
        let limits = &self.limits;
        let own = bytes.saturating_add(length(key));
        check(Limit::ObjectBytes, bytes, limits.object_bytes_max)?;
        // More than all that could go.
        check(Limit::Bytes, own, limits.bytes_max)?;
        check(Limit::Objects, 1, limits.objects_max)?;
        let mut steps: Vec<Step<V>> = Vec::new();
        loop {
            let base = steps.last().map_or(view, |(next, _)| next);
            let replaced = base.entries.get(key);
            let objects = base.entries.size() + usize::from(replaced.is_none());
            let total = base.bytes - replaced.map_or(0, |entry| entry.bytes) + own;
            let room = check(Limit::Objects, u64::try_from(objects).unwrap_or(u64::MAX), limits.objects_max)
                .and_then(|()| check(Limit::Bytes, total, limits.bytes_max));
            let Err(full) = room else { return Ok(steps) };
            // The key itself is about to be written, so it is not what was used least: its place is taken out of the order
            // when it comes up.
            let next = order.next(|other, mark| other != key && base.is_current(other, mark));
            let Some(gone) = next.filter(|_| limits.when_full != WhenFull::Reject) else { return Err(full) };
            let step = base.without(&gone, ChangeKind::Evicted).expect("what is in the order exists");
            steps.push(step);
        }
    }

    fn publish(&self, order: &mut Order, steps: Vec<Step<V>>) {
        let Some(last) = steps.last().map(|(view, _)| Arc::clone(view)) else { return };
        if order.len() > last.entries.size() * 2 + STALE_PLACES_MAX {
            order.sweep(|key, mark| last.is_current(key, mark));
        }
        let version = last.version;
        let mut ring = self.ring.lock().expect(LOCK);
        for (view, change) in steps {
            ring.record(change);
            if self.keeps_states {
                ring.record_state(view);
            }
        }
        self.swap(&ring, last);
        drop(ring);
        self.latest.send_replace(version);
    }

    /// With the ring's lock held: who sees a change in the ring finds it in the newest version, and the other way around.
    fn swap(&self, _ring: &MutexGuard<'_, Ring<V>>, next: Arc<View<V>>) {
        self.newest.store(next);
    }

    /// Replaces all objects whose keys begin so, as one change. They keep their versions when nothing was ever written to
    /// the store; otherwise all of them change now, so that no version goes backwards. Who watches is told that it lost
    /// sight.
    ///
    /// Errors: no room; nothing has changed then.
    pub(crate) fn replace(
        &self,
        prefix: &[u8],
        version: u64,
        items: Vec<(Item<V>, u64)>,
    ) -> Result<u64, TooLarge> {
        let mut order = self.writer.lock().expect(LOCK);
        let before = self.newest.load_full();
        let is_new = before.version == FIRST;
        let version = if is_new { version.max(FIRST) } else { before.version.max(version) + 1 };
        let mut entries = before.entries.clone();
        let mut total = before.bytes;
        for item in before.prefix(prefix) {
            total -= entries.get(&item.key).map_or(0, |entry| entry.bytes);
            entries.remove_mut(&item.key);
        }
        for (mut item, bytes) in items {
            check(Limit::ObjectBytes, bytes, self.limits.object_bytes_max)?;
            if !is_new {
                (item.version, item.created) = (version, version);
            }
            let own = bytes.saturating_add(length(&item.key));
            total = total.saturating_add(own);
            check(Limit::Bytes, total, self.limits.bytes_max)?;
            // Places of what is refused in the end are skipped when their turn comes.
            let mark = order.place(&item.key, &self.clock);
            entries.insert_mut(item.key.clone(), Entry { item, bytes: own, mark });
        }
        let objects = u64::try_from(entries.size()).unwrap_or(u64::MAX);
        check(Limit::Objects, objects, self.limits.objects_max)?;
        let view = Arc::new(View { entries, version, bytes: total });
        let mut ring = self.ring.lock().expect(LOCK);
        ring.forget(self.keeps_states.then(|| Arc::clone(&view)), version);
        self.swap(&ring, view);
        drop(ring);
        self.latest.send_replace(version);
        Ok(version)
    }
}

/// A next version, and how it differs from the one before.
type Step<V> = (Arc<View<V>>, Change<V>);

impl<V: Clone> View<V> {
    fn with(&self, key: &Bytes, value: V, created: u64, bytes: u64, mark: Option<Arc<Mark>>) -> Step<V> {
        let version = self.version + 1;
        let item = Item { key: key.clone(), value, version, created, is_stale: false };
        let replaced = self.entries.get(key);
        let own = bytes + length(key);
        let change = Change {
            kind: if replaced.is_some() { ChangeKind::Modified } else { ChangeKind::Created },
            key: key.clone(),
            version,
            current: Some(item.clone()),
            previous: replaced.map(|entry| entry.item.clone()),
        };
        let bytes = self.bytes - replaced.map_or(0, |entry| entry.bytes) + own;
        let entries = self.entries.insert(key.clone(), Entry { item, bytes: own, mark });
        (Arc::new(Self { entries, version, bytes }), change)
    }

    fn without(&self, key: &Bytes, kind: ChangeKind) -> Option<Step<V>> {
        let gone = self.entries.get(key)?;
        let version = self.version + 1;
        let previous = Some(gone.item.clone());
        let change = Change { kind, key: key.clone(), version, current: None, previous };
        let view = Self { entries: self.entries.remove(key), version, bytes: self.bytes - gone.bytes };
        Some((Arc::new(view), change))
    }
}

fn check(limit: Limit, wanted: u64, max: u64) -> Result<(), TooLarge> {
    if wanted > max { Err(TooLarge { limit, wanted, max }) } else { Ok(()) }
}

fn length(key: &Bytes) -> u64 {
    u64::try_from(key.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
