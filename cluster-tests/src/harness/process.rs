//! One child process with its output in a file. Dropping it kills it, so that a failed test leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at whether a process has ended.
const POLL: Duration = Duration::from_millis(5);

/// A running (or ended) child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with both outputs appended to the file `log`. Its standard input stays open and silent
    /// for as long as this process lives: a child that watches it learns when the harness itself is killed.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let out = append_to(log)?;
        let err = out.try_clone().context("cannot share the log file")?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child, log: log.to_owned(), ended: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory of its own, as `/proc` has them under this name: `VmRSS` now, `VmHWM` at most so far.
    pub fn memory_bytes(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let kib = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = kib.and_then(|kib| kib.split_whitespace().next()).context("the process has ended")?;
        Ok(kib.parse::<u64>()? << 10)
    }

    /// SIGKILL, and wait until the kernel has taken the process away. No error if it has ended already.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended.is_none() {
            self.child.kill().context("cannot send SIGKILL")?;
            self.ended = Some(self.child.wait().context("cannot wait for a killed process")?);
        }
        Ok(())
    }

    /// SIGSTOP: the process keeps its sockets and files, and does nothing.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT, after [`Process::pause`].
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGUSR1, on which holdfast takes a snapshot. It ends a process that has not come so far as to expect it.
    pub fn ask_for_dump(&mut self) -> Result<()> {
        self.signal(Signal::USR1)
    }

    /// SIGTERM, and its exit status. Kills it and fails if it has not ended after `grace`.
    pub fn terminate(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(grace)
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("cannot ask whether a process has ended")?;
        }
        Ok(self.ended)
    }

    /// Waits for its end. Kills it and fails when it still runs after `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.kill()?;
                bail!(
                    "pid {} did not end within {patience:?}; its last lines:\n{}",
                    self.pid(),
                    self.log_tail(20)
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// All it has printed since the log file began.
    pub fn log_text(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last `lines` lines it has printed.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log_text();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_wait()? {
            bail!("pid {} has ended ({status}); its last lines:\n{}", self.pid(), self.log_tail(20));
        }
        let raw = i32::try_from(self.pid()).context("a process id above i32")?;
        let pid = Pid::from_raw(raw).context("process id zero")?;
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to pid {raw}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the process may have ended by itself.
        drop(self.kill());
    }
}

fn append_to(log: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open the log file {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(log: &Path) -> Process {
        let mut command = Command::new("sleep");
        command.arg("60");
        Process::spawn(command, log).expect("sleep starts")
    }

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = sleeper(&dir.path().join("log"));
        let pid = process.pid();
        assert!(alive(pid));
        drop(process);
        assert!(!alive(pid));
    }

    #[test]
    fn a_panic_takes_the_process_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let result = std::thread::spawn(move || {
            let process = sleeper(&log);
            send.send(process.pid()).unwrap();
            panic!("on purpose");
        })
        .join();
        assert!(result.is_err());
        assert!(!alive(receive.recv().unwrap()));
    }

    #[test]
    fn what_it_prints_is_kept_and_its_status_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let mut process = Process::spawn(command, &dir.path().join("log")).unwrap();
        assert_eq!(process.wait(Duration::from_secs(10)).unwrap().code(), Some(3));
        assert_eq!(process.log_tail(2), "one\ntwo");
    }

    #[test]
    fn a_process_that_will_not_end_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo deaf; exec sleep 60"]);
        let mut process = Process::spawn(command, &dir.path().join("log")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process.log_text().contains("deaf") {
            assert!(Instant::now() < deadline);
            std::thread::sleep(POLL);
        }
        assert!(process.terminate(Duration::from_millis(50)).is_err());
        assert!(!alive(process.pid()));
    }
}
