//! Reads of one key whose value is not in memory, on threads that may wait for the disk.
//!
//! Such a read takes some microseconds when the operating system has the page, and waking a thread for it takes more. So a
//! thread that is at it goes on with those that have come meanwhile; more threads help when many wait, as they do when
//! the disk has to be asked.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::limits::{BLOCKING_READS_MAX, COLD_READS_PER_THREAD};

type Read = Box<dyn FnOnce() + Send>;

/// Reads that wait, and how many threads are at them. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ColdReads {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Read>,
    threads: usize,
}

impl ColdReads {
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
        let is_one_more = {
            let mut inner = self.inner.lock();
            inner.waiting.push_back(read);
            let wanted = inner.waiting.len().div_ceil(COLD_READS_PER_THREAD).min(BLOCKING_READS_MAX);
            let is_one_more = inner.threads < wanted;
            inner.threads += usize::from(is_one_more);
            is_one_more
        };
        if is_one_more {
            let reads = self.clone();
            // It ends by itself; the runtime drops it only when it is shut down.
            drop(tokio::task::spawn_blocking(move || reads.work()));
        }
        receiver
    }

    /// Reads until nothing waits.
    fn work(&self) {
        loop {
            let read = {
                let mut inner = self.inner.lock();
                let Some(read) = inner.waiting.pop_front() else {
                    inner.threads -= 1;
                    return;
                };
                read
            };
            read();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    async fn until_idle(reads: &ColdReads) {
        while reads.inner.lock().threads > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn each_read_is_done_once() {
        let reads = ColdReads::default();
        let begun: Vec<_> = (0..1_000).map(|number| reads.begin(move || number)).collect();
        for (number, found) in begun.into_iter().enumerate() {
            assert_eq!(found.await, Ok(number));
        }
        until_idle(&reads).await;
        assert!(reads.inner.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_read() {
        let reads = ColdReads::default();
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
    async fn when_many_wait_more_threads_help_and_few_share_one() {
        let reads = ColdReads::default();
        // Two threads are needed to pass it.
        let barrier = Arc::new(Barrier::new(2));
        let wait = || {
            let barrier = Arc::clone(&barrier);
            reads.begin(move || barrier.wait().is_leader())
        };
        let first = wait();
        let few: Vec<_> = (1..COLD_READS_PER_THREAD).map(|number| reads.begin(move || number)).collect();
        assert_eq!(reads.inner.lock().threads, 1);
        let rest: Vec<_> = (0..COLD_READS_PER_THREAD).map(|number| reads.begin(move || number)).collect();
        let second = wait();
        assert!(first.await.unwrap() ^ second.await.unwrap());
        for found in few.into_iter().chain(rest) {
            found.await.unwrap();
        }
        until_idle(&reads).await;
    }
}
