//! The key index: every key with its retained records, in key order, without values.

mod attached;
mod heads;
mod history;
mod keymap;
mod packed;
mod saved;

use std::ops::Bound;

use crate::hash::Mixer;
use crate::state::{IndexedLease, PutMeta};
use crate::types::{KeyRange, LeaseId, RangeEnd, RecordId, Revision};

use attached::Attached;
use keymap::KeyMap;

pub(crate) use history::{Entry, EntryPut, History};

/// Keys in unsigned bytewise order, each with its history.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyIndex {
    keys: KeyMap<History>,
    attached: Attached,
}

impl KeyIndex {
    /// How many keys there are, dead ones included.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The history of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// The newest state of a key that exists now.
    pub(crate) fn live(&self, key: &[u8]) -> Option<(RecordId, EntryPut)> {
        let newest = self.get(key)?.newest();
        newest.put.map(|put| (newest.id, put))
    }

    /// The lease that a key is attached to now.
    pub(crate) fn lease(&self, key: &[u8]) -> Option<LeaseId> {
        self.attached.lease(key)
    }

    /// The keys that are attached to a lease now, behind one (exclusive), ascending.
    pub(crate) fn attached_keys(
        &self,
        lease: LeaseId,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = &[u8]> + use<'_> {
        self.attached.keys(lease, after)
    }

    /// The leases that keys are attached to now, ascending.
    pub(crate) fn attached_leases(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.attached.leases()
    }

    /// What is known of the lease of one of the key's records.
    pub(crate) fn lease_of(&self, key: &[u8], history: &History, entry: Entry) -> IndexedLease {
        match entry.put {
            Some(put) if !put.leased => IndexedLease::Known(None),
            _ if history.newest().id == entry.id => IndexedLease::Known(self.lease(key)),
            _ => IndexedLease::InRecord,
        }
    }

    /// Adds the next record of a key. Answers the length of the value it replaces, when the key existed before.
    pub(crate) fn push(&mut self, key: &[u8], id: RecordId, put: Option<&PutMeta>) -> Option<u32> {
        self.attached.set(key, put.and_then(|put| put.lease));
        let pushed = self.keys.update(key, |history| {
            let replaced = history.live_value_bytes();
            history.push(id, put);
            replaced
        });
        pushed.unwrap_or_else(|| {
            self.keys.insert(key.into(), History::new(id, put));
            None
        })
    }

    /// Adds a new put of a key, found with one search: its create revision and version follow from what the key was
    /// before. Answers its numbers, and the length of the value it replaces, when the key existed before.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        id: RecordId,
        lease: Option<LeaseId>,
        value_bytes: u32,
    ) -> (PutMeta, Option<u32>) {
        self.attached.set(key, lease);
        let first = PutMeta { create_revision: id.revision, version: 1, lease, value_bytes };
        let pushed = self.keys.update(key, |history| {
            let replaced = history.live_value_bytes();
            let put = match history.newest().put {
                Some(EntryPut { create_revision, version, .. }) => {
                    PutMeta { create_revision, version: version + 1, ..first }
                }
                None => first,
            };
            history.push(id, Some(&put));
            (put, replaced)
        });
        pushed.unwrap_or_else(|| {
            self.keys.insert(key.into(), History::new(id, Some(&first)));
            (first, None)
        })
    }

    /// Forgets a key. Answers the length of its live value.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<u32> {
        self.attached.set(key, None);
        self.keys.remove(key)?.live_value_bytes()
    }

    /// How many keys of `range`, which are several, behind `after` (exclusive) exist at a revision, and behind which key to go
    /// on. Visits about `keys_max` keys, at least one.
    pub(crate) fn count(
        &self,
        range: &KeyRange,
        after: Option<&[u8]>,
        at: Revision,
        keys_max: usize,
    ) -> (u64, Option<&[u8]>) {
        let end = match &range.end {
            RangeEnd::Single => unreachable!("a single key is not counted"),
            RangeEnd::Before(end) => Some(&**end),
            RangeEnd::Unbounded => None,
        };
        let exists = |history: &History| history.at(at).is_some_and(|entry| entry.put.is_some());
        self.keys.count_alive(Self::behind(range, after), end, at, keys_max, exists)
    }

    /// Where a range begins, behind `after` (exclusive).
    fn behind<'a>(range: &'a KeyRange, after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
        match after {
            Some(after) if after >= &*range.start => Bound::Excluded(after),
            _ => Bound::Included(&range.start),
        }
    }

    /// The keys of `range` behind `after` (exclusive), ascending.
    pub(crate) fn scan<'a>(
        &'a self,
        range: &'a KeyRange,
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a History)> + 'a {
        let from = Self::behind(range, after);
        let is_within = move |key: &[u8]| match &range.end {
            RangeEnd::Single => *key == range.start,
            RangeEnd::Before(end) => key < end,
            RangeEnd::Unbounded => true,
        };
        self.keys.range(from).take_while(move |(key, _)| is_within(key))
    }

    /// Mixes in all keys with their retained records, and the leases.
    pub(crate) fn digest(&self, compact_revision: Option<Revision>, mixer: &mut Mixer) {
        for (key, history) in self.keys.range(Bound::Unbounded) {
            let mut records = history.retained(compact_revision).peekable();
            if records.peek().is_some() {
                mixer.bytes(key);
                mixer.number(history.live_value_bytes().map_or(0, |bytes| u64::from(bytes) + 1));
            }
            for entry in records {
                mixer.number(entry.id.revision.get());
                mixer.number(u64::from(entry.id.sub));
                mixer.number(entry.put.map_or(0, |put| put.create_revision.get()));
                mixer.number(entry.put.map_or(0, |put| put.version << 1 | u64::from(put.leased)));
            }
        }
        self.attached.digest(mixer);
    }

    /// Drops what is not retained, for at most `keys_max` keys behind `after`. Answers where to go on.
    pub(crate) fn drop_compacted(
        &mut self,
        compact_revision: Revision,
        after: Option<&[u8]>,
        keys_max: usize,
    ) -> Option<Box<[u8]>> {
        let mut gone: Vec<Box<[u8]>> = Vec::new();
        let mut last: Option<Box<[u8]>> = after.map(Box::from);
        let mut keys_left = keys_max;
        while keys_left > 0 {
            let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let Some(entries) = self.keys.leaf_behind(from) else { break };
            let visited = entries.len().min(keys_left);
            for (key, history) in &mut entries[..visited] {
                if !history.drop_compacted(compact_revision) {
                    gone.push(key.clone());
                }
            }
            keys_left -= visited;
            last = Some(entries[visited - 1].0.clone());
        }
        for key in gone {
            self.keys.remove(&key);
        }
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let has_more = self.keys.range(from).next().is_some();
        last.filter(|_| has_more)
    }
}
