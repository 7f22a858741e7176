//! Ranges over many chunks: each key once, and only the values that are returned are fetched.

use std::convert::Infallible;

use bytes::Bytes;
use holdfast_mvcc::command::{
    Command, Compact, DeleteRange, Put, Range, RangeResponse, Response, SortOrder, SortTarget,
};
use holdfast_mvcc::types::{EntryId, KeyRange, LogIndex, PutRecord, RangeEnd, RecordId, Revision, Term};
use holdfast_mvcc::{CHUNK_KEYS, IndexChunk, RangeSource, State, Values, range};

/// Nothing here depends on it.
const ENTRY: EntryId = EntryId { term: Term(1), index: LogIndex(1) };

const KEYS: usize = 4 * CHUNK_KEYS + 100;

/// Values follow from the revision: the first key's is the greatest.
struct Source<'a> {
    state: &'a State,
    chunks: usize,
    records: usize,
}

fn record(id: RecordId) -> PutRecord {
    let value = Bytes::from(format!("{:06}", 100_000 - id.revision.get()));
    PutRecord { create_revision: id.revision, version: 1, lease: None, value }
}

impl RangeSource for Source<'_> {
    type Error = Infallible;
    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, Infallible> {
        assert_eq!(keys_max, CHUNK_KEYS);
        self.chunks += 1;
        let chunk = self.state.chunk(range, after, at, keys_max);
        assert!(chunk.keys.len() <= keys_max);
        Ok(chunk)
    }
    fn record(&mut self, _key: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        self.records += 1;
        Ok(record(id))
    }
}

struct FromIds;

impl Values for FromIds {
    type Error = Infallible;
    fn record(&mut self, _key: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        Ok(record(id))
    }
}

fn key(n: usize) -> Bytes {
    Bytes::from(format!("key-{n:05}"))
}

fn apply(state: &mut State, command: &Command) -> Response {
    let Ok(outcome) = state.evaluate(ENTRY, command, &mut FromIds);
    outcome.response.expect("not refused")
}

/// Keys `key-00000` on, put at revisions 2, 3, 4 ...
fn filled() -> State {
    let mut state = State::new();
    for n in 0..KEYS {
        let put = Put {
            key: key(n),
            value: Bytes::from_static(b"123456"),
            lease: None,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        apply(&mut state, &Command::Put(put));
    }
    state
}

fn all() -> Range {
    Range::of(KeyRange { start: Bytes::from_static(b"\0"), end: RangeEnd::Unbounded })
}

/// The answer, and how many chunks and values it took.
fn read(state: &State, request: &Range) -> (RangeResponse, usize, usize) {
    let mut source = Source { state, chunks: 0, records: 0 };
    let Ok(answer) = range(&mut source, request, state.head().revision);
    (answer, source.chunks, source.records)
}

fn places(answer: &RangeResponse) -> Vec<usize> {
    answer.kvs.iter().map(|kv| usize::try_from(kv.mod_revision.get()).expect("small") - 2).collect()
}

#[test]
fn a_long_range_comes_in_chunks_and_whole() {
    let state = filled();
    let (answer, chunks, records) = read(&state, &all());
    assert_eq!(places(&answer), (0..KEYS).collect::<Vec<_>>());
    assert!(answer.kvs.iter().enumerate().all(|(n, kv)| kv.key == key(n)));
    assert_eq!((answer.count, answer.more), (KEYS as u64, false));
    assert_eq!((chunks, records), (5, KEYS));
}

#[test]
fn only_the_values_that_are_returned_are_fetched() {
    let state = filled();
    let limited = Range { limit: Some(3), ..all() };
    let (answer, chunks, records) = read(&state, &limited);
    assert_eq!((places(&answer), answer.count, answer.more), (vec![0, 1, 2], KEYS as u64, true));
    assert_eq!((chunks, records), (5, 3), "the count covers all keys, the values do not");
    let (answer, _, records) = read(&state, &Range { order: SortOrder::Descend, ..limited.clone() });
    assert_eq!((places(&answer), records), (vec![KEYS - 1, KEYS - 2, KEYS - 3], 3));
    let by_mod = Range { order: SortOrder::Descend, target: SortTarget::Mod, ..limited.clone() };
    let (answer, _, records) = read(&state, &by_mod);
    assert_eq!((places(&answer), answer.more, records), (vec![KEYS - 1, KEYS - 2, KEYS - 3], true, 3));
    let by_value = Range { order: SortOrder::Ascend, target: SortTarget::Value, ..limited.clone() };
    let (answer, _, records) = read(&state, &by_value);
    assert_eq!((places(&answer), records), (vec![KEYS - 1, KEYS - 2, KEYS - 3], KEYS));
    let keys_only = Range { keys_only: true, limit: None, ..limited.clone() };
    assert_eq!(read(&state, &keys_only).2, 0, "no key has a lease: nothing to fetch");
    assert_eq!(read(&state, &Range { count_only: true, ..limited }).2, 0);
}

#[test]
fn dead_keys_cost_chunks_but_never_end_a_scan() {
    let mut state = filled();
    let middle = KeyRange { start: key(10), end: RangeEnd::Before(key(KEYS - 10)) };
    let answer = apply(&mut state, &Command::DeleteRange(DeleteRange { range: middle, prev_kv: false }));
    let Response::DeleteRange(answer) = answer else { panic!("of the command's kind") };
    assert_eq!(answer.deleted, KEYS as u64 - 20);
    let (answer, chunks, _) = read(&state, &all());
    assert_eq!((answer.kvs.len(), chunks), (20, 5));
    let revision = state.head().revision.get();
    apply(&mut state, &Command::Compact(Compact { revision: i64::try_from(revision).unwrap() }));
    assert_eq!(state.drop_compacted(Revision::new(revision), None, usize::MAX), None);
    assert_eq!(state.keys(), KEYS, "tombstones at the compact revision stay");
    let put = Put {
        key: key(0),
        value: Bytes::new(),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    apply(&mut state, &Command::Put(put));
    apply(&mut state, &Command::Compact(Compact { revision: i64::try_from(revision).unwrap() + 1 }));
    let mut steps = 0;
    let compacted = Revision::new(revision + 1);
    let mut after = state.drop_compacted(compacted, None, 100);
    while let Some(next) = after {
        steps += 1;
        after = state.drop_compacted(compacted, Some(&next), 100);
    }
    assert_eq!(steps, KEYS / 100, "one step per 100 keys visited");
    assert_eq!(state.keys(), 20);
    let (answer, chunks, _) = read(&state, &all());
    assert_eq!((answer.kvs.len(), chunks), (20, 1));
}
