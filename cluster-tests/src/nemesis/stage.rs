//! One fault: it strikes, lasts, and is mended.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::files::{self, LogCopy};
use super::probe::Probe;
use super::{Broken, Fault, Incident, Notes};
use crate::client::{Client, TIMEOUT};
use crate::harness::cluster::Cluster;
use crate::harness::disk::SmallDisk;
use crate::harness::network::{Link, Network};
use crate::harness::process::Process;
use crate::workload::watch::shared::Shared;

/// How long a member, or all of them, may take for what is asked of them.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that is waited for.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// A pause of the leader lasts at least so long, that another one is elected.
const PAUSE_MIN: Duration = Duration::from_millis(2_500);

/// What a slow link takes at least, and up to twice.
const SLOW: Duration = Duration::from_millis(75);

/// How often the connections of a member are broken while it is sent everything, and how long each time.
const CUTS: usize = 3;
const CUT_FOR: Duration = Duration::from_millis(150);

/// How much it must have been sent before the next break.
const CUT_BYTES: u64 = 32 << 10;

/// How long a member that is to lose the end of its log writes what it cannot acknowledge any more; and what is on its way
/// when it is silenced has so long to come down.
const WRITE_FOR: Duration = Duration::from_millis(150);
const SETTLE_FOR: Duration = Duration::from_millis(60);

/// What faults work on.
pub struct Stage<'a> {
    /// The members; all serve before and after a fault.
    pub cluster: &'a mut Cluster,
    /// What connects them.
    pub network: Arc<Network>,
    /// Small disks, one for each member; none if no disk is to fill up.
    pub disks: &'a [SmallDisk],
    /// A client of those that vote all the time.
    pub client: Client,
    /// Measures how long nobody can write.
    pub probe: Probe,
    /// The clock.
    pub shared: Arc<Shared>,
    /// Members that vote all the time; the place behind them is for one that comes and goes.
    pub voters: usize,
    /// Decides on victims and lengths.
    pub rng: StdRng,
    /// The other build that members are restarted with.
    pub other_binary: Option<PathBuf>,
    /// Members whose files were damaged since they were new.
    pub damaged: BTreeSet<usize>,
    /// Members that came back without their files since the last fault: nothing excuses them any more.
    pub rejoined: BTreeSet<usize>,
    /// What no fault explains.
    pub findings: Vec<Broken>,
}

impl Stage<'_> {
    /// Whether holdfast is under test.
    pub(super) fn is_holdfast(&self) -> bool {
        self.cluster.system().label == "holdfast"
    }

    /// Has a fault strike, last for about `length`, and be mended, and waits until all serve.
    ///
    /// Errors: the cluster does not serve any more.
    pub async fn suffer(&mut self, fault: Fault, length: Duration) -> Result<Incident> {
        let victims = self.victims(fault).await?;
        let mut notes = Notes::default();
        let log = self.look_at_log(fault, &victims).await?;
        self.strike(fault, &victims).await.with_context(|| format!("{fault} strikes"))?;
        let (began, outage) = (self.shared.elapsed(), self.probe.start());
        self.last(fault, &victims, length, &mut notes).await.with_context(|| format!("{fault} lasts"))?;
        self.mend(fault, &victims, log, &mut notes).await.with_context(|| format!("{fault} is mended"))?;
        let mended = self.shared.elapsed();
        self.recover(fault, &victims, &mut notes).await.with_context(|| format!("after {fault}"))?;
        let served = self.shared.elapsed();
        if fault == Fault::RotStore {
            self.read_all(victims[0], fault, &mut notes).await?;
        }
        let first_ack = outage.await.context("the probe panicked")?;
        Ok(Incident { fault, victims, began, mended, served, first_ack, notes })
    }

    /// As many as a quorum can miss.
    fn minority(&self) -> usize {
        (self.voters - 1) / 2
    }

    async fn victims(&mut self, fault: Fault) -> Result<Vec<usize>> {
        let leader = self.cluster.leader(PATIENCE).await?;
        let mut others: Vec<usize> = (0..self.voters).filter(|member| *member != leader).collect();
        others.shuffle(&mut self.rng);
        let some = self.rng.random_range(1..=self.minority().max(1));
        let any = self.rng.random_bool(0.5);
        let mut all: Vec<usize> = (0..self.voters).collect();
        Ok(match fault {
            Fault::KillLeader | Fault::PauseLeader => vec![leader],
            // The leader and as many as still leave it in the smaller part.
            Fault::CutLeader => [&[leader], &others[..self.minority().saturating_sub(1)]].concat(),
            Fault::KillFollower | Fault::PauseFollower | Fault::CutFollower => {
                others[..some.min(others.len())].to_vec()
            }
            Fault::KillAny | Fault::Restart => {
                all.shuffle(&mut self.rng);
                all[..if fault == Fault::KillAny { some } else { 1 }].to_vec()
            }
            Fault::KillAll | Fault::RollingRestart | Fault::CutAll | Fault::Reset => all,
            Fault::Bridge => {
                all.shuffle(&mut self.rng);
                all
            }
            Fault::Membership => vec![self.voters],
            Fault::OneWay | Fault::Flap | Fault::Slow | Fault::DiskFull | Fault::Dump if any => vec![leader],
            _ => others.first().copied().or(Some(leader)).into_iter().collect(),
        })
    }

    /// Only what nobody was told to be durable can be torn away from a log: so the member is silenced before it dies.
    async fn look_at_log(&mut self, fault: Fault, victims: &[usize]) -> Result<Option<LogCopy>> {
        if fault != Fault::TornTail {
            return Ok(None);
        }
        // First it is cut off, until it has written all that it may have acknowledged and something more is on its way.
        self.network.set_around(victims, Link::Cut);
        sleep(SETTLE_FOR).await;
        let copy = LogCopy::of(&self.cluster.members()[victims[0]].files())?;
        for other in 0..self.network.size() {
            self.network.set(other, victims[0], Link::Whole);
        }
        sleep(WRITE_FOR).await;
        Ok(Some(copy))
    }

    /// What happens in one moment.
    async fn strike(&mut self, fault: Fault, victims: &[usize]) -> Result<()> {
        let network = Arc::clone(&self.network);
        match fault {
            Fault::KillLeader
            | Fault::KillFollower
            | Fault::KillAny
            | Fault::KillAll
            | Fault::RotLog
            | Fault::RotStore
            | Fault::LostDir
            | Fault::InstallCut => victims.iter().try_for_each(|victim| self.cluster.kill(*victim))?,
            Fault::TornTail => {
                self.cluster.kill(victims[0])?;
                // What it has said and nobody has heard is lost with it.
                network.reset_around(victims[0]);
                network.heal();
            }
            Fault::RotSnapshot => {
                self.have_snapshot(victims[0]).await;
                self.cluster.kill(victims[0])?;
            }
            Fault::PauseLeader | Fault::PauseFollower => {
                victims.iter().try_for_each(|victim| self.cluster.member(*victim).process()?.pause())?;
            }
            Fault::CutLeader | Fault::CutFollower => network.set_around(victims, Link::Cut),
            Fault::CutAll => victims.iter().for_each(|victim| network.set_around(&[*victim], Link::Cut)),
            Fault::Bridge => self.part_but_for_one(victims),
            Fault::OneWay => {
                let is_deaf = self.rng.random_bool(0.5);
                for other in (0..network.size()).filter(|other| *other != victims[0]) {
                    let (from, to) = if is_deaf { (other, victims[0]) } else { (victims[0], other) };
                    network.set(from, to, Link::Cut);
                }
            }
            Fault::Slow => network.set_around(victims, Link::Slow(SLOW)),
            Fault::DiskFull => block_in_place(|| self.disks[victims[0]].fill())?,
            Fault::Restart
            | Fault::RollingRestart
            | Fault::Flap
            | Fault::Reset
            | Fault::Membership
            | Fault::Dump => {}
        }
        Ok(())
    }

    /// The first of them reaches all; the others are halves that do not reach each other.
    fn part_but_for_one(&self, members: &[usize]) {
        let others = &members[1..];
        let (one, other) = others.split_at(others.len() / 2);
        for a in one {
            for b in other {
                self.network.set(*a, *b, Link::Cut);
                self.network.set(*b, *a, Link::Cut);
            }
        }
    }

    /// What happens while it lasts.
    async fn last(
        &mut self,
        fault: Fault,
        victims: &[usize],
        length: Duration,
        notes: &mut Notes,
    ) -> Result<()> {
        let until = Instant::now() + length;
        match fault {
            Fault::Restart => self.restart(victims[0]).await,
            Fault::RollingRestart => {
                self.swap_binary(notes);
                for victim in victims {
                    self.restart(*victim).await?;
                    self.recover(fault, victims, notes).await?;
                }
                Ok(())
            }
            Fault::Flap => {
                while Instant::now() < until {
                    self.network.set_around(victims, Link::Cut);
                    sleep(Duration::from_millis(self.rng.random_range(20..300))).await;
                    self.network.heal();
                    sleep(Duration::from_millis(self.rng.random_range(20..300))).await;
                }
                Ok(())
            }
            Fault::Reset => {
                while Instant::now() < until {
                    let one = self.rng.random_range(0..self.voters);
                    let other = (one + self.rng.random_range(1..self.voters.max(2))) % self.voters;
                    self.network.reset(one, other);
                    sleep(Duration::from_millis(self.rng.random_range(20..200))).await;
                }
                Ok(())
            }
            Fault::Membership => self.come_and_go(length).await,
            Fault::Dump => {
                while Instant::now() < until {
                    self.cluster.member(victims[0]).process()?.ask_for_dump()?;
                    sleep(Duration::from_millis(self.rng.random_range(50..500))).await;
                }
                Ok(())
            }
            Fault::PauseLeader => {
                sleep(length.max(PAUSE_MIN)).await;
                Ok(())
            }
            Fault::TornTail | Fault::RotLog | Fault::RotStore | Fault::RotSnapshot => {
                // What is lost here must be on every other member: each of them is asked for all that is committed.
                for member in (0..self.voters).filter(|member| !victims.contains(member)) {
                    self.catch_up(member).await?;
                }
                sleep(length / 2).await;
                Ok(())
            }
            _ => {
                sleep(length).await;
                Ok(())
            }
        }
    }

    /// What ends it, as far as it does not end by itself.
    async fn mend(
        &mut self,
        fault: Fault,
        victims: &[usize],
        log: Option<LogCopy>,
        notes: &mut Notes,
    ) -> Result<()> {
        let data = self.cluster.members()[victims[0]].files();
        match fault {
            Fault::PauseLeader | Fault::PauseFollower => {
                victims.iter().try_for_each(|victim| self.cluster.member(*victim).process()?.resume())?;
            }
            Fault::CutLeader
            | Fault::CutFollower
            | Fault::CutAll
            | Fault::Bridge
            | Fault::OneWay
            | Fault::Flap
            | Fault::Slow => self.network.heal(),
            Fault::DiskFull => block_in_place(|| self.disks[victims[0]].free())?,
            Fault::TornTail => {
                let torn = files::tear(&mut self.rng, &log.context("no copy of the log")?)?;
                notes.push(format!("{torn} bytes torn away"));
            }
            Fault::RotLog => notes.push(files::rot_log(&mut self.rng, &data)?),
            Fault::RotStore => notes.push(files::rot_store(&mut self.rng, &data)?),
            Fault::RotSnapshot => {
                let rotten = files::rot_snapshot(&mut self.rng, &data)?;
                notes.push(rotten.unwrap_or_else(|| "there was no snapshot".to_owned()));
            }
            Fault::LostDir => self.rejoin(victims[0]).await?,
            Fault::InstallCut => {
                let before = self.network.toward(victims[0]);
                self.rejoin(victims[0]).await?;
                let cuts = self.cut_while_sent(victims[0], before).await;
                notes.push(format!("{cuts} cuts"));
            }
            _ => {}
        }
        if matches!(fault, Fault::TornTail | Fault::RotLog | Fault::RotStore | Fault::RotSnapshot) {
            self.damaged.insert(victims[0]);
        }
        let down: Vec<usize> = victims.iter().copied().filter(|victim| *victim < self.voters).collect();
        for victim in down {
            if !self.cluster.members()[victim].is_started() {
                self.cluster.spawn(victim)?;
            }
        }
        Ok(())
    }

    async fn restart(&mut self, victim: usize) -> Result<()> {
        block_in_place(|| {
            self.cluster.member(victim).process()?.terminate(PATIENCE)?;
            self.cluster.kill(victim)?;
            self.cluster.spawn(victim)
        })
    }

    /// Every second rolling restart is to the other build, if there is one.
    fn swap_binary(&mut self, notes: &mut Notes) {
        if let Some(other) = self.other_binary.take() {
            notes.push(format!("to {}", other.display()));
            self.other_binary = Some(self.cluster.set_binary(other));
        }
    }

    async fn catch_up(&self, member: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.client.revision(member, TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(POLL).await,
            }
        }
    }

    /// Has a member take a snapshot, where that can be asked for.
    async fn have_snapshot(&mut self, member: usize) {
        if self.is_holdfast() && self.cluster.member(member).process().and_then(Process::ask_for_dump).is_ok()
        {
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Breaks the connections of a member each time when it has been sent some more; how often it came to that.
    async fn cut_while_sent(&mut self, member: usize, mut sent: u64) -> usize {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut cuts = 0;
        while cuts < CUTS && Instant::now() < deadline {
            if self.network.toward(member) >= sent + CUT_BYTES {
                self.network.set_around(&[member], Link::Cut);
                self.network.reset_around(member);
                sleep(CUT_FOR).await;
                self.network.heal();
                sent = self.network.toward(member);
                cuts += 1;
            }
            sleep(Duration::from_millis(1)).await;
        }
        cuts
    }
}
