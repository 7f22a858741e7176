//! Takes waiting proposals to the leader's log: our own, when we lead, otherwise over the connection to the leader.
//!
//! One loop, no timer: whatever waits when the loop comes round is one batch. A batch that was certainly not appended
//! goes back to the queue, to be tried with the leader of then; anything else is left to the apply or to its askers'
//! patience.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_env::BoxFuture;
use holdfast_proto::internal as pb;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::type_config::alias::WatchReceiverOf;
use tracing::Instrument;

use crate::codec::rpc::Body;
use crate::error::NodeError;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, BATCHES_IN_FLIGHT, FRAME_PAYLOAD_BYTES, RETRY_PAUSE,
};
use crate::peer::link::LinkError;
use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::{Payload, Raft, TypeConfig};

/// Why a leader did not take a batch; certain that nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not lead, or cannot be sure that it does.
    NotLeader,
    /// Applying lags too far behind.
    Busy,
    /// The disk has no room for more log.
    NoSpace,
}

/// What became of a batch.
struct Outcome {
    /// Certainly not appended.
    refused: Vec<u64>,
    reason: Refusal,
}

/// openraft's view of who leads.
pub(crate) type ServerMetrics = WatchReceiverOf<TypeConfig, openraft::metrics::RaftServerMetrics<TypeConfig>>;

/// The loop's state.
pub(crate) struct Proposer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: ServerMetrics,
}

impl Proposer {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Outcome>> = FuturesUnordered::new();
        let mut pause: Option<BoxFuture<'static, ()>> = None;
        loop {
            let leader = self.metrics.borrow_watched().current_leader;
            let may_take = pause.is_none() && leader.is_some() && in_flight.len() < BATCHES_IN_FLIGHT;
            if may_take && let Some(batch) = self.take(leader) {
                let is_first = in_flight.is_empty();
                in_flight.push(batch);
                if !is_first {
                    // Gives others a turn: a busy queue must not starve answers. What comes alone does not wait for that.
                    tokio::task::yield_now().await;
                }
            }
            let idle = !(may_take && shared.proposals.has_queued());
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                Some(outcome) = in_flight.next(), if !in_flight.is_empty() => {
                    if self.settle(&outcome) {
                        pause = Some(shared.env.clock.sleep(RETRY_PAUSE));
                    }
                }
                () = wait(&mut pause), if pause.is_some() => pause = None,
                changed = self.metrics.changed() => match changed {
                    Ok(()) => pause = None,
                    Err(_) => return,
                },
                () = shared.proposals.queued.notified(), if idle => {}
                () = std::future::ready(()), if !idle => {}
            }
        }
    }

    /// The next batch, on its way to `leader`.
    fn take(&self, leader: Option<u64>) -> Option<BoxFuture<'static, Outcome>> {
        let proposals = &self.shared.proposals;
        let leader = leader?;
        let local = leader == self.shared.config.id.0;
        let batch = if local {
            proposals.take_batch(BATCH_ENTRIES_MAX, BATCH_BYTES_MAX)
        } else {
            proposals.take_batch(BATCH_ENTRIES_MAX, FRAME_PAYLOAD_BYTES)
        };
        if batch.is_empty() {
            return None;
        }
        let (sequences, payloads): (Vec<u64>, Vec<Bytes>) = batch.into_iter().unzip();
        let span = tracing::debug_span!("propose", entries = sequences.len(), leader);
        if local {
            let (shared, raft) = (Arc::clone(&self.shared), self.raft.clone());
            let append = async move {
                match append_at_pace(&shared, &raft, payloads).await {
                    Ok(places) => {
                        let refused = places.into_iter().map(|place| sequences[place]).collect();
                        Outcome { refused, reason: Refusal::NotLeader }
                    }
                    Err(reason) => Outcome { refused: sequences, reason },
                }
            };
            Some(Box::pin(append.instrument(span)))
        } else {
            let limit = self.shared.config.election_timeout;
            Some(Box::pin(
                forward(Arc::clone(&self.peers), leader, sequences, payloads, limit).instrument(span),
            ))
        }
    }

    /// Deals with what was refused. True when the next try should wait a little.
    fn settle(&self, outcome: &Outcome) -> bool {
        if outcome.refused.is_empty() {
            return false;
        }
        match outcome.reason {
            Refusal::NotLeader => self.shared.proposals.requeue(&outcome.refused),
            Refusal::Busy => self.shared.proposals.refuse(&outcome.refused, &NodeError::TooManyRequests),
            Refusal::NoSpace => self.shared.proposals.refuse(&outcome.refused, &NodeError::NoSpace),
        }
        true
    }
}

async fn wait(pause: &mut Option<BoxFuture<'static, ()>>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

/// As [`append_local`], no faster than dumps can follow: for what clients write.
pub(crate) async fn append_at_pace(
    shared: &Shared,
    raft: &Raft,
    payloads: Vec<Bytes>,
) -> Result<Vec<usize>, Refusal> {
    shared.pace.keep(shared, payloads.iter().map(|payload| payload.len() as u64).sum()).await;
    append_local(shared, raft, payloads).await
}

/// Appends to our own log and waits until openraft is done with it. Gives the places in `payloads` of what was
/// certainly not appended; an error means nothing was.
pub(crate) async fn append_local(
    shared: &Shared,
    raft: &Raft,
    payloads: Vec<Bytes>,
) -> Result<Vec<usize>, Refusal> {
    if shared.log.is_full() {
        return Err(Refusal::NoSpace);
    }
    // Here, not in openraft's core, is where a slow disk may hold writes back.
    if shared.log.room().await.is_err() {
        return Err(Refusal::NotLeader);
    }
    let Ok(mut results) = raft.client_write_many(payloads.into_iter().map(Payload)).await else {
        // openraft has stopped; what it had taken by then is not known.
        return Ok(Vec::new());
    };
    let mut refused = Vec::new();
    let mut place = 0;
    while let Some(Ok(result)) = results.next().await {
        match result {
            Err(ClientWriteError::ForwardToLeader(_)) => refused.push(place),
            // Discarded: it was in our log, and may have been in others.
            Ok(_)
            | Err(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => {}
        }
        place += 1;
    }
    Ok(refused)
}

/// Sends a batch to the leader. The leader answers when it has applied it, or at once when it refuses; the commands'
/// own answers come out of our own apply.
async fn forward(
    peers: Arc<Peers>,
    leader: u64,
    sequences: Vec<u64>,
    payloads: Vec<Bytes>,
    limit: Duration,
) -> Outcome {
    let request = Body::ForwardRequest(pb::ForwardRequest { payloads });
    let answer = match peers.get(leader) {
        Some(link) => link.request(request, limit).await,
        None => Err(LinkError::Down),
    };
    let refusal = match answer {
        Ok(Body::ForwardResponse(response)) => match response.refusal() {
            pb::ForwardRefusal::None => None,
            pb::ForwardRefusal::NotLeader | pb::ForwardRefusal::Stopping => Some(Refusal::NotLeader),
            pb::ForwardRefusal::Busy => Some(Refusal::Busy),
            pb::ForwardRefusal::NoSpace => Some(Refusal::NoSpace),
        },
        Err(LinkError::Down) => Some(Refusal::NotLeader),
        // It may have been appended: its askers wait for our apply.
        Ok(_) | Err(LinkError::Broken | LinkError::TimedOut) => None,
    };
    match refusal {
        Some(reason) => Outcome { refused: sequences, reason },
        None => Outcome { refused: Vec::new(), reason: Refusal::NotLeader },
    }
}
