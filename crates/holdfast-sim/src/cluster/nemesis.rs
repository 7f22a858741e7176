//! The nemesis: cuts, crashes and dumps at random times.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::history::{History, Violation};
use crate::cluster::member::{MEMBERS, Machines};
use crate::network::Host;
use crate::world::SimRng;

/// Upper end of the pause between two faults, in milliseconds.
const PAUSE_MS_MAX: u64 = 900;

/// Breaks things, one after the other.
pub(super) struct Nemesis {
    rng: SimRng,
    machines: Machines,
    history: History,
}

impl Nemesis {
    /// A nemesis with its own random source.
    pub(super) fn new(seed: u64, machines: Machines, history: History) -> Self {
        Self { rng: SimRng::new(seed), machines, history }
    }

    /// Breaks things until `end`.
    pub(super) async fn run_until(self, end: Instant) -> Result<(), Violation> {
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100 + self.rng.below(PAUSE_MS_MAX))).await;
            if let Some(violation) = self.machines.halted() {
                return Err(violation);
            }
            let target = self.any_machine();
            match self.rng.below(10) {
                0 | 1 => self.isolate(target),
                2 => self.cut_one_way(target),
                3 | 4 => self.machines.crash(target),
                5 => self.crash_all(),
                6 => self.dump(target).await,
                7 => self.machines.network().heal(),
                _ => {
                    self.machines.network().heal();
                    self.machines.start_all().await?;
                }
            }
        }
        Ok(())
    }

    fn any_machine(&self) -> usize {
        usize::try_from(self.rng.below(MEMBERS as u64)).unwrap_or_default()
    }

    fn isolate(&self, target: usize) {
        self.history.trace(("isolate", target));
        self.history.count(|report| report.cuts += 1);
        for other in (0..MEMBERS).filter(|other| *other != target) {
            self.machines.network().cut_both(Host(target), Host(other));
        }
    }

    fn cut_one_way(&self, from: usize) {
        let to = (from + 1 + usize::from(self.rng.one_in(2))) % MEMBERS;
        self.history.trace(("cut", from, to));
        self.history.count(|report| report.cuts += 1);
        self.machines.network().cut(Host(from), Host(to));
    }

    fn crash_all(&self) {
        (0..MEMBERS).for_each(|index| self.machines.crash(index));
    }

    async fn dump(&self, target: usize) {
        let Some(life) = self.machines.life(target) else { return };
        self.history.trace(("dump", target));
        self.history.count(|report| report.dumps += 1);
        // A member that is cut off or busy may refuse; the next dump is never far.
        drop(life.node.trigger_dump().await);
    }
}
