//! Opening: from what is on disk to a running pipeline.
//!
//! 1. Look at the newest snapshot; verify it when step 3 needs it.
//! 2. Open the current generation and load its position and index. When that shows damage, or damage was found while
//!    the member ran, set it aside. Clean up what is left of old snapshots.
//! 3. When there is none, or the snapshot is ahead of it (an install was interrupted, or the engine is in memory),
//!    build the next generation from the snapshot, or an empty one.
//! 4. Start the loops.
//!
//! Whatever a newer release wrote ends the start before anything is changed on disk.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use holdfast_env::disk::create_dir_synced;
use holdfast_env::{Clock, Env, Fault, Helper, Monotonic, TaskHandle};
use holdfast_mvcc::types::{RecordId, Revision};
use holdfast_mvcc::{Head, State};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};

use crate::auth::AuthView;
use crate::checkpoint::{self, Found};
use crate::config::StorageConfig;
use crate::engine::EngineFactory;
use crate::error::{StorageError, StoreError};
use crate::figures::{Collector, IndexSource};
use crate::gate::Gate;
use crate::generation::{Generation, Generations};
use crate::lanes::Lanes;
use crate::lease::LeaseFeed;
use crate::limits::{CONTROL_MAX, QUEUE_MESSAGES_MAX, SLICES_IN_FLIGHT_MAX};
use crate::memtable::Memtable;
use crate::pipeline::backlog::Backlog;
use crate::pipeline::checkpoint::Checkpointing;
use crate::pipeline::committer::Committer;
use crate::pipeline::control::{CommitPosition, Control, QueueItem, ShardJob};
use crate::pipeline::dispatcher::{Channels, Dispatcher};
use crate::pipeline::dump_control::DumpControl;
use crate::pipeline::shared::{DamageFound, Positions, Shared};
use crate::pipeline::{sequencer, worker};
use crate::ring::Ring;
use crate::snapshot::install::{self, Prepared};
use crate::snapshot::store::SnapshotStore;
use crate::stable::Stable;
use crate::types::{Applied, DispatcherState, EventSink, Visible};
use crate::view::{Cache, View};

/// A stable store with its index.
pub(crate) struct Loaded {
    generation: Arc<Generation>,
    index: Index,
}

/// What was read from a stable store.
#[derive(Default)]
struct Index {
    state: State,
    applied: Applied,
    scrubbed: Option<Revision>,
    source: IndexSource,
    checkpointing: Checkpointing,
}

/// What a pipeline starts from.
pub(crate) type Opened = (SnapshotStore, Generations, Loaded);

/// The running loops and the ways in.
pub(crate) struct Running {
    /// What they share.
    pub(crate) shared: Arc<Shared>,
    /// To the dispatcher, in log order.
    pub(crate) queue: mpsc::Sender<QueueItem>,
    /// To the dispatcher, first.
    pub(crate) control: mpsc::Sender<Control>,
    /// Lets whoever has entries evaluate them.
    pub(crate) dispatcher: Helper,
    /// To the workers, to look how much waits.
    pub(crate) queues: Vec<mpsc::WeakSender<ShardJob>>,
    /// The loops.
    pub(crate) tasks: Vec<TaskHandle>,
}

/// How long each part of a start took, for its log line.
struct Phases {
    clock: Arc<dyn Clock>,
    last: Monotonic,
    took: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn begin(env: &Env) -> Self {
        let clock = Arc::clone(&env.clock);
        let last = clock.now();
        Self { clock, last, took: Vec::new() }
    }

    fn ended(&mut self, name: &'static str) {
        let now = self.clock.now();
        self.took.push((name, now.since(self.last)));
        self.last = now;
    }

    fn tell(&self, loaded: &Loaded) {
        let revision = loaded.index.state.head().revision.get();
        let (keys, index_from) = (loaded.index.state.keys(), loaded.index.source.label());
        tracing::info!(revision, keys, index_from, took = ?self.took, "the store is open");
    }
}

/// Steps 1 to 3. Blocks on files.
pub(crate) fn load(
    env: &Env,
    config: &StorageConfig,
    engines: EngineFactory,
) -> Result<Opened, StorageError> {
    create_dir_synced(&*env.disk, &config.dir).map_err(StorageError::io(&config.dir, "create"))?;
    // Up to the clean-up this only looks: what a newer release has left must stay as it is.
    let mut phases = Phases::begin(env);
    let (snapshots, left_over) = SnapshotStore::open(env, config.dir.join("snapshots"))?;
    phases.ended("snapshot");
    let generations = Generations::new(&env.disk, config, engines);
    let current = generations.current()?;
    let loaded = match current {
        Some(number) => load_generation(env, &generations, number, &mut phases)?,
        None => None,
    };
    snapshots.clean_up(left_over)?;
    let behind = |loaded: &Loaded| {
        snapshots.current().is_some_and(|snapshot| snapshot.applied.log_id > loaded.index.applied.log_id)
    };
    if loaded.as_ref().is_none_or(behind) {
        snapshots.check_now()?;
    }
    let loaded = match loaded {
        Some(loaded) if !behind(&loaded) => loaded,
        stale => {
            drop(stale);
            rebuild(&generations, &snapshots, current.unwrap_or(0) + 1)?
        }
    };
    generations.remove_others(loaded.generation.number())?;
    phases.ended("the rest");
    phases.tell(&loaded);
    Ok((snapshots, generations, loaded))
}

/// The current generation with its index; `None` when it is damaged, which sets it aside.
fn load_generation(
    env: &Env,
    generations: &Generations,
    number: u64,
    phases: &mut Phases,
) -> Result<Option<Loaded>, StorageError> {
    if !generations.exists(number)? {
        tracing::error!(
            number,
            "the stable store is missing: it is rebuilt from the newest snapshot and the log"
        );
        return Ok(None);
    }
    if generations.is_marked_damaged(number)? {
        tracing::error!(
            number,
            "the stable store was found damaged while it was in use: it is rebuilt from the newest snapshot and the log"
        );
        generations.set_aside(number)?;
        return Ok(None);
    }
    let opened = generations.open(number).and_then(|generation| {
        phases.ended("engine");
        let index = load_index(env, &generation)?;
        phases.ended("index");
        // What we read may be in the system's cache only, after a process that was killed. From here on the position
        // counts as durable, and the log may be purged up to it: so it has to be on disk first.
        generation.stable().flush()?;
        phases.ended("flush");
        Ok((generation, index))
    });
    match opened {
        Ok((generation, index)) => Ok(Some(Loaded { generation, index })),
        Err(StoreError::Damaged(reason)) => {
            tracing::error!(
                reason,
                "the stable store is damaged: it is rebuilt from the newest snapshot and the log"
            );
            generations.set_aside(number)?;
            Ok(None)
        }
        Err(other) => Err(StorageError::store(&generations.path(number), other)),
    }
}

fn load_index(env: &Env, generation: &Generation) -> Result<Index, StoreError> {
    let (disk, stable) = (&*env.disk, generation.stable());
    let Some((mut head, applied)) = stable.position()? else {
        stable.trim(Revision::NONE)?;
        return Ok(Index::default());
    };
    if env.faults.is_planted(Fault::ReplaySeesFuture) {
        head.revision = newest_stored(stable)?.max(head.revision);
    }
    let revision = head.revision;
    let found = checkpoint::load(disk, generation, &head)?;
    let source = match &found {
        Found::Nothing => IndexSource::Records,
        Found::Unusable => IndexSource::RecordsDespiteCheckpoint,
        Found::Loaded(_) => IndexSource::Checkpoint,
    };
    let (mut state, checkpointing) = match found {
        Found::Loaded(loaded) => {
            debug_assert_eq!(
                loaded.state.digest(),
                all_records(stable, head)?.digest(),
                "the checkpoint is the index"
            );
            (loaded.state, Checkpointing::behind(loaded.since, loaded.bytes))
        }
        Found::Nothing | Found::Unusable => (all_records(stable, head)?, Checkpointing::default()),
    };
    stable.each_lease(|leases| {
        state.restore_leases(leases.iter().copied());
        Ok::<_, StoreError>(())
    })?;
    if let Some(lease) = state.missing_lease() {
        return Err(StoreError::damaged(format!(
            "keys are attached to lease {}, which is not there",
            lease.0
        )));
    }
    // Last, because it is the first thing that writes.
    stable.trim(revision)?;
    stable.trim_auth()?;
    checkpoint::discard(disk, &checkpoint::tmp_path(generation.path()));
    if source == IndexSource::RecordsDespiteCheckpoint {
        checkpoint::discard(disk, &checkpoint::path(generation.path()));
    }
    Ok(Index { state, applied, scrubbed: stable.scrubbed()?, source, checkpointing })
}

/// The newest revision of which something is stored, under the head or above it.
fn newest_stored(stable: &Stable) -> Result<Revision, StoreError> {
    let mut newest = Revision::NONE;
    stable.each_meta(RecordId::default(), Revision::new(u64::MAX), |records| {
        newest = records.last().map_or(newest, |record| record.id.revision);
        Ok::<_, StoreError>(())
    })?;
    Ok(newest)
}

/// The state with this head, from the metadata of the whole store.
fn all_records(stable: &Stable, head: Head) -> Result<State, StoreError> {
    let revision = head.revision;
    let mut state = State::with_head(head);
    // What an interrupted commit has left above the head is passed over, and trimmed later.
    stable.each_meta(RecordId::default(), revision, |records| {
        state.restore_all(records);
        Ok::<_, StoreError>(())
    })?;
    Ok(state)
}

/// A new generation from the newest snapshot, or an empty one.
fn rebuild(
    generations: &Generations,
    snapshots: &SnapshotStore,
    number: u64,
) -> Result<Loaded, StorageError> {
    let loaded = match snapshots.current() {
        Some(snapshot) => {
            tracing::info!(snapshot = snapshot.id, "building the stable store from the newest snapshot");
            let built = install::build(generations, snapshots, number, snapshot)?;
            let Prepared { generation, state, applied, .. } = built;
            let scrubbed = state.head().compact_revision;
            Loaded { generation, index: Index { state, applied, scrubbed, ..Index::default() } }
        }
        None => {
            if number > 1 {
                tracing::warn!(
                    "there is no snapshot: the log has to begin at its first entry; when entries are missing, remove \
                     this member from the cluster and add it again with an empty directory"
                );
            }
            let created = generations.create(number);
            let generation = created.map_err(|e| StorageError::store(&generations.path(number), e))?;
            Loaded { generation, index: Index::default() }
        }
    };
    generations.switch_to(number)?;
    loaded.generation.keep();
    Ok(loaded)
}

/// Step 4.
pub(crate) fn start(
    env: &Env,
    config: StorageConfig,
    events: Arc<dyn EventSink>,
    (snapshots, generations, loaded): Opened,
) -> Running {
    let workers = config.workers.clamp(1, 64);
    let Loaded { generation, index } = loaded;
    let Index { state, applied, scrubbed, source, checkpointing } = index;
    let head = state.head().clone();
    let visible = Visible { log_id: applied.log_id, revision: head.revision };
    let disk_bytes = generation.stable().disk_bytes();
    let durable = if generation.is_durable() {
        applied.log_id
    } else {
        snapshots.current().and_then(|snapshot| snapshot.applied.log_id)
    };
    let view = View {
        gate: Gate::new(&head),
        state: Arc::new(RwLock::new(state)),
        active: Memtable::new(workers),
        frozen: None,
        ring: Ring::behind(head.revision, config.ring_bytes()),
        generation,
    };
    let shared = Arc::new(Shared {
        env: env.clone(),
        cache: Cache::new(config.cache_bytes()),
        lanes: Lanes::beside(workers),
        leases: LeaseFeed::default(),
        auth: AuthView::default(),
        config,
        events,
        view: ArcSwap::from_pointee(view),
        visible: watch::Sender::new(visible),
        backlog: Backlog::default(),
        sequencing: AtomicUsize::new(0),
        memtable_bytes: AtomicUsize::new(0),
        space: Notify::new(),
        state: Mutex::new(DispatcherState::Normal),
        damage: DamageFound::default(),
        poisoned: OnceLock::new(),
        positions: Mutex::new(Positions { stable: applied.log_id, durable }),
        disk_bytes: AtomicU64::new(disk_bytes),
        evaluation_reads: AtomicU64::new(0),
        applied: Mutex::new(applied.clone()),
        scrubbed: watch::Sender::new(scrubbed.map_or(0, Revision::get)),
        scrubbing: RwLock::new(()),
        ended: watch::Sender::new(false),
        dump: DumpControl::default(),
        awaited: AtomicU64::default(),
        figures: Collector::default(),
        abandon: AtomicBool::new(false),
        snapshots,
        generations,
    });
    shared.figures.opened(source);
    shared.auth.show(&head.auth);
    spawn(&shared, workers, CommitPosition { head, applied }, checkpointing)
}

fn spawn(
    shared: &Arc<Shared>,
    workers: usize,
    position: CommitPosition,
    checkpointing: Checkpointing,
) -> Running {
    let (queue, queue_out) = mpsc::channel(QUEUE_MESSAGES_MAX);
    let (control, control_out) = mpsc::channel(CONTROL_MAX);
    let (to_sequencer, sequencer_in) = mpsc::channel(SLICES_IN_FLIGHT_MAX);
    let spawn = &shared.env.spawn;
    let mut tasks = Vec::new();
    let (mut shards, mut queues) = (Vec::new(), Vec::new());
    for shard in 0..workers {
        let (jobs, jobs_in) = mpsc::channel(SLICES_IN_FLIGHT_MAX);
        queues.push(jobs.downgrade());
        shards.push(jobs);
        tasks.push(spawn.dedicated(&format!("hf-worker-{shard}"), Box::pin(worker::run(shard, jobs_in))));
    }
    tasks.push(spawn.dedicated("hf-sequencer", Box::pin(sequencer::run(Arc::clone(shared), sequencer_in))));
    let committer = Committer::new(Arc::clone(shared), control.clone(), position.clone(), checkpointing);
    tasks.push(spawn.dedicated("hf-committer", Box::pin(committer.run())));
    let channels = Channels { queue: queue_out, control: control_out, shards, sequencer: to_sequencer };
    let dispatcher = Dispatcher::new(Arc::clone(shared), channels, position.applied);
    let (task, dispatcher) = spawn.helped("hf-dispatcher", Box::pin(dispatcher.run()));
    tasks.push(task);
    Running { shared: Arc::clone(shared), queue, control, dispatcher, queues, tasks }
}

#[cfg(test)]
mod tests;
