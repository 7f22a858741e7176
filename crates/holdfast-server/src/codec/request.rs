//! Requests from the wire.

use bytes::Bytes;
use holdfast_mvcc::command::{
    Command, Compact, Compare, DeleteRange, Op, Operand, Put, Range, ReadAt, Relation, SortOrder, SortTarget,
    Txn,
};
use holdfast_mvcc::types::{KeyRange, LeaseId, RangeEnd, Revision};
use holdfast_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};

use crate::limits::COPY_BYTES_MAX;

/// A request whose numbers mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// `sort_order` or `sort_target` is no known number.
    #[error("unknown sort order or sort target")]
    SortOption,
    /// A compare's `result` or `target` is no known number.
    #[error("unknown compare result or compare target")]
    CompareOption,
}

/// A read, and whether it may be answered from local state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedRange {
    /// The read.
    pub range: Range,
    /// True when the client accepts a possibly stale answer.
    pub serializable: bool,
}

/// A transaction, and whether all its reads may be answered from local state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedTxn {
    /// The transaction.
    pub txn: Txn,
    /// True when every read directly in it is serializable.
    pub serializable: bool,
}

/// A put.
pub fn put(request: pb::PutRequest) -> Put {
    Put {
        key: own(request.key),
        value: own(request.value),
        lease: (request.lease != 0).then_some(LeaseId(request.lease)),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete.
pub fn delete_range(request: pb::DeleteRangeRequest) -> DeleteRange {
    DeleteRange { range: key_range(request.key, request.range_end), prev_kv: request.prev_kv }
}

/// A compaction.
pub fn compact(request: &pb::CompactionRequest) -> Command {
    Command::Compact(Compact { revision: request.revision })
}

/// A read.
pub fn range(request: pb::RangeRequest) -> Result<DecodedRange, DecodeError> {
    let order = match pb::range_request::SortOrder::try_from(request.sort_order) {
        Ok(pb::range_request::SortOrder::None) => SortOrder::None,
        Ok(pb::range_request::SortOrder::Ascend) => SortOrder::Ascend,
        Ok(pb::range_request::SortOrder::Descend) => SortOrder::Descend,
        Err(_) => return Err(DecodeError::SortOption),
    };
    let target = match pb::range_request::SortTarget::try_from(request.sort_target) {
        Ok(pb::range_request::SortTarget::Key) => SortTarget::Key,
        Ok(pb::range_request::SortTarget::Version) => SortTarget::Version,
        Ok(pb::range_request::SortTarget::Create) => SortTarget::Create,
        Ok(pb::range_request::SortTarget::Mod) => SortTarget::Mod,
        Ok(pb::range_request::SortTarget::Value) => SortTarget::Value,
        Err(_) => return Err(DecodeError::SortOption),
    };
    let range = Range {
        range: key_range(request.key, request.range_end),
        limit: u64::try_from(request.limit).ok().filter(|limit| *limit > 0),
        at: match u64::try_from(request.revision) {
            Ok(revision) if revision > 0 => ReadAt::Revision(Revision::new(revision)),
            _ => ReadAt::Latest,
        },
        order,
        target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: bound(request.min_mod_revision, Below::Off),
        max_mod_revision: bound(request.max_mod_revision, Below::Nothing),
        min_create_revision: bound(request.min_create_revision, Below::Off),
        max_create_revision: bound(request.max_create_revision, Below::Nothing),
    };
    Ok(DecodedRange { range, serializable: request.serializable })
}

/// A transaction.
pub fn txn(request: pb::TxnRequest) -> Result<DecodedTxn, DecodeError> {
    let serializable = request.success.iter().chain(&request.failure).all(
        |op| matches!(&op.request, Some(pb::request_op::Request::RequestRange(range)) if range.serializable),
    );
    Ok(DecodedTxn { txn: inner_txn(request)?, serializable })
}

fn inner_txn(request: pb::TxnRequest) -> Result<Txn, DecodeError> {
    Ok(Txn {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(op).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(op).collect::<Result<_, _>>()?,
    })
}

// Recursive with the request's own nesting, which prost has bounded while it decoded the message.
fn op(request: pb::RequestOp) -> Result<Op, DecodeError> {
    use pb::request_op::Request;
    Ok(match request.request {
        Some(Request::RequestRange(inner)) => Op::Range(range(inner)?.range),
        Some(Request::RequestPut(inner)) => Op::Put(put(inner)),
        Some(Request::RequestDeleteRange(inner)) => Op::DeleteRange(delete_range(inner)),
        Some(Request::RequestTxn(inner)) => Op::Txn(inner_txn(inner)?),
        None => Op::Unset,
    })
}

/// A condition. An operand of another kind than the target counts as zero or empty, as in etcd.
fn compare(request: pb::Compare) -> Result<Compare, DecodeError> {
    let relation = match CompareResult::try_from(request.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Err(_) => return Err(DecodeError::CompareOption),
    };
    let given = request.target_union;
    let operand = match CompareTarget::try_from(request.target) {
        Ok(CompareTarget::Version) => Operand::Version(match given {
            Some(TargetUnion::Version(number)) => number,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => Operand::Create(match given {
            Some(TargetUnion::CreateRevision(number)) => number,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => Operand::Mod(match given {
            Some(TargetUnion::ModRevision(number)) => number,
            _ => 0,
        }),
        Ok(CompareTarget::Value) => Operand::Value(match given {
            Some(TargetUnion::Value(value)) => own(value),
            _ => Bytes::new(),
        }),
        Ok(CompareTarget::Lease) => Operand::Lease(match given {
            Some(TargetUnion::Lease(number)) => number,
            _ => 0,
        }),
        Err(_) => return Err(DecodeError::CompareOption),
    };
    Ok(Compare { range: key_range(request.key, request.range_end), relation, operand })
}

/// Empty end: the one key. One zero byte: everything from the key on. Else: up to, not including, the end.
pub fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    let end = match range_end.as_ref() {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Unbounded,
        _ => RangeEnd::Before(own(range_end)),
    };
    KeyRange { start: own(key), end }
}

/// What a bound below zero means. Revisions are positive: a negative lower bound holds for all of them, a negative
/// upper bound for none.
#[derive(Clone, Copy)]
enum Below {
    Off,
    Nothing,
}

fn bound(wire: i64, below: Below) -> Revision {
    match (u64::try_from(wire), below) {
        (Ok(revision), _) => Revision::new(revision),
        (Err(_), Below::Off) => Revision::NONE,
        // A fresh store is at revision 1 and has no keys: every key's revisions are above it.
        (Err(_), Below::Nothing) => Revision::FRESH,
    }
}

/// Detaches a small field from its receive buffer, which is at least 8 KiB and would stay alive as long as the key.
fn own(field: Bytes) -> Bytes {
    if field.len() <= COPY_BYTES_MAX { Bytes::copy_from_slice(&field) } else { field }
}
