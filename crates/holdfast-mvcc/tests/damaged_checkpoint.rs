//! A checkpoint with any bit flipped: it is refused, or it is one that could have been. It never stops the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::convert::Infallible;

use bytes::Bytes;
use holdfast_mvcc::checkpoint::{Loading, Part, Saved, Saving, Unusable};
use holdfast_mvcc::command::{Command, Compact, DeleteRange, Put};
use holdfast_mvcc::types::{EntryId, KeyRange, LogIndex, PutRecord, RangeEnd, RecordId, Revision, Term};
use holdfast_mvcc::{PutMeta, RecordMeta, State, Values};

/// Nothing here depends on it.
const ENTRY: EntryId = EntryId { term: Term(1), index: LogIndex(1) };

struct NoValues;

impl Values for NoValues {
    type Error = Infallible;
    fn record(&mut self, _: &Bytes, _: RecordId) -> Result<PutRecord, Infallible> {
        panic!("nothing here asks for a value")
    }
}

fn apply(state: &mut State, command: &Command) {
    let Ok(outcome) = state.evaluate(ENTRY, command, &mut NoValues);
    outcome.response.unwrap();
}

fn key(n: usize) -> Bytes {
    Bytes::from(format!("key/{n:02}"))
}

fn put(n: usize) -> Command {
    let value = Bytes::from(vec![b'v'; 3 * n]);
    Command::Put(Put {
        key: key(n),
        value,
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn delete(start: usize, end: usize) -> Command {
    let range = KeyRange { start: key(start), end: RangeEnd::Before(key(end)) };
    Command::DeleteRange(DeleteRange { range, prev_kv: false })
}

/// Keys with one and with many records, tombstones and later generations.
fn written() -> (State, Saved, Vec<(Part, Vec<u8>)>) {
    let mut state = State::new();
    for round in 0..4 {
        (0..12).filter(|n| (n + round) % 3 > 0).for_each(|n| apply(&mut state, &put(n)));
        apply(&mut state, &put(round));
        apply(&mut state, &delete(2 * round, 2 * round + 3));
    }
    apply(&mut state, &Command::Compact(Compact { revision: 15 }));
    let mut saving = Saving::begin(&state);
    let mut parts = Vec::new();
    loop {
        let mut piece = Vec::new();
        let Some(part) = saving.piece(&state, 5, &mut piece).unwrap() else { break };
        parts.push((part, piece));
    }
    (state, saving.finish(), parts)
}

/// A record of each key behind the checkpoint.
fn behind(state: &mut State) -> Vec<RecordMeta> {
    let mut records = Vec::new();
    for n in 0..12 {
        let range = KeyRange { start: key(n), end: RangeEnd::Single };
        let before = state.chunk(&range, None, state.head().revision, 1).keys.pop();
        apply(state, &put(n));
        let revision = state.head().revision;
        let (create_revision, version) =
            before.map_or((revision, 1), |before| (before.create_revision, before.version + 1));
        let put =
            PutMeta { create_revision, version, lease: None, value_bytes: u32::try_from(3 * n).unwrap() };
        records.push(RecordMeta { id: RecordId::new(revision, 0), key: key(n), put: Some(put) });
    }
    records
}

fn load(
    state: &State,
    saved: Saved,
    parts: &[(Part, Vec<u8>)],
    behind: &[RecordMeta],
) -> Result<State, Unusable> {
    let mut loading = Loading::begin(state.head().clone(), saved)?;
    for (part, piece) in parts {
        loading.add(*part, piece)?;
    }
    loading.restore_all(behind)?;
    loading.finish()
}

#[test]
fn a_flipped_bit_never_stops_the_process() {
    let (mut state, saved, parts) = written();
    let behind = behind(&mut state);
    apply(&mut state, &Command::Compact(Compact { revision: i64::try_from(saved.since.get()).unwrap() }));
    assert_eq!(load(&state, saved, &parts, &behind).unwrap().digest(), state.digest());
    let (mut flipped, mut refused) = (0, 0);
    for number in 0..parts.len() {
        for bit in 0..8 * parts[number].1.len() {
            let mut parts = parts.clone();
            parts[number].1[bit / 8] ^= 1 << (bit % 8);
            flipped += 1;
            refused += usize::from(load(&state, saved, &parts, &behind).is_err());
        }
        for end in 0..parts[number].1.len() {
            let mut parts = parts.clone();
            parts[number].1.truncate(end);
            assert!(load(&state, saved, &parts, &behind).is_err(), "{:?} cut at {end}", parts[number].0);
        }
    }
    assert!(flipped > 1000 && 2 * refused > flipped, "{refused} of {flipped} were refused");
}

#[test]
fn numbers_that_contradict_each_other_are_refused() {
    let (state, saved, parts) = written();
    let far = Revision::new(u64::MAX);
    let doctored = [
        Saved { since: far, ..saved },
        Saved { through: far, ..saved },
        Saved { since: Revision::new(3), ..saved },
        Saved { through: Revision::new(saved.through.get() - 1), ..saved },
        Saved { compact_revision: Some(far), ..saved },
        Saved { logical_bytes: saved.logical_bytes + 1, ..saved },
        Saved { logical_bytes: u64::MAX, ..saved },
    ];
    assert!(load(&state, saved, &parts, &[]).is_ok());
    for saved in doctored {
        assert!(load(&state, saved, &parts, &[]).is_err(), "{saved:?}");
    }
}
