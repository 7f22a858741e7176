//! The written form of one record: a *meta entry* (everything but the value) and, for puts, a *value entry*.
//!
//! ```text
//! meta entry   revision v | sub v | flags (1) | key length v | key | put: create v | version v | [lease i64 LE] | value length v
//! value entry  revision v | sub v | flags (1) | create v | version v | [lease i64 LE] | value length v | value
//! flags        bit 0: put (else delete)   bit 1: a lease follows
//! ```
//! `v` is an unsigned LEB128 number. Entries stand by themselves, so that packs can be cut and joined without
//! decoding values.

use bytes::{Buf, Bytes};
use holdfast_mvcc::types::{Change, LeaseId, PutRecord, Record, RecordId, Revision};
use holdfast_mvcc::{PutMeta, RecordMeta};

use crate::error::StoreError;

const FLAG_PUT: u8 = 1;
const FLAG_LEASE: u8 = 2;

/// A record with its encoded entries. The value of `record` is a slice of `value`, so that it is in memory once.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The record.
    pub(crate) record: Record,
    /// Its meta entry. The key of `record` is a slice of it, and of nothing larger.
    pub(crate) meta: Bytes,
    /// Its value entry; empty for a delete.
    pub(crate) value: Bytes,
}

impl Stored {
    /// Encodes a record.
    pub(crate) fn new(mut record: Record) -> Self {
        let mut meta = Vec::with_capacity(record.key.len() + 32);
        number(&mut meta, record.id.revision.get());
        number(&mut meta, u64::from(record.id.sub));
        let Change::Put(put) = &mut record.change else {
            meta.push(0);
            bytes(&mut meta, &record.key);
            let meta = Bytes::from(meta);
            record.key = meta.slice(meta.len() - record.key.len()..);
            return Self { record, meta, value: Bytes::new() };
        };
        let flags = FLAG_PUT | if put.lease.is_some() { FLAG_LEASE } else { 0 };
        let mut value = Vec::with_capacity(put.value.len() + 32);
        number(&mut value, record.id.revision.get());
        number(&mut value, u64::from(record.id.sub));
        value.push(flags);
        put_numbers(&mut value, put);
        bytes(&mut value, &put.value);
        meta.push(flags);
        bytes(&mut meta, &record.key);
        let key_end = meta.len();
        put_numbers(&mut meta, put);
        number(&mut meta, put.value.len() as u64);
        let meta = Bytes::from(meta);
        record.key = meta.slice(key_end - record.key.len()..key_end);
        let value = Bytes::from(value);
        put.value = value.slice(value.len() - put.value.len()..);
        Self { record, meta, value }
    }
}

impl Stored {
    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.meta.len() + self.value.len()
    }
}

fn put_numbers(out: &mut Vec<u8>, put: &PutRecord) {
    number(out, put.create_revision.get());
    number(out, put.version);
    if let Some(lease) = put.lease {
        out.extend_from_slice(&lease.0.to_le_bytes());
    }
}

fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    out.push(n.to_le_bytes()[0]);
}

fn bytes(out: &mut Vec<u8>, content: &[u8]) {
    number(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A value entry without its value copied out.
#[derive(Debug, Clone)]
pub(crate) struct ValueEntry {
    /// Which record.
    pub(crate) id: RecordId,
    /// The put; its value is a slice of the pack.
    pub(crate) put: PutRecord,
}

/// Takes one meta entry off the front.
pub(crate) fn take_meta(input: &mut Bytes) -> Result<RecordMeta, StoreError> {
    let mut rest = &input[..];
    let MetaHead { id, key, put } = take_meta_head(&mut rest)?;
    let (key, passed) = (input.slice_ref(key), input.len() - rest.len());
    input.advance(passed);
    Ok(RecordMeta { id, key, put })
}

/// Passes one meta entry, with the checks of [`take_meta`]; gives its record, and true for a put.
pub(crate) fn pass_meta(input: &mut &[u8]) -> Result<(RecordId, bool), StoreError> {
    let head = take_meta_head(input)?;
    Ok((head.id, head.put.is_some()))
}

/// A meta entry where it stands.
struct MetaHead<'a> {
    id: RecordId,
    key: &'a [u8],
    put: Option<PutMeta>,
}

fn take_meta_head<'a>(input: &mut &'a [u8]) -> Result<MetaHead<'a>, StoreError> {
    let id = take_id(input)?;
    let flags = take_u8(input)?;
    let key_bytes = take_len(input)?;
    let (key, rest) = input.split_at(key_bytes);
    *input = rest;
    let put = if flags & FLAG_PUT == 0 {
        None
    } else {
        let (create_revision, version, lease) = take_put_numbers(input, flags)?;
        let value_bytes = u32::try_from(take_number(input)?).map_err(|_| short())?;
        Some(PutMeta { create_revision, version, lease, value_bytes })
    };
    Ok(MetaHead { id, key, put })
}

/// Passes one value entry, with the checks of [`take_value`]; gives its record.
pub(crate) fn pass_value(input: &mut &[u8]) -> Result<RecordId, StoreError> {
    let head = take_value_head(input)?;
    input.advance(head.value_bytes);
    Ok(head.id)
}

/// Takes one value entry off the front.
pub(crate) fn take_value(input: &mut Bytes) -> Result<ValueEntry, StoreError> {
    let mut rest = &input[..];
    let head = take_value_head(&mut rest)?;
    let value_from = input.len() - rest.len();
    let value = input.slice(value_from..value_from + head.value_bytes);
    input.advance(value_from + head.value_bytes);
    Ok(head.entry(value))
}

/// Takes entries off the front up to the one with this id; at most `left`, which counts down. `None` when it is not among
/// them: then the next one that has a greater id was taken, too.
pub(crate) fn seek_value(
    input: &mut Bytes,
    id: RecordId,
    left: &mut u32,
) -> Result<Option<ValueEntry>, StoreError> {
    let mut rest = &input[..];
    while *left > 0 {
        *left -= 1;
        let head = take_value_head(&mut rest)?;
        let value_from = input.len() - rest.len();
        rest.advance(head.value_bytes);
        if head.id >= id {
            let value = input.slice(value_from..value_from + head.value_bytes);
            input.advance(value_from + head.value_bytes);
            return Ok((head.id == id).then(|| head.entry(value)));
        }
    }
    input.advance(input.len() - rest.len());
    Ok(None)
}

/// What is in front of a value.
struct ValueHead {
    id: RecordId,
    create_revision: Revision,
    version: u64,
    lease: Option<LeaseId>,
    value_bytes: usize,
}

impl ValueHead {
    fn entry(self, value: Bytes) -> ValueEntry {
        let Self { id, create_revision, version, lease, .. } = self;
        ValueEntry { id, put: PutRecord { create_revision, version, lease, value } }
    }
}

/// The value is there, too.
fn take_value_head(input: &mut &[u8]) -> Result<ValueHead, StoreError> {
    let id = take_id(input)?;
    let flags = take_u8(input)?;
    let (create_revision, version, lease) = take_put_numbers(input, flags)?;
    let value_bytes = take_len(input)?;
    Ok(ValueHead { id, create_revision, version, lease, value_bytes })
}

fn take_put_numbers(input: &mut impl Buf, flags: u8) -> Result<(Revision, u64, Option<LeaseId>), StoreError> {
    let create_revision = Revision::new(take_number(input)?);
    let version = take_number(input)?;
    let lease = if flags & FLAG_LEASE == 0 { None } else { Some(LeaseId(take_i64(input)?)) };
    Ok((create_revision, version, lease))
}

fn take_id(input: &mut impl Buf) -> Result<RecordId, StoreError> {
    let revision = Revision::new(take_number(input)?);
    let sub = u32::try_from(take_number(input)?).map_err(|_| short())?;
    Ok(RecordId::new(revision, sub))
}

fn take_number(input: &mut impl Buf) -> Result<u64, StoreError> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_u8(input)?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err(short())
}

fn take_u8(input: &mut impl Buf) -> Result<u8, StoreError> {
    input.try_get_u8().map_err(|_| short())
}

fn take_i64(input: &mut impl Buf) -> Result<i64, StoreError> {
    input.try_get_i64_le().map_err(|_| short())
}

/// The length of what follows, all of which is there.
fn take_len(input: &mut impl Buf) -> Result<usize, StoreError> {
    let len = usize::try_from(take_number(input)?).map_err(|_| short())?;
    if len <= input.remaining() { Ok(len) } else { Err(short()) }
}

fn short() -> StoreError {
    StoreError::damaged("a record entry ends too early or holds a number out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(lease: Option<LeaseId>) -> Record {
        Record {
            id: RecordId::new(Revision::new(300), 2),
            key: Bytes::from_static(b"key"),
            change: Change::Put(PutRecord {
                create_revision: Revision::new(5),
                version: 4,
                lease,
                value: Bytes::from_static(b"value"),
            }),
        }
    }

    /// The bytes on disk; a change here needs a new pack version.
    #[test]
    fn golden_bytes() {
        let stored = Stored::new(put(None));
        assert_eq!(&stored.meta[..], [0xac, 2, 2, 1, 3, b'k', b'e', b'y', 5, 4, 5]);
        assert_eq!(&stored.value[..], [0xac, 2, 2, 1, 5, 4, 5, b'v', b'a', b'l', b'u', b'e']);
        let leased = Stored::new(put(Some(LeaseId(-2))));
        let lease = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let mut want = vec![0xac, 2, 2, 3, 3, b'k', b'e', b'y', 5, 4];
        want.extend_from_slice(&lease);
        want.push(5);
        assert_eq!(&leased.meta[..], want);
        let delete = Stored::new(Record { change: Change::Delete, ..put(None) });
        assert_eq!(&delete.meta[..], [0xac, 2, 2, 0, 3, b'k', b'e', b'y']);
        assert!(delete.value.is_empty());
    }

    #[test]
    fn round_trips() {
        for lease in [None, Some(LeaseId(i64::MAX))] {
            let stored = Stored::new(put(lease));
            assert_eq!(stored.record, put(lease), "encoding changes nothing");
            let (mut passed, mut values) = (&stored.meta[..], &stored.value[..]);
            assert_eq!(pass_meta(&mut passed).unwrap(), (stored.record.id, true));
            assert_eq!(pass_value(&mut values).unwrap(), stored.record.id);
            assert!(passed.is_empty() && values.is_empty());
            let mut meta = stored.meta;
            let decoded = take_meta(&mut meta).unwrap();
            assert!(meta.is_empty());
            assert_eq!((decoded.id, &decoded.key), (stored.record.id, &stored.record.key));
            let mut value = stored.value;
            let entry = take_value(&mut value).unwrap();
            assert!(value.is_empty());
            assert_eq!(Change::Put(entry.put), stored.record.change);
        }
    }

    #[test]
    fn a_cut_entry_is_damage() {
        let stored = Stored::new(put(Some(LeaseId(1))));
        for end in 0..stored.meta.len() {
            assert!(take_meta(&mut Bytes::copy_from_slice(&stored.meta[..end])).is_err(), "{end}");
            assert!(pass_meta(&mut &stored.meta[..end]).is_err(), "{end}");
        }
        for end in 0..stored.value.len() {
            assert!(take_value(&mut stored.value.slice(..end)).is_err(), "{end}");
            assert!(pass_value(&mut &stored.value[..end]).is_err(), "{end}");
        }
    }
}
