//! Linearizable reads: rounds of leadership confirmation, shared by all reads that wait for one.
//!
//! A read joins only a round that starts after it arrived. A round asks the leader (openraft here, a peer's loop
//! elsewhere) for its read index: the last committed entry, or the first of the leader's own term if that is later,
//! confirmed by a quorum that answered messages sent in this very round. Then the read waits until that entry is
//! visible on this member. A round that fails is forgotten: its reads join the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{BoxFuture, Fault, LogIndex};
use holdfast_proto::internal as pb;
use holdfast_storage::Visible;
use openraft::LinearizerOption;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::codec::rpc::{self, Body};
use crate::limits::RETRY_PAUSE;
use crate::peer::network::Peers;
use crate::proposer::ServerMetrics;
use crate::shared::Shared;
use crate::types::{Raft, RaftLogId, to_raft};

/// Reads that wait for a round.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Mutex<Vec<Waiter>>,
    /// Told when a read arrives. One task waits on it: the loop.
    arrived: Notify,
    /// Who waits for an index to be visible here, and for no confirmation.
    placed: Mutex<Vec<(LogIndex, oneshot::Sender<Visible>)>>,
    /// Told when one of those comes. The loop waits on it, too.
    placed_arrived: Notify,
}

#[derive(Debug)]
enum Waiter {
    /// A read on this member: waits for the round and then for the local state.
    Here(oneshot::Sender<Visible>),
    /// A peer's round: wants the index only, and only from a leader.
    Peer(oneshot::Sender<Result<RaftLogId, String>>),
}

impl Waiter {
    fn is_gone(&self) -> bool {
        match self {
            Self::Here(answer) => answer.is_closed(),
            Self::Peer(answer) => answer.is_closed(),
        }
    }
}

impl Reads {
    /// Registers a read; the receiver gets how far the local state reaches when the read may go on. It ends without
    /// a value when the node stops.
    pub(crate) fn join(&self) -> oneshot::Receiver<Visible> {
        let (answer, answered) = oneshot::channel();
        self.push(Waiter::Here(answer));
        answered
    }

    /// The read index for a peer's round.
    pub(crate) async fn index_for_peer(&self) -> Result<RaftLogId, String> {
        let (answer, answered) = oneshot::channel();
        self.push(Waiter::Peer(answer));
        answered.await.unwrap_or_else(|_| Err("the member is stopping".to_owned()))
    }

    /// Registers somebody who waits until what the log holds up to `index` is visible here. The receiver ends without a
    /// value when the node stops. Through the loop, because one task watches what is visible: tokio wakes several in an
    /// order that no seed decides, and simulations of one seed would differ.
    pub(crate) fn until_visible(&self, index: LogIndex) -> oneshot::Receiver<Visible> {
        let (answer, answered) = oneshot::channel();
        self.placed.lock().push((index, answer));
        self.placed_arrived.notify_one();
        answered
    }

    fn push(&self, waiter: Waiter) {
        self.waiting.lock().push(waiter);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<Waiter> {
        let mut waiters = std::mem::take(&mut *self.waiting.lock());
        waiters.retain(|waiter| !waiter.is_gone());
        waiters
    }
}

type Confirmation = Result<RaftLogId, String>;

/// The loop's state.
pub(crate) struct ReadLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) metrics: ServerMetrics,
    /// Confirmed reads, and others who wait for no more than that, by the index that they wait for.
    pub(crate) confirmed: BTreeMap<LogIndex, Vec<oneshot::Sender<Visible>>>,
}

/// A round on its way, with those who wait for it.
struct Round {
    /// Who is asked.
    leader: Option<u64>,
    confirmation: BoxFuture<'static, Confirmation>,
    waiters: Vec<Waiter>,
}

impl ReadLoop {
    /// Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let reads = Arc::clone(&self.reads);
        let mut visible = shared.visible.clone();
        let mut round: Option<Round> = None;
        let mut pause: Option<BoxFuture<'static, ()>> = None;
        loop {
            if round.is_none() && pause.is_none() {
                round = self.start_round();
            }
            let may_start = round.is_none() && pause.is_none();
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                confirmation = confirmed(&mut round), if round.is_some() => {
                    let waiters = round.take().map(|round| round.waiters).unwrap_or_default();
                    if self.finish(confirmation, waiters) {
                        pause = Some(shared.env.clock.sleep(RETRY_PAUSE));
                    }
                }
                // A leader that is lost may never answer: its round is given up as soon as there is another.
                changed = self.metrics.changed(), if round.is_some() => {
                    if changed.is_err() {
                        return;
                    }
                    let leader = self.metrics.borrow_watched().current_leader;
                    if let Some(lost) = round.take_if(|round| round.leader != leader) {
                        self.finish(Err("the leader changed".to_owned()), lost.waiters);
                    }
                }
                changed = visible.changed(), if !self.confirmed.is_empty() => match changed {
                    Ok(()) => self.release(*visible.borrow_and_update()),
                    Err(_) => return,
                },
                () = reads.placed_arrived.notified() => self.place(),
                () = elapsed(&mut pause), if pause.is_some() => pause = None,
                () = reads.arrived.notified(), if may_start => {}
            }
        }
    }

    /// Starts a round for all that wait now, if any do.
    fn start_round(&self) -> Option<Round> {
        let mut waiters = self.reads.take();
        let leader = self.metrics.borrow_watched().current_leader;
        let here = self.shared.config.id.0;
        if leader != Some(here) {
            // A peer took us for the leader; it must not wait for a chain of members.
            let (ours, peers): (Vec<_>, Vec<_>) =
                waiters.into_iter().partition(|waiter| matches!(waiter, Waiter::Here(_)));
            peers.into_iter().for_each(|waiter| answer_peer(waiter, &Err("not the leader".to_owned())));
            waiters = ours;
        }
        if waiters.is_empty() {
            return None;
        }
        let limit = self.shared.config.election_timeout;
        let confirmation: BoxFuture<'static, Confirmation> = match leader {
            Some(leader) if leader == here && self.shared.env.faults.is_planted(Fault::ReadIndexOff) => {
                let visible =
                    self.shared.visible.borrow().log_id.ok_or_else(|| "nothing is applied".to_owned());
                Box::pin(std::future::ready(visible.map(to_raft)))
            }
            Some(leader) if leader == here => Box::pin(confirm_here(self.raft.clone(), limit)),
            Some(leader) => Box::pin(confirm_there(Arc::clone(&self.peers), leader, limit)),
            None => Box::pin(std::future::ready(Err("no leader is known".to_owned()))),
        };
        Some(Round { leader, confirmation, waiters })
    }

    /// Deals with the end of a round. True when the next one should wait a little.
    fn finish(&mut self, confirmation: Confirmation, mut waiters: Vec<Waiter>) -> bool {
        if self.shared.env.faults.is_planted(Fault::ReadJoinsOlderRound) {
            waiters.extend(self.reads.take());
        }
        let visible = *self.shared.visible.borrow();
        let mut again = Vec::new();
        for waiter in waiters {
            match (waiter, &confirmation) {
                (Waiter::Here(answer), Ok(log_id)) => {
                    let index = LogIndex::new(log_id.index);
                    self.confirmed.entry(index).or_default().push(answer);
                }
                (waiter @ Waiter::Here(_), Err(_)) => again.push(waiter),
                (waiter @ Waiter::Peer(_), confirmation) => answer_peer(waiter, confirmation),
            }
        }
        self.release(visible);
        self.forget_gone();
        match confirmation {
            Ok(_) => false,
            Err(reason) => {
                tracing::debug!(
                    reason,
                    reads = again.len(),
                    "a read confirmation failed; the reads wait for another"
                );
                self.reads.waiting.lock().splice(0..0, again);
                true
            }
        }
    }

    /// Takes in those who wait for an index alone.
    fn place(&mut self) {
        let placed = std::mem::take(&mut *self.reads.placed.lock());
        for (index, answer) in placed {
            self.confirmed.entry(index).or_default().push(answer);
        }
        let visible = *self.shared.visible.borrow();
        self.release(visible);
        self.forget_gone();
    }

    /// Forgets the confirmed reads whose askers have given up: on a member that does not apply there may be many.
    fn forget_gone(&mut self) {
        self.confirmed.retain(|_, answers| {
            answers.retain(|answer| !answer.is_closed());
            !answers.is_empty()
        });
    }

    /// Answers the confirmed reads whose index is visible.
    fn release(&mut self, visible: Visible) {
        let Some(log_id) = visible.log_id else { return };
        let later = self.confirmed.split_off(&log_id.index().next());
        for answer in std::mem::replace(&mut self.confirmed, later).into_values().flatten() {
            // The read may have timed out meanwhile.
            answer.send(visible).ok();
        }
    }
}

fn answer_peer(waiter: Waiter, confirmation: &Confirmation) {
    if let Waiter::Peer(answer) = waiter {
        // The peer may be gone.
        answer.send(confirmation.clone()).ok();
    }
}

async fn confirmed(round: &mut Option<Round>) -> Confirmation {
    match round {
        Some(round) => (&mut round.confirmation).await,
        None => std::future::pending().await,
    }
}

async fn elapsed(pause: &mut Option<BoxFuture<'static, ()>>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

/// A round on the leader. An age of zero makes openraft send heartbeats now and count only their answers; anything
/// else could be answered from before a pause of this process.
async fn confirm_here(raft: Raft, limit: Duration) -> Confirmation {
    let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(limit);
    let (read_log_id, _) = raft.get_read_log_id(option).await.map_err(|error| error.to_string())?;
    Ok(*read_log_id.log_id())
}

/// A round on a follower: the leader's.
async fn confirm_there(peers: Arc<Peers>, leader: u64, limit: Duration) -> Confirmation {
    let link = peers.get(leader).ok_or_else(|| "not connected to the leader".to_owned())?;
    let request = Body::ReadIndexRequest(pb::ReadIndexRequest {});
    match link.request(request, limit).await.map_err(|error| error.to_string())? {
        Body::ReadIndexResponse(response) => rpc::read_index_response_from(response),
        other => Err(format!("an answer of another kind: {other:?}")),
    }
}
