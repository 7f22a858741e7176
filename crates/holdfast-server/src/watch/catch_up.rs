//! Reads history for watchers behind the head, on threads of its own, so that live events never wait for it.

use holdfast_mvcc::command::Refusal;
use holdfast_mvcc::types::{KeyValue, Record, Revision};
use holdfast_storage::{Changes, ChangesMax, ReadError, Storage};
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
    let Changes { records, through, .. } = changes;
    match prev_kv {
        PrevKv::Omitted => Ok(Slice { records, previous: Vec::new(), through }),
        PrevKv::Wanted => with_previous(storage, records, through).map_err(unreadable),
    }
}

/// Reads the states before the changes, lot by lot. They may be much larger than the changes: when they are too many
/// bytes, the slice ends with the revisions that were read, at least one.
fn with_previous(
    storage: &Storage,
    mut records: Vec<Record>,
    mut through: Revision,
) -> Result<Slice, ReadError> {
    let mut previous: Vec<Option<KeyValue>> = Vec::with_capacity(records.len());
    let mut bytes = 0;
    while let Some(next) = records.get(previous.len()) {
        let begins_revision = previous.len().checked_sub(1).map(|last| &records[last]);
        if let Some(before) = begins_revision.filter(|before| before.id.revision < next.id.revision)
            && bytes > limits::WATCH_SLICE_BYTES_MAX
        {
            through = before.id.revision;
            records.truncate(previous.len());
            break;
        }
        let end = end_of_lot(&records, previous.len());
        let lot = storage.previous(&records[previous.len()..end])?;
        bytes += lot.iter().flatten().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
        previous.extend(lot);
    }
    Ok(Slice { records, previous, through })
}

/// Where a lot that begins at `start` ends: with a revision.
fn end_of_lot(records: &[Record], start: usize) -> usize {
    let last = (start + limits::WATCH_PREVIOUS_RECORDS).min(records.len()) - 1;
    let revision = records[last].id.revision;
    last + records[last..].iter().take_while(|record| record.id.revision == revision).count()
}

fn unreadable(error: ReadError) -> Unreadable {
    match error {
        ReadError::Refused(Refusal::Compacted { compact_revision, .. }) => {
            Unreadable::Compacted(Some(compact_revision))
        }
        other => Unreadable::Store(other.to_string()),
    }
}
