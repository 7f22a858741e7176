//! What is written can be read, in the bytes that older logs hold.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_mvcc::auth::{Access, AuthChange, AuthRevision, Authenticate, Checked, Permission, TokenDigest};
use holdfast_mvcc::command::{
    Alarm, AlarmKind, Command, Compact, Compare, DeleteRange, LeaseCheckpoint, LeaseExpire, LeaseGrant,
    LeaseRemaining, MemberAttributes, Op, Operand, Put, Range, ReadAt, Relation, SortOrder, SortTarget, Txn,
};
use holdfast_mvcc::types::{KeyRange, LeaseId, LeaseRef, LogIndex, MemberId, RangeEnd, Revision, Term};
use holdfast_mvcc::validate::{TXN_DEPTH_MAX, validate};

use super::*;

fn put(key: &'static str) -> Put {
    Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"value"),
        lease: Some(LeaseId(-7)),
        prev_kv: true,
        ignore_value: false,
        ignore_lease: true,
    }
}

fn range(end: RangeEnd) -> KeyRange {
    KeyRange { start: Bytes::from_static(b"start"), end }
}

fn unbounded_read() -> Range {
    Range {
        range: range(RangeEnd::Unbounded),
        limit: Some(0),
        at: ReadAt::Revision(Revision::new(9)),
        order: SortOrder::Descend,
        target: SortTarget::Value,
        keys_only: true,
        count_only: false,
        min_mod_revision: Revision::new(1),
        max_mod_revision: Revision::new(2),
        min_create_revision: Revision::new(3),
        max_create_revision: Revision::new(4),
    }
}

fn every_command() -> Vec<Command> {
    let compares = [
        (Operand::Version(-1), Relation::Equal),
        (Operand::Create(0), Relation::Greater),
        (Operand::Mod(i64::MAX), Relation::Less),
        (Operand::Value(Bytes::new()), Relation::NotEqual),
        (Operand::Lease(3), Relation::Equal),
    ];
    let compares = compares
        .into_iter()
        .map(|(operand, relation)| Compare { range: range(RangeEnd::Single), relation, operand })
        .collect();
    let inner = Txn { compares: Vec::new(), success: vec![Op::Unset], failure: vec![Op::Put(put("inner"))] };
    let delete = DeleteRange { range: range(RangeEnd::Before(Bytes::new())), prev_kv: true };
    let ops =
        vec![Op::Range(unbounded_read()), Op::Put(put("a")), Op::DeleteRange(delete.clone()), Op::Txn(inner)];
    vec![
        Command::Put(put("key")),
        Command::DeleteRange(delete),
        Command::Txn(Txn { compares, success: ops, failure: Vec::new() }),
        Command::Compact(Compact { revision: -5 }),
        Command::PublishMember(MemberAttributes {
            id: MemberId(u64::MAX),
            name: "a".to_owned(),
            client_urls: vec!["http://x:1".to_owned(), "http://y:2".to_owned()],
        }),
        Command::RaiseAlarm(Alarm { member: MemberId(u64::MAX), kind: AlarmKind::Corrupt }),
        Command::ClearAlarm(Alarm { member: MemberId(0), kind: AlarmKind::NoSpace }),
        Command::LeaseGrant(LeaseGrant { id: LeaseId(-7), ttl_seconds: u64::MAX }),
        Command::LeaseRevoke(LeaseId(i64::MAX)),
        Command::LeaseExpire(LeaseExpire {
            term: Term(9),
            leases: vec![lease_ref(3, 8), lease_ref(-1, u64::MAX)],
        }),
        Command::LeaseCheckpoint(LeaseCheckpoint {
            term: Term(u64::MAX),
            remaining: vec![
                LeaseRemaining { lease: lease_ref(1, 0), seconds: Some(0) },
                LeaseRemaining { lease: lease_ref(2, 1), seconds: None },
            ],
        }),
    ]
    .into_iter()
    .chain(every_auth_change().map(Command::Auth))
    .collect()
}

fn every_auth_change() -> impl Iterator<Item = AuthChange> {
    let (name, role) = (|| "user".to_owned(), || "role".to_owned());
    let permissions = [
        (Access::Read, RangeEnd::Single),
        (Access::Write, RangeEnd::Unbounded),
        (Access::ReadWrite, RangeEnd::Before(Bytes::from_static(b"x"))),
    ];
    let grants = permissions.map(|(access, end)| AuthChange::RoleGrantPermission {
        role: role(),
        permission: Permission { access, range: range(end) },
    });
    let others = [
        AuthChange::Enable,
        AuthChange::Disable,
        AuthChange::UserAdd { name: name(), password_hash: None },
        AuthChange::UserAdd { name: name(), password_hash: Some(String::new()) },
        AuthChange::UserDelete { name: name() },
        AuthChange::UserChangePassword { name: name(), password_hash: "hash".to_owned() },
        AuthChange::UserGrantRole { user: name(), role: role() },
        AuthChange::UserRevokeRole { user: name(), role: role() },
        AuthChange::RoleAdd { name: role() },
        AuthChange::RoleDelete { name: role() },
        AuthChange::RoleRevokePermission { role: role(), range: range(RangeEnd::Unbounded) },
        AuthChange::Authenticate(Authenticate {
            user: name(),
            at: AuthRevision::new(u64::MAX),
            token: TokenDigest([7; 32]),
        }),
    ];
    others.into_iter().chain(grants)
}

/// For who is nobody: the shortest.
fn proposal(origin: u64, sequence: u64, command: Command) -> Proposal {
    Proposal { origin, sequence, command, caller: Caller::Nobody }
}

fn lease_ref(id: i64, granted_at: u64) -> LeaseRef {
    LeaseRef { id: LeaseId(id), granted_at: LogIndex(granted_at) }
}

#[test]
fn every_command_comes_back() {
    for command in every_command() {
        let bytes = encode_proposal(proposal(1, u64::MAX, command.clone()));
        match decode_body(bytes).unwrap() {
            EntryBody::Proposal(proposal) => {
                assert_eq!((proposal.origin, proposal.sequence), (1, u64::MAX));
                assert_eq!(proposal.command, command);
            }
            other => panic!("not a proposal: {other:?}"),
        }
    }
}

#[test]
fn every_caller_comes_back() {
    let user = Caller::User(Checked { user: "bob".into(), at: AuthRevision::new(3) });
    for caller in [Caller::Server, Caller::Nobody, user] {
        let command = Command::Compact(Compact { revision: 1 });
        let proposed = Proposal { caller: caller.clone(), ..proposal(1, 2, command) };
        match decode_body(encode_proposal(proposed)).unwrap() {
            EntryBody::Proposal(proposal) => assert_eq!(proposal.caller, caller),
            other => panic!("not a proposal: {other:?}"),
        }
    }
}

/// protobuf's reader gives up at some depth of messages: what is valid must stay above it, or a committed entry could
/// not be applied by any member.
#[test]
fn the_deepest_valid_transaction_comes_back() {
    let compare = Compare {
        range: range(RangeEnd::Unbounded),
        relation: Relation::Equal,
        operand: Operand::Value(Bytes::from_static(b"v")),
    };
    let delete = DeleteRange { range: range(RangeEnd::Unbounded), prev_kv: true };
    for leaf in
        [Op::Range(unbounded_read()), Op::DeleteRange(delete), Op::Put(Put { lease: None, ..put("k") })]
    {
        let innermost =
            Txn { compares: vec![compare.clone()], success: vec![leaf.clone()], failure: vec![leaf] };
        let txn = (1..TXN_DEPTH_MAX).fold(innermost, |inner, _| Txn {
            compares: vec![compare.clone()],
            success: Vec::new(),
            failure: vec![Op::Txn(inner)],
        });
        let command = Command::Txn(txn);
        assert_eq!(validate(&command, usize::MAX), Ok(()));
        match decode_body(encode_proposal(proposal(u64::MAX, u64::MAX, command.clone()))).unwrap() {
            EntryBody::Proposal(proposal) => assert_eq!(proposal.command, command),
            other => panic!("not a proposal: {other:?}"),
        }
    }
}

#[test]
fn proposals_are_recognised_without_decoding() {
    let id = log_id_from_proto(pb::LogId { term: 3, index: 4 });
    for command in every_command() {
        let bytes = encode_proposal(proposal(0, 0, command));
        let entry = decode_entry(id, bytes.clone()).unwrap();
        assert!(matches!(entry.payload, EntryPayload::Normal(Payload(same)) if same == bytes));
    }
    let blank = decode_entry(id, encode_payload(EntryPayload::Blank)).unwrap();
    assert!(matches!(blank.payload, EntryPayload::Blank));
}

#[test]
fn memberships_and_votes_come_back() {
    let node =
        |url: &str| PeerNode { peer_urls: vec![url.to_owned()].into(), votes_later: url.ends_with('1') };
    let nodes = BTreeMap::from([(1, node("http://a:1")), (2, node("http://b:2")), (9, node("http://c:3"))]);
    let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
    let membership = Membership::new(configs, nodes).unwrap();
    assert_eq!(decode_membership(encode_membership(&membership)).unwrap(), membership);
    for committed in [false, true] {
        let cast = vote(5, 6, committed);
        assert_eq!(decode_vote(encode_vote(&cast)).unwrap(), cast);
    }
}

#[test]
fn stored_bytes_stay_as_they_are() {
    let put = Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let bytes = encode_proposal(proposal(1, 2, Command::Put(put)));
    let origin_and_sequence = [9, 1, 0, 0, 0, 0, 0, 0, 0, 17, 2, 0, 0, 0, 0, 0, 0, 0];
    let command = [26, 8, 10, 6, 10, 1, b'k', 18, 1, b'v'];
    let mut golden = vec![1, 26, 28];
    golden.extend(origin_and_sequence);
    golden.extend(command);
    assert_eq!(bytes, golden);
    assert_eq!(encode_payload(EntryPayload::Blank), [1, 10, 0].as_slice());
    assert_eq!(encode_vote(&vote(3, 4, true)), [1, 8, 3, 17, 4, 0, 0, 0, 0, 0, 0, 0, 24, 1].as_slice());
}

#[test]
fn other_formats_are_refused() {
    assert!(matches!(decode_vote(Bytes::new()), Err(CodecError::Empty)));
    assert!(matches!(decode_vote(Bytes::from_static(&[2, 8, 3])), Err(CodecError::Format { found: 2 })));
    assert!(matches!(decode_body(Bytes::from_static(&[1])), Err(CodecError::Missing(_))));
}
