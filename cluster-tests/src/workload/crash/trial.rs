//! One death: a member is started with the order to die at a point, is brought there, dies, and comes back.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::Broken;
use super::observer::Observer;
use super::points::{Point, Way};
use super::pressure::Pressure;
use crate::client::{Client, TIMEOUT};
use crate::harness::cluster::Cluster;
use crate::judge::members::{self, Disagreement, Hashed};

/// How long members may take to serve again, or to purge their logs.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a member may take to come to its point.
const REACH_MAX: Duration = Duration::from_secs(25);

/// The same when an overlay has to fill up first.
const REACH_FULL_MAX: Duration = Duration::from_secs(50);

/// How long a leader is paused so that another one is elected.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// Between two looks at a member that is to die.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// Between two requests for a dump.
pub(super) const DUMP_EVERY: Duration = Duration::from_millis(300);

/// The threshold of a member that is to lead before its first dump.
const DUMPS_BY_HAND_ALONE: &str = "--dump-log-bytes=8GiB";

/// A checkpoint after so few revisions that each life comes to several.
const CHECKPOINTS_OFTEN: &str = "--checkpoint-revisions=100";

/// Below that of the others, so that this member campaigns first.
const CAMPAIGNS_FIRST: &str = "--election-timeout=600";

/// How much faster large values come in order to fill an overlay.
const HURRY: u32 = 50;

/// SIGKILL's number.
const SIGKILL: i32 = 9;

/// How often hashes are asked for again when a compaction came in between.
const HASH_TRIES: usize = 10;

/// A death that is planned.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Where.
    pub point: &'static Point,
    /// At which hit.
    pub hits: u64,
    /// Whether the member is to lead by then.
    pub leads: bool,
}

/// A death.
#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// What was planned.
    pub trial: Trial,
    /// Whether the member led when it was last asked.
    pub led: bool,
    /// From its start to its death.
    pub lived: Duration,
    /// From its next start until all members served.
    pub serves_again: Duration,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trial { point, hits, .. } = self.trial;
        let role = if self.led { "leader" } else { "follower" };
        if point.way.is_disaster() {
            let again = self.serves_again.as_millis();
            return write!(f, "{} {} of a {role}; serves again in {again} ms", point.row, point.name);
        }
        let (lived, again) = (self.lived.as_millis(), self.serves_again.as_millis());
        write!(
            f,
            "{} {} hit {hits} of a {role}, after {lived} ms; serves again in {again} ms",
            point.row, point.name
        )
    }
}

/// What trials work on.
pub struct Stage<'a> {
    /// The members; all serve before and after a trial.
    pub cluster: &'a mut Cluster,
    /// A client of all of them.
    pub client: &'a Client,
    /// What they have to do beside the writers' load.
    pub pressure: &'a Pressure,
    /// Knows how far each member has purged its log.
    pub observer: &'a Observer,
    /// Decides on victims.
    pub rng: StdRng,
    /// Flags of a member that is to fill its overlay, before all others.
    pub small_memory: &'a [String],
}

impl Stage<'_> {
    /// Carries out a trial. `None`: the member lived on and did not come to its point; it serves as before.
    ///
    /// What members do wrong is added to `broken`. Errors: the cluster does not serve any more.
    pub async fn play(&mut self, trial: Trial, broken: &mut Vec<Broken>) -> Result<Option<Death>> {
        if trial.point.way.is_disaster() {
            return Box::pin(self.suffer(trial, broken)).await;
        }
        let victim = self.take_down(trial).await?;
        let mut flags = vec![format!("--failpoint={}:{}", trial.point.name, trial.hits)];
        if trial.leads {
            flags.push(CAMPAIGNS_FIRST.to_owned());
            if trial.point.way != Way::Purge {
                flags.push(DUMPS_BY_HAND_ALONE.to_owned());
            }
        }
        if trial.point.way == Way::Checkpoints {
            flags.push(CHECKPOINTS_OFTEN.to_owned());
        }
        if trial.point.way == Way::FullOverlay {
            flags.extend_from_slice(self.small_memory);
            self.pressure.hurry(HURRY);
        }
        let started = Instant::now();
        self.cluster.spawn_with(victim, &flags)?;
        let outcome = self.live_and_die(victim, trial, started).await;
        self.pressure.hurry(1);
        self.cluster.kill(victim)?;
        let restarted = Instant::now();
        self.cluster.spawn(victim)?;
        self.cluster.wait_ready(PATIENCE).await.with_context(|| format!("after a death at {trial:?}"))?;
        let serves_again = restarted.elapsed();
        let hashes = self.compare().await.context("comparing hashes")?;
        broken.extend(hashes.into_iter().map(|disagreement| Broken::Members { trial, disagreement }));
        Ok(match outcome? {
            End::Killed { led, lived } => Some(Death { trial, led, lived, serves_again }),
            End::Lived => None,
            End::Otherwise { said } => {
                broken.push(Broken::Died { trial, said });
                None
            }
        })
    }

    /// Stops a member that does not lead, by a signal that it can or cannot answer; for an install until the others
    /// have purged what it would need.
    pub(super) async fn take_down(&mut self, trial: Trial) -> Result<usize> {
        let leader = self.cluster.leader(PATIENCE).await?;
        let others: Vec<usize> = (0..self.cluster.members().len()).filter(|m| *m != leader).collect();
        let victim = others[self.rng.random_range(0..others.len())];
        if self.rng.random_bool(0.5) {
            self.cluster.member(victim).process()?.terminate(PATIENCE)?;
        }
        self.cluster.kill(victim)?;
        if trial.point.way == Way::Install {
            let last = self.client.status(leader).await?.raft_index;
            self.purge_beyond(victim, last).await?;
        }
        Ok(victim)
    }

    /// Has all members but this one dump until their logs begin behind `index`.
    async fn purge_beyond(&mut self, absent: usize, index: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut purged_least = u64::MAX;
            for member in (0..self.cluster.members().len()).filter(|member| *member != absent) {
                self.cluster.member(member).process()?.ask_for_dump()?;
                purged_least = purged_least.min(self.observer.purged(member));
            }
            if purged_least > index {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the logs are still there from {purged_least} on; they were to begin behind {index}");
            }
            sleep(DUMP_EVERY).await;
        }
    }

    /// Watches a member until it is dead, and pushes it towards its point.
    async fn live_and_die(&mut self, victim: usize, trial: Trial, started: Instant) -> Result<End> {
        let mut led = false;
        let mut dump_at = None;
        let reach_max = if trial.point.way == Way::FullOverlay { REACH_FULL_MAX } else { REACH_MAX };
        while started.elapsed() < reach_max {
            if let Some(status) = self.cluster.member(victim).process()?.try_wait()? {
                let lived = started.elapsed();
                if status.signal() == Some(SIGKILL) {
                    return Ok(End::Killed { led, lived });
                }
                let tail = self.cluster.member(victim).process()?.log_tail(12);
                return Ok(End::Otherwise { said: format!("{status}; its last lines:\n{tail}") });
            }
            sleep(POLL).await;
            let Some(leads_now) = self.leads(victim).await else { continue };
            led = leads_now;
            if trial.leads && !led {
                self.depose().await?;
                continue;
            }
            // A member that answers expects the signal, or will within the time to the next one.
            let due = *dump_at.get_or_insert(Instant::now() + DUMP_EVERY / 2);
            if Instant::now() >= due && trial.point.way != Way::Install {
                // It may be dead by now, which the next round finds.
                drop(self.cluster.member(victim).process()?.ask_for_dump());
                dump_at = Some(Instant::now() + DUMP_EVERY);
            }
        }
        Ok(End::Lived)
    }

    /// Pauses the leader, if there is one, until another member leads.
    async fn depose(&mut self) -> Result<()> {
        let Ok(leader) = self.cluster.leader(POLL).await else { return Ok(()) };
        self.cluster.member(leader).process()?.pause()?;
        let deadline = Instant::now() + PAUSE_MAX;
        let others = || (0..self.client.len()).filter(move |member| *member != leader);
        'waiting: while Instant::now() < deadline {
            for member in others() {
                if self.leads(member).await == Some(true) {
                    break 'waiting;
                }
            }
            sleep(POLL).await;
        }
        self.cluster.member(leader).process()?.resume()
    }

    /// Whether a member says that it leads; `None` when it says nothing.
    pub(super) async fn leads(&self, member: usize) -> Option<bool> {
        let status = self.client.status(member).await.ok()?;
        Some(status.header.is_some_and(|header| header.member_id == status.leader && status.leader != 0))
    }

    /// Hashes of all members at one revision. A compaction in between makes them incomparable: then once more.
    pub(super) async fn compare(&self) -> Result<Vec<Disagreement>> {
        let mut disagreements = Vec::new();
        for _ in 0..HASH_TRIES {
            let Ok(hashes) = self.hashes().await else {
                sleep(DUMP_EVERY).await;
                continue;
            };
            disagreements = members::hashes(&hashes);
            if !disagreements.iter().any(|one| matches!(one, Disagreement::NotComparable { .. })) {
                return Ok(disagreements);
            }
        }
        if disagreements.is_empty() {
            // Tried once more for its reason.
            disagreements = members::hashes(&self.hashes().await?);
        }
        Ok(disagreements)
    }

    async fn hashes(&self) -> Result<Vec<Hashed>> {
        let revision = self.client.revision(0, TIMEOUT).await?;
        let mut hashes = Vec::new();
        for (member, named) in self.cluster.members().iter().enumerate() {
            // A linearizable read waits until the member has caught up.
            self.client.revision(member, TIMEOUT).await?;
            let answer = self.client.hash_kv(member, revision).await?;
            let (hash, compact_revision) = (answer.hash, answer.compact_revision);
            hashes.push(Hashed { member: named.name.clone(), revision, hash, compact_revision });
        }
        Ok(hashes)
    }
}

/// How the life of a member with an order to die ended.
enum End {
    /// By SIGKILL: nobody else sends one.
    Killed { led: bool, lived: Duration },
    /// It did not come to the point in time.
    Lived,
    /// By itself.
    Otherwise { said: String },
}
