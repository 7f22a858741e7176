//! A loop with a thread of its own, which whoever hands it work may run for a moment.
//!
//! Handing a small piece of work to a thread that waits costs two context switches and a processor that wakes up, which is
//! more than most such pieces of work. So the one who has it may do it: [`Helper::help`] hands the work over and polls the
//! loop where it stands, when the loop is not being polled already. Everything else wakes the loop's thread.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::BoxFuture;

/// The loop is to be polled.
const WOKEN: u8 = 1;
/// A helper polls it, and looks for `WOKEN` by itself.
const HELPED: u8 = 2;

/// A helper polls at most so often; then it leaves the loop to its thread.
const POLLS_MAX: usize = 4;

/// Lets the one who hands a loop its work also do it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Helper(Option<Arc<SharedLoop>>);

impl std::fmt::Debug for Helper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Helper")
    }
}

/// A loop, and who is to be told when it has something to do.
pub(crate) struct SharedLoop {
    /// `None` when it has ended.
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    state: AtomicU8,
    thread: OnceLock<Thread>,
}

impl Helper {
    /// For a loop that nobody can help: [`Helper::help`] does nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Hands work over with `hand_over`, and runs the loop here until it waits again. False when the loop is running
    /// or has ended: then nothing was done.
    pub fn help(&self, hand_over: impl FnOnce()) -> bool {
        let Some(shared) = &self.0 else { return false };
        let mut future = match shared.future.try_lock() {
            Ok(future) => future,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if future.is_none() {
            return false;
        }
        shared.state.fetch_or(HELPED, Ordering::AcqRel);
        hand_over();
        let waker = Waker::from(Arc::clone(shared));
        for _ in 0..POLLS_MAX {
            if shared.poll(&mut future, &waker).is_ready() {
                // Its thread ends, too.
                shared.state.fetch_or(WOKEN, Ordering::AcqRel);
                break;
            }
            if shared.state.load(Ordering::Acquire) & WOKEN == 0 {
                break;
            }
        }
        let left = shared.state.fetch_and(!HELPED, Ordering::AcqRel);
        drop(future);
        if left & WOKEN != 0 {
            shared.unpark();
        }
        true
    }
}

impl SharedLoop {
    pub(crate) fn new(future: BoxFuture<'static, ()>) -> Arc<Self> {
        // A helper's task must not run out of its turn in the middle of somebody else's loop.
        let future: BoxFuture<'static, ()> = Box::pin(tokio::task::unconstrained(future));
        Arc::new(Self {
            future: Mutex::new(Some(future)),
            state: AtomicU8::new(WOKEN),
            thread: OnceLock::new(),
        })
    }

    pub(crate) fn helper(self: &Arc<Self>) -> Helper {
        Helper(Some(Arc::clone(self)))
    }

    /// Runs the loop to its end on this thread, except for what helpers do.
    pub(crate) fn run(self: &Arc<Self>) {
        // It runs once, so the place is free.
        self.thread.get_or_init(std::thread::current);
        let waker = Waker::from(Arc::clone(self));
        loop {
            if self.state.load(Ordering::Acquire) & WOKEN == 0 {
                std::thread::park();
                continue;
            }
            let mut future = self.lock();
            if self.poll(&mut future, &waker).is_ready() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<BoxFuture<'static, ()>>> {
        self.future.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, future: &mut Option<BoxFuture<'static, ()>>, waker: &Waker) -> Poll<()> {
        self.state.fetch_and(!WOKEN, Ordering::AcqRel);
        let Some(running) = future else { return Poll::Ready(()) };
        let polled = Pin::as_mut(running).poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            *future = None;
        }
        polled
    }

    fn unpark(&self) {
        // Before there is a thread, `WOKEN` is what it begins with.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Wake for SharedLoop {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = self.state.fetch_or(WOKEN, Ordering::AcqRel);
        if before & (WOKEN | HELPED) == 0 {
            self.unpark();
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what hands work over here is a thread of the test's own")]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    /// A loop that notes on which threads it has counted how much.
    fn counting(
        seen: &Arc<AtomicUsize>,
        by_helpers: &Arc<AtomicUsize>,
    ) -> (mpsc::UnboundedSender<()>, Arc<SharedLoop>) {
        let (send, mut receive) = mpsc::unbounded_channel();
        let (seen, by_helpers) = (Arc::clone(seen), Arc::clone(by_helpers));
        let shared = SharedLoop::new(Box::pin(async move {
            while receive.recv().await.is_some() {
                seen.fetch_add(1, Ordering::SeqCst);
                if std::thread::current().name() != Some("the loop") {
                    by_helpers.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
        (send, shared)
    }

    fn start(shared: &Arc<SharedLoop>) -> std::thread::JoinHandle<()> {
        let shared = Arc::clone(shared);
        std::thread::Builder::new().name("the loop".to_owned()).spawn(move || shared.run()).unwrap()
    }

    fn until(mut what: impl FnMut() -> bool) {
        for _ in 0..10_000 {
            if what() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it does not come to pass");
    }

    #[test]
    fn what_is_handed_over_with_help_is_done_at_once_and_here() {
        let (seen, by_helpers) = (Arc::default(), Arc::default());
        let (send, shared) = counting(&seen, &by_helpers);
        let thread = start(&shared);
        until(|| shared.state.load(Ordering::SeqCst) == 0);
        let helper = shared.helper();
        until(|| helper.help(|| send.send(()).unwrap()));
        assert_eq!((seen.load(Ordering::SeqCst), by_helpers.load(Ordering::SeqCst)), (1, 1));
        send.send(()).unwrap();
        until(|| seen.load(Ordering::SeqCst) == 2);
        assert_eq!(by_helpers.load(Ordering::SeqCst), 1, "without help, its thread does it");
        drop(send);
        thread.join().unwrap();
        assert!(!helper.help(|| panic!("the loop has ended")));
    }

    #[test]
    fn nothing_is_lost_between_helpers_and_the_thread() {
        const EACH: usize = 20_000;
        let (seen, by_helpers) = (Arc::default(), Arc::default());
        let (send, shared) = counting(&seen, &by_helpers);
        let thread = start(&shared);
        let handing: Vec<_> = (0..4)
            .map(|number| {
                let (send, helper) = (send.clone(), shared.helper());
                std::thread::spawn(move || {
                    for work in 0..EACH {
                        let mut handed = false;
                        let helps = (work + number) % 2 == 0;
                        if helps {
                            handed = helper.help(|| send.send(()).unwrap());
                        }
                        if !handed {
                            send.send(()).unwrap();
                        }
                    }
                })
            })
            .collect();
        for one in handing {
            one.join().unwrap();
        }
        until(|| seen.load(Ordering::SeqCst) == 4 * EACH);
        drop(send);
        thread.join().unwrap();
    }

    #[test]
    fn a_loop_that_ends_under_a_helper_ends_its_thread() {
        let (seen, by_helpers) = (Arc::default(), Arc::default());
        let (send, shared) = counting(&seen, &by_helpers);
        let thread = start(&shared);
        let mut send = Some(send);
        let helper = shared.helper();
        until(|| send.is_none() || helper.help(|| drop(send.take())));
        thread.join().unwrap();
    }
}
