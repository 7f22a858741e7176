//! Kills the leader again and again, and measures how long a client that knows every endpoint cannot write.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::first_ack::{PATIENCE, TIMEOUT, first_ack};
use crate::client::{Client, Outcome};
use crate::harness::cluster::{Cluster, System};
use crate::judge::latency::Spread;

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
    let unavailable = first_ack(killed, client.len(), |member, round| {
        let (client, key) = (client.clone(), key(number, member, round));
        let put = async move { client.put(member, key, Bytes::from_static(b"probe"), TIMEOUT).await };
        async move { matches!(put.await, Outcome::Acked(_)) }
    });
    let unavailable =
        unavailable.await.with_context(|| format!("no write was acknowledged for {PATIENCE:?}"))?;
    let restarted = Instant::now();
    cluster.spawn(leader)?;
    cluster.wait_ready(PATIENCE).await.context("after the restart")?;
    Ok((unavailable, restarted.elapsed()))
}

fn key(kill: usize, member: usize, round: usize) -> Bytes {
    format!("failover/{kill:04}/{member}/{round:06}").into()
}
