//! Alarms: what each forbids, on every replica alike.

use std::convert::Infallible;

use bytes::Bytes;
use holdfast_mvcc::command::{
    Alarm, AlarmKind, Command, Compact, DeleteRange, LeaseExpire, LeaseGrant, MemberAttributes, Op, Put,
    Refusal, Response, Txn,
};
use holdfast_mvcc::types::{
    EntryId, KeyRange, LeaseId, LeaseRef, LogIndex, MemberId, PutRecord, RangeEnd, RecordId, Revision, Term,
};
use holdfast_mvcc::{State, Values};

/// Nothing here depends on it.
const ENTRY: EntryId = EntryId { term: Term(1), index: LogIndex(1) };

struct NoValues;

impl Values for NoValues {
    type Error = Infallible;
    fn record(&mut self, _: &Bytes, _: RecordId) -> Result<PutRecord, Infallible> {
        panic!("nothing here needs a value")
    }
}

fn run(state: &mut State, command: &Command) -> Result<Response, Refusal> {
    let Ok(outcome) = state.evaluate(ENTRY, command, &mut NoValues);
    outcome.response
}

fn put() -> Put {
    Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::new(),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

fn txn(op: Op) -> Command {
    Command::Txn(Txn { compares: Vec::new(), success: Vec::new(), failure: vec![op] })
}

fn delete() -> DeleteRange {
    let range = KeyRange { start: Bytes::from_static(b"k"), end: RangeEnd::Single };
    DeleteRange { range, prev_kv: false }
}

fn grant(id: i64) -> LeaseGrant {
    LeaseGrant { id: LeaseId(id), ttl_seconds: 5 }
}

fn alarm(member: u64, kind: AlarmKind) -> Alarm {
    Alarm { member: MemberId(member), kind }
}

#[test]
fn missing_space_forbids_what_needs_some() {
    let mut state = State::new();
    let nospace = alarm(0, AlarmKind::NoSpace);
    run(&mut state, &Command::LeaseGrant(grant(3))).unwrap();
    assert_eq!(run(&mut state, &Command::RaiseAlarm(nospace)), Ok(Response::Alarm(Some(nospace))));
    assert_eq!(run(&mut state, &Command::Put(put())), Err(Refusal::NoSpace));
    assert_eq!(run(&mut state, &Command::LeaseGrant(grant(7))), Err(Refusal::NoSpace));
    assert_eq!(run(&mut state, &txn(Op::Put(put()))), Err(Refusal::NoSpace));
    assert!(run(&mut state, &txn(Op::DeleteRange(delete()))).is_ok());
    assert!(run(&mut state, &Command::DeleteRange(delete())).is_ok());
    assert!(run(&mut state, &Command::Compact(Compact { revision: 1 })).is_ok());
    assert!(run(&mut state, &Command::LeaseRevoke(LeaseId(3))).is_ok());
    assert_eq!(state.head().revision, Revision::FRESH);
    assert_eq!(run(&mut state, &Command::ClearAlarm(nospace)), Ok(Response::Alarm(Some(nospace))));
    assert_eq!(run(&mut state, &Command::ClearAlarm(nospace)), Ok(Response::Alarm(None)));
    assert!(run(&mut state, &Command::Put(put())).is_ok());
}

#[test]
fn differing_data_forbids_every_change() {
    let mut state = State::new();
    let corrupt = alarm(7, AlarmKind::Corrupt);
    let before = state.digest();
    run(&mut state, &Command::RaiseAlarm(corrupt)).unwrap();
    run(&mut state, &Command::RaiseAlarm(corrupt)).unwrap();
    assert_ne!(state.digest(), before);
    assert_eq!(state.head().alarms, [corrupt], "once");
    for command in [
        Command::Put(put()),
        txn(Op::DeleteRange(delete())),
        Command::DeleteRange(delete()),
        Command::Compact(Compact { revision: 1 }),
        Command::LeaseGrant(grant(7)),
        Command::LeaseRevoke(LeaseId(7)),
        Command::LeaseExpire(LeaseExpire {
            term: Term(1),
            leases: vec![LeaseRef { id: LeaseId(7), granted_at: LogIndex(1) }],
        }),
    ] {
        assert_eq!(run(&mut state, &command), Err(Refusal::Corrupt), "{command:?}");
    }
    let attributes = MemberAttributes { id: MemberId(7), name: "n".to_owned(), client_urls: Vec::new() };
    assert!(run(&mut state, &Command::PublishMember(attributes)).is_ok());
    // Another member's alarm stands when one is cleared.
    run(&mut state, &Command::RaiseAlarm(alarm(3, AlarmKind::Corrupt))).unwrap();
    run(&mut state, &Command::ClearAlarm(corrupt)).unwrap();
    assert_eq!(run(&mut state, &Command::Put(put())), Err(Refusal::Corrupt));
}
