//! The leader's side: what it says to questions for leases.

use std::sync::atomic::Ordering;

use holdfast_env::{Fault, LogIndex, Monotonic};
use holdfast_proto::internal as pb;

use super::deadlines::{Deadlines, Renewal};
use super::question::{self, Answered, Answers, Question, refusal};
use super::{LeaseLeft, Leases};
use crate::limits::within;
use crate::reads::Reads;
use crate::shared::Shared;
use crate::types::from_raft;

impl Leases {
    /// Answers as the leader, with the position at which it did. The confirmation begins behind the questions, one for all
    /// of them, and the reign is the same before and behind it: what was confirmed is that this member led in it.
    pub(super) async fn answer(
        &self,
        shared: &Shared,
        reads: &Reads,
        questions: &[Question],
    ) -> Result<Answers, String> {
        let term = self.term().ok_or("not the leader")?;
        let at = if shared.env.faults.is_planted(Fault::KeepAliveUnconfirmed) {
            shared.visible.borrow().log_id.ok_or("nothing is applied")?
        } else {
            from_raft(&reads.index_for_peer().await?)
        };
        let limit = shared.config.election_timeout;
        let caught_up = within(&*shared.env.clock, limit, wait_for(shared, reads, at.index())).await;
        caught_up.ok_or("what is committed is not applied in time")?;
        let mut reign = self.reign.lock();
        let reign = reign.as_mut().filter(|reign| reign.term == term).ok_or("leadership was lost")?;
        let now = shared.env.clock.now();
        reign.catch_up(&shared.storage, now);
        let answered: Vec<Answered> =
            questions.iter().map(|question| answer_one(&mut reign.deadlines, now, *question)).collect();
        let renewed = questions.iter().zip(&answered).filter(|(question, answered)| {
            matches!((question, answered), (Question::Renew(_), Answered::Left(_)))
        });
        self.renewed.fetch_add(renewed.count() as u64, Ordering::Relaxed);
        Ok((answered, at))
    }

    /// Serves questions that a peer passes on.
    pub(crate) async fn serve(
        &self,
        shared: &Shared,
        reads: &Reads,
        request: pb::LeaseRequest,
    ) -> pb::LeaseResponse {
        match self.answer(shared, reads, &question::from_proto(request)).await {
            Ok(answers) => question::response_to_proto(answers),
            Err(failed) => refusal(failed),
        }
    }

    fn term(&self) -> Option<u64> {
        self.reign.lock().as_ref().map(|reign| reign.term)
    }
}

fn answer_one(deadlines: &mut Deadlines, now: Monotonic, question: Question) -> Answered {
    let (Question::Renew(id) | Question::Left(id)) = question;
    if matches!(question, Question::Renew(_)) && deadlines.renew(now, id) == Renewal::Ending {
        return Answered::Ending;
    }
    let left = deadlines.left(now, id);
    left.map_or(Answered::Unknown, |(left, granted_seconds)| {
        Answered::Left(LeaseLeft { left, granted_seconds })
    })
}

/// Waits until readers see what the log holds up to an index.
pub(super) async fn wait_for(shared: &Shared, reads: &Reads, index: LogIndex) {
    let is_visible = shared.visible.borrow().log_id.is_some_and(|id| id.index() >= index);
    if !is_visible && reads.until_visible(index).await.is_err() {
        // The node stops, which is noticed elsewhere.
        std::future::pending::<()>().await;
    }
}
