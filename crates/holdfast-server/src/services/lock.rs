//! The Lock service.

use std::sync::Arc;

use holdfast_mvcc::command::{Command, DeleteRange};
use holdfast_mvcc::types::{KeyRange, LeaseId, RangeEnd};
use holdfast_mvcc::validate::validate;
use holdfast_proto::v3lockpb as pb;
use holdfast_storage::Answer;
use tonic::{Request, Response, Status};

use crate::auth::Asking;
use crate::auth::rules;
use crate::frontend::{Call, Frontend, Service};
use crate::lines::{Candidate, Lines, Purpose};
use crate::status::Failure;

/// Serves [`pb::lock_server::Lock`].
pub struct LockService {
    frontend: Arc<Frontend>,
    lines: Arc<Lines>,
}

impl LockService {
    /// Serves through `frontend` and `lines`.
    pub fn new(frontend: Arc<Frontend>, lines: Arc<Lines>) -> Self {
        Self { frontend, lines }
    }

    async fn do_lock(&self, inner: pb::LockRequest, call: Call) -> Result<pb::LockResponse, Failure> {
        let lease = (inner.lease != 0).then_some(LeaseId(inner.lease));
        let candidate = Candidate { name: inner.name, lease, purpose: Purpose::Lock };
        let head = self.lines.stand(candidate, call).await?;
        Ok(pb::LockResponse { header: Some(self.frontend.header(head.head_at)), key: head.key })
    }

    async fn do_unlock(&self, inner: pb::UnlockRequest, call: Call) -> Result<pb::UnlockResponse, Failure> {
        let range = KeyRange { start: inner.key, end: RangeEnd::Single };
        let command = Command::DeleteRange(DeleteRange { range, prev_kv: false });
        validate(&command, self.frontend.limits.txn_ops_max)
            .map_err(|invalid| Failure::step(invalid.into()))?;
        let Answer { outcome, .. } = self.frontend.propose(command, call).await?;
        outcome.response.map_err(|refusal| Failure::step(refusal.into()))?;
        Ok(pb::UnlockResponse { header: Some(self.frontend.header(outcome.revision)) })
    }
}

#[tonic::async_trait]
impl pb::lock_server::Lock for LockService {
    #[tracing::instrument(name = "lock", level = "debug", skip_all)]
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::LOCK, Service::Voters).await?;
        let _token = self.frontend.hold_token(call);
        Ok(Response::new(self.do_lock(request.into_inner(), call).await?))
    }

    #[tracing::instrument(name = "unlock", level = "debug", skip_all)]
    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let call = self.frontend.admit_data(Asking::of(&request), rules::UNLOCK, Service::Voters).await?;
        Ok(Response::new(self.do_unlock(request.into_inner(), call).await?))
    }
}
