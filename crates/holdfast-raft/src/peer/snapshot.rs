//! A snapshot on its way to a follower that the log can no longer help: chunks over a connection of its own.
//!
//! ```text
//! leader                         follower
//!   Hello            ──────────►
//!                    ◄──────────   Hello
//!   SnapshotBegin    ──────────►   of a snapshot that was read through since the start
//!                    ◄──────────   SnapshotHave: how much of it is there already
//!   SnapshotChunk…, SnapshotEnd (length and CRC-32C of all bytes)
//!                    ◄──────────   SnapshotResponse, once installed
//! ```
//! A transfer that broke goes on where it was: the follower keeps what it has, under the snapshot's id, until a snapshot
//! with another id comes or the process ends. Equal ids mean equal content, so another leader may go on with it.
//! Each chunk is checked before it is written, and the whole before it is installed. The leader reads through what it
//! sends unless it has already, and again when a follower has refused it: a damaged snapshot is replaced by a dump, and
//! openraft, which tries again, then finds that one.
//!
//! The leader rests between chunks, so that what else the machines, their disks and the network have to do goes on.
//!
//! Both ends block on files, so both run where that is allowed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::Either;
use holdfast_env::{Duplex, Env, Lane};
use holdfast_proto::internal as pb;
use holdfast_storage::{IncomingSnapshot, Snapshot, Storage};
use openraft::errors::{ReplicationClosed, StreamingError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::roster::Roster;
use crate::codec::rpc::{self, Body, decode_message, encode_message};
use crate::limits::{
    FRAME_PAYLOAD_BYTES, INSTALL_BYTES_PER_SECOND, SNAPSHOT_REST_FACTOR, SNAPSHOT_REST_MAX,
    SNAPSHOT_STEP_TIMEOUT, within,
};
use crate::state_machine::SnapshotData;
use crate::types::{Raft, RaftVote, SnapshotMeta, TypeConfig};

/// Sends a snapshot and waits until it is installed. The inner error says why it was not.
pub(crate) async fn send(
    link: Link,
    roster: Arc<Roster>,
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
        let work = std::pin::pin!(checked_transfer(&link, &roster, &vote, &meta, &snapshot));
        match futures::future::select(work, is_cancelled).await {
            // The asker may be gone: then nobody needs the outcome.
            Either::Left((outcome, _)) => {
                done.send(outcome).ok();
            }
            Either::Right(_) => tracing::info!(peer, "sending the snapshot was given up"),
        }
    });
    // The task ends with the transfer or with `cancelled`; its outcome is what we wait for.
    drop(spawn.background("snapshot-send", transfer));
    let _cancelled_on_drop = cancelled;
    tokio::select! {
        biased;
        outcome = outcome => Ok(outcome.unwrap_or_else(|_| Err("the transfer ended early".to_owned()))),
        closed = cancel => Err(StreamingError::Closed(closed)),
    }
}

/// Why a snapshot was not sent, or not installed.
enum Failure {
    /// The connection or this end failed.
    Broken(String),
    /// The follower has all of it, and does not take it.
    Refused(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

/// Holds on to the storage no longer than it takes to check: a transfer may outlive the member.
async fn checked_transfer(
    link: &Link,
    roster: &Roster,
    vote: &RaftVote,
    meta: &SnapshotMeta,
    snapshot: &Snapshot,
) -> Result<RaftVote, String> {
    let storage = roster.storage().ok_or("the member is stopping")?;
    storage.check_snapshot(&snapshot.id).await.map_err(|error| error.to_string())?;
    drop(storage);
    match transfer(link, vote, meta, snapshot).await {
        Ok(vote) => Ok(vote),
        Err(Failure::Broken(reason)) => Err(reason),
        Err(Failure::Refused(reason)) => {
            if let Some(storage) = roster.storage() {
                storage.doubt_snapshot(&snapshot.id);
            }
            Err(reason)
        }
    }
}

async fn transfer(
    link: &Link,
    vote: &RaftVote,
    meta: &SnapshotMeta,
    snapshot: &Snapshot,
) -> Result<RaftVote, Failure> {
    let env = link.env();
    let mut duplex = link.open(Lane::Snapshot).await?;
    put(env, &duplex, rpc::snapshot_begin(vote, meta, snapshot.id.clone(), snapshot.bytes)).await?;
    let have = match receive(env, &mut duplex, SNAPSHOT_STEP_TIMEOUT).await? {
        Body::SnapshotHave(have) => have,
        Body::SnapshotResponse(response) => return Ok(rpc::snapshot_response_from(response)?),
        other => return Err(unexpected(&other)),
    };
    let (mut offset, mut crc) = match crc_of_first(snapshot, have.bytes)? {
        Some(crc) if crc == have.crc32c => (have.bytes, crc),
        Some(_) | None => (0, 0),
    };
    if offset > 0 {
        tracing::info!(peer = format!("{:x}", link.peer()), from = offset, "the transfer goes on");
    }
    while offset < snapshot.bytes {
        let began = env.clock.now();
        let data = read_part(snapshot, offset, snapshot.bytes)?;
        let (len, crc32c) = (data.len() as u64, crc32c::crc32c(&data));
        crc = crc32c::crc32c_append(crc, &data);
        let chunk = pb::SnapshotChunk { offset, data: data.into(), crc32c };
        put(env, &duplex, Body::SnapshotChunk(chunk)).await?;
        offset += len;
        let worked = env.clock.now().since(began);
        env.clock.sleep((worked * SNAPSHOT_REST_FACTOR).min(SNAPSHOT_REST_MAX)).await;
    }
    put(env, &duplex, Body::SnapshotEnd(pb::SnapshotEnd { bytes: offset, crc32c: crc })).await?;
    match receive(env, &mut duplex, install_limit(offset)).await? {
        Body::SnapshotResponse(response) => rpc::snapshot_response_from(response).map_err(Failure::Refused),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(body: &Body) -> Failure {
    Failure::Broken(format!("an answer of another kind: {body:?}"))
}

/// The part of the file from `offset` on, at most to `end`.
fn read_part(snapshot: &Snapshot, offset: u64, end: u64) -> Result<Vec<u8>, String> {
    let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(FRAME_PAYLOAD_BYTES);
    let mut data = vec![0; len];
    let read = snapshot.file.read_exact_at(&mut data, offset);
    read.map_err(|error| format!("reading the snapshot: {error}"))?;
    Ok(data)
}

/// The CRC-32C of the file's first bytes; `None` when it has fewer.
fn crc_of_first(snapshot: &Snapshot, bytes: u64) -> Result<Option<u32>, String> {
    if bytes > snapshot.bytes {
        return Ok(None);
    }
    let (mut offset, mut crc) = (0, 0);
    while offset < bytes {
        let part = read_part(snapshot, offset, bytes)?;
        crc = crc32c::crc32c_append(crc, &part);
        offset += part.len() as u64;
    }
    Ok(Some(crc))
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

/// What a member has received of a snapshot. One transfer at a time; a newer one ends the one before it, whose
/// connection may be dead without anybody having noticed.
#[derive(Default)]
pub(crate) struct Receiving {
    /// Locked by the transfer that is under way.
    partial: tokio::sync::Mutex<Option<Partial>>,
    /// Ends the transfer that is under way.
    current: parking_lot::Mutex<CancellationToken>,
}

/// The beginning of a snapshot, kept when its transfer breaks.
struct Partial {
    id: String,
    incoming: IncomingSnapshot,
    crc: u32,
}

impl Receiving {
    /// Ends the transfer before this one, if there is one. The token ends this one.
    fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        std::mem::replace(&mut *self.current.lock(), token.clone()).cancel();
        token
    }
}

/// Receives, verifies and installs a snapshot on a connection that the leader opened, and answers.
pub(crate) async fn serve(
    env: Env,
    raft: Raft,
    storage: Storage,
    receiving: Arc<Receiving>,
    mut duplex: Duplex,
) {
    let outcome = take_in(&env, &raft, &storage, &receiving, &mut duplex).await;
    if let Err(reason) = &outcome {
        tracing::warn!(reason, "a snapshot from the leader was not installed");
    }
    if let Err(reason) = put(&env, &duplex, rpc::snapshot_response(outcome)).await {
        tracing::debug!(reason, "the leader does not wait for the outcome of its snapshot");
    }
    // The leader closes once it has the answer; closing before would lose it.
    drop(within(&*env.clock, SNAPSHOT_STEP_TIMEOUT, duplex.recv.recv()).await);
}

async fn take_in(
    env: &Env,
    raft: &Raft,
    storage: &Storage,
    receiving: &Receiving,
    duplex: &mut Duplex,
) -> Result<RaftVote, String> {
    let begin = match receive(env, duplex, SNAPSHOT_STEP_TIMEOUT).await? {
        Body::SnapshotBegin(begin) => begin,
        other => return Err(format!("expected the begin of a snapshot, got {other:?}")),
    };
    let (vote, meta) = rpc::snapshot_begin_from(&begin).map_err(|error| error.to_string())?;
    let replaced = receiving.begin();
    let mut partial = within(&*env.clock, SNAPSHOT_STEP_TIMEOUT, receiving.partial.lock())
        .await
        .ok_or("another transfer does not end")?;
    let received = tokio::select! {
        biased;
        // What has been written stays for whoever goes on.
        () = replaced.cancelled() => return Err("another transfer has begun".to_owned()),
        received = take_bytes(env, storage, duplex, &begin, &mut partial) => received,
    };
    received?;
    let whole = partial.take().ok_or("the snapshot is gone")?;
    drop(partial);
    let mut incoming = whole.incoming;
    // openraft takes a failed install for the end of this member; a snapshot that is bad on the leader is not that.
    incoming.verify().map_err(|error| error.to_string())?;
    let snapshot = openraft::storage::Snapshot { meta, snapshot: SnapshotData::Incoming(incoming) };
    let response = raft.install_full_snapshot(vote, snapshot).await.map_err(|error| error.to_string())?;
    Ok(response.vote)
}

/// Receives what is missing of a snapshot. On an error, what arrived whole stays in `slot`.
async fn take_bytes(
    env: &Env,
    storage: &Storage,
    duplex: &mut Duplex,
    begin: &pb::SnapshotBegin,
    slot: &mut Option<Partial>,
) -> Result<(), String> {
    if slot.as_ref().is_none_or(|partial| partial.id != begin.id) {
        // The old file goes before the new one comes.
        *slot = None;
    }
    let have = slot.as_ref().map_or((0, 0), |partial| (partial.incoming.bytes(), partial.crc));
    tracing::info!(bytes = begin.bytes, id = begin.id, from = have.0, "receiving a snapshot");
    put(env, duplex, Body::SnapshotHave(pb::SnapshotHave { bytes: have.0, crc32c: have.1 })).await?;
    loop {
        match receive(env, duplex, SNAPSHOT_STEP_TIMEOUT).await? {
            Body::SnapshotChunk(chunk) => take_chunk(storage, &begin.id, &chunk, slot)?,
            Body::SnapshotEnd(end) => {
                let received =
                    slot.as_ref().map_or((0, 0), |partial| (partial.incoming.bytes(), partial.crc));
                if (end.bytes, end.crc32c) == received && end.bytes == begin.bytes {
                    return Ok(());
                }
                *slot = None;
                return Err(format!("the {} bytes received are not what was sent", received.0));
            }
            other => return Err(format!("expected more of the snapshot, got {other:?}")),
        }
    }
}

fn take_chunk(
    storage: &Storage,
    id: &str,
    chunk: &pb::SnapshotChunk,
    slot: &mut Option<Partial>,
) -> Result<(), String> {
    if chunk.offset == 0 {
        *slot = None;
        let incoming = storage.receive_snapshot().map_err(|error| error.to_string())?;
        *slot = Some(Partial { id: id.to_owned(), incoming, crc: 0 });
    }
    let partial = slot.as_mut().ok_or("the snapshot does not begin at its begin")?;
    if chunk.offset != partial.incoming.bytes() || crc32c::crc32c(&chunk.data) != chunk.crc32c {
        return Err(format!("the bytes from {} on did not arrive as they were sent", chunk.offset));
    }
    partial.incoming.write(&chunk.data).map_err(|error| error.to_string())?;
    partial.crc = crc32c::crc32c_append(partial.crc, &chunk.data);
    Ok(())
}
