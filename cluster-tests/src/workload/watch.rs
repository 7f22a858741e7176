//! Watchers by the hundred under faults: they come, go, resume on any member, read slowly; members are killed, paused and
//! restarted; history is compacted under them. In the end every watcher must have been sent what history holds, by every
//! law of [`crate::judge::watch`].

pub mod calls;
pub mod compactor;
pub mod group;
pub mod nemesis;
pub mod population;
pub mod report;
pub mod shared;
pub mod tracked;
pub mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use self::calls::{Fate, Window, connections};
use self::compactor::Compactor;
use self::group::{Group, Outcome, Phase, Tally};
use self::population::Crowd;
use self::report::{Counts, Report, Writes, lags};
use self::shared::Shared;
use self::writers::{Load, Writers, Written};
use crate::client::{Client, Contents, TIMEOUT};
use crate::harness::cluster::{Cluster, System};
use crate::judge::latency::Spread;
use crate::judge::watch::history::{Flaw, History};
use crate::judge::watch::record::{Compaction, KeyTable, Life, Stray};
use crate::judge::watch::{Record, judge, last_wanted};

/// Connections that the streams share, for each member.
const LANES: usize = 8;

/// How long the watchers may take in the end to get to the last revision.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// The revision counts as final when it has not moved for this long.
const STILL: Duration = Duration::from_millis(1_500);

/// The members send progress unasked this often.
const PROGRESS_INTERVAL: &str = "--experimental-watch-progress-notify-interval=2s";

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Watchers.
    pub watchers: usize,
    /// How long faults and load go on.
    pub duration: Duration,
    /// Between two compactions.
    pub compact_every: Duration,
    /// The load.
    pub load: Load,
    /// Makes watchers, moods, commands and faults repeatable; the members' timing is their own.
    pub seed: u64,
}

impl Plan {
    fn crowd(&self) -> Crowd {
        Crowd { watchers: self.watchers, writers: self.load.writers, duration: self.duration }
    }

    /// The command that does the same again.
    fn command(&self, system: &str) -> String {
        let Self { members, watchers, duration, load, seed, .. } = self;
        format!(
            "cargo run --release -p cluster-tests -- watch --against {system} --members {members} --duration {}s \
             --watchers {watchers} --rate {} --compact-every-ms {} --seed {seed}",
            duration.as_secs(),
            load.rate,
            self.compact_every.as_millis()
        )
    }
}

/// Runs the plan.
///
/// Errors: the cluster could not be run, or stopped serving. Findings are no errors.
pub async fn run(system: System, plan: Plan) -> Result<Report> {
    let (seed, duration) = (plan.seed, plan.duration);
    let mut faults = Vec::new();
    let nemesis = async |cluster: &mut Cluster, _: &Arc<Shared>| {
        faults = nemesis::run(cluster, Shared::new(seed).rng("nemesis", 0), duration).await?;
        anyhow::Ok(Vec::new())
    };
    let report = run_under(system, plan, nemesis).await?;
    Ok(Report { faults, ..report })
}

/// Runs the plan's watchers, writers and compactor for as long as `nemesis` takes. It leaves all members running, and
/// gives what it wrote itself, by writer, on keys of its own.
///
/// Errors: the cluster could not be run, or stopped serving. Findings are no errors.
pub async fn run_under(
    mut system: System,
    plan: Plan,
    nemesis: impl AsyncFnOnce(&mut Cluster, &Arc<Shared>) -> Result<Vec<Vec<Written>>>,
) -> Result<Report> {
    let label = system.label.clone();
    system.extra_args.push(PROGRESS_INTERVAL.to_owned());
    let mut cluster = Cluster::start(system, plan.members).await?;
    let outcome = drive(&mut cluster, label, plan, nemesis).await;
    match outcome {
        Ok(report) if report.is_clean() => Ok(report),
        Ok(report) => Ok(Report { kept: Some(cluster.keep()), ..report }),
        Err(error) => Err(error.context(format!("data and logs are in {}", cluster.keep().display()))),
    }
}

async fn drive(
    cluster: &mut Cluster,
    system: String,
    plan: Plan,
    nemesis: impl AsyncFnOnce(&mut Cluster, &Arc<Shared>) -> Result<Vec<Vec<Written>>>,
) -> Result<Report> {
    let shared = Arc::new(Shared::new(plan.seed));
    let endpoints = cluster.endpoints();
    let client = Client::new(&endpoints)?;
    let writers = Writers::start(&shared, &connections(&endpoints, Window::Usual)?, plan.load);
    let (phase, watching) = watch::channel(Phase::Roam);
    let groups = start_groups(&shared, &endpoints, &plan, &watching)?;
    let channels = connections(&endpoints, Window::Usual)?;
    let compactor = Compactor::start(Arc::clone(&shared), client.clone(), channels, plan.compact_every);
    let also_written = nemesis(cluster, &shared).await?;
    let mut written = writers.stop().await?;
    written.extend(also_written);
    let compactions = compactor.stop().await?;
    let end = final_contents(&client, &shared).await?;
    let judged = Judged::new(&written, &shared, &end);
    phase.send_replace(judged.phase(&plan));
    let outcomes = finish(groups, &phase).await?;
    let mut report = Report {
        system,
        faults: Vec::new(),
        compactions: compactions.len(),
        writes: judged.writes(&written, &end),
        counts: Counts::default(),
        tally: Tally::default(),
        lag: None,
        slow_lag: None,
        flaws: Vec::new(),
        findings: Vec::new(),
        kept: None,
        plan,
    };
    tokio::task::spawn_blocking(move || {
        judged.judge(&shared, &compactions, outcomes, &mut report);
        report
    })
    .await
    .context("the judge panicked")
}

/// Starts the streams of all watchers of the plan.
pub(crate) fn start_groups(
    shared: &Arc<Shared>,
    endpoints: &[String],
    plan: &Plan,
    phase: &watch::Receiver<Phase>,
) -> Result<JoinSet<Outcome>> {
    let lanes: Vec<Vec<Channel>> =
        (0..LANES).map(|_| connections(endpoints, Window::Usual)).collect::<Result<_>>()?;
    let mut groups = JoinSet::new();
    let plans = population::plan(&mut shared.rng("population", 0), plan.crowd());
    for (number, streams) in plans.into_iter().enumerate() {
        let channels = if streams.temper.is_slow {
            connections(endpoints, Window::Small)?
        } else {
            lanes[number % LANES].clone()
        };
        groups.spawn(Group::new(Arc::clone(shared), channels, streams).run(phase.clone()));
    }
    Ok(groups)
}

/// Gives the watchers time to get to the end, then stops them.
pub(crate) async fn finish(
    mut groups: JoinSet<Outcome>,
    phase: &watch::Sender<Phase>,
) -> Result<Vec<Outcome>> {
    let deadline = tokio::time::Instant::now() + CATCH_UP_MAX;
    let mut outcomes = Vec::new();
    loop {
        match tokio::time::timeout_at(deadline, groups.join_next()).await {
            Ok(Some(outcome)) => outcomes.push(outcome.context("a client of watchers panicked")?),
            Ok(None) => return Ok(outcomes),
            Err(_) => break,
        }
    }
    phase.send_replace(Phase::Stop);
    while let Some(outcome) = groups.join_next().await {
        outcomes.push(outcome.context("a client of watchers panicked")?);
    }
    Ok(outcomes)
}

/// What the store holds once nothing moves any more.
async fn final_contents(client: &Client, shared: &Shared) -> Result<Contents> {
    let deadline = Instant::now() + CATCH_UP_MAX;
    loop {
        let before = client.revision(0, TIMEOUT).await.context("the final revision")?;
        tokio::time::sleep(STILL).await;
        let after = compactor::settle(shared, client, 0).await.context("the last open commands")?;
        if before == after {
            return client.contents(0, after).await.context("the final contents");
        }
        ensure!(Instant::now() < deadline, "the revision still moves after the writers have stopped");
    }
}

/// The history of a run and its measure, or why there is none.
#[derive(Debug)]
pub(crate) struct Judged {
    history: Result<History, Vec<Flaw>>,
    keys: KeyTable,
    acked_at: BTreeMap<i64, Duration>,
    applied: usize,
}

impl Judged {
    /// By the chronicle and what the store holds in the end.
    pub(crate) fn new(written: &[Vec<Written>], shared: &Shared, end: &Contents) -> Self {
        let applied = shared.chronicle().applied();
        let mut keys = shared.keys();
        let history = History::replay(&applied, end, &mut keys);
        let keys = keys.clone();
        let acked = written.iter().flatten().filter_map(|command| match command.fate {
            Fate::At(revision) => Some((revision, command.ended)),
            Fate::Nothing | Fate::Unknown => None,
        });
        Self { history, keys, acked_at: acked.collect(), applied: applied.len() }
    }

    /// Sends every watcher to its last revision; without a history they can go home.
    pub(crate) fn phase(&self, plan: &Plan) -> Phase {
        let Ok(history) = &self.history else { return Phase::Stop };
        let rng = &mut Shared::new(plan.seed).rng("population", 0);
        let mut targets = vec![0; plan.watchers];
        for streams in population::plan(rng, plan.crowd()) {
            for (number, wish) in streams.watchers {
                targets[number] = last_wanted(history, &self.keys, &wish);
            }
        }
        Phase::Finish(Arc::new(targets))
    }

    /// The history.
    pub(crate) fn into_history(self) -> Result<History, Vec<Flaw>> {
        self.history
    }

    fn writes(&self, written: &[Vec<Written>], end: &Contents) -> Writes {
        let unknown = written.iter().flatten().filter(|command| command.fate == Fate::Unknown).count();
        let changes = self.history.as_ref().map_or(0, |history| history.changes().len());
        Writes { applied: self.applied, unknown, changes, revision: end.revision }
    }

    fn judge(self, shared: &Shared, compactions: &[Compaction], outcomes: Vec<Outcome>, report: &mut Report) {
        let (mut lives, mut slow_lives): (Vec<Life>, Vec<Life>) = (Vec::new(), Vec::new());
        let mut strays: Vec<Stray> = Vec::new();
        for outcome in outcomes {
            if outcome.is_slow {
                slow_lives.extend(outcome.lives);
            } else {
                lives.extend(outcome.lives);
            }
            strays.extend(outcome.strays);
            report.tally.add(outcome.tally);
        }
        report.lag = Spread::of(&lags(&lives, &self.acked_at));
        report.slow_lag = Spread::of(&lags(&slow_lives, &self.acked_at));
        lives.extend(slow_lives);
        report.counts = Counts::of(&lives);
        match self.history {
            Err(flaws) => report.flaws = flaws,
            Ok(history) => {
                let keys = &*shared.keys();
                let (history, lives, strays) = (&history, lives.as_slice(), strays.as_slice());
                report.findings = judge(&Record { history, keys, lives, strays, compactions });
            }
        }
    }
}
