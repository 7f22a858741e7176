//! What is done to the members, and to the way between them and the child: one fault after the other, in a random order
//! that lets each come.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::time::sleep;

use super::child::Child;
use crate::harness::network::{Link, Network};
use crate::nemesis::Fault;
use crate::nemesis::stage::Stage;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// To the members.
    Members(Fault),
    /// The child reaches nobody.
    CutFromAll,
    /// The child does not reach one of them.
    CutFromOne,
    /// The child's connections break.
    Reset,
    /// The child is stopped, and continued.
    Pause,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Members(Fault::KillLeader),
        Self::Members(Fault::KillFollower),
        Self::Members(Fault::KillAll),
        Self::Members(Fault::PauseLeader),
        Self::Members(Fault::PauseFollower),
        Self::Members(Fault::Restart),
        Self::Members(Fault::CutLeader),
        Self::Members(Fault::CutFollower),
        Self::Members(Fault::OneWay),
        Self::CutFromAll,
        Self::CutFromOne,
        Self::Reset,
        Self::Pause,
    ];
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Members(fault) => write!(f, "{fault}"),
            Self::CutFromAll => f.write_str("cut-sdk"),
            Self::CutFromOne => f.write_str("cut-sdk-from-one"),
            Self::Reset => f.write_str("reset-sdk"),
            Self::Pause => f.write_str("pause-sdk"),
        }
    }
}

/// What is struck.
pub struct Scene<'a> {
    /// The members.
    pub stage: Stage<'a>,
    /// The way from the child, which has the last place, to the members.
    pub network: &'a Network,
    /// The child.
    pub child: &'a Child,
}

impl Scene<'_> {
    /// Breaks things until `duration` is over since the run began, and leaves all whole and serving. Gives what was done.
    pub async fn run(&mut self, duration: Duration) -> Result<Vec<Blow>> {
        let mut done = Vec::new();
        let mut bag: Vec<Blow> = Vec::new();
        // A short run has short faults, so that it has some.
        let calm_max = (duration / 12).clamp(Duration::from_millis(400), Duration::from_secs(3));
        let short_max = (duration / 8).clamp(Duration::from_millis(500), Duration::from_secs(4));
        let long_max = (duration / 6).clamp(Duration::from_millis(500), Duration::from_secs(20));
        loop {
            let calm = self.stage.rng.random_range(calm_max / 4..calm_max);
            let left = duration.saturating_sub(self.stage.shared.elapsed());
            sleep(calm.min(left)).await;
            if self.stage.shared.elapsed() >= duration {
                return Ok(done);
            }
            if bag.is_empty() {
                bag.extend(Blow::ALL);
                bag.shuffle(&mut self.stage.rng);
            }
            let Some(blow) = bag.pop() else { return Ok(done) };
            let longest = if blow == Blow::CutFromOne { long_max } else { short_max };
            let length = self.stage.rng.random_range(Duration::from_millis(200)..longest);
            Box::pin(self.strike(blow, length)).await.with_context(|| format!("{blow}"))?;
            done.push(blow);
        }
    }

    async fn strike(&mut self, blow: Blow, length: Duration) -> Result<()> {
        let child = self.network.size() - 1;
        let member = self.stage.rng.random_range(0..child);
        match blow {
            Blow::Members(fault) => {
                self.stage.suffer(fault, length).await?;
            }
            Blow::CutFromAll => {
                self.network.set_around(&[child], Link::Cut);
                sleep(length).await;
                self.network.heal();
            }
            Blow::CutFromOne => {
                self.network.set(child, member, Link::Cut);
                self.network.set(member, child, Link::Cut);
                sleep(length).await;
                self.network.heal();
            }
            Blow::Reset => (0..child).for_each(|member| self.network.reset(child, member)),
            Blow::Pause => {
                self.child.pause()?;
                sleep(length).await;
                self.child.resume()?;
            }
        }
        Ok(())
    }
}
