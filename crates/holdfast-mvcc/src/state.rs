//! The state that commands change: head, key index, logical size. How commands change it is in `evaluate`.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::{Auth, AuthChange, AuthRefusal};
use crate::command::{Alarm, AlarmKind, MemberAttributes, ReadAt, Refusal};
use crate::hash::Mixer;
use crate::index::{EntryPut, KeyIndex};
use crate::lease::{LEASE_BYTES, LeaseTable};
use crate::size::{LogicalSize, record_bytes};
use crate::txn::ReadWindow;
use crate::types::{KeyRange, LeaseId, PutRecord, RangeEnd, RecordId, Revision};

/// How evaluation gets at values that are not in the index.
pub trait Values {
    /// A local failure. Evaluation stops, the [`State`] must be thrown away and rebuilt; no answer exists.
    type Error;
    /// The put that `id` names. Asked only for retained records.
    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Self::Error>;
}

/// The replicated state, without values.
#[derive(Debug, Clone)]
pub struct State {
    head: Head,
    pub(crate) index: KeyIndex,
    pub(crate) leases: LeaseTable,
    size: LogicalSize,
}

/// The part of the state beside the key index; small, stored whole with each batch and each snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The newest revision.
    pub revision: Revision,
    /// The lowest readable revision; `None` when nothing was ever compacted (on the wire that is -1). May be 0.
    pub compact_revision: Option<Revision>,
    /// What the members have told, ascending by id.
    pub members: Vec<MemberAttributes>,
    /// The active alarms, ascending.
    pub alarms: Vec<Alarm>,
    /// Users, roles and permissions. The same allocation as long as nothing of them changes.
    pub auth: Arc<Auth>,
}

/// A record without its value, from which the index is rebuilt at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMeta {
    /// When it happened.
    pub id: RecordId,
    /// The key it changed.
    pub key: Bytes,
    /// The put's numbers, or `None` for a delete.
    pub put: Option<PutMeta>,
}

/// A put without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutMeta {
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// Puts since then.
    pub version: u64,
    /// The lease the key is attached to.
    pub lease: Option<LeaseId>,
    /// The length of the value in bytes.
    pub value_bytes: u32,
}

/// Some keys of a range, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexChunk {
    /// The keys alive at the revision asked for.
    pub keys: Vec<IndexedKey>,
    /// Where to go on (pass as `after`); `None` when the range is exhausted. Set also when `keys` is empty because
    /// the scan was cut while it passed keys that are not alive at that revision.
    pub next: Option<Bytes>,
}

/// How many keys of a range there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexCount {
    /// So many were found.
    pub keys: u64,
    /// Where to go on; `None` when the range is exhausted.
    pub next: Option<Bytes>,
}

/// What the index knows of one key at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedKey {
    /// The key.
    pub key: Bytes,
    /// Its newest put at or below the revision asked for; its revision is the mod revision.
    pub id: RecordId,
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// Puts since then.
    pub version: u64,
    /// The lease the key was attached to by that put.
    pub lease: IndexedLease,
    /// The length of its value; known of the key's newest put.
    pub value_bytes: Option<u32>,
}

/// What the index knows of a put's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexedLease {
    /// The lease, or that there is none.
    Known(Option<LeaseId>),
    /// There is one; an old record's lease is not in the index, only in the record.
    InRecord,
}

/// What the index said to a record that was put back: lengths of values, and whether the record is in it.
#[derive(Debug, Clone, Copy, Default)]
struct Restored {
    removed: Option<u32>,
    is_kept: bool,
    replaced: Option<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// A fresh store at revision 1.
    pub fn new() -> Self {
        Self::with_head(Head {
            revision: Revision::FRESH,
            compact_revision: None,
            members: Vec::new(),
            alarms: Vec::new(),
            auth: Arc::default(),
        })
    }

    /// The state with this head and an empty index; follow with [`State::restore`] for each retained record,
    /// ascending by id, and with [`State::restore_leases`].
    pub fn with_head(head: Head) -> Self {
        assert!(head.compact_revision <= Some(head.revision), "nothing in the future is compacted");
        assert!(head.members.is_sorted_by_key(|member| member.id), "members ascend by id");
        assert!(head.alarms.is_sorted(), "alarms ascend");
        Self { head, index: KeyIndex::default(), leases: LeaseTable::default(), size: LogicalSize::default() }
    }

    /// Puts one record back into the index: ascending by id, all that are retained. Others, left over because their
    /// store is not cleaned up yet, may be among them and leave no trace, under one condition: a store that keeps a
    /// put keeps the tombstone that ended it, or a dead key would come back. Cleaning up in ascending order of ids
    /// keeps to it.
    pub fn restore(&mut self, record: &RecordMeta) {
        let restored = self.restore_index(record);
        self.restore_size(record, restored);
    }

    /// As [`State::restore`] for each of the records in turn, but many at a time in the order of their keys: neighbours
    /// lie in one leaf of the index, and a leaf that was touched last is still in the processor's cache.
    pub fn restore_all(&mut self, records: &[RecordMeta]) {
        let mut restored = vec![Restored::default(); records.len()];
        for place in by_key(records) {
            restored[place] = self.restore_index(&records[place]);
        }
        for (record, restored) in records.iter().zip(restored) {
            self.restore_size(record, restored);
        }
    }

    /// The part that depends on the records of the same key only.
    fn restore_index(&mut self, record: &RecordMeta) -> Restored {
        let revision = record.id.revision;
        assert!(revision <= self.head.revision, "a record of the future cannot be restored");
        let mut removed = None;
        if let Some(compact_revision) = self.head.compact_revision
            && revision <= compact_revision
        {
            // Whatever the key had before is not readable any more, now that this record is known.
            removed = self.index.remove(&record.key);
            if record.put.is_none() && revision < compact_revision {
                return Restored { removed, is_kept: false, replaced: None };
            }
        }
        let replaced = self.index.push(&record.key, record.id, record.put.as_ref());
        Restored { removed, is_kept: true, replaced }
    }

    /// The part that needs the records in the order of their ids.
    fn restore_size(&mut self, record: &RecordMeta, restored: Restored) {
        if let Some(removed) = restored.removed {
            self.size.remove(record_bytes(&record.key, removed));
        }
        if restored.is_kept {
            self.count(&record.key, record.id, record.put.as_ref(), restored.replaced);
        }
    }

    /// Everything beside the index.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Which revisions can be read.
    pub fn window(&self) -> ReadWindow {
        ReadWindow { newest: self.head.revision, compact_revision: self.head.compact_revision }
    }

    /// The revision that a read at `at` sees, or why it cannot be read.
    pub fn resolve(&self, at: ReadAt) -> Result<Revision, Refusal> {
        self.window().resolve(at)
    }

    /// The next keys of `range` alive at `at`, ascending, behind `after` (exclusive). Visits at most `keys_max` keys
    /// of the index, alive or not, so that the caller can bound the time it holds a lock. The keys of one chunk share
    /// one allocation: copy a key that is to live long.
    ///
    /// Panics when `keys_max` is 0.
    pub fn chunk(
        &self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> IndexChunk {
        assert!(keys_max > 0, "a chunk visits at least one key");
        if range.end == RangeEnd::Single {
            let is_behind = after.is_none_or(|after| *after < range.start);
            let key = is_behind.then(|| self.single(&range.start, at)).flatten();
            return IndexChunk { keys: key.into_iter().collect(), next: None };
        }
        let mut scan = self.index.scan(range, after.map(|after| &after[..]));
        let mut names = Vec::new();
        let mut found = Vec::new();
        let mut last: &[u8] = &[];
        for (key, history) in scan.by_ref().take(keys_max) {
            last = key;
            if let Some(entry) = history.at(at)
                && let Some(put) = entry.put
            {
                names.extend_from_slice(key);
                let lease = self.index.lease_of(key, history, entry);
                found.push((names.len(), entry.id, put, lease, history.value_bytes_of(entry)));
            }
        }
        let next = scan.next().map(|_| Bytes::copy_from_slice(last));
        let names = Bytes::from(names);
        let mut start = 0;
        let keys = found.into_iter().map(|(end, id, put, lease, value_bytes)| {
            let key = names.slice(start..end);
            start = end;
            let EntryPut { create_revision, version, .. } = put;
            IndexedKey { key, id, create_revision, version, lease, value_bytes }
        });
        IndexChunk { keys: keys.collect(), next }
    }

    /// As [`State::chunk`], but only counts: copies no keys, and passes many of them at once that have not changed since `at`.
    pub fn count_keys(
        &self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> IndexCount {
        assert!(keys_max > 0, "a count visits at least one key");
        if range.end == RangeEnd::Single {
            let chunk = self.chunk(range, after, at, keys_max);
            return IndexCount { keys: chunk.keys.len() as u64, next: None };
        }
        let (keys, next) = self.index.count(range, after.map(|after| &after[..]), at, keys_max);
        IndexCount { keys, next: next.map(Bytes::copy_from_slice) }
    }

    /// One key as it was at a revision: no scan, and no copy of the key.
    fn single(&self, key: &Bytes, at: Revision) -> Option<IndexedKey> {
        let history = self.index.get(key)?;
        let entry = history.at(at)?;
        let EntryPut { create_revision, version, .. } = entry.put?;
        let lease = self.index.lease_of(key, history, entry);
        let value_bytes = history.value_bytes_of(entry);
        Some(IndexedKey { key: key.clone(), id: entry.id, create_revision, version, lease, value_bytes })
    }

    /// True when the record is still readable at some revision not below the compact revision, or is the tombstone
    /// at exactly the compact revision or above it. Depends on the compact revision only, not on how far
    /// [`State::drop_compacted`] has come.
    pub fn is_retained(&self, key: &Bytes, id: RecordId) -> bool {
        let history = self.index.get(key);
        history.is_some_and(|history| history.is_retained(id, self.head.compact_revision))
    }

    /// Removes what a compaction to `compact_revision` made unreadable from the index, for at most `keys_max` keys behind
    /// `after`. Returns where to go on, or `None` at the end. Changes nothing a reader can see.
    ///
    /// # Panics
    /// When that revision has not been compacted to.
    pub fn drop_compacted(
        &mut self,
        compact_revision: Revision,
        after: Option<&Bytes>,
        keys_max: usize,
    ) -> Option<Bytes> {
        assert!(self.head.compact_revision >= Some(compact_revision), "{compact_revision:?} is readable");
        let next = self.index.drop_compacted(compact_revision, after.map(|after| &after[..]), keys_max);
        next.map(Bytes::from)
    }

    /// A checksum over head, leases, users and retained index, equal on members that applied the same commands, however far each
    /// has cleaned up. Reads the whole index.
    pub fn digest(&self) -> u64 {
        let mut mixer = Mixer::default();
        mixer.number(self.head.revision.get());
        mixer.number(self.head.compact_revision.map_or(0, |revision| revision.get() + 1));
        for member in &self.head.members {
            mixer.number(member.id.0);
            mixer.bytes(member.name.as_bytes());
            mixer.number(member.client_urls.len() as u64);
            member.client_urls.iter().for_each(|url| mixer.bytes(url.as_bytes()));
        }
        for alarm in &self.head.alarms {
            mixer.number(alarm.member.0);
            mixer.number(alarm.kind as u64 + 1);
        }
        mixer.number(self.logical_bytes());
        self.head.auth.digest(&mut mixer);
        self.leases.digest(&mut mixer);
        self.index.digest(self.head.compact_revision, &mut mixer);
        mixer.finish()
    }

    /// How many keys the index holds, dead ones included; depends on how far the member has cleaned up.
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// The bytes of all retained records, per record its key, its value and 64 more, for puts and tombstones alike; and
    /// 64 per lease.
    /// A compaction lowers it at once: it depends on the commands only, not on how far [`State::drop_compacted`] has
    /// come, and is equal on all members.
    pub fn logical_bytes(&self) -> u64 {
        self.size.total() + self.leases.len() as u64 * LEASE_BYTES
    }

    /// Adds a new put to the index and to the size. Answers its numbers, which follow from what the key was before.
    pub(crate) fn put(
        &mut self,
        key: &[u8],
        id: RecordId,
        lease: Option<LeaseId>,
        value_bytes: u32,
    ) -> PutMeta {
        let (put, replaced) = self.index.put(key, id, lease, value_bytes);
        self.count(key, id, Some(&put), replaced);
        put
    }

    /// Adds a record to the index and to the size.
    pub(crate) fn change(&mut self, key: &[u8], id: RecordId, put: Option<&PutMeta>) {
        let replaced = self.index.push(key, id, put);
        self.count(key, id, put, replaced);
    }

    /// The logical size and its garbage.
    pub(crate) fn size(&self) -> &LogicalSize {
        &self.size
    }

    /// As [`State::size`], to be filled.
    pub(crate) fn size_mut(&mut self) -> &mut LogicalSize {
        &mut self.size
    }

    /// Adds a record to the size; `replaced` is the length of the value that it replaces.
    pub(crate) fn count(&mut self, key: &[u8], id: RecordId, put: Option<&PutMeta>, replaced: Option<u32>) {
        if let Some(replaced) = replaced {
            self.size.replaced_at(id.revision, record_bytes(key, replaced));
        }
        let bytes = record_bytes(key, put.map_or(0, |put| put.value_bytes));
        self.size.add(bytes);
        if put.is_none() {
            self.size.tombstone_at(id.revision, bytes);
        }
    }

    /// Moves the revision, by one.
    pub(crate) fn advance(&mut self) {
        self.head.revision = self.head.revision.next();
    }

    /// Raises the compact revision.
    pub(crate) fn compact(&mut self, compact_revision: Revision) {
        assert!(self.head.compact_revision < Some(compact_revision), "the compact revision only rises");
        assert!(compact_revision <= self.head.revision, "nothing in the future is compacted");
        self.head.compact_revision = Some(compact_revision);
        self.size.compact(compact_revision);
    }

    /// True when an alarm of this kind is active, of any member.
    pub(crate) fn is_alarmed(&self, kind: AlarmKind) -> bool {
        self.head.alarms.iter().any(|alarm| alarm.kind == kind)
    }

    /// Raises an alarm; once is as good as twice.
    pub(crate) fn raise(&mut self, alarm: Alarm) {
        if let Err(place) = self.head.alarms.binary_search(&alarm) {
            self.head.alarms.insert(place, alarm);
        }
    }

    /// Clears an alarm. False when it was not active.
    pub(crate) fn clear(&mut self, alarm: Alarm) -> bool {
        let place = self.head.alarms.binary_search(&alarm);
        place.map(|place| self.head.alarms.remove(place)).is_ok()
    }

    /// Changes users, roles and permissions.
    pub(crate) fn change_auth(&mut self, change: &AuthChange) -> Result<(), AuthRefusal> {
        if let AuthChange::Authenticate(authenticate) = change {
            return self.head.auth.authenticate(authenticate);
        }
        let mut auth = Auth::clone(&self.head.auth);
        auth.apply(change)?;
        if auth != *self.head.auth {
            self.head.auth = Arc::new(auth);
        }
        Ok(())
    }

    /// Replaces what is known of a member.
    pub(crate) fn publish(&mut self, attributes: &MemberAttributes) {
        let members = &mut self.head.members;
        match members.binary_search_by_key(&attributes.id, |member| member.id) {
            Ok(place) => members[place] = attributes.clone(),
            Err(place) => members.insert(place, attributes.clone()),
        }
    }
}

/// The places of records in the order of their keys; those of one key stay in their order.
pub(crate) fn by_key(records: &[RecordMeta]) -> Vec<usize> {
    let Some(first) = records.first() else { return Vec::new() };
    let shared =
        |one: &[u8], other: &[u8]| one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let common =
        records.iter().fold(first.key.len(), |common, record| shared(&first.key[..common], &record.key));
    // Eight bytes behind what all keys begin with decide nearly always, and lie together: a key is an allocation away.
    let head = |record: &RecordMeta| {
        let mut bytes = [0; 8];
        record.key[common..].iter().zip(&mut bytes).for_each(|(from, to)| *to = *from);
        u64::from_be_bytes(bytes)
    };
    let mut order: Vec<(u64, usize)> = records.iter().map(head).zip(0..).collect();
    let key = |place: usize| &records[place].key;
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, place)| place).collect()
}
