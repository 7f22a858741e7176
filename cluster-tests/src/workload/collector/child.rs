//! The processes with the SDK in them: one collects, one writes to the origin and to the collection at once.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child as Process, Command};
use tokio::time::timeout;

use super::origin::SOURCES;

/// What a direct writer has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Raced {
    /// Writes that were applied.
    pub applied: u64,
    /// That were there already.
    pub same: u64,
    /// That came behind something newer.
    pub older: u64,
    /// That failed, or of which nobody knows.
    pub failed: u64,
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: Process,
}

impl Child {
    /// Starts it, with its standard error at the end of the file `log`.
    pub fn start(
        program: &Path,
        cluster: &[String],
        origin: &str,
        more: &[String],
        log: &Path,
    ) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log).context("no log for the child")?;
        let mut command = Command::new(program);
        command.args(["--endpoints", &cluster.join(","), "--origin", origin]);
        command.args(["--sources", &SOURCES.join(",")]).args(more).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { process })
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.process.id().context("the child has ended")
    }

    /// The most memory that it had so far, in bytes.
    pub fn peak_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid()?);
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the child has ended")?;
        let kib: u64 = peak.split_whitespace().next().context("no figure")?.parse()?;
        Ok(kib << 10)
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await.context("the child is not killed")
    }

    /// Tells it to end, and gives what it says.
    pub async fn end(mut self, patience: Duration) -> Result<String> {
        drop(self.process.stdin.take());
        let mut said = String::new();
        let mut stdout = self.process.stdout.take().context("a child without standard output")?;
        let reading = async {
            stdout.read_to_string(&mut said).await?;
            self.process.wait().await
        };
        let status = timeout(patience, reading).await.context("the child does not end")??;
        anyhow::ensure!(status.success(), "the child has failed: {status}");
        Ok(said)
    }
}
