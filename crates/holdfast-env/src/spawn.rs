//! Where loops run: as tasks of the runtime, or on a thread of their own.
//!
//! A loop is a future in both cases. One that blocks on a disk is *dedicated*: in production it gets a named
//! thread, in simulation it is one more task of the single thread and so can be stepped. Work that is long and that no
//! client waits for is *background*: a thread that gives way to the others when CPUs are scarce.

use crate::BoxFuture;
use crate::shared_loop::{Helper, SharedLoop};

/// Starts loops.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `future` as a task of the runtime. It must not block.
    fn task(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle;
    /// Runs `future` on a thread of its own, where it may block on files.
    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle;
    /// As `dedicated`, for long work that no client waits for: on a machine whose CPUs are all busy it gets a small share.
    /// It must hold no lock that others wait for.
    fn background(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.dedicated(name, future)
    }
    /// As `dedicated`, for a loop whose pieces of work are mostly smaller than a context switch: whoever has the helper may
    /// do one itself.
    fn helped(&self, name: &str, future: BoxFuture<'static, ()>) -> (TaskHandle, Helper) {
        (self.dedicated(name, future), Helper::none())
    }
    /// Stops the member at once because it can no longer keep its promises (a failed log write, a broken invariant).
    /// The real one does not return; a simulated one marks the member as crashed, and the caller must then end its
    /// loop without answering anything.
    fn halt(&self, reason: &str);
}

/// The owner's end of a loop: await it to learn that the loop has ended. Dropping it does not stop the loop; loops
/// end when their inputs close.
#[derive(Debug)]
pub struct TaskHandle {
    name: String,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl TaskHandle {
    /// A handle for a loop that drops or fires the other end of `ended` when it is over.
    pub fn new(name: &str, ended: tokio::sync::oneshot::Receiver<()>) -> Self {
        Self { name: name.to_owned(), ended }
    }
    /// The name the loop was started with.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Waits until the loop has ended, in whatever way.
    pub async fn join(self) {
        // Both outcomes mean the same: the loop is gone.
        drop(self.ended.await);
    }
}

/// Tasks on a tokio runtime, and real threads.
#[derive(Debug, Clone)]
pub struct RealSpawn {
    runtime: tokio::runtime::Handle,
}

impl RealSpawn {
    /// Tasks go to `runtime`.
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { runtime }
    }
}

/// By how much the niceness of a background thread is higher: about a tenth of the weight of another thread. It is not
/// the highest there is, so that a machine that is always busy does not keep such work from ending.
const BACKGROUND_NICENESS: i32 = 10;

/// How long a thread name may be on Linux, without the closing zero.
const THREAD_NAME_BYTES_MAX: usize = 15;

impl Spawn for RealSpawn {
    fn task(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        let (end, ended) = tokio::sync::oneshot::channel();
        self.runtime.spawn(async move {
            let _end = end;
            future.await;
        });
        TaskHandle::new(name, ended)
    }

    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.thread(name, Weight::Usual, || futures::executor::block_on(future))
    }

    fn helped(&self, name: &str, future: BoxFuture<'static, ()>) -> (TaskHandle, Helper) {
        let shared = SharedLoop::new(future);
        let helper = shared.helper();
        (self.thread(name, Weight::Usual, move || shared.run()), helper)
    }

    fn background(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.thread(name, Weight::Low, || futures::executor::block_on(future))
    }

    fn halt(&self, reason: &str) {
        tracing::error!(reason, "the member stops because it can no longer keep its promises");
        std::process::abort();
    }
}

/// Between two pieces of long work, and before it takes a lock that writes need: lets the threads run that wait for this
/// CPU. A thread that works on until its time slice is over makes each step of a write wait for that, milliseconds
/// where CPUs are busy, and where it ends within the lock, everybody waits until the thread runs again.
pub fn give_way() {
    std::thread::yield_now();
}

/// How much of a scarce CPU a thread gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Usual,
    Low,
}

impl RealSpawn {
    fn thread(&self, name: &str, weight: Weight, work: impl FnOnce() + Send + 'static) -> TaskHandle {
        let (end, ended) = tokio::sync::oneshot::channel();
        let short: String = name.chars().take(THREAD_NAME_BYTES_MAX).collect();
        let runtime = self.runtime.clone();
        let started = std::thread::Builder::new().name(short).spawn(move || {
            let _end = end;
            if weight == Weight::Low {
                // On Linux it is the calling thread's alone. Being nicer is always allowed.
                if let Err(error) = rustix::process::nice(BACKGROUND_NICENESS) {
                    tracing::debug!(%error, "a background thread has the weight of the others");
                }
            }
            let _runtime = runtime.enter();
            work();
        });
        // Without its loops a member can do nothing; starting half of it would be worse than stopping here.
        if let Err(error) = started {
            tracing::error!(thread = name, %error, "cannot start a thread: raise the limit on processes");
            std::process::abort();
        }
        TaskHandle::new(name, ended)
    }
}
