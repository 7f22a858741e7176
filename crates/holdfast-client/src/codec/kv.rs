//! Requests on keys, and their answers.

use std::ops::RangeInclusive;

use bytes::Bytes;
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::{request_op, response_op};
use tonic::Status;

use super::{KeyValue, malformed, revision_of, signed, unsigned};
use crate::namespace::Namespace;
use crate::read::{ListOptions, Order, Page, Query, Read, SortBy, View};
use crate::txn::{Compare, Op, OpAnswer, Operand, Relation, Txn, TxnAnswer};
use crate::write::{Delete, DeleteAnswer, Put, PutAnswer, PutLease};

pub(crate) fn range_request(query: &Query, view: View, namespace: &Namespace) -> pb::RangeRequest {
    let (key, range_end) = namespace.range(&query.range);
    pb::RangeRequest {
        revision: signed(view.revision),
        serializable: view.serializable,
        count_only: query.count_only,
        ..list_request(key, range_end, &query.options)
    }
}

fn list_request(key: Bytes, range_end: Bytes, options: &ListOptions) -> pb::RangeRequest {
    let (min_mod_revision, max_mod_revision) = bounds(options.mod_revisions.as_ref());
    let (min_create_revision, max_create_revision) = bounds(options.create_revisions.as_ref());
    let (sort_target, sort_order) = match options.sort {
        None => (SortTarget::Key, SortOrder::None),
        Some((by, order)) => (sort_target(by), sort_order(order)),
    };
    pb::RangeRequest {
        key,
        range_end,
        limit: signed(options.limit),
        keys_only: options.keys_only,
        sort_target: sort_target.into(),
        sort_order: sort_order.into(),
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
        ..Default::default()
    }
}

/// The lowest and the highest revision, inclusive. On the wire 0 is no bound: no key is of the highest revision of all.
fn bounds(revisions: Option<&RangeInclusive<u64>>) -> (i64, i64) {
    match revisions {
        None => (0, 0),
        Some(revisions) if revisions.is_empty() || *revisions.end() == 0 => (i64::MAX, i64::MAX),
        Some(revisions) => (signed(*revisions.start()), signed(*revisions.end())),
    }
}

fn sort_target(by: SortBy) -> SortTarget {
    match by {
        SortBy::Key => SortTarget::Key,
        SortBy::Version => SortTarget::Version,
        SortBy::CreateRevision => SortTarget::Create,
        SortBy::ModRevision => SortTarget::Mod,
        SortBy::Value => SortTarget::Value,
    }
}

fn sort_order(order: Order) -> SortOrder {
    match order {
        Order::Ascending => SortOrder::Ascend,
        Order::Descending => SortOrder::Descend,
    }
}

pub(crate) fn read(answer: pb::RangeResponse, namespace: &Namespace) -> Result<Read<Page>, Status> {
    let revision = revision_of(answer.header.as_ref())?;
    Ok(Read { value: page(answer, namespace)?, revision })
}

fn page(answer: pb::RangeResponse, namespace: &Namespace) -> Result<Page, Status> {
    let items = kvs(answer.kvs, namespace)?;
    Ok(Page { items, more: answer.more, count: unsigned(answer.count) })
}

fn kvs(kvs: Vec<mvccpb::KeyValue>, namespace: &Namespace) -> Result<Vec<KeyValue>, Status> {
    kvs.into_iter().map(|kv| KeyValue::decode(kv, namespace)).collect()
}

fn previous(kv: Option<mvccpb::KeyValue>, namespace: &Namespace) -> Result<Option<KeyValue>, Status> {
    kv.map(|kv| KeyValue::decode(kv, namespace)).transpose()
}

pub(crate) fn put_request(put: Put, namespace: &Namespace) -> pb::PutRequest {
    let lease = match put.lease {
        PutLease::Attach(lease) => lease.0,
        PutLease::Detach | PutLease::Keep => 0,
    };
    pb::PutRequest {
        key: namespace.key(&put.key),
        ignore_value: put.value.is_none(),
        value: put.value.unwrap_or_default(),
        lease,
        ignore_lease: put.lease == PutLease::Keep,
        prev_kv: put.previous,
    }
}

pub(crate) fn put_answer(answer: pb::PutResponse, namespace: &Namespace) -> Result<PutAnswer, Status> {
    let revision = revision_of(answer.header.as_ref())?;
    Ok(PutAnswer { revision, previous: previous(answer.prev_kv, namespace)? })
}

pub(crate) fn delete_request(delete: &Delete, namespace: &Namespace) -> pb::DeleteRangeRequest {
    let (key, range_end) = namespace.range(&delete.range);
    pb::DeleteRangeRequest { key, range_end, prev_kv: delete.previous }
}

pub(crate) fn delete_answer(
    answer: pb::DeleteRangeResponse,
    namespace: &Namespace,
) -> Result<DeleteAnswer, Status> {
    Ok(DeleteAnswer {
        revision: revision_of(answer.header.as_ref())?,
        deleted: unsigned(answer.deleted),
        previous: kvs(answer.prev_kvs, namespace)?,
    })
}

pub(crate) fn txn_request(txn: Txn, namespace: &Namespace) -> pb::TxnRequest {
    let branch = |ops: Vec<Op>| ops.into_iter().map(|op| op_request(op, namespace)).collect();
    pb::TxnRequest {
        compare: txn.compares.into_iter().map(|compare| compare_request(compare, namespace)).collect(),
        success: branch(txn.then),
        failure: branch(txn.or_else),
    }
}

fn op_request(op: Op, namespace: &Namespace) -> pb::RequestOp {
    let request = match op {
        Op::Put(put) => request_op::Request::RequestPut(put_request(put, namespace)),
        Op::Delete(delete) => request_op::Request::RequestDeleteRange(delete_request(&delete, namespace)),
        Op::Read(range, options) => {
            let (key, range_end) = namespace.range(&range);
            request_op::Request::RequestRange(list_request(key, range_end, &options))
        }
        Op::Txn(txn) => request_op::Request::RequestTxn(txn_request(txn, namespace)),
    };
    pb::RequestOp { request: Some(request) }
}

fn compare_request(compare: Compare, namespace: &Namespace) -> pb::Compare {
    let (key, range_end) = namespace.range(&compare.subject.0);
    let result = match compare.relation {
        Relation::Equals => CompareResult::Equal,
        Relation::Differs => CompareResult::NotEqual,
        Relation::Greater => CompareResult::Greater,
        Relation::Less => CompareResult::Less,
    };
    let (target, union) = match compare.operand {
        Operand::Version(number) => (CompareTarget::Version, TargetUnion::Version(signed(number))),
        Operand::CreateRevision(number) => {
            (CompareTarget::Create, TargetUnion::CreateRevision(signed(number)))
        }
        Operand::ModRevision(number) => (CompareTarget::Mod, TargetUnion::ModRevision(signed(number))),
        Operand::Value(value) => (CompareTarget::Value, TargetUnion::Value(value)),
        Operand::Lease(lease) => (CompareTarget::Lease, TargetUnion::Lease(lease.0)),
    };
    pb::Compare { result: result.into(), target: target.into(), key, range_end, target_union: Some(union) }
}

/// The answers that a transaction can have, one for each branch.
#[derive(Debug, Clone)]
pub(crate) struct TxnShape {
    then: Vec<OpShape>,
    or_else: Vec<OpShape>,
}

/// The answer that an operation has.
#[derive(Debug, Clone)]
enum OpShape {
    Put,
    Delete,
    Read,
    Txn(TxnShape),
}

impl TxnShape {
    pub(crate) fn of(txn: &Txn) -> Self {
        let branch = |ops: &[Op]| {
            ops.iter()
                .map(|op| match op {
                    Op::Put(_) => OpShape::Put,
                    Op::Delete(_) => OpShape::Delete,
                    Op::Read(..) => OpShape::Read,
                    Op::Txn(inner) => OpShape::Txn(Self::of(inner)),
                })
                .collect()
        };
        Self { then: branch(&txn.then), or_else: branch(&txn.or_else) }
    }
}

/// Errors: the answers are not one for each operation of the branch, of its kind.
pub(crate) fn txn_answer(
    answer: pb::TxnResponse,
    shape: &TxnShape,
    namespace: &Namespace,
) -> Result<TxnAnswer, Status> {
    let revision = revision_of(answer.header.as_ref())?;
    txn_answer_at(revision, answer, shape, namespace)
}

/// One within is of the same revision, though etcd does not say so.
fn txn_answer_at(
    revision: u64,
    answer: pb::TxnResponse,
    shape: &TxnShape,
    namespace: &Namespace,
) -> Result<TxnAnswer, Status> {
    let branch = if answer.succeeded { &shape.then } else { &shape.or_else };
    if branch.len() != answer.responses.len() {
        return Err(malformed("more or less parts than the transaction has operations"));
    }
    let answers = answer.responses.into_iter().zip(branch).map(|(answer, shape)| {
        let answer = answer.response.ok_or_else(|| malformed("an empty part"))?;
        op_answer(revision, answer, shape, namespace)
    });
    let answers = answers.collect::<Result<_, Status>>()?;
    Ok(TxnAnswer { succeeded: answer.succeeded, revision, answers })
}

fn op_answer(
    revision: u64,
    answer: response_op::Response,
    shape: &OpShape,
    namespace: &Namespace,
) -> Result<OpAnswer, Status> {
    Ok(match (answer, shape) {
        (response_op::Response::ResponsePut(put), OpShape::Put) => {
            OpAnswer::Put { previous: previous(put.prev_kv, namespace)? }
        }
        (response_op::Response::ResponseDeleteRange(delete), OpShape::Delete) => {
            let previous = kvs(delete.prev_kvs, namespace)?;
            OpAnswer::Delete { deleted: unsigned(delete.deleted), previous }
        }
        (response_op::Response::ResponseRange(range), OpShape::Read) => {
            OpAnswer::Read(page(range, namespace)?)
        }
        (response_op::Response::ResponseTxn(txn), OpShape::Txn(shape)) => {
            OpAnswer::Txn(txn_answer_at(revision, txn, shape, namespace)?)
        }
        _ => return Err(malformed("a part of another kind than the operation")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(succeeded: bool, parts: Vec<response_op::Response>) -> pb::TxnResponse {
        let responses = parts.into_iter().map(|part| pb::ResponseOp { response: Some(part) }).collect();
        let header = Some(pb::ResponseHeader { revision: 7, ..Default::default() });
        pb::TxnResponse { header, succeeded, responses }
    }

    #[test]
    fn an_answer_that_does_not_fit_its_transaction_is_none() {
        let put = || response_op::Response::ResponsePut(pb::PutResponse::default());
        let range = || response_op::Response::ResponseRange(pb::RangeResponse::default());
        let shape = TxnShape::of(&Txn::new().then(Op::put("a", "1")).or_else(Op::get("a")));
        let decode = |answer| txn_answer(answer, &shape, &Namespace::default());
        assert!(decode(answered(true, vec![put()])).unwrap().succeeded);
        assert!(!decode(answered(false, vec![range()])).unwrap().succeeded);
        for bad in [(true, vec![range()]), (false, vec![put()]), (true, vec![]), (true, vec![put(), put()])] {
            let status = decode(answered(bad.0, bad.1)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Internal);
        }
        let empty =
            pb::TxnResponse { responses: vec![pb::ResponseOp { response: None }], ..answered(true, vec![]) };
        assert!(decode(empty).is_err());
        let of_no_revision = pb::TxnResponse { header: None, ..answered(true, vec![put()]) };
        assert!(decode(of_no_revision).is_err());
    }

    #[test]
    fn a_transaction_within_is_of_the_revision_of_the_whole() {
        let within =
            pb::TxnResponse { header: Some(pb::ResponseHeader::default()), ..answered(true, vec![]) };
        let shape = TxnShape::of(&Txn::new().then(Txn::new()));
        let whole = answered(true, vec![response_op::Response::ResponseTxn(within)]);
        let answer = txn_answer(whole, &shape, &Namespace::default()).unwrap();
        let within = TxnAnswer { succeeded: true, revision: 7, answers: vec![] };
        assert_eq!(answer.answers, [OpAnswer::Txn(within)]);
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
    fn no_revisions_are_not_all_revisions() {
        assert_eq!(bounds(None), (0, 0));
        assert_eq!(bounds(Some(&(0..=5))), (0, 5));
        for none in [5..=0, 1..=0, 0..=0, 5..=3] {
            assert_eq!(bounds(Some(&none)), (i64::MAX, i64::MAX), "{none:?}");
        }
    }
}
