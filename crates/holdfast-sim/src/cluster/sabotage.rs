//! What happens to a member from inside: it is stopped at a failpoint, and faults are planted in it.
//!
//! A member that is stopped at a point does not run one instruction further, beside the destructors of what it was in
//! the middle of: its disk is cut off first, and takes nothing of this life any more.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Weak;

use holdfast_env::{Failpoint, Fault, Sabotage};
use parking_lot::Mutex;

use super::member::{Crash, Machines, Shared};
use crate::world::SimSpawn;

/// Where the engine's files are.
const ENGINE_FILES: &str = "/data/store/gen-";

/// Carried by the unwinding of a task whose member was stopped. The runtime catches it at the task's edge.
struct Stopped;

/// What one life is under.
pub(super) struct Saboteur {
    machines: Weak<Shared>,
    index: usize,
    spawn: SimSpawn,
    fault: Option<Fault>,
    /// The writes to each file of the engine when the dump that runs began to read; `None` when none does.
    standstill: Mutex<Option<BTreeMap<PathBuf, u64>>>,
}

/// A point at which the next life that comes there is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Armed {
    /// The point.
    pub at: Failpoint,
    /// Hits still to come, the last of which stops it.
    pub left: u64,
    /// In which way.
    pub crash: Crash,
}

impl Saboteur {
    /// For a life on this machine.
    pub(super) fn new(machines: Weak<Shared>, index: usize, spawn: SimSpawn, fault: Option<Fault>) -> Self {
        Self { machines, index, spawn, fault, standstill: Mutex::new(None) }
    }

    /// Between the start of a dump's reading and its end nothing is written to the engine, except while the overlay is
    /// drained under it.
    fn check_standstill(&self, machines: &Machines, at: Failpoint) {
        let writes = || machines.disk(self.index).writes(ENGINE_FILES);
        let mut standstill = self.standstill.lock();
        match at {
            Failpoint::DumpStartDrained => *standstill = Some(writes()),
            Failpoint::DrainUnderDumpMid => *standstill = None,
            Failpoint::DumpCurrentUpdated => {
                let Some(before) = standstill.take() else { return };
                let now = writes();
                // A generation may be built or removed meanwhile.
                let moved =
                    before.iter().find(|(path, count)| now.get(*path).is_some_and(|now| now != *count));
                if let Some((path, count)) = moved {
                    machines.history().violate(format!(
                        "{} had {count} writes when a dump began to read, and {:?} at its end",
                        path.display(),
                        now.get(path)
                    ));
                }
            }
            _ => {}
        }
    }
}

impl Sabotage for Saboteur {
    fn hit(&self, at: Failpoint) {
        if self.spawn.has_ended() {
            // A destructor of a life that is over: whatever it does reaches nothing.
            return;
        }
        let Some(shared) = self.machines.upgrade() else { return };
        let machines = Machines::from(shared);
        machines.history().count_point(at, |point| point.reached += 1);
        self.check_standstill(&machines, at);
        let Some(crash) = machines.fires(self.index, at) else { return };
        machines.history().trace(("stopped", self.index, at));
        machines.history().count_point(at, |point| point.stopped += 1);
        let is_inside = self.spawn.is_current();
        machines.cut(self.index, &self.spawn, crash);
        drop(machines);
        // Outside of the member's own tasks there are only destructors of what somebody else has held for it.
        if is_inside && !std::thread::panicking() {
            resume_unwind(Box::new(Stopped));
        }
    }

    fn is_planted(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}
