//! The written form of index and logical size, so that a start need not read the metadata of the whole history.
//!
//! # A checkpoint is not as of one revision
//! It is written in pieces, while the state moves on between them ([`Saving`]). Each key is as it was when its piece was
//! written: at [`Saved::since`] or later. The logical size is as of [`Saved::through`], behind the last key. Whoever
//! loads it ([`Loading`]) adds the records above `since`, in order, and passes over those of a key that it holds already;
//! from `through` on records count in the size, too. So nothing stands still while a checkpoint is written.
//!
//! What a compaction takes away meanwhile is the one thing that cannot be told apart afterwards: it ends the attempt. One
//! that comes later and stays at or below `since` is made up for when loading; beyond that, records are missing that
//! would have to be added.
//!
//! Leases are not in it: what is attached to which is, with the keys, and the rest is small.
//!
//! # Trust
//! What is loaded may be damaged in ways that a checksum of its bytes does not find. Nothing here panics because of it:
//! each step says [`Unusable`] when what it reads cannot be, and the end compares the sum over keys and garbage with the
//! logical size that was written.

use std::fmt;

use crate::index::{Entry, EntryPut, History};
use crate::size::{LogicalSize, Queue, record_bytes};
use crate::state::{Head, RecordMeta, State, by_key};
use crate::types::Revision;

/// Chunks of garbage in one piece, of 4 KiB at most.
const PIECE_CHUNKS: usize = 8;

/// What a checkpoint consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Keys with their records, ascending.
    Keys,
    /// What the puts that were replaced are going to give back.
    ReplacedPuts,
    /// The same of tombstones.
    Tombstones,
}

/// What a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Every record up to this revision (inclusive) that is retained is in it.
    pub since: Revision,
    /// No record above this one is, and the size is as of it.
    pub through: Revision,
    /// The compact revision.
    pub compact_revision: Option<Revision>,
    /// The logical bytes of the records.
    pub logical_bytes: u64,
}

/// A checkpoint that cannot be used, and why. The state must be built from its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable(&'static str);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Unusable {}

/// A checkpoint on its way out.
#[derive(Debug)]
pub struct Saving {
    saved: Saved,
    step: Step,
}

/// Where to go on.
#[derive(Debug)]
enum Step {
    Keys(Option<Box<[u8]>>),
    Garbage(Queue, usize),
    Done,
}

impl Saving {
    /// Of this state.
    pub fn begin(state: &State) -> Self {
        let Head { revision, compact_revision, .. } = *state.head();
        let saved = Saved { since: revision, through: revision, compact_revision, logical_bytes: 0 };
        Self { saved, step: Step::Keys(None) }
    }

    /// Appends the next piece, of at most `keys_max` keys; answers what it belongs to, or `None` at the end. Pieces that
    /// follow each other may be joined when they belong to the same part.
    ///
    /// # Errors
    /// The state was compacted since the beginning.
    pub fn piece(
        &mut self,
        state: &State,
        keys_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Part>, Unusable> {
        if state.head().compact_revision != self.saved.compact_revision {
            return Err(Unusable("a compaction came in between"));
        }
        let step = std::mem::replace(&mut self.step, Step::Done);
        let (part, next) = match step {
            Step::Keys(after) => {
                let compact_revision = self.saved.compact_revision;
                match state.index.save(compact_revision, after.as_deref(), keys_max, out) {
                    Some(last) => (Part::Keys, Step::Keys(Some(last))),
                    None => {
                        self.saved.through = state.head().revision;
                        self.saved.logical_bytes = state.size().total();
                        (Part::Keys, Step::Garbage(Queue::ReplacedPuts, 0))
                    }
                }
            }
            Step::Garbage(queue, from) => {
                let to = from + PIECE_CHUNKS;
                let is_more =
                    (from..to).all(|chunk| state.size().save(queue, chunk, self.saved.through, out));
                match (queue, is_more) {
                    (_, true) => (part_of(queue), Step::Garbage(queue, to)),
                    (Queue::ReplacedPuts, false) => (part_of(queue), Step::Garbage(Queue::Tombstones, 0)),
                    (Queue::Tombstones, false) => (part_of(queue), Step::Done),
                }
            }
            Step::Done => return Ok(None),
        };
        self.step = next;
        Ok(Some(part))
    }

    /// What was written, once the last piece was.
    pub fn finish(self) -> Saved {
        assert!(matches!(self.step, Step::Done), "a checkpoint is whole or nothing");
        self.saved
    }
}

fn part_of(queue: Queue) -> Part {
    match queue {
        Queue::ReplacedPuts => Part::ReplacedPuts,
        Queue::Tombstones => Part::Tombstones,
    }
}

/// A checkpoint on its way in.
#[derive(Debug)]
pub struct Loading {
    state: State,
    saved: Saved,
    /// The key that was added last.
    last: Vec<u8>,
    /// The logical bytes of the newest puts of all keys.
    live_bytes: u64,
}

impl Loading {
    /// Of a checkpoint that says this of itself, for the state with this head.
    ///
    /// # Errors
    /// It does not belong to the head: it is ahead of it, or a compaction has come as far as it.
    pub fn begin(head: Head, saved: Saved) -> Result<Self, Unusable> {
        let Saved { since, through, compact_revision, logical_bytes } = saved;
        if through > head.revision || compact_revision > head.compact_revision {
            return Err(Unusable("it is ahead of the store"));
        }
        if head.compact_revision > Some(since) {
            return Err(Unusable("a compaction has passed it"));
        }
        if since > through || compact_revision > Some(since) || logical_bytes > u64::MAX / 2 {
            return Err(Unusable("it contradicts itself"));
        }
        let mut state = State::with_head(head);
        *state.size_mut() = LogicalSize::of(logical_bytes);
        Ok(Self { state, saved, last: Vec::new(), live_bytes: 0 })
    }

    /// Adds pieces of one part, in the order in which they were written.
    ///
    /// # Errors
    /// They are not what was written.
    pub fn add(&mut self, part: Part, mut pieces: &[u8]) -> Result<(), Unusable> {
        let through = self.saved.through;
        while !pieces.is_empty() {
            match part {
                Part::Keys => {
                    let added = self.state.index.load(&mut self.last, through, &mut pieces);
                    self.live_bytes += added.ok_or(Unusable("a key cannot be read"))?;
                }
                Part::ReplacedPuts | Part::Tombstones => {
                    let queue =
                        if part == Part::Tombstones { Queue::Tombstones } else { Queue::ReplacedPuts };
                    let added = self.state.size_mut().load(queue, through, &mut pieces);
                    added.ok_or(Unusable("a piece of the size cannot be read"))?;
                }
            }
        }
        Ok(())
    }

    /// Adds records above [`Saved::since`], once all parts are there; ascending by id, and without a gap to what was
    /// added before.
    ///
    /// # Errors
    /// They do not follow what is there.
    pub fn restore_all(&mut self, records: &[RecordMeta]) -> Result<(), Unusable> {
        let mut replaced = vec![None; records.len()];
        for place in by_key(records) {
            replaced[place] = self.restore(&records[place])?;
        }
        for (record, replaced) in records.iter().zip(replaced) {
            // The size has those before.
            if record.id.revision > self.saved.through {
                self.state.count(&record.key, record.id, record.put.as_ref(), replaced);
            }
        }
        Ok(())
    }

    fn restore(&mut self, record: &RecordMeta) -> Result<Option<u32>, Unusable> {
        assert!(record.id.revision > self.saved.since, "what lies before is in the checkpoint");
        let history = self.state.index.get(&record.key);
        if let Some(history) = history
            && record.id <= history.newest().id
        {
            // The key was written down after this had happened.
            return match history.is_retained(record.id, None) {
                true => Ok(None),
                false => Err(Unusable("a record is missing")),
            };
        }
        if !follows(history.map(History::newest), record) {
            return Err(Unusable("a record does not follow the one before"));
        }
        let replaced = self.state.index.push(&record.key, record.id, record.put.as_ref());
        self.live_bytes -= replaced.map_or(0, |replaced| record_bytes(&record.key, replaced));
        self.live_bytes += record.put.map_or(0, |put| record_bytes(&record.key, put.value_bytes));
        Ok(replaced)
    }

    /// The state, once all records up to the head are there.
    ///
    /// # Errors
    /// The sum of what was loaded is not the logical size.
    pub fn finish(mut self) -> Result<State, Unusable> {
        let size = self.state.size_mut();
        if size.total() != self.live_bytes + size.garbage() {
            return Err(Unusable("its keys do not have the size that it says"));
        }
        let compact_revision = self.state.head().compact_revision;
        if let Some(compact_revision) = compact_revision
            && self.saved.compact_revision != Some(compact_revision)
        {
            self.state.size_mut().compact(compact_revision);
            // The store may be cleaned up already: nobody else would do it.
            self.state.index.drop_compacted(compact_revision, None, usize::MAX);
        }
        Ok(self.state)
    }
}

/// True when a record can come behind the newest one of its key.
fn follows(newest: Option<Entry>, record: &RecordMeta) -> bool {
    match (newest.and_then(|newest| newest.put), record.put) {
        (Some(EntryPut { create_revision, version, .. }), Some(put)) => {
            put.create_revision == create_revision && put.version == version + 1
        }
        (None, Some(put)) => put.create_revision == record.id.revision && put.version == 1,
        (Some(_), None) => true,
        (None, None) => false,
    }
}
