//! The stable store, the snapshot store and the dispatcher: everything between a committed log entry and a reader.
//!
//! # What it does
//! Entries of the Raft log are [dispatched](Storage::dispatch) in order. The dispatcher evaluates them serially
//! against the key index; workers encode the records that come out and put them into a memtable; in log order they
//! become visible, are answered and published; behind that, a committer stores contiguous prefixes in an engine
//! (`sled`, `redb` or memory), each atomically with its position in the log. An answer never waits for the engine.
//!
//! Truth is the log plus the newest snapshot. The stable store is a view of them: it may be behind, and it is thrown
//! away and rebuilt when it is damaged.
//!
//! # What it is not
//! It knows nothing of consensus, of clients, or of the meaning of commands (that is `holdfast-mvcc`). Watches get
//! their events from it ([`EventSink`]), but are served elsewhere.
//!
//! # States
//! ```text
//! NORMAL ─dump requested─► DUMPING ─snapshot durable─► MERGING ─overlay stored─► NORMAL
//! any ─snapshot from the leader─► INSTALLING ─► NORMAL          any ─engine fails─► POISONED
//! ```
//! To dump, the memtable is sealed and an overlay takes its place with one pointer swap; the committer drains what was
//! sealed, flushes, and writes the store out while nothing is written to it. Writes go on all the time.
//!
//! # Invariants
//! - The stable store is exactly the log up to its position: never some keys ahead of others.
//! - The newest snapshot is durable and verified, and not ahead of what the store had flushed when it was written.
//! - All changes of a revision become visible together, in order; the visible revision never steps back.
//! - While DUMPING, from "drained" to "finish", nothing is written to the engine.
//! - A generation is replaced by its copy only between two commits, when both hold the same, durably.
//! - Who is let in to read at a revision finds it, whole, until it leaves.
//! - Queues are bounded: in bytes where entries are, in number elsewhere.
//!
//! # Module map
//! `storage` the handle; `open` the start; `pipeline` the loops and their states; `read` ranges and hashes; `changes`
//! and `ring` what watches read; `gate` who may read what; `view`, `memtable` where values are; `stable` records over an `engine`; `pack`, `record`, `codec` the
//! written forms; `lease` that of leases, and who follows them; `auth` that of users and roles, and who sees them; `checkpoint`
//! the index's, for a fast start; `generation` the engine's directories; `snapshot` dump, file, install and founding; `export`
//! all history while writes go on; `retention` what a
//! compaction leaves.

mod auth;
mod changes;
mod checkpoint;
mod codec;
mod config;
mod engine;
mod error;
mod export;
mod figures;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod generation;
mod lanes;
mod lease;
mod limits;
mod memtable;
mod open;
mod pack;
mod pieces;
mod pipeline;
mod read;
mod record;
mod retention;
mod ring;
mod snapshot;
mod stable;
mod storage;
#[cfg(test)]
mod tests;
mod types;
mod view;
mod weight;

#[cfg(test)]
extern crate self as holdfast_storage;

pub use auth::IssuedToken;
pub use config::{EngineKind, StorageConfig};
pub use error::{ExportError, ReadError, StorageError};
pub use export::Export;
pub use figures::{
    CheckpointEnd, CheckpointFigures, CommitFigures, DispatchFigures, DumpEnd, DumpResult, IndexSource,
    OverlayReads, PressureLevel, TIME_BUCKETS, Times, Transition,
};
pub use pieces::{PieceRequest, ReadPiece};
pub use snapshot::founding::Founding;
pub use snapshot::install::IncomingSnapshot;
pub use storage::Storage;
pub use types::{
    Answer, Applied, CancelReason, Changes, ChangesMax, DispatchBody, DispatchItem, DispatcherState,
    EventSink, HistoryHash, LeaseFigures, MemtableFigures, Seal, Snapshot, StorageStatus, Visible,
};
