//! What the tests run against.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_client::{Client, Config, ReadLevel};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::{TestCluster, free_ports};
use pb::kv_client::KvClient;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

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

/// A real etcd, one member.
struct Etcd {
    child: Child,
    endpoint: String,
    _directory: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Backend {
    /// Runs a test against each: one member, three, and etcd unless there is none.
    pub(crate) async fn each(what: &str, test: impl AsyncFn(&Backend)) {
        let one = Runs::Holdfast(TestCluster::single().await.unwrap());
        Self { name: "one member", runs: one }.run(&test).await;
        let three = Runs::Holdfast(TestCluster::three().await.unwrap());
        Self { name: "three members", runs: three }.run(&test).await;
        match etcd_path() {
            Some(path) => Self { name: "etcd", runs: Runs::Etcd(etcd(&path)) }.run(&test).await,
            None => {
                let why = "there is no real etcd; run scripts/fetch-peers";
                // A closed standard error leaves nobody to tell.
                drop(writeln!(std::io::stderr(), "skipped: {what} against etcd: {why}"));
            }
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
            Runs::Etcd(etcd) => vec![etcd.endpoint.clone()],
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

fn etcd_path() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/peers/etcd");
    path.exists().then_some(path)
}

fn etcd(path: &PathBuf) -> Etcd {
    let directory = TempDir::new().unwrap();
    let ports = free_ports(2).unwrap();
    let url = |port| format!("http://127.0.0.1:{port}");
    let (peers, endpoint) = (url(ports[0]), url(ports[1]));
    let child = Command::new(path)
        .arg("--data-dir")
        .arg(directory.path())
        .args(["--name=n0", "--log-level=error", "--unsafe-no-fsync"])
        .args([format!("--listen-peer-urls={peers}"), format!("--initial-advertise-peer-urls={peers}")])
        .args([format!("--listen-client-urls={endpoint}"), format!("--advertise-client-urls={endpoint}")])
        .arg(format!("--initial-cluster=n0={peers}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Etcd { child, endpoint, _directory: directory }
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
