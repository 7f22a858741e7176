//! What the loops and the handles share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use holdfast_env::{Env, LogId, Monotonic};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::backlog::Backlog;
use super::dump_control::DumpControl;
use crate::auth::AuthView;
use crate::config::StorageConfig;
use crate::error::StoreError;
use crate::figures::Collector;
use crate::generation::{Generation, Generations};
use crate::lanes::Lanes;
use crate::lease::LeaseFeed;
use crate::limits::AWAITED;
use crate::snapshot::store::SnapshotStore;
use crate::types::{Applied, DispatcherState, EventSink, Visible};
use crate::view::{Cache, View};

/// Everything that more than one loop, or a loop and the handles, need.
pub(crate) struct Shared {
    /// The world.
    pub(crate) env: Env,
    /// Sizes and places.
    pub(crate) config: StorageConfig,
    /// Who hears of changes; called by the sequencer.
    pub(crate) events: Arc<dyn EventSink>,
    /// Where values are; replaced by the dispatcher only.
    pub(crate) view: ArcSwap<View>,
    /// What happens to leases, for who keeps their deadlines.
    pub(crate) leases: LeaseFeed,
    /// Users and roles, and tokens.
    pub(crate) auth: AuthView,
    /// Values that were read.
    pub(crate) cache: Cache,
    /// Who reads a long list.
    pub(crate) lanes: Lanes,
    /// How far readers see; sent by the sequencer, and by the dispatcher in an install.
    pub(crate) visible: watch::Sender<Visible>,
    /// Visible slices for the committer.
    pub(crate) backlog: Backlog,
    /// Slices and fences on their way through the sequencer: added by the dispatcher, subtracted by the sequencer.
    pub(crate) sequencing: AtomicUsize,
    /// Bytes evaluated and not yet committed: added by the dispatcher, subtracted by the committer.
    pub(crate) memtable_bytes: AtomicUsize,
    /// Fired by the committer when it has subtracted.
    pub(crate) space: Notify,
    /// The state, for status; written by the dispatcher.
    pub(crate) state: Mutex<DispatcherState>,
    /// Damage that readers came across, for the dispatcher.
    pub(crate) damage: DamageFound,
    /// Why the store is poisoned; written by the dispatcher.
    pub(crate) poisoned: OnceLock<String>,
    /// Positions of the stable store, for status; written by the committer and, in an install, the dispatcher.
    pub(crate) positions: Mutex<Positions>,
    /// The stable store's size, for status; written by the committer.
    pub(crate) disk_bytes: AtomicU64,
    /// Reads of the stable store during evaluation.
    pub(crate) evaluation_reads: AtomicU64,
    /// What the store contained at open, or contains since the last install.
    pub(crate) applied: Mutex<Applied>,
    /// The compact revision behind which nothing unreadable is left; sent by the committer.
    pub(crate) scrubbed: watch::Sender<u64>,
    /// Held for writing during a slice of the scrub, for reading by who walks through all runs.
    pub(crate) scrubbing: RwLock<()>,
    /// True once the pipeline has ended; sent by the shutdown.
    pub(crate) ended: watch::Sender<bool>,
    /// What is asked of the running dump.
    pub(crate) dump: DumpControl,
    /// When somebody last waited for the work behind a dump, in nanoseconds of the clock; 0 for never.
    pub(crate) awaited: AtomicU64,
    /// What dispatcher and dumps have done.
    pub(crate) figures: Collector,
    /// Ends all work at once: the shutdown has waited long enough.
    pub(crate) abandon: AtomicBool,
    /// The snapshots.
    pub(crate) snapshots: SnapshotStore,
    /// The generations of the stable store.
    pub(crate) generations: Generations,
}

impl Shared {
    /// Takes note that somebody waits for the work behind a dump.
    pub(crate) fn await_work(&self) {
        self.awaited.store(nanos(self.env.clock.now()), Ordering::Relaxed);
    }

    /// True when somebody waits for the work behind a dump, or did so a moment ago: it takes no rests then.
    pub(crate) fn is_awaited(&self) -> bool {
        let last = self.awaited.load(Ordering::Relaxed);
        last > 0 && self.env.clock.now().since(Monotonic::from_start(Duration::from_nanos(last))) < AWAITED
    }

    /// Takes note of what a reader of the stable store has met; returns what to tell the reader. Damage is noted durably
    /// before this returns, so that a member that is killed behind its answer rebuilds the store all the same, and the
    /// dispatcher hears of it. It is noted once: readers may come often. That the store has failed for another reason does
    /// not matter; the next start would go on with it.
    pub(crate) fn read_failed(&self, generation: &Arc<Generation>, error: &StoreError) -> String {
        let can_be_noted = || !generation.is_marked() && self.snapshots.can_rebuild();
        let is_damage = matches!(error, StoreError::Damaged(_));
        if is_damage && (self.poisoned.get().is_none() || can_be_noted()) {
            self.damage.tell(generation, self.store_failed(generation, error));
        }
        error.to_string()
    }

    /// Takes note of a failed stable store; returns what failed where, and what to do. A damaged one is marked, so that
    /// the next start rebuilds it, unless what it would be rebuilt from is gone.
    pub(crate) fn store_failed(&self, generation: &Generation, error: &StoreError) -> String {
        let told = error.at(&self.config.dir);
        match error {
            StoreError::Damaged(reason) if self.snapshots.can_rebuild() => {
                match generation.mark_damaged(reason) {
                    Ok(()) => {
                        format!(
                            "{told}: restart the member, which rebuilds it from its newest snapshot and its log"
                        )
                    }
                    Err(unmarked) => format!(
                        "{told}, and that could not be noted ({unmarked}): stop the member, remove the directory {}, \
                     and start it again: it rebuilds the store from its newest snapshot and its log",
                        generation.path().display()
                    ),
                }
            }
            StoreError::Damaged(_) => format!(
                "{told}: its snapshots are damaged, too, so it cannot be rebuilt here: remove this member from the \
                 cluster and add it again with an empty directory"
            ),
            StoreError::Newer(_) => format!("{told}: start the release that wrote it, or a later one"),
            StoreError::InUse | StoreError::Failed(_) => {
                format!("{told}: then restart the member, which goes on from its log")
            }
        }
    }
}

/// The last damage that a reader came across, until the dispatcher has taken it.
#[derive(Default)]
pub(crate) struct DamageFound {
    last: Mutex<Option<(Arc<Generation>, String)>>,
    told: Notify,
}

impl DamageFound {
    /// Of what was told of an older store nothing is lost with what is told of a newer one; the other way round the newer one
    /// counts, which may be the one in use.
    fn tell(&self, generation: &Arc<Generation>, reason: String) {
        let mut last = self.last.lock();
        if last.as_ref().is_none_or(|(told, _)| told.number() <= generation.number()) {
            *last = Some((Arc::clone(generation), reason));
        }
        drop(last);
        self.told.notify_one();
    }

    /// What was told and not yet taken: where the damage is, and what there is to say of it.
    pub(crate) fn take(&self) -> Option<(Arc<Generation>, String)> {
        self.last.lock().take()
    }

    /// Resolves when something was told. Cancel-safe.
    pub(crate) async fn is_told(&self) {
        self.told.notified().await;
    }
}

fn nanos(now: Monotonic) -> u64 {
    u64::try_from(now.since(Monotonic::default()).as_nanos()).unwrap_or(u64::MAX)
}

/// How far the stable store has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Positions {
    /// Its content.
    pub(crate) stable: Option<LogId>,
    /// What of it is known to be on disk.
    pub(crate) durable: Option<LogId>,
}
