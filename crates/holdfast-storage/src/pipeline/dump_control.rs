//! What is asked of the running dump from outside the loop that writes it, and when the next one may begin.

use std::time::Duration;

use holdfast_env::Monotonic;
use parking_lot::Mutex;

use crate::figures::DumpResult;
use crate::limits::{DUMP_RETRY, DUMP_RETRY_MAX};
use crate::types::{CancelReason, Seal};

/// Who needs a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Urgency {
    /// Nobody in particular: the log has grown. Waits after a failure, takes its time, and ends when it costs too much.
    #[default]
    Policy,
    /// A follower or a person, now.
    Demanded,
}

impl Urgency {
    /// A word for labels and logs.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Demanded => "demanded",
        }
    }
}

/// Shared by the handles, which cancel, the dispatcher, which begins and ends, and the committer, which writes.
#[derive(Debug, Default)]
pub(crate) struct DumpControl {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    runs: bool,
    seal: Option<Seal>,
    urgency: Urgency,
    cancelled: Option<CancelReason>,
    /// Dumps in a row that did not succeed.
    failures: u32,
    not_before: Monotonic,
}

impl DumpControl {
    /// A dump begins. When the one before ended because too much was written meanwhile, this one holds entries back
    /// instead: else the log of a member that is written to all the time would never become shorter.
    pub(crate) fn begin(&self, urgency: Urgency, seal: Seal) {
        let mut inner = self.inner.lock();
        inner.seal = Some(seal);
        let insists = inner.cancelled == Some(CancelReason::Overlay);
        let urgency = if insists { Urgency::Demanded } else { urgency };
        (inner.runs, inner.urgency, inner.cancelled) = (true, urgency, None);
    }

    /// Another request has joined the running dump.
    pub(crate) fn join(&self, urgency: Urgency) {
        let mut inner = self.inner.lock();
        inner.urgency = inner.urgency.max(urgency);
    }

    /// Who needs the running dump.
    pub(crate) fn urgency(&self) -> Urgency {
        self.inner.lock().urgency
    }

    /// Ends the running dump early; false when none runs. The first reason counts.
    pub(crate) fn cancel(&self, reason: CancelReason) -> bool {
        let mut inner = self.inner.lock();
        if inner.runs && inner.cancelled.is_none() {
            inner.cancelled = Some(reason);
        }
        inner.runs
    }

    /// Why the running dump has to end.
    pub(crate) fn cancelled(&self) -> Option<CancelReason> {
        self.inner.lock().cancelled
    }

    /// The dump is over.
    pub(crate) fn ended(&self, result: DumpResult, now: Monotonic) {
        let mut inner = self.inner.lock();
        inner.runs = false;
        match result {
            DumpResult::Ok | DumpResult::Cancelled(CancelReason::Install) => inner.failures = 0,
            // Nobody asks again.
            DumpResult::Cancelled(CancelReason::Shutdown) => {}
            DumpResult::Cancelled(_) | DumpResult::Failed => {
                inner.failures += 1;
                let doubled = DUMP_RETRY.saturating_mul(1 << (inner.failures - 1).min(16));
                inner.not_before = now.after(doubled.min(DUMP_RETRY_MAX));
            }
        }
    }

    /// Where the last dump was sealed.
    pub(crate) fn seal(&self) -> Option<Seal> {
        self.inner.lock().seal
    }

    /// How long the next dump that nobody needs at once has to wait.
    pub(crate) fn wait(&self, now: Monotonic) -> Option<Duration> {
        let inner = self.inner.lock();
        let wait = inner.not_before.since(now);
        (inner.failures > 0 && wait > Duration::ZERO).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_secs(seconds))
    }

    const SEAL: Seal = Seal { last: None, at: at(0), scrubbed: 0 };

    #[test]
    fn the_first_reason_counts_and_only_while_a_dump_runs() {
        let control = DumpControl::default();
        assert!(!control.cancel(CancelReason::Admin));
        assert_eq!(control.cancelled(), None);
        control.begin(Urgency::Policy, SEAL);
        assert!(control.cancel(CancelReason::Overlay));
        assert!(control.cancel(CancelReason::Admin));
        assert_eq!(control.cancelled(), Some(CancelReason::Overlay));
        control.ended(DumpResult::Cancelled(CancelReason::Overlay), at(0));
        control.begin(Urgency::Policy, SEAL);
        assert_eq!(control.cancelled(), None, "the next one starts anew");
        assert_eq!(control.urgency(), Urgency::Demanded, "and holds entries back instead");
        control.ended(DumpResult::Ok, at(0));
        control.begin(Urgency::Policy, SEAL);
        assert_eq!(control.urgency(), Urgency::Policy);
    }

    #[test]
    fn a_dump_that_was_joined_by_someone_in_need_is_needed() {
        let control = DumpControl::default();
        control.begin(Urgency::Policy, SEAL);
        control.join(Urgency::Demanded);
        control.join(Urgency::Policy);
        assert_eq!(control.urgency(), Urgency::Demanded);
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_ends_with_success() {
        let control = DumpControl::default();
        assert_eq!(control.wait(at(0)), None);
        let mut waits = Vec::new();
        for _ in 0..7 {
            control.ended(DumpResult::Failed, at(1000));
            waits.push(control.wait(at(1000)).map(|wait| wait.as_secs()));
        }
        let expected = [30, 60, 120, 240, 480, 600, 600].map(Some);
        assert_eq!(waits, expected);
        assert_eq!(control.wait(at(1599)), Some(Duration::from_secs(1)));
        assert_eq!(control.wait(at(1600)), None);
        control.ended(DumpResult::Ok, at(1600));
        control.ended(DumpResult::Cancelled(CancelReason::NoSpace), at(1600));
        assert_eq!(control.wait(at(1601)), Some(Duration::from_secs(29)));
    }
}
