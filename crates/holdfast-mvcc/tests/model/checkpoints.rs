//! Checkpoints of a member while it goes on, and members that are built from them.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_mvcc::checkpoint::{Loading, Part, Saved, Saving};
use holdfast_mvcc::types::{Record, RecordId, Revision};
use holdfast_mvcc::{Head, State};

use crate::generate::Dice;
use crate::meta;

type Pieces = Vec<(Part, Vec<u8>)>;

/// The checkpoint that is written, the last one that was, and what became of all.
#[derive(Default)]
pub(crate) struct Checkpoints {
    writing: Option<(Saving, Pieces)>,
    written: Option<(Saved, Pieces)>,
    interrupted: usize,
    resumed: usize,
    resumed_compacted: usize,
    stale: usize,
}

impl Checkpoints {
    /// Writes a piece; begins a new one now and then.
    pub(crate) fn step(&mut self, dice: &mut Dice, state: &State) {
        let (saving, pieces) = match &mut self.writing {
            Some(writing) => writing,
            None if dice.once_in(10) => self.writing.insert((Saving::begin(state), Vec::new())),
            None => return,
        };
        let mut piece = Vec::new();
        match saving.piece(state, 1 + dice.below(9) as usize, &mut piece) {
            Ok(Some(part)) => pieces.push((part, piece)),
            Ok(None) => self.written = self.writing.take().map(|(saving, pieces)| (saving.finish(), pieces)),
            Err(_) => {
                self.interrupted += 1;
                self.writing = None;
            }
        }
    }

    /// The state with this head, from the last checkpoint and the records behind it; `None` when there is none that can
    /// be used, which has to have its reason.
    pub(crate) fn resume(
        &mut self,
        dice: &mut Dice,
        head: &Head,
        records: &BTreeMap<RecordId, Record>,
    ) -> Option<State> {
        let (saved, pieces) = self.written.as_ref()?;
        let Ok(mut loading) = Loading::begin(head.clone(), *saved) else {
            assert!(head.compact_revision > Some(saved.since), "{saved:?} fits {head:?}");
            self.stale += 1;
            return None;
        };
        for (part, piece) in pieces {
            loading.add(*part, piece).expect("a whole piece");
        }
        let above = RecordId::new(Revision::new(saved.since.get() + 1), 0);
        let behind: Vec<_> = records.range(above..).map(|(_, record)| meta(record)).collect();
        for some in behind.chunks(1 + dice.below(40) as usize) {
            loading.restore_all(some).expect("records behind it");
        }
        self.resumed += 1;
        self.resumed_compacted += usize::from(head.compact_revision > saved.compact_revision);
        Some(loading.finish().expect("all pieces"))
    }

    /// True when each way to end was seen.
    pub(crate) fn were_tried(&self) -> bool {
        [self.interrupted, self.resumed, self.resumed_compacted, self.stale].iter().all(|count| *count > 0)
    }
}

impl fmt::Display for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interrupted, resumed, resumed_compacted, stale, .. } = self;
        write!(
            f,
            "checkpoints: {resumed} loaded, {resumed_compacted} of them compacted since, {stale} stale, {interrupted} \
             interrupted"
        )
    }
}
