//! The states of the dispatcher, in the type system: a transition consumes the state it leaves.
//!
//! ```text
//! Normal ─start_dump─► Dumping ─finish─► Merging ─merged─► Normal
//! any but Poisoned ─install─► Installing ─installed─► Normal          any ─poison─► Poisoned
//! ```

use tokio::sync::oneshot;

use crate::error::StorageError;
use crate::pipeline::control::DumpWaiter;
use crate::pipeline::dump_control::Urgency;
use crate::snapshot::install::Prepared;
use crate::types::{CancelReason, DispatcherState, Snapshot};
use holdfast_env::{LogId, Monotonic};

/// The state the dispatcher is in. Owned by the dispatcher alone.
pub(crate) enum Phase {
    /// Writes flow.
    Normal(Normal),
    /// The stable store stands still.
    Dumping(Dumping),
    /// The overlay goes into the stable store.
    Merging(Merging),
    /// The pipeline runs empty, then the state is replaced.
    Installing(Installing),
    /// Nothing is applied any more.
    Poisoned(Poisoned),
}

/// Writes flow.
#[derive(Default)]
pub(crate) struct Normal(());

/// A dump is on its way.
pub(crate) struct Dumping {
    as_of: Option<LogId>,
    waiters: Vec<DumpWaiter>,
    pending: Pending,
}

/// Who waits for the next dump.
#[derive(Default)]
pub(crate) struct Pending {
    /// All of them.
    pub(crate) waiters: Vec<DumpWaiter>,
    /// The most urgent of them.
    pub(crate) urgency: Urgency,
}

impl Pending {
    fn add(&mut self, urgency: Urgency, waiter: DumpWaiter) {
        self.urgency = self.urgency.max(urgency);
        self.waiters.push(waiter);
    }
}

/// The overlay of a dump is merged.
pub(crate) struct Merging {
    began: Monotonic,
    pending: Pending,
}

/// A prepared state waits until the pipeline is empty.
pub(crate) struct Installing {
    prepared: Box<Prepared>,
    done: oneshot::Sender<Result<(), StorageError>>,
    /// Those of a dump that the install has cancelled.
    waiters: Vec<DumpWaiter>,
}

/// The stable store failed.
pub(crate) struct Poisoned {
    reason: String,
}

impl Normal {
    /// Begins a dump as of this entry.
    pub(crate) fn start_dump(self, as_of: Option<LogId>, waiters: Vec<DumpWaiter>) -> Dumping {
        Dumping { as_of, waiters, pending: Pending::default() }
    }
}

impl Dumping {
    /// Joins a request for a dump as of `last`: this dump serves it when nothing came in between, else the next one.
    /// True when it does.
    pub(crate) fn join(&mut self, last: Option<LogId>, urgency: Urgency, waiter: DumpWaiter) -> bool {
        let joins = self.as_of == last;
        if joins {
            self.waiters.push(waiter);
        } else {
            self.pending.add(urgency, waiter);
        }
        joins
    }

    /// The dump is over; its waiters are told.
    pub(crate) fn finish(self, result: &Result<Snapshot, StorageError>, now: Monotonic) -> Merging {
        tell(self.waiters, result);
        Merging { began: now, pending: self.pending }
    }
}

impl Merging {
    /// A request while merging waits for the next dump.
    pub(crate) fn join(&mut self, urgency: Urgency, waiter: DumpWaiter) {
        self.pending.add(urgency, waiter);
    }

    /// Since when.
    pub(crate) fn began(&self) -> Monotonic {
        self.began
    }

    /// The overlay is merged; the requests that came meanwhile come out.
    pub(crate) fn merged(self) -> (Normal, Pending) {
        (Normal::default(), self.pending)
    }
}

impl Installing {
    /// A dump that the install cancels reports to here.
    pub(crate) fn dump_ended(&mut self) {
        tell(std::mem::take(&mut self.waiters), &Err(cancelled()));
    }

    /// The pipeline is empty: takes out what to install.
    pub(crate) fn into_parts(self) -> (Normal, Box<Prepared>, oneshot::Sender<Result<(), StorageError>>) {
        tell(self.waiters, &Err(cancelled()));
        (Normal::default(), self.prepared, self.done)
    }
}

impl Poisoned {
    /// Why.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }
}

impl Phase {
    /// The state's name.
    pub(crate) fn state(&self) -> DispatcherState {
        match self {
            Self::Normal(_) => DispatcherState::Normal,
            Self::Dumping(_) => DispatcherState::Dumping,
            Self::Merging(_) => DispatcherState::Merging,
            Self::Installing(_) => DispatcherState::Installing,
            Self::Poisoned(_) => DispatcherState::Poisoned,
        }
    }

    /// Begins an install. A second one, or one into a poisoned store, is refused.
    pub(crate) fn install(
        self,
        prepared: Box<Prepared>,
        done: oneshot::Sender<Result<(), StorageError>>,
    ) -> Self {
        let waiters = match self {
            Self::Normal(_) => Vec::new(),
            Self::Dumping(Dumping { mut waiters, pending, .. }) => {
                waiters.extend(pending.waiters);
                waiters
            }
            Self::Merging(Merging { pending, .. }) => pending.waiters,
            Self::Installing(busy) => {
                refuse(done, StorageError::Closed);
                return Self::Installing(busy);
            }
            Self::Poisoned(poisoned) => {
                refuse(done, StorageError::Poisoned { reason: poisoned.reason.clone() });
                return Self::Poisoned(poisoned);
            }
        };
        Self::Installing(Installing { prepared, done, waiters })
    }

    /// Nothing is applied from here on.
    pub(crate) fn poison(self, reason: String) -> Self {
        let failed = Err(StorageError::Poisoned { reason: reason.clone() });
        match self {
            Self::Normal(_) => {}
            Self::Dumping(dumping) => {
                tell(dumping.waiters, &failed);
                tell(dumping.pending.waiters, &failed);
            }
            Self::Merging(merging) => tell(merging.pending.waiters, &failed),
            Self::Installing(installing) => {
                tell(installing.waiters, &failed);
                refuse(installing.done, StorageError::Poisoned { reason: reason.clone() });
            }
            Self::Poisoned(first) => return Self::Poisoned(first),
        }
        Self::Poisoned(Poisoned { reason })
    }
}

fn cancelled() -> StorageError {
    StorageError::DumpCancelled { reason: CancelReason::Install }
}

fn refuse(done: oneshot::Sender<Result<(), StorageError>>, error: StorageError) {
    // The caller may have gone; then nobody needs to know.
    drop(done.send(Err(error)));
}

/// Tells every waiter; each gets an error of its own.
pub(crate) fn tell(waiters: Vec<DumpWaiter>, result: &Result<Snapshot, StorageError>) {
    for waiter in waiters {
        let told = match result {
            Ok(snapshot) => Ok(snapshot.clone()),
            Err(StorageError::Poisoned { reason }) => Err(StorageError::Poisoned { reason: reason.clone() }),
            Err(StorageError::DumpFailed { reason }) => {
                Err(StorageError::DumpFailed { reason: reason.clone() })
            }
            Err(StorageError::DumpCancelled { reason }) => {
                Err(StorageError::DumpCancelled { reason: *reason })
            }
            Err(other) => Err(StorageError::DumpFailed { reason: other.to_string() }),
        };
        // A waiter that has gone needs no answer; the snapshot is there all the same.
        drop(waiter.send(told));
    }
}
