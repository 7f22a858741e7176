//! Members that come and go: one more, and one that has lost everything and comes back under a new id.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_proto::etcdserverpb::cluster_client::ClusterClient;
use holdfast_proto::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::stage::{PATIENCE, POLL, Stage};

/// How long a call to the members' list may take.
const CALL: Duration = Duration::from_secs(3);

impl Stage<'_> {
    /// Brings a member that is down and has lost its directory back, under a new id.
    pub(super) async fn rejoin(&mut self, index: usize) -> Result<()> {
        let files = self.cluster.members()[index].files();
        if files.exists() {
            std::fs::remove_dir_all(&files).with_context(|| format!("removing {}", files.display()))?;
        }
        self.damaged.remove(&index);
        self.rejoined.insert(index);
        if self.is_holdfast() {
            return self.cluster.replace(index);
        }
        let name = self.cluster.members()[index].name.clone();
        let route = self.cluster.members()[index].peer_route.clone();
        let id = self.id_of(&name).await?;
        self.insist("removing a member", async |mut cluster| {
            cluster.member_remove(MemberRemoveRequest { id }).await.map(drop)
        })
        .await?;
        self.add(&route, false).await?;
        let all: Vec<usize> = (0..self.voters).collect();
        self.cluster.join(index, &all)
    }

    /// One more member comes as a learner, is made to vote, stays for a while, and is removed.
    pub(super) async fn come_and_go(&mut self, stay: Duration) -> Result<()> {
        let spare = self.voters;
        self.cluster.renew_client_port(spare)?;
        let (name, route) = {
            let member = &self.cluster.members()[spare];
            (member.name.clone(), member.peer_route.clone())
        };
        let id = self.add(&route, true).await?;
        let all: Vec<usize> = (0..=spare).collect();
        self.cluster.join(spare, &all)?;
        // Refused until it has caught up.
        self.insist("making a learner vote", async |mut cluster| {
            cluster.member_promote(MemberPromoteRequest { id }).await.map(drop)
        })
        .await
        .with_context(|| format!("{name} said:\n{}", self.tail(spare)))?;
        sleep(stay).await;
        self.insist("removing a member", async |mut cluster| {
            cluster.member_remove(MemberRemoveRequest { id }).await.map(drop)
        })
        .await?;
        self.cluster.kill(spare)?;
        let files = self.cluster.members()[spare].files();
        std::fs::remove_dir_all(&files).with_context(|| format!("removing {}", files.display()))
    }

    async fn add(&mut self, route: &str, is_learner: bool) -> Result<u64> {
        let request = MemberAddRequest { peer_ur_ls: vec![route.to_owned()], is_learner };
        let added = self
            .insist("adding a member", async |mut cluster| match cluster.member_add(request.clone()).await {
                Ok(answer) => Ok(answer.into_inner().member.map(|member| member.id)),
                Err(status) if status.message().contains("exist") => Ok(None),
                Err(status) => Err(status),
            })
            .await?;
        match added {
            Some(id) => Ok(id),
            // An earlier try was not answered and had its effect.
            None => self.id_at(route).await,
        }
    }

    async fn id_of(&self, name: &str) -> Result<u64> {
        self.find(|member| member.name == name).await
    }

    async fn id_at(&self, route: &str) -> Result<u64> {
        self.find(|member| member.peer_ur_ls.iter().any(|url| url == route)).await
    }

    async fn find(&self, wanted: impl Fn(&holdfast_proto::etcdserverpb::Member) -> bool) -> Result<u64> {
        let members = self
            .insist("listing members", async |mut cluster| {
                let listed = cluster.member_list(MemberListRequest { linearizable: true }).await;
                listed.map(|listed| listed.into_inner().members)
            })
            .await?;
        members
            .iter()
            .find(|member| wanted(member))
            .map(|member| member.id)
            .context("there is no such member")
    }

    /// Asks one member after the other until one does it, or says that it is done.
    async fn insist<T>(
        &self,
        what: &str,
        ask: impl AsyncFn(ClusterClient<Channel>) -> Result<T, tonic::Status>,
    ) -> Result<T>
    where
        T: Default,
    {
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        for place in 0.. {
            let member = place % self.voters;
            if self.cluster.members()[member].is_started() {
                match timeout(CALL, ask(ClusterClient::new(self.client.channel(member)))).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(status)) if status.message().contains("member not found") && place > 0 => {
                        return Ok(T::default());
                    }
                    Ok(Err(status)) if status.message().contains("only be promoted from learner") => {
                        return Ok(T::default());
                    }
                    Ok(Err(status)) => said = status.to_string(),
                    Err(_) => said = format!("no answer within {CALL:?}"),
                }
            }
            ensure!(Instant::now() < deadline, "{what} did not succeed within {PATIENCE:?}: {said}");
            sleep(POLL * 5).await;
        }
        bail!("{what}: no member was asked")
    }
}
