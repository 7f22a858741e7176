//! Whose tasks run on a thread: what a simulation needs to end one member of several in the middle of a step.
//!
//! In production a member ends with its process, and so do the tasks that openraft starts by itself. A simulation runs
//! several members on one thread. There each task belongs to a [`TaskOwner`], and what it starts belongs to the same
//! one; once the owner has ended, none of its tasks is polled again.
//!
//! Production names no owner, and its tasks are started as they are.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::task::AbortHandle;

thread_local! {
    /// The owner of the task that is being polled.
    static CURRENT: RefCell<Option<TaskOwner>> = const { RefCell::new(None) };
}

/// The owner of one member's tasks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TaskOwner {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    has_ended: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// A future whose polls count as its owner's.
struct Owned<F> {
    owner: TaskOwner,
    future: Pin<Box<F>>,
}

/// Makes an owner the current one until it is dropped, also by a panic.
struct Entered(Option<TaskOwner>);

impl Entered {
    fn new(owner: TaskOwner) -> Self {
        Self(CURRENT.replace(Some(owner)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl TaskOwner {
    /// The owner of the task that is being polled on this thread.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// True when both are the same owner.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Ends it: none of its tasks is polled again, except for what is left of the poll that this is called from.
    /// They are dropped when the runtime comes to them.
    pub fn end(&self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        for task in self.shared.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// True once it has ended.
    pub fn has_ended(&self) -> bool {
        self.shared.has_ended.load(Ordering::SeqCst)
    }

    /// Starts a task of this owner on the runtime of the thread.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = tokio::spawn(Owned { owner: self.clone(), future: Box::pin(future) });
        let mut tasks = self.shared.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
        task
    }
}

impl<F: Future> Future for Owned<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.owner.has_ended() {
            // Nobody wakes it again: it waits for its abort.
            return Poll::Pending;
        }
        let _entered = Entered::new(self.owner.clone());
        self.future.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use openraft_rt::AsyncRuntime;

    use super::*;
    use crate::runtime::Runtime;

    #[tokio::test]
    async fn tasks_of_tasks_have_the_same_owner_and_end_with_it() {
        let (owner, polls) = (TaskOwner::default(), Arc::new(AtomicUsize::new(0)));
        let (inner_polls, told) = (Arc::clone(&polls), Arc::new(tokio::sync::Notify::new()));
        let heard = Arc::clone(&told);
        owner.spawn(async move {
            drop(Runtime::spawn(async move {
                assert!(TaskOwner::current().is_some());
                told.notify_one();
                loop {
                    inner_polls.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                }
            }));
        });
        heard.notified().await;
        assert!(TaskOwner::current().is_none());
        owner.end();
        let before = polls.load(Ordering::SeqCst);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(polls.load(Ordering::SeqCst), before);
    }
}
