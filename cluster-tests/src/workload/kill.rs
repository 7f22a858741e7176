//! Many writers, and SIGKILL: the leader twice, then every member at once. Every acknowledged put must survive.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::verify::{self, Verdict};
use super::writers::{Load, Timed, Writers};
use crate::client::{Client, Outcome};
use crate::harness::cluster::{Cluster, System};
use crate::judge::durability::Attempt;

/// How long the writers may go without a single acknowledged put before the run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// Between two looks at the writers.
const POLL: Duration = Duration::from_millis(2);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Acknowledged puts to reach.
    pub puts: u64,
    /// The load.
    pub load: Load,
    /// How long a killed leader stays away.
    pub down: Duration,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The member that leads at that moment.
    Leader,
    /// Every member.
    All,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "the leader",
            Self::All => "all members",
        })
    }
}

/// A kill, and what clients noticed of it.
#[derive(Debug, Clone)]
pub struct Kill {
    /// Who.
    pub fault: Fault,
    /// When, since the writers began.
    pub at: Duration,
    /// From then to the first acknowledged put that started later.
    pub unavailable: Duration,
}

/// How many puts came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged.
    pub acked: u64,
    /// Certainly without effect.
    pub refused: u64,
    /// Not known.
    pub unknown: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// The plan.
    pub plan: Plan,
    /// Outcomes.
    pub counts: Counts,
    /// From the first put to the last.
    pub took: Duration,
    /// The kills, in order.
    pub kills: Vec<Kill>,
    /// What the judges say.
    pub verdict: Verdict,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { acked, refused, unknown } = self.counts;
        let seconds = self.took.as_secs_f64();
        let rate = f64::from(u32::try_from(acked).unwrap_or(u32::MAX)) / seconds;
        let Load { writers, value_bytes, seed, .. } = self.plan.load;
        writeln!(
            f,
            "{}: {} members, {writers} writers, {value_bytes} bytes, seed {seed}",
            self.system, self.plan.members
        )?;
        writeln!(f, "  {acked} acknowledged in {seconds:.1} s, {rate:.0} a second, kills included")?;
        writeln!(f, "  {unknown} of unknown outcome, {refused} refused")?;
        for kill in &self.kills {
            let (at, gone) = (kill.at.as_secs_f64(), kill.unavailable.as_millis());
            writeln!(f, "  killed {} at {at:.1} s: first acknowledged put after {gone} ms", kill.fault)?;
        }
        write!(f, "  {}", self.verdict)
    }
}

/// Runs the plan: the leader dies at three and at six tenths of the puts, all members at nine tenths.
///
/// Errors: the cluster could not be run, or stopped serving. Findings are no errors; see [`Report::verdict`].
pub async fn run(system: System, plan: Plan) -> Result<Report> {
    let label = system.label.clone();
    let mut cluster = Cluster::start(system, plan.members).await?;
    let client = Client::new(&cluster.endpoints())?;
    let writers = Writers::start(client, plan.load.clone());
    let outcome = drive(&mut cluster, writers, &plan).await;
    let (puts, kills) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return Err(error.context(format!("data and logs are in {}", cluster.keep().display()))),
    };
    let attempts: Vec<Attempt> = puts.iter().map(|put| put.attempt.clone()).collect();
    let verdict = verify::verify(&cluster, &attempts).await;
    if !matches!(&verdict, Ok(verdict) if verdict.is_clean()) {
        let kept = cluster.keep();
        return Ok(Report {
            verdict: verdict.with_context(|| format!("data and logs are in {}", kept.display()))?,
            ..report(label, plan, &puts, kills)
        });
    }
    Ok(Report { verdict: verdict?, ..report(label, plan, &puts, kills) })
}

fn report(system: String, plan: Plan, puts: &[Timed], kills: Vec<Kill>) -> Report {
    let took = puts.iter().map(|put| put.ended).max().unwrap_or_default();
    Report { system, plan, counts: count(puts), took, kills, verdict: Verdict::default() }
}

async fn drive(cluster: &mut Cluster, writers: Writers, plan: &Plan) -> Result<(Vec<Timed>, Vec<Kill>)> {
    let mut kills = Vec::new();
    for (tenths, fault) in [(3, Fault::Leader), (6, Fault::Leader), (9, Fault::All)] {
        wait_for_acks(&writers, plan.puts * tenths / 10).await?;
        let at =
            kill(cluster, &writers, fault, plan.down).await.with_context(|| format!("killing {fault}"))?;
        kills.push((fault, at));
    }
    wait_for_acks(&writers, plan.puts).await?;
    let puts = writers.stop().await?;
    cluster.wait_ready(STALL_MAX).await?;
    let kills = kills
        .into_iter()
        .map(|(fault, at)| Kill { fault, at, unavailable: unavailable(&puts, at) })
        .collect();
    Ok((puts, kills))
}

/// Kills, waits for the first put that starts afterwards and is acknowledged, and has everybody running again.
/// The time of a kill is taken before the signal is sent; with all members, after the last one is dead.
async fn kill(cluster: &mut Cluster, writers: &Writers, fault: Fault, down: Duration) -> Result<Duration> {
    let at = match fault {
        Fault::Leader => {
            let leader = cluster.leader(STALL_MAX).await?;
            let at = writers.elapsed();
            cluster.kill(leader)?;
            wait_until(|| writers.acked_since(at))
                .await
                .context("no put is acknowledged without the old leader")?;
            tokio::time::sleep(down.saturating_sub(writers.elapsed().saturating_sub(at))).await;
            cluster.spawn(leader)?;
            at
        }
        Fault::All => {
            // Until the last one is dead, a put may still be acknowledged.
            cluster.kill_all()?;
            let at = writers.elapsed();
            (0..cluster.members().len()).try_for_each(|member| cluster.spawn(member))?;
            wait_until(|| writers.acked_since(at))
                .await
                .context("no put is acknowledged after the restart of all")?;
            at
        }
    };
    cluster.wait_ready(STALL_MAX).await?;
    Ok(at)
}

async fn wait_for_acks(writers: &Writers, wanted: u64) -> Result<()> {
    let mut seen = (writers.acked(), Instant::now());
    while writers.acked() < wanted {
        tokio::time::sleep(POLL).await;
        if writers.acked() > seen.0 {
            seen = (writers.acked(), Instant::now());
        }
        ensure!(
            seen.1.elapsed() < STALL_MAX,
            "no put was acknowledged for {STALL_MAX:?}, after {} of {wanted}",
            seen.0
        );
    }
    Ok(())
}

async fn wait_until(condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + STALL_MAX;
    while !condition() {
        ensure!(Instant::now() < deadline, "waited for {STALL_MAX:?}");
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// From `at` to the end of the first acknowledged put that started after it.
fn unavailable(puts: &[Timed], at: Duration) -> Duration {
    let later =
        puts.iter().filter(|put| put.started > at && matches!(put.attempt.outcome, Outcome::Acked(_)));
    later.map(|put| put.ended - at).min().unwrap_or(Duration::MAX)
}

fn count(puts: &[Timed]) -> Counts {
    let mut counts = Counts::default();
    for put in puts {
        match put.attempt.outcome {
            Outcome::Acked(_) => counts.acked += 1,
            Outcome::Refused(_) => counts.refused += 1,
            Outcome::Unknown(_) => counts.unknown += 1,
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(started_ms: u64, ended_ms: u64, outcome: Outcome) -> Timed {
        let attempt = Attempt { key: Bytes::new(), value: Bytes::new(), outcome, floor: 0 };
        Timed { attempt, started: Duration::from_millis(started_ms), ended: Duration::from_millis(ended_ms) }
    }

    #[test]
    fn only_a_put_that_started_after_the_kill_ends_the_unavailability() {
        let unknown = Outcome::Unknown(String::new());
        let puts = [
            put(90, 130, Outcome::Acked(2)),
            put(110, 150, unknown),
            put(120, 900, Outcome::Acked(3)),
            put(500, 700, Outcome::Acked(4)),
        ];
        assert_eq!(unavailable(&puts, Duration::from_millis(100)), Duration::from_millis(600));
        assert_eq!(unavailable(&puts[..2], Duration::from_millis(100)), Duration::MAX);
        assert_eq!(count(&puts), Counts { acked: 3, refused: 0, unknown: 1 });
    }
}
