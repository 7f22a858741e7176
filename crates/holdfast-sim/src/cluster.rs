//! Three members under faults: the real log, storage and consensus on simulated machines.
//!
//! A run starts the members, lets clients write and read registers through all of them while a nemesis cuts links,
//! crashes machines (what was not synced is lost or torn) and starts dumps, then heals everything and judges what was
//! recorded. The revision is the judge's total order: every member publishes the same records for the same revision,
//! every acknowledged write is in them at the revision it was told, what was refused is not, and no operation sees a
//! revision below one that was known before it began. Together that is strict serializability.
//!
//! The trace of a run (faults, leaders, answers, with their times) is hashed: a seed run twice gives the same hash.

mod history;
mod member;
mod nemesis;
mod workload;

use std::time::Duration;

pub use history::{History, Violation};
use holdfast_env::Rng;
use tokio::time::Instant;

use crate::cluster::member::Machines;
use crate::cluster::nemesis::Nemesis;
use crate::cluster::workload::Client;
use crate::disk::Lie;
use crate::world::SimRng;

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct RunConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// How many clients work at the same time.
    pub clients: usize,
    /// How long faults and load go on, in simulated time.
    pub duration: Duration,
    /// Syncs that the disks pretend to do: a planted fault, to show that the judge sees its effect.
    pub lie: Option<Lie>,
}

/// What a run gave, when nothing was violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// The hash of the run's trace.
    pub trace_hash: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused with the promise that nothing happened.
    pub refused: u64,
    /// Writes whose outcome stayed unknown.
    pub unknown: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Machines crashed.
    pub crashes: u64,
    /// Links cut.
    pub cuts: u64,
    /// Dumps asked for.
    pub dumps: u64,
    /// The highest revision.
    pub revision: u64,
}

/// A run that kept every promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it gave.
    pub report: Report,
    /// What happened, line by line: what the trace's hash is over.
    pub trace: Vec<String>,
}

impl RunConfig {
    /// The usual run of a seed: 4 clients, 12 simulated seconds.
    pub fn new(seed: u64) -> Self {
        Self { seed, clients: 4, duration: Duration::from_secs(12), lie: None }
    }
}

/// How long the cluster may take after the last fault until every member is level again.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Runs a seed in a world of its own.
pub fn run(config: RunConfig) -> Result<Run, Violation> {
    crate::world::run(run_inside(config))
}

async fn run_inside(config: RunConfig) -> Result<Run, Violation> {
    let rng = SimRng::new(config.seed);
    holdfast_raft::seed_thread(rng.next_u64());
    let history = History::default();
    let machines = Machines::new(&rng, &history, config.lie);
    machines.start_all().await?;
    let end = Instant::now() + config.duration;
    let mut clients = Vec::new();
    for number in 0..config.clients {
        let client = Client::new(number, rng.next_u64(), machines.clone(), history.clone());
        clients.push(tokio::spawn(client.run_until(end)));
    }
    Nemesis::new(rng.next_u64(), machines.clone(), history.clone()).run_until(end).await?;
    for client in clients {
        client.await.map_err(|error| Violation::new(format!("a client ended: {error}")))?;
    }
    machines.level(RECOVERY_MAX).await?;
    history.judge()?;
    machines.stop().await;
    Ok(Run { report: history.report(), trace: history.lines() })
}
