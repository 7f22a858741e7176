//! What happens to a collector: restarts, cuts, a cursor that goes back, a source that forgets, members that fail.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::RangeRequest;
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::time::sleep;

use super::child::Child;
use super::origin::{Origin, SOURCES};
use crate::client::TIMEOUT;
use crate::harness::network::{Link, Network};
use crate::judge::watch::history::Step;
use crate::nemesis::Fault;
use crate::nemesis::stage::Stage;
use crate::workload::watch::calls::{Fate, carry_out};

/// How often a write of a cursor is tried.
const ATTEMPTS: usize = 20;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// To the members of the cluster that is collected in.
    Members(Fault),
    /// The collector is killed, and started again.
    Restart,
    /// It does not reach the cluster.
    CutFromCluster,
    /// It does not reach the origin.
    CutFromOrigin,
    /// A source's cursor goes back to where it was before.
    Rollback,
    /// The collector is killed, and when it is started again the origin has forgotten what it has not told it.
    Forget,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Members(Fault::KillLeader),
        Self::Members(Fault::KillFollower),
        Self::Members(Fault::PauseLeader),
        Self::Members(Fault::CutLeader),
        Self::Members(Fault::Restart),
        Self::Restart,
        Self::CutFromCluster,
        Self::CutFromOrigin,
        Self::Rollback,
        Self::Forget,
    ];
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members(fault) => write!(f, "{fault}"),
            Self::Restart => f.write_str("restart-collector"),
            Self::CutFromCluster => f.write_str("cut-from-cluster"),
            Self::CutFromOrigin => f.write_str("cut-from-origin"),
            Self::Rollback => f.write_str("rollback"),
            Self::Forget => f.write_str("forget"),
        }
    }
}

/// A running collector and how it is started.
#[derive(Debug)]
pub struct Running {
    /// Its program.
    pub program: PathBuf,
    /// Its ways to the members of the cluster, and its own place behind them.
    pub cluster: Network,
    /// Its way to the origin, and its own place behind that.
    pub origin: Network,
    /// Where it says what goes wrong.
    pub log: PathBuf,
    child: Option<Child>,
    /// The most memory that any of them had.
    pub peak_bytes: u64,
}

impl Running {
    /// Starts a collector.
    pub fn start(program: PathBuf, cluster: Network, origin: Network, log: PathBuf) -> Result<Self> {
        let mut running = Self { program, cluster, origin, log, child: None, peak_bytes: 0 };
        running.begin()?;
        Ok(running)
    }

    fn begin(&mut self) -> Result<()> {
        let place = self.cluster.size() - 1;
        let routes: Vec<String> = (0..place).map(|member| self.cluster.route(member).to_owned()).collect();
        let child = Child::start(&self.program, &routes, self.origin.route(0), &[], &self.log)?;
        self.cluster.set_process(place, Some(child.pid()?));
        self.origin.set_process(1, Some(child.pid()?));
        self.child = Some(child);
        Ok(())
    }

    /// Notes its memory, then kills it.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no collector runs")?;
        self.peak_bytes = self.peak_bytes.max(child.peak_bytes()?);
        child.kill().await
    }
}

/// What is struck.
pub struct Scene<'a> {
    /// The members of the cluster that is collected in.
    pub stage: Stage<'a>,
    /// The origin.
    pub origin: &'a mut Origin,
    /// The collector.
    pub collector: &'a mut Running,
    /// What the collector's objects lie under.
    pub resource: &'a str,
    /// Where cursors were before.
    pub cursors: HashMap<&'static str, Vec<String>>,
}

impl Scene<'_> {
    /// Goes on until `end`, since the run began, and leaves all whole and running. Gives what was done.
    pub async fn run(&mut self, end: Duration) -> Result<Vec<Trouble>> {
        let duration = end.saturating_sub(self.stage.shared.elapsed());
        let calm_max = (duration / 12).clamp(Duration::from_millis(400), Duration::from_secs(4));
        let length_max = (duration / 8).clamp(Duration::from_millis(500), Duration::from_secs(4));
        let (mut done, mut bag) = (Vec::new(), Vec::new());
        loop {
            let calm = self.stage.rng.random_range(calm_max / 4..calm_max);
            sleep(calm.min(end.saturating_sub(self.stage.shared.elapsed()))).await;
            if self.stage.shared.elapsed() >= end {
                return Ok(done);
            }
            self.note_cursors().await;
            if bag.is_empty() {
                bag.extend(Trouble::ALL);
                bag.shuffle(&mut self.stage.rng);
            }
            let Some(trouble) = bag.pop() else { return Ok(done) };
            let length = self.stage.rng.random_range(Duration::from_millis(200)..length_max);
            if Box::pin(self.strike(trouble, length)).await.with_context(|| format!("{trouble}"))? {
                done.push(trouble);
            }
        }
    }

    /// Whether it could be done.
    async fn strike(&mut self, trouble: Trouble, length: Duration) -> Result<bool> {
        match trouble {
            Trouble::Members(fault) => {
                self.stage.suffer(fault, length).await?;
            }
            Trouble::Restart => {
                self.collector.kill().await?;
                self.collector.begin()?;
            }
            Trouble::CutFromCluster => cut(&self.collector.cluster, length).await,
            Trouble::CutFromOrigin => cut(&self.collector.origin, length).await,
            Trouble::Rollback => return self.roll_back().await,
            Trouble::Forget => {
                self.collector.kill().await?;
                sleep(length).await;
                self.origin.compact().await?;
                self.collector.begin()?;
            }
        }
        Ok(true)
    }

    /// Where the cursors are now, if that can be seen.
    async fn note_cursors(&mut self) {
        for source in SOURCES {
            let request = RangeRequest { key: self.cursor(source), ..RangeRequest::default() };
            let Ok(answer) = self.stage.client.range(0, request, TIMEOUT).await else { continue };
            let Some(kv) = answer.kvs.into_iter().next() else { continue };
            let cursor: serde_json::Value = serde_json::from_slice(&kv.value).unwrap_or_default();
            let Some(origin) = cursor["origin"].as_str() else { continue };
            let known = self.cursors.entry(source).or_default();
            if known.last().is_none_or(|last| last != origin) {
                known.push(origin.to_owned());
            }
        }
    }

    fn cursor(&self, source: &str) -> Bytes {
        format!("/c/{}/{source}", self.resource).into()
    }

    /// A cursor as somebody would write it who restores what was saved before.
    async fn roll_back(&mut self) -> Result<bool> {
        let source = SOURCES[self.stage.rng.random_range(0..SOURCES.len())];
        let Some(known) = self.cursors.get(source).filter(|known| !known.is_empty()) else {
            return Ok(false);
        };
        let before = &known[self.stage.rng.random_range(0..known.len())];
        let run = self.stage.rng.random_range(1..1_u64 << 40);
        let value = serde_json::json!({ "origin": before, "run": run, "batch": 0 }).to_string();
        let step = Step::Put { key: self.cursor(source), value: value.into(), lease: 0 };
        for attempt in 0..ATTEMPTS {
            let member = attempt % self.stage.voters;
            let fate = carry_out(&self.stage.client.channel(member), std::slice::from_ref(&step)).await;
            if matches!(fate, Fate::At(_)) {
                return Ok(true);
            }
        }
        anyhow::bail!("no cursor could be written")
    }
}

/// Whoever has the last place reaches nobody for a while.
async fn cut(network: &Network, length: Duration) {
    network.set_around(&[network.size() - 1], Link::Cut);
    sleep(length).await;
    network.heal();
}
