//! Questions for a lease: answered by the leader, asked on any member.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_env::{LogId, LogIndex};
use holdfast_mvcc::types::LeaseId;
use holdfast_proto::internal as pb;
use holdfast_storage::Visible;
use openraft::async_runtime::watch::WatchReceiver;

use super::deadlines::Renewal;
use super::{LeaseLeft, Leases};
use crate::codec::rpc::{self, Body};
use crate::error::{NodeError, TimeoutCause};
use crate::limits::{ENDING_PAUSE, RETRY_PAUSE, within};
use crate::peer::network::Peers;
use crate::proposer::ServerMetrics;
use crate::reads::Reads;
use crate::shared::Shared;
use crate::types::from_raft;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Give it all of its time again.
    Renew(LeaseId),
    /// How much time has it left?
    Left(LeaseId),
}

/// What the leader says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// So much is left, after what was asked for.
    Left(LeaseLeft),
    /// There is no such lease.
    Unknown,
    /// Its end is being decided, and it cannot be renewed.
    Ending,
}

/// Who asks, on any member.
pub(crate) struct Asker<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) peers: &'a Arc<Peers>,
    pub(crate) reads: &'a Reads,
    pub(crate) leases: &'a Leases,
    pub(crate) metrics: ServerMetrics,
}

impl Asker<'_> {
    /// Asks whoever leads, again and again within `budget`: a question may be asked twice. Gives what is left of the lease
    /// (`None`: it does not exist) once the local state has what the leader had when it answered.
    pub(crate) async fn ask(
        &self,
        question: Question,
        budget: Duration,
    ) -> Result<Option<LeaseLeft>, NodeError> {
        let shared = self.shared;
        let changes_before = shared.leader_changes();
        let asking = within(&*shared.env.clock, budget, self.until_answered(question));
        let ended = tokio::select! {
            biased;
            answer = asking => answer,
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

    async fn until_answered(&self, question: Question) -> Option<LeaseLeft> {
        let clock = &*self.shared.env.clock;
        loop {
            match self.once(question).await {
                Ok((Answered::Ending, _)) => clock.sleep(ENDING_PAUSE).await,
                Ok((answered, at)) => {
                    wait_for(self.shared, at.index()).await;
                    return match answered {
                        Answered::Left(left) => Some(left),
                        Answered::Unknown | Answered::Ending => None,
                    };
                }
                Err(reason) => {
                    tracing::debug!(reason, ?question, "a lease was not answered for; asking again");
                    clock.sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    async fn once(&self, question: Question) -> Result<(Answered, LogId), String> {
        let leader = self.metrics.borrow_watched().current_leader.ok_or("no leader is known")?;
        if leader == self.shared.config.id.0 {
            return self.leases.answer(self.shared, self.reads, question).await;
        }
        let link = self.peers.get(leader).ok_or("not connected to the leader")?;
        let limit = self.shared.config.election_timeout;
        match link.request(to_proto(question), limit).await.map_err(|error| error.to_string())? {
            Body::LeaseResponse(response) => response_from_proto(response),
            other => Err(format!("an answer of another kind: {other:?}")),
        }
    }
}

impl Leases {
    /// Answers as the leader, with the position at which it did. The confirmation begins behind the question, and the reign
    /// is the same before and behind it: what was confirmed is that this member led in it.
    pub(crate) async fn answer(
        &self,
        shared: &Shared,
        reads: &Reads,
        question: Question,
    ) -> Result<(Answered, LogId), String> {
        let term = self.term().ok_or("not the leader")?;
        let at = from_raft(&reads.index_for_peer().await?);
        let limit = shared.config.election_timeout;
        let caught_up = within(&*shared.env.clock, limit, wait_for(shared, at.index())).await;
        caught_up.ok_or("what is committed is not applied in time")?;
        let mut reign = self.reign.lock();
        let reign = reign.as_mut().filter(|reign| reign.term == term).ok_or("leadership was lost")?;
        let now = shared.env.clock.now();
        reign.catch_up(&shared.storage, now);
        let (Question::Renew(id) | Question::Left(id)) = question;
        if matches!(question, Question::Renew(_)) {
            match reign.deadlines.renew(now, id) {
                Renewal::Ending => return Ok((Answered::Ending, at)),
                Renewal::Renewed(_) => drop(self.renewed.fetch_add(1, Ordering::Relaxed)),
                Renewal::Unknown => {}
            }
        }
        let left = reign.deadlines.left(now, id);
        let left = left.map(|(left, granted_seconds)| LeaseLeft { left, granted_seconds });
        Ok((left.map_or(Answered::Unknown, Answered::Left), at))
    }

    /// Serves a question that a peer passes on.
    pub(crate) async fn serve(
        &self,
        shared: &Shared,
        reads: &Reads,
        request: pb::LeaseRequest,
    ) -> pb::LeaseResponse {
        let id = LeaseId(request.id);
        let question = if request.renew { Question::Renew(id) } else { Question::Left(id) };
        match self.answer(shared, reads, question).await {
            Ok((answered, at)) => response_to_proto(answered, at),
            Err(failed) => refusal(failed),
        }
    }

    fn term(&self) -> Option<u64> {
        self.reign.lock().as_ref().map(|reign| reign.term)
    }
}

/// Nothing was done.
pub(crate) fn refusal(reason: String) -> pb::LeaseResponse {
    let result = pb::lease_response::Result::Failed(reason);
    pb::LeaseResponse { log_id: None, result: Some(result) }
}

/// Waits until readers see what the log holds up to an index.
async fn wait_for(shared: &Shared, index: LogIndex) {
    let reaches = |visible: &Visible| visible.log_id.is_some_and(|id| id.index() >= index);
    if shared.visible.clone().wait_for(reaches).await.is_err() {
        // The storage has ended, and the member with it: its end is noticed elsewhere.
        std::future::pending::<()>().await;
    }
}

fn to_proto(question: Question) -> Body {
    Body::LeaseRequest(match question {
        Question::Renew(id) => pb::LeaseRequest { id: id.0, renew: true },
        Question::Left(id) => pb::LeaseRequest { id: id.0, renew: false },
    })
}

fn response_to_proto(answered: Answered, at: LogId) -> pb::LeaseResponse {
    use pb::lease_response::Result as To;
    let result = match answered {
        Answered::Left(LeaseLeft { left, granted_seconds }) => To::Left(pb::LeaseLeft {
            left_millis: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            granted_seconds,
        }),
        Answered::Unknown => To::Unknown(pb::LeaseUnknown {}),
        Answered::Ending => To::Ending(pb::LeaseEnding {}),
    };
    pb::LeaseResponse { log_id: Some(rpc::log_id(at)), result: Some(result) }
}

fn response_from_proto(response: pb::LeaseResponse) -> Result<(Answered, LogId), String> {
    use pb::lease_response::Result as From;
    let answered = match response.result {
        Some(From::Left(pb::LeaseLeft { left_millis, granted_seconds })) => {
            Answered::Left(LeaseLeft { left: Duration::from_millis(left_millis), granted_seconds })
        }
        Some(From::Unknown(_)) => Answered::Unknown,
        Some(From::Ending(_)) => Answered::Ending,
        Some(From::Failed(failed)) => return Err(failed),
        None => return Err("the answer has no result".to_owned()),
    };
    let at = response.log_id.map(rpc::log_id_from).ok_or("the answer has no position")?;
    Ok((answered, at))
}

#[cfg(test)]
mod tests {
    use holdfast_env::Term;

    use super::*;

    #[test]
    fn every_answer_comes_back() {
        let at = LogId::new(Term::new(3), LogIndex::new(9));
        let left = LeaseLeft { left: Duration::from_millis(1500), granted_seconds: 60 };
        for answered in [Answered::Left(left), Answered::Unknown, Answered::Ending] {
            assert_eq!(response_from_proto(response_to_proto(answered, at)), Ok((answered, at)));
        }
        assert_eq!(response_from_proto(refusal("no".to_owned())), Err("no".to_owned()));
        assert!(response_from_proto(pb::LeaseResponse::default()).is_err());
    }
}
