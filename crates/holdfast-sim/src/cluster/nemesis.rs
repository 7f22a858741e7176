//! The nemesis: cuts links, crashes machines, stops members at failpoints, starts dumps, holds members back until they
//! need a snapshot, harms and fills disks, and has members come and go.

use std::time::Duration;

use holdfast_env::{Failpoint, LogId, Rng};
use tokio::time::Instant;

use super::changes::Changer;
use super::full::Full;
use super::harm::Harm;
use super::history::{History, Violation};
use super::life::Life;
use super::member::{Crash, Machines};
use super::sabotage::Armed;
use super::workload::Client;
use crate::network::Host;
use crate::world::SimRng;

/// Upper end of the pause between two faults, in milliseconds.
const PAUSE_MS_MAX: u64 = 600;
/// How often it is tried to bring a member to a point.
const ROUNDS_MAX: u64 = 5;
/// How long a member is held back at most, until the log it needs is gone.
const STARVE_MAX: Duration = Duration::from_secs(4);
/// How often is written and dumped on a full disk.
const FULL_ROUNDS: u64 = 5;
/// What is left of a disk that is about to be full, at most.
const FULL_BYTES_MAX: u64 = 160 * 1024;
/// The nemesis' own client; the others count from 0.
const CLIENT: usize = 1000;

/// Breaks things, one after the other.
pub(super) struct Nemesis {
    rng: SimRng,
    machines: Machines,
    history: History,
    client: Client,
    /// At which points members are stopped.
    points: Vec<Failpoint>,
    /// Decides over the harm that is done to disks, when any is.
    harms: Option<SimRng>,
    /// Changes the membership, when it changes at all.
    changer: Option<Changer>,
}

impl Nemesis {
    /// A nemesis with its own random source.
    pub(super) fn new(seed: u64, machines: Machines, points: Vec<Failpoint>) -> Self {
        let rng = SimRng::new(seed);
        let harms = machines.config().harms.then(|| SimRng::new(!seed));
        let history = machines.history().clone();
        let client = Client::new(CLIENT, rng.next_u64(), machines.clone());
        let changes = machines.config().changes;
        let changer = changes.then(|| Changer::new(rng.next_u64(), machines.clone()));
        Self { rng, machines, history, client, points, harms, changer }
    }

    /// Breaks things until `end`.
    pub(super) async fn run_until(mut self, end: Instant) -> Result<(), Violation> {
        while Instant::now() < end {
            self.pause(100 + self.rng.below(PAUSE_MS_MAX)).await?;
            let target = self.any_machine();
            match self.rng.below(26) {
                0 | 1 => self.isolate(target),
                2 => self.cut_one_way(target),
                3 => self.machines.crash(target, self.any_crash()),
                4 => {
                    self.machines.crash(target, self.any_crash());
                    if let Some(rng) = &self.harms {
                        let harm = rng.pick(&[Harm::RottenSnapshot, Harm::RottenStore, Harm::LostStore]);
                        self.machines.harm(target, harm, rng);
                    }
                }
                5 => self.crash_all(),
                6 => self.dump(target).await,
                7 => self.machines.network().heal(),
                8 => {
                    self.machines.network().heal();
                    self.machines.start_all().await?;
                }
                9 => self.starve(target, None).await?,
                10..18 if !self.points.is_empty() => self.stop_at_a_point(target).await?,
                18 | 19 if self.changer.is_some() => self.change_members().await?,
                20 | 23 | 24 if self.harms.is_some() => self.fill_disk(target).await?,
                21 => self.dump_through_an_election(target).await?,
                22 if self.harms.is_some() => self.rot(target),
                _ => self.machines.start(target).await?,
            }
        }
        for index in 0..self.machines.count() {
            if self.machines.is_armed(index) {
                self.machines.arm(index, None);
            }
        }
        Ok(())
    }

    async fn pause(&self, ms: u64) -> Result<(), Violation> {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.machines.bury();
        self.machines.retire_departed()?;
        self.machines.check()
    }

    /// Any machine where somebody lives.
    fn any_machine(&self) -> usize {
        self.rng.pick(&self.machines.taken())
    }

    fn any_crash(&self) -> Crash {
        if self.rng.one_in(3) { Crash::Kill } else { Crash::Power }
    }

    fn others(&self, target: usize) -> impl Iterator<Item = usize> + use<> {
        self.machines.taken().into_iter().filter(move |other| *other != target)
    }

    fn isolate(&self, target: usize) {
        self.history.trace(("isolate", target));
        self.history.count(|report| report.cuts += 1);
        for other in self.others(target) {
            self.machines.network().cut_both(Host(target), Host(other));
        }
    }

    fn cut_one_way(&self, from: usize) {
        let others: Vec<usize> = self.others(from).collect();
        let to = self.rng.pick(&others);
        self.history.trace(("cut", from, to));
        self.history.count(|report| report.cuts += 1);
        self.machines.network().cut(Host(from), Host(to));
    }

    fn crash_all(&self) {
        let crash = self.any_crash();
        (0..self.machines.count()).for_each(|index| self.machines.crash(index, crash));
    }

    async fn dump(&self, target: usize) {
        let Some(life) = self.machines.life(target) else { return };
        self.history.trace(("dump", target));
        self.history.count(|report| report.dumps += 1);
        // A member without room for one may refuse; the next dump is never far.
        drop(life.until_crash(life.node.trigger_dump()).await);
    }

    /// A dump that holds entries back rather than end for them.
    async fn dump_demanded(&self, target: usize) {
        let Some(life) = self.machines.life(target) else { return };
        self.history.trace(("dump, demanded", target));
        self.history.count(|report| report.dumps += 1);
        // What comes of it is not waited for.
        drop(life.until_crash(life.storage.start_dump()).await);
    }

    /// Makes it likely that a member comes to a point, at which it is stopped.
    async fn stop_at_a_point(&mut self, target: usize) -> Result<(), Violation> {
        use Failpoint as P;
        let at = self.rng.pick(&self.points);
        let left = if self.rng.one_in(2) { 1 } else { 1 + self.rng.below(5) };
        let armed = Armed { at, left, crash: self.any_crash() };
        if matches!(
            at,
            P::InstallRecv
                | P::InstallVerified
                | P::InstallGenWritten
                | P::InstallSwitched
                | P::InstallCleanup
        ) {
            return self.starve(target, Some(Armed { left: 1, ..armed })).await;
        }
        if at == P::DrainUnderDumpMid {
            // Only a dump that takes long has something collect beside it.
            self.machines.crash(target, self.any_crash());
            self.machines.slow_down(target);
        }
        self.machines.start(target).await?;
        self.machines.arm(target, Some(armed));
        for _ in 0..ROUNDS_MAX {
            match at {
                P::CommitMidBatch => self.load_huge().await,
                P::DrainUnderDumpMid => {
                    self.dump_demanded(target).await;
                    for _ in 0..5 {
                        self.load(12, 8 * 1024).await;
                    }
                }
                P::ApplyAfterCommit | P::CommitBeforeFlush => {}
                _ => {
                    self.load(15, 5 * 1024).await;
                    self.dump(target).await;
                }
            }
            self.pause(200).await?;
            if !self.machines.is_armed(target) || self.machines.life(target).is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Also while the member runs, which has read its snapshot through then.
    fn rot(&self, target: usize) {
        if let Some(rng) = &self.harms {
            self.machines.harm(target, Harm::RottenSnapshot, rng);
        }
    }

    async fn change_members(&self) -> Result<(), Violation> {
        match &self.changer {
            Some(changer) => changer.step().await,
            None => Ok(()),
        }
    }

    /// Writes and dumps while a disk is full, then makes room.
    async fn fill_disk(&mut self, target: usize) -> Result<(), Violation> {
        self.machines.start(target).await?;
        let leader = self.machines.leader().map(|(index, _)| index);
        let target = leader.filter(|_| self.rng.below(2) == 0).unwrap_or(target);
        let full = match self.rng.below(4) {
            0 => Full::Log,
            1 => Full::Store,
            2 => Full::Snapshots,
            _ => Full::All { bytes: self.rng.below(FULL_BYTES_MAX) },
        };
        let mut effects = self.machines.fill(target, full);
        for _ in 0..FULL_ROUNDS {
            self.load(15, 6 * 1024).await;
            self.machines.feel_full(target, &mut effects).await;
            self.machines.check()?;
        }
        self.machines.count_full(effects);
        self.machines.until_handed_over(target, effects).await?;
        self.machines.relieve(target).await
    }

    /// A dump that takes long, on a member that does not lead, while those that lead are cut off.
    async fn dump_through_an_election(&mut self, target: usize) -> Result<(), Violation> {
        self.machines.crash(target, self.any_crash());
        self.machines.slow_down(target);
        self.machines.start(target).await?;
        self.load(15, 6 * 1024).await;
        let leader = self.machines.leader().map(|(index, _)| index).filter(|leader| *leader != target);
        self.dump_demanded(target).await;
        if let Some(leader) = leader {
            self.isolate(leader);
        }
        self.pause(1_500).await?;
        self.machines.network().heal();
        Ok(())
    }

    async fn load_huge(&mut self) {
        let leader: Option<Life> = self.machines.leader().map(|(_, life)| life);
        if let Some(life) = leader {
            self.client.put_huge(&life).await;
        }
    }

    /// Writes much at once, through whoever leads.
    async fn load(&mut self, count: u64, bytes: usize) {
        let leader: Option<Life> = self.machines.leader().map(|(_, life)| life);
        if let Some(life) = leader {
            self.client.burst(&life, count, bytes).await;
        }
    }

    /// Keeps a member down while the others write, dump and purge, until the log has nothing for it any more; then
    /// starts it, perhaps to be stopped on the way.
    async fn starve(&mut self, target: usize, armed: Option<Armed>) -> Result<(), Violation> {
        let Some(life) = self.machines.life(target) else {
            return self.machines.start(target).await;
        };
        let last = life.log.state().last;
        drop(life);
        self.machines.crash(target, self.any_crash());
        self.machines.network().heal();
        for other in self.others(target) {
            self.machines.start(other).await?;
        }
        let until = Instant::now() + STARVE_MAX;
        while Instant::now() < until {
            let leader = self.machines.leader();
            if let Some((index, life)) = leader {
                if life.log.state().purged.map(LogId::index) > last.map(LogId::index) {
                    break;
                }
                self.load(30, 6 * 1024).await;
                self.dump(index).await;
            }
            self.pause(100).await?;
        }
        if let Some(armed) = armed {
            self.machines.arm(target, Some(armed));
        }
        self.machines.start(target).await?;
        // A snapshot takes its time to arrive.
        self.pause(1_000).await
    }
}
