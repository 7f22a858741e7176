//! Long lists take turns, and give way to writes.
//!
//! A thread that reads a long list works for a tenth of a second and longer. Ten of them at once are no faster than one for each
//! processor, but whatever a write needs next waits for a processor behind all of them, and for those that were
//! interrupted while they held the index. So few of them run at a time, in *lanes*, and those that wait for one get it
//! in the order in which they came, for some milliseconds each when their values are at hand.
//!
//! Where processors are scarce that is not enough: what reads a list, what sends it and the steps of a write all want the
//! same ones. So while writes go on, and somebody else wants the processor that a list is read on, the list rests after each
//! stretch of work, many times as long as that took, up to a second in all. Beside idle processors, and without writes, it
//! never rests.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic, rest};
use holdfast_mvcc::types::Revision;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits::{LIST_HELD_UP, LIST_PACED_FOR, LIST_REST_FACTOR, LIST_REST_MAX, LIST_RESTED_MAX};

/// How many long lists are read at a time, and how fast.
pub(crate) struct Lanes {
    places: Semaphore,
    clock: Arc<dyn Clock>,
    pace: Mutex<Pace>,
}

/// A place in a lane.
pub(crate) struct Lane<'a> {
    lanes: &'a Lanes,
    place: Option<SemaphorePermit<'a>>,
    /// How long the thread had worked when this stretch of work began.
    worked: Option<Duration>,
    /// How long others had had its processor then, when that was looked at.
    waited: Option<Duration>,
    /// How long this list has rested.
    rested: Duration,
}

/// Whether lists are to be slower now.
#[derive(Debug, Default)]
struct Pace {
    /// The newest revision that was seen, and when another one was.
    revision: Revision,
    written: Option<Monotonic>,
    /// When a list was last held up by somebody else on its processor.
    held_up: Option<Monotonic>,
    /// What was owed when a list ended: the next one begins then.
    free_at: Monotonic,
}

impl Lanes {
    /// For a member with so many write workers: half of them.
    pub(crate) fn beside(workers: usize, clock: Arc<dyn Clock>) -> Self {
        Self { places: Semaphore::new((workers / 2).max(1)), clock, pace: Mutex::default() }
    }

    /// How long the calling thread has worked.
    pub(crate) fn worked(&self) -> Option<Duration> {
        self.clock.thread_worked()
    }

    /// Waits for a place, on a thread that may wait, for a list that began when it had worked for so long; `newest` is the
    /// newest visible revision. Not called with a lock.
    pub(crate) fn enter(&self, worked: Option<Duration>, newest: Revision) -> Lane<'_> {
        self.pace.lock().see(newest, self.clock.now());
        let place = self.place();
        let owed = self.pace.lock().free_at.since(self.clock.now());
        if !owed.is_zero() {
            rest(owed);
        }
        Lane { lanes: self, place, worked, waited: self.clock.thread_waited(), rested: Duration::ZERO }
    }

    fn place(&self) -> Option<SemaphorePermit<'_>> {
        // It is fair, and never closed.
        self.places.try_acquire().or_else(|_| futures::executor::block_on(self.places.acquire())).ok()
    }
}

impl Lane<'_> {
    /// Ends a stretch of work, and rests if writes want that; `newest` is the newest visible revision.
    pub(crate) fn pause(&mut self, newest: Revision) {
        self.lanes.pace.lock().see(newest, self.lanes.clock.now());
        let owed = self.owed();
        if !owed.is_zero() && self.rested < LIST_RESTED_MAX {
            self.rested += owed;
            rest(owed);
        }
        self.worked = self.lanes.worked();
    }

    /// Lets another list have its turn, if one waits, and waits for the next one.
    pub(crate) fn give_way(&mut self) {
        self.place = None;
        self.place = self.lanes.place();
    }

    /// How long to rest for the stretch that ends now.
    fn owed(&mut self) -> Duration {
        let Lanes { clock, pace, .. } = self.lanes;
        let now = clock.now();
        if !pace.lock().are_writes(now) {
            self.waited = None;
            return Duration::ZERO;
        }
        let (Some(worked), Some(waited)) = (clock.thread_worked(), clock.thread_waited()) else {
            return Duration::ZERO;
        };
        let worked = worked.saturating_sub(self.worked.unwrap_or(worked));
        let waited = waited.saturating_sub(self.waited.replace(waited).unwrap_or(waited));
        pace.lock().owed(now, worked, waited)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // The next one pays for it: the answer is not to wait.
        let owed = self.owed();
        let free_at = self.lanes.clock.now().after(owed);
        let mut pace = self.lanes.pace.lock();
        pace.free_at = pace.free_at.max(free_at);
    }
}

impl Pace {
    /// Takes note of the newest visible revision.
    fn see(&mut self, newest: Revision, now: Monotonic) {
        if newest != self.revision {
            self.revision = newest;
            self.written = Some(now);
        }
    }

    /// True while writes go on.
    fn are_writes(&self, now: Monotonic) -> bool {
        is_recent(self.written, now)
    }

    /// How long to rest for a stretch that took so much work, while which others had the processor for so long.
    fn owed(&mut self, now: Monotonic, worked: Duration, waited: Duration) -> Duration {
        if waited > LIST_HELD_UP {
            self.held_up = Some(now);
        }
        if self.are_writes(now) && is_recent(self.held_up, now) {
            worked.saturating_mul(LIST_REST_FACTOR).min(LIST_REST_MAX)
        } else {
            Duration::ZERO
        }
    }
}

fn is_recent(at: Option<Monotonic>, now: Monotonic) -> bool {
    at.is_some_and(|at| now.since(at) < LIST_PACED_FOR)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use holdfast_env::{BoxFuture, UnixMillis};

    use super::*;

    /// Stands still, and does not know how long threads have worked.
    struct NoClock;

    impl Clock for NoClock {
        fn now(&self) -> Monotonic {
            Monotonic::default()
        }
        fn wall(&self) -> UnixMillis {
            UnixMillis(0)
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    fn lanes(workers: usize) -> Lanes {
        Lanes::beside(workers, Arc::new(NoClock))
    }

    #[test]
    fn few_run_at_a_time_and_all_come_to_their_end() {
        for (workers, places) in [(1, 1), (2, 1), (5, 2)] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let all = lanes(workers);
            let begin = Barrier::new(8);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        begin.wait();
                        let mut lane = all.enter(None, Revision::NONE);
                        for _ in 0..50 {
                            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            thread::yield_now();
                            running.fetch_sub(1, Ordering::SeqCst);
                            lane.give_way();
                        }
                    });
                }
            });
            assert!(most.into_inner() <= places, "{workers} workers");
        }
    }

    #[test]
    fn who_waits_gets_the_next_turn() {
        let lanes = lanes(1);
        let order = Mutex::new(Vec::new());
        let mut first = lanes.enter(None, Revision::NONE);
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                let lane = lanes.enter(None, Revision::NONE);
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

    #[test]
    fn a_list_rests_only_beside_writes_and_where_others_want_its_processor() {
        let (stretch, none, held_up) = (Duration::from_micros(300), Duration::ZERO, 2 * LIST_HELD_UP);
        let at = |millis| Monotonic::from_start(Duration::from_millis(millis));
        let mut pace = Pace::default();
        // Others are there, and nothing has ever been written.
        assert_eq!(pace.owed(at(1_000), stretch, held_up), none);
        // Something is, and nobody else is there any more.
        pace.see(Revision::new(7), at(2_000));
        assert_eq!(pace.owed(at(2_000), stretch, none), none);
        // Both, and for a while behind.
        assert_eq!(pace.owed(at(2_010), stretch, held_up), stretch * LIST_REST_FACTOR);
        assert_eq!(pace.owed(at(2_020), stretch, none), stretch * LIST_REST_FACTOR);
        assert_eq!(pace.owed(at(2_020), Duration::from_secs(1), none), LIST_REST_MAX);
        // The same revision again is no write.
        pace.see(Revision::new(7), at(3_000));
        assert_eq!(pace.owed(at(3_000), stretch, held_up), none);
        pace.see(Revision::new(8), at(4_000));
        assert_eq!(pace.owed(at(4_000), stretch, none), none);
    }
}
