//! Kills the leader again and again, and measures how long a client that knows every endpoint cannot write.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::client::{Client, Outcome};
use crate::harness::cluster::{Cluster, System};
use crate::judge::latency::Spread;

/// Every endpoint is tried so often.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// A probe is given up after this long. It does not hold up the next one.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Probes that may be under way at a time; above it, none is added until one ends.
const PROBES_MAX: usize = 256;

/// How long a cluster may be without a leader before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Kills.
    pub kills: usize,
    /// Decides at which moment of the heartbeat a leader dies.
    pub seed: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// The unavailability after each kill, in order.
    pub unavailable: Vec<Duration>,
    /// From a member's start to its first linearizable read, after each kill.
    pub serves_again: Vec<Duration>,
}

impl Report {
    /// The order statistics of the unavailability.
    pub fn spread(&self) -> Option<Spread> {
        Spread::of(&self.unavailable)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line =
            |spread: Option<Spread>| spread.map_or_else(|| "nothing measured".to_owned(), |s| s.to_string());
        writeln!(f, "{}: leader killed {} times", self.system, self.unavailable.len())?;
        writeln!(f, "  first acknowledged write after the kill: {}", line(self.spread()))?;
        write!(f, "  restarted member serves: {}", line(Spread::of(&self.serves_again)))
    }
}

/// Runs the plan on a fresh cluster, with the timers that the system has by default.
pub async fn run(system: System, plan: &Plan) -> Result<Report> {
    let label = system.label.clone();
    let mut cluster = Cluster::start(system, plan.members).await?;
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut report = Report { system: label, unavailable: Vec::new(), serves_again: Vec::new() };
    for number in 0..plan.kills {
        // Kills fall at any moment between two heartbeats, and after the cluster has come to rest.
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..700))).await;
        let outcome = one_kill(&mut cluster, number).await;
        let (unavailable, serves_again) = match outcome {
            Ok(times) => times,
            Err(error) => {
                let kept = cluster.keep();
                return Err(error.context(format!("kill {number}; data and logs are in {}", kept.display())));
            }
        };
        report.unavailable.push(unavailable);
        report.serves_again.push(serves_again);
    }
    Ok(report)
}

async fn one_kill(cluster: &mut Cluster, number: usize) -> Result<(Duration, Duration)> {
    // Connections are made and used before the kill, as those of a client at work are.
    let client = Client::new(&cluster.endpoints())?;
    for member in 0..client.len() {
        let outcome =
            client.put(member, key(number, member, 0), Bytes::from_static(b"before"), PATIENCE).await;
        ensure!(matches!(outcome, Outcome::Acked(_)), "a write before the kill came to {outcome:?}");
    }
    let leader = cluster.leader(PATIENCE).await?;
    let killed = Instant::now();
    cluster.kill(leader)?;
    let unavailable = first_ack(&client, number, killed).await?;
    let restarted = Instant::now();
    cluster.spawn(leader)?;
    cluster.wait_ready(PATIENCE).await.context("after the restart")?;
    Ok((unavailable, restarted.elapsed()))
}

/// Probes every endpoint until one write is acknowledged; the time from `killed` to that acknowledgement.
async fn first_ack(client: &Client, number: usize, killed: Instant) -> Result<Duration> {
    let mut probes = JoinSet::new();
    let mut tick = tokio::time::interval(PROBE_EVERY);
    let mut round = 0;
    loop {
        tokio::select! {
            // Cancel-safe: a tick that was not taken stays due.
            _ = tick.tick() => {
                ensure!(killed.elapsed() < PATIENCE, "no write was acknowledged for {PATIENCE:?}");
                round += 1;
                for member in 0..client.len() {
                    if probes.len() < PROBES_MAX {
                        let (client, key) = (client.clone(), key(number, member, round));
                        let value = Bytes::from_static(b"probe");
                        probes.spawn(async move { client.put(member, key, value, PROBE_TIMEOUT).await });
                    }
                }
            }
            // Cancel-safe: a result that was not taken stays in the set.
            Some(outcome) = probes.join_next() => {
                if let Outcome::Acked(_) = outcome.context("a probe panicked")? {
                    return Ok(killed.elapsed());
                }
            }
        }
    }
}

fn key(kill: usize, member: usize, round: usize) -> Bytes {
    format!("failover/{kill:04}/{member}/{round:06}").into()
}
