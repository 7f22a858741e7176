//! The simulated clock, random source and task spawner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_env::{BoxFuture, Clock, Monotonic, Rng, Spawn, TaskHandle, UnixMillis};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::AbortHandle;
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

/// The tasks of one life of one member; all end when it crashes.
#[derive(Debug, Clone, Default)]
pub struct SimSpawn {
    shared: Arc<SpawnShared>,
}

#[derive(Debug, Default)]
struct SpawnShared {
    tasks: Mutex<Vec<AbortHandle>>,
    halted: AtomicBool,
    halt_reason: Mutex<Option<String>>,
}

impl SimSpawn {
    /// Ends every task at its next await and starts no more: the power is off.
    pub fn kill(&self) {
        self.shared.halted.store(true, Ordering::SeqCst);
        for task in self.shared.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// Why the member stopped itself, when it did.
    pub fn halt_reason(&self) -> Option<String> {
        self.shared.halt_reason.lock().clone()
    }

    fn start(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        let (end, ended) = tokio::sync::oneshot::channel();
        if !self.shared.halted.load(Ordering::SeqCst) {
            let task = tokio::spawn(async move {
                let _end = end;
                future.await;
            });
            let mut tasks = self.shared.tasks.lock();
            tasks.retain(|task| !task.is_finished());
            tasks.push(task.abort_handle());
        }
        TaskHandle::new(name, ended)
    }
}

impl Spawn for SimSpawn {
    fn task(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.start(name, future)
    }

    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.start(name, future)
    }

    fn halt(&self, reason: &str) {
        self.shared.halt_reason.lock().get_or_insert_with(|| reason.to_owned());
        self.kill();
    }
}
