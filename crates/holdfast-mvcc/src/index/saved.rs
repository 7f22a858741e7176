//! The written form of the index, for a checkpoint.
//!
//! # Layout
//! Keys in ascending order, `v` an unsigned LEB128 number:
//!
//! ```text
//! key      shared v | rest v | rest              begins with `shared` bytes of the key before
//!          records v | value length v            of the retained records how many; of the newest one's value, 0 when deleted
//!          first | later …
//!          [lease i64 LE]                        of the newest record, when it has one
//! first    revision v | kind v | when it is a put: create revision, counted back v | version v
//! later    step v, doubled; one more when a kind follows | [kind v]        without one it is the first put of its revision
//! kind     sub v, four times; and 0 put, 1 put with a lease, 2 tombstone
//! ```
//! Create revisions and versions of later records follow from the ones before, as in memory.

use super::packed::{REVISION_END, SUB_END};
use super::{Entry, EntryPut, History, KeyIndex};
use crate::size::record_bytes;
use crate::state::PutMeta;
use crate::types::{LeaseId, RecordId, Revision};
use crate::varint;

const PUT: u64 = 0;
const LEASED_PUT: u64 = 1;
const TOMBSTONE: u64 = 2;

/// Where a piece ends: histories may be long, and who writes them holds a lock.
const PIECE_BYTES: usize = 16 << 10;

/// Stands for the lease of a record whose lease is not in the index.
const SOME_LEASE: LeaseId = LeaseId(1);

impl KeyIndex {
    /// Appends the retained records of at most `keys_max` keys behind `after`, fewer when they have many. Answers where to
    /// go on.
    pub(crate) fn save(
        &self,
        compact_revision: Option<Revision>,
        after: Option<&[u8]>,
        keys_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Box<[u8]>> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut keys = self.keys.range(from);
        let (mut visited, mut written): (&[u8], &[u8]) = (&[], &[]);
        let end = out.len() + PIECE_BYTES;
        for (key, history) in keys.by_ref().take(keys_max) {
            visited = key;
            let mut records = history.retained(compact_revision);
            let count = records.len();
            let Some(first) = records.next() else { continue };
            let shared = written.iter().zip(key).take_while(|(one, other)| one == other).count();
            for number in [shared, key.len() - shared] {
                varint::write(out, number as u64);
            }
            out.extend_from_slice(&key[shared..]);
            written = key;
            varint::write(out, count as u64);
            varint::write(out, history.live_value_bytes().map_or(0, u64::from));
            write_first(first, out);
            records.fold(first, |before, record| {
                write_later(before, record, out);
                record
            });
            if let Some(lease) = self.lease(key) {
                out.extend_from_slice(&lease.0.to_le_bytes());
            }
            if out.len() >= end {
                break;
            }
        }
        keys.next().map(|_| visited.into())
    }

    /// Takes one key off the front of `input` and adds it behind all others. `last` is the key before, and becomes this
    /// one. Answers the logical bytes of its newest put, 0 for a tombstone; `None` when `input` is not what
    /// [`KeyIndex::save`] has written up to `through`.
    pub(crate) fn load(&mut self, last: &mut Vec<u8>, through: Revision, input: &mut &[u8]) -> Option<u64> {
        let shared = take_usize(input)?;
        let rest = take_bytes(input)?;
        let before = last.get(shared..)?;
        if before >= rest && self.len() > 0 {
            return None;
        }
        last.truncate(shared);
        last.extend_from_slice(rest);
        let records = take_usize(input)?;
        // Each takes a byte at least: what is reserved for them is bounded by what was read.
        if records == 0 || records > input.len() {
            return None;
        }
        let value_bytes = u32::try_from(varint::take(input)?).ok()?;
        let mut newest = take_first(input)?;
        let mut history = History::with_room(newest.id, newest.meta(value_bytes).as_ref(), records);
        for _ in 1..records {
            newest = take_later(newest, input)?;
            history.push(newest.id, newest.meta(value_bytes).as_ref());
        }
        if newest.id.revision > through {
            return None;
        }
        if newest.put.is_some_and(|put| put.leased) {
            let (lease, rest) = input.split_first_chunk()?;
            *input = rest;
            self.attached.set(last, Some(LeaseId(i64::from_le_bytes(*lease))));
        }
        self.keys.append(last.as_slice().into(), history);
        Some(if newest.put.is_some() { record_bytes(last, value_bytes) } else { 0 })
    }
}

impl Entry {
    /// The record with the length of its value, and with any lease when it has one.
    fn meta(self, value_bytes: u32) -> Option<PutMeta> {
        self.put.map(|EntryPut { create_revision, version, leased }| PutMeta {
            create_revision,
            version,
            lease: leased.then_some(SOME_LEASE),
            value_bytes,
        })
    }

    /// The record behind this one; `None` when there cannot be such a one.
    fn followed_by(self, id: RecordId, kind: u64) -> Option<Self> {
        let leased = kind == LEASED_PUT;
        let put = match (self.put, kind) {
            (Some(_), TOMBSTONE) => None,
            (None, TOMBSTONE) => return None,
            (Some(put), _) => Some(EntryPut { version: put.version + 1, leased, ..put }),
            (None, _) => Some(EntryPut { create_revision: id.revision, version: 1, leased }),
        };
        (id > self.id).then_some(Self { id, put })
    }
}

fn kind(record: Entry) -> u64 {
    let kind = record.put.map_or(TOMBSTONE, |put| if put.leased { LEASED_PUT } else { PUT });
    u64::from(record.id.sub) << 2 | kind
}

fn write_first(record: Entry, out: &mut Vec<u8>) {
    let revision = record.id.revision.get();
    varint::write(out, revision);
    varint::write(out, kind(record));
    if let Some(put) = record.put {
        varint::write(out, revision - put.create_revision.get());
        varint::write(out, put.version);
    }
}

fn write_later(before: Entry, record: Entry, out: &mut Vec<u8>) {
    let step = record.id.revision.get() - before.id.revision.get();
    let kind = kind(record);
    varint::write(out, step << 1 | u64::from(kind != PUT));
    if kind != PUT {
        varint::write(out, kind);
    }
}

fn take_first(input: &mut &[u8]) -> Option<Entry> {
    let revision = varint::take(input)?;
    let (sub, kind) = take_kind(input)?;
    if revision == 0 || revision >= REVISION_END {
        return None;
    }
    let id = RecordId::new(Revision::new(revision), sub);
    if kind == TOMBSTONE {
        return Some(Entry { id, put: None });
    }
    let create_revision = Revision::new(revision.checked_sub(varint::take(input)?)?);
    let version = varint::take(input)?;
    // Each later record counts up by one: the last version fits, too, when there are not that many.
    if version == 0 || version >= REVISION_END / 2 {
        return None;
    }
    Some(Entry { id, put: Some(EntryPut { create_revision, version, leased: kind == LEASED_PUT }) })
}

fn take_later(before: Entry, input: &mut &[u8]) -> Option<Entry> {
    let step = varint::take(input)?;
    let (sub, kind) = if step & 1 == 0 { (0, PUT) } else { take_kind(input)? };
    let revision = before.id.revision.get().checked_add(step >> 1)?;
    if revision >= REVISION_END {
        return None;
    }
    before.followed_by(RecordId::new(Revision::new(revision), sub), kind)
}

fn take_kind(input: &mut &[u8]) -> Option<(u32, u64)> {
    let kind = varint::take(input)?;
    let sub = u32::try_from(kind >> 2).ok()?;
    (sub < SUB_END && kind & 3 <= TOMBSTONE).then_some((sub, kind & 3))
}

fn take_usize(input: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint::take(input)?).ok()
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take_usize(input)?;
    let (bytes, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(bytes)
}
