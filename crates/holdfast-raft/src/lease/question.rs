//! Questions for leases, what the leader says, and both between members.

use std::time::Duration;

use holdfast_env::LogId;
use holdfast_mvcc::types::LeaseId;
use holdfast_proto::internal as pb;

use super::LeaseLeft;
use crate::codec::rpc::{self, Body};

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

/// What the leader says to some questions, in their order, and the position at which it did.
pub(crate) type Answers = (Vec<Answered>, LogId);

/// Nothing was done.
pub(crate) fn refusal(reason: String) -> pb::LeaseResponse {
    pb::LeaseResponse { log_id: None, answers: Vec::new(), failed: Some(reason) }
}

pub(crate) fn to_proto(questions: &[Question]) -> Body {
    let questions = questions.iter().map(|question| match *question {
        Question::Renew(id) => pb::LeaseQuestion { id: id.0, renew: true },
        Question::Left(id) => pb::LeaseQuestion { id: id.0, renew: false },
    });
    Body::LeaseRequest(pb::LeaseRequest { questions: questions.collect() })
}

pub(crate) fn from_proto(request: pb::LeaseRequest) -> Vec<Question> {
    let questions = request.questions.into_iter().map(|question| match question.renew {
        true => Question::Renew(LeaseId(question.id)),
        false => Question::Left(LeaseId(question.id)),
    });
    questions.collect()
}

pub(super) fn response_to_proto((answered, at): Answers) -> pb::LeaseResponse {
    let answer = |answered: Answered| match answered {
        Answered::Left(LeaseLeft { left, granted_seconds }) => pb::LeaseAnswer {
            state: pb::LeaseState::Alive.into(),
            left_millis: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            granted_seconds,
        },
        Answered::Unknown => {
            pb::LeaseAnswer { state: pb::LeaseState::Unknown.into(), ..pb::LeaseAnswer::default() }
        }
        Answered::Ending => {
            pb::LeaseAnswer { state: pb::LeaseState::Ending.into(), ..pb::LeaseAnswer::default() }
        }
    };
    let answers = answered.into_iter().map(answer).collect();
    pb::LeaseResponse { log_id: Some(rpc::log_id(at)), answers, failed: None }
}

/// The answers to so many questions.
pub(super) fn response_from_proto(response: pb::LeaseResponse, questions: usize) -> Result<Answers, String> {
    if let Some(failed) = response.failed {
        return Err(failed);
    }
    if response.answers.len() != questions {
        return Err(format!("{} answers to {questions} questions", response.answers.len()));
    }
    let answered = response.answers.into_iter().map(|answer| match answer.state() {
        pb::LeaseState::Alive => {
            let left = Duration::from_millis(answer.left_millis);
            Ok(Answered::Left(LeaseLeft { left, granted_seconds: answer.granted_seconds }))
        }
        pb::LeaseState::Unknown => Ok(Answered::Unknown),
        pb::LeaseState::Ending => Ok(Answered::Ending),
        pb::LeaseState::Unspecified => Err("an answer says nothing".to_owned()),
    });
    let answered = answered.collect::<Result<_, _>>()?;
    let at = response.log_id.map(rpc::log_id_from).ok_or("the answers have no position")?;
    Ok((answered, at))
}

#[cfg(test)]
mod tests {
    use holdfast_env::{LogIndex, Term};

    use super::*;

    #[test]
    fn every_question_comes_back() {
        let questions = vec![Question::Renew(LeaseId(-7)), Question::Left(LeaseId(i64::MAX))];
        let Body::LeaseRequest(request) = to_proto(&questions) else { panic!("it is a question") };
        assert_eq!(from_proto(request), questions);
    }

    #[test]
    fn every_answer_comes_back() {
        let at = LogId::new(Term::new(3), LogIndex::new(9));
        let left = LeaseLeft { left: Duration::from_millis(1500), granted_seconds: 60 };
        let answers = (vec![Answered::Left(left), Answered::Unknown, Answered::Ending], at);
        assert_eq!(response_from_proto(response_to_proto(answers.clone()), 3), Ok(answers.clone()));
        assert!(response_from_proto(response_to_proto(answers), 2).is_err());
        assert_eq!(response_from_proto(refusal("no".to_owned()), 1), Err("no".to_owned()));
        assert!(response_from_proto(pb::LeaseResponse::default(), 0).is_err(), "it has no position");
        let mut nothing = response_to_proto((vec![Answered::Unknown], at));
        nothing.answers[0].state = 0;
        assert!(response_from_proto(nothing, 1).is_err());
    }
}
