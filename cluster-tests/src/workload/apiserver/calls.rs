//! The calls of an API server, in its exact shapes, each to one member, none retried.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::lease_client::LeaseClient;
use holdfast_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op, response_op,
};
use holdfast_proto::mvccpb::KeyValue;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::workload::compares::{changed_at, has_version};

/// How long a call may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// A list may be larger than gRPC's default limit.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missed {
    /// Its revision is compacted.
    Compacted,
    /// The server does not have the call.
    NotThere,
    /// The member could not answer, which says nothing.
    Broken(String),
}

/// What a transaction writes when its key is as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A put, with a lease or 0.
    Put(Bytes, i64),
    /// A delete.
    Delete,
}

/// What a key has to be for a transaction to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Last changed at this revision; 0 for "does not exist".
    Mod(i64),
    /// Put so often; 0 for "does not exist". The compactor's way.
    Version(i64),
}

/// Whether the other branch reads the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It does.
    Show,
    /// There is none: a creation.
    Nothing,
}

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect at this revision.
    Won(i64),
    /// It did not: the header's revision, and what the other branch read.
    Lost(i64, Option<Option<KeyValue>>),
    /// It may have taken effect, or may still.
    Unknown,
}

/// A client of one member.
pub fn kv(channel: &Channel) -> KvClient<Channel> {
    KvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A message that failed or did not come in time.
pub async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Missed> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(missed(&status)),
        Err(_) => Err(Missed::Broken("no answer in time".to_owned())),
    }
}

fn missed(status: &Status) -> Missed {
    let text = "etcdserver: mvcc: required revision has been compacted";
    if status.code() == Code::OutOfRange && status.message() == text {
        return Missed::Compacted;
    }
    if status.code() == Code::Unimplemented {
        return Missed::NotThere;
    }
    Missed::Broken(format!("{:?}: {}", status.code(), status.message()))
}

/// One key, now or as it was at a revision.
pub async fn get(channel: &Channel, key: &Bytes, revision: i64) -> Result<RangeResponse, Missed> {
    let request = RangeRequest { key: key.clone(), limit: 1, revision, ..RangeRequest::default() };
    within(kv(channel).range(request)).await.map(tonic::Response::into_inner)
}

/// If the key is as expected, writes; else reads it.
pub async fn swap(
    channel: &Channel,
    key: &Bytes,
    expected: Expected,
    write: &Write,
    on_failure: OnFailure,
) -> Outcome {
    let request = TxnRequest {
        compare: vec![compare(key, expected)],
        success: vec![operation(match write {
            Write::Put(value, lease) => request_op::Request::RequestPut(PutRequest {
                key: key.clone(),
                value: value.clone(),
                lease: *lease,
                ..PutRequest::default()
            }),
            Write::Delete => request_op::Request::RequestDeleteRange(DeleteRangeRequest {
                key: key.clone(),
                ..DeleteRangeRequest::default()
            }),
        })],
        failure: match on_failure {
            OnFailure::Nothing => Vec::new(),
            OnFailure::Show => {
                let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
                vec![operation(request_op::Request::RequestRange(read))]
            }
        },
    };
    match within(kv(channel).txn(request)).await {
        Ok(answer) => outcome(answer.into_inner()),
        // Whoever is told nothing knows nothing.
        Err(_) => Outcome::Unknown,
    }
}

fn compare(key: &Bytes, expected: Expected) -> Compare {
    match expected {
        Expected::Mod(revision) => changed_at(key, revision),
        Expected::Version(version) => has_version(key, version),
    }
}

fn operation(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn outcome(answer: TxnResponse) -> Outcome {
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    if answer.succeeded {
        return Outcome::Won(revision);
    }
    let shown = answer.responses.into_iter().next().and_then(|response| response.response);
    Outcome::Lost(
        revision,
        match shown {
            Some(response_op::Response::ResponseRange(read)) => Some(read.kvs.into_iter().next()),
            _ => None,
        },
    )
}

/// Compacts up to, and without, `revision`; that it is compacted already is as good.
pub async fn compact(channel: &Channel, revision: i64) -> Result<(), Missed> {
    let request = CompactionRequest { revision, physical: false };
    match within(kv(channel).compact(request)).await {
        Ok(_) | Err(Missed::Compacted) => Ok(()),
        Err(broken) => Err(broken),
    }
}

/// A lease of so many seconds.
pub async fn grant(channel: &Channel, seconds: i64) -> Result<i64, Missed> {
    let request = LeaseGrantRequest { ttl: seconds, id: 0 };
    let mut leases = LeaseClient::new(channel.clone());
    within(leases.lease_grant(request)).await.map(|answer| answer.into_inner().id)
}
