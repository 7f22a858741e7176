//! One trial: a child process with all that it starts, stopped when it takes too long.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::report::finding_in;
use super::table::{Layer, Trial};
use crate::harness::binary;

/// Between two looks at whether a trial has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long a trial that is stopped may take to stop what it has started.
const GRACE: Duration = Duration::from_secs(10);
/// As many seeds as a mistake may take to be found.
const SEEDS: u64 = 120;
/// What a command of the harness ends with when it has found something.
const FOUND: i32 = 1;
/// What a failed test ends with.
const TEST_FAILED: i32 = 101;

/// What a trial came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It found nothing.
    Passed {
        /// How long it took.
        took: Duration,
    },
    /// It found something.
    Failed {
        /// The first line of it.
        finding: String,
        /// How long it took.
        took: Duration,
    },
    /// It was stopped.
    TimedOut,
    /// It could not be made.
    NotRun {
        /// The last line of what it said.
        said: String,
    },
}

/// Makes trials.
#[derive(Debug)]
pub struct Runner {
    /// This program.
    harness: PathBuf,
    holdfast: PathBuf,
    /// Set when all is to end.
    stop: Arc<AtomicBool>,
}

impl Runner {
    /// With this binary of a member, until `stop` is set.
    pub fn new(holdfast: PathBuf, stop: Arc<AtomicBool>) -> Result<Self> {
        let harness = std::env::current_exe().context("this program does not know its own file")?;
        Ok(Self { harness, holdfast, stop })
    }

    /// Makes a trial with a mistake, or with none; of the simulation, so many seeds.
    pub fn make(
        &self,
        trial: &Trial,
        mistake: Option<&str>,
        seeds: Option<u64>,
        limit: Duration,
    ) -> Result<Ended> {
        let mut command = match trial.layer {
            Layer::Tests | Layer::Simulation => {
                build(trial)?;
                cargo_test(trial)
            }
            Layer::Processes => Command::new(&self.harness),
        };
        match trial.layer {
            Layer::Tests => {}
            Layer::Simulation => {
                command.env("HOLDFAST_SIM_SEEDS", seeds.unwrap_or(SEEDS).to_string());
            }
            Layer::Processes => {
                command.args(trial.arguments).env("HOLDFAST_BIN", &self.holdfast);
            }
        }
        match (trial.layer, mistake) {
            (Layer::Processes, Some(name)) => {
                command.arg(format!("--member-flag=--plant={name}"));
            }
            (Layer::Tests | Layer::Simulation, Some(name)) => {
                // What fails because of a mistake is no case to keep.
                command.env("HOLDFAST_PLANT", name).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
            }
            (_, None) => {}
        }
        run(command, trial.layer, limit, &self.stop)
    }
}

fn cargo_test(trial: &Trial) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(binary::workspace()).args(["test", "--locked", "--no-fail-fast"]);
    command.args(trial.arguments).env_remove("HOLDFAST_PLANT");
    command
}

/// Builds the tests, which counts as no time of theirs.
fn build(trial: &Trial) -> Result<()> {
    let built = cargo_test(trial).arg("--no-run").output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("{trial} does not build:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(())
}

/// Runs a command until its end or for so long.
fn run(mut command: Command, layer: Layer, limit: Duration, stop: &AtomicBool) -> Result<Ended> {
    let mut output = tempfile::tempfile().context("no file for what a trial says")?;
    let began = Instant::now();
    // In a group of its own: with it goes whatever it has started.
    command.process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let child =
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut group = Group(child);
    let Some(status) = group.wait(limit, stop)? else { return Ok(Ended::TimedOut) };
    let took = began.elapsed();
    let said = text(&mut output)?;
    let found = if layer == Layer::Processes { FOUND } else { TEST_FAILED };
    Ok(match status.code() {
        Some(0) => Ended::Passed { took },
        Some(code) if code == found => Ended::Failed { finding: finding_in(&said), took },
        _ => {
            let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            Ended::NotRun { said: format!("{status}: {}", last.trim()) }
        }
    })
}

fn text(output: &mut File) -> Result<String> {
    let mut said = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// A process and all that it has started. Dropping it ends them.
struct Group(Child);

impl Group {
    /// Its status, or nothing when it takes longer than `limit`.
    fn wait(&mut self, limit: Duration, stop: &AtomicBool) -> Result<Option<ExitStatus>> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().context("cannot wait for a trial")? {
                return Ok(Some(status));
            }
            if stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if began.elapsed() > limit {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) {
        // The group may be gone by now.
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, signal).unwrap_or_default();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            self.signal(Signal::TERM);
            // The harness takes its members down by itself, and reads no status of them afterwards.
            drop(self.wait(GRACE, &AtomicBool::new(false)));
        }
        self.signal(Signal::KILL);
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn end_of(command: Command, layer: Layer) -> Result<Ended> {
        run(command, layer, Duration::from_secs(60), &AtomicBool::new(false))
    }

    #[test]
    fn what_a_trial_came_to() {
        let passed = end_of(shell("exit 0"), Layer::Tests).unwrap();
        assert!(matches!(passed, Ended::Passed { .. }));
        let panics = shell("echo \"thread 'x' panicked at a.rs:1:\"; echo lost; exit 101");
        let failed = end_of(panics, Layer::Tests);
        assert!(matches!(failed.unwrap(), Ended::Failed { finding, .. } if finding == "lost"));
        let failed = end_of(shell("echo '1 findings'; echo ' early'; exit 1"), Layer::Processes);
        assert!(matches!(failed.unwrap(), Ended::Failed { finding, .. } if finding == "early"));
        let broken = end_of(shell("echo no port; exit 2"), Layer::Processes).unwrap();
        assert_eq!(broken, Ended::NotRun { said: "exit status: 2: no port".to_owned() });
    }

    #[test]
    fn a_trial_that_takes_too_long_is_stopped_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let ended =
            run(shell(&script), Layer::Tests, Duration::from_secs(1), &AtomicBool::new(false)).unwrap();
        assert_eq!(ended, Ended::TimedOut);
        let pid = std::fs::read_to_string(file).unwrap();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "{state}");
    }
}
