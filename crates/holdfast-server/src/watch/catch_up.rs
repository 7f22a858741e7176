//! Reads history for watchers behind the head, on threads of its own, so that live events never wait for it.

use holdfast_mvcc::command::Refusal;
use holdfast_mvcc::types::{KeyValue, Record, Revision};
use holdfast_storage::{ChangesMax, ReadError, Storage};
use holdfast_watch::{Group, PrevKv};
use tokio::sync::mpsc;

use crate::limits;

/// Something to read.
pub(super) struct Task {
    /// Who it is for.
    pub(super) group: Group,
    /// Whether the states before the changes are wanted.
    pub(super) prev_kv: PrevKv,
}

/// What was read.
pub(super) struct Read {
    /// Which reader did it.
    pub(super) reader: usize,
    /// Who it is for.
    pub(super) group: Group,
    /// The changes, or why there are none.
    pub(super) result: Result<Slice, Unreadable>,
}

/// Changes of whole revisions.
pub(super) struct Slice {
    /// Ascending.
    pub(super) records: Vec<Record>,
    /// The states before them, if wanted.
    pub(super) previous: Vec<Option<KeyValue>>,
    /// How far they reach.
    pub(super) through: Revision,
}

/// Why there are no changes.
pub(super) enum Unreadable {
    /// The first revision is gone; `None`: it never was, and nothing was ever compacted.
    Compacted(Option<Revision>),
    /// The store failed.
    Store(String),
}

/// Reads what it is told to, until nobody tells it any more.
pub(super) async fn run(
    reader: usize,
    storage: Storage,
    mut tasks: mpsc::Receiver<Task>,
    done: mpsc::Sender<Read>,
) {
    while let Some(Task { group, prev_kv }) = tasks.recv().await {
        let result = read(&storage, group.from, prev_kv);
        if done.send(Read { reader, group, result }).await.is_err() {
            return;
        }
    }
}

fn read(storage: &Storage, from: Revision, prev_kv: PrevKv) -> Result<Slice, Unreadable> {
    let max =
        ChangesMax { revisions: limits::WATCH_SLICE_REVISIONS_MAX, bytes: limits::WATCH_SLICE_BYTES_MAX };
    let changes = storage.changes(from.max(Revision::FRESH), max).map_err(unreadable)?;
    if from == Revision::NONE {
        return Err(Unreadable::Compacted(None));
    }
    let previous = match prev_kv {
        PrevKv::Omitted => Vec::new(),
        PrevKv::Wanted => storage.previous(&changes.records).map_err(unreadable)?,
    };
    Ok(Slice { records: changes.records, previous, through: changes.through })
}

fn unreadable(error: ReadError) -> Unreadable {
    match error {
        ReadError::Refused(Refusal::Compacted { compact_revision, .. }) => {
            Unreadable::Compacted(Some(compact_revision))
        }
        other => Unreadable::Store(other.to_string()),
    }
}
