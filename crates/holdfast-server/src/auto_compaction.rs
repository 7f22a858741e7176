//! Compacts by itself, as `--auto-compaction-retention` says: on the leader alone, through the log like any compaction.
//!
//! *Periodic*, every member notes its revision ten times per period (or per hour, when the period is longer) and keeps the
//! notes of one period. When the first period is over, and then once per period (or hour), the leader compacts to its
//! oldest note: what was the newest revision a period ago stays readable. A member that has just become the leader has
//! its own notes, so that a change of leaders neither loses nor repeats anything; one that has just started waits for a period.
//!
//! By *revisions*, the leader looks every five minutes and compacts to its revision less what is to be kept.
//!
//! These are etcd's rules. No clock but the monotonic one decides, and only about when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic};
use holdfast_mvcc::command::{Command, Compact, Refusal};
use holdfast_mvcc::types::Revision;
use tokio_util::sync::CancellationToken;

use crate::codec::response::signed;
use crate::config::AutoCompaction;
use crate::frontend::Frontend;
use crate::limits;
use crate::status::Failure;

/// Runs until `stop`.
pub async fn run(
    frontend: Arc<Frontend>,
    clock: Arc<dyn Clock>,
    kept: AutoCompaction,
    stop: CancellationToken,
) {
    let mut plan = Plan::new(kept, clock.now());
    loop {
        plan.note(frontend.current_revision());
        tokio::select! {
            // Neither holds anything.
            () = stop.cancelled() => return,
            () = clock.sleep(plan.rest()) => {}
        }
        if !frontend.node.health().is_leader {
            continue;
        }
        let Some(revision) = plan.due(clock.now(), frontend.current_revision()) else { continue };
        tokio::select! {
            // A compaction that was proposed may still happen, and does no harm.
            () = stop.cancelled() => return,
            compacted = compact(&frontend, revision) => if compacted {
                plan.done(clock.now(), revision);
            }
        }
    }
}

/// False when it is to be tried again.
async fn compact(frontend: &Frontend, revision: Revision) -> bool {
    let command = Command::Compact(Compact { revision: signed(revision.get()) });
    let answer = frontend.propose(command, frontend.internal_call()).await;
    match answer.and_then(|answer| answer.outcome.response.map_err(Failure::from)) {
        Ok(_) => {
            tracing::info!(revision = revision.get(), "compacted by itself");
            true
        }
        // Somebody else was faster.
        Err(Failure::Refused(Refusal::Compacted { .. })) => true,
        Err(failure) => {
            tracing::warn!(revision = revision.get(), ?failure, "cannot compact by itself yet");
            false
        }
    }
}

/// When to compact, and to what.
struct Plan {
    kept: AutoCompaction,
    /// Oldest first.
    notes: VecDeque<Revision>,
    notes_max: usize,
    last_revision: Revision,
    last: Monotonic,
    /// Before the first compaction a whole period passes.
    is_first: bool,
}

impl Plan {
    fn new(kept: AutoCompaction, now: Monotonic) -> Self {
        let notes_max = match kept {
            AutoCompaction::Periodic(period) => {
                let notes = period.as_nanos() / note_every(period).as_nanos();
                usize::try_from(notes).unwrap_or(usize::MAX).saturating_add(1)
            }
            AutoCompaction::Revisions(_) => 0,
        };
        Self {
            kept,
            notes: VecDeque::new(),
            notes_max,
            last_revision: Revision::NONE,
            last: now,
            is_first: true,
        }
    }

    /// Notes the newest revision: before every rest.
    fn note(&mut self, newest: Revision) {
        if self.notes_max > 0 {
            self.notes.push_back(newest);
            if self.notes.len() > self.notes_max {
                self.notes.pop_front();
            }
        }
    }

    fn rest(&self) -> Duration {
        match self.kept {
            AutoCompaction::Periodic(period) => note_every(period),
            AutoCompaction::Revisions(_) => limits::AUTO_COMPACTION_REVISIONS_EVERY,
        }
    }

    /// Behind a rest: the revision to compact to now, if any.
    fn due(&self, now: Monotonic, newest: Revision) -> Option<Revision> {
        let revision = match self.kept {
            AutoCompaction::Periodic(period) => {
                let pause = if self.is_first { period } else { compact_every(period) };
                let is_time = now.since(self.last) >= pause;
                self.notes.front().copied().filter(|_| is_time)?
            }
            AutoCompaction::Revisions(kept) => Revision::new(newest.get().checked_sub(kept)?),
        };
        (revision > self.last_revision && revision > Revision::NONE).then_some(revision)
    }

    fn done(&mut self, now: Monotonic, revision: Revision) {
        self.last = now;
        self.last_revision = revision;
        self.is_first = false;
    }
}

fn compact_every(period: Duration) -> Duration {
    period.min(limits::AUTO_COMPACTION_EVERY_MAX)
}

fn note_every(period: Duration) -> Duration {
    compact_every(period) / limits::AUTO_COMPACTION_NOTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(minutes: u32) -> Monotonic {
        Monotonic::from_start(minutes * MINUTE)
    }

    /// A leader whose revision is ten per minute: when it compacted, and to what.
    fn compactions(kept: AutoCompaction, minutes: u32) -> Vec<(u32, u64)> {
        let newest = |minute: u32| Revision::new(u64::from(10 * minute + 1));
        let mut plan = Plan::new(kept, at(0));
        let mut found = Vec::new();
        let mut now = 0;
        while now < minutes {
            plan.note(newest(now));
            now += u32::try_from(plan.rest().as_secs() / 60).unwrap();
            if let Some(revision) = plan.due(at(now), newest(now)) {
                plan.done(at(now), revision);
                found.push((now, revision.get()));
            }
        }
        found
    }

    #[test]
    fn a_short_period_is_kept_and_compacted_once_per_period() {
        let found = compactions(AutoCompaction::Periodic(10 * MINUTE), 40);
        assert_eq!(found, [(10, 1), (20, 91), (30, 191), (40, 291)]);
    }

    #[test]
    fn a_long_period_is_compacted_every_hour_once_it_is_over() {
        let found = compactions(AutoCompaction::Periodic(180 * MINUTE), 360);
        assert_eq!(found, [(180, 1), (240, 541), (300, 1141), (360, 1741)]);
    }

    #[test]
    fn revisions_are_counted_every_five_minutes() {
        let found = compactions(AutoCompaction::Revisions(100), 25);
        assert_eq!(found, [(10, 1), (15, 51), (20, 101), (25, 151)]);
    }

    #[test]
    fn what_was_compacted_is_not_compacted_again() {
        let mut plan = Plan::new(AutoCompaction::Periodic(10 * MINUTE), at(0));
        plan.note(Revision::new(5));
        assert_eq!(plan.due(at(9), Revision::new(7)), None, "too early");
        assert_eq!(plan.due(at(10), Revision::new(7)), Some(Revision::new(5)));
        assert_eq!(plan.due(at(11), Revision::new(7)), Some(Revision::new(5)), "it failed, and is due still");
        plan.done(at(11), Revision::new(5));
        assert_eq!(plan.due(at(30), Revision::new(7)), None, "nothing was written");
        let mut plan = Plan::new(AutoCompaction::Revisions(3), at(0));
        assert_eq!(plan.due(at(5), Revision::new(2)), None, "less than is kept");
        assert_eq!(plan.due(at(5), Revision::new(3)), None);
        assert_eq!(plan.due(at(5), Revision::new(9)), Some(Revision::new(6)));
        plan.done(at(5), Revision::new(6));
        assert_eq!(plan.due(at(10), Revision::new(9)), None);
    }

    #[test]
    fn a_new_leader_compacts_by_its_own_notes() {
        let mut plan = Plan::new(AutoCompaction::Periodic(10 * MINUTE), at(0));
        // It follows for half an hour, and notes.
        for minute in 0..30 {
            plan.note(Revision::new(minute));
        }
        assert_eq!(
            plan.due(at(30), Revision::new(30)),
            Some(Revision::new(19)),
            "ten minutes ago and a note"
        );
    }
}
