//! Watchers: each reads the changes from where it is, on whatever member it likes, and goes on elsewhere when that one
//! crashes. What a member gives must be whole revisions, in order, without gap or repetition, and nothing of what it was
//! told is over may come later.

use std::sync::Arc;
use std::time::Duration;

use holdfast_mvcc::command::Refusal;
use holdfast_mvcc::types::Revision;
use holdfast_storage::{ChangesMax, ReadError};
use parking_lot::Mutex;

use super::history::History;
use super::life::Life;
use super::member::Machines;
use crate::world::SimRng;

/// Upper end of the pause between two reads, in milliseconds: some watchers are slow.
const PAUSE_MS_MAX: [u64; 3] = [5, 60, 900];

/// One watcher of everything.
pub(super) struct Watcher {
    rng: SimRng,
    machines: Machines,
    history: History,
    /// The next revision that it has not seen.
    next: Arc<Mutex<u64>>,
}

impl Watcher {
    /// A watcher from the first revision on, and where it is.
    pub(super) fn new(seed: u64, machines: Machines) -> (Self, Arc<Mutex<u64>>) {
        let next = Arc::new(Mutex::new(Revision::FRESH.next().get()));
        let history = machines.history().clone();
        (Self { rng: SimRng::new(seed), machines, history, next: Arc::clone(&next) }, next)
    }

    /// Reads until it is aborted.
    pub(super) async fn run(self) {
        let pause = self.rng.pick(&PAUSE_MS_MAX);
        let elsewhere = || self.rng.pick(&self.machines.taken());
        let mut at = elsewhere();
        loop {
            tokio::time::sleep(Duration::from_millis(1 + self.rng.below(pause))).await;
            if self.rng.one_in(10) {
                at = elsewhere();
            }
            match self.machines.life(at) {
                Some(life) => self.read(&life),
                None => at = elsewhere(),
            }
        }
    }

    fn read(&self, life: &Life) {
        let mut next = self.next.lock();
        let bytes = if self.rng.one_in(2) { 1_000 } else { 64 * 1024 };
        let revisions = usize::try_from(1 + self.rng.below(30)).unwrap_or(1);
        match life.storage.changes(Revision::new(*next), ChangesMax { revisions, bytes }) {
            Ok(changes) => {
                let through = changes.through.get();
                self.history.watched(*next, through, &changes.records);
                if changes.through > changes.newest && through >= *next {
                    self.history.violate(format!("progress to {through} beyond {:?}", changes.newest));
                }
                *next = (*next).max(through + 1);
            }
            Err(ReadError::Refused(Refusal::Compacted { compact_revision, .. })) => {
                self.history.told_compacted(compact_revision.get());
                if compact_revision.get() <= *next {
                    self.history
                        .violate(format!("a watcher at {} was refused for {compact_revision:?}", *next));
                }
                *next = compact_revision.get().max(*next);
            }
            Err(error) => self.history.violate(format!("a watcher at {}: {error}", *next)),
        }
    }
}
