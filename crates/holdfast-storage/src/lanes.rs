//! Long lists take turns, and give way to writes.
//!
//! A thread that reads a long list works for a tenth of a second and longer. Ten of them at once are no faster than one for each
//! processor, but whatever a write needs next waits for a processor behind all of them, and for those that were
//! interrupted while they held the index. So few of them run at a time, in *lanes*, and those that wait for one get it
//! in the order in which they came, for some milliseconds each when their values are at hand.
//!
//! Where processors are scarce that is not enough: what reads a list, what sends it and the steps of a write all want the
//! same ones. So while writes go on, and somebody else wants the processor that a list is read on, there is a rest after each
//! stretch of work of any list, many times as long as that took, and the next one has its turn. A list that has taken some seconds
//! goes on without; beside idle processors, and without writes, none ever rests.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic, rest};
use holdfast_mvcc::types::Revision;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits::{
    LIST_HELD_UP, LIST_PACED_FOR, LIST_PATIENCE, LIST_REST_FACTOR, LIST_REST_MAX, LIST_SEEN_FOR,
};

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
    /// When the list asked for its first place.
    began: Monotonic,
    /// How long the thread had worked when this stretch of work began.
    worked: Option<Duration>,
    /// How long others had had its processor then, when that was looked at.
    waited: Option<Duration>,
}

/// Whether lists are to be slower now.
#[derive(Debug, Default)]
struct Pace {
    /// The revision that was the newest when it was last seen, and when that was.
    revision: Revision,
    seen: Option<Monotonic>,
    /// When something had been written since the time before.
    written: Option<Monotonic>,
    /// When a list was last held up by somebody else on its processor.
    held_up: Option<Monotonic>,
    /// When the next stretch of work may begin.
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
        let began = self.clock.now();
        self.pace.lock().see(newest, began);
        let mut lane = Lane { lanes: self, place: None, began, worked, waited: self.clock.thread_waited() };
        lane.give_way();
        lane
    }

    fn place(&self) -> Option<SemaphorePermit<'_>> {
        // It is fair, and never closed.
        self.places.try_acquire().or_else(|_| futures::executor::block_on(self.places.acquire())).ok()
    }
}

impl Lane<'_> {
    /// Ends a stretch of work. If the next one has to wait for the sake of writes, another list may have it; true then.
    pub(crate) fn end_stretch(&mut self, newest: Revision) -> bool {
        self.lanes.pace.lock().see(newest, self.lanes.clock.now());
        let has_to_rest = self.owe();
        if has_to_rest {
            self.give_way();
        }
        self.worked = self.lanes.worked();
        has_to_rest
    }

    /// Lets another list have its turn, if one waits, and waits for the next one.
    pub(crate) fn give_way(&mut self) {
        let lanes = self.lanes;
        self.place = None;
        self.place = lanes.place();
        let now = lanes.clock.now();
        let early = lanes.pace.lock().free_at.since(now);
        if !early.is_zero() && self.is_patient(now) {
            rest(early);
        }
    }

    /// Clients have deadlines: what takes long already does not rest any more.
    fn is_patient(&self, now: Monotonic) -> bool {
        now.since(self.began) < LIST_PATIENCE
    }

    /// Takes note of how long lists have to rest for the stretch that ends now; true when they have to.
    fn owe(&mut self) -> bool {
        let Lanes { clock, pace, .. } = self.lanes;
        let now = clock.now();
        if !self.is_patient(now) || !pace.lock().are_writes(now) {
            self.waited = None;
            return false;
        }
        let (Some(worked), Some(waited)) = (clock.thread_worked(), clock.thread_waited()) else {
            return false;
        };
        let worked = worked.saturating_sub(self.worked.unwrap_or(worked));
        let waited = waited.saturating_sub(self.waited.replace(waited).unwrap_or(waited));
        pace.lock().owe(now, worked, waited)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // The next one rests for it: the answer is not to wait.
        self.owe();
    }
}

impl Pace {
    /// Takes note of the newest visible revision.
    fn see(&mut self, newest: Revision, now: Monotonic) {
        if newest > self.revision && is_recent(self.seen, now, LIST_SEEN_FOR) {
            self.written = Some(now);
        }
        // It steps back when an install has replaced the state.
        self.revision = newest;
        self.seen = Some(now);
    }

    /// True while writes go on.
    fn are_writes(&self, now: Monotonic) -> bool {
        is_recent(self.written, now, LIST_PACED_FOR)
    }

    /// Takes note of a stretch that took so much work, while which others had the processor for so long. True when lists have to
    /// rest for it.
    fn owe(&mut self, now: Monotonic, worked: Duration, waited: Duration) -> bool {
        if waited > LIST_HELD_UP {
            self.held_up = Some(now);
        }
        let has_to = self.are_writes(now) && is_recent(self.held_up, now, LIST_PACED_FOR);
        if has_to {
            let time = worked.saturating_mul(LIST_REST_FACTOR).min(LIST_REST_MAX);
            self.free_at = self.free_at.max(now.after(time));
        }
        has_to
    }
}

fn is_recent(at: Option<Monotonic>, now: Monotonic, time: Duration) -> bool {
    at.is_some_and(|at| now.since(at) < time)
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
    fn lists_rest_only_beside_writes_and_where_others_want_their_processor() {
        let (stretch, none, held_up) = (Duration::from_micros(300), Duration::ZERO, 2 * LIST_HELD_UP);
        let at = |millis| Monotonic::from_start(Duration::from_millis(millis));
        let mut pace = Pace::default();
        // Others are there, and nothing is written. What was written before the first look was long ago, perhaps.
        pace.see(Revision::new(6), at(1_000));
        assert!(!pace.owe(at(1_000), stretch, held_up));
        // Something is, and nobody else is there any more.
        pace.see(Revision::new(7), at(1_500));
        assert!(!pace.owe(at(1_500), stretch, none));
        assert_eq!(pace.free_at, Monotonic::default());
        // Both, and for a while behind.
        assert!(pace.owe(at(1_510), stretch, held_up));
        assert_eq!(pace.free_at, at(1_510).after(stretch * LIST_REST_FACTOR));
        assert!(pace.owe(at(1_520), stretch, none));
        assert_eq!(pace.free_at, at(1_520).after(stretch * LIST_REST_FACTOR));
        assert!(pace.owe(at(1_530), Duration::from_secs(1), none));
        assert_eq!(pace.free_at, at(1_530).after(LIST_REST_MAX));
        // The same revision again is no write, and one that is new after a long time was perhaps written long ago.
        pace.see(Revision::new(7), at(2_000));
        assert!(!pace.owe(at(2_000), stretch, held_up));
        pace.see(Revision::new(8), at(9_000));
        assert!(!pace.owe(at(9_000), stretch, held_up));
    }

    /// Goes on by this much whenever it is looked at, and knows what a thread does: it works half of that time.
    struct Busy(Duration, AtomicUsize);

    impl Busy {
        fn passed(&self, step: usize) -> Duration {
            self.0 * u32::try_from(self.1.fetch_add(step, Ordering::SeqCst)).unwrap()
        }
    }

    impl Clock for Busy {
        fn now(&self) -> Monotonic {
            Monotonic::from_start(self.passed(1))
        }
        fn wall(&self) -> UnixMillis {
            UnixMillis(0)
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
        fn thread_worked(&self) -> Option<Duration> {
            Some(self.passed(0) / 2)
        }
        fn thread_waited(&self) -> Option<Duration> {
            Some(self.passed(0) / 2)
        }
    }

    #[test]
    fn a_list_that_takes_long_rests_no_more() {
        let step = LIST_PACED_FOR / 50;
        let lanes = Lanes::beside(1, Arc::new(Busy(step, AtomicUsize::new(1))));
        let mut lane = lanes.enter(None, Revision::new(1));
        let mut revision = 1;
        let mut stretch = |lane: &mut Lane<'_>| {
            revision += 1;
            lane.end_stretch(Revision::new(revision));
            lanes.pace.lock().free_at
        };
        let first = stretch(&mut lane);
        let second = stretch(&mut lane);
        assert!(first > Monotonic::default() && second > first, "{first:?} {second:?}");
        while lane.is_patient(lanes.clock.now()) {}
        let last = stretch(&mut lane);
        assert_eq!(last, stretch(&mut lane));
    }
}
