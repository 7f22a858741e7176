//! The Lease service.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use futures::stream::{Stream, StreamExt};
use holdfast_mvcc::command::{Command, LeaseGrant, Refusal};
use holdfast_mvcc::types::{LeaseId, Revision};
use holdfast_proto::codec::aside;
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::Answer;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::Asking;
use crate::auth::rules;
use crate::codec::response::signed;
use crate::frontend::{Call, Frontend, Service};
use crate::limits;
use crate::metrics::RequestKind;
use crate::status::Failure;
use crate::watch::LeaderWanted;

/// Serves [`pb::lease_server::Lease`].
pub struct LeaseService {
    frontend: Arc<Frontend>,
}

/// The answers of a keep-alive stream.
pub type KeptAlive = Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

impl LeaseService {
    /// Serves through `frontend`.
    pub fn new(frontend: Arc<Frontend>) -> Self {
        Self { frontend }
    }

    async fn do_grant(
        &self,
        inner: pb::LeaseGrantRequest,
        call: Call,
    ) -> Result<pb::LeaseGrantResponse, Failure> {
        if inner.ttl > limits::LEASE_SECONDS_MAX {
            return Err(Failure::LeaseTooLong);
        }
        let ttl_seconds = u64::try_from(inner.ttl).unwrap_or(0).max(self.frontend.lease_seconds_min);
        let granted = grant(&self.frontend, LeaseId(inner.id), ttl_seconds, call).await?;
        Ok(pb::LeaseGrantResponse {
            header: Some(self.frontend.header(granted.revision)),
            id: granted.id.0,
            ttl: signed(ttl_seconds),
            error: String::new(),
        })
    }

    async fn do_revoke(
        &self,
        inner: pb::LeaseRevokeRequest,
        call: Call,
    ) -> Result<pb::LeaseRevokeResponse, Failure> {
        let Answer { outcome, .. } =
            self.frontend.propose(Command::LeaseRevoke(LeaseId(inner.id)), call).await?;
        outcome.response?;
        Ok(pb::LeaseRevokeResponse { header: Some(self.frontend.header(outcome.revision)) })
    }

    async fn do_time_to_live(
        &self,
        inner: pb::LeaseTimeToLiveRequest,
        call: Call,
    ) -> Result<pb::LeaseTimeToLiveResponse, Failure> {
        let id = LeaseId(inner.id);
        let left = self.frontend.lease_left(id, call).await?;
        // Behind the confirmation: the keys are known here then.
        let keys = if inner.keys { aside(|| self.frontend.storage.lease_keys(id)) } else { Vec::new() };
        if inner.keys && self.frontend.storage.is_auth_enabled() {
            // The keys are those of what is evaluated: what is visible must not be older when they are judged.
            self.frontend.linearize(call).await?;
        }
        self.frontend.pass(call, |granted| keys.iter().try_for_each(|key| granted.read_key(key)))?;
        let header = Some(self.frontend.header(self.frontend.current_revision()));
        let Some(left) = left else {
            return Ok(pb::LeaseTimeToLiveResponse { header, id: inner.id, ttl: -1, ..Default::default() });
        };
        Ok(pb::LeaseTimeToLiveResponse {
            header,
            id: inner.id,
            ttl: signed(left.left.as_secs()),
            granted_ttl: signed(left.granted_seconds),
            keys,
        })
    }

    async fn do_leases(&self, call: Call) -> Result<pb::LeaseLeasesResponse, Failure> {
        self.frontend.linearize(call).await?;
        let header = self.frontend.header(self.frontend.current_revision());
        let ids = aside(|| self.frontend.storage.lease_ids());
        self.frontend.pass(call, |granted| {
            let storage = &self.frontend.storage;
            let mut keys =
                ids.iter().take_while(|_| !granted.is_all()).flat_map(|id| storage.lease_keys(*id));
            aside(|| keys.try_for_each(|key| granted.read_key(&key)))
        })?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(pb::LeaseLeasesResponse { header: Some(header), leases })
    }
}

/// A new lease.
pub(crate) struct Granted {
    /// Its id.
    pub(crate) id: LeaseId,
    /// The store's revision then.
    pub(crate) revision: Revision,
}

/// Grants a lease with this id, or one that the server chooses when it is 0.
pub(crate) async fn grant(
    frontend: &Frontend,
    id: LeaseId,
    ttl_seconds: u64,
    call: Call,
) -> Result<Granted, Failure> {
    loop {
        // Positive, and not 0.
        let random = || i64::try_from(frontend.rng.next_u64() >> 1).unwrap_or(i64::MAX).max(1);
        let chosen = if id.0 == 0 { LeaseId(random()) } else { id };
        let command = Command::LeaseGrant(LeaseGrant { id: chosen, ttl_seconds });
        let Answer { outcome, .. } = frontend.propose(command, call).await?;
        match outcome.response {
            // One in 2^63, as long as there are few leases.
            Err(Refusal::LeaseExists { .. }) if id.0 == 0 => {}
            Err(refusal) => return Err(refusal.into()),
            Ok(_) => return Ok(Granted { id: chosen, revision: outcome.revision }),
        }
    }
}

/// Answers the keep-alives that have arrived, in their order. The header is of before. A failure is the last answer.
async fn keep_alive(
    frontend: Arc<Frontend>,
    call: Call,
    requests: Vec<Result<pb::LeaseKeepAliveRequest, Status>>,
) -> Vec<Result<pb::LeaseKeepAliveResponse, Status>> {
    let mut broken = None;
    let ids: Vec<LeaseId> = requests
        .into_iter()
        .map_while(|request| request.map(|request| LeaseId(request.id)).map_err(|e| broken = Some(e)).ok())
        .collect();
    let header = Some(frontend.header(frontend.current_revision()));
    let (kept, refused) = may_renew(&frontend, call, &ids);
    let ids = &ids[..kept];
    let mut answers = match frontend.keep_alive(ids, frontend.prolonged(call)).await {
        Ok(kept) => {
            let answer = |(id, kept): (&LeaseId, Option<u64>)| {
                Ok(pb::LeaseKeepAliveResponse { header, id: id.0, ttl: kept.map_or(0, signed) })
            };
            ids.iter().zip(kept).map(answer).collect()
        }
        Err(failure) => vec![Err(failure.into())],
    };
    match refused {
        Some(failure) if !matches!(answers.last(), Some(Err(_))) => answers.push(Err(failure.into())),
        Some(_) => {}
        None => answers.extend(broken.map(Err)),
    }
    answers
}

/// How many of these leases, from the first one on, a call may renew, and why no more.
fn may_renew(frontend: &Frontend, call: Call, ids: &[LeaseId]) -> (usize, Option<Failure>) {
    let mut may = 0;
    let passed = frontend.pass(call, |granted| {
        ids.iter().try_for_each(|id| {
            if !granted.is_all() {
                let keys = aside(|| frontend.storage.lease_keys(*id));
                keys.iter().try_for_each(|key| granted.write_key(key))?;
            }
            may += 1;
            Ok(())
        })
    });
    match passed {
        Ok(()) => (ids.len(), None),
        Err(failure) => (may, Some(failure)),
    }
}

/// Why a stream of keep-alives ends that its client has not ended: the member stops, or has been without a leader for too
/// long and the client wants one.
async fn ends(frontend: Arc<Frontend>, leader: LeaderWanted) -> Failure {
    let mut lost = frontend.watches.leader_lost();
    tokio::select! {
        // Both only wait.
        () = frontend.stop.cancelled() => Failure::Stopped,
        Ok(()) = lost.changed(), if leader == LeaderWanted::Yes => Failure::LeaderRequired,
    }
}

#[tonic::async_trait]
impl pb::lease_server::Lease for LeaseService {
    type LeaseKeepAliveStream = KeptAlive;

    #[tracing::instrument(name = "lease_grant", level = "debug", skip_all)]
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let call =
            self.frontend.admit_data(Asking::of(&request), rules::LEASE_GRANT, Service::Voters).await?;
        let result = self.do_grant(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::LeaseGrant, call, result)
    }

    #[tracing::instrument(name = "lease_revoke", level = "debug", skip_all)]
    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let call =
            self.frontend.admit_data(Asking::of(&request), rules::LEASE_REVOKE, Service::Voters).await?;
        let result = self.do_revoke(request.into_inner(), call).await;
        self.frontend.answer(RequestKind::LeaseRevoke, call, result)
    }

    /// One answer for each request, in their order; those that have arrived together are answered together, so that a stream
    /// with many leases shares confirmations. Ends with the first failure, when the member stops, and when it has no leader
    /// and the client wants one.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeptAlive>, Status> {
        let rpc = rules::LEASE_KEEP_ALIVE;
        let call = self.frontend.admit(Asking::of(&request), rpc, Service::Voters).await?;
        let ends = ends(Arc::clone(&self.frontend), Frontend::leader_wanted(request.metadata()));
        let frontend = Arc::clone(&self.frontend);
        let answers = request
            .into_inner()
            .ready_chunks(limits::KEEP_ALIVES_AT_ONCE)
            .then(move |requests| keep_alive(Arc::clone(&frontend), call, requests))
            .flat_map(futures::stream::iter);
        let (mut answers, mut ends) = (Box::pin(answers), Box::pin(ends));
        let mut is_over = false;
        let told = futures::stream::poll_fn(move |context| {
            if is_over {
                return Poll::Ready(None);
            }
            let next = match answers.as_mut().poll_next(context) {
                Poll::Ready(next) => next,
                Poll::Pending => Some(Err(ready!(ends.as_mut().poll(context)).into())),
            };
            is_over = !matches!(next, Some(Ok(_)));
            Poll::Ready(next)
        });
        Ok(Response::new(Box::pin(told)))
    }

    #[tracing::instrument(name = "lease_time_to_live", level = "debug", skip_all)]
    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let call =
            self.frontend.admit(Asking::of(&request), rules::LEASE_TIME_TO_LIVE, Service::Voters).await?;
        let answered = self.do_time_to_live(request.into_inner(), call).await?;
        Ok(Response::new(answered))
    }

    #[tracing::instrument(name = "lease_leases", level = "debug", skip_all)]
    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::LEASE_LEASES, Service::Voters).await?;
        Ok(Response::new(self.do_leases(call).await?))
    }
}
