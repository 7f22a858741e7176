//! The crate against a naive model, on random commands.
//!
//! `HOLDFAST_SEED` and `HOLDFAST_COMMANDS` choose another run; a failure prints the line that reproduces it.
#![allow(clippy::cast_possible_truncation, reason = "the model's numbers are small")]

mod announced;
mod checkpoints;
mod generate;
mod naive;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use bytes::Bytes;
use holdfast_mvcc::command::{Command, Invalid, Op, Range, Response, SortOrder, SortTarget, Txn};
use holdfast_mvcc::types::{Change, EntryId, KeyRange, LogIndex, PutRecord, Record, RecordId, Revision};
use holdfast_mvcc::{
    HistoryHasher, IndexChunk, IndexCount, PieceMax, PutMeta, RangeSource, RecordMeta, State, Values, count,
    piece, range, read_txn, validate,
};
use proptest::prelude::*;

use checkpoints::Checkpoints;
use generate::{Aim, Dice};
use naive::Model;

const TXN_OPS_MAX: usize = 5;

/// Every record ever written, retained or not.
#[derive(Default)]
struct Store {
    records: BTreeMap<RecordId, Record>,
    asked: Vec<RecordId>,
}

impl Values for Store {
    type Error = Infallible;
    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        self.asked.push(id);
        let record = &self.records[&id];
        assert_eq!(record.key, key);
        let Change::Put(put) = &record.change else { panic!("only puts are asked for") };
        Ok(put.clone())
    }
}

/// The newest state and old ones, as a reader beside the dispatcher sees them; in small steps.
struct Reader<'a> {
    state: &'a State,
    store: &'a mut Store,
    step: usize,
}

impl RangeSource for Reader<'_> {
    type Error = Infallible;
    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, Infallible> {
        Ok(self.state.chunk(range, after, at, keys_max.min(self.step)))
    }
    fn count(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexCount, Infallible> {
        Ok(self.state.count_keys(range, after, at, keys_max.min(self.step)))
    }
    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        self.store.record(key, id)
    }
}

/// The model, and members that apply the same commands but clean up differently.
struct Run {
    model: Model,
    /// Cleans up a little now and then.
    tidy: State,
    /// Never cleans up.
    messy: State,
    /// Is thrown away and rebuilt now and then.
    rebuilt: State,
    /// Is thrown away and built from a checkpoint and what follows it, now and then.
    resumed: State,
    checkpoints: Checkpoints,
    tidied: Option<Bytes>,
    /// The compaction that it is tidied for: later ones wait until that is done.
    tidied_for: Option<Revision>,
    store: Store,
    accepted: u64,
    /// Entries so far.
    entries: u64,
}

fn meta(record: &Record) -> RecordMeta {
    let put = match &record.change {
        Change::Put(put) => Some(PutMeta {
            create_revision: put.create_revision,
            version: put.version,
            lease: put.lease,
            value_bytes: put.value.len() as u32,
        }),
        Change::Delete => None,
    };
    RecordMeta { id: record.id, key: record.key.clone(), put }
}

impl Run {
    fn new() -> Self {
        Self {
            model: Model::new(),
            tidy: State::new(),
            messy: State::new(),
            rebuilt: State::new(),
            resumed: State::new(),
            checkpoints: Checkpoints::default(),
            tidied: None,
            tidied_for: None,
            store: Store::default(),
            accepted: 0,
            entries: 0,
        }
    }

    fn aim(&self) -> Aim<'_> {
        Aim {
            revision: self.model.revision,
            compact_revision: self.model.compact_revision.unwrap_or(0),
            leases: &self.model.leases,
        }
    }

    fn step(&mut self, seed: u64) {
        let mut dice = Dice::new(seed);
        let command = generate::command(&mut dice, self.aim());
        self.check_validation(&command);
        if validate::validate(&command, TXN_OPS_MAX).is_ok() {
            self.accepted += 1;
            self.evaluate(&command);
        }
        self.read(&mut dice);
        if dice.once_in(3) {
            self.read_txn(&mut dice);
        }
        if dice.once_in(4) {
            let keys = 1 + dice.below(5) as usize;
            self.tidy_some(keys);
        }
        if dice.once_in(2) {
            self.checkpoints.step(&mut dice, &self.tidy);
        }
        if dice.once_in(40)
            && let Some(mut resumed) =
                self.checkpoints.resume(&mut dice, self.messy.head(), &self.store.records)
        {
            resumed.restore_leases(self.messy.leases());
            self.resumed = resumed;
        }
        if dice.once_in(200) {
            self.rebuild(&mut dice);
            self.check_states();
        }
    }

    fn entry(&self) -> EntryId {
        EntryId { term: naive::TERM, index: LogIndex(self.entries) }
    }

    fn tidy_some(&mut self, keys: usize) {
        let newest = self.tidy.head().compact_revision;
        let begun = self.tidied_for.filter(|_| self.tidied.is_some());
        let Some(compact_revision) = begun.or(newest) else { return };
        self.tidied_for = Some(compact_revision);
        self.tidied = self.tidy.drop_compacted(compact_revision, self.tidied.as_ref(), keys);
    }

    fn evaluate(&mut self, command: &Command) {
        self.entries += 1;
        let entry = self.entry();
        let expected = self.model.apply(command, entry);
        let needed: BTreeSet<_> =
            self.tidy.needed_values(command, usize::MAX).into_iter().map(|(_, id)| id).collect();
        for state in [&mut self.tidy, &mut self.messy, &mut self.rebuilt, &mut self.resumed] {
            self.store.asked.clear();
            let Ok(outcome) = state.evaluate(entry, command, &mut self.store);
            assert_eq!(outcome, expected, "{command:?}");
            let is_foreseen = self.store.asked.iter().all(|id| needed.contains(id));
            assert!(is_foreseen || has_limited_range(command), "not foreseen: {command:?}");
            let is_retained = |id: &RecordId| state.is_retained(&self.store.records[id].key, *id);
            assert!(self.store.asked.iter().all(is_retained), "{command:?}");
        }
        self.store.records.extend(expected.records.into_iter().map(|record| (record.id, record)));
        self.check_leases();
    }

    fn check_leases(&self) {
        let alive = &self.model.maps[&self.model.revision];
        for state in [&self.tidy, &self.messy, &self.rebuilt, &self.resumed] {
            assert!(state.leases().eq(self.model.leases.iter().map(|(id, lease)| (*id, *lease))));
            for id in self.model.leases.keys() {
                let keys = alive.values().filter(|kv| kv.lease == Some(*id)).map(|kv| &kv.key[..]);
                assert!(state.attached_keys(*id).eq(keys), "{id:?}");
            }
            assert_eq!(state.missing_lease(), None);
        }
    }

    fn check_validation(&self, command: &Command) {
        let Command::Txn(txn) = command else { return };
        match validate::validate(command, TXN_OPS_MAX) {
            Ok(()) => assert!(!naive::has_overlap(txn), "{txn:?}"),
            Err(Invalid::DuplicateKey) => assert!(naive::has_overlap(txn), "{txn:?}"),
            Err(_) => {}
        }
    }

    fn read(&mut self, dice: &mut Dice) {
        let request = generate::range(dice, self.aim());
        let state = [&self.tidy, &self.messy, &self.rebuilt, &self.resumed][dice.below(4) as usize];
        let mut reader = Reader { state, store: &mut self.store, step: 1 + dice.below(9) as usize };
        let at = state.resolve(request.at);
        assert_eq!(at, self.model.resolve(request.at).map(Revision::new));
        if let Ok(at) = at {
            let Ok(answer) = announced::range(&mut reader, &request, at);
            let expected = self.model.range(&self.model.maps[&at.get()], &request);
            assert_eq!(answer, expected, "{request:?}");
            if request.order != SortOrder::Descend && request.target == SortTarget::Key {
                check_pieces(&mut reader, dice, &request, at);
            }
        }
    }

    fn read_txn(&mut self, dice: &mut Dice) {
        let txn = generate::read_only_txn(dice, self.aim());
        let state = [&self.tidy, &self.messy, &self.rebuilt, &self.resumed][dice.below(4) as usize];
        let mut reader = Reader { state, store: &mut self.store, step: 1 + dice.below(9) as usize };
        let Ok(answer) = read_txn(&mut reader, &txn, state.window());
        let expected = self.model.apply(&Command::Txn(txn.clone()), self.entry());
        assert_eq!(answer.map(Response::Txn), expected.response, "{txn:?}");
    }

    /// Rebuilds a member from what its stable store may hold: all that is retained, and some of what is not. A put
    /// outlives the tombstone behind it in no store.
    fn rebuild(&mut self, dice: &mut Dice) {
        let retained: BTreeSet<RecordId> = self.model.records.iter().map(|record| record.id).collect();
        let has_leftovers = dice.once_in(2);
        let mut ended: BTreeSet<&Bytes> = BTreeSet::new();
        let mut kept = Vec::new();
        for record in self.store.records.values().rev() {
            let is_leftover = has_leftovers && !ended.contains(&record.key) && !dice.once_in(3);
            if retained.contains(&record.id) || is_leftover {
                kept.push(meta(record));
            } else if record.change == Change::Delete {
                ended.insert(&record.key);
            }
        }
        self.rebuilt = State::with_head(self.messy.head().clone());
        let leases_first = dice.once_in(2);
        if leases_first {
            self.rebuilt.restore_leases(self.messy.leases());
        }
        kept.reverse();
        for some in kept.chunks(1 + dice.below(40) as usize) {
            if dice.once_in(2) {
                self.rebuilt.restore_all(some);
            } else {
                some.iter().for_each(|record| self.rebuilt.restore(record));
            }
        }
        if !leases_first {
            self.rebuilt.restore_leases(self.messy.leases());
        }
    }

    fn check_states(&mut self) {
        let retained: BTreeSet<RecordId> = self.model.records.iter().map(|record| record.id).collect();
        let bytes: usize = self.model.records.iter().map(|record| 64 + weight(record)).sum();
        let mut hashes = Vec::new();
        for state in [&self.tidy, &self.messy, &self.rebuilt, &self.resumed] {
            let mut hasher = HistoryHasher::new();
            for (id, record) in &self.store.records {
                assert_eq!(state.is_retained(&record.key, *id), retained.contains(id), "{record:?}");
                if state.is_retained(&record.key, *id) {
                    hasher.record(record);
                }
            }
            assert_eq!(state.logical_bytes(), (bytes + 64 * self.model.leases.len()) as u64);
            hashes.push((state.digest(), hasher.finish()));
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
        self.forget(&retained);
    }

    /// Keeps the store small: what was dropped long ago is of no use as a leftover.
    fn forget(&mut self, retained: &BTreeSet<RecordId>) {
        let compact = Revision::new(self.model.compact_revision.unwrap_or(0).saturating_sub(200));
        self.store.records.retain(|id, _| id.revision >= compact || retained.contains(id));
    }
}

/// A list in pieces is the list.
fn check_pieces(reader: &mut Reader<'_>, dice: &mut Dice, request: &Range, at: Revision) {
    let whole = Range { at: request.at, keys_only: request.keys_only, ..Range::of(request.range.clone()) };
    let Ok(whole) = range(reader, &whole, at);
    let keys = 1 + dice.below(4) as usize;
    let max = PieceMax { keys, bytes: dice.below(200) as usize, keys_only: request.keys_only };
    let mut joined = Vec::new();
    let mut after = None;
    loop {
        let Ok(left) = count(reader, &request.range, at, after.as_ref());
        assert_eq!(left as usize, whole.kvs.len() - joined.len());
        let Ok(piece) = piece(reader, &request.range, at, after.as_ref(), &max);
        assert!(piece.kvs.len() <= keys, "{max:?}: {piece:?}");
        assert!(!piece.kvs.is_empty() || piece.next.is_none(), "{piece:?}");
        joined.extend(piece.kvs);
        after = piece.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(joined, whole.kvs, "{request:?}");
}

/// A transaction's own writes may move other keys into a limited range: those are not foreseen.
fn has_limited_range(command: &Command) -> bool {
    fn within(txn: &Txn) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match op {
            Op::Range(range) => range.limit.is_some(),
            Op::Txn(nested) => within(nested),
            Op::Put(_) | Op::DeleteRange(_) | Op::Unset => false,
        })
    }
    matches!(command, Command::Txn(txn) if within(txn))
}

fn weight(record: &Record) -> usize {
    let value = match &record.change {
        Change::Put(put) => put.value.len(),
        Change::Delete => 0,
    };
    record.key.len() + value
}

#[expect(clippy::disallowed_methods, reason = "a test's run is chosen from outside")]
fn chosen(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_commands_agree_with_the_naive_model() {
    let seed = chosen("HOLDFAST_SEED", 20_261_121);
    let commands = chosen("HOLDFAST_COMMANDS", 100_000);
    println!(
        "reproduce: HOLDFAST_SEED={seed} HOLDFAST_COMMANDS={commands} cargo test -p holdfast-mvcc --test model"
    );
    let mut dice = Dice::new(seed);
    let mut run = Run::new();
    while run.accepted < commands {
        run.step(dice.next());
    }
    run.check_states();
    println!("{} commands, revision {}, {}", run.accepted, run.model.revision, run.checkpoints);
    assert!(run.checkpoints.were_tried(), "{}", run.checkpoints);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same, in short runs that shrink to the few commands that matter.
    #[test]
    fn short_runs_agree_with_the_naive_model(seeds in proptest::collection::vec(any::<u64>(), 0..120)) {
        let mut run = Run::new();
        for seed in seeds {
            run.step(seed);
        }
        let mut dice = Dice::new(1);
        run.rebuild(&mut dice);
        run.check_states();
    }
}
