//! Time: a monotonic clock for deadlines, a wall clock for stamps, and timers.

use std::time::Duration;

use crate::BoxFuture;

/// A point on the monotonic clock, as the time since an arbitrary start. Never compared between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Monotonic(Duration);

/// Milliseconds since 1970-01-01 UTC, by the wall clock: for stamps people read, and for times that others have set in it; never for
/// decisions of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl Monotonic {
    /// The point this long after the clock's start.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }
    /// The time since the clock's start.
    pub const fn since_start(self) -> Duration {
        self.0
    }
    /// The time from `earlier` to here; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
    /// The point `by` later.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// Time and timers.
pub trait Clock: Send + Sync + 'static {
    /// The monotonic clock now.
    fn now(&self) -> Monotonic;
    /// The wall clock now.
    fn wall(&self) -> UnixMillis;
    /// Completes once `duration` has passed. May be polled on any thread, also outside a runtime.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clocks; timers run on a tokio runtime.
#[derive(Debug, Clone)]
pub struct RealClock {
    runtime: tokio::runtime::Handle,
    start: std::time::Instant,
}

impl RealClock {
    /// A clock that starts now, with its timers on `runtime`.
    #[expect(clippy::disallowed_methods, reason = "the one place where the monotonic clock is read")]
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { runtime, start: std::time::Instant::now() }
    }
}

impl Clock for RealClock {
    fn now(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn wall(&self) -> UnixMillis {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let _runtime = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }
}
