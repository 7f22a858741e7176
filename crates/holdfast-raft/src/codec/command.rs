//! Commands of the replicated core as protobuf messages, and back.

use holdfast_mvcc::command::{
    Alarm, AlarmKind, Command, Compact, Compare, DeleteRange, LeaseCheckpoint, LeaseExpire, LeaseGrant,
    LeaseRemaining, MemberAttributes, Op, Operand, Put, Range, ReadAt, Relation, SortOrder, SortTarget, Txn,
};
use holdfast_mvcc::types::{KeyRange, LeaseId, LeaseRef, LogIndex, MemberId, RangeEnd, Revision, Term};
use holdfast_proto::internal as pb;

use super::{CodecError, auth};

pub(super) fn to_proto(command: Command) -> pb::Command {
    use pb::command::Kind;
    let kind = match command {
        Command::Put(put) => Kind::Put(put_to_proto(put)),
        Command::DeleteRange(delete) => Kind::DeleteRange(delete_to_proto(delete)),
        Command::Txn(txn) => Kind::Txn(txn_to_proto(txn)),
        Command::Compact(compact) => Kind::Compact(pb::Compact { revision: compact.revision }),
        Command::PublishMember(member) => Kind::PublishMember(pb::PublishMember {
            id: member.id.0,
            name: member.name,
            client_urls: member.client_urls,
        }),
        Command::RaiseAlarm(alarm) => Kind::RaiseAlarm(alarm_to_proto(alarm)),
        Command::ClearAlarm(alarm) => Kind::ClearAlarm(alarm_to_proto(alarm)),
        Command::LeaseGrant(grant) => {
            Kind::LeaseGrant(pb::LeaseGrant { id: grant.id.0, ttl_seconds: grant.ttl_seconds })
        }
        Command::LeaseRevoke(lease) => Kind::LeaseRevoke(pb::LeaseRevoke { id: lease.0 }),
        Command::LeaseExpire(expire) => Kind::LeaseExpire(pb::LeaseExpire {
            term: expire.term.0,
            leases: expire.leases.into_iter().map(lease_ref_to_proto).collect(),
        }),
        Command::LeaseCheckpoint(checkpoint) => Kind::LeaseCheckpoint(checkpoint_to_proto(checkpoint)),
        Command::Auth(change) => Kind::Auth(auth::to_proto(change)),
    };
    pb::Command { kind: Some(kind) }
}

pub(super) fn from_proto(proto: pb::Command) -> Result<Command, CodecError> {
    use pb::command::Kind;
    Ok(match proto.kind.ok_or(CodecError::Missing("command kind"))? {
        Kind::Put(put) => Command::Put(put_from_proto(put)),
        Kind::DeleteRange(delete) => Command::DeleteRange(delete_from_proto(delete)?),
        Kind::Txn(txn) => Command::Txn(txn_from_proto(txn)?),
        Kind::Compact(compact) => Command::Compact(Compact { revision: compact.revision }),
        Kind::PublishMember(member) => Command::PublishMember(MemberAttributes {
            id: MemberId(member.id),
            name: member.name,
            client_urls: member.client_urls,
        }),
        Kind::RaiseAlarm(alarm) => Command::RaiseAlarm(alarm_from_proto(alarm)?),
        Kind::ClearAlarm(alarm) => Command::ClearAlarm(alarm_from_proto(alarm)?),
        Kind::LeaseGrant(grant) => {
            Command::LeaseGrant(LeaseGrant { id: LeaseId(grant.id), ttl_seconds: grant.ttl_seconds })
        }
        Kind::LeaseRevoke(revoke) => Command::LeaseRevoke(LeaseId(revoke.id)),
        Kind::LeaseExpire(expire) => Command::LeaseExpire(LeaseExpire {
            term: Term(expire.term),
            leases: expire.leases.into_iter().map(lease_ref_from_proto).collect(),
        }),
        Kind::LeaseCheckpoint(checkpoint) => Command::LeaseCheckpoint(checkpoint_from_proto(checkpoint)?),
        Kind::Auth(change) => Command::Auth(auth::from_proto(change)?),
    })
}

fn checkpoint_to_proto(checkpoint: LeaseCheckpoint) -> pb::LeaseCheckpoint {
    let remaining = checkpoint.remaining.into_iter();
    let remaining = remaining.map(|left| pb::LeaseRemaining {
        lease: Some(lease_ref_to_proto(left.lease)),
        seconds: left.seconds,
    });
    pb::LeaseCheckpoint { term: checkpoint.term.0, remaining: remaining.collect() }
}

fn checkpoint_from_proto(proto: pb::LeaseCheckpoint) -> Result<LeaseCheckpoint, CodecError> {
    let remaining = proto.remaining.into_iter();
    let remaining = remaining.map(|left| {
        let lease = lease_ref_from_proto(left.lease.ok_or(CodecError::Missing("lease"))?);
        Ok::<_, CodecError>(LeaseRemaining { lease, seconds: left.seconds })
    });
    Ok(LeaseCheckpoint { term: Term(proto.term), remaining: remaining.collect::<Result<_, _>>()? })
}

fn lease_ref_to_proto(lease: LeaseRef) -> pb::LeaseRef {
    pb::LeaseRef { id: lease.id.0, granted_at: lease.granted_at.0 }
}

fn lease_ref_from_proto(proto: pb::LeaseRef) -> LeaseRef {
    LeaseRef { id: LeaseId(proto.id), granted_at: LogIndex(proto.granted_at) }
}

fn alarm_to_proto(alarm: Alarm) -> pb::Alarm {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmKind::NoSpace,
        AlarmKind::Corrupt => pb::AlarmKind::Corrupt,
    };
    pb::Alarm { member: alarm.member.0, kind: kind.into() }
}

fn alarm_from_proto(proto: pb::Alarm) -> Result<Alarm, CodecError> {
    let kind = match proto.kind() {
        pb::AlarmKind::NoSpace => AlarmKind::NoSpace,
        pb::AlarmKind::Corrupt => AlarmKind::Corrupt,
        pb::AlarmKind::Unspecified => return Err(CodecError::Missing("alarm kind")),
    };
    Ok(Alarm { member: MemberId(proto.member), kind })
}

pub(super) fn range_to_proto(range: KeyRange) -> pb::KeyRange {
    use pb::key_range::End;
    let end = match range.end {
        RangeEnd::Single => None,
        RangeEnd::Before(key) => Some(End::Before(key)),
        RangeEnd::Unbounded => Some(End::Unbounded(pb::Unbounded {})),
    };
    pb::KeyRange { start: range.start, end }
}

pub(super) fn range_from_proto(proto: Option<pb::KeyRange>) -> Result<KeyRange, CodecError> {
    use pb::key_range::End;
    let proto = proto.ok_or(CodecError::Missing("key range"))?;
    let end = match proto.end {
        None => RangeEnd::Single,
        Some(End::Before(key)) => RangeEnd::Before(key),
        Some(End::Unbounded(_)) => RangeEnd::Unbounded,
    };
    Ok(KeyRange { start: proto.start, end })
}

fn put_to_proto(put: Put) -> pb::Put {
    pb::Put {
        key: put.key,
        value: put.value,
        lease: put.lease.map_or(0, |lease| lease.0),
        prev_kv: put.prev_kv,
        ignore_value: put.ignore_value,
        ignore_lease: put.ignore_lease,
    }
}

fn put_from_proto(proto: pb::Put) -> Put {
    Put {
        key: proto.key,
        value: proto.value,
        lease: (proto.lease != 0).then_some(LeaseId(proto.lease)),
        prev_kv: proto.prev_kv,
        ignore_value: proto.ignore_value,
        ignore_lease: proto.ignore_lease,
    }
}

fn delete_to_proto(delete: DeleteRange) -> pb::DeleteRange {
    pb::DeleteRange { range: Some(range_to_proto(delete.range)), prev_kv: delete.prev_kv }
}

fn delete_from_proto(proto: pb::DeleteRange) -> Result<DeleteRange, CodecError> {
    Ok(DeleteRange { range: range_from_proto(proto.range)?, prev_kv: proto.prev_kv })
}

fn read_to_proto(range: Range) -> pb::Range {
    let order = match range.order {
        SortOrder::None => pb::SortOrder::None,
        SortOrder::Ascend => pb::SortOrder::Ascend,
        SortOrder::Descend => pb::SortOrder::Descend,
    };
    let target = match range.target {
        SortTarget::Key => pb::SortTarget::Key,
        SortTarget::Version => pb::SortTarget::Version,
        SortTarget::Create => pb::SortTarget::Create,
        SortTarget::Mod => pb::SortTarget::Mod,
        SortTarget::Value => pb::SortTarget::Value,
    };
    pb::Range {
        range: Some(range_to_proto(range.range)),
        limit: range.limit,
        at_revision: match range.at {
            ReadAt::Latest => None,
            ReadAt::Revision(revision) => Some(revision.get()),
        },
        order: order.into(),
        target: target.into(),
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision.get(),
        max_mod_revision: range.max_mod_revision.get(),
        min_create_revision: range.min_create_revision.get(),
        max_create_revision: range.max_create_revision.get(),
    }
}

fn read_from_proto(proto: pb::Range) -> Result<Range, CodecError> {
    let order = pb::SortOrder::try_from(proto.order).map_err(|_| CodecError::Missing("sort order"))?;
    let target = pb::SortTarget::try_from(proto.target).map_err(|_| CodecError::Missing("sort target"))?;
    Ok(Range {
        range: range_from_proto(proto.range)?,
        limit: proto.limit,
        at: proto.at_revision.map_or(ReadAt::Latest, |revision| ReadAt::Revision(Revision::new(revision))),
        order: match order {
            pb::SortOrder::None => SortOrder::None,
            pb::SortOrder::Ascend => SortOrder::Ascend,
            pb::SortOrder::Descend => SortOrder::Descend,
        },
        target: match target {
            pb::SortTarget::Key => SortTarget::Key,
            pb::SortTarget::Version => SortTarget::Version,
            pb::SortTarget::Create => SortTarget::Create,
            pb::SortTarget::Mod => SortTarget::Mod,
            pb::SortTarget::Value => SortTarget::Value,
        },
        keys_only: proto.keys_only,
        count_only: proto.count_only,
        min_mod_revision: Revision::new(proto.min_mod_revision),
        max_mod_revision: Revision::new(proto.max_mod_revision),
        min_create_revision: Revision::new(proto.min_create_revision),
        max_create_revision: Revision::new(proto.max_create_revision),
    })
}

fn txn_to_proto(txn: Txn) -> pb::Txn {
    pb::Txn {
        compares: txn.compares.into_iter().map(compare_to_proto).collect(),
        success: txn.success.into_iter().map(op_to_proto).collect(),
        failure: txn.failure.into_iter().map(op_to_proto).collect(),
    }
}

fn txn_from_proto(proto: pb::Txn) -> Result<Txn, CodecError> {
    Ok(Txn {
        compares: proto.compares.into_iter().map(compare_from_proto).collect::<Result<_, _>>()?,
        success: proto.success.into_iter().map(op_from_proto).collect::<Result<_, _>>()?,
        failure: proto.failure.into_iter().map(op_from_proto).collect::<Result<_, _>>()?,
    })
}

fn op_to_proto(op: Op) -> pb::Op {
    use pb::op::Kind;
    let kind = match op {
        Op::Range(range) => Some(Kind::Range(read_to_proto(range))),
        Op::Put(put) => Some(Kind::Put(put_to_proto(put))),
        Op::DeleteRange(delete) => Some(Kind::DeleteRange(delete_to_proto(delete))),
        Op::Txn(txn) => Some(Kind::Txn(txn_to_proto(txn))),
        Op::Unset => None,
    };
    pb::Op { kind }
}

fn op_from_proto(proto: pb::Op) -> Result<Op, CodecError> {
    use pb::op::Kind;
    Ok(match proto.kind {
        Some(Kind::Range(range)) => Op::Range(read_from_proto(range)?),
        Some(Kind::Put(put)) => Op::Put(put_from_proto(put)),
        Some(Kind::DeleteRange(delete)) => Op::DeleteRange(delete_from_proto(delete)?),
        Some(Kind::Txn(txn)) => Op::Txn(txn_from_proto(txn)?),
        None => Op::Unset,
    })
}

fn compare_to_proto(compare: Compare) -> pb::Compare {
    use pb::compare::Operand as To;
    let relation = match compare.relation {
        Relation::Equal => pb::Relation::Equal,
        Relation::Greater => pb::Relation::Greater,
        Relation::Less => pb::Relation::Less,
        Relation::NotEqual => pb::Relation::NotEqual,
    };
    let operand = match compare.operand {
        Operand::Version(version) => To::Version(version),
        Operand::Create(revision) => To::Create(revision),
        Operand::Mod(revision) => To::Mod(revision),
        Operand::Value(value) => To::Value(value),
        Operand::Lease(lease) => To::Lease(lease),
    };
    pb::Compare {
        range: Some(range_to_proto(compare.range)),
        relation: relation.into(),
        operand: Some(operand),
    }
}

fn compare_from_proto(proto: pb::Compare) -> Result<Compare, CodecError> {
    use pb::compare::Operand as From;
    let relation = pb::Relation::try_from(proto.relation).map_err(|_| CodecError::Missing("relation"))?;
    Ok(Compare {
        range: range_from_proto(proto.range)?,
        relation: match relation {
            pb::Relation::Equal => Relation::Equal,
            pb::Relation::Greater => Relation::Greater,
            pb::Relation::Less => Relation::Less,
            pb::Relation::NotEqual => Relation::NotEqual,
        },
        operand: match proto.operand.ok_or(CodecError::Missing("operand"))? {
            From::Version(version) => Operand::Version(version),
            From::Create(revision) => Operand::Create(revision),
            From::Mod(revision) => Operand::Mod(revision),
            From::Value(value) => Operand::Value(value),
            From::Lease(lease) => Operand::Lease(lease),
        },
    })
}
