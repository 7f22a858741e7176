//! The Election service.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream};
use holdfast_mvcc::command::{Command, Txn};
use holdfast_mvcc::command::{Response as Carried, TxnResponse};
use holdfast_mvcc::types::{LeaseId, Revision};
use holdfast_mvcc::validate::validate;
use holdfast_proto::mvccpb::{self, event::EventType};
use holdfast_proto::v3electionpb as pb;
use holdfast_storage::Answer;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status};

use crate::auth::Asking;
use crate::auth::rules;
use crate::auth::tokens::Held;
use crate::codec::response::{key_value, signed};
use crate::frontend::{Call, Consistency, Frontend, Service};
use crate::limits;
use crate::lines::{Candidate, Lines, Purpose, is_passing, requests};
use crate::status::Failure;
use crate::watch::{Followed, Following, LeaderWanted};

/// Serves [`pb::election_server::Election`].
pub struct ElectionService {
    frontend: Arc<Frontend>,
    lines: Arc<Lines>,
}

/// The answers of an observation.
pub type Observed = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

impl ElectionService {
    /// Serves through `frontend` and `lines`.
    pub fn new(frontend: Arc<Frontend>, lines: Arc<Lines>) -> Self {
        Self { frontend, lines }
    }

    async fn do_campaign(
        &self,
        inner: pb::CampaignRequest,
        call: Call,
    ) -> Result<pb::CampaignResponse, Failure> {
        let lease = (inner.lease != 0).then_some(LeaseId(inner.lease));
        let purpose = Purpose::Election(inner.value);
        let head = self.lines.stand(Candidate { name: inner.name.clone(), lease, purpose }, call).await?;
        Ok(pb::CampaignResponse {
            // etcd's is that of the entry, however long the wait was.
            header: Some(self.frontend.header(head.entered_at)),
            leader: Some(pb::LeaderKey {
                name: inner.name,
                key: head.key,
                rev: signed(head.created.get()),
                lease: head.lease.0,
            }),
        })
    }

    async fn do_proclaim(
        &self,
        inner: pb::ProclaimRequest,
        call: Call,
    ) -> Result<pb::ProclaimResponse, Failure> {
        let leader = inner.leader.ok_or(Failure::ElectedMissing)?;
        let created = created(&leader);
        let lease = match LeaseId(leader.lease) {
            LeaseId(0) => self.lines.grant(call).await?,
            named => named,
        };
        let written = self.write(requests::proclaim(leader.key, created, lease, inner.value), call).await;
        let result = match written {
            Ok((response, revision)) if response.succeeded => Ok(revision),
            Ok(_) => Err(Failure::NotElected),
            Err(failure) => Err(failure),
        };
        if result.is_err() && leader.lease == 0 {
            // If that fails, too, it ends by itself: nobody keeps it alive.
            let cleaning = self.frontend.internal_call();
            if let Err(failure) = self.frontend.propose(Command::LeaseRevoke(lease), cleaning).await {
                tracing::debug!(?failure, "a lease for a value that was not proclaimed is left");
            }
        }
        Ok(pb::ProclaimResponse { header: Some(self.frontend.header(result?)) })
    }

    async fn do_resign(&self, inner: pb::ResignRequest, call: Call) -> Result<pb::ResignResponse, Failure> {
        let leader = inner.leader.ok_or(Failure::ElectedMissing)?;
        let created = created(&leader);
        let (_, revision) = self.write(requests::leave(leader.key, created), call).await?;
        Ok(pb::ResignResponse { header: Some(self.frontend.header(revision)) })
    }

    async fn write(&self, txn: Txn, call: Call) -> Result<(TxnResponse, Revision), Failure> {
        let command = Command::Txn(txn);
        validate(&command, self.frontend.limits.txn_ops_max)
            .map_err(|invalid| Failure::step(invalid.into()))?;
        let Answer { outcome, .. } = self.frontend.propose(command, call).await?;
        match outcome.response.map_err(|refusal| Failure::step(refusal.into()))? {
            Carried::Txn(response) => Ok((response, outcome.revision)),
            other => unreachable!("a transaction is answered as a transaction, not {other:?}"),
        }
    }
}

/// Where the client says its key was made.
fn created(leader: &pb::LeaderKey) -> Revision {
    // A negative number is no revision. None stands for a key that does not exist.
    u64::try_from(leader.rev).map_or(Revision::NONE, Revision::new)
}

/// Who is elected, as of a revision.
async fn elected(
    frontend: &Frontend,
    name: &[u8],
    call: Call,
) -> Result<(Option<mvccpb::KeyValue>, Revision), Failure> {
    let oldest = requests::oldest(requests::line(name));
    let (mut read, revision) = frontend.read(oldest, Consistency::Linearizable, call).await?;
    let first = if read.kvs.is_empty() { None } else { Some(key_value(read.kvs.swap_remove(0))) };
    Ok((first, revision))
}

/// One observation of an election: each elected one, and each new value of it.
///
/// Who was elected and replaced between two looks may not be seen; who is elected now always is.
struct Observation {
    frontend: Arc<Frontend>,
    name: Bytes,
    /// Who observes.
    call: Call,
    leader: LeaderWanted,
    /// The elected one, while there is one.
    following: Option<(Following, VecDeque<mvccpb::Event>)>,
    /// Both are held as long as it goes on.
    _place: OwnedSemaphorePermit,
    _token: Option<Held>,
}

impl Observation {
    async fn next(&mut self) -> Result<pb::LeaderResponse, Failure> {
        loop {
            let Some((following, events)) = &mut self.following else {
                return self.look().await;
            };
            let Some(event) = events.pop_front() else {
                match following.next().await? {
                    Followed::Changed(changes) => events.extend(changes),
                    Followed::Lost => self.following = None,
                }
                continue;
            };
            let is_put = event.r#type == i32::from(EventType::Put);
            match event.kv.filter(|_| is_put) {
                Some(kv) => return Ok(self.answer(as_of(&kv), kv)),
                None => self.following = None,
            }
        }
    }

    /// Finds the elected one, or waits for one.
    async fn look(&mut self) -> Result<pb::LeaderResponse, Failure> {
        let (kv, revision) = loop {
            match self.find().await {
                Ok(Some(found)) => break found,
                Ok(None) => {}
                Err(failure) if is_passing(&failure) => self.frontend.pause(limits::STEP_RETRY).await,
                Err(failure) => return Err(failure),
            }
        };
        let watched = requests::watch(kv.key.clone(), revision);
        let following = self.frontend.watches.follow([watched], self.leader);
        self.following = Some((following, VecDeque::new()));
        Ok(self.answer(revision, kv))
    }

    /// None: look again.
    async fn find(&self) -> Result<Option<(mvccpb::KeyValue, Revision)>, Failure> {
        let call = self.frontend.prolonged(self.call);
        let (kv, revision) = elected(&self.frontend, &self.name, call).await?;
        if let Some(kv) = kv {
            return Ok(Some((kv, revision)));
        }
        let puts = requests::watch_puts(requests::line(&self.name), revision);
        match self.frontend.watches.follow([puts], self.leader).next().await? {
            Followed::Lost => Ok(None),
            Followed::Changed(events) => {
                let first = events.into_iter().next().and_then(|event| event.kv);
                Ok(first.map(|kv| (as_of(&kv), kv)).map(|(revision, kv)| (kv, revision)))
            }
        }
    }

    fn answer(&self, revision: Revision, kv: mvccpb::KeyValue) -> pb::LeaderResponse {
        pb::LeaderResponse { header: Some(self.frontend.header(revision)), kv: Some(kv) }
    }
}

fn as_of(kv: &mvccpb::KeyValue) -> Revision {
    u64::try_from(kv.mod_revision).map_or(Revision::NONE, Revision::new)
}

/// Ends with the first failure.
fn observe(observation: Observation) -> impl Stream<Item = Result<pb::LeaderResponse, Status>> + Send {
    stream::unfold(Some(observation), async |observation| {
        let mut observation = observation?;
        let stop = observation.frontend.stop.clone();
        let next = tokio::select! {
            biased;
            // Both only wait: an observation that ends loses nothing.
            () = stop.cancelled() => Err(Failure::Stopped),
            next = observation.next() => next,
        };
        match next {
            Ok(response) => Some((Ok(response), Some(observation))),
            Err(failure) => Some((Err(failure.into()), None)),
        }
    })
}

#[tonic::async_trait]
impl pb::election_server::Election for ElectionService {
    type ObserveStream = Observed;

    #[tracing::instrument(name = "campaign", level = "debug", skip_all)]
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::CAMPAIGN, Service::Voters).await?;
        let _token = self.frontend.hold_token(call);
        Ok(Response::new(self.do_campaign(request.into_inner(), call).await?))
    }

    #[tracing::instrument(name = "proclaim", level = "debug", skip_all)]
    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::PROCLAIM, Service::Voters).await?;
        Ok(Response::new(self.do_proclaim(request.into_inner(), call).await?))
    }

    #[tracing::instrument(name = "leader", level = "debug", skip_all)]
    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::LEADER, Service::Voters).await?;
        let (kv, revision) = elected(&self.frontend, &request.into_inner().name, call).await?;
        let kv = Some(kv.ok_or(Failure::NoneElected)?);
        Ok(Response::new(pb::LeaderResponse { header: Some(self.frontend.header(revision)), kv }))
    }

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::OBSERVE, Service::Voters).await?;
        let observation = Observation {
            frontend: Arc::clone(&self.frontend),
            leader: Frontend::leader_wanted(request.metadata()),
            name: request.into_inner().name,
            call,
            following: None,
            _place: self.lines.take_place()?,
            _token: self.frontend.hold_token(call),
        };
        Ok(Response::new(Box::pin(observe(observation))))
    }

    #[tracing::instrument(name = "resign", level = "debug", skip_all)]
    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::RESIGN, Service::Voters).await?;
        Ok(Response::new(self.do_resign(request.into_inner(), call).await?))
    }
}
