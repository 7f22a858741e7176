//! Members that lost their disk and are replaced: one in a large cluster over connections that break, and all of them
//! one by one under load. Nothing acknowledged may be lost, no transfer may start over, and puts may not wait for it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinHandle, JoinSet};

use super::verify::{self, Verdict};
use super::writers::{Load, Timed, Writers};
use crate::client::{Client, Outcome};
use crate::harness::cluster::{Cluster, System};
use crate::harness::network::Network;
use crate::harness::scrape::Scrape;
use crate::judge::durability::Attempt;
use crate::judge::replace::{Finding, Rejoin};

/// Puts under way while the store is filled.
const FILLERS: u64 = 16;

/// Bytes of a value that is put while a member is replaced.
const STEADY_BYTES: usize = 256;

/// Puts a second meanwhile, by a timetable.
const RATE: f64 = 500.0;

/// A put that takes longer counts as unknown.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at how much was sent; and at anything else.
const LOOK: Duration = Duration::from_millis(2);
const POLL: Duration = Duration::from_millis(50);

/// Reads under way when the puts are looked for.
const READERS: usize = 16;

/// How long a cluster may take for what is asked of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long each of the three runs in its place before the next one is lost.
const CALM: Duration = Duration::from_secs(3);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes of values in the large cluster.
    pub store_bytes: u64,
    /// Bytes of each of them. They do not compress.
    pub value_bytes: usize,
    /// How often the way to the new member breaks while it receives the snapshot.
    pub cuts: u32,
    /// How long puts are measured before.
    pub window: Duration,
    /// The load under which all three are replaced.
    pub load: Load,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// The one member.
    pub rejoin: Rejoin,
    /// What is wrong with that.
    pub findings: Vec<Finding>,
    /// How long it took to replace each of the three.
    pub replaced: Vec<Duration>,
    /// Puts acknowledged meanwhile.
    pub acked: usize,
    /// What the judges say of all three.
    pub verdict: Verdict,
    /// Where data and logs are when something was found.
    pub kept: Vec<PathBuf>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.verdict.is_clean()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { store_bytes, value_bytes, load, .. } = &self.plan;
        writeln!(f, "{} MiB in values of {value_bytes} bytes, seed {}", store_bytes >> 20, load.seed)?;
        writeln!(f, "  {}", self.rejoin)?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
        writeln!(f, "  findings: {}", self.findings.len())?;
        let took: Vec<String> =
            self.replaced.iter().map(|took| format!("{:.1} s", took.as_secs_f64())).collect();
        let (writers, acked) = (load.writers, self.acked);
        writeln!(
            f,
            "all three replaced, {writers} writers: after {}; {acked} acknowledged",
            took.join(", ")
        )?;
        write!(f, "  {}", self.verdict)?;
        self.kept.iter().try_for_each(|kept| write!(f, "\n  data and logs are in {}", kept.display()))
    }
}

/// Runs both parts.
///
/// Errors: the cluster could not be run, or a member did not come back. Findings are no errors.
pub async fn run(system: System, plan: Plan) -> Result<Report> {
    let mut cluster = Cluster::prepare(system.clone(), 3)?;
    let rejoin = explained(rejoin(&mut cluster, &plan).await, &mut cluster)?;
    let findings = rejoin.judge();
    let mut kept = Vec::new();
    kept.extend((!findings.is_empty()).then(|| cluster.keep()));
    drop(cluster);
    let mut cluster = Cluster::start(system, 3).await?;
    let all = explained(replace_all(&mut cluster, &plan.load).await, &mut cluster)?;
    let All { replaced, acked, verdict } = all;
    kept.extend((!verdict.is_clean()).then(|| cluster.keep()));
    Ok(Report { plan, rejoin, findings, replaced, acked, verdict, kept })
}

/// With an error, says where the data are.
fn explained<T>(outcome: Result<T>, cluster: &mut Cluster) -> Result<T> {
    outcome.map_err(|error| error.context(format!("data and logs are in {}", cluster.keep().display())))
}

async fn rejoin(cluster: &mut Cluster, plan: &Plan) -> Result<Rejoin> {
    let network = cluster.connect(0).await?;
    (0..3).try_for_each(|member| cluster.spawn(member))?;
    cluster.wait_ready(PATIENCE).await?;
    let client = Client::new(&cluster.endpoints())?;
    let leader = cluster.leader(PATIENCE).await?;
    fill(&client, leader, plan).await?;
    let snapshot_bytes = dump(cluster, leader).await?;
    let leader = cluster.leader(PATIENCE).await?;
    let steady = Steady::start(client.clone(), leader);
    tokio::time::sleep(plan.window).await;
    let lost = (leader + 1) % 3;
    let (before, lost_at) = (network.toward(lost), steady.elapsed());
    cluster.kill(lost)?;
    let dir = cluster.members()[lost].data_dir.clone();
    std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    cluster.replace(lost)?;
    let cuts = tokio::select! {
        // The waiting loses nothing: what counts is asked again below.
        cuts = cut(&network, lost, before, snapshot_bytes, plan.cuts) => cuts,
        ended = cluster.until_voting(lost, PATIENCE) => ended.map(|()| 0)?,
    };
    cluster.until_voting(lost, PATIENCE).await?;
    cluster.wait_ready(PATIENCE).await?;
    let (sent_bytes, back_at) = (network.toward(lost) - before, steady.elapsed());
    let puts = steady.stop().await?;
    let missing = missing(&client, lost, &puts).await?;
    let revision = client.revision(leader, TIMEOUT).await?;
    let mut hashes = Vec::new();
    for member in 0..3 {
        hashes.push(client.hash_kv(member, revision).await?.hash);
    }
    let times = |from: Duration, to: Duration| {
        let puts = puts.iter().filter(|put| put.started >= from && put.started < to);
        puts.map(|put| put.ended - put.started).collect()
    };
    let failed = puts.iter().filter(|put| !matches!(put.attempt.outcome, Outcome::Acked(_))).count();
    Ok(Rejoin {
        snapshot_bytes,
        sent_bytes,
        cuts_planned: plan.cuts,
        cuts,
        took: back_at - lost_at,
        calm: times(Duration::ZERO, lost_at),
        busy: times(lost_at, back_at),
        puts: puts.len(),
        failed,
        missing,
        hashes,
    })
}

/// Puts values until the store has its size.
async fn fill(client: &Client, leader: usize, plan: &Plan) -> Result<()> {
    let puts = plan.store_bytes / plan.value_bytes as u64;
    let next = Arc::new(AtomicU64::new(0));
    let mut fillers = JoinSet::new();
    for number in 0..FILLERS {
        let (client, next) = (client.clone(), Arc::clone(&next));
        let mut rng = StdRng::seed_from_u64(plan.load.seed ^ number << 32);
        let mut value = vec![0; plan.value_bytes];
        fillers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= puts {
                    return;
                }
                rng.fill_bytes(&mut value);
                let (key, value) = (Bytes::from(format!("fill/{number:08}")), Bytes::from(value.clone()));
                while !put(&client, leader, &key, &value).await {
                    tokio::time::sleep(POLL).await;
                }
            }
        });
    }
    while let Some(filler) = fillers.join_next().await {
        filler.context("a filler panicked")?;
    }
    Ok(())
}

async fn put(client: &Client, member: usize, key: &Bytes, value: &Bytes) -> bool {
    matches!(client.put(member, key.clone(), value.clone(), TIMEOUT).await, Outcome::Acked(_))
}

/// Has the leader dump all that it holds, and gives the size of that.
async fn dump(cluster: &mut Cluster, leader: usize) -> Result<u64> {
    let page = cluster.wait_settled(leader, PATIENCE, |_| Ok(true)).await?;
    let applied = page.count("etcd_server_proposals_applied_total")?;
    cluster.member(leader).process()?.ask_for_dump()?;
    let has_all = |page: &Scrape| Ok(page.count("holdfast_snapshot_index")? >= applied);
    cluster.wait_settled(leader, PATIENCE, has_all).await?.count("holdfast_dump_bytes")
}

/// Breaks the way so often, each time when the next equal part of the snapshot has been sent.
async fn cut(network: &Network, member: usize, before: u64, snapshot_bytes: u64, cuts: u32) -> u32 {
    for cut in 1..=u64::from(cuts) {
        let due = before + snapshot_bytes * cut / (u64::from(cuts) + 1);
        while network.toward(member) < due {
            tokio::time::sleep(LOOK).await;
        }
        network.reset_around(member);
    }
    cuts
}

/// How many acknowledged puts a member does not show as they were acknowledged.
async fn missing(client: &Client, member: usize, puts: &[Timed]) -> Result<usize> {
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let client = client.clone();
        let attempts = puts.iter().skip(reader).step_by(READERS).map(|put| put.attempt.clone());
        let attempts: Vec<Attempt> = attempts.collect();
        readers.spawn(async move {
            let mut missing = 0;
            for Attempt { key, value, outcome, .. } in attempts {
                let Outcome::Acked(revision) = outcome else { continue };
                let found = client.past(member, &key, revision).await?;
                let is_there = found.is_some_and(|found| {
                    found.mod_revision == revision && found.version == 1 && found.value == value
                });
                missing += usize::from(!is_there);
            }
            anyhow::Ok(missing)
        });
    }
    let mut missing = 0;
    while let Some(found) = readers.join_next().await {
        missing += found.context("a reader panicked")?.context("reading a put")?;
    }
    Ok(missing)
}

/// Puts by a timetable, each of a key of its own; the time of each runs from when it was due.
struct Steady {
    task: JoinHandle<Result<Vec<Timed>>>,
    stop: Arc<AtomicBool>,
    began: tokio::time::Instant,
}

impl Steady {
    fn start(client: Client, member: usize) -> Self {
        let (stop, began) = (Arc::<AtomicBool>::default(), tokio::time::Instant::now());
        let task = tokio::spawn(put_steadily(client, member, began, Arc::clone(&stop)));
        Self { task, stop, began }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    async fn stop(self) -> Result<Vec<Timed>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the puts panicked")?
    }
}

async fn put_steadily(
    client: Client,
    member: usize,
    began: tokio::time::Instant,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Timed>> {
    let every = Duration::from_secs_f64(1.0 / RATE);
    let mut puts = JoinSet::new();
    let (mut due, mut number) = (began, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep_until(due).await;
        let client = client.clone();
        let key = Bytes::from(format!("steady/{number:08}"));
        let mut value = format!("{number:08}/").into_bytes();
        value.resize(STEADY_BYTES, b'.');
        let value = Bytes::from(value);
        puts.spawn(async move {
            let outcome = client.put(member, key.clone(), value.clone(), TIMEOUT).await;
            let attempt = Attempt { key, value, outcome, floor: 0 };
            Timed { attempt, started: due - began, ended: began.elapsed() }
        });
        due += every;
        number += 1;
    }
    let mut all = Vec::new();
    while let Some(put) = puts.join_next().await {
        all.push(put.context("a put panicked")?);
    }
    Ok(all)
}

struct All {
    replaced: Vec<Duration>,
    acked: usize,
    verdict: Verdict,
}

/// Every member in turn loses its disk and is replaced, while writers go on.
async fn replace_all(cluster: &mut Cluster, load: &Load) -> Result<All> {
    let client = Client::new(&cluster.endpoints())?;
    let writers = Writers::start(client.clone(), load.clone());
    let mut replaced = Vec::new();
    for member in 0..3 {
        tokio::time::sleep(CALM).await;
        let began = Instant::now();
        cluster.kill(member)?;
        let dir = cluster.members()[member].data_dir.clone();
        std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
        cluster.replace(member)?;
        let name = cluster.members()[member].name.clone();
        cluster.until_voting(member, PATIENCE).await.with_context(|| format!("replacing {name}"))?;
        replaced.push(began.elapsed());
    }
    tokio::time::sleep(CALM).await;
    let puts = writers.stop().await?;
    cluster.wait_ready(PATIENCE).await?;
    let attempts: Vec<Attempt> = puts.into_iter().map(|put| put.attempt).collect();
    let acked = attempts.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Acked(_))).count();
    let verdict = verify::verify(cluster, &attempts).await?;
    Ok(All { replaced, acked, verdict })
}
