//! Many writers, and SIGKILL: the leader twice, then every member at once; or as often as is wished, at random moments, of
//! one member or of all. Every acknowledged put must survive.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::verify::{self, Verdict};
use super::writers::{Load, Timed, Writers};
use crate::client::{Client, Outcome};
use crate::harness::cluster::{Cluster, System};
use crate::judge::durability::Attempt;
use crate::judge::latency::Spread;

/// How long the writers may go without a single acknowledged put before the run is given up.
const STALL_MAX: Duration = Duration::from_secs(60);

/// A report spells out so many kills; of more it gives order statistics.
const SHOWN_MAX: usize = 3;

/// Random kills: from one to the next at most; and how long a victim stays away at most.
const CALM_MS_MAX: u64 = 900;
const AWAY_MS_MAX: u64 = 400;

/// Between two looks at the writers.
const POLL: Duration = Duration::from_millis(2);

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Acknowledged puts to reach. With random kills they end the run.
    pub puts: u64,
    /// So many random kills instead of the three fixed ones; 0 for those.
    pub random_kills: usize,
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
    /// Any member.
    One,
    /// Every member.
    All,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "the leader",
            Self::One => "one member",
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
        if self.kills.len() > SHOWN_MAX {
            self.fmt_many(f)?;
        }
        for kill in self.kills.iter().filter(|_| self.kills.len() <= SHOWN_MAX) {
            let (at, gone) = (kill.at.as_secs_f64(), kill.unavailable.as_millis());
            writeln!(f, "  killed {} at {at:.1} s: first acknowledged put after {gone} ms", kill.fault)?;
        }
        write!(f, "  {}", self.verdict)
    }
}

impl Report {
    fn fmt_many(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in [Fault::Leader, Fault::One, Fault::All] {
            let kills = self.kills.iter().filter(|kill| kill.fault == fault);
            let times: Vec<Duration> = kills.map(|kill| kill.unavailable).collect();
            if let Some(spread) = Spread::of(&times) {
                writeln!(f, "  killed {fault} {} times: first acknowledged put after {spread}", times.len())?;
            }
        }
        Ok(())
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
    let kills = if plan.random_kills == 0 {
        fixed_kills(cluster, &writers, plan).await?
    } else {
        random_kills(cluster, &writers, plan).await?
    };
    let puts = writers.stop().await?;
    cluster.wait_ready(STALL_MAX).await?;
    let kills = kills
        .into_iter()
        .map(|(fault, at)| Kill { fault, at, unavailable: unavailable(&puts, at) })
        .collect();
    Ok((puts, kills))
}

async fn fixed_kills(
    cluster: &mut Cluster,
    writers: &Writers,
    plan: &Plan,
) -> Result<Vec<(Fault, Duration)>> {
    let mut kills = Vec::new();
    for (tenths, fault) in [(3, Fault::Leader), (6, Fault::Leader), (9, Fault::All)] {
        wait_for_acks(writers, plan.puts * tenths / 10).await?;
        let at =
            kill(cluster, writers, fault, plan.down).await.with_context(|| format!("killing {fault}"))?;
        kills.push((fault, at));
    }
    wait_for_acks(writers, plan.puts).await?;
    Ok(kills)
}

/// Kills one member, or every fourth time all, at random moments. A member may die again before it serves, and while
/// another one is not back yet; each kill of all members, and the last one, is followed by an acknowledged put.
async fn random_kills(
    cluster: &mut Cluster,
    writers: &Writers,
    plan: &Plan,
) -> Result<Vec<(Fault, Duration)>> {
    let mut rng = StdRng::seed_from_u64(plan.load.seed);
    let mut kills = Vec::new();
    for number in 1..=plan.random_kills {
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..CALM_MS_MAX))).await;
        let fault = if rng.random_range(0..4) == 0 { Fault::All } else { Fault::One };
        let members = cluster.members().len();
        let victim = rng.random_range(0..members);
        match fault {
            Fault::All => cluster.kill_all()?,
            Fault::One | Fault::Leader => cluster.kill(victim)?,
        }
        let at = writers.elapsed();
        kills.push((fault, at));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..AWAY_MS_MAX))).await;
        for member in (0..members).filter(|member| fault == Fault::All || *member == victim) {
            cluster.spawn(member)?;
        }
        if fault == Fault::All || number == plan.random_kills || rng.random_bool(0.3) {
            cluster.wait_ready(STALL_MAX).await.with_context(|| format!("after kill {number}"))?;
            let served = wait_until(|| writers.acked_since(at)).await;
            served.with_context(|| format!("no put is acknowledged after kill {number}, of {fault}"))?;
        }
    }
    Ok(kills)
}

/// Kills, waits for the first put that starts afterwards and is acknowledged, and has everybody running again.
/// The time of a kill is taken before the signal is sent; with all members, after the last one is dead.
async fn kill(cluster: &mut Cluster, writers: &Writers, fault: Fault, down: Duration) -> Result<Duration> {
    let at = match fault {
        Fault::Leader | Fault::One => {
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
