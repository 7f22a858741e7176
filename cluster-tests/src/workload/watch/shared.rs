//! What writers, watchers and the compactor of one run share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::judge::watch::record::KeyTable;

/// A single-command delete whose outcome is not known: only the past can tell when it happened.
#[derive(Debug, Clone)]
pub struct OpenDelete {
    /// A key that existed and that the delete takes away.
    pub key: Bytes,
    /// A revision at which the key was there.
    pub present_at: i64,
    /// The revision at which it was gone, once that is known.
    pub gone_at: Option<i64>,
}

/// A command by its writer and its place among that writer's commands.
pub type CommandId = (usize, usize);

/// One run.
#[derive(Debug)]
pub struct Shared {
    began: Instant,
    seed: u64,
    /// All keys that anybody names. Locked for one message at a time.
    keys: Mutex<KeyTable>,
    /// Deletes under way or of unknown outcome. Written by the writers and the compactor.
    open_deletes: Mutex<BTreeMap<CommandId, OpenDelete>>,
    newest: AtomicI64,
    newest_delete: AtomicI64,
}

impl Shared {
    /// A run that begins now.
    pub fn new(seed: u64) -> Self {
        Self {
            began: Instant::now(),
            seed,
            keys: Mutex::default(),
            open_deletes: Mutex::default(),
            newest: AtomicI64::new(1),
            newest_delete: AtomicI64::new(0),
        }
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Randomness of its own for each role and number, from the seed of the run.
    pub fn rng(&self, role: &str, number: usize) -> StdRng {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let role = role.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        StdRng::seed_from_u64(self.seed ^ role.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The keys.
    pub fn keys(&self) -> MutexGuard<'_, KeyTable> {
        self.keys.lock().expect("no holder of the lock panics")
    }

    /// Deletes under way or of unknown outcome.
    pub fn open_deletes(&self) -> MutexGuard<'_, BTreeMap<CommandId, OpenDelete>> {
        self.open_deletes.lock().expect("no holder of the lock panics")
    }

    /// Notes a revision that a client was told.
    pub fn saw(&self, revision: i64) {
        self.newest.fetch_max(revision, Ordering::SeqCst);
    }

    /// Notes the revision of a delete.
    pub fn saw_delete(&self, revision: i64) {
        self.newest_delete.fetch_max(revision, Ordering::SeqCst);
    }

    /// The highest revision that any client was told.
    pub fn newest(&self) -> i64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// The highest revision of a delete that any client was told.
    pub fn newest_delete(&self) -> i64 {
        self.newest_delete.load(Ordering::SeqCst)
    }
}
