//! A store in memory: for tests, for small things, for what may be lost.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::cow::{Asked, Cow, Decision, View};
use super::error::StoreError;
use super::item::{Change, Item, Items, Page, Removed};
use super::limits::Limits;
use super::selector::Selection;
use super::storage::{Conditions, Expect, Lifetime, Storage, StorageWatch, check_behind, check_key};
use crate::read::ReadLevel;

/// Changes that a watch takes from the store at once.
const BATCH: usize = 64;

/// A [`Storage`] in memory. Clones share what is in it. No I/O, no threads; what is written is gone with the last clone.
///
/// It remembers [`Limits::changes_max`] changes: that is how far reads of the past and watches that resume reach back.
#[derive(Clone)]
pub struct MemoryStorage {
    cow: Arc<Cow<Bytes>>,
}

impl MemoryStorage {
    /// An empty store with the usual limits.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// An empty store.
    pub fn with_limits(limits: Limits) -> Self {
        Self { cow: Arc::new(Cow::new(limits, true)) }
    }

    /// The version that a read sees.
    fn view(&self, level: ReadLevel) -> Result<Arc<View<Bytes>>, StoreError<Bytes>> {
        match level {
            ReadLevel::Any | ReadLevel::Linearizable => Ok(self.cow.view()),
            ReadLevel::AtLeast(wanted) => {
                let view = self.cow.view();
                let current = view.version();
                if current < wanted {
                    return Err(StoreError::FutureRevision { wanted, current });
                }
                Ok(view)
            }
            ReadLevel::Exact(wanted) => self.cow.view_at(wanted).map_err(|asked| refusal(wanted, &asked)),
        }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.cow.view();
        f.debug_struct("MemoryStorage")
            .field("objects", &view.len())
            .field("version", &view.version())
            .finish_non_exhaustive()
    }
}

pub(crate) fn refusal<V>(wanted: u64, asked: &Asked) -> StoreError<V> {
    match *asked {
        Asked::Compacted { oldest } => StoreError::Compacted { wanted, oldest },
        Asked::Future { current } => StoreError::FutureRevision { wanted, current },
    }
}

/// Whether the conditions hold of what is there.
fn holds(expect: Expect, current: Option<&Item<Bytes>>) -> bool {
    match expect {
        Expect::Anything => true,
        Expect::Missing | Expect::Version(0) => current.is_none(),
        Expect::Present => current.is_some(),
        Expect::Version(version) => current.is_some_and(|item| item.version == version),
    }
}

fn check(expect: Expect, key: &Bytes, current: Option<&Item<Bytes>>) -> Result<(), StoreError<Bytes>> {
    if !holds(expect, current) {
        return Err(StoreError::Conflict { key: key.clone(), current: current.cloned().map(Box::new) });
    }
    Ok(())
}

impl Storage for MemoryStorage {
    type Watch = MemoryWatch<Bytes>;

    fn backend(&self) -> &'static str {
        "memory"
    }

    async fn wait(&self, version: u64, time_max: Duration) -> Result<u64, StoreError<Bytes>> {
        let mut versions = self.cow.versions();
        let reached = tokio::time::timeout(time_max, versions.wait_for(|current| *current >= version)).await;
        match reached {
            Ok(Ok(current)) => Ok(*current),
            // The store is borrowed, so its end cannot come before.
            Ok(Err(_)) | Err(_) => {
                Err(StoreError::FutureRevision { wanted: version, current: self.cow.view().version() })
            }
        }
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        conditions: Conditions,
    ) -> Result<Item<Bytes>, StoreError<Bytes>> {
        check_key(&key)?;
        if let Some(reason) = conditions.fault() {
            return Err(StoreError::Invalid { reason });
        }
        if matches!(conditions.lifetime, Lifetime::Lease(_) | Lifetime::Ttl(_)) {
            return Err(StoreError::Invalid { reason: "a store in memory has no leases" });
        }
        let bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let written = self.cow.write(&key, |current, _| {
            check(conditions.expect, &key, current)?;
            Ok::<_, StoreError<Bytes>>(Decision::Put(value, bytes))
        })?;
        Ok(written.current.expect("what was put is there"))
    }

    async fn delete(&self, key: Bytes, conditions: Conditions) -> Result<Removed<Bytes>, StoreError<Bytes>> {
        check_key(&key)?;
        let written = self.cow.write(&key, |current, at| {
            if current.is_none() && !matches!(conditions.expect, Expect::Version(1..)) {
                return Err(StoreError::NotFound { key: key.clone(), at });
            }
            check(conditions.expect, &key, current)?;
            Ok(Decision::Delete)
        })?;
        Ok(Removed { item: written.previous.expect("what was deleted was there"), at: written.version })
    }

    async fn get(&self, key: Bytes, level: ReadLevel) -> Result<Item<Bytes>, StoreError<Bytes>> {
        check_key(&key)?;
        let (item, at) = match level {
            ReadLevel::Any | ReadLevel::Linearizable => self.cow.get(&key),
            ReadLevel::AtLeast(_) | ReadLevel::Exact(_) => {
                let view = self.view(level)?;
                (view.get(&key).cloned(), view.version())
            }
        };
        item.ok_or(StoreError::NotFound { key, at })
    }

    async fn list(
        &self,
        prefix: Bytes,
        level: ReadLevel,
        selection: Selection<Bytes>,
    ) -> Result<Items<Bytes>, StoreError<Bytes>> {
        if let Some(reason) = selection.fault() {
            return Err(StoreError::Invalid { reason });
        }
        let view = self.view(level)?;
        let items = view.prefix(&prefix).filter(|item| selection.matches(item)).cloned().collect();
        Ok(Items { items, version: view.version(), server_side: true })
    }

    async fn page(
        &self,
        prefix: Bytes,
        behind: Option<Bytes>,
        limit: usize,
        level: ReadLevel,
    ) -> Result<Page<Bytes>, StoreError<Bytes>> {
        check_behind(&prefix, behind.as_ref())?;
        let view = self.view(level)?;
        let mut rest = view.prefix_behind(&prefix, behind.as_deref());
        let items = rest.by_ref().take(limit.max(1)).cloned().collect();
        let more = rest.next().is_some();
        drop(rest);
        Ok(Page { items, version: view.version(), more })
    }

    async fn count(&self, prefix: Bytes, level: ReadLevel) -> Result<u64, StoreError<Bytes>> {
        let view = self.view(level)?;
        let count = if prefix.is_empty() { view.len() } else { view.prefix(&prefix).count() };
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    async fn watch_prefix(
        &self,
        prefix: Bytes,
        after: Option<u64>,
        selection: Selection<Bytes>,
    ) -> Result<MemoryWatch<Bytes>, StoreError<Bytes>> {
        if let Some(reason) = selection.fault() {
            return Err(StoreError::Invalid { reason });
        }
        MemoryWatch::new(&self.cow, prefix, after, selection)
    }
}

/// A watch of a store in memory: a place in the ring of its changes. A watch that is read too slowly loses its place, and
/// ends as compacted; it never holds a writer up, and no memory of its own but for a batch.
pub struct MemoryWatch<V> {
    cow: Arc<Cow<V>>,
    versions: watch::Receiver<u64>,
    prefix: Bytes,
    selection: Selection<V>,
    /// Changes up to this version were taken.
    after: u64,
    batch: VecDeque<Arc<Change<V>>>,
    has_ended: bool,
}

impl<V: Clone + Send + Sync + 'static> MemoryWatch<V> {
    /// Errors: [`StoreError::Compacted`].
    pub(crate) fn new(
        cow: &Arc<Cow<V>>,
        prefix: Bytes,
        after: Option<u64>,
        selection: Selection<V>,
    ) -> Result<Self, StoreError<V>> {
        let versions = cow.versions();
        let after = after.unwrap_or_else(|| cow.view().version());
        cow.changes(after, 1).map_err(|asked| refusal(after, &asked))?;
        let (cow, batch) = (Arc::clone(cow), VecDeque::new());
        Ok(Self { cow, versions, prefix, selection, after, batch, has_ended: false })
    }

    /// What is known already.
    fn take(&mut self) -> Option<Result<Change<V>, StoreError<V>>> {
        loop {
            while let Some(change) = self.batch.pop_front() {
                let is_here = change.key.starts_with(&self.prefix);
                let seen = is_here.then(|| (*change).clone().seen_by(|item| self.selection.matches(item)));
                if let Some(seen) = seen.flatten() {
                    return Some(Ok(seen));
                }
            }
            match self.cow.changes(self.after, BATCH) {
                Ok(changes) => {
                    self.after = changes.last()?.version;
                    self.batch.extend(changes);
                }
                Err(asked) => {
                    self.has_ended = true;
                    return Some(Err(refusal(self.after, &asked)));
                }
            }
        }
    }
}

impl<V: Clone + Send + Sync + 'static> StorageWatch<V> for MemoryWatch<V> {
    async fn next(&mut self) -> Option<Result<Change<V>, StoreError<V>>> {
        loop {
            if self.has_ended {
                return None;
            }
            // Noted before the look, so that what comes after the look is waited for.
            self.versions.borrow_and_update();
            if let Some(change) = self.take() {
                return Some(change);
            }
            if self.versions.changed().await.is_err() {
                // Not while this watch has the store.
                return None;
            }
        }
    }

    fn server_side(&self) -> bool {
        true
    }
}
