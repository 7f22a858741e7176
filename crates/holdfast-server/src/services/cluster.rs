//! The Cluster service: who is in it, and changes of that. Served by any member; the leader decides.

use std::sync::Arc;

use holdfast_mvcc::types::MemberId;
use holdfast_proto::etcdserverpb as pb;
use holdfast_raft::{Member, MemberChange};
use tonic::{Request, Response, Status};

use crate::auth::Asking;
use crate::auth::rules;
use crate::config::MemberUrl;
use crate::frontend::{Call, Frontend, Service};
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

    /// Members, with the names and URLs that they have published.
    fn described(&self, members: Vec<Member>) -> Vec<pb::Member> {
        let published = self.frontend.storage.members();
        let attributes = |id| published.iter().find(|attributes| attributes.id == id);
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

    /// Carries a change out; gives the header and the members after it.
    async fn change(
        &self,
        change: &MemberChange,
        call: Call,
    ) -> Result<(Option<pb::ResponseHeader>, Vec<pb::Member>), Failure> {
        let members = self.frontend.change_members(change, call).await?;
        Ok((Some(self.frontend.header_without_revision()), self.described(members)))
    }

    async fn add(&self, inner: pb::MemberAddRequest, call: Call) -> Result<pb::MemberAddResponse, Failure> {
        let peer_urls = peer_urls(&inner.peer_ur_ls)?;
        let id = self.frontend.new_member_id(&peer_urls);
        let member = Member { id, peer_urls, is_learner: inner.is_learner };
        let (header, members) = self.change(&MemberChange::Add(member.clone()), call).await?;
        let member = members.iter().find(|known| known.id == id.0).cloned();
        Ok(pb::MemberAddResponse { header, member, members })
    }
}

/// Peer URLs as a client gave them: at least one, each a scheme, a host and a port.
fn peer_urls(given: &[String]) -> Result<Vec<String>, Failure> {
    let parsed = given.iter().map(|url| MemberUrl::parse("peer-urls", url)).collect::<Result<Vec<_>, _>>();
    let mut urls = parsed.map_err(|_| Failure::PeerUrls)?;
    urls.sort();
    if urls.is_empty() { Err(Failure::PeerUrls) } else { Ok(urls.iter().map(ToString::to_string).collect()) }
}

#[tonic::async_trait]
impl pb::cluster_server::Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::MEMBER_LIST, Service::Voters).await?;
        self.frontend.until_published(call).await;
        if request.get_ref().linearizable {
            self.frontend.linearize(call).await?;
        }
        let header = Some(self.frontend.header_without_revision());
        Ok(Response::new(pb::MemberListResponse {
            header,
            members: self.described(self.frontend.node.members()),
        }))
    }

    #[tracing::instrument(name = "member_add", level = "debug", skip_all)]
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::MEMBER_ADD, Service::Voters).await?;
        Ok(Response::new(self.add(request.into_inner(), call).await?))
    }

    #[tracing::instrument(name = "member_remove", level = "debug", skip_all)]
    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::MEMBER_REMOVE, Service::Voters).await?;
        let change = MemberChange::Remove(MemberId(request.get_ref().id));
        let (header, members) = self.change(&change, call).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header, members }))
    }

    #[tracing::instrument(name = "member_update", level = "debug", skip_all)]
    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::MEMBER_UPDATE, Service::Voters).await?;
        let inner = request.get_ref();
        let peer_urls = peer_urls(&inner.peer_ur_ls)?;
        let change = MemberChange::Move { id: MemberId(inner.id), peer_urls };
        let (header, members) = self.change(&change, call).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header, members }))
    }

    #[tracing::instrument(name = "member_promote", level = "debug", skip_all)]
    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::MEMBER_PROMOTE, Service::Voters).await?;
        let change = MemberChange::Promote(MemberId(request.get_ref().id));
        let (header, members) = self.change(&change, call).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header, members }))
    }
}
