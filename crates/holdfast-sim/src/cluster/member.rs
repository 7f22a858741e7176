//! The machines: disks that outlive their members' lives, and the members that run on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Env, Failpoint, Faults, Rng, Term};
use holdfast_log::{Log, LogConfig};
use holdfast_mvcc::types::MemberId;
use holdfast_raft::{Member, Node, NodeConfig};
use holdfast_storage::{DispatcherState, EngineKind, Storage, StorageConfig};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::RunConfig;
use super::full::Full;
use super::harm::Harmed;
use super::history::{History, LifeSink, Violation};
use super::life::Life;
use super::places::{Place, Places};
use super::sabotage::{Armed, Saboteur};
use crate::disk::SimDisk;
use crate::network::{Host, Network};
use crate::world::{Pace, SimClock, SimRng, SimSpawn};

/// Upper end of a frame's delay in microseconds.
const DELAY_US_MAX: u64 = 2_000;
/// The log's segments, by run: small ones, so that a run of seconds rotates, retires and recycles them, and such that a
/// huge value fits into half of one.
const SEGMENT_BYTES: [u64; 4] = [64 * 1024, 64 * 1024, 64 * 1024, 4 * 1024 * 1024];
/// The least segments that take a huge value.
const SEGMENT_BYTES_HUGE: u64 = 4 * 1024 * 1024;
/// What makes a dump due, by run: often, and hardly ever.
const DUMP_LOG_BYTES: [u64; 3] = [16 * 1024, 64 * 1024, 1024 * 1024];
/// The memory for values, by run: so little that overlays reach their limits, and enough.
const MEMORY_BYTES: [usize; 3] = [512 * 1024, 1024 * 1024, 16 * 1024 * 1024];
/// How late the committer comes, by life, in microseconds: dumps and merges that take no time, some, and long.
const COMMITTER_US_MAX: [u64; 4] = [500, 5_000, 50_000, COMMITTER_US_SLOW];
/// The latest that it comes.
const COMMITTER_US_SLOW: u64 = 400_000;

/// Machines beside those of the first members, for those that come later.
const SPARE_MACHINES: usize = 2;

/// The machines of one cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Machines {
    shared: Arc<Shared>,
}

/// What the machines share.
pub(super) struct Shared {
    network: Network,
    clock: SimClock,
    history: History,
    rng: SimRng,
    config: RunConfig,
    segment_bytes: u64,
    dump_log_bytes: u64,
    memory_bytes: usize,
    machines: Vec<Machine>,
    places: Places,
    /// Lives that are over, until somebody has time to drop what they held: a life may end in the middle of anything.
    graves: Mutex<Vec<Life>>,
}

pub(super) struct Machine {
    pub(super) disk: Arc<SimDisk>,
    pub(super) life: Mutex<Option<Life>>,
    armed: Mutex<Option<Armed>>,
    /// The next life's committer is slow.
    is_slow: Mutex<bool>,
    /// What its disk has lost beside what crashes take, until the member has made up for it.
    pub(super) harm: Mutex<Option<Harmed>>,
    /// What has no room left.
    pub(super) full: Mutex<Option<Full>>,
    /// The dump that runs, if one does, and the term in which it was seen first.
    dumping_since: Mutex<Option<Term>>,
}

/// How long a member waits for a leader, in all runs.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How a member's life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// The power goes: what was not synced is lost, kept or torn.
    Power,
    /// The process is killed: the next one finds all that was written.
    Kill,
}

/// What makes a checkpoint of the index due: almost always, often, and never.
fn checkpoint_revisions(seed: u64) -> u64 {
    match seed % 3 {
        0 => 3,
        1 => 40,
        _ => u64::MAX,
    }
}

impl From<Arc<Shared>> for Machines {
    fn from(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Machines {
    /// Machines with empty disks.
    pub(super) fn new(rng: &SimRng, history: &History, config: RunConfig) -> Self {
        let network = Network::new(rng.next_u64(), DELAY_US_MAX);
        let count = config.members + SPARE_MACHINES;
        let machines = (0..count)
            .map(|index| {
                network.place(&address(index), Host(index));
                let disk = SimDisk::new(rng.next_u64());
                if let Some(lie) = config.lie {
                    disk.lie_about(lie);
                }
                Machine {
                    disk,
                    life: Mutex::new(None),
                    armed: Mutex::new(None),
                    is_slow: Mutex::new(false),
                    harm: Mutex::new(None),
                    full: Mutex::new(None),
                    dumping_since: Mutex::new(None),
                }
            })
            .collect();
        let shared = Shared {
            network,
            clock: SimClock::new(),
            history: history.clone(),
            rng: SimRng::new(rng.next_u64()),
            config,
            segment_bytes: rng.pick(&SEGMENT_BYTES),
            dump_log_bytes: rng.pick(&DUMP_LOG_BYTES),
            memory_bytes: rng.pick(&MEMORY_BYTES),
            machines,
            places: Places::new(config.members, count),
            graves: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the run does.
    pub(super) fn config(&self) -> &RunConfig {
        &self.shared.config
    }

    /// How long a member waits for a leader.
    pub(super) fn election_timeout(&self) -> Duration {
        ELECTION_TIMEOUT
    }

    /// How many there are, those where nobody lives among them.
    pub(super) fn count(&self) -> usize {
        self.shared.machines.len()
    }

    /// Who lives where.
    pub(super) fn places(&self) -> &Places {
        &self.shared.places
    }

    /// The machines where somebody lives.
    pub(super) fn taken(&self) -> Vec<usize> {
        self.shared.places.taken().into_keys().collect()
    }

    /// True when a value may be larger than one batch of the engine.
    pub(super) fn take_huge(&self) -> bool {
        self.shared.segment_bytes >= SEGMENT_BYTES_HUGE
    }

    /// The links between the machines.
    pub(super) fn network(&self) -> &Network {
        &self.shared.network
    }

    /// What is recorded of them.
    pub(super) fn history(&self) -> &History {
        &self.shared.history
    }

    pub(super) fn machine(&self, index: usize) -> &Machine {
        &self.shared.machines[index]
    }

    /// The disk of a machine.
    pub(super) fn disk(&self, index: usize) -> &SimDisk {
        &self.shared.machines[index].disk
    }

    /// The member running on a machine, when one is.
    pub(super) fn life(&self, index: usize) -> Option<Life> {
        self.shared.machines[index].life.lock().clone()
    }

    /// All members that run.
    pub(super) fn lives(&self) -> Vec<Life> {
        (0..self.count()).filter_map(|index| self.life(index)).collect()
    }

    /// The running member that leads, when one does and knows it.
    pub(super) fn leader(&self) -> Option<(usize, Life)> {
        let leads =
            |index| self.life(index).filter(|life| life.node.health().is_leader).map(|life| (index, life));
        (0..self.count()).find_map(leads)
    }

    /// Starts every member that does not run. All at once, as after a power cut.
    pub(super) async fn start_all(&self) -> Result<(), Violation> {
        for index in 0..self.count() {
            self.start(index).await?;
        }
        Ok(())
    }

    /// Starts the member of a machine, when there is one and it does not run. Whatever a crash left on its disk must do for a start; it
    /// may be stopped on the way, and then does not run.
    pub(super) async fn start(&self, index: usize) -> Result<(), Violation> {
        let Place::Taken { .. } = self.shared.places.at(index) else { return Ok(()) };
        if self.life(index).is_some() {
            return Ok(());
        }
        self.bury();
        let shared = &self.shared;
        shared.history.trace(("start", index));
        let committer = match std::mem::take(&mut *shared.machines[index].is_slow.lock()) {
            true => COMMITTER_US_SLOW,
            false => shared.rng.pick(&COMMITTER_US_MAX),
        };
        let spawn = SimSpawn::new(Pace {
            delays_us_max: vec![("hf-committer", committer), ("hf-", 300), ("log-", 1_500)],
            seed: shared.rng.next_u64(),
        });
        let (done, is_done) = oneshot::channel();
        // In a task of its own, which can be stopped.
        let begin = self.clone().begin_life(index, spawn.clone());
        drop(holdfast_env::Spawn::task(
            &spawn,
            "start",
            Box::pin(async move { drop(done.send(begin.await)) }),
        ));
        match is_done.await {
            Ok(Ok(life)) if life.is_alive() => *shared.machines[index].life.lock() = Some(life),
            Ok(Ok(life)) => shared.graves.lock().push(life),
            Ok(Err(what)) => {
                return Err(Violation::new(format!("member {index} does not start after a crash: {what}")));
            }
            Err(_) if !spawn.has_ended() => {
                return Err(Violation::new(format!("member {index} panics when it starts after a crash")));
            }
            Err(_) => match spawn.halt_reason() {
                Some(reason) => {
                    return Err(Violation::new(format!("member {index} halted when it started: {reason}")));
                }
                None => shared.history.trace(("stopped while it started", index)),
            },
        }
        Ok(())
    }

    async fn begin_life(self, index: usize, spawn: SimSpawn) -> Result<Life, String> {
        let shared = &self.shared;
        shared.machines[index].disk.restart();
        let saboteur = Saboteur::new(Arc::downgrade(shared), index, spawn.clone(), shared.config.fault);
        let env = Env {
            // A view of this life only: what an earlier life still holds open is dead.
            disk: shared.machines[index].disk.mount(),
            clock: Arc::new(shared.clock),
            net: Arc::new(shared.network.view(Host(index))),
            rng: Arc::new(SimRng::new(shared.rng.next_u64())),
            spawn: Arc::new(spawn.clone()),
            faults: Faults::new(Arc::new(saboteur)),
        };
        let log_config = LogConfig {
            dir: PathBuf::from("/data/log"),
            segment_bytes: shared.segment_bytes,
            cache_bytes_max: 32 * 1024,
        };
        let log = Log::open(&env, log_config).map_err(|error| error.to_string())?;
        let storage_config = StorageConfig {
            dir: PathBuf::from("/data/store"),
            // What it has instead has files, too.
            engine: EngineKind::Redb,
            workers: 2,
            memory_bytes: shared.memory_bytes,
            checkpoint_revisions: checkpoint_revisions(shared.config.seed),
        };
        let sink = Arc::new(LifeSink::new(shared.history.clone()));
        let events = Arc::clone(&sink);
        let storage = Storage::open_on_journal(&env, storage_config, events)
            .await
            .map_err(|error| error.to_string())?;
        let seen = *storage.visible().borrow();
        sink.begin(seen.revision.get());
        let status = storage.status();
        shared.history.trace(("opened", index, log.state().purged, log.state().last));
        shared.history.trace(("opened", index, status.snapshot, status.durable, status.stable));
        let node_config = self.node_config(index).ok_or("nobody lives there any more")?;
        let node = Node::start(&env, node_config, log.clone(), storage.clone())
            .await
            .map_err(|error| error.to_string())?;
        let seen = Arc::new(Mutex::new(seen));
        Ok(Life { node, storage, log, spawn, seen })
    }

    /// Crashes a member: its tasks end. When its process is killed its connections break; when its machine loses power its disk
    /// also loses what was not synced, and nobody is told.
    pub(super) fn crash(&self, index: usize, crash: Crash) {
        let Some(life) = self.life(index) else { return };
        self.shared.history.trace(("crash", index, crash));
        self.cut(index, &life.spawn, crash);
    }

    /// Ends a life, also from within it.
    pub(super) fn cut(&self, index: usize, spawn: &SimSpawn, crash: Crash) {
        let machine = &self.shared.machines[index];
        let network = &self.shared.network;
        match crash {
            Crash::Power => {
                machine.disk.crash();
                // Before its tasks end, which closes their connections.
                network.darken(Host(index));
                spawn.kill();
            }
            Crash::Kill => {
                machine.disk.kill_processes();
                spawn.kill();
                network.disconnect(Host(index));
            }
        }
        self.shared.history.count(|report| report.crashes += 1);
        if let Some(life) = machine.life.lock().take() {
            self.shared.graves.lock().push(life);
        }
    }

    /// What was to happen to whoever lived on a machine does not happen to the next one.
    pub(super) fn forget(&self, index: usize) {
        let machine = &self.shared.machines[index];
        *machine.armed.lock() = None;
        *machine.is_slow.lock() = false;
        *machine.harm.lock() = None;
        *machine.full.lock() = None;
        *machine.dumping_since.lock() = None;
    }

    /// Drops what lives that are over have held.
    pub(super) fn bury(&self) {
        let graves = std::mem::take(&mut *self.shared.graves.lock());
        drop(graves);
    }

    /// Has a member stopped when it comes to a point.
    pub(super) fn arm(&self, index: usize, armed: Option<Armed>) {
        self.shared.history.trace(("arm", index, armed));
        *self.shared.machines[index].armed.lock() = armed;
    }

    /// Makes the committer of a member's next life slow.
    pub(super) fn slow_down(&self, index: usize) {
        *self.shared.machines[index].is_slow.lock() = true;
    }

    /// True while a member has not come to the point at which it is to be stopped.
    pub(super) fn is_armed(&self, index: usize) -> bool {
        self.shared.machines[index].armed.lock().is_some()
    }

    /// Counts a hit; gives how the member ends, when it is stopped here.
    pub(super) fn fires(&self, index: usize, at: Failpoint) -> Option<Crash> {
        let mut armed = self.shared.machines[index].armed.lock();
        let waiting = armed.as_mut().filter(|armed| armed.at == at)?;
        waiting.left = waiting.left.saturating_sub(1);
        if waiting.left > 0 { None } else { armed.take().map(|armed| armed.crash) }
    }

    /// What is broken now, when something is: a member that stopped itself although its disk is sound, or an invariant.
    pub(super) fn check(&self) -> Result<(), Violation> {
        if let Some(violation) = self.shared.history.violation() {
            return Err(violation);
        }
        for index in 0..self.count() {
            let Some(life) = self.life(index) else { continue };
            let machine = &self.shared.machines[index];
            let full = *machine.full.lock();
            if let Some(reason) = life.spawn.halt_reason() {
                if full.is_some_and(Full::may_stop_members) {
                    // A snapshot that cannot be installed for want of room ends the member; it is started again.
                    continue;
                }
                return Err(Violation::new(format!("member {index} halted: {reason}")));
            }
            life.check(index, full, &mut machine.harm.lock())?;
            self.count_dump(index, &life);
        }
        Ok(())
    }

    /// Counts dumps that an election came into.
    fn count_dump(&self, index: usize, life: &Life) {
        let is_dumping = life.storage.status().state == DispatcherState::Dumping;
        let term = life.node.health().term;
        let mut since = self.shared.machines[index].dumping_since.lock();
        match (*since, is_dumping) {
            (None, true) => *since = Some(term),
            (Some(first), true) if first != term => {
                self.shared.history.count(|report| report.elections_in_dumps += 1);
                *since = Some(term);
            }
            (Some(_), false) => *since = None,
            _ => {}
        }
    }

    /// Where each member stands, in words.
    pub(super) fn describe(&self) -> String {
        let state = |index: usize| match self.life(index) {
            Some(life) => {
                format!("{:?} {:?} log {:?}", life.node.health(), life.storage.status(), life.log.state())
            }
            None => "down".to_owned(),
        };
        (0..self.count())
            .map(|index| format!("member {index}: {}", state(index)))
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Stops all members in an orderly way.
    pub(super) async fn stop(&self) {
        for index in 0..self.count() {
            let life = self.shared.machines[index].life.lock().take();
            if let Some(life) = life {
                life.node.shutdown().await;
                life.storage.shutdown().await;
                life.log.shutdown().await;
            }
        }
        self.bury();
    }

    fn node_config(&self, index: usize) -> Option<NodeConfig> {
        let Place::Taken { id, is_founder } = self.shared.places.at(index) else { return None };
        let founders = if is_founder { self.shared.config.members } else { 0 };
        let members = (0..founders).map(|index| Member {
            id: founder_id(index),
            peer_urls: vec![address(index)],
            is_learner: false,
        });
        Some(NodeConfig {
            id: MemberId(id),
            cluster_id: 1,
            listen_peer_urls: vec![address(index)],
            initial_members: members.collect(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: ELECTION_TIMEOUT,
            request_bytes_max: 1_572_864,
            proposal_bytes_max: 64 * 1024 * 1024,
            apply_lag_max: 5_000,
            dump_log_bytes: self.shared.dump_log_bytes,
        })
    }
}

/// Where the member on a machine is reached, whoever it is.
pub(super) fn address(index: usize) -> String {
    format!("http://member-{index}:2380")
}

/// The id of a member of the first hour.
pub(super) fn founder_id(index: usize) -> MemberId {
    MemberId(u64::try_from(index).unwrap_or(u64::MAX) + 1)
}
