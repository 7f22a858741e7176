//! Everybody who works on the cluster during a run: clients of all workloads, watchers, the compactor, and those who look
//! who leads and whether the harness itself stands still.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use tokio::sync::watch::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::lists::Lists;
use super::locks::Locks;
use super::registers::Registers;
use super::scene::Scene;
use super::sets::Sets;
use super::transfers::Transfers;
use super::verdict::{Seen, Watched};
use super::{Plan, Workload, final_contents};
use crate::judge::lease;
use crate::nemesis::{Fault, Incident};
use crate::workload::lease_fencing::book::Book as LeaseBook;
use crate::workload::lease_fencing::holder::Holder;
use crate::workload::lease_fencing::observer;
use crate::workload::verify;
use crate::workload::watch::calls::{Window, connections};
use crate::workload::watch::compactor::Compactor;
use crate::workload::watch::group::{Outcome, Phase};
use crate::workload::watch::writers::{Load, Writers};
use crate::workload::watch::{self, Judged};

/// Between two compactions.
const COMPACT_EVERY: Duration = Duration::from_secs(3);

/// Leases that are kept alive all the time, and the time between two that are left to die.
const LEASES_KEPT: usize = 4;
const LEASE_EVERY: Duration = Duration::from_millis(800);

/// Times to live, in seconds.
const TTL_SECONDS: [i64; 2] = [2, 3];

/// The default of both systems.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(100);

/// A look at the clock every so often; one that comes so much later shows that the harness stood still.
const TICK: Duration = Duration::from_millis(50);
const STANDSTILL: Duration = Duration::from_millis(500);

/// Values of the writers that watchers watch.
const VALUE_BYTES_MAX: usize = 400;

/// So many of a hundred calls a second.
fn share(rate: u32, percent: u32) -> u32 {
    (rate * percent / 100).max(1)
}

/// Watchers and the writers whose keys they watch.
struct Watching {
    plan: watch::Plan,
    writers: Option<Writers>,
    groups: JoinSet<Outcome>,
    phase: Sender<Phase>,
}

/// Leases and those who watch them.
struct Leases {
    book: Arc<LeaseBook>,
    /// How much later than the run its clock began.
    behind: Duration,
    holders: JoinSet<Result<()>>,
    /// Ends with this value.
    _observers: JoinSet<Result<()>>,
}

/// All of them.
pub(super) struct Crew {
    scene: Arc<Scene>,
    registers: Option<Registers>,
    transfers: Option<Transfers>,
    sets: Option<Sets>,
    lists: Option<Lists>,
    locks: Option<Locks>,
    leases: Option<Leases>,
    watching: Option<Watching>,
    compactor: Option<Compactor>,
    lookers: JoinSet<Vec<(Duration, Duration)>>,
}

impl Crew {
    /// Starts those that the plan has.
    pub(super) async fn start(scene: &Arc<Scene>, endpoints: &[String], plan: &Plan) -> Result<Self> {
        let rate = plan.rate;
        let channels = connections(endpoints, Window::Usual)?;
        let transfers = match plan.has(Workload::Transfers) {
            true => Some(Transfers::start(scene, share(rate, 15)).await?),
            false => None,
        };
        let mut lookers = JoinSet::new();
        lookers.spawn(who_leads(Arc::clone(scene)));
        lookers.spawn(standstills(Arc::clone(scene)));
        Ok(Self {
            scene: Arc::clone(scene),
            registers: plan.has(Workload::Registers).then(|| Registers::start(scene, share(rate, 40))),
            transfers,
            sets: plan.has(Workload::Sets).then(|| Sets::start(scene, share(rate, 10))),
            lists: plan.has(Workload::Lists).then(|| Lists::start(scene, share(rate, 10))),
            locks: plan.has(Workload::Locks).then(|| Locks::start(scene, share(rate, 5))),
            leases: plan.has(Workload::Leases).then(|| Leases::start(scene, endpoints)).transpose()?,
            watching: plan
                .has(Workload::Watchers)
                .then(|| Watching::start(scene, endpoints, plan))
                .transpose()?,
            compactor: plan.has(Workload::Compaction).then(|| {
                Compactor::start(Arc::clone(&scene.shared), scene.client.clone(), channels, COMPACT_EVERY)
            }),
            lookers,
        })
    }

    /// Waits until all have ended, and gives what they saw and what the members hold then.
    pub(super) async fn finish(mut self, incidents: &[Incident], names: &[String]) -> Result<Seen> {
        let mut seen = Seen::default();
        if let Some(registers) = self.registers {
            seen.registers = registers.finish().await?;
        }
        if let Some(transfers) = self.transfers {
            seen.balances = transfers.finish().await?;
        }
        if let Some(sets) = self.sets {
            seen.sets = sets.finish().await?;
        }
        if let Some(lists) = self.lists {
            seen.reads = lists.finish().await?;
        }
        if let Some(locks) = self.locks {
            seen.locks = locks.finish().await?;
        }
        let mut written = Vec::new();
        if let Some(writers) = self.watching.as_mut().and_then(|watching| watching.writers.take()) {
            written = writers.stop().await?;
        }
        if let Some(compactor) = self.compactor {
            seen.compactions = compactor.stop().await?;
        }
        let ended = match self.leases {
            Some(leases) => Some(leases.finish().await?),
            None => None,
        };
        self.scene.is_done.store(true, Ordering::SeqCst);
        while let Some(stood) = self.lookers.join_next().await {
            seen.standstills.extend(stood.context("a looker panicked")?);
        }
        if let Some(ended) = ended {
            seen.without_lease.clone_from(&ended.without_lease);
            seen.leases = Some(ended.excused(incidents, &seen.standstills));
        }
        let scene = &self.scene;
        let end = final_contents(&scene.client, &scene.shared).await?;
        let judged = Judged::new(&written, &scene.shared, &end);
        if let Some(watching) = self.watching {
            watching.phase.send_replace(judged.phase(&watching.plan));
            let outcomes = watch::finish(watching.groups, &watching.phase).await?;
            seen.watched = Some(Watched { written, outcomes });
        }
        let (agreement, hash) = verify::agreement(&scene.client, names, end.revision).await?;
        (seen.disagreements, seen.hash) = (agreement, hash);
        (seen.judged, seen.end) = (Some(judged), Some(end));
        Ok(seen)
    }
}

impl Watching {
    fn start(scene: &Arc<Scene>, endpoints: &[String], plan: &Plan) -> Result<Self> {
        let load = Load { writers: 4, rate: share(plan.rate, 20), value_bytes_max: VALUE_BYTES_MAX };
        let plan = watch::Plan {
            members: plan.members,
            watchers: plan.watchers,
            duration: plan.duration,
            compact_every: COMPACT_EVERY,
            load,
            seed: plan.seed,
        };
        let writers = Writers::start(&scene.shared, &connections(endpoints, Window::Usual)?, load);
        let (phase, following) = channel(Phase::Roam);
        let groups = watch::start_groups(&scene.shared, endpoints, &plan, &following)?;
        Ok(Self { plan, writers: Some(writers), groups, phase })
    }
}

impl Leases {
    fn start(scene: &Arc<Scene>, endpoints: &[String]) -> Result<Self> {
        let (book, behind) = (Arc::new(LeaseBook::new(ELECTION_TIMEOUT)), scene.now());
        let mut observers = JoinSet::new();
        for url in endpoints {
            observers.spawn(observer::watch_deletes(url.clone(), Arc::clone(&book)));
            observers.spawn(observer::watch_leader(url.clone(), Arc::clone(&book)));
        }
        let mut rng = scene.shared.rng("leases", 0);
        let mut holders = JoinSet::new();
        for number in 0..LEASES_KEPT {
            let holder = Holder::new(endpoints, Arc::clone(&book), rng.random())?;
            holders.spawn(holder.keep(TTL_SECONDS[number % TTL_SECONDS.len()]));
        }
        holders.spawn(dying(Arc::clone(&book), endpoints.to_vec(), rng));
        Ok(Self { book, behind, holders, _observers: observers })
    }

    /// Waits until all leases must be gone.
    async fn finish(mut self) -> Result<EndedLeases> {
        self.book.finish();
        let mut without_lease = Vec::new();
        while let Some(ended) = self.holders.join_next().await {
            if let Err(error) = ended.context("a holder panicked")? {
                without_lease.push(error.to_string());
            }
        }
        sleep(Duration::from_secs(TTL_SECONDS[1].unsigned_abs()) + 4 * ELECTION_TIMEOUT).await;
        Ok(EndedLeases { record: self.book.record(), behind: self.behind, without_lease })
    }
}

/// What became of the leases.
struct EndedLeases {
    record: lease::Record,
    behind: Duration,
    /// Clients that were given no lease for a long time.
    without_lease: Vec<String>,
}

impl EndedLeases {
    /// The record, in which nobody ends leases while a fault or a standstill keeps all from it.
    fn excused(mut self, incidents: &[Incident], standstills: &[(Duration, Duration)]) -> lease::Record {
        let nobody_counts = incidents.iter().filter(|incident| delays_leases(incident.fault));
        let times = nobody_counts.map(|incident| (incident.began, incident.served));
        let times = times.chain(standstills.iter().copied());
        let behind = self.behind;
        self.record.changes.extend(times.map(|(lost, seen)| lease::Change {
            lost: lost.saturating_sub(behind),
            seen: seen.saturating_sub(behind),
        }));
        self.record.changes.sort_by_key(|change| change.lost);
        self.record
    }
}

/// Whether nobody may be able to end leases during a fault, also when the leader stays the same.
fn delays_leases(fault: Fault) -> bool {
    !matches!(
        fault,
        Fault::KillFollower
            | Fault::PauseFollower
            | Fault::CutFollower
            | Fault::RotLog
            | Fault::RotStore
            | Fault::RotSnapshot
            | Fault::TornTail
            | Fault::LostDir
            | Fault::Dump
    )
}

/// One lease after the other is granted, kept for a while, and left to die.
async fn dying(book: Arc<LeaseBook>, endpoints: Vec<String>, mut rng: rand::rngs::StdRng) -> Result<()> {
    let mut holders = JoinSet::new();
    for number in 0.. {
        if book.is_finished() {
            break;
        }
        let holder = Holder::new(&endpoints, Arc::clone(&book), rng.random())?;
        holders.spawn(holder.let_die(TTL_SECONDS[number % TTL_SECONDS.len()], Duration::ZERO));
        sleep(LEASE_EVERY).await;
    }
    let mut outcome = Ok(());
    while let Some(ended) = holders.join_next().await {
        outcome = outcome.and(ended.context("a holder panicked")?);
    }
    outcome
}

/// Looks who leads, for the timeline.
async fn who_leads(scene: Arc<Scene>) -> Vec<(Duration, Duration)> {
    while !scene.is_over() {
        let asked = (0..scene.client.len()).map(|member| {
            let client = scene.client.clone();
            async move { (member, tokio::time::timeout(LOOK, client.status(member)).await) }
        });
        let mut asked: JoinSet<_> = asked.collect();
        let mut newest = None;
        while let Some(answer) = asked.join_next().await {
            let Ok((member, Ok(Ok(status)))) = answer else { continue };
            let own = status.header.map_or(0, |header| header.member_id);
            if own != 0 && status.leader == own {
                newest = newest.max(Some((status.raft_term, member)));
            }
        }
        scene.book.leads(newest.map(|(_, member)| member), scene.now());
        sleep(LOOK).await;
    }
    Vec::new()
}

/// Times in which the harness itself did nothing: then nothing that was measured means anything.
async fn standstills(scene: Arc<Scene>) -> Vec<(Duration, Duration)> {
    let (mut found, mut last) = (Vec::new(), Instant::now());
    while !scene.is_done.load(Ordering::SeqCst) {
        sleep(TICK).await;
        if last.elapsed() > STANDSTILL {
            let now = scene.now();
            found.push((now.saturating_sub(last.elapsed()), now));
        }
        last = Instant::now();
    }
    found
}
