//! The members that scripts are played against: a running cluster with a connection to each member.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::auth_client::AuthClient;
use holdfast_proto::etcdserverpb::cluster_client::ClusterClient;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{
    AuthenticateRequest, DeleteRangeRequest, MemberListRequest, PutRequest, RangeRequest,
};
use tonic::transport::{Channel, Endpoint};

use super::call::with_token;
use super::script::ROOT_PASSWORD;
use crate::harness::cluster::{Cluster, System};

/// How long members may take to tell each other their names.
const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two questions.
const POLL: Duration = Duration::from_millis(20);

/// A running cluster of one or more members. Killed when dropped.
#[derive(Debug)]
pub struct Members {
    /// A short name for reports, such as `etcd` or `holdfast-3`.
    pub name: String,
    cluster: Cluster,
    channels: Vec<Channel>,
}

impl Members {
    /// Starts `count` members of one new cluster and waits until each answers a linearizable read and knows the names
    /// of all: from then on nothing happens in the cluster unasked.
    pub async fn start(system: System, count: usize) -> anyhow::Result<Self> {
        let name = format!("{}-{count}", system.label);
        let cluster = Cluster::start(system, count).await.with_context(|| format!("starting {name}"))?;
        let channels = cluster
            .endpoints()
            .into_iter()
            .map(|url| Ok(Endpoint::from_shared(url)?.connect_lazy()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let members = Self { name, cluster, channels };
        for number in 0..count {
            members
                .wait_until_introduced(number)
                .await
                .with_context(|| format!("starting {}", members.name))?;
        }
        Ok(members)
    }

    async fn wait_until_introduced(&self, number: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + INTRODUCTION_TIMEOUT;
        loop {
            let request = MemberListRequest { linearizable: false };
            let list = ClusterClient::new(self.channel(number).clone()).member_list(request).await;
            let list = list.map(tonic::Response::into_inner);
            if list.as_ref().is_ok_and(|list| list.members.iter().all(|member| !member.name.is_empty())) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("member {number} does not know all names: {list:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many members there are.
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// The connection to the member with this number, counted around.
    pub fn channel(&self, number: usize) -> &Channel {
        &self.channels[number % self.channels.len()]
    }

    /// The client URLs, in the order of the members.
    pub fn endpoints(&self) -> Vec<String> {
        self.cluster.endpoints()
    }

    /// The peer URLs, in the order of the members.
    pub fn peer_urls(&self) -> Vec<String> {
        self.cluster.members().iter().map(|member| member.peer_url.clone()).collect()
    }

    /// The last lines that each member has printed, for reports.
    pub fn log_ends(&mut self) -> String {
        let ends = (0..self.count()).map(|index| match self.cluster.member(index).process() {
            Ok(process) => format!("-- the log of member {index} ends:\n{}", process.log_tail(15)),
            Err(error) => format!("-- member {index}: {error:#}"),
        });
        ends.collect::<Vec<_>>().join("\n")
    }

    /// Brings the member up to everything that was acknowledged before: one linearizable read.
    pub async fn catch_up(&self, number: usize) -> Result<(), tonic::Status> {
        match self.revision(number).await {
            // Auth is on. The refusal comes behind the confirmation, so the member has caught up all the same.
            Err(status) if status.message() == "etcdserver: user name is empty" => Ok(()),
            read => read.map(drop),
        }
    }

    /// The store's revision, by a linearizable read.
    pub(super) async fn revision(&self, number: usize) -> Result<i64, tonic::Status> {
        let request = RangeRequest { key: vec![0].into(), count_only: true, ..RangeRequest::default() };
        let read = KvClient::new(self.channel(number).clone()).range(request).await?;
        Ok(read.into_inner().header.map_or(0, |header| header.revision))
    }

    /// Puts the key through the first member, in the name of who has the token, and deletes it again if that is asked.
    /// Gives the last revision.
    pub(super) async fn touch(
        &self,
        key: Bytes,
        touch: Touch,
        token: Option<&str>,
    ) -> Result<i64, tonic::Status> {
        let mut kv = KvClient::new(self.channel(0).clone());
        let value = Bytes::from_static(b"touched");
        let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
        let put = kv.put(with_token(put, token)).await?;
        let header = match touch {
            Touch::Put => put.into_inner().header,
            Touch::PutAndDelete => {
                let request = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
                kv.delete_range(with_token(request, token)).await?.into_inner().header
            }
        };
        Ok(header.map_or(0, |header| header.revision))
    }

    /// A token of the user root.
    pub(super) async fn root(&self) -> Result<String, tonic::Status> {
        let (name, password) = ("root".to_owned(), ROOT_PASSWORD.to_owned());
        let request = AuthenticateRequest { name, password };
        Ok(AuthClient::new(self.channel(0).clone()).authenticate(request).await?.into_inner().token)
    }
}

/// How a key is changed so that a watcher shows where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// A put is enough.
    Put,
    /// The watcher is told of deletes alone.
    PutAndDelete,
}
