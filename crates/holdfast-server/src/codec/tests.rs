//! What requests mean, field by field, and what answers look like.

use bytes::Bytes;
use holdfast_mvcc::command::{
    DeleteRangeResponse, Op, OpResponse, OpResult, Operand, PutResponse, RangeResponse, ReadAt, Relation,
    SortOrder, SortTarget, TxnResponse,
};
use holdfast_mvcc::types::{KeyRange, KeyValue, LeaseId, RangeEnd, Revision};
use holdfast_proto::etcdserverpb as pb;
use pb::compare::TargetUnion;
use pb::{request_op, response_op};

use super::request::{self, DecodeError};
use super::response;
use crate::limits::COPY_BYTES_MAX;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn range_request() -> pb::RangeRequest {
    pb::RangeRequest { key: bytes("k"), ..Default::default() }
}

fn compare(target: i32, result: i32, operand: Option<TargetUnion>) -> pb::Compare {
    pb::Compare { result, target, key: bytes("k"), range_end: Bytes::new(), target_union: operand }
}

fn one_compare(compare: pb::Compare) -> Result<holdfast_mvcc::command::Compare, DecodeError> {
    let txn = pb::TxnRequest { compare: vec![compare], ..Default::default() };
    request::txn(txn).map(|decoded| decoded.txn.compares[0].clone())
}

#[test]
fn the_end_of_a_range_has_three_forms() {
    let end = |range_end: &'static [u8]| request::key_range(bytes("k"), Bytes::from_static(range_end)).end;
    assert_eq!(end(b""), RangeEnd::Single);
    assert_eq!(end(b"\0"), RangeEnd::Unbounded);
    assert_eq!(end(b"z"), RangeEnd::Before(bytes("z")));
    assert_eq!(end(b"\0\0"), RangeEnd::Before(Bytes::from_static(b"\0\0")));
    assert_eq!(end(b"a"), RangeEnd::Before(bytes("a")), "an empty range is a range");
}

#[test]
fn limits_and_revisions_below_one_mean_none() {
    for number in [0, -1, i64::MIN] {
        let wire = pb::RangeRequest { limit: number, revision: number, ..range_request() };
        let range = request::range(wire).unwrap().range;
        assert_eq!((range.limit, range.at), (None, ReadAt::Latest), "{number}");
    }
    let wire = pb::RangeRequest { limit: 3, revision: 5, ..range_request() };
    let range = request::range(wire).unwrap().range;
    assert_eq!((range.limit, range.at), (Some(3), ReadAt::Revision(Revision::new(5))));
}

#[test]
fn negative_bounds_hold_for_all_or_for_none() {
    let wire = pb::RangeRequest { min_mod_revision: -3, max_mod_revision: -3, ..range_request() };
    let range = request::range(wire).unwrap().range;
    assert_eq!(range.min_mod_revision, Revision::NONE);
    assert_eq!(range.max_mod_revision, Revision::FRESH, "no key has a revision that low");
}

#[test]
fn sort_options_are_numbers_that_must_be_known() {
    let sorted = |order, target| {
        let decoded =
            request::range(pb::RangeRequest { sort_order: order, sort_target: target, ..range_request() });
        decoded.map(|decoded| (decoded.range.order, decoded.range.target))
    };
    assert_eq!(sorted(0, 0), Ok((SortOrder::None, SortTarget::Key)));
    assert_eq!(sorted(1, 1), Ok((SortOrder::Ascend, SortTarget::Version)));
    assert_eq!(sorted(2, 2), Ok((SortOrder::Descend, SortTarget::Create)));
    assert_eq!(sorted(0, 3), Ok((SortOrder::None, SortTarget::Mod)));
    assert_eq!(sorted(0, 4), Ok((SortOrder::None, SortTarget::Value)));
    for (order, target) in [(3, 0), (0, 5), (-1, 0), (0, i32::MAX)] {
        assert_eq!(sorted(order, target), Err(DecodeError::SortOption));
    }
}

#[test]
fn an_operand_of_another_kind_counts_as_zero() {
    let cases = [
        (0, Some(TargetUnion::Version(7)), Operand::Version(7)),
        (0, Some(TargetUnion::ModRevision(7)), Operand::Version(0)),
        (1, Some(TargetUnion::CreateRevision(-7)), Operand::Create(-7)),
        (1, None, Operand::Create(0)),
        (2, Some(TargetUnion::ModRevision(9)), Operand::Mod(9)),
        (3, Some(TargetUnion::Value(bytes("v"))), Operand::Value(bytes("v"))),
        (3, Some(TargetUnion::Lease(1)), Operand::Value(Bytes::new())),
        (4, Some(TargetUnion::Lease(5)), Operand::Lease(5)),
        (4, Some(TargetUnion::Version(5)), Operand::Lease(0)),
    ];
    for (target, given, expected) in cases {
        assert_eq!(one_compare(compare(target, 0, given)).unwrap().operand, expected);
    }
    let relations = [Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual];
    for (number, relation) in (0..).zip(relations) {
        assert_eq!(one_compare(compare(0, number, None)).unwrap().relation, relation);
    }
    assert_eq!(one_compare(compare(5, 0, None)), Err(DecodeError::CompareOption));
    assert_eq!(one_compare(compare(0, 4, None)), Err(DecodeError::CompareOption));
}

#[test]
fn a_txn_keeps_its_shape() {
    let op = |request| pb::RequestOp { request: Some(request) };
    let put = pb::PutRequest { key: bytes("p"), lease: 9, ignore_value: true, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: bytes("d"), range_end: bytes("e"), prev_kv: true };
    let inner = pb::TxnRequest { failure: vec![pb::RequestOp { request: None }], ..Default::default() };
    let wire = pb::TxnRequest {
        compare: vec![],
        success: vec![op(request_op::Request::RequestPut(put)), op(request_op::Request::RequestTxn(inner))],
        failure: vec![op(request_op::Request::RequestDeleteRange(delete))],
    };
    let decoded = request::txn(wire).unwrap();
    assert!(!decoded.serializable);
    let Op::Put(put) = &decoded.txn.success[0] else { panic!("{decoded:?}") };
    assert_eq!((put.key.clone(), put.lease, put.ignore_value), (bytes("p"), Some(LeaseId(9)), true));
    let Op::Txn(inner) = &decoded.txn.success[1] else { panic!("{decoded:?}") };
    assert_eq!(inner.failure, [Op::Unset]);
    let Op::DeleteRange(delete) = &decoded.txn.failure[0] else { panic!("{decoded:?}") };
    assert_eq!(delete.range, KeyRange { start: bytes("d"), end: RangeEnd::Before(bytes("e")) });
    assert!(delete.prev_kv);
}

#[test]
fn a_read_only_txn_is_serializable_when_all_its_reads_are() {
    let read = |serializable| pb::RequestOp {
        request: Some(request_op::Request::RequestRange(pb::RangeRequest {
            serializable,
            ..range_request()
        })),
    };
    let txn = |success, failure| request::txn(pb::TxnRequest { compare: vec![], success, failure }).unwrap();
    assert!(txn(vec![read(true)], vec![read(true)]).serializable);
    assert!(!txn(vec![read(true)], vec![read(false)]).serializable);
}

#[test]
fn small_fields_let_go_of_their_receive_buffer() {
    let buffer = Bytes::from(vec![b'x'; COPY_BYTES_MAX * 4]);
    let put = |bytes: usize| {
        let wire =
            pb::PutRequest { key: buffer.slice(0..10), value: buffer.slice(0..bytes), ..Default::default() };
        request::put(wire)
    };
    let inside = |field: &Bytes| buffer.as_ptr_range().contains(&field.as_ptr());
    let small = put(COPY_BYTES_MAX);
    assert!(!inside(&small.key) && !inside(&small.value));
    assert!(inside(&put(COPY_BYTES_MAX + 1).value), "a large value is not copied");
}

fn key_value() -> KeyValue {
    KeyValue {
        key: bytes("k"),
        create_revision: Revision::new(2),
        mod_revision: Revision::new(5),
        version: 3,
        lease: Some(LeaseId(-8)),
        value: bytes("v"),
    }
}

#[test]
fn answers_carry_every_field() {
    let header = pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 9, raft_term: 4 };
    let wire = response::range(RangeResponse { kvs: vec![key_value()], more: true, count: 7 }, header);
    assert_eq!((wire.header, wire.more, wire.count), (Some(header), true, 7));
    let kv = &wire.kvs[0];
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, kv.lease), (2, 5, 3, -8));
    assert_eq!((kv.key.as_ref(), kv.value.as_ref()), (&b"k"[..], &b"v"[..]));
    let deleted = DeleteRangeResponse { deleted: 1, prev_kvs: vec![key_value()] };
    let wire = response::delete_range(deleted, header);
    assert_eq!((wire.deleted, wire.prev_kvs.len()), (1, 1));
    assert!(response::put(PutResponse::default(), header).prev_kv.is_none());
    assert_eq!(response::compact_revision(None), -1);
    assert_eq!(response::compact_revision(Some(Revision::new(4))), 4);
}

#[test]
fn inner_headers_carry_a_revision_and_nested_ones_nothing() {
    let nested = TxnResponse { succeeded: true, responses: vec![] };
    let result = TxnResponse {
        succeeded: false,
        responses: vec![
            OpResponse { revision: Revision::new(6), result: OpResult::Put(PutResponse::default()) },
            OpResponse { revision: Revision::new(6), result: OpResult::Txn(nested) },
        ],
    };
    let wire = response::txn(result, pb::ResponseHeader { cluster_id: 1, revision: 6, ..Default::default() });
    assert!(!wire.succeeded);
    let Some(response_op::Response::ResponsePut(put)) = &wire.responses[0].response else {
        panic!("{wire:?}")
    };
    assert_eq!(put.header, Some(pb::ResponseHeader { revision: 6, ..Default::default() }));
    let Some(response_op::Response::ResponseTxn(txn)) = &wire.responses[1].response else {
        panic!("{wire:?}")
    };
    assert_eq!(txn.header, Some(pb::ResponseHeader::default()));
    assert!(txn.succeeded);
}
