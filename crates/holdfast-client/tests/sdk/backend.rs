//! What the tests run against.

use std::time::Duration;

use holdfast_client::{Client, Config, ReadLevel};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::kv_client::KvClient;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use crate::etcd::Etcd;

/// More than anything takes, on a machine that stands still for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster.
pub(crate) struct Backend {
    name: &'static str,
    runs: Runs,
}

enum Runs {
    Holdfast(TestCluster),
    Etcd(Etcd),
}

impl Backend {
    /// Runs a test against each: one member, three, and etcd unless there is none.
    pub(crate) async fn each(what: &str, test: impl AsyncFn(&Backend)) {
        let one = Runs::Holdfast(TestCluster::single().await.unwrap());
        Self { name: "one member", runs: one }.run(&test).await;
        let three = Runs::Holdfast(TestCluster::three().await.unwrap());
        Self { name: "three members", runs: three }.run(&test).await;
        if let Some(etcd) = Etcd::start(what).await {
            Self { name: "etcd", runs: Runs::Etcd(etcd) }.run(&test).await;
        }
    }

    async fn run(self, test: &impl AsyncFn(&Backend)) {
        let client = self.client();
        until(&format!("{} answers", self.name), async || {
            client.get("k", ReadLevel::Linearizable).await.is_ok()
        })
        .await;
        test(&self).await;
        if let Runs::Holdfast(cluster) = self.runs {
            cluster.stop().await;
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        match &self.runs {
            Runs::Holdfast(cluster) => cluster.endpoints(),
            Runs::Etcd(etcd) => vec![etcd.endpoint()],
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.endpoints()).unwrap()
    }

    pub(crate) fn client_with(&self, config: Config) -> Client {
        Client::with_config(self.endpoints(), config).unwrap()
    }

    /// A channel to one member, for what the client does not do.
    pub(crate) fn channel(&self) -> Channel {
        Channel::from_shared(self.endpoints().swap_remove(0)).unwrap().connect_lazy()
    }

    pub(crate) async fn compact(&self, revision: u64) {
        let revision = i64::try_from(revision).unwrap();
        let request = pb::CompactionRequest { revision, physical: false };
        KvClient::new(self.channel()).compact(request).await.unwrap();
    }
}

/// What it gives, in time.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("in time")
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}
