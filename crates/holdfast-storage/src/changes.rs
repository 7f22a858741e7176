//! History for watches: all changes from a revision on, and what a key was before a change.

use holdfast_mvcc::types::{Change, KeyRange, KeyValue, PutRecord, RangeEnd, Record, RecordId, Revision};
use holdfast_mvcc::{IndexedKey, State};

use crate::error::{ReadError, StoreError};
use crate::limits::LOCK_KEYS_MAX;
use crate::pipeline::shared::Shared;
use crate::read::{Entered, enter, failed};
use crate::stable::{Stable, following};
use crate::types::{Changes, ChangesMax};
use crate::view::{ValueReader, View};

/// What a record costs in memory beside its bytes.
const RECORD_BYTES: usize = size_of::<Record>();

/// All changes from a revision on, in whole revisions.
pub(crate) fn changes(shared: &Shared, from: Revision, max: ChangesMax) -> Result<Changes, ReadError> {
    let Entered { view, pin } = enter(shared, |gate| gate.enter_from(from))?;
    let newest = pin.window.newest;
    if from > newest {
        return Ok(Changes { records: Vec::new(), through: Revision::new(from.get() - 1), newest });
    }
    let mut gathered = Gathered::new(max);
    let gathering = gather(shared, &view, RecordId::new(from, 0), newest, &mut gathered);
    gathering.map_err(|e| failed(shared, &view, &e))?;
    let through = gathered.refused.map_or(newest, |refused| Revision::new(refused.get() - 1));
    Ok(Changes { records: gathered.records, through, newest })
}

/// Takes changes up to `newest`, from the stable store and then from the ring, until there is no room.
fn gather(
    shared: &Shared,
    view: &View,
    mut next: RecordId,
    newest: Revision,
    gathered: &mut Gathered,
) -> Result<(), StoreError> {
    while next.revision <= newest {
        if let Some(page) = view.ring.page(next, LOCK_KEYS_MAX) {
            let Some(last) = page.last() else { return Ok(()) };
            next = following(last.record.id);
            let visible = page.iter().take_while(|stored| stored.record.id.revision <= newest);
            if gathered.add_all(visible.map(|stored| stored.record.clone())) == Room::None {
                return Ok(());
            }
            continue;
        }
        // What has left the ring is whole in the store; of what is still in it, the store may have a part.
        let before = view.ring.from().min(newest.next());
        // The scrub must not replace a run while its two packs are read.
        let no_scrub = shared.scrubbing.read();
        let page = stored_page(view.generation.stable(), next, before, gathered.bytes_left())?;
        drop(no_scrub);
        next = page.last().map_or(RecordId::new(before, 0), |last| following(last.id));
        if gathered.add_all(page.into_iter()) == Room::None {
            return Ok(());
        }
    }
    Ok(())
}

/// The next records of the stable store from `next` on, below the revision `before`; empty when there are none.
pub(crate) fn stored_page(
    stable: &Stable,
    next: RecordId,
    before: Revision,
    bytes: usize,
) -> Result<Vec<Record>, StoreError> {
    let mut from = stable.run_of(next)?;
    loop {
        let page = stable.runs(from, stable.page_of(bytes))?;
        let Some(last) = page.last() else { return Ok(Vec::new()) };
        from = following(last.run.first);
        let is_last = from.revision >= before;
        let mut records = Vec::new();
        for placed in page {
            let all = placed.run.records()?.into_iter();
            records.extend(all.filter(|record| record.id >= next && record.id.revision < before));
        }
        if is_last || !records.is_empty() {
            return Ok(records);
        }
    }
}

/// Whole revisions up to a bound, of which at least one is taken.
struct Gathered {
    max: ChangesMax,
    records: Vec<Record>,
    bytes: usize,
    revisions: usize,
    /// Where the newest revision begins, and which one it is.
    newest: (usize, Revision),
    /// The first revision there was no room for.
    refused: Option<Revision>,
}

#[derive(PartialEq, Eq)]
enum Room {
    Left,
    None,
}

impl Gathered {
    fn new(max: ChangesMax) -> Self {
        let newest = (0, Revision::NONE);
        Self { max, records: Vec::new(), bytes: 0, revisions: 0, newest, refused: None }
    }

    fn bytes_left(&self) -> usize {
        self.max.bytes.saturating_sub(self.bytes)
    }

    fn add_all(&mut self, records: impl Iterator<Item = Record>) -> Room {
        for record in records {
            let revision = record.id.revision;
            if revision != self.newest.1 {
                self.newest = (self.records.len(), revision);
                self.revisions += 1;
            }
            self.bytes += bytes(&record);
            let is_too_much = self.revisions > self.max.revisions || self.bytes > self.max.bytes;
            if is_too_much && self.revisions > 1 {
                self.records.truncate(self.newest.0);
                self.refused = Some(revision);
                return Room::None;
            }
            self.records.push(record);
        }
        Room::Left
    }
}

fn bytes(record: &Record) -> usize {
    let value = match &record.change {
        Change::Put(put) => put.value.len(),
        Change::Delete => 0,
    };
    RECORD_BYTES + record.key.len() + value
}

/// The state of each record's key just before it; `None` for a creation, and when history has it no more.
pub(crate) fn previous(shared: &Shared, records: &[Record]) -> Result<Vec<Option<KeyValue>>, ReadError> {
    let Entered { view, pin } = enter(shared, |gate| Ok(gate.enter_window()))?;
    let compact_revision = pin.window.compact_revision;
    let mut found: Vec<(usize, IndexedKey)> = Vec::new();
    for start in (0..records.len()).step_by(LOCK_KEYS_MAX) {
        let end = records.len().min(start + LOCK_KEYS_MAX);
        let state = view.state.read();
        let before = |place| Some((place, key_before(&state, compact_revision, &records[place])?));
        found.extend((start..end).filter_map(before));
    }
    // Neighbours in the stable store lie in one pack, which is then read once.
    found.sort_unstable_by_key(|(_, key)| key.id);
    let mut values = ValueReader::new(&view, &shared.cache);
    let mut previous = vec![None; records.len()];
    for (place, key) in found {
        let put = values.put(&key.key, key.id);
        let put = put.map_err(|e| failed(shared, &view, &e))?;
        previous[place] = Some(key_value(key, put));
    }
    Ok(previous)
}

/// As [`previous`] for one record, from memory alone: the outer `None` says that the value is not there. Waits for the
/// index no longer than one slice is evaluated.
pub(crate) fn previous_if_hot(shared: &Shared, record: &Record) -> Option<Option<KeyValue>> {
    if is_creation(record) {
        return Some(None);
    }
    let Entered { view, pin } = enter(shared, |gate| Ok(gate.enter_window())).ok()?;
    let before = {
        let state = view.state.read();
        key_before(&state, pin.window.compact_revision, record)
    };
    let Some(key) = before else { return Some(None) };
    let put = view.hot(&shared.cache, &key.key, key.id)?;
    Some(Some(key_value(key, put)))
}

fn key_before(state: &State, compact_revision: Option<Revision>, record: &Record) -> Option<IndexedKey> {
    let at = Revision::new(record.id.revision.get().checked_sub(1)?);
    if is_creation(record) || Some(at) < compact_revision {
        return None;
    }
    let range = KeyRange { start: record.key.clone(), end: RangeEnd::Single };
    state.chunk(&range, None, at, 1).keys.pop()
}

fn is_creation(record: &Record) -> bool {
    matches!(&record.change, Change::Put(put) if put.version == 1)
}

fn key_value(key: IndexedKey, put: PutRecord) -> KeyValue {
    KeyValue {
        key: key.key,
        create_revision: put.create_revision,
        mod_revision: key.id.revision,
        version: put.version,
        lease: put.lease,
        value: put.value,
    }
}
