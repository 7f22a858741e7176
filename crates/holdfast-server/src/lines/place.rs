//! One candidate's way through a line.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_mvcc::command::{Command, Response, Txn, TxnResponse};
use holdfast_mvcc::types::{KeyRange, LeaseId, Revision};
use holdfast_storage::Answer;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Candidate, Head, Purpose, is_passing, requests};
use crate::frontend::{Call, Frontend};
use crate::limits;
use crate::services::lease;
use crate::status::Failure;
use crate::watch::{Followed, LeaderWanted};

/// A call that stands in line.
pub(super) struct Standing {
    pub(super) frontend: Arc<Frontend>,
    /// Cancelled when the call is dropped.
    pub(super) gone: CancellationToken,
    pub(super) call: Call,
}

/// A key in a line.
struct Place {
    line: KeyRange,
    key: Bytes,
    created: Revision,
    lease: Session,
    /// What was there, or what this call put.
    value: Bytes,
    entered_at: Revision,
    made_by: MadeBy,
    is_head: bool,
}

/// Who made a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MadeBy {
    /// This call.
    Us,
    /// An earlier call of the same lease, which may have been told that it is at the head.
    Earlier,
}

/// The lease of a place.
#[derive(Clone, Copy)]
enum Session {
    /// Its client's.
    Clients(LeaseId),
    /// Granted for this call.
    Ours(LeaseId),
}

impl Session {
    fn id(self) -> LeaseId {
        match self {
            Self::Clients(id) | Self::Ours(id) => id,
        }
    }
}

/// What a look at a line shows.
enum Look {
    /// The own key is gone.
    Lost,
    /// Nobody is in front, at this revision.
    Head(Revision),
    /// This key is in front, at this revision.
    Behind(Bytes, Revision),
}

impl Standing {
    /// Answers when it is at the head, or when it has failed and given up.
    pub(super) async fn run(self, candidate: Candidate, answer: oneshot::Sender<Result<Head, Failure>>) {
        match self.stand(&candidate).await {
            Ok((place, head)) => {
                // Nobody would ever know of a key that this call made. One that was there may be an earlier call's.
                if answer.send(Ok(head)).is_err() && place.made_by == MadeBy::Us {
                    self.give_up(&place).await;
                }
            }
            Err(failure) => {
                if answer.send(Err(failure)).is_err() {
                    tracing::debug!("a call that stood in line has gone");
                }
            }
        }
    }

    async fn stand(&self, candidate: &Candidate) -> Result<(Place, Head), Failure> {
        let session = match candidate.lease {
            Some(lease) => Session::Clients(lease),
            None => Session::Ours(grant(&self.frontend, self.call).await?),
        };
        let place = match self.enter(candidate, session).await {
            Ok(place) => place,
            Err(failure) => {
                if let Session::Ours(lease) = session {
                    self.revoke(lease).await;
                }
                return Err(failure);
            }
        };
        match self.advance(&place, &candidate.purpose).await {
            Ok(head) => Ok((place, head)),
            Err(failure) => {
                self.give_up(&place).await;
                Err(failure)
            }
        }
    }

    /// Makes the key, or finds it.
    async fn enter(&self, candidate: &Candidate, lease: Session) -> Result<Place, Failure> {
        let line = requests::line(&candidate.name);
        let key = requests::key(&candidate.name, lease.id());
        let value = match &candidate.purpose {
            Purpose::Lock => Bytes::new(),
            Purpose::Election(value) => value.clone(),
        };
        let txn = requests::enter(line.clone(), &key, lease.id(), value.clone());
        let (mut response, entered_at) = self.write(txn, self.call).await?;
        let oldest = requests::first_read(&mut response, 1);
        let (created, made_by, value) = if response.succeeded {
            (entered_at, MadeBy::Us, value)
        } else {
            let found = requests::first_read(&mut response, 0);
            let found = found.expect("the key exists where the compare said so");
            (found.create_revision, MadeBy::Earlier, found.value)
        };
        let is_head = oldest.is_some_and(|oldest| oldest.create_revision == created);
        Ok(Place { line, key, created, lease, value, entered_at, made_by, is_head })
    }

    async fn proclaim(&self, place: &Place, value: Bytes) -> Result<(), Failure> {
        let txn = requests::proclaim(place.key.clone(), place.created, place.lease.id(), value);
        let (response, _) = self.write(txn, self.call).await?;
        if response.succeeded { Ok(()) } else { Err(Failure::NotElected) }
    }

    /// Waits until the place is at the head, as long as somebody waits for that.
    async fn advance(&self, place: &Place, purpose: &Purpose) -> Result<Head, Failure> {
        let lost = match purpose {
            Purpose::Lock => Failure::SessionExpired,
            Purpose::Election(value) => {
                if place.value != value {
                    self.proclaim(place, value.clone()).await?;
                }
                Failure::NotElected
            }
        };
        let head_at = if place.is_head {
            Some(place.entered_at)
        } else {
            tokio::select! {
                biased;
                // All arms only wait: what a look has found is of no use later.
                () = self.gone.cancelled() => return Err(Failure::ClientDeadline),
                () = self.frontend.stop.cancelled() => return Err(Failure::Stopped),
                () = self.frontend.client_deadline(self.call) => return Err(Failure::ClientDeadline),
                head_at = self.wait(place) => head_at?,
            }
        };
        Ok(Head {
            key: place.key.clone(),
            created: place.created,
            lease: place.lease.id(),
            entered_at: place.entered_at,
            head_at: head_at.ok_or(lost)?,
        })
    }

    /// Waits until the place is at the head, which it is at the revision given; none when the key is lost.
    async fn wait(&self, place: &Place) -> Result<Option<Revision>, Failure> {
        loop {
            let (in_front, revision) = match self.look(place).await {
                Ok(Look::Lost) => return Ok(None),
                Ok(Look::Head(revision)) => return Ok(Some(revision)),
                Ok(Look::Behind(in_front, revision)) => (in_front, revision),
                Err(failure) if is_passing(&failure) => {
                    self.frontend.pause(limits::STEP_RETRY).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let ends =
                [requests::watch_end(in_front, revision), requests::watch_end(place.key.clone(), revision)];
            let mut following = self.frontend.watches.follow(ends, LeaderWanted::No);
            // Whatever comes, the next look tells what it means.
            match following.next().await? {
                Followed::Changed(_) | Followed::Lost => {}
            }
        }
    }

    async fn look(&self, place: &Place) -> Result<Look, Failure> {
        let call = self.frontend.prolonged(self.call);
        self.frontend.linearize(call).await?;
        let look = requests::look(place.line.clone(), place.key.clone(), place.created);
        let (mut response, revision) = self.frontend.read_txn(look, call).await?;
        let own = requests::first_read(&mut response, 0);
        if own.is_none_or(|own| own.create_revision != place.created) {
            return Ok(Look::Lost);
        }
        Ok(match requests::first_read(&mut response, 1) {
            None => Look::Head(revision),
            Some(in_front) => Look::Behind(in_front.key, revision),
        })
    }

    /// Takes the key out of the line. Tries until it is known to be gone, or the member stops.
    async fn give_up(&self, place: &Place) {
        match place.lease {
            Session::Ours(lease) => self.revoke(lease).await,
            Session::Clients(_) => {
                self.insist(&Command::Txn(requests::leave(place.key.clone(), place.created))).await;
            }
        }
    }

    async fn revoke(&self, lease: LeaseId) {
        self.insist(&Command::LeaseRevoke(lease)).await;
    }

    /// Both commands that come here may be carried out twice. A refusal means that there is nothing left to do.
    async fn insist(&self, command: &Command) {
        loop {
            // Not for the call: a key must go also when its user lost the right to it meanwhile.
            let call = self.frontend.internal_call();
            match self.frontend.propose(command.clone(), call).await {
                Ok(_) => return,
                Err(failure) if is_passing(&failure) && !self.frontend.stop.is_cancelled() => {
                    self.frontend.pause(limits::STEP_RETRY).await;
                }
                Err(failure) => {
                    tracing::warn!(?failure, "a key in a line is left until its lease ends");
                    return;
                }
            }
        }
    }

    async fn write(&self, txn: Txn, call: Call) -> Result<(TxnResponse, Revision), Failure> {
        let Answer { outcome, .. } =
            self.frontend.propose(Command::Txn(txn), call).await.map_err(Failure::step)?;
        match outcome.response.map_err(|refusal| Failure::step(refusal.into()))? {
            Response::Txn(response) => Ok((response, outcome.revision)),
            other => unreachable!("a transaction is answered as a transaction, not {other:?}"),
        }
    }
}

/// Grants a lease for a call without one.
pub(super) async fn grant(frontend: &Frontend, call: Call) -> Result<LeaseId, Failure> {
    let seconds = limits::SESSION_SECONDS.max(frontend.lease_seconds_min);
    let granted = lease::grant(frontend, LeaseId(0), seconds, call).await;
    Ok(granted.map_err(Failure::step)?.id)
}
