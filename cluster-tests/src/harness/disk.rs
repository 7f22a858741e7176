//! A small disk of a member's own, that can be filled up: a file system in memory, in a mount namespace of its own.
//!
//! It needs no rights beyond a user namespace. What is written there is gone with it; from outside it is seen below
//! [`SmallDisk::root`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::Process;

/// How long mounting may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The file that fills it.
const BALLAST: &str = "ballast";

/// A small file system that lives as long as this does.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Process,
    mount: PathBuf,
}

impl SmallDisk {
    /// Mounts `mebibytes` over the directory `mount`. Errors: why this user cannot.
    pub fn mount(mebibytes: u32, mount: &Path, log: &Path) -> Result<Self> {
        // Its input ends when this process does, and it with that.
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m tmpfs '{}' && echo mounted && exec cat >/dev/null",
            mount.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-euc", &script]);
        let mut holder = Process::spawn(command, log)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = holder.log_text();
            if said.contains("mounted") {
                return Ok(Self { holder, mount: mount.to_owned() });
            }
            if holder.try_wait()?.is_some() || Instant::now() >= deadline {
                bail!("this user cannot mount a small file system: {}", said.trim());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What a command begins with in order to run there.
    pub fn wrapper(&self) -> Vec<String> {
        let target = self.holder.pid().to_string();
        ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", &target]
            .map(str::to_owned)
            .to_vec()
    }

    /// Where all paths begin that are to be seen as they are there.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.holder.pid()))
    }

    /// Leaves no space.
    pub fn fill(&self) -> Result<()> {
        let ballast = self.mount.join(BALLAST);
        self.shell(&format!("cat /dev/zero >'{}' 2>/dev/null || true", ballast.display()))
    }

    /// Gives the space back.
    pub fn free(&self) -> Result<()> {
        self.shell(&format!("rm -f '{}'", self.mount.join(BALLAST).display()))
    }

    /// Runs a line of shell there.
    fn shell(&self, line: &str) -> Result<()> {
        let wrapper = self.wrapper();
        let status = Command::new(&wrapper[0]).args(&wrapper[1..]).args(["sh", "-c", line]).status();
        ensure!(status.context("entering a small disk")?.success(), "{line}");
        Ok(())
    }
}
