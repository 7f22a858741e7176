//! Reads of one key whose value is not in memory, on threads that may wait for the disk.
//!
//! Such a read takes some microseconds when the operating system has the page, and waking a thread for it takes more. So a
//! thread that is at it goes on with those that have come meanwhile; more threads help when reads take long, as they do when
//! the disk has to be asked.

use std::collections::VecDeque;
use std::sync::Arc;

use holdfast_env::{Clock, Monotonic};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::limits::{BLOCKING_READS_MAX, COLD_READ_QUICK, COLD_READS_PER_THREAD};

type Read = Box<dyn FnOnce() + Send>;

/// Reads that wait, and how many threads are at them. Cheap to clone.
#[derive(Clone)]
pub(super) struct ColdReads {
    clock: Arc<dyn Clock>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Read>,
    threads: usize,
    /// When the latest one was taken up.
    taken: Monotonic,
}

impl ColdReads {
    /// Nothing waits.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, inner: Arc::default() }
    }

    /// Begins a read; what it finds is received. It does not happen when nobody waits any more before its turn has come.
    pub(super) fn begin<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (found, receiver) = oneshot::channel();
        let read: Read = Box::new(move || {
            if !found.is_closed() {
                // Who asked may have given up meanwhile.
                drop(found.send(read()));
            }
        });
        let now = self.clock.now();
        let is_one_more = {
            let mut inner = self.inner.lock();
            inner.waiting.push_back(read);
            // One thread is enough for those that are quick. One that takes long may wait for the disk.
            let is_enough = inner.threads > 0 && now.since(inner.taken) < COLD_READ_QUICK;
            !is_enough && inner.calls_another()
        };
        if is_one_more {
            self.help();
        }
        receiver
    }

    fn help(&self) {
        let reads = self.clone();
        // It ends by itself; the runtime drops it only when it is shut down.
        drop(tokio::task::spawn_blocking(move || reads.work()));
    }

    /// Reads until nothing waits.
    fn work(&self) {
        let mut now = self.clock.now();
        let mut was_slow = false;
        loop {
            let (read, is_one_more) = {
                let mut inner = self.inner.lock();
                let is_one_more = was_slow && inner.calls_another();
                let Some(read) = inner.waiting.pop_front() else {
                    inner.threads -= 1;
                    return;
                };
                inner.taken = now;
                (read, is_one_more)
            };
            if is_one_more {
                self.help();
            }
            read();
            let done = self.clock.now();
            was_slow = done.since(now) >= COLD_READ_QUICK;
            now = done;
        }
    }
}

impl Inner {
    /// True when one more thread is to help as many as wait, which is counted then.
    fn calls_another(&mut self) -> bool {
        let wanted = self.waiting.len().div_ceil(COLD_READS_PER_THREAD).min(BLOCKING_READS_MAX);
        let is_one_more = self.threads < wanted;
        self.threads += usize::from(is_one_more);
        is_one_more
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::Duration;

    use holdfast_env::{BoxFuture, UnixMillis};

    use super::*;

    /// Goes on by this much whenever it is looked at.
    struct Steps(Duration, AtomicU32);

    impl Clock for Steps {
        fn now(&self) -> Monotonic {
            Monotonic::from_start(self.0 * self.1.fetch_add(1, Ordering::SeqCst))
        }
        fn wall(&self) -> UnixMillis {
            UnixMillis(0)
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn reads_that_take(time: Duration) -> ColdReads {
        ColdReads::new(Arc::new(Steps(time, AtomicU32::new(0))))
    }

    fn slow_reads() -> ColdReads {
        reads_that_take(2 * COLD_READ_QUICK)
    }

    async fn until_idle(reads: &ColdReads) {
        while reads.inner.lock().threads > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn each_read_is_done_once() {
        let reads = slow_reads();
        let begun: Vec<_> = (0..1_000).map(|number| reads.begin(move || number)).collect();
        for (number, found) in begun.into_iter().enumerate() {
            assert_eq!(found.await, Ok(number));
        }
        until_idle(&reads).await;
        assert!(reads.inner.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_read() {
        let reads = slow_reads();
        let begin = Arc::new(Barrier::new(2));
        let held = Arc::clone(&begin);
        let first = reads.begin(move || held.wait().is_leader());
        let was_read = Arc::new(AtomicBool::new(false));
        let read = Arc::clone(&was_read);
        drop(reads.begin(move || read.store(true, Ordering::SeqCst)));
        begin.wait();
        first.await.unwrap();
        until_idle(&reads).await;
        assert!(!was_read.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn one_thread_is_enough_for_quick_reads() {
        let reads = reads_that_take(Duration::ZERO);
        let begin = Arc::new(Barrier::new(2));
        let held = Arc::clone(&begin);
        let first = reads.begin(move || held.wait().is_leader());
        let others: Vec<_> =
            (0..10 * COLD_READS_PER_THREAD).map(|number| reads.begin(move || number)).collect();
        assert_eq!(reads.inner.lock().threads, 1);
        begin.wait();
        first.await.unwrap();
        for found in others {
            found.await.unwrap();
        }
        until_idle(&reads).await;
    }

    #[tokio::test]
    async fn when_many_slow_ones_wait_more_threads_help_and_few_share_one() {
        let reads = slow_reads();
        // Two threads are needed to pass it.
        let barrier = Arc::new(Barrier::new(2));
        let wait = || {
            let barrier = Arc::clone(&barrier);
            reads.begin(move || barrier.wait().is_leader())
        };
        let first = wait();
        let few: Vec<_> = (1..COLD_READS_PER_THREAD).map(|number| reads.begin(move || number)).collect();
        assert_eq!(reads.inner.lock().threads, 1);
        // In front of those that call the second thread, which may be gone when they are done.
        let second = wait();
        let rest: Vec<_> = (0..COLD_READS_PER_THREAD).map(|number| reads.begin(move || number)).collect();
        assert!(first.await.unwrap() ^ second.await.unwrap());
        for found in few.into_iter().chain(rest) {
            found.await.unwrap();
        }
        until_idle(&reads).await;
    }
}
