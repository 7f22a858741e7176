//! A snapshot on its way to a follower that the log can no longer help: chunks over a connection of its own.
//!
//! ```text
//! leader                         follower
//!   Hello            ──────────►
//!                    ◄──────────   Hello
//!   SnapshotBegin, SnapshotChunk…, SnapshotEnd (length and CRC-32C of all chunks)
//!                    ◄──────────   SnapshotResponse, once installed
//! ```
//! Both ends block on files, so both run where that is allowed.

use std::time::Duration;

use bytes::Bytes;
use futures::future::Either;
use holdfast_env::{Duplex, Env, Lane};
use holdfast_proto::internal as pb;
use holdfast_storage::{IncomingSnapshot, Snapshot, Storage};
use openraft::errors::{ReplicationClosed, StreamingError};
use tokio::sync::oneshot;

use super::link::Link;
use crate::codec::rpc::{self, Body, decode_message, encode_message};
use crate::limits::{FRAME_PAYLOAD_BYTES, INSTALL_BYTES_PER_SECOND, SNAPSHOT_STEP_TIMEOUT, within};
use crate::state_machine::SnapshotData;
use crate::types::{Raft, RaftVote, SnapshotMeta, TypeConfig};

/// Sends a snapshot and waits until it is installed. The inner error says why it was not.
pub(crate) async fn send(
    link: Link,
    vote: RaftVote,
    meta: SnapshotMeta,
    snapshot: Snapshot,
    cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
) -> Result<Result<RaftVote, String>, StreamingError<TypeConfig>> {
    let (done, outcome) = oneshot::channel();
    let spawn = link.env().spawn.clone();
    let (cancelled, is_cancelled) = oneshot::channel::<()>();
    let transfer = Box::pin(async move {
        let peer = format!("{:x}", link.peer());
        tracing::info!(peer, bytes = snapshot.bytes, id = snapshot.id, "sending a snapshot");
        let work = std::pin::pin!(transfer(&link, &vote, &meta, &snapshot));
        match futures::future::select(work, is_cancelled).await {
            // The asker may be gone: then nobody needs the outcome.
            Either::Left((outcome, _)) => {
                done.send(outcome).ok();
            }
            Either::Right(_) => tracing::info!(peer, "sending the snapshot was given up"),
        }
    });
    // The task ends with the transfer or with `cancelled`; its outcome is what we wait for.
    drop(spawn.dedicated("snapshot-send", transfer));
    let _cancelled_on_drop = cancelled;
    tokio::select! {
        biased;
        outcome = outcome => Ok(outcome.unwrap_or_else(|_| Err("the transfer ended early".to_owned()))),
        closed = cancel => Err(StreamingError::Closed(closed)),
    }
}

async fn transfer(
    link: &Link,
    vote: &RaftVote,
    meta: &SnapshotMeta,
    snapshot: &Snapshot,
) -> Result<RaftVote, String> {
    let env = link.env();
    let mut duplex = link.open(Lane::Snapshot).await?;
    put(env, &duplex, rpc::snapshot_begin(vote, meta, snapshot.id.clone(), snapshot.bytes)).await?;
    let mut offset = 0;
    let mut crc = 0;
    while offset < snapshot.bytes {
        let len = usize::try_from(snapshot.bytes - offset).unwrap_or(usize::MAX).min(FRAME_PAYLOAD_BYTES);
        let mut data = vec![0; len];
        snapshot
            .file
            .read_exact_at(&mut data, offset)
            .map_err(|error| format!("reading the snapshot: {error}"))?;
        crc = crc32c::crc32c_append(crc, &data);
        put(env, &duplex, Body::SnapshotChunk(pb::SnapshotChunk { offset, data: data.into() })).await?;
        offset += len as u64;
    }
    put(env, &duplex, Body::SnapshotEnd(pb::SnapshotEnd { bytes: offset, crc32c: crc })).await?;
    match receive(env, &mut duplex, install_limit(offset)).await? {
        Body::SnapshotResponse(response) => rpc::snapshot_response_from(response),
        other => Err(format!("an answer of another kind: {other:?}")),
    }
}

/// How long verifying and installing may take.
fn install_limit(bytes: u64) -> Duration {
    SNAPSHOT_STEP_TIMEOUT + Duration::from_secs(bytes / INSTALL_BYTES_PER_SECOND)
}

async fn put(env: &Env, duplex: &Duplex, body: Body) -> Result<(), String> {
    let frame: Bytes = encode_message(0, body);
    match within(&*env.clock, SNAPSHOT_STEP_TIMEOUT, duplex.send.send(frame)).await {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => Err("the connection broke".to_owned()),
        None => Err("the peer does not take more".to_owned()),
    }
}

async fn receive(env: &Env, duplex: &mut Duplex, limit: Duration) -> Result<Body, String> {
    let frame = within(&*env.clock, limit, duplex.recv.recv()).await;
    let frame = frame.ok_or("the peer went silent")?.ok_or("the connection broke")?;
    decode_message(frame).map(|(_, body)| body).map_err(|error| error.to_string())
}

/// Receives, verifies and installs a snapshot on a connection that the leader opened, and answers.
pub(crate) async fn serve(env: Env, raft: Raft, storage: Storage, mut duplex: Duplex) {
    let outcome = take_in(&env, &raft, &storage, &mut duplex).await;
    if let Err(reason) = &outcome {
        tracing::warn!(reason, "a snapshot from the leader was not installed");
    }
    if let Err(reason) = put(&env, &duplex, rpc::snapshot_response(outcome)).await {
        tracing::debug!(reason, "the leader does not wait for the outcome of its snapshot");
    }
    // The leader closes once it has the answer; closing before would lose it.
    drop(within(&*env.clock, SNAPSHOT_STEP_TIMEOUT, duplex.recv.recv()).await);
}

async fn take_in(env: &Env, raft: &Raft, storage: &Storage, duplex: &mut Duplex) -> Result<RaftVote, String> {
    let begin = match receive(env, duplex, SNAPSHOT_STEP_TIMEOUT).await? {
        Body::SnapshotBegin(begin) => begin,
        other => return Err(format!("expected the begin of a snapshot, got {other:?}")),
    };
    let (vote, meta) = rpc::snapshot_begin_from(&begin).map_err(|error| error.to_string())?;
    tracing::info!(bytes = begin.bytes, id = begin.id, "receiving a snapshot");
    let incoming = storage.receive_snapshot().map_err(|error| error.to_string())?;
    let mut incoming = take_chunks(env, duplex, incoming, begin.bytes).await?;
    // openraft takes a failed install for the end of this member; a snapshot that is bad on the leader is not that.
    incoming.verify().map_err(|error| error.to_string())?;
    let snapshot = openraft::storage::Snapshot { meta, snapshot: SnapshotData::Incoming(incoming) };
    let response = raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())?;
    Ok(response.vote)
}

async fn take_chunks(
    env: &Env,
    duplex: &mut Duplex,
    mut incoming: IncomingSnapshot,
    bytes: u64,
) -> Result<IncomingSnapshot, String> {
    let mut received = 0;
    let mut crc = 0;
    loop {
        match receive(env, duplex, SNAPSHOT_STEP_TIMEOUT).await? {
            Body::SnapshotChunk(chunk) if chunk.offset == received => {
                crc = crc32c::crc32c_append(crc, &chunk.data);
                incoming.write(&chunk.data).map_err(|error| error.to_string())?;
                received += chunk.data.len() as u64;
            }
            Body::SnapshotEnd(end) if (end.bytes, end.crc32c, received) == (bytes, crc, bytes) => {
                return Ok(incoming);
            }
            Body::SnapshotEnd(_) => {
                return Err(format!("the {received} bytes received are not what was sent"));
            }
            other => return Err(format!("expected the snapshot from byte {received} on, got {other:?}")),
        }
    }
}
