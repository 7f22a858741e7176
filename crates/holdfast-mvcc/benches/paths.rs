//! What commands and reads cost in the replicated core, beside storage: 10,000 keys, values of 256 bytes.

use bytes::Bytes;
use holdfast_mvcc::command::{Command, Compare, Op, Operand, Put, Range, Relation, Txn};
use holdfast_mvcc::types::{EntryId, KeyRange, LogIndex, PutRecord, RangeEnd, RecordId, Revision, Term};
use holdfast_mvcc::{State, Values};
use holdfast_paths::{Path, Step};

const KEYS: u64 = 10_000;
/// A stride without a common divisor with the number of keys: each comes once before one comes again.
const STRIDE: u64 = 4_827;

fn main() {
    holdfast_paths::main(&[
        Path { name: "mvcc-put", set_up: put },
        Path { name: "mvcc-compare-and-swap", set_up: compare_and_swap },
        Path { name: "mvcc-get", set_up: get },
        Path { name: "mvcc-list-of-1000", set_up: list },
        Path { name: "mvcc-compaction-of-1000", set_up: compact },
    ]);
}

/// Gives every put the same value: what it takes to find one is not the core's.
struct Same(PutRecord);

impl Values for Same {
    type Error = std::convert::Infallible;

    fn record(&mut self, _: &Bytes, _: RecordId) -> Result<PutRecord, Self::Error> {
        Ok(self.0.clone())
    }
}

/// A store that is written to.
struct Store {
    state: State,
    values: Same,
    entries: u64,
    keys: Vec<Bytes>,
}

impl Store {
    fn with_keys() -> Self {
        let value = Bytes::from(vec![7; 256]);
        let values = Same(PutRecord { create_revision: Revision::FRESH, version: 1, lease: None, value });
        let keys =
            (0..KEYS).map(|number| Bytes::from(format!("/registry/pods/default/{number:08}"))).collect();
        let mut store = Self { state: State::new(), values, entries: 0, keys };
        for number in 0..KEYS {
            store.run(&store.put(number));
        }
        store
    }

    fn key(&self, number: u64) -> Bytes {
        self.keys[usize::try_from(number).expect("a place in the list")].clone()
    }

    fn single(&self, number: u64) -> KeyRange {
        KeyRange { start: self.key(number), end: RangeEnd::Single }
    }

    fn put(&self, number: u64) -> Command {
        let (key, value, lease) = (self.key(number), self.values.0.value.clone(), None);
        Command::Put(Put { key, value, lease, prev_kv: false, ignore_value: false, ignore_lease: false })
    }

    fn run(&mut self, command: &Command) -> u64 {
        self.entries += 1;
        let entry = EntryId { term: Term(1), index: LogIndex(self.entries) };
        let Ok(outcome) = self.state.evaluate(entry, command, &mut self.values);
        outcome.revision.get()
    }

    /// As a transaction reads.
    fn read(&mut self, range: KeyRange) -> u64 {
        let success = vec![Op::Range(Range::of(range))];
        self.run(&Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() }))
    }
}

/// The numbers of all keys, in an order that is none.
fn numbers() -> impl FnMut() -> u64 {
    let mut number = 0;
    move || {
        number = (number + STRIDE) % KEYS;
        number
    }
}

fn put() -> Step {
    let (mut store, mut numbers) = (Store::with_keys(), numbers());
    Box::new(move || {
        let put = store.put(numbers());
        store.run(&put)
    })
}

fn compare_and_swap() -> Step {
    let (mut store, mut numbers) = (Store::with_keys(), numbers());
    Box::new(move || {
        let number = numbers();
        let unchanged = Compare {
            range: store.single(number),
            relation: Relation::Less,
            operand: Operand::Version(1 << 40),
        };
        let Command::Put(put) = store.put(number) else { unreachable!("it was made a put") };
        let failure = vec![Op::Range(Range::of(store.single(number)))];
        store.run(&Command::Txn(Txn { compares: vec![unchanged], success: vec![Op::Put(put)], failure }))
    })
}

fn get() -> Step {
    let (mut store, mut numbers) = (Store::with_keys(), numbers());
    Box::new(move || {
        let key = store.single(numbers());
        store.read(key)
    })
}

fn list() -> Step {
    let (mut store, mut numbers) = (Store::with_keys(), numbers());
    Box::new(move || {
        let first = numbers() % (KEYS - 1000);
        let end = RangeEnd::Before(store.key(first + 1000));
        store.read(KeyRange { start: store.key(first), end })
    })
}

/// A thousand keys have one more revision, and a compaction takes the one before away.
fn compact() -> Step {
    let (mut store, mut numbers) = (Store::with_keys(), numbers());
    Box::new(move || {
        let mut newest = 0;
        for _ in 0..1000 {
            let put = store.put(numbers());
            newest = store.run(&put);
        }
        let revision = i64::try_from(newest).expect("a small revision");
        store.run(&Command::Compact(holdfast_mvcc::command::Compact { revision }));
        let mut after = None;
        loop {
            after = store.state.drop_compacted(Revision::new(newest), after.as_ref(), 512);
            if after.is_none() {
                return newest;
            }
        }
    })
}
