//! What is done to the members while the load runs: one fault after the other, in a random order that lets each come.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::harness::cluster::Cluster;

/// How long members may take to serve again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a member is left alone: longer than etcd waits for a leader before it ends streams, three elections.
const ALONE: Duration = Duration::from_secs(6);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to the leader.
    KillLeader,
    /// SIGKILL to any member.
    KillAny,
    /// SIGSTOP to the leader.
    PauseLeader,
    /// SIGSTOP to any member.
    PauseAny,
    /// SIGTERM to any member, and a start.
    Restart,
    /// SIGSTOP to all members but one: it has no leader, and says so on streams that ask for one.
    PauseOthers,
}

impl Fault {
    const ALL: [Self; 6] = [
        Self::KillLeader,
        Self::KillAny,
        Self::PauseLeader,
        Self::PauseAny,
        Self::Restart,
        Self::PauseOthers,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillLeader => "leader killed",
            Self::KillAny => "member killed",
            Self::PauseLeader => "leader paused",
            Self::PauseAny => "member paused",
            Self::Restart => "member restarted",
            Self::PauseOthers => "all others paused",
        })
    }
}

/// Breaks members until `duration` is over, and leaves all of them serving. Gives what was done.
pub async fn run(cluster: &mut Cluster, mut rng: StdRng, duration: Duration) -> Result<Vec<Fault>> {
    let deadline = Instant::now() + duration;
    let has_others = cluster.members().len() > 1;
    let mut done = Vec::new();
    let mut bag: Vec<Fault> = Vec::new();
    // A short run has short faults, so that it has some.
    let calm_max = (duration / 6).clamp(Duration::from_millis(500), Duration::from_secs(6));
    let length_max = (duration / 6).clamp(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        let calm = rng.random_range(calm_max / 4..calm_max);
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::sleep(calm.min(left)).await;
        if Instant::now() >= deadline {
            break;
        }
        if bag.is_empty() {
            bag.extend(Fault::ALL);
            bag.retain(|fault| *fault != Fault::PauseOthers || has_others && duration >= ALONE * 5);
            bag.shuffle(&mut rng);
        }
        let Some(fault) = bag.pop() else { break };
        let length = rng.random_range(Duration::from_millis(200)..length_max);
        inflict(cluster, &mut rng, fault, length).await.with_context(|| format!("{fault}"))?;
        done.push(fault);
    }
    cluster.wait_ready(PATIENCE).await?;
    Ok(done)
}

async fn inflict(cluster: &mut Cluster, rng: &mut StdRng, fault: Fault, length: Duration) -> Result<()> {
    let any = rng.random_range(0..cluster.members().len());
    let victim = match fault {
        Fault::KillLeader | Fault::PauseLeader => cluster.leader(PATIENCE).await?,
        Fault::KillAny | Fault::PauseAny | Fault::Restart | Fault::PauseOthers => any,
    };
    match fault {
        Fault::KillLeader | Fault::KillAny => {
            cluster.kill(victim)?;
            tokio::time::sleep(length).await;
            cluster.spawn(victim)?;
        }
        Fault::PauseLeader | Fault::PauseAny => {
            cluster.member(victim).process()?.pause()?;
            tokio::time::sleep(length).await;
            cluster.member(victim).process()?.resume()?;
        }
        Fault::Restart => {
            cluster.member(victim).process()?.terminate(PATIENCE)?;
            cluster.kill(victim)?;
            cluster.spawn(victim)?;
        }
        Fault::PauseOthers => {
            let others = (0..cluster.members().len()).filter(|member| *member != victim);
            for other in others.clone() {
                cluster.member(other).process()?.pause()?;
            }
            tokio::time::sleep(ALONE).await;
            for other in others {
                cluster.member(other).process()?.resume()?;
            }
        }
    }
    cluster.wait_ready(PATIENCE).await
}
