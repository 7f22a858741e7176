//! The simulated clock, random source and task spawner.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use holdfast_env::{BoxFuture, Clock, Monotonic, Rng, Spawn, TaskHandle, UnixMillis};
use holdfast_raft::TaskOwner;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio::time::Instant;

/// 2026-01-01 UTC: where the simulated wall clock starts, so that stamps are equal in every run.
const WALL_START_MS: u64 = 1_767_225_600_000;

/// Runs `future` on a fresh single-threaded runtime whose time is simulated.
pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system")
        .block_on(future)
}

/// Time as tokio's paused clock has it.
#[derive(Debug, Clone, Copy)]
pub struct SimClock {
    start: Instant,
}

impl SimClock {
    /// A clock that starts now; must be made inside [`run`].
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Monotonic {
        Monotonic::from_start(self.start.elapsed())
    }

    fn wall(&self) -> UnixMillis {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        UnixMillis(WALL_START_MS.saturating_add(elapsed))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Random numbers from a seed.
#[derive(Debug)]
pub struct SimRng(Mutex<StdRng>);

impl SimRng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.0.lock().random_range(0..bound)
    }

    /// A number from `range`, which must not be empty.
    pub fn within(&self, range: std::ops::Range<u64>) -> u64 {
        self.0.lock().random_range(range)
    }

    /// One of these, of which there must be at least one.
    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap_or_default()]
    }

    /// True once in `of` times.
    pub fn one_in(&self, of: u64) -> bool {
        self.below(of) == 0
    }
}

impl Rng for SimRng {
    fn next_u64(&self) -> u64 {
        self.0.lock().random()
    }
}

/// A switch that is thrown once. (tokio's watch channel wakes its waiters in a random order.)
#[derive(Debug, Default)]
pub(crate) struct Switch {
    is_thrown: AtomicBool,
    changed: Notify,
}

impl Switch {
    pub(crate) fn throw(&self) {
        self.is_thrown.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_thrown(&self) -> bool {
        self.is_thrown.load(Ordering::SeqCst)
    }

    pub(crate) async fn thrown(&self) {
        let mut changed = std::pin::pin!(self.changed.notified());
        changed.as_mut().enable();
        if !self.is_thrown() {
            changed.await;
        }
    }
}

/// How long loops that have a thread of their own in production are held up by their disk and by the scheduler.
#[derive(Debug, Default)]
pub struct Pace {
    /// By the beginning of a loop's name: upper end of the time, in microseconds, from its waking to its running.
    pub delays_us_max: Vec<(&'static str, u64)>,
    /// Seeds the delays.
    pub seed: u64,
}

/// The tasks of one life of one member; all end when it crashes.
#[derive(Debug, Clone, Default)]
pub struct SimSpawn {
    shared: Arc<SpawnShared>,
}

#[derive(Debug, Default)]
struct SpawnShared {
    owner: TaskOwner,
    pace: Pace,
    rng: Option<Arc<SimRng>>,
    ended: Switch,
    halt_reason: Mutex<Option<String>>,
}

impl SimSpawn {
    /// Tasks that are held up like this.
    pub fn new(pace: Pace) -> Self {
        let rng = Some(Arc::new(SimRng::new(pace.seed)));
        Self { shared: Arc::new(SpawnShared { pace, rng, ..SpawnShared::default() }) }
    }

    /// Ends every task, those that openraft started too, and starts no more: the power is off. Called from one of them,
    /// the rest of its poll still runs, unless the caller unwinds.
    pub fn kill(&self) {
        self.shared.owner.end();
        self.shared.ended.throw();
    }

    /// True when the task that is being polled is one of this life.
    pub fn is_current(&self) -> bool {
        TaskOwner::current().is_some_and(|owner| owner.is(&self.shared.owner))
    }

    /// True once it was killed, or has halted.
    pub fn has_ended(&self) -> bool {
        self.shared.owner.has_ended()
    }

    /// Completes when it is killed or halts.
    pub async fn ended(&self) {
        self.shared.ended.thrown().await;
    }

    /// Why the member stopped itself, when it did.
    pub fn halt_reason(&self) -> Option<String> {
        self.shared.halt_reason.lock().clone()
    }

    fn start(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        let (end, ended) = tokio::sync::oneshot::channel();
        if !self.has_ended() {
            drop(self.shared.owner.spawn(async move {
                let _end = end;
                future.await;
            }));
        }
        TaskHandle::new(name, ended)
    }

    fn paced(&self, name: &str, future: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        let delay = self.shared.pace.delays_us_max.iter().find(|(prefix, _)| name.starts_with(prefix));
        match (delay, &self.shared.rng) {
            (Some(&(_, us_max)), Some(rng)) => {
                Box::pin(Paced { future, delay: None, us_max, rng: Arc::clone(rng) })
            }
            _ => future,
        }
    }
}

/// A future that runs some time after it was woken, each time.
struct Paced {
    future: BoxFuture<'static, ()>,
    delay: Option<Pin<Box<tokio::time::Sleep>>>,
    us_max: u64,
    rng: Arc<SimRng>,
}

impl Future for Paced {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let us = self.us_max;
        let rng = Arc::clone(&self.rng);
        let delay = self
            .delay
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_micros(1 + rng.below(us)))));
        std::task::ready!(delay.as_mut().poll(context));
        self.delay = None;
        self.future.as_mut().poll(context)
    }
}

impl Spawn for SimSpawn {
    fn task(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.start(name, future)
    }

    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        let future = self.paced(name, future);
        self.start(name, future)
    }

    fn halt(&self, reason: &str) {
        // What is left of a life that was ended from outside has nothing to say.
        if !self.has_ended() {
            self.shared.halt_reason.lock().get_or_insert_with(|| reason.to_owned());
            self.kill();
        }
    }
}
