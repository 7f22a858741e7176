//! Stops the leader for longer than an election takes, again and again, while leases are kept alive through whoever
//! leads, and lets it go on: it has not noticed that others lead, and has judged by its own clock that leases are over.
//!
//! In each round the leader is stopped for longer than any lease lives. Some leases are kept alive all the time, from the
//! first round to the last; some are granted in the round and left to die, before the stop, through it, and behind it.
//! [`crate::judge::lease`] says what must hold.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use self::book::Book;
use self::holder::Holder;
use crate::harness::cluster::{Cluster, System};
use crate::judge::lease::{Finding, Record, Stop};

pub(crate) mod book;
pub(crate) mod holder;
pub(crate) mod observer;

/// How long a cluster may be without a leader before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The default of both systems.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Times to live, in seconds: the shortest that both grant, and one more.
const TTL_SECONDS: [i64; 2] = [2, 3];

/// A run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// How often the leader is stopped.
    pub rounds: usize,
    /// Leases that are kept alive all the time.
    pub kept: usize,
    /// Leases of each round that are left to die.
    pub dying: usize,
    /// Decides over the moments.
    pub seed: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// What clients saw.
    pub record: Record,
    /// What is wrong with it.
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
        let Record { leases, changes, stops, .. } = &self.record;
        let renewed: usize = leases.iter().map(|lease| lease.renewed.len() - 1).sum();
        let ended = leases.iter().filter(|lease| lease.deleted.is_some()).count();
        writeln!(
            f,
            "{}: leader stopped {} times, {} changes of leaders; {} leases granted, {renewed} keep-alives \
             acknowledged, {ended} leases ended; {} findings",
            self.system,
            stops.len(),
            changes.len(),
            leases.len(),
            self.findings.len()
        )?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}

/// Runs the plan on a fresh cluster, with the timers that the system has by default.
pub async fn run(system: System, plan: Plan) -> Result<Report> {
    let label = system.label.clone();
    let mut cluster = Cluster::start(system, plan.members).await?;
    match campaign(&mut cluster, plan).await {
        Ok(record) => {
            let findings = record.judge();
            if !findings.is_empty() {
                drop(cluster.keep());
            }
            Ok(Report { system: label, record, findings })
        }
        Err(error) => {
            let kept = cluster.keep();
            Err(error.context(format!("data and logs are in {}", kept.display())))
        }
    }
}

async fn campaign(cluster: &mut Cluster, plan: Plan) -> Result<Record> {
    let endpoints = cluster.endpoints();
    let book = Arc::new(Book::new(ELECTION_TIMEOUT));
    // Dropped, and with it ended, when this function returns.
    let mut watching = JoinSet::new();
    for url in &endpoints {
        watching.spawn(observer::watch_deletes(url.clone(), Arc::clone(&book)));
        watching.spawn(observer::watch_leader(url.clone(), Arc::clone(&book)));
    }
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut holders = JoinSet::new();
    for number in 0..plan.kept {
        let holder = Holder::new(&endpoints, Arc::clone(&book), rng.random())?;
        holders.spawn(holder.keep(TTL_SECONDS[number % TTL_SECONDS.len()]));
    }
    for round in 0..plan.rounds {
        one_stop(cluster, plan, &book, &mut rng, &mut holders)
            .await
            .with_context(|| format!("round {round}"))?;
    }
    book.finish();
    while let Some(ended) = holders.join_next().await {
        ended.context("a holder ended")??;
    }
    // All of them have to be gone after that.
    let longest = Duration::from_secs(TTL_SECONDS[1].unsigned_abs());
    tokio::time::sleep(longest + 4 * ELECTION_TIMEOUT).await;
    Ok(book.record())
}

/// Leases that die before the stop, in it, and when the stopped leader is back.
async fn one_stop(
    cluster: &mut Cluster,
    plan: Plan,
    book: &Arc<Book>,
    rng: &mut StdRng,
    holders: &mut JoinSet<Result<()>>,
) -> Result<()> {
    let endpoints = cluster.endpoints();
    for number in 0..plan.dying {
        let holder = Holder::new(&endpoints, Arc::clone(book), rng.random())?;
        let after = Duration::from_millis(rng.random_range(0..6_000));
        holders.spawn(holder.let_die(TTL_SECONDS[number % TTL_SECONDS.len()], after));
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(700..1_500))).await;
    let leader = cluster.leader(PATIENCE).await?;
    let from = book.now();
    book.stopped(Some(leader));
    cluster.member(leader).process()?.pause()?;
    // For longer than the longest lease lives: each deadline that it keeps passes meanwhile.
    tokio::time::sleep(Duration::from_millis(rng.random_range(3_300..5_000))).await;
    cluster.member(leader).process()?.resume()?;
    book.stopped(None);
    book.add_stop(Stop { from, to: book.now() });
    // What it does first is what matters.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    Ok(())
}
