//! How the members are.

use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Status};

use crate::auth;
use crate::client::Client;
use crate::codec::{revision, unsigned};
use crate::error::{Attempt, Error, cause_of};

/// How the member at an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint, as the client was given it.
    pub endpoint: String,
    /// What it says of itself, or why it says nothing.
    pub status: Result<MemberStatus, Attempt>,
    /// How long that took.
    pub took: Duration,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub member_id: u64,
    /// The id of the leader, if it knows one.
    pub leader_id: Option<u64>,
    /// The revision of its own state.
    pub revision: u64,
    /// Whether it receives only, and does not vote.
    pub is_learner: bool,
    /// The version of the protocol that it speaks.
    pub version: String,
    /// The size of its data, in bytes.
    pub db_bytes: u64,
    /// What is wrong: alarms, and a leader that is lost.
    pub errors: Vec<String>,
}

impl EndpointHealth {
    /// Whether it answers, knows a leader, and says that nothing is wrong.
    pub fn is_healthy(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.leader_id.is_some() && status.errors.is_empty())
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.status.as_ref().is_ok_and(|status| status.leader_id == Some(status.member_id))
    }
}

impl Client {
    /// Asks all endpoints how they are, at once. Gives them in the order in which the client was given them.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) {
    /// for health in client.health().await {
    ///     match health.status {
    ///         Ok(status) => println!("{}: revision {}, {:?}", health.endpoint, status.revision, status.errors),
    ///         Err(attempt) => println!("{}: {}", health.endpoint, attempt.cause),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn health(&self) -> Vec<EndpointHealth> {
        let deadline = Instant::now() + self.call_timeout();
        let asked = self.channels().map(|(endpoint, channel)| async move {
            let before = Instant::now();
            let status = async {
                let token = self.token().await.map_err(|error| text_of(&error))?;
                let mut request = Request::new(pb::StatusRequest::default());
                auth::show(&mut request, token.as_ref());
                let answer = MaintenanceClient::new(channel).status(request).await;
                answer.map_err(|status| cause_of(&status))
            };
            let late = |_| cause_of(&Status::deadline_exceeded("no answer in time"));
            let status = timeout_at(deadline, status).await.map_err(late).flatten();
            let status = match status {
                Ok(answer) => Ok(member_status(answer.into_inner())),
                Err(cause) => Err(Attempt { endpoint: endpoint.to_owned(), cause }),
            };
            EndpointHealth { endpoint: endpoint.to_owned(), status, took: before.elapsed() }
        });
        futures::future::join_all(asked).await
    }

    /// Asks the leader first from now on, as long as it answers: writes and linearizable reads are one hop shorter then.
    /// Gives its endpoint; `None`, and nothing changes, when no endpoint says that it leads.
    pub async fn prefer_leader(&self) -> Option<String> {
        let health = self.health().await;
        let at = health.iter().position(EndpointHealth::is_leader)?;
        self.ask_first(at);
        health.into_iter().nth(at).map(|health| health.endpoint)
    }
}

fn text_of(error: &Error) -> String {
    error.to_string()
}

fn member_status(answer: pb::StatusResponse) -> MemberStatus {
    MemberStatus {
        member_id: answer.header.as_ref().map_or(0, |header| header.member_id),
        leader_id: (answer.leader != 0).then_some(answer.leader),
        revision: revision(answer.header.as_ref()),
        is_learner: answer.is_learner,
        version: answer.version,
        db_bytes: unsigned(answer.db_size),
        errors: answer.errors,
    }
}
