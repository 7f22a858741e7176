//! What goes in and out of the storage: entries, answers, positions, figures.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{DiskFile, LogId, Monotonic};
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::{Command, Outcome};
use holdfast_mvcc::types::{Record, Revision};
use tokio::sync::oneshot;

use crate::figures::DispatchFigures;

/// One entry of the Raft log, on its way into the state.
#[derive(Debug)]
pub struct DispatchItem {
    /// Its place in the log.
    pub log_id: LogId,
    /// What it carries.
    pub body: DispatchBody,
}

/// What a log entry carries.
#[derive(Debug)]
pub enum DispatchBody {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A membership, opaque to the storage; stored and handed back by [`Storage::applied`](crate::Storage::applied).
    Membership(Bytes),
    /// A command, and who waits for the answer on this member.
    Command {
        /// What to evaluate.
        command: Command,
        /// Who wants it.
        caller: Caller,
        /// Answered once the effects are visible on this member.
        respond: Option<oneshot::Sender<Answer>>,
    },
}

/// The answer to a command, given when its effects are visible here.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The entry's place in the log.
    pub log_id: LogId,
    /// What evaluation said; its `records` are empty here (they went to the store and the watch hub).
    pub outcome: Outcome,
}

/// How far the state is visible to readers on this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Visible {
    /// The last log entry whose effects are visible.
    pub log_id: Option<LogId>,
    /// The store's revision there.
    pub revision: Revision,
}

/// A log position with the membership in force there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The last entry contained.
    pub log_id: Option<LogId>,
    /// The last membership entry's own position and opaque content.
    pub membership: Option<(LogId, Bytes)>,
}

/// A verified, durable snapshot.
#[derive(Clone)]
pub struct Snapshot {
    /// What it contains.
    pub applied: Applied,
    /// Names the snapshot; equal ids mean equal content.
    pub id: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The open file: stays readable when a newer snapshot replaces it.
    pub file: Arc<dyn DiskFile>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("id", &self.id).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// Receives the changes that became visible, in revision order, each revision once and whole, beginning behind the
/// revision that was visible at the open. Called by one thread
/// at a time and must not block.
pub trait EventSink: Send + Sync + 'static {
    /// The records of one or more whole revisions, ascending. Lent: mostly nobody waits for them.
    fn publish(&self, records: &[&Record], revision: Revision);
    /// The state was replaced by an installed snapshot: the revisions up to this one that were not published will not
    /// be, and the next one published is the one behind it.
    fn replaced(&self, revision: Revision);
}

/// How much of history one call returns at most; always at least one whole revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangesMax {
    /// Revisions.
    pub revisions: usize,
    /// Bytes of keys and values, with what a record costs beside them.
    pub bytes: usize,
}

/// The changes of a span of revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Ascending, whole revisions. Values may be slices of something larger: copy what is to live long.
    pub records: Vec<Record>,
    /// The last revision of the span (inclusive). May lie beyond the last record's: nothing else happened up to there.
    /// Lies below the first revision asked for when that is in the future.
    pub through: Revision,
    /// The newest revision when the read began.
    pub newest: Revision,
}

/// Where a dump begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The last entry that is in it.
    pub last: Option<LogId>,
    /// When it was sealed.
    pub at: Monotonic,
    /// The compact revision behind which nothing unreadable was left then; 0 when nothing was ever scrubbed.
    pub scrubbed: u64,
}

/// Why a dump was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CancelReason {
    /// Whoever runs the member asked for it.
    Admin,
    /// The member is shut down.
    Shutdown,
    /// A snapshot from the leader replaces the state.
    Install,
    /// It took too long.
    Deadline,
    /// The disk is full.
    NoSpace,
    /// What was written meanwhile took too much memory.
    Overlay,
}

impl CancelReason {
    /// A word for labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Shutdown => "shutdown",
            Self::Install => "install",
            Self::Deadline => "deadline",
            Self::NoSpace => "no_space",
            Self::Overlay => "overlay",
        }
    }
}

impl std::fmt::Display for CancelReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Admin => "it was asked for",
            Self::Shutdown => "the member is shut down",
            Self::Install => "a snapshot from the leader replaced the state",
            Self::Deadline => "it took too long",
            Self::NoSpace => "no space left on the disk of the snapshots",
            Self::Overlay => "too much was written meanwhile for the memory budget",
        })
    }
}

/// The state the dispatcher is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DispatcherState {
    /// Writes flow to the stable store.
    Normal,
    /// The stable store stands still while a snapshot is written; writes collect in the overlay.
    Dumping,
    /// The overlay is merged into the stable store.
    Merging,
    /// A snapshot from the leader replaces the state.
    Installing,
    /// The stable store failed: nothing is applied until a restart, which mostly rebuilds it.
    Poisoned,
}

/// Figures for status and metrics.
#[derive(Debug, Clone)]
pub struct StorageStatus {
    /// What the dispatcher does.
    pub state: DispatcherState,
    /// Why nothing is applied any more, when the state is POISONED.
    pub poisoned: Option<String>,
    /// How far readers see.
    pub visible: Visible,
    /// How far the stable store's content reaches.
    pub stable: Option<LogId>,
    /// How far it is known to be on disk.
    pub durable: Option<LogId>,
    /// The newest snapshot's position.
    pub snapshot: Option<LogId>,
    /// Logical retained bytes (keys, values and fixed costs), equal on all members.
    pub logical_bytes: u64,
    /// Bytes on disk of the stable store.
    pub disk_bytes: u64,
    /// Keys in the index.
    pub keys: usize,
    /// Leases.
    pub leases: LeaseFigures,
    /// Bytes waiting in memtable and overlay, with what an entry costs beside its records.
    pub memtable_bytes: usize,
    /// The memtable that takes new records: the overlay, while dumping and merging.
    pub active: MemtableFigures,
    /// The one that was sealed at the last start or end of a dump, while it goes to the stable store.
    pub frozen: MemtableFigures,
    /// Messages, each a list of entries, that wait for the dispatcher.
    pub queue_messages: usize,
    /// Bytes of entries that wait for the dispatcher or are held back by it.
    pub queue_bytes: usize,
    /// Slices that wait for each worker.
    pub worker_queues: Vec<usize>,
    /// What the dispatcher and its dumps have done.
    pub dispatch: DispatchFigures,
    /// How often evaluation had to wait for the stable store, since the start.
    pub evaluation_reads: u64,
}

/// Leases that there are, and what became of them on this member since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaseFigures {
    /// How many there are.
    pub count: usize,
    /// How many were granted.
    pub granted: u64,
    /// How many were revoked, or ended because their time was over.
    pub ended: u64,
}

/// What is in a memtable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemtableFigures {
    /// Records: one for each change of a key.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// The digest of the history at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryHash {
    /// CRC-32C over the retained records up to `revision`; equal on members with the same compact revision.
    pub hash: u32,
    /// The revision hashed.
    pub revision: Revision,
    /// The compact revision it was hashed with; `None` when nothing was ever compacted.
    pub compact_revision: Option<Revision>,
}
