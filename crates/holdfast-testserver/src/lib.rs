//! A real server of one or three members inside a test.
//!
//! The members are whole servers with log and TCP, as the binary runs them, in the test's own process, with ports that
//! were free. A [`TestServer`] is for tests of programs that use one: it is ready at once and keeps all in memory. A
//! [`TestCluster`] is for tests of the server: its members have a disk, and start and stop one by one. The runtime must be
//! multi-threaded.
//!
//! What it is not: a way to test crashes. All members share the process; stopping one is always orderly.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_server::config::{Config, flags};
use holdfast_server::error::ServerError;
use holdfast_server::server::Server;
use tempfile::TempDir;

mod server;

pub use server::TestServer;

/// How long a cluster may take until all its members are ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// Ports are chosen by asking for free ones, which others may take in between: so often a start is tried again.
const START_ATTEMPTS: usize = 5;

/// Where the members' ports are taken from.
const PORTS: std::ops::Range<u16> = 10_000..15_000;

/// Flags for members whose test is not about elections: a machine that stands still for a second starts none.
pub const CALM: [&str; 2] = ["--election-timeout=3000", "--heartbeat-interval=100"];

/// How the flags begin that make an end speak TLS.
const CLIENT_CERTIFICATE: &str = "--cert-file=";
const PEER_CERTIFICATE: &str = "--peer-cert-file=";

/// A running cluster. Stop it with [`TestCluster::stop`].
pub struct TestCluster {
    members: Vec<TestMember>,
    directory: TempDir,
}

/// One member, running or stopped.
struct TestMember {
    config: Config,
    server: Option<Server>,
}

impl TestCluster {
    /// A cluster of one.
    pub async fn single() -> Result<Self> {
        Self::start(1, &[]).await
    }

    /// A cluster of three that does not take a slow machine for a dead leader, see [`CALM`].
    pub async fn three() -> Result<Self> {
        Self::start(3, &CALM).await
    }

    /// A cluster of `size` members, each with these flags beside those it needs. Returns when all are ready.
    pub async fn start(size: usize, extra_flags: &[&str]) -> Result<Self> {
        let cluster = Self::start_without_waiting(size, extra_flags).await?;
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    /// As [`TestCluster::start`], but returns when the members listen and before they are ready.
    pub async fn start_without_waiting(size: usize, extra_flags: &[&str]) -> Result<Self> {
        Self::start_below(&std::env::temp_dir(), size, extra_flags).await
    }

    /// As [`TestCluster::start_without_waiting`], with the members' data in a directory of its own below this one.
    async fn start_below(parent: &Path, size: usize, extra_flags: &[&str]) -> Result<Self> {
        for _ in 0..START_ATTEMPTS {
            let directory = TempDir::new_in(parent).context("a directory for the members' data")?;
            let mut cluster = Self { members: configs(size, &directory, extra_flags)?, directory };
            match cluster.start_all().await {
                Ok(()) => return Ok(cluster),
                Err(ServerError::Listen { .. }) => cluster.stop().await,
                Err(error) => return Err(error.into()),
            }
        }
        bail!("others took the ports {START_ATTEMPTS} times")
    }

    async fn start_all(&mut self) -> Result<(), ServerError> {
        for member in &mut self.members {
            member.server = Some(Server::start(&member.config).await?);
        }
        Ok(())
    }

    /// Waits until all running members are ready.
    pub async fn wait_ready(&self) -> Result<()> {
        for server in self.members.iter().filter_map(|member| member.server.as_ref()) {
            let mut ready = server.ready();
            let ready = tokio::time::timeout(READY_MAX, ready.wait_for(|ready| *ready)).await;
            ready
                .context("a member was not ready in time")?
                .context("a member stopped before it was ready")?;
        }
        Ok(())
    }

    /// The client URL of a member.
    pub fn endpoint(&self, member: usize) -> String {
        self.members[member].config.advertise_client_urls[0].to_string()
    }

    /// The client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    /// A member that was not there from the start: it finds its place when it starts, and has to be added before, under
    /// [`TestCluster::peer_url`].
    pub fn newcomer(&mut self, extra_flags: &[&str]) -> Result<usize> {
        let at = self.members.len();
        let ports = free_ports(2)?;
        let mut cluster: Vec<String> =
            (0..at).map(|member| format!("n{member}={}", self.peer_url(member))).collect();
        cluster.push(format!("n{at}={}", loopback(ports[0], extra_flags, PEER_CERTIFICATE)));
        let existing = ["--initial-cluster-state=existing"];
        let flags: Vec<&str> = existing.iter().chain(extra_flags).copied().collect();
        let member = member(at, (ports[0], ports[1]), &cluster.join(","), &self.directory, &flags)?;
        self.members.push(member);
        Ok(at)
    }

    /// The data directory of a member.
    pub fn data_dir(&self, member: usize) -> std::path::PathBuf {
        self.members[member].config.data_dir.clone()
    }

    /// The peer URL of a member.
    pub fn peer_url(&self, member: usize) -> String {
        self.members[member].config.listen_peer_urls[0].to_string()
    }

    /// A running member.
    pub fn server(&self, member: usize) -> &Server {
        self.members[member].server.as_ref().expect("the member is running")
    }

    /// The id of a member. Of one that was added, only while it is running.
    pub fn member_id(&self, member: usize) -> u64 {
        if let Some(server) = &self.members[member].server {
            return server.identity().member_id.0;
        }
        holdfast_server::identity::Identity::of(&self.members[member].config).member_id.0
    }

    /// Stops one member in order; its data stays.
    pub async fn stop_member(&mut self, member: usize) {
        if let Some(server) = self.members[member].server.take() {
            server.stop().await;
        }
    }

    /// Starts a stopped member on its data, and waits until it is ready.
    pub async fn start_member(&mut self, member: usize) -> Result<()> {
        self.start_member_without_waiting(member).await?;
        self.wait_ready().await
    }

    /// Starts a stopped member on its data; returns when it listens.
    pub async fn start_member_without_waiting(&mut self, member: usize) -> Result<()> {
        let stopped = &mut self.members[member];
        if stopped.server.is_none() {
            stopped.server = Some(Server::start(&stopped.config).await?);
        }
        Ok(())
    }

    /// Stops all members, then removes their data. One after the other: a leader that hands over to a member that is
    /// stopping, too, waits for it as long as an election takes.
    pub async fn stop(mut self) {
        for server in self.members.iter_mut().filter_map(|member| member.server.take()) {
            // A panic of a member's stop is the test's failure too.
            tokio::spawn(server.stop()).await.expect("a member stops in order");
        }
    }
}

/// Configurations of members that know each other, by the same flags as on a command line.
fn configs(size: usize, directory: &TempDir, extra_flags: &[&str]) -> Result<Vec<TestMember>> {
    let ports = free_ports(size * 2)?;
    let cluster: Vec<String> = (0..size)
        .map(|at| format!("n{at}={}", loopback(ports[at * 2], extra_flags, PEER_CERTIFICATE)))
        .collect();
    let cluster = cluster.join(",");
    (0..size)
        .map(|at| member(at, (ports[at * 2], ports[at * 2 + 1]), &cluster, directory, extra_flags))
        .collect()
}

/// Plain text, unless there is a certificate for this end among the flags.
fn loopback(port: u16, flags: &[&str], certificate: &str) -> String {
    let scheme = if flags.iter().any(|flag| flag.starts_with(certificate)) { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{port}")
}

fn member(
    at: usize,
    (peer_port, client_port): (u16, u16),
    cluster: &str,
    directory: &TempDir,
    extra_flags: &[&str],
) -> Result<TestMember> {
    let own = [
        "holdfast".to_owned(),
        format!("--name=n{at}"),
        format!("--data-dir={}", directory.path().join(format!("n{at}")).display()),
        format!("--listen-peer-urls={}", loopback(peer_port, extra_flags, PEER_CERTIFICATE)),
        format!("--listen-client-urls={}", loopback(client_port, extra_flags, CLIENT_CERTIFICATE)),
        format!("--initial-cluster={cluster}"),
        // Small, because a test writes little and many tests run at once.
        "--segment-bytes=8MiB".to_owned(),
        "--memory-bytes=64MiB".to_owned(),
        "--write-workers=2".to_owned(),
    ];
    let args = own.into_iter().chain(extra_flags.iter().map(|flag| (*flag).to_owned())).chain(planted());
    let cli = flags::parse(args.map(Into::into), &|_| None)?;
    Ok(TestMember { config: Config::from_flags(&cli.server)?, server: None })
}

/// Has members make the mistake that whoever runs the tests wants to see found: see `cluster-tests mutants`.
fn planted() -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
    let fault = std::env::var("HOLDFAST_PLANT").ok()?;
    Some(format!("--plant={fault}"))
}

/// Ports that nobody listens on, none of them handed out before by this process. All are below the range that the
/// kernel gives to outgoing connections, so that none of those takes a stopped member's place.
///
/// Errors: when there are not so many.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    // Where the next search begins: elsewhere in each process, so that tests side by side rarely meet.
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(std::process::id().wrapping_mul(97)));
    let mut ports = Vec::new();
    for _ in 0..PORTS.len() {
        if ports.len() == count {
            return Ok(ports);
        }
        let at = NEXT.fetch_add(1, Ordering::Relaxed) % u32::try_from(PORTS.len())?;
        let port = PORTS.start + u16::try_from(at)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.push(port);
        }
    }
    bail!("no {count} free ports on 127.0.0.1 in {PORTS:?}: what is listening there?")
}
