//! One state of a range, as of one revision.

use std::fmt;
use std::sync::Arc;

use super::change::{Change, Sight};
use super::digest::Digest;
use super::index::{Index, Indexer};
use super::object::{Entry, Object, Unreadable};
use super::tree::{Iter, Tree};

/// All objects of a range as they were at one revision. It never changes, and shares with later ones what did not change
/// in between: it can be kept as long as one likes, at the price of what has changed since.
pub struct Snapshot<T> {
    pub(super) entries: Tree<Entry<T>>,
    pub(super) indexes: Box<[Index<T>]>,
    pub(super) indexers: Arc<[Indexer<T>]>,
    pub(super) revision: u64,
    pub(super) digest: Digest,
    pub(super) unreadable: usize,
}

impl<T> Snapshot<T> {
    pub(super) fn empty(indexers: Arc<[Indexer<T>]>) -> Self {
        let indexes = indexers.iter().map(|_| Index::EMPTY).collect();
        Self {
            entries: Tree::EMPTY,
            indexes,
            indexers,
            revision: 0,
            digest: Digest::default(),
            unreadable: 0,
        }
    }

    /// The revision of the store that it shows: all of it, and nothing behind it. 0 before the first list is complete.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many keys there are, those that cannot be read among them.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Over all keys; the same as that of the server's keys at the same revision.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// An object by its key; `None` when there is no such key.
    ///
    /// Errors: it is there, and its bytes are no object.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<&Arc<Object<T>>>, &Arc<Unreadable>> {
        match self.entry(key.as_ref()) {
            None => Ok(None),
            Some(Entry::Object(object)) => Ok(Some(object)),
            Some(Entry::Unreadable(unreadable)) => Err(unreadable),
        }
    }

    /// All objects that can be read, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.entries.iter().filter_map(Entry::object)
    }

    /// Those whose keys begin so.
    pub fn prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a Arc<Object<T>>> {
        self.under(prefix).filter_map(Entry::object)
    }

    /// The keys that begin so, those that cannot be read among them.
    pub(super) fn under<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a Entry<T>> {
        let from = self.entries.from(move |entry| entry.key().cmp(prefix));
        from.take_while(move |entry| entry.key().starts_with(prefix))
    }

    /// Those from a key on, inclusive: with a limit, a page.
    pub fn from<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Arc<Object<T>>> {
        self.entries.from(move |entry| entry.key().cmp(key)).filter_map(Entry::object)
    }

    /// Keys whose bytes are no object, in their order. Looks at all keys.
    pub fn unreadable(&self) -> impl Iterator<Item = &Arc<Unreadable>> {
        let is_there = self.unreadable > 0;
        self.entries.iter().take_while(move |_| is_there).filter_map(|entry| match entry {
            Entry::Object(_) => None,
            Entry::Unreadable(unreadable) => Some(unreadable),
        })
    }

    /// The objects that an index has under a term, in the order of their keys; `None` when there is no such index.
    pub fn by_index<'a>(
        &'a self,
        index: &str,
        term: &'a [u8],
    ) -> Option<impl Iterator<Item = &'a Arc<Object<T>>>> {
        Some(self.index(index)?.with(term))
    }

    /// The terms that an index has objects under, in their order; `None` when there is no such index.
    pub fn terms<'a>(&'a self, index: &str) -> Option<impl Iterator<Item = &'a [u8]>> {
        Some(self.index(index)?.terms())
    }

    fn index(&self, name: &str) -> Option<&Index<T>> {
        let at = self.indexers.iter().position(|indexer| indexer.name == name)?;
        self.indexes.get(at)
    }

    pub(super) fn unreadable_len(&self) -> usize {
        self.unreadable
    }

    pub(super) fn entry(&self, key: &[u8]) -> Option<&Entry<T>> {
        self.entries.get(|entry| entry.key().cmp(key))
    }

    /// How this one, which is the newer, differs from another: one change for each key, in their order.
    pub fn changes_since(&self, older: &Self) -> Vec<Change<T>> {
        differences(older.entries.iter(), self.entries.iter())
            .map(|(before, after)| match (before, after) {
                (before, Some(after)) => Change::set(before, after.clone()),
                (Some(before), None) => Change::deleted(before, self.revision, Sight::Gap),
                (None, None) => unreachable!("a difference has a side"),
            })
            .collect()
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            indexes: self.indexes.clone(),
            indexers: Arc::clone(&self.indexers),
            revision: self.revision,
            digest: self.digest,
            unreadable: self.unreadable,
        }
    }
}

impl<T> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}, digest {}", self.revision, self.digest)
    }
}

/// A key that is not the same on both sides.
type Difference<'a, T> = (Option<&'a Entry<T>>, Option<&'a Entry<T>>);

/// What is not the same, in the order of keys. Both sides ascend.
pub(super) fn differences<'a, T>(
    before: Iter<'a, Entry<T>>,
    after: Iter<'a, Entry<T>>,
) -> impl Iterator<Item = Difference<'a, T>> {
    let (mut before, mut after) = (before.peekable(), after.peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (before.peek(), after.peek()) {
                (None, None) => return None,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            let difference = match order {
                std::cmp::Ordering::Less => (before.next(), None),
                std::cmp::Ordering::Greater => (None, after.next()),
                std::cmp::Ordering::Equal => (before.next(), after.next()),
            };
            if let (Some(a), Some(b)) = difference
                && a.is(b)
            {
                continue;
            }
            return Some(difference);
        }
    })
}
