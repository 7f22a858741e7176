//! Linearizable reads: rounds of leadership confirmation, shared by all reads that wait for one.
//!
//! A read joins only a round that starts after it arrived. A round asks the leader (openraft here, a peer's loop
//! elsewhere) for its read index: the last committed entry, or the first of the leader's own term if that is later,
//! confirmed by a quorum that answered messages sent in this very round. Then the read waits until that entry is
//! visible on this member. A round that fails is forgotten: its reads join the next one.
//!
//! A follower's question carries its newest vote. Where leader and asker are a majority, as in a cluster of three, that is
//! all the confirmation there has to be ([`confirmed_by_asker`]), and the leader answers without a round of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{BoxFuture, Fault, LogIndex};
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
use crate::types::{Membership, Raft, RaftLogId, RaftVote, to_raft};

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
            Some(leader) => {
                // As of now, behind the arrival of all who wait.
                let vote = *self.shared.vote_given.lock();
                Box::pin(confirm_there(Arc::clone(&self.peers), leader, vote, limit))
            }
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

/// A round on a follower: a question to the leader. `vote` is the newest that this member has given.
async fn confirm_there(
    peers: Arc<Peers>,
    leader: u64,
    vote: Option<RaftVote>,
    limit: Duration,
) -> Confirmation {
    let link = peers.get(leader).ok_or_else(|| "not connected to the leader".to_owned())?;
    let request = rpc::read_index_request(vote.as_ref());
    match link.request(request, limit).await.map_err(|error| error.to_string())? {
        Body::ReadIndexResponse(response) => rpc::read_index_response_from(response),
        other => Err(format!("an answer of another kind: {other:?}")),
    }
}

/// The read index for the reads of `peer`, when its question confirms our leadership by itself. `vote` is the newest that it
/// had given when it asked.
///
/// Whoever else led when the reads arrived would have been elected in a later term, by a majority. None of that is `peer`,
/// whose newest vote is for us, nor we, who lead in that term still. If we two are a majority, there was nobody else.
pub(crate) async fn confirmed_by_asker(
    shared: &Shared,
    raft: &Raft,
    peer: u64,
    vote: RaftVote,
) -> Option<RaftLogId> {
    if shared.env.faults.is_planted(Fault::ReadIndexOff) {
        return None;
    }
    let metrics = raft.server_metrics();
    let is_confirmed = || {
        let metrics = metrics.borrow_watched();
        // At most one step of a change of members behind what openraft counts with, and the majorities of two such steps
        // overlap; not ahead either, with members that a later leader has chosen, as long as the vote is still ours.
        confirms(metrics.membership_config.membership(), metrics.vote, [shared.config.id.0, peer], vote)
    };
    // Before openraft's core is asked, which has other things to do; what counts is that it is so afterwards.
    if !is_confirmed() {
        return None;
    }
    // openraft answers at once, and only while a majority has answered within its lease. The lease is not what this rests on.
    let option = LinearizerOption::new(None, false).with_wait_timeout(Duration::ZERO);
    let (read_log_id, _) = raft.get_read_log_id(option).await.ok()?;
    let index = *read_log_id.log_id();
    // The read index of a leader is of its own term.
    (index.leader_id.term == vote.leader_id.term && is_confirmed()).then_some(index)
}

/// True when the question of an asker with this vote confirms the leader, whose own vote is `ours`.
fn confirms(
    membership: &Membership,
    ours: RaftVote,
    [leader, asker]: [u64; 2],
    asked_with: RaftVote,
) -> bool {
    ours.committed
        && ours.leader_id.voted_for == leader
        && ours.leader_id == asked_with.leader_id
        && is_majority(membership, [leader, asker])
}

/// True when these two members decide alone, in each of the configurations that count.
fn is_majority(membership: &Membership, members: [u64; 2]) -> bool {
    let configs = membership.get_joint_config();
    let decide = |voters: &BTreeSet<u64>| {
        let present = members.iter().filter(|member| voters.contains(member)).count();
        present > voters.len() / 2
    };
    !configs.is_empty() && configs.iter().all(decide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PeerNode, vote};

    /// A membership with these configurations of voters, and 9 as a learner.
    fn membership(configs: &[&[u64]]) -> Membership {
        let voters = configs.iter().map(|voters| voters.iter().copied().collect::<BTreeSet<_>>()).collect();
        let nodes = configs.iter().copied().flatten().chain(&[9]).map(|id| (*id, PeerNode::default()));
        Membership::new(voters, nodes.collect::<BTreeMap<_, _>>()).unwrap()
    }

    /// What member 1, the leader of term 4, makes of a question.
    fn confirms(membership: &Membership, asker: u64, asked_with: RaftVote) -> bool {
        super::confirms(membership, vote(4, 1, true), [1, asker], asked_with)
    }

    #[test]
    fn a_question_confirms_the_leader_its_asker_follows_when_the_two_are_a_majority() {
        let three = membership(&[&[1, 2, 3]]);
        assert!(confirms(&three, 2, vote(4, 1, true)));
        assert!(confirms(&three, 3, vote(4, 1, false)), "it has voted for nobody behind us");
        assert!(confirms(&membership(&[&[1, 2]]), 2, vote(4, 1, true)));
        assert!(confirms(&membership(&[&[1]]), 9, vote(4, 1, true)), "alone already");
    }

    #[test]
    fn whoever_may_have_helped_another_leader_confirms_nothing() {
        let three = membership(&[&[1, 2, 3]]);
        for (other, why) in [
            (vote(5, 3, false), "it has voted for another one"),
            (vote(5, 3, true), "it follows another one"),
            (vote(5, 1, false), "it has voted for us in a term in which we do not lead"),
            (vote(3, 1, true), "it speaks of a term in which we led, and another may have led since"),
            (vote(4, 3, true), "there is one leader in a term, and it takes another for it"),
        ] {
            assert!(!confirms(&three, 2, other), "{why}");
        }
    }

    #[test]
    fn leader_and_asker_have_to_decide_alone_in_each_configuration() {
        let vote = vote(4, 1, true);
        for (configs, why) in [
            (&[&[1, 2, 3, 4, 5][..]][..], "two of five"),
            (&[&[1, 2, 3, 4]], "two of four"),
            (&[&[1, 2, 3], &[2, 3, 4]], "the leader is none of the second"),
            (&[&[1, 2, 3], &[1, 2, 3, 4, 5]], "two of five in the second"),
        ] {
            assert!(!confirms(&membership(configs), 2, vote), "{why}");
        }
        assert!(!confirms(&membership(&[&[1, 2, 3]]), 9, vote), "a learner");
        assert!(confirms(&membership(&[&[1, 2, 3], &[1, 2, 4]]), 2, vote));
    }

    #[test]
    fn who_leads_no_more_or_not_yet_is_confirmed_by_nobody() {
        let three = membership(&[&[1, 2, 3]]);
        for ours in [vote(4, 1, false), vote(5, 3, true), vote(5, 3, false), vote(4, 2, true)] {
            for asked_with in [vote(4, 1, true), ours] {
                assert!(!super::confirms(&three, ours, [1, 2], asked_with), "{ours:?} {asked_with:?}");
            }
        }
    }
}
