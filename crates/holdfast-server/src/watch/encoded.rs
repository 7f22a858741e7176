//! The changes of one batch as bytes for responses: made when the first watcher wants them, shared by all that do.

use bytes::{Bytes, BytesMut};
use holdfast_mvcc::types::{Change, KeyValue, Record, Revision};
use holdfast_storage::Storage;
use holdfast_watch::PrevKv;

use crate::codec::watch::put_event;
use crate::limits;

/// Where the states before the changes come from.
pub(super) enum Previous<'a> {
    /// Looked up in memory when they are wanted.
    Live(&'a Storage),
    /// Read already, in the records' order; empty when no watcher wanted them.
    Read(Vec<Option<KeyValue>>),
}

/// The state before a change cannot be had at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAtHand;

/// A batch's records and their bytes.
pub(super) struct Encoded<'a> {
    records: &'a [Record],
    previous: Previous<'a>,
    plain: Vec<Option<Bytes>>,
    with_previous: Vec<Option<Bytes>>,
    /// Bytes in `with_previous`.
    with_previous_bytes: usize,
    /// The last selection of several records: watchers of the same keys come one after the other.
    last: Option<Selection>,
}

struct Selection {
    prev_kv: PrevKv,
    records: Vec<usize>,
    bytes: Bytes,
}

impl<'a> Encoded<'a> {
    pub(super) fn new(records: &'a [Record], previous: Previous<'a>) -> Self {
        Self {
            records,
            previous,
            plain: vec![None; records.len()],
            with_previous: vec![None; records.len()],
            with_previous_bytes: 0,
            last: None,
        }
    }

    /// The first and the last revision of these records, of which there is one at least.
    pub(super) fn span(&self, selected: &[usize]) -> (Revision, Revision) {
        let revision = |at: Option<&usize>| at.map_or(Revision::NONE, |at| self.records[*at].id.revision);
        (revision(selected.first()), revision(selected.last()))
    }

    /// The bytes of these records, one behind the other.
    ///
    /// Errors: what was before is not in memory, or too much for one turn: it has to be read as history.
    pub(super) fn select(&mut self, prev_kv: PrevKv, selected: &[usize]) -> Result<Bytes, NotAtHand> {
        if let [at] = selected {
            return self.event(prev_kv, *at);
        }
        if let Some(last) = &self.last
            && last.prev_kv == prev_kv
            && last.records == selected
        {
            return Ok(last.bytes.clone());
        }
        let mut buffer = BytesMut::new();
        let (first, last) = self.span(selected);
        for at in selected {
            // One revision goes out whole, whatever its size.
            if self.with_previous_bytes > limits::WATCH_SLICE_BYTES_MAX && first < last && self.is_live() {
                return Err(NotAtHand);
            }
            buffer.extend_from_slice(&self.event(prev_kv, *at)?);
        }
        let bytes = buffer.freeze();
        self.last = Some(Selection { prev_kv, records: selected.to_vec(), bytes: bytes.clone() });
        Ok(bytes)
    }

    fn is_live(&self) -> bool {
        matches!(self.previous, Previous::Live(_))
    }

    fn event(&mut self, prev_kv: PrevKv, at: usize) -> Result<Bytes, NotAtHand> {
        let record = &self.records[at];
        if prev_kv == PrevKv::Omitted || is_creation(record) {
            let bytes = self.plain[at].get_or_insert_with(|| encode(record, None));
            return Ok(bytes.clone());
        }
        if let Some(bytes) = &self.with_previous[at] {
            return Ok(bytes.clone());
        }
        let previous = match &mut self.previous {
            Previous::Read(read) => read.get_mut(at).and_then(Option::take),
            Previous::Live(storage) => storage.previous_if_hot(record).ok_or(NotAtHand)?,
        };
        let bytes = encode(record, previous);
        self.with_previous_bytes += bytes.len();
        self.with_previous[at] = Some(bytes.clone());
        Ok(bytes)
    }
}

fn encode(record: &Record, previous: Option<KeyValue>) -> Bytes {
    let mut buffer = BytesMut::new();
    put_event(&mut buffer, record, previous);
    buffer.freeze()
}

fn is_creation(record: &Record) -> bool {
    matches!(&record.change, Change::Put(put) if put.create_revision == record.id.revision)
}
