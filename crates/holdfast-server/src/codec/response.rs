//! Answers to the wire.

use holdfast_env::give_way;
use holdfast_mvcc::command::{
    DeleteRangeResponse, OpResponse, OpResult, PutResponse, RangeResponse, TxnResponse,
};
use holdfast_mvcc::types::{KeyValue, Revision};
use holdfast_proto::codec::{LONG_LIST_PAIRS, TURN_PAIRS};
use holdfast_proto::{etcdserverpb as pb, mvccpb};

/// A number that the wire carries as signed. Revisions, versions and counts never come near the sign bit.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The answer to a read.
pub fn range(response: RangeResponse, header: pb::ResponseHeader) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: pairs(response.kvs),
        more: response.more,
        count: signed(response.count),
    }
}

/// The pairs of an answer; with many of them it gives way now and then.
fn pairs(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    let pair = |(number, kv)| {
        if number >= LONG_LIST_PAIRS && number % TURN_PAIRS == 0 {
            give_way();
        }
        key_value(kv)
    };
    kvs.into_iter().enumerate().map(pair).collect()
}

/// The answer to a put.
pub fn put(response: PutResponse, header: pb::ResponseHeader) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: response.prev_kv.map(key_value) }
}

/// The answer to a delete.
pub fn delete_range(response: DeleteRangeResponse, header: pb::ResponseHeader) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: signed(response.deleted),
        prev_kvs: response.prev_kvs.into_iter().map(key_value).collect(),
    }
}

/// The answer to a transaction. Inner headers carry a revision and nothing else; a nested transaction's is empty.
pub fn txn(response: TxnResponse, header: pb::ResponseHeader) -> pb::TxnResponse {
    pb::TxnResponse {
        header: Some(header),
        succeeded: response.succeeded,
        responses: response.responses.into_iter().map(op).collect(),
    }
}

fn op(response: OpResponse) -> pb::ResponseOp {
    use pb::response_op::Response;
    let inner = pb::ResponseHeader { revision: signed(response.revision.get()), ..Default::default() };
    pb::ResponseOp {
        response: Some(match response.result {
            OpResult::Range(result) => Response::ResponseRange(range(result, inner)),
            OpResult::Put(result) => Response::ResponsePut(put(result, inner)),
            OpResult::DeleteRange(result) => Response::ResponseDeleteRange(delete_range(result, inner)),
            OpResult::Txn(result) => Response::ResponseTxn(txn(result, pb::ResponseHeader::default())),
        }),
    }
}

/// A key as a client sees it.
pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision.get()),
        mod_revision: signed(kv.mod_revision.get()),
        version: signed(kv.version),
        value: kv.value,
        lease: kv.lease.map_or(0, |lease| lease.0),
    }
}

/// The compact revision as HashKV tells it: -1 when nothing was ever compacted.
pub fn compact_revision(revision: Option<Revision>) -> i64 {
    revision.map_or(-1, |revision| signed(revision.get()))
}
