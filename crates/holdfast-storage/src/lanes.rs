//! Long lists take turns.
//!
//! A thread that reads a long list works for a tenth of a second and longer. Ten of them at once are no faster than one for each
//! processor, but whatever a write needs next waits for a processor behind all of them, and for those that were
//! interrupted while they held the index. So few of them run at a time, in *lanes*, and those that wait for one get it
//! in the order in which they came, for some milliseconds each.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{FairMutex, FairMutexGuard};

/// How many long lists are read at a time. The locks hold nothing: a thread that has one may run.
pub(crate) struct Lanes {
    lanes: Vec<FairMutex<()>>,
    next: AtomicUsize,
}

/// A place in a lane.
pub(crate) struct Lane<'a>(FairMutexGuard<'a, ()>);

impl Lanes {
    /// For a member that has so many threads for what can be done side by side: half of them.
    pub(crate) fn beside(workers: usize) -> Self {
        let lanes = (0..(workers / 2).max(1)).map(|_| FairMutex::new(())).collect();
        Self { lanes, next: AtomicUsize::new(0) }
    }

    /// Waits for a place.
    pub(crate) fn enter(&self) -> Lane<'_> {
        let free = self.lanes.iter().find_map(FairMutex::try_lock);
        Lane(free.unwrap_or_else(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.lanes[number % self.lanes.len()].lock()
        }))
    }
}

impl Lane<'_> {
    /// Lets another list have its turn, if one waits, and waits for the next one.
    pub(crate) fn give_way(&mut self) {
        FairMutexGuard::bump(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
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
