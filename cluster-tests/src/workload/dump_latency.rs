//! Puts at a steady rate, whether or not the last one was answered, while the leader dumps a large store, while a client
//! lists all keys, and while history is compacted away: p99 with it and without it, in windows that take turns. And, over many
//! dumps, how long writers stand still where one begins and ends.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;

use crate::client::{Client, Outcome};
use crate::harness::cluster::{Cluster, System};
use crate::harness::scrape::Scrape;
use crate::judge::stall::{Comparison, Finding, SWITCHES_MIN, judge_switch, p99_bucket};
use crate::judge::watch::history::Step;
use crate::workload::watch::calls::{Fate, Window, carry_out, compact, connections};

/// Puts of one command while the store is filled.
const FILL_STEPS: u64 = 100;

/// Commands under way while it is filled, and puts under way while the maximum is measured.
const FILLERS: u64 = 16;
const PUTTERS: u64 = 64;

/// How long the maximum is measured.
const MAXIMUM_TIME: Duration = Duration::from_secs(3);

/// Of the maximum, this part is the second rate.
const SHARE_OF_MAXIMUM: f64 = 0.3;

/// The first rate, in puts a second.
const RATE: f64 = 500.0;

/// A put that takes longer counts as failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at what the leader does.
const POLL: Duration = Duration::from_millis(50);

/// How long the cluster may take for what is asked of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Keys.
    pub keys: u64,
    /// Bytes of each value. They do not compress.
    pub value_bytes: usize,
    /// Pairs of windows of each comparison.
    pub pairs: usize,
    /// Length of a window.
    pub window: Duration,
    /// Seed of values and keys.
    pub seed: u64,
    /// What is compared.
    pub beside: Vec<Beside>,
    /// Dumps whose switches are measured.
    pub dumps: u64,
}

/// What goes on beside the puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Beside {
    /// The leader dumps.
    Dump,
    /// A client lists all keys.
    List,
    /// History is compacted away.
    Compaction,
    /// One member after the other dumps, again and again: how long writers stand still at its switches.
    Switches,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// Puts a second that all writers together came to without a pause.
    pub maximum: f64,
    /// What was compared.
    pub comparisons: Vec<Comparison>,
    /// Of each switch of a dump: the bound of the bucket that holds p99, in seconds, and how often it was measured.
    pub switches: Vec<(String, Option<f64>, f64)>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { keys, value_bytes, seed, .. } = self.plan;
        writeln!(
            f,
            "{keys} keys of {value_bytes} bytes, seed {seed}; at most {:.0} puts a second",
            self.maximum
        )?;
        self.comparisons.iter().try_for_each(|comparison| writeln!(f, "  {comparison}"))?;
        for (at, p99, count) in &self.switches {
            let p99 = p99.map_or_else(|| "not measured".to_owned(), |bound| format!("at most {bound} s"));
            let few = if *count < SWITCHES_MIN { ", too few to be judged" } else { "" };
            writeln!(f, "  writers stand still at the {at} of a dump: p99 {p99}, {count} times{few}")?;
        }
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
        write!(f, "  findings: {}", self.findings.len())
    }
}

/// Lists all keys of the member at `url` in one call, again and again: what the lister of a run does. Answers how many
/// they are, of the shortest list, and how often it did.
pub async fn list_keys(url: &str, during: Duration) -> Result<(u64, u64)> {
    let client = Client::new(&[url.to_owned()])?;
    let began = Instant::now();
    let (mut fewest, mut times) = (u64::MAX, 0);
    while began.elapsed() < during {
        fewest = fewest.min(client.list_keys(0, PATIENCE).await?);
        times += 1;
    }
    Ok((fewest, times))
}

/// Fills the store, waits for `go`, and measures.
pub async fn run(mut system: System, plan: Plan, go: impl AsyncFnOnce() -> Result<()>) -> Result<Report> {
    // Dumps come when they are asked for.
    system.extra_args.push("--dump-log-bytes=64GiB".to_owned());
    let mut cluster = Cluster::start(system, 3).await?;
    let channels = connections(&cluster.endpoints(), Window::Usual)?;
    let leader = cluster.leader(PATIENCE).await?;
    for round in 0..2 {
        fill(&channels[leader], &plan, round).await?;
    }
    go().await?;
    let client = Client::new(&cluster.endpoints())?;
    let leader = cluster.leader(PATIENCE).await?;
    let mut bench = Bench { cluster: &mut cluster, client, leader, plan: plan.clone(), windows: 0 };
    let maximum = bench.maximum().await?;
    let mut comparisons = Vec::new();
    for beside in &plan.beside {
        match beside {
            Beside::Dump => {
                comparisons.push(bench.dumping(RATE).await?);
                comparisons.push(bench.dumping(maximum * SHARE_OF_MAXIMUM).await?);
            }
            Beside::List => comparisons.push(bench.listing().await?),
            Beside::Compaction => comparisons.push(bench.compacting(&channels[leader]).await?),
            Beside::Switches => bench.switching(&channels[leader]).await?,
        }
    }
    let mut pages = Vec::new();
    for member in bench.cluster.members() {
        pages.push(Scrape::of(&member.client_url).await?);
    }
    let mut findings: Vec<Finding> = comparisons.iter().filter_map(Comparison::judge).collect();
    let mut switches = Vec::new();
    for at in ["start", "finish"] {
        let of = |page: &Scrape| page.buckets("holdfast_dump_switch_stall_seconds", &format!("at=\"{at}\""));
        let buckets = pages.iter().map(of).reduce(sum).unwrap_or_default();
        findings.extend(judge_switch(at, &buckets));
        let count = buckets.last().map_or(0.0, |(_, count)| *count);
        switches.push((at.to_owned(), p99_bucket(&buckets), count));
    }
    Ok(Report { plan, maximum, comparisons, switches, findings })
}

/// Puts every key once.
async fn fill(channel: &Channel, plan: &Plan, round: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut fillers = JoinSet::new();
    for number in 0..FILLERS {
        let (channel, plan, next) = (channel.clone(), plan.clone(), Arc::clone(&next));
        fillers.spawn(async move {
            let mut rng = StdRng::seed_from_u64(plan.seed ^ number << 32 ^ round << 48);
            loop {
                let first = next.fetch_add(FILL_STEPS, Ordering::Relaxed);
                let keys = first..(first + FILL_STEPS).min(plan.keys);
                if keys.is_empty() {
                    return anyhow::Ok(());
                }
                let step =
                    |key| Step::Put { key: key_of(key), value: value(&mut rng, plan.value_bytes), lease: 0 };
                let steps: Vec<Step> = keys.map(step).collect();
                while carry_out(&channel, &steps).await == Fate::Unknown {
                    tokio::time::sleep(POLL).await;
                }
            }
        });
    }
    while let Some(filler) = fillers.join_next().await {
        filler.context("a filler panicked")??;
    }
    Ok(())
}

fn key_of(number: u64) -> Bytes {
    format!("key/{number:010}").into()
}

fn value(rng: &mut StdRng, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    rng.fill_bytes(&mut value);
    value.into()
}

/// A filled cluster.
struct Bench<'a> {
    cluster: &'a mut Cluster,
    client: Client,
    leader: usize,
    plan: Plan,
    windows: u64,
}

impl Bench<'_> {
    /// Puts a second without a pause.
    async fn maximum(&mut self) -> Result<f64> {
        let mut putters = JoinSet::new();
        for number in 0..PUTTERS {
            let (client, leader, plan) = (self.client.clone(), self.leader, self.plan.clone());
            putters.spawn(async move {
                let mut rng = StdRng::seed_from_u64(plan.seed ^ number << 24);
                let (began, mut acked) = (Instant::now(), 0_u32);
                while began.elapsed() < MAXIMUM_TIME {
                    let key = key_of(rng.random_range(0..plan.keys));
                    let value = value(&mut rng, plan.value_bytes);
                    if let Outcome::Acked(_) = client.put(leader, key, value, TIMEOUT).await {
                        acked += 1;
                    }
                }
                acked
            });
        }
        let mut acked = 0.0;
        while let Some(count) = putters.join_next().await {
            acked += f64::from(count.context("a putter panicked")?);
        }
        Ok(acked / MAXIMUM_TIME.as_secs_f64())
    }

    /// One dump after the other on the leader.
    async fn dumping(&mut self, rate: f64) -> Result<Comparison> {
        let mut comparison = comparison(&format!("a dump, {rate:.0} puts/s"));
        let mut shares = Vec::new();
        for _ in 0..self.plan.pairs {
            self.cluster.wait_settled(self.leader, PATIENCE, |_| Ok(true)).await?;
            comparison.calm.push(self.window(rate).await?);
            let url = self.cluster.members()[self.leader].client_url.clone();
            self.cluster.member(self.leader).process()?.ask_for_dump()?;
            let looking = Looking::start(url);
            comparison.busy.push(self.window(rate).await?);
            shares.push(looking.stop().await?);
            comparison.times += 1;
        }
        comparison.share = mean(&shares);
        Ok(comparison)
    }

    /// A client that lists all keys at once, again and again, in a process of its own: it must not stand in the way of the one that
    /// measures.
    async fn listing(&mut self) -> Result<Comparison> {
        let mut comparison =
            comparison(&format!("a client that lists {} keys, {RATE:.0} puts/s", self.plan.keys));
        let mut shares = Vec::new();
        for _ in 0..self.plan.pairs {
            self.cluster.wait_settled(self.leader, PATIENCE, |_| Ok(true)).await?;
            comparison.calm.push(self.window(RATE).await?);
            let lister = self.lister()?;
            let began = Instant::now();
            let measured = self.window(RATE);
            let listed = async {
                let output = lister.wait_with_output().await.context("the lister is gone")?;
                anyhow::Ok((String::from_utf8_lossy(&output.stdout).trim().to_owned(), began.elapsed()))
            };
            let (window, listed) = tokio::join!(measured, listed);
            comparison.busy.push(window?);
            let (listed, took) = listed?;
            let (listed, times) = listed.split_once(' ').context("the lister gave no numbers")?;
            let (listed, keys) = (listed.parse::<u64>()?, self.plan.keys);
            comparison.times += times.parse::<u64>()?;
            ensure!(listed >= keys, "{listed} keys were listed, there are {keys}");
            shares.push((took.as_secs_f64() / self.plan.window.as_secs_f64()).min(1.0));
        }
        comparison.share = mean(&shares);
        Ok(comparison)
    }

    /// It takes CPUs that nobody else wants: elsewhere it would be another machine, and what is measured is what the server does.
    fn lister(&self) -> Result<tokio::process::Child> {
        let url = &self.cluster.members()[self.leader].client_url;
        let program = std::env::current_exe().context("looking for this program")?;
        let mut command = tokio::process::Command::new("chrt");
        let during = format!("{}s", self.plan.window.as_secs());
        command
            .args(["--idle", "0"])
            .arg(program)
            .args(["list-keys", url, &during])
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().context("starting the lister")
    }

    /// One compaction to the head, which takes every replaced value away.
    async fn compacting(&mut self, channel: &Channel) -> Result<Comparison> {
        let mut comparison =
            comparison(&format!("a compaction of {} replaced values, {RATE:.0} puts/s", self.plan.keys));
        self.cluster.wait_settled(self.leader, PATIENCE, |_| Ok(true)).await?;
        for _ in 0..self.plan.pairs {
            comparison.calm.push(self.window(RATE).await?);
        }
        let head = self.client.revision(self.leader, TIMEOUT).await?;
        ensure!(compact(channel, head).await?, "the compaction was refused");
        for _ in 0..self.plan.pairs {
            comparison.busy.push(self.window(RATE).await?);
        }
        (comparison.share, comparison.times) = (1.0, 1);
        Ok(comparison)
    }

    /// Dumps one after the other, a member at a time, beside puts. History is compacted away, so that dumps stay as short as
    /// the keys let them be.
    async fn switching(&mut self, channel: &Channel) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let putting = {
            let (client, leader, plan) = (self.client.clone(), self.leader, self.plan.clone());
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                for window in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    put_at(&client, leader, &plan, RATE, window << 32).await?;
                }
                anyhow::Ok(())
            })
        };
        for number in 0..self.plan.dumps {
            let member = usize::try_from(number)? % self.cluster.members().len();
            let head = self.client.revision(self.leader, TIMEOUT).await?;
            ensure!(compact(channel, head).await?, "the compaction was refused");
            self.dump_once(member).await?;
        }
        stop.store(true, Ordering::Relaxed);
        putting.await.context("the puts panicked")?
    }

    async fn dump_once(&mut self, member: usize) -> Result<()> {
        let url = self.cluster.members()[member].client_url.clone();
        let dumps = async || {
            // It is not on the page before the first one.
            let ended = Scrape::of(&url).await?.count("holdfast_dumps_total{result=\"ok\"}");
            anyhow::Ok(ended.unwrap_or(0))
        };
        let before = dumps().await?;
        self.cluster.member(member).process()?.ask_for_dump()?;
        let deadline = Instant::now() + PATIENCE;
        while dumps().await? == before {
            ensure!(Instant::now() < deadline, "no dump within {PATIENCE:?}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn window(&mut self, rate: f64) -> Result<Vec<Duration>> {
        self.windows += 1;
        put_at(&self.client, self.leader, &self.plan, rate, self.windows << 40).await
    }
}

/// Puts at a rate for one window, of keys and values that seed and salt choose; the time of each runs from the moment at which
/// it was due.
async fn put_at(client: &Client, leader: usize, plan: &Plan, rate: f64, salt: u64) -> Result<Vec<Duration>> {
    let mut rng = StdRng::seed_from_u64(plan.seed ^ salt);
    let every = Duration::from_secs_f64(1.0 / rate);
    let mut puts = JoinSet::new();
    let began = tokio::time::Instant::now();
    let mut due = began;
    while due < began + plan.window {
        tokio::time::sleep_until(due).await;
        let client = client.clone();
        let key = key_of(rng.random_range(0..plan.keys));
        let value = value(&mut rng, plan.value_bytes);
        puts.spawn(async move {
            let outcome = client.put(leader, key, value, TIMEOUT).await;
            (due.elapsed(), outcome)
        });
        due += every;
    }
    let mut times = Vec::new();
    while let Some(put) = puts.join_next().await {
        let (time, outcome) = put.context("a put panicked")?;
        ensure!(matches!(outcome, Outcome::Acked(_)), "a put came to {outcome:?}");
        times.push(time);
    }
    Ok(times)
}

/// Two histograms with the same bounds as one.
fn sum(one: Vec<(f64, f64)>, other: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    one.into_iter().zip(other).map(|((bound, one), (_, other))| (bound, one + other)).collect()
}

fn comparison(what: &str) -> Comparison {
    Comparison { what: what.to_owned(), calm: Vec::new(), busy: Vec::new(), share: 0.0, times: 0 }
}

#[expect(clippy::cast_precision_loss, reason = "a handful of windows")]
fn mean(shares: &[f64]) -> f64 {
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

/// Looks whether a member dumps.
struct Looking {
    task: JoinHandle<Vec<f64>>,
    stop: Arc<AtomicBool>,
}

impl Looking {
    fn start(url: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut looks = Vec::new();
            while !seen.load(Ordering::Relaxed) {
                if let Ok(is_normal) = Scrape::of(&url).await.and_then(|page| page.is_normal()) {
                    looks.push(if is_normal { 0.0 } else { 1.0 });
                }
                tokio::time::sleep(POLL).await;
            }
            looks
        });
        Self { task, stop }
    }

    /// The share of looks at which it did.
    async fn stop(self) -> Result<f64> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(mean(&self.task.await.context("the looks panicked")?))
    }
}
