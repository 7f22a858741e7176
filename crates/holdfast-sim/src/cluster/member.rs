//! The machines: disks that outlive their members' lives, and the members that run on them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Env, Faults, Rng};
use holdfast_log::{Log, LogConfig};
use holdfast_mvcc::types::MemberId;
use holdfast_raft::{Member, Node, NodeConfig};
use holdfast_storage::{EngineKind, Storage, StorageConfig};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::history::{History, LifeSink, Violation};
use crate::disk::{Lie, SimDisk};
use crate::network::{Host, Network};
use crate::world::{SimClock, SimRng, SimSpawn};

/// How many members a cluster has.
pub(super) const MEMBERS: usize = 3;
/// Upper end of a frame's delay in microseconds.
const DELAY_US_MAX: u64 = 2_000;
/// Small segments, so that a run of seconds rotates and recycles them.
const SEGMENT_BYTES: u64 = 64 * 1024;
/// How often a waiting loop looks again.
const POLL: Duration = Duration::from_millis(50);

/// The machines of one cluster. Cheap to clone.
#[derive(Clone)]
pub(super) struct Machines {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    clock: SimClock,
    history: History,
    rng: SimRng,
    machines: Vec<Machine>,
}

struct Machine {
    disk: Arc<SimDisk>,
    life: Mutex<Option<Life>>,
}

/// One life of one member, from start to crash. Cheap to clone.
#[derive(Clone)]
pub(super) struct Life {
    /// Consensus.
    pub node: Node,
    /// The state.
    pub storage: Storage,
    log: Log,
    spawn: SimSpawn,
}

impl Machines {
    /// Three machines with empty disks.
    pub(super) fn new(rng: &SimRng, history: &History, lie: Option<Lie>) -> Self {
        let network = Network::new(rng.next_u64(), DELAY_US_MAX);
        let machines = (0..MEMBERS)
            .map(|index| {
                network.place(&address(index), Host(index));
                let disk = SimDisk::new(rng.next_u64());
                if let Some(lie) = lie {
                    disk.lie_about(lie);
                }
                Machine { disk, life: Mutex::new(None) }
            })
            .collect();
        let shared = Shared {
            network,
            clock: SimClock::new(),
            history: history.clone(),
            rng: SimRng::new(rng.next_u64()),
            machines,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The links between the machines.
    pub(super) fn network(&self) -> &Network {
        &self.shared.network
    }

    /// The member running on a machine, when one is.
    pub(super) fn life(&self, index: usize) -> Option<Life> {
        self.shared.machines[index].life.lock().clone()
    }

    /// Starts every member that does not run. All at once, as after a power cut.
    pub(super) async fn start_all(&self) -> Result<(), Violation> {
        for index in 0..MEMBERS {
            self.start(index).await?;
        }
        Ok(())
    }

    /// Starts the member of a machine, when it does not run. Whatever a crash left on its disk must do for a start.
    pub(super) async fn start(&self, index: usize) -> Result<(), Violation> {
        if self.life(index).is_some() {
            return Ok(());
        }
        self.shared.history.trace(("start", index));
        let life = self
            .begin_life(index)
            .await
            .map_err(|what| Violation::new(format!("member {index} does not start after a crash: {what}")))?;
        *self.shared.machines[index].life.lock() = Some(life);
        Ok(())
    }

    async fn begin_life(&self, index: usize) -> Result<Life, String> {
        let shared = &self.shared;
        let spawn = SimSpawn::default();
        shared.machines[index].disk.restart();
        let env = Env {
            // A view of this life only: what an earlier life still holds open is dead.
            disk: shared.machines[index].disk.mount(),
            clock: Arc::new(shared.clock),
            net: Arc::new(shared.network.view(Host(index))),
            rng: Arc::new(SimRng::new(shared.rng.next_u64())),
            spawn: Arc::new(spawn.clone()),
            faults: Faults::default(),
        };
        let log_config = LogConfig {
            dir: PathBuf::from("/data/log"),
            segment_bytes: SEGMENT_BYTES,
            cache_bytes_max: 32 * 1024,
        };
        let log = Log::open(&env, log_config).map_err(|error| error.to_string())?;
        let storage_config = StorageConfig {
            dir: PathBuf::from("/data/store"),
            engine: EngineKind::Memory,
            workers: 2,
            memory_bytes: 16 * 1024 * 1024,
        };
        let sink = Arc::new(LifeSink::new(shared.history.clone()));
        let storage = Storage::open(&env, storage_config, sink).await.map_err(|error| error.to_string())?;
        let node = Node::start(&env, node_config(index), log.clone(), storage.clone())
            .await
            .map_err(|error| error.to_string())?;
        Ok(Life { node, storage, log, spawn })
    }

    /// Cuts the power of a machine: its tasks end, its connections break, its disk loses what was not synced.
    pub(super) fn crash(&self, index: usize) {
        let Some(life) = self.shared.machines[index].life.lock().take() else { return };
        self.shared.history.trace(("crash", index));
        self.shared.history.count(|report| report.crashes += 1);
        life.spawn.kill();
        self.shared.network.disconnect(Host(index));
        self.shared.machines[index].disk.crash();
        // The tasks that openraft started itself are still there; they can reach neither disk nor peers any more.
        tokio::spawn(async move { life.node.abandon().await });
    }

    /// Why a member stopped itself, when one did although its disk is sound.
    pub(super) fn halted(&self) -> Option<Violation> {
        (0..MEMBERS).find_map(|index| {
            let reason = self.life(index)?.spawn.halt_reason()?;
            Some(Violation::new(format!("member {index} halted: {reason}")))
        })
    }

    /// Heals all, starts all, and waits until every member shows the same history that ends at one revision.
    pub(super) async fn level(&self, within: Duration) -> Result<(), Violation> {
        self.shared.network.heal();
        self.start_all().await?;
        let deadline = Instant::now() + within;
        while !self.is_level().await? {
            if let Some(violation) = self.halted() {
                return Err(violation);
            }
            if Instant::now() >= deadline {
                return Err(Violation::new(format!(
                    "the members are not level after {within:?}: {}",
                    self.describe()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn is_level(&self) -> Result<bool, Violation> {
        let lives: Vec<Life> = (0..MEMBERS).filter_map(|index| self.life(index)).collect();
        for life in &lives {
            if life.node.linearize(Duration::from_secs(2)).await.is_err() {
                return Ok(false);
            }
        }
        let committed: Vec<_> = lives.iter().map(|life| life.storage.visible().borrow().revision).collect();
        if committed.windows(2).any(|pair| pair[0] != pair[1])
            || committed[0].get() < self.shared.history.known()
        {
            return Ok(false);
        }
        let mut hashes = Vec::new();
        for life in &lives {
            hashes.push(life.storage.history_hash(None).map_err(|error| Violation::new(error.to_string()))?);
        }
        if hashes.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Violation::new(format!("members differ at one revision: {hashes:?}")));
        }
        Ok(true)
    }

    fn describe(&self) -> String {
        let state = |index: usize| match self.life(index) {
            Some(life) => format!("{:?} {:?}", life.node.health(), *life.storage.visible().borrow()),
            None => "down".to_owned(),
        };
        (0..MEMBERS).map(|index| format!("member {index}: {}", state(index))).collect::<Vec<_>>().join("; ")
    }

    /// Stops all members in an orderly way.
    pub(super) async fn stop(&self) {
        for index in 0..MEMBERS {
            let life = self.shared.machines[index].life.lock().take();
            if let Some(life) = life {
                life.node.shutdown().await;
                life.storage.shutdown().await;
                life.log.shutdown().await;
            }
        }
    }
}

fn address(index: usize) -> String {
    format!("http://member-{index}:2380")
}

fn member_id(index: usize) -> MemberId {
    MemberId(u64::try_from(index).unwrap_or(u64::MAX) + 1)
}

fn node_config(index: usize) -> NodeConfig {
    let members = (0..MEMBERS).map(|index| Member {
        id: member_id(index),
        peer_urls: vec![address(index)],
        is_learner: false,
    });
    NodeConfig {
        id: member_id(index),
        cluster_id: 1,
        listen_peer_urls: vec![address(index)],
        initial_members: members.collect(),
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        request_bytes_max: 1_572_864,
        proposal_bytes_max: 64 * 1024 * 1024,
        apply_lag_max: 5_000,
        dump_log_bytes: 1024 * 1024 * 1024,
    }
}
