//! Full disks: no room for the log, for the stable store, for snapshots, or for anything.

use std::time::Duration;

use holdfast_storage::{CancelReason, DispatcherState, DumpResult, StorageError};

use super::history::Violation;
use super::life::Life;
use super::member::{Crash, Machines};

/// How long a member may take until it says that a write failed: a slow one first ends its dump.
const TELLING_MAX: Duration = Duration::from_secs(5);

/// How long a leader whose store has failed may lead on. Its first try may fail, and it may be elected once more.
const HANDOVER_ELECTION_TIMEOUTS: u32 = 20;

/// The part of a disk that has no room left. The parts may be file systems of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The log's directory: no new segment.
    Log,
    /// The stable store's files.
    Store,
    /// The directory of the snapshots.
    Snapshots,
    /// All of it, after so many bytes more.
    All {
        /// What is left.
        bytes: u64,
    },
}

impl Full {
    /// True when a member may stop applying, or stop. One whose log alone has no room waits for it.
    pub(super) fn may_stop_members(self) -> bool {
        self != Self::Log
    }
}

/// What a full disk did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effects {
    /// The member led before.
    led: bool,
    log: bool,
    store: bool,
    dump: bool,
    /// Dumps that were cancelled for want of space before.
    cancelled_before: u64,
}

/// It says so, or has stopped.
fn applies_no_more(life: &Life) -> bool {
    life.spawn.halt_reason().is_some() || life.storage.is_poisoned()
}

fn cancelled(life: &Life) -> u64 {
    let no_space = DumpResult::Cancelled(CancelReason::NoSpace);
    let dumps = life.storage.status().dispatch.dumps;
    dumps.iter().find(|(result, ..)| *result == no_space).map_or(0, |(_, count, _)| *count)
}

impl Machines {
    /// Fills the disk of a member that runs.
    pub(super) fn fill(&self, index: usize, full: Full) -> Effects {
        self.history().trace(("full", index, full));
        let disk = self.disk(index);
        match full {
            Full::Log => disk.fill("/data/log/"),
            Full::Store => disk.fill("/data/store/gen-"),
            Full::Snapshots => disk.fill("/data/store/snapshots/"),
            Full::All { bytes } => disk.set_capacity(Some(disk.used() + bytes)),
        }
        *self.machine(index).full.lock() = Some(full);
        let life = self.life(index);
        Effects {
            led: life.as_ref().is_some_and(|life| life.node.health().is_leader),
            cancelled_before: life.as_ref().map_or(0, cancelled),
            ..Effects::default()
        }
    }

    /// Makes room again. A member that has stopped applying, or has stopped, is started again, as its log line says.
    pub(super) async fn relieve(&self, index: usize) -> Result<(), Violation> {
        self.history().trace(("room", index));
        self.disk(index).relieve();
        self.until_told(index).await;
        let is_over = self.life(index).is_some_and(|life| applies_no_more(&life));
        if is_over {
            self.crash(index, Crash::Kill);
        }
        *self.machine(index).full.lock() = None;
        if is_over { self.start(index).await } else { Ok(()) }
    }

    /// What failed just before there was room may not be told yet: waits until a member says so, or stores again.
    async fn until_told(&self, index: usize) {
        let Some(life) = self.life(index) else { return };
        let before = life.storage.status().stable;
        let until = tokio::time::Instant::now() + TELLING_MAX;
        while life.is_alive() && !applies_no_more(&life) && tokio::time::Instant::now() < until {
            let status = life.storage.status();
            let stores = status.stable > before || status.stable == status.visible.log_id;
            if status.state == DispatcherState::Normal && stores {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks for a dump on a full disk, and looks what has come of the disk so far.
    pub(super) async fn feel_full(&self, index: usize, effects: &mut Effects) {
        let Some(life) = self.life(index) else { return };
        let refused = match life.until_crash(life.node.trigger_dump()).await {
            Some(Err(error)) => matches!(error, StorageError::NoSpaceForDump { .. }),
            Some(Ok(())) | None => false,
        };
        tokio::time::sleep(Duration::from_millis(150)).await;
        effects.store |= applies_no_more(&life);
        if life.is_alive() {
            effects.log |= life.log.is_full();
            effects.dump |= refused || cancelled(&life) > effects.cancelled_before;
        }
    }

    /// A leader whose store has failed, or whose log has no room, must not lead on: waits until another member leads, for as long
    /// as that may take when two others run and reach each other, and there are votes for one of them. One whose log has got
    /// room meanwhile, by a purge, may lead on.
    pub(super) async fn until_handed_over(&self, index: usize, effects: Effects) -> Result<(), Violation> {
        let Some(life) = self.life(index) else { return Ok(()) };
        let is_unfit = || life.storage.is_poisoned() || life.log.is_full();
        let others = (0..self.count()).filter(|other| *other != index).filter_map(|other| self.life(other));
        let voters = others.filter(|other| other.node.health().votes).count();
        let members = life.node.members().iter().filter(|member| !member.is_learner).count();
        // Without room in its log it cannot save a vote either, and the others need more than half of all by themselves.
        let can_vote = voters + usize::from(!life.log.is_full());
        if !(effects.led && is_unfit() && life.is_alive()) || voters < 2 || can_vote <= members / 2 {
            return Ok(());
        }
        self.network().heal();
        let until = tokio::time::Instant::now() + self.election_timeout() * HANDOVER_ELECTION_TIMEOUTS;
        while life.is_alive() && life.node.health().is_leader && is_unfit() {
            if tokio::time::Instant::now() >= until {
                let told: Vec<_> = self.lives().iter().map(|life| life.node.health()).collect();
                let members = life.node.members();
                return Err(Violation::new(format!(
                    "member {index} leads on and cannot write: {told:#?} of {members:#?}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.history().count(|report| report.handed_over += 1);
        Ok(())
    }

    /// Counts what a full disk did.
    pub(super) fn count_full(&self, effects: Effects) {
        self.history().trace(("full disk", effects));
        self.history().count(|report| {
            report.full_logs += u64::from(effects.log);
            report.full_stores += u64::from(effects.store);
            report.full_dumps += u64::from(effects.dump);
        });
    }
}
