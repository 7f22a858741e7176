//! What writers, watchers and the compactor of one run share.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::judge::watch::record::KeyTable;
use crate::workload::chronicle::Chronicle;

/// One run.
#[derive(Debug)]
pub struct Shared {
    began: Instant,
    seed: u64,
    /// All keys that anybody names. Locked for one message at a time.
    keys: Mutex<KeyTable>,
    chronicle: Chronicle,
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
            chronicle: Chronicle::default(),
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

    /// What made each revision.
    pub fn chronicle(&self) -> &Chronicle {
        &self.chronicle
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
