//! Between the wire and what callers see. The one module beside the calls themselves that names generated types.

use bytes::Bytes;
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

/// The id of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; may be empty.
    pub value: Bytes,
    /// The revision at which the key last came into being.
    pub create_revision: u64,
    /// The revision of its latest change.
    pub mod_revision: u64,
    /// Changes since it came into being; 1 then.
    pub version: u64,
    /// The lease that it lives with.
    pub lease: Option<LeaseId>,
}

impl From<mvccpb::KeyValue> for KeyValue {
    fn from(kv: mvccpb::KeyValue) -> Self {
        Self {
            create_revision: unsigned(kv.create_revision),
            mod_revision: unsigned(kv.mod_revision),
            version: unsigned(kv.version),
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
            key: kv.key,
            value: kv.value,
        }
    }
}

/// A number that the wire carries as signed, though it is never below zero.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The other way. Revisions never come near the sign bit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The revision of an answer.
pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> u64 {
    header.map_or(0, |header| unsigned(header.revision))
}

/// The end of the range of all keys that begin so; a zero byte for "all there are".
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(b"\0")
}

/// Puts the key if it does not exist; reads it otherwise.
pub(crate) fn create(key: &Bytes, value: Bytes, lease: Option<LeaseId>) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let put = pb::PutRequest {
        key: key.clone(),
        value,
        lease: lease.map_or(0, |lease| lease.0),
        ..Default::default()
    };
    let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(Request::RequestRange(range)) }],
    }
}

/// The key that a transaction read first.
pub(crate) fn first_read(response: pb::TxnResponse) -> Option<KeyValue> {
    let first = response.responses.into_iter().next()?.response?;
    let pb::response_op::Response::ResponseRange(range) = first else { return None };
    range.kvs.into_iter().next().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_behind_it() {
        let cases: [(&[u8], &[u8]); 4] =
            [(b"aa", b"ab"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"", b"\0")];
        for (prefix, end) in cases {
            assert_eq!(prefix_end(prefix).as_ref(), end, "{prefix:?}");
        }
    }
}
