//! The calls of this workload, each to one member, none retried.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op,
};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::judge::watch::history::Step;

/// How long a call may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// The window of a stream whose reader is slow: it fills soon, and the member has to wait.
const SMALL_WINDOW_BYTES: u32 = 16 << 10;

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It took effect at this revision.
    At(i64),
    /// It certainly has no effect.
    Nothing,
    /// It may have taken effect, or may still.
    Unknown,
}

/// How much may be on its way to a client that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// What the library takes.
    Usual,
    /// Little.
    Small,
}

/// A connection to each member, made when it is first used.
pub fn connections(endpoints: &[String], window: Window) -> Result<Vec<Channel>> {
    let connect = |url: &String| {
        let endpoint = Endpoint::from_shared(url.clone()).with_context(|| format!("{url} is no endpoint"))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true);
        let endpoint = match window {
            Window::Usual => endpoint,
            Window::Small => endpoint.initial_stream_window_size(SMALL_WINDOW_BYTES),
        };
        anyhow::Ok(endpoint.connect_lazy())
    };
    endpoints.iter().map(connect).collect()
}

/// Carries out steps as one command: a put, a delete, or a transaction of several.
pub async fn carry_out(channel: &Channel, steps: &[Step]) -> Fate {
    tokio::time::timeout(TIMEOUT, send(channel, steps)).await.unwrap_or(Fate::Unknown)
}

async fn send(channel: &Channel, steps: &[Step]) -> Fate {
    let mut kv = KvClient::new(channel.clone());
    // A writer that is told nothing knows nothing: no status is read as "nothing happened".
    match steps {
        [Step::Put { key, value, lease }] => match kv.put(put(key, value, *lease)).await {
            Ok(answer) => at(answer.into_inner().header.map(|header| header.revision)),
            Err(_) => Fate::Unknown,
        },
        [Step::Delete { key, range_end }] => match kv.delete_range(delete(key, range_end)).await {
            Ok(answer) if answer.get_ref().deleted == 0 => Fate::Nothing,
            Ok(answer) => at(answer.into_inner().header.map(|header| header.revision)),
            Err(_) => Fate::Unknown,
        },
        several => {
            let success = several.iter().map(|step| RequestOp { request: Some(operation(step)) }).collect();
            match kv.txn(TxnRequest { success, ..TxnRequest::default() }).await {
                Ok(answer) => at(answer.into_inner().header.map(|header| header.revision)),
                Err(_) => Fate::Unknown,
            }
        }
    }
}

fn at(revision: Option<i64>) -> Fate {
    revision.map_or(Fate::Unknown, Fate::At)
}

/// A step as part of a transaction.
pub fn operation(step: &Step) -> request_op::Request {
    match step {
        Step::Put { key, value, lease } => request_op::Request::RequestPut(put(key, value, *lease)),
        Step::Delete { key, range_end } => request_op::Request::RequestDeleteRange(delete(key, range_end)),
    }
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), lease, ..PutRequest::default() }
}

fn delete(key: &Bytes, range_end: &Bytes) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.clone(), range_end: range_end.clone(), ..DeleteRangeRequest::default() }
}

/// Compacts up to, and without, `revision`; `false` when a later compaction has been there already.
pub async fn compact(channel: &Channel, revision: i64) -> Result<bool> {
    let request = CompactionRequest { revision, physical: false };
    match tokio::time::timeout(TIMEOUT, KvClient::new(channel.clone()).compact(request)).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(status)) if status.code() == Code::OutOfRange => Ok(false),
        Ok(Err(status)) => bail!("{status}"),
        Err(_) => bail!("no answer within {TIMEOUT:?}"),
    }
}
