//! A server that a test starts for itself, with nothing on disk.

use std::path::{Path, PathBuf};

use anyhow::Result;
use holdfast_server::server::Server;

use crate::{CALM, TestCluster};

/// Where files live in memory on Linux.
const FILES_IN_MEMORY: &str = "/dev/shm";

/// The store keeps nothing in files; the log, which always has files, begins with the smallest ones that hold a request of
/// the default limit.
const IN_MEMORY: [&str; 2] = ["--engine=memory", "--segment-bytes=4MiB"];

/// A whole server for one test, or three that are one cluster: real consensus, real ports, and what is stored is gone with
/// it. One member is ready in some milliseconds, so that each test can have its own.
///
/// The store is in memory. So is the log where the machine has `/dev/shm`; elsewhere it is in the directory for temporary
/// files, and a start waits for that disk.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> anyhow::Result<()> {
/// use holdfast_testserver::TestServer;
///
/// let server = TestServer::start().await?;
/// println!("point any etcd v3 client at {}", server.endpoint());
/// server.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// Stop it with [`TestServer::stop`]. Dropping it removes its files and leaves its tasks to the runtime, whose end is
/// theirs too: a test that fails half-way leaves nothing behind.
pub struct TestServer {
    cluster: TestCluster,
}

impl TestServer {
    /// One member. Returns when it is ready.
    ///
    /// Errors: there are no free ports, or the server does not start.
    pub async fn start() -> Result<Self> {
        Self::with_members(1, &IN_MEMORY).await
    }

    /// Three members, see [`CALM`]. Returns when all are ready.
    ///
    /// Errors: as [`TestServer::start`].
    pub async fn three() -> Result<Self> {
        Self::with_members(3, &[IN_MEMORY, CALM].concat()).await
    }

    async fn with_members(size: usize, flags: &[&str]) -> Result<Self> {
        let cluster = TestCluster::start_below(&directory(), size, flags).await?;
        cluster.wait_ready().await?;
        Ok(Self { cluster })
    }

    /// The client URL of the first member.
    pub fn endpoint(&self) -> String {
        self.cluster.endpoint(0)
    }

    /// The client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.cluster.endpoints()
    }

    /// The first member.
    pub fn server(&self) -> &Server {
        self.cluster.server(0)
    }

    /// The members one by one, for tests that stop some of them. A member whose store is in memory comes back with what its
    /// log and the others have.
    pub fn cluster(&mut self) -> &mut TestCluster {
        &mut self.cluster
    }

    /// Stops all members in order, and removes their files.
    pub async fn stop(self) {
        self.cluster.stop().await;
    }
}

/// Where the files of servers go that are to be fast.
fn directory() -> PathBuf {
    let in_memory = Path::new(FILES_IN_MEMORY);
    if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() }
}
