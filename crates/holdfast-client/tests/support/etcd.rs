//! A real etcd for one test, where there is one.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_client::{Client, Config, ReadLevel};
use holdfast_testserver::free_ports;
use tokio::time::Instant;

/// How long it may take to come up.
const READY_MAX: Duration = Duration::from_secs(60);

/// A running etcd of one member, with data of its own. Ends when it is dropped.
pub(crate) struct Etcd {
    process: Child,
    data: PathBuf,
    endpoint: String,
}

impl Etcd {
    /// Starts one; `None`, and a line that says so, when there is no binary.
    pub(crate) async fn start(what: &str) -> Option<Self> {
        let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/etcd");
        if !std::path::Path::new(binary).is_file() {
            let why = "there is none; run scripts/fetch-peers";
            // A closed standard error leaves nobody to tell.
            drop(writeln!(std::io::stderr(), "skipped: {what} on a real etcd: {why}"));
            return None;
        }
        let ports = free_ports(2).unwrap();
        let [endpoint, peer] = [ports[0], ports[1]].map(|port| format!("http://127.0.0.1:{port}"));
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("etcd-{}", ports[0]));
        let process = Command::new(binary)
            .arg(format!("--data-dir={}", data.display()))
            .args([format!("--listen-client-urls={endpoint}"), format!("--advertise-client-urls={endpoint}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=default={peer}"))
            .args(["--log-level=error", "--unsafe-no-fsync"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { process, data, endpoint };
        etcd.wait_ready().await;
        Some(etcd)
    }

    async fn wait_ready(&self) {
        let config = Config { call_timeout: Duration::from_millis(500), ..Config::default() };
        let client = Client::with_config([self.endpoint()], config).unwrap();
        let deadline = Instant::now() + READY_MAX;
        while let Err(error) = client.get("ready", ReadLevel::Linearizable).await {
            assert!(Instant::now() < deadline, "etcd is not ready in time: {error}");
        }
    }

    /// Where clients go.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself; what is left of its data does not matter to anybody.
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.data));
    }
}
