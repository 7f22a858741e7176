//! A running etcdctl: what it reads, what it has printed so far, and its end.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long something that has to come may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a process that was killed, or whose output has ended, may take to be gone.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// Printed so far, on both outputs; whether each has ended.
#[derive(Debug, Clone, Default)]
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ended: usize,
}

/// A running etcdctl. Killed when dropped.
#[derive(Debug)]
pub struct Console {
    line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: watch::Receiver<Output>,
    readers: Vec<JoinHandle<()>>,
}

/// What was printed, and the exit code where the process ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// The exit code; `None` when it had to be stopped.
    pub code: Option<i32>,
}

/// A run of `program` on an endpoint given as `host:port`, with nothing else of this process's surroundings.
pub fn command(program: &Path, endpoint: &str, args: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("ETCDCTL_API", "3")
        // For the shells that `watch -- command` starts.
        .env("PATH", "/usr/bin:/bin")
        .arg(format!("--endpoints={endpoint}"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Console {
    /// Starts `program` on an endpoint given as `host:port`.
    pub fn start(program: &Path, endpoint: &str, args: &[String]) -> Result<Self> {
        let line = format!("{} {}", program.display(), args.join(" "));
        let mut child = command(program, endpoint, args).spawn().with_context(|| line.clone())?;
        let (send, output) = watch::channel(Output::default());
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the pipe was asked for")?;
        let stderr = child.stderr.take().context("the pipe was asked for")?;
        let readers = vec![
            tokio::spawn(read(stdout, send.clone(), |output| &mut output.stdout)),
            tokio::spawn(read(stderr, send, |output| &mut output.stderr)),
        ];
        Ok(Self { line, child, stdin, output, readers })
    }

    /// Gives it a line to read.
    pub async fn write(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("its standard input is closed")?;
        stdin.write_all(format!("{line}\n").as_bytes()).await.with_context(|| self.line.clone())
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until standard output holds `wanted`.
    pub async fn wait_for(&mut self, wanted: impl Fn(&[u8]) -> bool + Send) -> Result<()> {
        let come = self.output.wait_for(|output| wanted(&output.stdout) || output.ended == 2);
        let has = match tokio::time::timeout(PATIENCE, come).await {
            Ok(Ok(output)) => wanted(&output.stdout),
            Ok(Err(_)) | Err(_) => false,
        };
        if !has {
            let output = self.output.borrow().clone();
            bail!(
                "{} has not printed what it should; standard output:\n{}\nstandard error:\n{}",
                self.line,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Waits until it ends by itself, which may take `patience`.
    pub async fn end(mut self, patience: Duration) -> Result<Ended> {
        self.close_input();
        let status = tokio::time::timeout(patience, self.child.wait()).await;
        let status = status.with_context(|| format!("{} does not end", self.line))??;
        self.ended(status.code()).await
    }

    /// Kills it.
    pub async fn stop(mut self) -> Result<Ended> {
        self.child.start_kill().context("cannot kill it")?;
        tokio::time::timeout(END_PATIENCE, self.child.wait()).await.context("it does not die")??;
        self.ended(None).await
    }

    async fn ended(self, code: Option<i32>) -> Result<Ended> {
        for reader in self.readers {
            tokio::time::timeout(END_PATIENCE, reader).await.context("its output does not end")??;
        }
        let Output { stdout, stderr, .. } = self.output.borrow().clone();
        Ok(Ended { stdout, stderr: String::from_utf8_lossy(&stderr).into_owned(), code })
    }
}

async fn read(
    mut from: impl AsyncReadExt + Unpin + Send,
    output: watch::Sender<Output>,
    part: impl Fn(&mut Output) -> &mut Vec<u8> + Send,
) {
    let mut buffer = vec![0; 16 << 10];
    // A pipe that fails has ended as well.
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        output.send_modify(|output| part(output).extend_from_slice(&buffer[..count]));
    }
    output.send_modify(|output| output.ended += 1);
}
