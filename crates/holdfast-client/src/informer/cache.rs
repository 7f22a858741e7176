//! The state of a range, moved on revision by revision. No clock, no task: updates in, changes out.
//!
//! # Invariants
//! - The revision only grows. An update that is not newer is refused, so that nothing is applied twice or backwards.
//! - All updates of a revision become visible in one [`Snapshot`].
//! - The digest is that of the entries.

use std::sync::Arc;

use super::change::{Change, Sight};
use super::digest::Digest;
use super::index::{Index, Indexer};
use super::object::Entry;
use super::snapshot::{Snapshot, differences};
use super::tree::Tree;

/// An index is built anew when a list changes more than one of so many objects.
const REBUILD_PART: usize = 8;

/// The state of a range.
#[derive(Debug)]
pub(super) struct Cache<T> {
    current: Arc<Snapshot<T>>,
}

/// What a revision does to a key.
pub(super) enum Update<T> {
    Set(Entry<T>),
    Delete(bytes::Bytes),
}

/// The revision is one that the cache has already, or is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {given} is not newer than {known}, which is known")]
pub(super) struct NotNewer {
    pub(super) given: u64,
    pub(super) known: u64,
}

impl<T> Cache<T> {
    pub(super) fn new(indexers: Arc<[Indexer<T>]>) -> Self {
        Self { current: Arc::new(Snapshot::empty(indexers)) }
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot<T>> {
        &self.current
    }

    fn revision(&self) -> u64 {
        self.current.revision
    }

    /// Applies all updates of a revision.
    ///
    /// Errors: it is not newer; nothing has changed then.
    pub(super) fn apply(
        &mut self,
        revision: u64,
        updates: Vec<Update<T>>,
    ) -> Result<Vec<Change<T>>, NotNewer> {
        self.check_newer(revision)?;
        let mut next = Snapshot::clone(&self.current);
        next.revision = revision;
        let changes = updates.into_iter().filter_map(|update| next.update(update)).collect();
        self.current = Arc::new(next);
        Ok(changes)
    }

    /// All up to this revision is known: nothing has happened in between.
    ///
    /// Errors: it is not newer.
    pub(super) fn advance(&mut self, revision: u64) -> Result<(), NotNewer> {
        self.apply(revision, Vec::new()).map(drop)
    }

    /// Takes a list of all keys, which ascend, as of a revision. What is the same is no change.
    ///
    /// Errors: it is older than what is known; nothing has changed then.
    pub(super) fn replace(
        &mut self,
        revision: u64,
        entries: Vec<Entry<T>>,
    ) -> Result<Vec<Change<T>>, NotNewer> {
        if revision < self.revision() {
            return Err(NotNewer { given: revision, known: self.revision() });
        }
        let before = Arc::clone(&self.current);
        let mut next = before.listed(revision, entries);
        let differing: Vec<_> = differences(before.entries.iter(), next.entries.iter())
            .map(|(before, after)| (before.cloned(), after.cloned()))
            .collect();
        if differing.len() > before.entries.len() / REBUILD_PART {
            next.rebuild_indexes();
        } else {
            for (before, after) in &differing {
                next.reindex(before.as_ref(), after.as_ref());
            }
        }
        self.current = Arc::new(next);
        let changes = differing.into_iter().map(|(before, after)| match (before, after) {
            (before, Some(after)) => Change::set(before.as_ref(), after),
            (Some(before), None) => Change::deleted(&before, revision, Sight::Gap),
            (None, None) => unreachable!("a difference has a side"),
        });
        Ok(changes.collect())
    }

    /// As [`Cache::replace`], for a cache that nobody has read yet: each object would be a change.
    ///
    /// # Panics
    /// When it knows something.
    pub(super) fn load(&mut self, revision: u64, entries: Vec<Entry<T>>) {
        assert_eq!(self.revision(), 0, "what is known is replaced");
        let mut next = self.current.listed(revision, entries);
        next.rebuild_indexes();
        self.current = Arc::new(next);
    }

    fn check_newer(&self, revision: u64) -> Result<(), NotNewer> {
        let known = self.revision();
        if revision > known { Ok(()) } else { Err(NotNewer { given: revision, known }) }
    }
}

impl<T> Snapshot<T> {
    /// Another state, with the indexes of this one. All is counted anew: whatever was wrong with it is so no more.
    fn listed(&self, revision: u64, entries: Vec<Entry<T>>) -> Self {
        assert!(entries.is_sorted_by(|a, b| a < b), "a list ascends");
        let mut next = self.clone();
        next.revision = revision;
        (next.digest, next.unreadable) = (Digest::default(), 0);
        for entry in &entries {
            next.account(None, Some(entry));
        }
        next.entries = Tree::from_ascending(entries);
        next
    }

    fn rebuild_indexes(&mut self) {
        let indexes = self.indexers.iter().map(|indexer| Index::of(indexer, self.iter())).collect();
        self.indexes = indexes;
    }

    /// What has changed; nothing when the key is known as it is at this revision or a later one.
    fn update(&mut self, update: Update<T>) -> Option<Change<T>> {
        match update {
            Update::Set(entry) => {
                let known = self.entry(entry.key()).map(Entry::mod_revision);
                if known.is_some_and(|known| entry.mod_revision() <= known) {
                    return None;
                }
                let before = self.entries.insert(entry.clone());
                self.account(before.as_ref(), Some(&entry));
                self.reindex(before.as_ref(), Some(&entry));
                Some(Change::set(before.as_ref(), entry))
            }
            Update::Delete(key) => {
                let before = self.entries.remove(|entry| entry.key().cmp(&key))?;
                self.account(Some(&before), None);
                self.reindex(Some(&before), None);
                Some(Change::deleted(&before, self.revision, Sight::Seen))
            }
        }
    }

    /// Counts one in the place of another.
    fn account(&mut self, before: Option<&Entry<T>>, after: Option<&Entry<T>>) {
        if let Some(entry) = before {
            self.digest.take_hashed(entry.key(), entry.mod_revision(), entry.value_hash());
            self.unreadable -= usize::from(entry.object().is_none());
        }
        if let Some(entry) = after {
            self.digest.add_hashed(entry.key(), entry.mod_revision(), entry.value_hash());
            self.unreadable += usize::from(entry.object().is_none());
        }
    }

    fn reindex(&mut self, before: Option<&Entry<T>>, after: Option<&Entry<T>>) {
        let (before, after) = (before.and_then(Entry::object), after.and_then(Entry::object));
        for (index, indexer) in self.indexes.iter_mut().zip(&*self.indexers) {
            index.change(indexer, before, after);
        }
    }
}

#[cfg(test)]
mod tests;
