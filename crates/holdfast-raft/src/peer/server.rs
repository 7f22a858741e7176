//! Connections that peers open to us: greeting, then requests handled side by side, answered as they finish.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_env::{BoxFuture, Duplex, Incoming, Lane};
use holdfast_proto::internal as pb;
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;

use super::discover;
use super::held::{Answer, Held};
use super::hello::{HelloError, Identity, heed};
use super::link::Link;
use super::network::Peers;
use super::snapshot::{self, Receiving};
use crate::codec::rpc::{self, AppendResult, Body, decode_message, encode_message};
use crate::digest;
use crate::lease::{self, Leases};
use crate::limits::{CONNECTIONS_MAX, FORWARDS_IN_FLIGHT, LEASES_IN_FLIGHT, REQUESTS_IN_FLIGHT};
use crate::membership::Changes;
use crate::proposer::{self, Refusal};
use crate::reads::{self, Reads};
use crate::shared::Shared;
use crate::types::{Raft, RaftLogId, TypeConfig};

/// How many requests of a connection that may last are being handled.
#[derive(Debug, Default)]
struct Running {
    forwards: AtomicUsize,
    leases: AtomicUsize,
}

/// What serves peers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PeerServer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Identity,
    pub(crate) peers: Arc<Peers>,
    pub(crate) raft: Raft,
    pub(crate) reads: Arc<Reads>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) changes: Changes,
    pub(crate) receiving: Arc<Receiving>,
}

impl PeerServer {
    /// Serves the connections that come in at `url` until the node stops. A member that nobody can reach any more
    /// could still vote and lead, so the end of `incoming` before that stops it.
    pub(crate) async fn run(self, url: String, mut incoming: mpsc::Receiver<Incoming>) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => break,
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = incoming.recv(), if connections.len() < CONNECTIONS_MAX => {
                    let Some(Incoming { lane, duplex }) = accepted else {
                        let spawn = &self.shared.env.spawn;
                        spawn.halt(&format!("connections of peers are no longer accepted at {url}; restart the member"));
                        return;
                    };
                    let connection = Box::pin(self.clone().serve(lane, duplex));
                    let spawn = &self.shared.env.spawn;
                    let task = match lane {
                        Lane::Raft => spawn.task("peer-conn", connection),
                        Lane::Snapshot => spawn.background("snapshot-recv", connection),
                    };
                    connections.push(task.join());
                }
            }
        }
        while connections.next().await.is_some() {}
    }

    async fn serve(self, lane: Lane, mut duplex: Duplex) {
        let stop = self.shared.stop.clone();
        let work = async move {
            let clock = &*self.shared.env.clock;
            match self.identity.welcome(self.peers.roster(), clock, &mut duplex).await {
                Ok(peer) => match lane {
                    Lane::Raft => {
                        let link = self.peers.get(peer);
                        // A peer that is back should not wait for our next try.
                        link.iter().for_each(Link::hurry);
                        let _open = link.map(|link| link.opened_by_peer());
                        self.serve_requests(peer, duplex).await;
                    }
                    Lane::Snapshot => {
                        let (env, storage) = (self.shared.env.clone(), self.shared.storage.clone());
                        snapshot::serve(env, self.raft, storage, self.receiving, duplex).await;
                    }
                },
                Err(HelloError::Stranger) => {
                    discover::answer(clock, &mut duplex, self.changes.members_response()).await;
                }
                Err(error @ (HelloError::Refused(_) | HelloError::NotHello)) => {
                    tracing::error!(%error, "a connection to the peer port was refused");
                }
                Err(error) => tracing::debug!(%error, "a connection to the peer port came to nothing"),
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Handles requests side by side, at most [`REQUESTS_IN_FLIGHT`]; appends reach openraft in their order.
    async fn serve_requests(&self, peer: u64, mut duplex: Duplex) {
        let running_now = Running::default();
        let mut running: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
        let mut held = Held::default();
        loop {
            tokio::select! {
                biased;
                Some(answer) = running.next(), if !running.is_empty() => {
                    held.push(answer, &*self.shared.env.clock);
                    if !held.is_due() {
                        continue;
                    }
                    if held.send(&duplex.send).await.is_err() {
                        return;
                    }
                }
                frame = duplex.recv.recv(), if running.len() < REQUESTS_IN_FLIGHT => {
                    let Some(frame) = frame else { return };
                    match decode_message(frame) {
                        Ok((request, body)) => {
                            running.push(Box::pin(self.answer_to(peer, request, body, &running_now)));
                        }
                        Err(error) => {
                            tracing::error!(peer = format!("{peer:x}"), %error, "a malformed message from a peer");
                            return;
                        }
                    }
                }
                () = held.time_is_up() => {
                    if held.send(&duplex.send).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn answer_to(&self, peer: u64, request: u64, body: Body, now: &Running) -> Answer {
        let can_wait = matches!(&body, Body::AppendRequest(append) if append.answer_can_wait);
        let answer = self.answer(peer, body, now).await;
        // What was appended, its askers hear of when it is applied, from their own member.
        let is_appended = matches!(&answer, Body::ForwardResponse(forward) if forward.refusal() == pb::ForwardRefusal::None);
        Answer { frame: encode_message(request, answer), can_wait: can_wait || is_appended }
    }

    async fn answer(&self, peer: u64, body: Body, now: &Running) -> Body {
        if self.peers.roster().is_removed(peer) {
            let reason = format!("member {peer:x} was removed from the cluster");
            let refused = pb::Refused { reason, cause: pb::RefusedCause::Removed.into() };
            return Body::Refused(refused);
        }
        match body {
            Body::AppendRequest(append) => rpc::append_response(self.append(append).await),
            Body::VoteRequest(vote) => rpc::vote_response(self.vote(vote).await),
            Body::TransferLeaderRequest(transfer) => {
                let failed = self.transfer_leader(transfer).await.err().unwrap_or_default();
                Body::TransferLeaderResponse(pb::TransferLeaderResponse { failed })
            }
            Body::ForwardRequest(forward) => {
                Body::ForwardResponse(self.forward(forward, &now.forwards).await)
            }
            Body::ReadIndexRequest(request) => rpc::read_index_response(self.read_index(peer, request).await),
            Body::ChangeMembersRequest(change) => {
                Body::ChangeMembersResponse(self.changes.serve(change).await)
            }
            Body::LeaseRequest(request) => Body::LeaseResponse(self.lease(request, &now.leases).await),
            Body::DigestRequest(request) => Body::DigestResponse(digest::serve(&self.shared, request).await),
            Body::Refused(refused) => {
                // It did not like our greeting, which was the answer to its own.
                heed(self.peers.roster(), &refused);
                Body::Refused(pb::Refused::default())
            }
            other => Body::Refused(pb::Refused { reason: format!("not a request: {other:?}"), cause: 0 }),
        }
    }

    /// What the question confirms by itself, or else what a round does.
    async fn read_index(&self, peer: u64, request: pb::ReadIndexRequest) -> Result<RaftLogId, String> {
        if let Some(vote) = rpc::read_index_request_from(request)
            && let Some(index) = reads::confirmed_by_asker(&self.shared, &self.raft, peer, vote).await
        {
            return Ok(index);
        }
        self.reads.index_for_peer().await
    }

    async fn append(&self, append: pb::AppendRequest) -> Result<AppendResult, String> {
        let request = rpc::append_request_from(append).map_err(|error| error.to_string())?;
        let (prev, last) = (request.prev_log_id, last_log_id(&request));
        self.shared.leader_sign(request.vote.leader_id.term, request.vote.leader_id.voted_for);
        // Heartbeats still get through. What is left of the last segment is for votes.
        if !request.entries.is_empty() && self.shared.log.is_full() {
            return Err("the disk has no room for more log".to_owned());
        }
        let response = self.raft.append_entries(request).await.map_err(|error| error.to_string())?;
        match (response, prev) {
            (openraft::raft::AppendEntriesResponse::Conflict, None) => {
                Err("openraft reports a conflict before the first entry".to_owned())
            }
            (response, prev) => Ok(response.into_stream_result(prev, last)),
        }
    }

    async fn vote(&self, vote: pb::VoteRequest) -> Result<openraft::raft::VoteResponse<TypeConfig>, String> {
        let pre_vote = vote.pre_vote;
        let request = rpc::vote_request_from(vote).map_err(|error| error.to_string())?;
        let response =
            if pre_vote { self.raft.pre_vote(request).await } else { self.raft.vote(request).await };
        response.map_err(|error| error.to_string())
    }

    async fn transfer_leader(&self, transfer: pb::TransferLeaderRequest) -> Result<(), String> {
        let request = rpc::transfer_request_from(transfer).map_err(|error| error.to_string())?;
        let response = self.raft.handle_transfer_leader(request).await.map_err(|error| error.to_string())?;
        response.map_err(|error| error.to_string())
    }

    async fn lease(&self, request: pb::LeaseRequest, leases: &AtomicUsize) -> pb::LeaseResponse {
        let running = leases.fetch_add(1, Ordering::Relaxed);
        let response = if running >= LEASES_IN_FLIGHT {
            lease::refusal("too many questions for leases".to_owned())
        } else {
            self.leases.serve(&self.shared, &self.reads, request).await
        };
        leases.fetch_sub(1, Ordering::Relaxed);
        response
    }

    async fn forward(&self, forward: pb::ForwardRequest, forwards: &AtomicUsize) -> pb::ForwardResponse {
        let entries = forward.payloads.len();
        // One task runs all requests of a connection, so the count needs no ordering.
        let running = forwards.fetch_add(1, Ordering::Relaxed);
        let refusal = if running >= FORWARDS_IN_FLIGHT || self.shared.is_overloaded() {
            Some(Refusal::Busy)
        } else {
            match proposer::append_at_pace(&self.shared, &self.raft, forward.payloads).await {
                // All or none: a batch is one message to openraft's core.
                Ok(refused) => (entries > 0 && refused.len() == entries).then_some(Refusal::NotLeader),
                Err(refusal) => Some(refusal),
            }
        };
        forwards.fetch_sub(1, Ordering::Relaxed);
        let (appended, refusal) = match refusal {
            None => (entries as u64, pb::ForwardRefusal::None),
            Some(Refusal::Busy) => (0, pb::ForwardRefusal::Busy),
            Some(Refusal::NotLeader) => (0, pb::ForwardRefusal::NotLeader),
            Some(Refusal::NoSpace) => (0, pb::ForwardRefusal::NoSpace),
        };
        pb::ForwardResponse { appended, refusal: refusal.into() }
    }
}

fn last_log_id(request: &AppendEntriesRequest<TypeConfig>) -> Option<RaftLogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}
