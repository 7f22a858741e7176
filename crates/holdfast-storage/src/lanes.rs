//! Long lists take turns.
//!
//! A thread that reads a long list works for a tenth of a second and longer. Ten of them at once are no faster than one for each
//! processor, but whatever a write needs next waits for a processor behind all of them, and for those that were
//! interrupted while they held the index. So few of them run at a time, in *lanes*, and those that wait for one get it
//! in the order in which they came, for some milliseconds each when their values are at hand.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many long lists are read at a time.
pub(crate) struct Lanes(Semaphore);

/// A place in a lane.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    place: Option<SemaphorePermit<'a>>,
}

impl Lanes {
    /// For a member with so many write workers: half of them.
    pub(crate) fn beside(workers: usize) -> Self {
        Self(Semaphore::new((workers / 2).max(1)))
    }

    /// Waits for a place, on a thread that may wait. Not called with a lock.
    pub(crate) fn enter(&self) -> Lane<'_> {
        Lane { lanes: self, place: self.place() }
    }

    fn place(&self) -> Option<SemaphorePermit<'_>> {
        // It is fair, and never closed.
        self.0.try_acquire().or_else(|_| futures::executor::block_on(self.0.acquire())).ok()
    }
}

impl Lane<'_> {
    /// Lets another list have its turn, if one waits, and waits for the next one.
    pub(crate) fn give_way(&mut self) {
        self.place = None;
        self.place = self.lanes.place();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn few_run_at_a_time_and_all_come_to_their_end() {
        for (workers, lanes) in [(1, 1), (2, 1), (5, 2)] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let all = Lanes::beside(workers);
            let begin = Barrier::new(8);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        begin.wait();
                        let mut lane = all.enter();
                        for _ in 0..50 {
                            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            thread::yield_now();
                            running.fetch_sub(1, Ordering::SeqCst);
                            lane.give_way();
                        }
                    });
                }
            });
            assert!(most.into_inner() <= lanes, "{workers} workers");
        }
    }

    #[test]
    fn who_waits_gets_the_next_turn() {
        let lanes = Lanes::beside(1);
        let order = parking_lot::Mutex::new(Vec::new());
        let mut first = lanes.enter();
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let lane = lanes.enter();
                order.lock().push("second");
                drop(lane);
            });
            // Until it waits, giving way is nothing.
            while !second.is_finished() {
                first.give_way();
                thread::yield_now();
            }
            order.lock().push("first");
        });
        assert_eq!(*order.lock(), ["second", "first"]);
    }
}
