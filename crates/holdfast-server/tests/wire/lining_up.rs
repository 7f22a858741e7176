//! Clients of the Lock and Election services: short forms of requests, and waits with a deadline.

use election::election_client::ElectionClient;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::{v3electionpb as election, v3lockpb as lock};
use lock::lock_client::LockClient;
use pb::lease_client::LeaseClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::common::*;
use crate::watching::{PATIENCE, Watching, watcher};

/// A client of one member. Its calls wait for as long as it takes.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) locks: LockClient<Channel>,
    pub(crate) elections: ElectionClient<Channel>,
    pub(crate) leases: LeaseClient<Channel>,
    pub(crate) kv: Kv,
}

impl Member {
    pub(crate) fn at(url: &str) -> Self {
        let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect_lazy();
        Self {
            locks: LockClient::new(channel.clone()),
            elections: ElectionClient::new(channel.clone()),
            leases: LeaseClient::new(channel.clone()),
            kv: Kv::new(channel),
        }
    }

    /// A lease with this id, of more time than any test takes.
    pub(crate) async fn grant(&self, id: i64) {
        self.grant_for(id, 600).await;
    }

    pub(crate) async fn grant_for(&self, id: i64, ttl: i64) {
        self.leases.clone().lease_grant(pb::LeaseGrantRequest { ttl, id }).await.unwrap();
    }

    pub(crate) async fn revoke(&self, id: i64) {
        self.leases.clone().lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
    }

    pub(crate) async fn lock(&self, name: &str, lease: i64) -> Result<lock::LockResponse, Status> {
        self.lock_with(Request::new(lock::LockRequest { name: bytes(name), lease })).await
    }

    pub(crate) async fn lock_with(
        &self,
        request: Request<lock::LockRequest>,
    ) -> Result<lock::LockResponse, Status> {
        let mut locks = self.locks.clone();
        let locked = tokio::time::timeout(PATIENCE, locks.lock(request)).await;
        Ok(locked.expect("an answer in time")?.into_inner())
    }

    pub(crate) async fn unlock(&self, key: &[u8]) -> i64 {
        let key = bytes::Bytes::copy_from_slice(key);
        let unlocked = self.locks.clone().unlock(lock::UnlockRequest { key }).await.unwrap();
        unlocked.into_inner().header.unwrap().revision
    }

    pub(crate) async fn campaign(
        &self,
        name: &str,
        lease: i64,
        value: &str,
    ) -> Result<election::CampaignResponse, Status> {
        let request = election::CampaignRequest { name: bytes(name), lease, value: bytes(value) };
        let mut elections = self.elections.clone();
        let elected = tokio::time::timeout(PATIENCE, elections.campaign(request)).await;
        Ok(elected.expect("an answer in time")?.into_inner())
    }

    pub(crate) async fn proclaim(
        &self,
        leader: Option<election::LeaderKey>,
        value: &str,
    ) -> Result<i64, Status> {
        let request = election::ProclaimRequest { leader, value: bytes(value) };
        let proclaimed = self.elections.clone().proclaim(request).await?;
        Ok(proclaimed.into_inner().header.unwrap().revision)
    }

    pub(crate) async fn resign(&self, leader: Option<election::LeaderKey>) -> Result<i64, Status> {
        let resigned = self.elections.clone().resign(election::ResignRequest { leader }).await?;
        Ok(resigned.into_inner().header.unwrap().revision)
    }

    /// The value of the elected one.
    pub(crate) async fn leader(&self, name: &str) -> Result<String, Status> {
        let answer = self.elections.clone().leader(election::LeaderRequest { name: bytes(name) }).await?;
        Ok(String::from_utf8(answer.into_inner().kv.unwrap().value.to_vec()).unwrap())
    }

    /// The keys that stand in a line, the oldest first.
    pub(crate) async fn line(&self, name: &str) -> Vec<String> {
        let request = pb::RangeRequest {
            sort_order: pb::range_request::SortOrder::Ascend.into(),
            sort_target: pb::range_request::SortTarget::Create.into(),
            ..range_request(&format!("{name}/"), &format!("{name}0"))
        };
        keys(&self.kv.clone().range(request).await.unwrap().into_inner())
    }

    /// Waits until so many stand in a line.
    pub(crate) async fn until_in_line(&self, name: &str, count: usize) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.line(name).await.len() != count {
            assert!(tokio::time::Instant::now() < deadline, "{:?}, not {count}", self.line(name).await);
            tokio::task::yield_now().await;
        }
    }
}

/// Follows a line from now on.
pub(crate) async fn follow_line(url: &str, name: &str) -> Watching {
    let mut watching = Watching::open(url).await;
    watching.create(watcher(&format!("{name}/"), &format!("{name}0"))).await;
    watching
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
