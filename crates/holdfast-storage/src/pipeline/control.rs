//! What passes between the loops.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_env::Monotonic;
use holdfast_mvcc::Head;
use holdfast_mvcc::types::{LeaseChange, Record};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Span;

use super::dump_control::Urgency;
use crate::error::StorageError;
use crate::generation::Generation;
use crate::memtable::Memtable;
use crate::record::Stored;
use crate::snapshot::install::Prepared;
use crate::types::{Answer, Applied, DispatchItem, Snapshot, Visible};

/// Where the result of a dump goes.
pub(crate) type DumpWaiter = oneshot::Sender<Result<Snapshot, StorageError>>;

/// What the queue to the dispatcher carries, in log order.
pub(crate) enum QueueItem {
    /// Some entries.
    Entries {
        /// Ascending.
        items: VecDeque<DispatchItem>,
        /// Their share of the queue's bytes; given back by the drop, when the last entry was taken.
        #[expect(dead_code, reason = "held for its drop")]
        space: OwnedSemaphorePermit,
    },
    /// A dump as of the entries before.
    StartDump {
        /// Who needs it.
        urgency: Urgency,
        /// Fired when the state is sealed (or the dump joined).
        sealed: oneshot::Sender<Result<(), StorageError>>,
        /// Gets the snapshot.
        done: DumpWaiter,
    },
}

/// What the dispatcher takes before anything else.
pub(crate) enum Control {
    /// The dump is over; the committer goes on when `resume` is fired or dropped.
    DumpDone {
        /// What came of it.
        result: Result<Snapshot, StorageError>,
        /// When it was sealed.
        started: Monotonic,
        /// Lets the committer write again.
        resume: oneshot::Sender<()>,
    },
    /// The overlay of the last dump is in the stable store; with the span of its end.
    Merged(Span),
    /// Replace the state.
    Install {
        /// By this.
        prepared: Box<Prepared>,
        /// Told when it is visible.
        done: oneshot::Sender<Result<(), StorageError>>,
    },
    /// The committer has reached the fence of an install and waits for the generation to go on with.
    Quiesced {
        /// Gets the new generation.
        resume: oneshot::Sender<Arc<Generation>>,
    },
    /// The stable store was copied into another generation, which readers are to use from here on.
    Regenerated {
        /// It holds what the one before does, durably, and is the current one on disk.
        generation: Arc<Generation>,
        /// Lets the committer write again; fired or dropped.
        resume: oneshot::Sender<()>,
    },
    /// The stable store failed.
    StoreFailed(String),
    /// Take what is queued, then end.
    Shutdown,
}

/// What a worker gets.
pub(crate) enum ShardJob {
    /// Records of this shard, ascending.
    Records {
        /// What to encode.
        records: Vec<Record>,
        /// Where to put it: the memtable that was active when the slice was evaluated.
        memtable: Arc<Memtable>,
        /// Gets the encoded records.
        done: oneshot::Sender<Vec<Arc<Stored>>>,
    },
    /// Fired when all before is done.
    Fence(oneshot::Sender<()>),
}

/// What the sequencer gets, in log order.
pub(crate) enum Sequenced {
    /// An evaluated slice.
    Slice(Box<Slice>),
    /// Passed on once all shards have reached it.
    Fence {
        /// One per shard.
        reached: Vec<oneshot::Receiver<()>>,
        /// What it is for.
        fence: Fence,
    },
}

/// An evaluated slice of the log, while its records are with the workers.
pub(crate) struct Slice {
    /// What is in the memtable already, ascending.
    pub(crate) encoded: Vec<Arc<Stored>>,
    /// What each worker gives back.
    pub(crate) parts: Vec<oneshot::Receiver<Vec<Arc<Stored>>>>,
    /// Who waits for what.
    pub(crate) answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// What became of leases, in order.
    pub(crate) leases: Vec<LeaseChange>,
    /// How far readers see behind it.
    pub(crate) visible: Visible,
    /// What to commit behind it.
    pub(crate) commit: CommitPosition,
    /// What it was accounted with.
    pub(crate) bytes: usize,
    /// Where its records are.
    pub(crate) memtable: Arc<Memtable>,
}

/// The position that a commit leads to.
#[derive(Clone)]
pub(crate) struct CommitPosition {
    /// The state beside the records.
    pub(crate) head: Head,
    /// The place in the log.
    pub(crate) applied: Applied,
}

/// What to dump.
pub(crate) struct DumpOrder {
    /// The position of the snapshot.
    pub(crate) position: CommitPosition,
    /// When it was sealed.
    pub(crate) started: Monotonic,
    /// The span of its start.
    pub(crate) span: Span,
}

/// Notes a step of the start or the end of a dump, in the span of it. The steps of one span ascend, whichever loop
/// takes them.
pub(crate) fn step(span: &Span, step: u32, what: &'static str) {
    tracing::debug!(parent: span, step, what);
}

/// A point in the stream of commits at which the committer does something else.
pub(crate) enum Fence {
    /// Drain, flush, dump.
    Dump(Box<DumpOrder>),
    /// All of the overlay is before this point; with the span of the dump's end.
    Merge(Span),
    /// Wait for another generation.
    Install,
}
