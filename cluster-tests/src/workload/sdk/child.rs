//! The process with the SDK in it. Its program says what it is told and what it answers.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::judge::sdk::locks::Contender;
use crate::judge::sdk::told::{Kinds, Line};
use crate::judge::sdk::world::Range;

/// A watch that is to be begun.
#[derive(Debug, Clone, Serialize)]
pub struct Wish {
    /// Of these keys.
    pub range: Range,
    /// Of these changes.
    pub kinds: Kinds,
    /// From this revision on; 0: from now on.
    pub from: i64,
}

/// What the child is told first.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Informers.
    pub informers: Vec<Range>,
    /// Watches.
    pub watches: Vec<Wish>,
    /// How many sessions take the lock in turns.
    pub sessions: usize,
    /// Their time to live, in seconds.
    pub ttl_s: u64,
    /// The lock.
    pub lock: String,
    /// The key that is written under it.
    pub fact: String,
    /// Where it writes what it was told.
    pub dir: PathBuf,
    /// How long informers and watches may take to come to the last revision, in seconds.
    pub finish_s: u64,
}

/// An informer in the end.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct InformerEnd {
    pub informer: usize,
    pub revision: i64,
    pub objects: u64,
    pub digest: String,
    pub compacted: u64,
    pub mismatch: u64,
    pub asked: u64,
}

/// A watch in the end.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct WatchEnd {
    pub watch: usize,
    pub revision: i64,
    pub lines: u64,
}

/// The running child. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: Process,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Child {
    /// Starts it, with its standard error in the file `log`.
    pub fn start(program: &Path, endpoints: &[String], log: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--endpoints", &endpoints.join(",")]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(log).context("no log for the child")?);
        let mut process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let orders = process.stdin.take().context("a child without standard input")?;
        let answers = process.stdout.take().context("a child without standard output")?;
        Ok(Self { process, orders, answers: BufReader::new(answers).lines(), log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        self.process.id().context("the child has ended")
    }

    /// Tells it what to do, and waits until everything has begun.
    pub async fn begin(&mut self, config: &Config, patience: Duration) -> Result<()> {
        self.order(&serde_json::to_string(config)?).await?;
        self.until("ready", patience, |line| bail!("{line} before it is ready")).await
    }

    /// Has sessions end, and gives what they believed.
    pub async fn end_sessions(&mut self, patience: Duration) -> Result<Vec<Contender>> {
        self.order("end sessions").await?;
        let mut contenders = Vec::new();
        self.until("sessions_ended", patience, |line| {
            contenders.push(serde_json::from_str(line).with_context(|| format!("what is {line}"))?);
            Ok(())
        })
        .await?;
        Ok(contenders)
    }

    /// Has all come to a revision.
    pub async fn finish(
        &mut self,
        revision: i64,
        patience: Duration,
    ) -> Result<(Vec<InformerEnd>, Vec<WatchEnd>)> {
        self.order(&format!("finish {revision}")).await?;
        let (mut informers, mut watches) = (Vec::new(), Vec::new());
        self.until("finished", patience, |line| {
            if line.starts_with("{\"informer\"") {
                informers.push(serde_json::from_str(line).with_context(|| format!("what is {line}"))?);
            } else {
                watches.push(serde_json::from_str(line).with_context(|| format!("what is {line}"))?);
            }
            Ok(())
        })
        .await?;
        Ok((informers, watches))
    }

    /// SIGSTOP.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("process id zero")?;
        kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to the child"))
    }

    async fn order(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        let written = async {
            self.orders.write_all(line.as_bytes()).await?;
            self.orders.flush().await
        };
        written.await.with_context(|| format!("the child does not listen; it said:\n{}", self.said()))
    }

    /// Reads lines until one says that this is so.
    async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut take: impl FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let end = format!("{{\"{what}\":true}}");
        let reading = async {
            loop {
                let line = self.answers.next_line().await?.context("the child has ended")?;
                if line == end {
                    return Ok(());
                }
                take(&line)?;
            }
        };
        let read = timeout(patience, reading).await.unwrap_or_else(|_| bail!("the child takes too long"));
        read.with_context(|| format!("waiting for {what}; the child said:\n{}", self.said()))
    }

    /// The end of what it printed about itself.
    fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2_000)..]).into_owned()
    }
}

/// What a watch or an informer of the child has written.
pub fn lines(dir: &Path, kind: &str, number: usize) -> Result<Vec<Line>> {
    let path = dir.join(format!("{kind}-{number}"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let read = |line: &str| Line::parse(line).with_context(|| format!("{}: {line}", path.display()));
    text.lines().map(read).collect()
}
