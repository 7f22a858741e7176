//! Questions for leases, asked on any member: a loop passes on to the leader all that wait, in one request.
//!
//! Like a round of reads, a request holds what arrived before it began, and one is under way at a time: what arrives
//! meanwhile goes with the next one. So however many keep-alives come, there is one request from each member and one
//! confirmation for each of those at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::answering::wait_for;
use super::question::{self, Answered, Answers, Question};
use super::{LeaseLeft, Leases};
use crate::codec::rpc::Body;
use crate::error::{NodeError, TimeoutCause};
use crate::limits::{ENDING_PAUSE, LEASE_QUESTIONS_MAX, RETRY_PAUSE, within};
use crate::peer::network::Peers;
use crate::proposer::ServerMetrics;
use crate::reads::Reads;
use crate::shared::Shared;

/// Questions that wait to be passed on.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    waiting: Mutex<VecDeque<Ask>>,
    /// Told when one arrives. One task waits on it: the loop.
    arrived: Notify,
}

/// Some questions of one asker.
#[derive(Debug)]
struct Ask {
    questions: Vec<Question>,
    answer: oneshot::Sender<Result<Answers, String>>,
}

impl Asks {
    /// Asks once; at most [`LEASE_QUESTIONS_MAX`] questions. What comes back is why nobody has answered, then.
    async fn once(&self, questions: Vec<Question>) -> Result<Answers, String> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().push_back(Ask { questions, answer });
        self.arrived.notify_one();
        answered.await.unwrap_or_else(|_| Err("the member is stopping".to_owned()))
    }

    /// As many as fit into one request, from the front.
    fn take(&self) -> Vec<Ask> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|ask| !ask.answer.is_closed());
        let mut questions = 0;
        let fit = waiting.iter().take_while(|ask| {
            questions += ask.questions.len();
            questions <= LEASE_QUESTIONS_MAX
        });
        let count = fit.count();
        waiting.drain(..count).collect()
    }
}

/// The loop's state.
pub(crate) struct AskLoop {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) asks: Arc<Asks>,
    pub(crate) metrics: ServerMetrics,
}

impl AskLoop {
    /// Runs until the node stops.
    pub(crate) async fn run(self) {
        let stop = self.shared.stop.clone();
        loop {
            let asks = self.asks.take();
            let work = async {
                if asks.is_empty() { self.asks.arrived.notified().await } else { self.pass_on(asks).await }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = work => {}
            }
        }
    }

    /// Passes on what some have asked, and hands them what the leader says.
    async fn pass_on(&self, asks: Vec<Ask>) {
        let questions: Vec<Question> = asks.iter().flat_map(|ask| &ask.questions).copied().collect();
        let leader = self.metrics.borrow_watched().current_leader;
        let answered = tokio::select! {
            biased;
            answered = self.ask_leader(leader, &questions) => answered,
            // A leader that is lost may never answer.
            () = self.until_led_by_another(leader) => Err("the leader changed".to_owned()),
        };
        match answered {
            Ok((answered, at)) => {
                let mut answered = answered.into_iter();
                for ask in asks {
                    let own = answered.by_ref().take(ask.questions.len()).collect();
                    // The asker may have given up meanwhile.
                    ask.answer.send(Ok((own, at))).ok();
                }
            }
            Err(reason) => {
                tracing::debug!(
                    reason,
                    questions = questions.len(),
                    "questions for leases were not answered"
                );
                asks.into_iter().for_each(|ask| drop(ask.answer.send(Err(reason.clone()))));
            }
        }
    }

    async fn ask_leader(&self, leader: Option<u64>, questions: &[Question]) -> Result<Answers, String> {
        let leader = leader.ok_or("no leader is known")?;
        if leader == self.shared.config.id.0 {
            return self.leases.answer(&self.shared, &self.reads, questions).await;
        }
        let link = self.peers.get(leader).ok_or("not connected to the leader")?;
        let limit = self.shared.config.election_timeout;
        let asked = link.request(question::to_proto(questions), limit);
        match asked.await.map_err(|error| error.to_string())? {
            Body::LeaseResponse(response) => question::response_from_proto(response, questions.len()),
            other => Err(format!("an answer of another kind: {other:?}")),
        }
    }

    async fn until_led_by_another(&self, leader: Option<u64>) {
        let mut metrics = self.metrics.clone();
        while metrics.borrow_and_update().current_leader == leader {
            if metrics.changed().await.is_err() {
                // openraft has ended, and the node with it.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Who asks, on any member.
pub(crate) struct Asker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) reads: &'a Reads,
    pub(crate) asks: &'a Asks,
    pub(crate) metrics: ServerMetrics,
}

impl Asker<'_> {
    /// Asks whoever leads, again and again within `budget`: a question may be asked twice. Gives what is left of each lease,
    /// in the order of the questions (`None`: it does not exist), once the local state has what the leader had when it
    /// answered.
    pub(crate) async fn ask(
        &self,
        questions: &[Question],
        budget: Duration,
    ) -> Result<Vec<Option<LeaseLeft>>, NodeError> {
        let shared = self.shared;
        let changes_before = shared.leader_changes();
        let asking = within(&*shared.env.clock, budget, self.until_answered(questions));
        let ended = tokio::select! {
            biased;
            answers = asking => answers,
            () = shared.stop.cancelled() => return Err(NodeError::Stopped),
        };
        ended.ok_or_else(|| {
            if self.metrics.borrow_watched().current_leader.is_none() {
                NodeError::NoLeader
            } else if shared.leader_changes() != changes_before {
                NodeError::LeaderChanged
            } else {
                NodeError::TimedOut(TimeoutCause::Plain)
            }
        })
    }

    async fn until_answered(&self, questions: &[Question]) -> Vec<Option<LeaseLeft>> {
        let mut left = Vec::with_capacity(questions.len());
        for some in questions.chunks(LEASE_QUESTIONS_MAX) {
            left.extend(self.until_some_are_answered(some).await);
        }
        left
    }

    async fn until_some_are_answered(&self, questions: &[Question]) -> Vec<Option<LeaseLeft>> {
        let clock = &*self.shared.env.clock;
        let mut left = vec![None; questions.len()];
        let mut open: Vec<usize> = (0..questions.len()).collect();
        loop {
            let asked = open.iter().map(|place| questions[*place]).collect();
            let pause = match self.asks.once(asked).await {
                Ok((answered, at)) => {
                    wait_for(self.shared, self.reads, at.index()).await;
                    let mut answered = answered.into_iter();
                    open.retain(|place| match answered.next() {
                        Some(Answered::Left(found)) => {
                            left[*place] = Some(found);
                            false
                        }
                        Some(Answered::Ending) => true,
                        Some(Answered::Unknown) | None => false,
                    });
                    ENDING_PAUSE
                }
                Err(_) => RETRY_PAUSE,
            };
            if open.is_empty() {
                return left;
            }
            clock.sleep(pause).await;
        }
    }
}
