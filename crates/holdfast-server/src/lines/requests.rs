//! What those who stand in line ask of the store: names of keys, transactions, reads, watches. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_mvcc::command::{
    Compare, DeleteRange, Op, OpResult, Operand, Put, Range, Relation, SortOrder, SortTarget, Txn,
    TxnResponse,
};
use holdfast_mvcc::types::{KeyRange, KeyValue, LeaseId, RangeEnd, Revision};
use holdfast_proto::etcdserverpb as pb;
use pb::watch_create_request::FilterType;

use crate::codec::response::signed;

/// All keys of the line with this name.
pub fn line(name: &[u8]) -> KeyRange {
    // The byte behind the slash.
    KeyRange { start: with(name, b"/"), end: RangeEnd::Before(with(name, b"0")) }
}

/// The key of a lease in that line.
pub fn key(name: &[u8], lease: LeaseId) -> Bytes {
    let sign = if lease.0 < 0 { "-" } else { "" };
    with(name, format!("/{sign}{:x}", lease.0.unsigned_abs()).as_bytes())
}

fn with(name: &[u8], end: &[u8]) -> Bytes {
    let mut joined = BytesMut::with_capacity(name.len() + end.len());
    joined.put_slice(name);
    joined.put_slice(end);
    joined.freeze()
}

/// One key, if it exists.
pub fn one(key: Bytes) -> Range {
    Range::of(KeyRange { start: key, end: RangeEnd::Single })
}

/// The oldest key of a line.
pub fn oldest(line: KeyRange) -> Range {
    Range { limit: Some(1), order: SortOrder::Ascend, target: SortTarget::Create, ..Range::of(line) }
}

/// The newest key of a line that is older than `created`; its name alone.
pub fn in_front(line: KeyRange, created: Revision) -> Range {
    // A fresh store has revision 1 and no keys, so that the bound is never 0, which would be none.
    let max_create_revision = Revision::new(created.get().saturating_sub(1));
    Range {
        limit: Some(1),
        order: SortOrder::Descend,
        target: SortTarget::Create,
        keys_only: true,
        max_create_revision,
        ..Range::of(line)
    }
}

/// Makes the key, unless it is there; then reads it. Both ways it also reads the oldest of the line.
pub fn enter(line: KeyRange, key: &Bytes, lease: LeaseId, value: Bytes) -> Txn {
    let oldest = Op::Range(Range { keys_only: true, ..oldest(line) });
    Txn {
        compares: vec![created(key.clone(), Revision::NONE)],
        success: vec![Op::Put(put(key.clone(), value, lease)), oldest.clone()],
        failure: vec![Op::Range(one(key.clone())), oldest],
    }
}

/// Gives the key a new value, if it is still the one made at `revision`.
pub fn proclaim(key: Bytes, revision: Revision, lease: LeaseId, value: Bytes) -> Txn {
    Txn {
        compares: vec![created(key.clone(), revision)],
        success: vec![Op::Put(put(key, value, lease))],
        failure: vec![],
    }
}

/// Deletes the key, if it is still the one made at `revision`.
pub fn leave(key: Bytes, revision: Revision) -> Txn {
    let range = KeyRange { start: key.clone(), end: RangeEnd::Single };
    Txn {
        compares: vec![created(key, revision)],
        success: vec![Op::DeleteRange(DeleteRange { range, prev_kv: false })],
        failure: vec![],
    }
}

/// Reads the own key and the one in front of it, at one revision.
pub fn look(line: KeyRange, key: Bytes, created: Revision) -> Txn {
    let own = Range { keys_only: true, ..one(key) };
    Txn {
        compares: vec![],
        success: vec![Op::Range(own), Op::Range(in_front(line, created))],
        failure: vec![],
    }
}

/// The first key that the `at`-th operation of a transaction has read.
pub fn first_read(response: &mut TxnResponse, at: usize) -> Option<KeyValue> {
    match &mut response.responses.get_mut(at)?.result {
        OpResult::Range(range) if !range.kvs.is_empty() => Some(range.kvs.swap_remove(0)),
        OpResult::Range(_) | OpResult::Put(_) | OpResult::DeleteRange(_) | OpResult::Txn(_) => None,
    }
}

/// Watches a key from behind `revision` on for its end.
pub fn watch_end(key: Bytes, revision: Revision) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..watch(key, revision) }
}

/// Watches a key from behind `revision` on.
pub fn watch(key: Bytes, revision: Revision) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key, start_revision: signed(revision.next().get()), ..Default::default() }
}

/// Watches a line from behind `revision` on for what is put there.
pub fn watch_puts(line: KeyRange, revision: Revision) -> pb::WatchCreateRequest {
    let range_end = match line.end {
        RangeEnd::Before(end) => end,
        RangeEnd::Single | RangeEnd::Unbounded => Bytes::new(),
    };
    let filters = vec![FilterType::Nodelete.into()];
    pb::WatchCreateRequest { range_end, filters, ..watch(line.start, revision) }
}

fn created(key: Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange { start: key, end: RangeEnd::Single },
        relation: Relation::Equal,
        operand: Operand::Create(signed(revision.get())),
    }
}

fn put(key: Bytes, value: Bytes, lease: LeaseId) -> Put {
    Put { key, value, lease: Some(lease), prev_kv: false, ignore_value: false, ignore_lease: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_contract() {
        assert_eq!(key(b"L", LeaseId(0x1f)).as_ref(), b"L/1f");
        assert_eq!(key(b"", LeaseId(-9)).as_ref(), b"/-9");
        assert_eq!(key(b"x", LeaseId(i64::MIN)).as_ref(), b"x/-8000000000000000");
    }

    #[test]
    fn a_line_holds_the_keys_below_its_name_and_no_others() {
        let KeyRange { start, end: RangeEnd::Before(end) } = line(b"L\xff") else { panic!("it ends") };
        let is_in = |key: &[u8]| key >= start.as_ref() && key < end.as_ref();
        assert!(is_in(b"L\xff/") && is_in(b"L\xff/1f") && is_in(b"L\xff/\xff\xff"));
        assert!(!is_in(b"L\xff") && !is_in(b"L\xff0") && !is_in(b"L\xff.") && !is_in(b"L/1"));
    }
}
