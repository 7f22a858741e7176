//! What the API servers of one run share: the clock, the names of keys, and the record that is judged in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::mvccpb::KeyValue;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::judge::apiserver::{Held, Seen};
use crate::judge::watch::history::{Applied, Step};
use crate::judge::watch::record::{Compaction, KeyTable, Life, Pair, Stray};

/// Below it is all that API servers keep.
pub const REGISTRY: &str = "/registry/";

/// What was recorded.
#[derive(Debug, Default)]
pub struct Record {
    /// Commands that took effect.
    pub applied: Vec<Applied>,
    /// Compactions that were asked for.
    pub compactions: Vec<Compaction>,
    /// What readers and writers saw.
    pub seen: Seen,
    /// The watchers.
    pub lives: Vec<Life>,
    /// Responses for no watcher.
    pub strays: Vec<Stray>,
    /// Figures.
    pub counts: Counts,
}

/// How much was done.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Transactions whose outcome was not known at first.
    pub unknown: usize,
    /// Lists that broke off.
    pub broken_lists: usize,
    /// Lists that a compaction ended.
    pub compacted_lists: usize,
    /// Progress requests.
    pub progress_requests: usize,
    /// Watch streams that were opened.
    pub streams: usize,
    /// Why watch streams ended, and how often.
    pub stream_ends: BTreeMap<String, usize>,
    /// Consistent reads that waited for longer than an API server does.
    pub late_reads: usize,
    /// How long the others waited.
    pub waits: Vec<Duration>,
}

/// One run.
#[derive(Debug)]
pub struct World {
    began: Instant,
    seed: u64,
    keys: Mutex<KeyTable>,
    record: Mutex<Record>,
    /// The highest revision that anybody was told.
    newest: AtomicI64,
    /// For each command under way, or of unknown outcome, a revision at which it had not happened: history from there on
    /// is kept until it is settled.
    open: Mutex<BTreeMap<u64, i64>>,
    next: AtomicU64,
    stop: AtomicBool,
}

/// Keeps history from a revision on while it lives.
#[derive(Debug)]
pub struct Hold<'a> {
    world: &'a World,
    id: u64,
    /// That revision.
    pub from: i64,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.world.open().remove(&self.id);
    }
}

impl World {
    /// A run that begins now.
    pub fn new(seed: u64) -> Self {
        Self {
            began: Instant::now(),
            seed,
            keys: Mutex::default(),
            record: Mutex::default(),
            newest: AtomicI64::new(1),
            open: Mutex::default(),
            next: AtomicU64::new(1),
            stop: AtomicBool::new(false),
        }
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Randomness of its own for each role and number.
    pub fn rng(&self, role: u64, number: usize) -> StdRng {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        StdRng::seed_from_u64(self.seed ^ role.rotate_left(40) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Load and faults are over.
    pub fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Whether they are.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// The names of keys.
    pub fn keys(&self) -> MutexGuard<'_, KeyTable> {
        self.keys.lock().expect("no holder of the lock panics")
    }

    /// The record.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no holder of the lock panics")
    }

    /// The record, at the end.
    pub fn take_record(&self) -> Record {
        std::mem::take(&mut *self.record())
    }

    /// Notes a revision that somebody was told.
    pub fn saw(&self, revision: i64) {
        self.newest.fetch_max(revision, Ordering::SeqCst);
    }

    /// The highest one.
    pub fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Keeps what is history from now on.
    pub fn hold(&self) -> Hold<'_> {
        let mut open = self.open();
        let (id, from) = (self.number(), self.newest());
        open.insert(id, from);
        drop(open);
        Hold { world: self, id, from }
    }

    /// The lowest revision of which history is needed; asked for, and noted, before a compaction.
    pub fn compact_to(&self, wanted: i64) -> i64 {
        let open = self.open();
        let revision = open.values().copied().min().map_or(wanted, |from| from.min(wanted));
        let asked = Compaction { revision, asked_at: self.elapsed() };
        self.record().compactions.push(asked);
        revision
    }

    /// Notes a command that took effect.
    pub fn applied(&self, revision: i64, step: Step) {
        self.saw(revision);
        self.record().applied.push(Applied { revision, steps: vec![step] });
    }

    /// A pair as the judge knows it.
    pub fn held(&self, pair: &KeyValue) -> Held {
        let KeyValue { create_revision, mod_revision, version, lease, .. } = *pair;
        let print = Pair { value: &pair.value, create_revision, mod_revision, version, lease }.print();
        Held { key: self.keys().id(&pair.key), mod_revision, print }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, i64>> {
        self.open.lock().expect("no holder of the lock panics")
    }
}

/// A value that is put once in the whole run, of some hundred bytes.
pub fn value(world: &World) -> Bytes {
    let number = world.number();
    let length = 64 + usize::try_from(number * 37 % 400).unwrap_or(0);
    format!("{number:<length$}").into()
}
