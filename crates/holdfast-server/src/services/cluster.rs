//! The Cluster service: who is in it.

use std::sync::Arc;

use holdfast_proto::etcdserverpb as pb;
use tonic::{Request, Response, Status};

use crate::frontend::{Frontend, Service};
use crate::status::Failure;

/// Serves [`pb::cluster_server::Cluster`].
pub struct ClusterService {
    frontend: Arc<Frontend>,
}

impl ClusterService {
    /// Serves through `frontend`.
    pub fn new(frontend: Arc<Frontend>) -> Self {
        Self { frontend }
    }

    /// The members in the newest membership known here, with the names and URLs they have published.
    fn members(&self) -> Vec<pb::Member> {
        let published = self.frontend.storage.members();
        let attributes = |id| published.iter().find(|attributes| attributes.id == id);
        let members = self.frontend.node.members();
        members
            .into_iter()
            .map(|member| pb::Member {
                id: member.id.0,
                name: attributes(member.id).map_or_else(String::new, |known| known.name.clone()),
                peer_ur_ls: member.peer_urls,
                client_ur_ls: attributes(member.id).map_or_else(Vec::new, |known| known.client_urls.clone()),
                is_learner: member.is_learner,
            })
            .collect()
    }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let call = self.frontend.admit(request.metadata(), Service::Voters)?;
        self.frontend.until_published(call).await;
        if request.get_ref().linearizable {
            self.frontend.linearize(call).await?;
        }
        let header = Some(self.frontend.header_without_revision());
        Ok(Response::new(pb::MemberListResponse { header, members: self.members() }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(Failure::Unimplemented("MemberAdd").into())
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(Failure::Unimplemented("MemberRemove").into())
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(Failure::Unimplemented("MemberUpdate").into())
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(Failure::Unimplemented("MemberPromote").into())
    }
}
