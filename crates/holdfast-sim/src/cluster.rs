//! Three to five members under faults: the real log, storage and consensus on simulated machines.
//!
//! # A run
//! *Safety phase.* Clients write, delete, compact and read through all members, watchers follow the changes, holders keep leases
//! alive or do not, and a
//! nemesis cuts links, crashes machines (what was not synced is lost or torn), stops members at named points in the
//! middle of what they do, starts dumps, holds members back until they need a snapshot, lets bits rot, loses stores and
//! fills disks. Members are added as learners or voters under new ids, promoted and removed, and lose their whole disk,
//! whereupon another one takes their place. All the while the invariants of each member are checked.
//!
//! *Liveness phase.* All is healed and started. Then there has to be a leader within some election timeouts, the members
//! have to be those that were asked for, every one has to acknowledge a write, all have to come level, every lease that nobody keeps alive has to end, all have to vote, to dump,
//! to work as usual again, and to let go of what is compacted.
//!
//! Then what was recorded is judged (module `judge`).
//!
//! The trace of a run (faults, answers, with their times) is hashed: a seed run twice gives the same hash.
//!
//! # What is not in it
//! The stable store is kept by an engine of the storage crate that exists for this (sled and redb do their own file
//! access). The server crate with its gRPC is not in it; watchers read what its watches read. So nobody publishes its
//! name, and nothing is refused for it; a member never starts with an empty disk under an id that had one.

mod changes;
mod full;
mod harm;
mod history;
mod holder;
mod judge;
mod lease_laws;
mod life;
mod member;
mod nemesis;
mod places;
mod recovery;
mod sabotage;
mod watcher;
mod workload;

use std::collections::BTreeMap;
use std::time::Duration;

pub use history::{History, Violation};
use holdfast_env::{Failpoint, Fault, Rng};
use tokio::time::Instant;

use crate::cluster::holder::Holder;
use crate::cluster::member::Machines;
use crate::cluster::nemesis::Nemesis;
use crate::cluster::watcher::Watcher;
use crate::cluster::workload::Client;
use crate::disk::Lie;
use crate::world::SimRng;

/// What a run does.
#[derive(Debug, Clone, Copy)]
pub struct RunConfig {
    /// Everything random follows from it.
    pub seed: u64,
    /// How many members the cluster has.
    pub members: usize,
    /// How many clients work at the same time.
    pub clients: usize,
    /// How many watchers follow.
    pub watchers: usize,
    /// How many clients hold leases.
    pub holders: usize,
    /// How long faults and load go on, in simulated time.
    pub duration: Duration,
    /// Syncs that the disks pretend to do: a planted fault, to show that the judge sees its effect.
    pub lie: Option<Lie>,
    /// Also harms disks, in ways that a member makes up for by itself, or once there is room again: rotten snapshots and
    /// stores, lost stores, full disks.
    pub harms: bool,
    /// Also changes who takes part.
    pub changes: bool,
    /// A fault that is planted in every member.
    pub fault: Option<Fault>,
    /// The only point at which members are stopped; all when `None`.
    pub only: Option<Failpoint>,
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
    /// Reads that were answered.
    pub reads: u64,
    /// Revisions that watchers were given.
    pub watched: u64,
    /// Leases granted.
    pub leases: u64,
    /// Keep-alives that were acknowledged.
    pub keep_alives: u64,
    /// Compactions asked for.
    pub compactions: u64,
    /// Machines crashed, in whatever way.
    pub crashes: u64,
    /// Links cut.
    pub cuts: u64,
    /// Dumps asked for, beside those that the log's size starts.
    pub dumps: u64,
    /// Snapshots installed.
    pub installs: u64,
    /// Snapshots in which a bit was changed.
    pub rotten_snapshots: u64,
    /// Stable stores in which a bit was changed.
    pub rotten_stores: u64,
    /// Stable stores that were removed.
    pub lost_stores: u64,
    /// Elections that a member has gone through while it dumped.
    pub elections_in_dumps: u64,
    /// Disks that were lost with all that was on them.
    pub lost_disks: u64,
    /// New members that took the place of one whose disk was lost.
    pub replaced: u64,
    /// Logs that had no room for a segment.
    pub full_logs: u64,
    /// Stable stores that had no room, so that nothing was applied until a restart.
    pub full_stores: u64,
    /// Leaders that could not write any more and handed over.
    pub handed_over: u64,
    /// Full disks on which a dump was refused or cancelled.
    pub full_dumps: u64,
    /// Writes that were refused for want of room for the log.
    pub refused_no_space: u64,
    /// Learners added.
    pub learners_added: u64,
    /// Members added that are to vote.
    pub voters_added: u64,
    /// Learners promoted, beside those at the end.
    pub promoted: u64,
    /// Members removed, beside those whose disk was lost.
    pub removed: u64,
    /// Members that have heard that they were removed.
    pub departures: u64,
    /// Additions whose outcome was not known.
    pub changes_unsure: u64,
    /// The highest revision.
    pub revision: u64,
}

/// How often members came to a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PointCount {
    /// How often in all.
    pub reached: u64,
    /// How often one was stopped there.
    pub stopped: u64,
}

/// A run that kept every promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it gave.
    pub report: Report,
    /// The failpoints that were reached.
    pub points: BTreeMap<Failpoint, PointCount>,
    /// What happened, line by line: what the trace's hash is over.
    pub trace: Vec<String>,
}

impl RunConfig {
    /// The usual run of a seed: three members, sometimes four or five, 4 clients, 12 simulated seconds.
    pub fn new(seed: u64) -> Self {
        let members = match seed % 8 {
            5 => 4,
            7 => 5,
            _ => 3,
        };
        let duration = Duration::from_secs(12);
        Self {
            seed,
            members,
            clients: 4,
            watchers: 3,
            holders: 3,
            duration,
            lie: None,
            harms: true,
            changes: true,
            fault: None,
            only: None,
        }
    }
}

/// How often the invariants of the members are checked.
const CHECK_EVERY: Duration = Duration::from_millis(7);
/// How long watchers may take to the newest revision once all is level.
const WATCHED_MAX: Duration = Duration::from_secs(60);

/// Runs a seed in a world of its own.
pub fn run(config: RunConfig) -> Result<Run, Violation> {
    run_traced(config).0
}

/// As [`run`], with the trace also of a run that broke a promise.
pub fn run_traced(config: RunConfig) -> (Result<Run, Violation>, Vec<String>) {
    let history = History::default();
    let result = crate::world::run(run_inside(config, history.clone()));
    let run =
        result.map(|()| Run { report: history.report(), points: history.points(), trace: history.lines() });
    (run, history.lines())
}

async fn run_inside(config: RunConfig, history: History) -> Result<(), Violation> {
    let rng = SimRng::new(config.seed);
    holdfast_raft::seed_thread(rng.next_u64());
    let machines = Machines::new(&rng, &history, config);
    machines.start_all().await?;
    let end = Instant::now() + config.duration;
    let mut clients = Vec::new();
    for number in 0..config.clients {
        let client = Client::new(number, rng.next_u64(), machines.clone());
        clients.push(tokio::spawn(client.run_until(end)));
    }
    // A source of their own: with them and without, all else is as random.
    let holders_rng = SimRng::new(!config.seed);
    for number in 0..config.holders {
        let holder = Holder::new(number, holders_rng.next_u64(), machines.clone());
        clients.push(tokio::spawn(holder.run_until(end)));
    }
    let (mut watchers, mut cursors) = (Vec::new(), Vec::new());
    for _ in 0..config.watchers {
        let (watcher, cursor) = Watcher::new(rng.next_u64(), machines.clone());
        watchers.push(tokio::spawn(watcher.run()));
        cursors.push(cursor);
    }
    let observer = tokio::spawn(observe(machines.clone()));
    let points = config.only.map_or_else(|| Failpoint::ALL.to_vec(), |only| vec![only]);
    Nemesis::new(rng.next_u64(), machines.clone(), points).run_until(end).await?;
    for client in clients {
        client.await.map_err(|error| Violation::new(format!("a client ended: {error}")))?;
    }
    let mut client = Client::new(config.clients, rng.next_u64(), machines.clone());
    recovery::recover(&machines, &mut client).await?;
    let newest = history.report().revision;
    let are_there = || cursors.iter().all(|cursor| *cursor.lock() > newest);
    recovery::wait(&machines, WATCHED_MAX, "a watcher does not come to the newest revision", are_there)
        .await?;
    observer.abort();
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    history.judge()?;
    machines.stop().await;
    Ok(())
}

/// Checks the members' invariants again and again. What it finds is noted, and ends the run.
async fn observe(machines: Machines) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        if let Err(violation) = machines.check() {
            machines.history().violate(violation.to_string());
        }
    }
}
