//! Members die at named points, one after the other, while writers, watchers and compactions go on; each comes back, and
//! every promise is judged: what was acknowledged is there and nothing else, hashes agree, watchers were sent what
//! history holds by every law, positions stay in order, and no member shows its readers an older state than before.
//!
//! A round is one cluster that lives through one death at each point. Rounds differ by their seed.

mod disaster;
pub mod observer;
pub mod points;
pub mod pressure;
pub mod report;
pub mod trial;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use rand::RngExt;
use rand::seq::SliceRandom;

use self::observer::Observer;
use self::points::{Point, Way};
use self::pressure::Pressure;
use self::trial::{Death, Stage, Trial};
use crate::client::Client;
use crate::harness::cluster::{Cluster, System};
use crate::judge::members::Disagreement;
use crate::judge::positions;
use crate::workload::watch;
use crate::workload::watch::calls::{Window, connections};
use crate::workload::watch::shared::Shared;
use crate::workload::watch::writers::{Load, Written};

/// Members. One can be down at any time.
const MEMBERS: usize = 3;

/// How often a point is tried in a round until a member comes to it.
const TRIES: usize = 2;

/// Flags of every member: dumps and purges come all the time.
const FLAGS: [&str; 2] = ["--dump-log-bytes=1MiB", "--segment-bytes=4MiB"];

/// Flags of a member whose overlay is to fill up during a dump.
const SMALL_MEMORY: [&str; 1] = ["--memory-bytes=16MiB"];

/// How watchers behave is drawn for a run of about this length.
const NOMINAL: Duration = Duration::from_secs(60);

/// A round.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The engine of the stable store.
    pub engine: String,
    /// The points, each for one death.
    pub points: Vec<&'static Point>,
    /// Watchers.
    pub watchers: usize,
    /// Commands a second.
    pub rate: u32,
    /// Decides on the order of points, victims, counts of hits, commands and watchers.
    pub seed: u64,
}

/// Something that must not be, found during a round.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
pub enum Broken {
    /// A member ended by itself.
    Died { trial: Trial, said: String },
    /// Members that differ after this trial.
    Members { trial: Trial, disagreement: Disagreement },
    /// Positions, or a step back.
    Positions(positions::Finding),
    /// The cluster did not serve any more, or could not be judged.
    Stuck { said: String },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |trial: &Trial| format!("{}:{}", trial.point.name, trial.hits);
        match self {
            Self::Died { trial, said } => write!(f, "{}: the member ended by itself: {said}", at(trial)),
            Self::Members { trial, disagreement } => write!(f, "after {}: {disagreement}", at(trial)),
            Self::Positions(finding) => write!(f, "{finding}"),
            Self::Stuck { said } => write!(f, "the round ended early: {said}"),
        }
    }
}

/// What a round came to.
#[derive(Debug)]
pub struct Round {
    /// The plan.
    pub plan: Plan,
    /// The deaths.
    pub deaths: Vec<Death>,
    /// Trials in which the member did not come to its point.
    pub missed: Vec<Trial>,
    /// Looks at positions, and local reads.
    pub looks: usize,
    /// What was found while it went on.
    pub broken: Vec<Broken>,
    /// What was found of writes and watchers; `None` when the round ended early.
    pub watched: Option<watch::report::Report>,
    /// Where data and logs are kept, after a round with findings.
    pub kept: Option<PathBuf>,
}

impl Round {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty() && self.watched.as_ref().is_some_and(watch::report::Report::is_clean)
    }
}

/// Runs a round, and says each death. The binary must have failpoints.
pub async fn run(mut system: System, plan: Plan, mut say: impl FnMut(String)) -> Result<Round> {
    ensure!(!plan.points.is_empty(), "no points to die at");
    system.extra_args.push(format!("--engine={}", plan.engine));
    system.extra_args.extend(FLAGS.map(str::to_owned));
    let mut round = Round {
        plan: plan.clone(),
        deaths: Vec::new(),
        missed: Vec::new(),
        looks: 0,
        broken: Vec::new(),
        watched: None,
        kept: None,
    };
    let watch_plan = watch::Plan {
        members: MEMBERS,
        watchers: plan.watchers,
        duration: NOMINAL,
        compact_every: Duration::from_secs(3),
        load: Load { writers: 6, rate: plan.rate, value_bytes_max: 600 },
        seed: plan.seed,
    };
    let nemesis = async |cluster: &mut Cluster, shared: &Arc<Shared>| {
        deaths(cluster, shared, &mut round, &mut say).await
    };
    match Box::pin(watch::run_under(system, watch_plan, nemesis)).await {
        Ok(report) => {
            round.kept = round.kept.or_else(|| report.kept.clone());
            round.watched = Some(report);
        }
        Err(error) => round.broken.push(Broken::Stuck { said: format!("{error:#}") }),
    }
    Ok(round)
}

/// A death at each point, in a random order.
async fn deaths(
    cluster: &mut Cluster,
    shared: &Arc<Shared>,
    round: &mut Round,
    say: &mut impl FnMut(String),
) -> Result<Vec<Vec<Written>>> {
    let endpoints = cluster.endpoints();
    let client = Client::new(&endpoints)?;
    let pressure = Pressure::start(shared, connections(&endpoints, Window::Usual)?).await?;
    let observer = Observer::start(shared, &client, &endpoints);
    let small_memory = SMALL_MEMORY.map(str::to_owned);
    let mut rng = shared.rng("crash", 0);
    let mut trials = trials(&round.plan, &mut rng);
    trials.shuffle(&mut rng);
    // It leaves a larger store behind, with which the others would take longer.
    trials.sort_by_key(|trial| trial.point.way == Way::FullOverlay);
    let mut stage = Stage {
        cluster,
        client: &client,
        pressure: &pressure,
        observer: &observer,
        rng,
        small_memory: &small_memory,
    };
    for trial in trials {
        for attempt in 1..=TRIES {
            let trial = if attempt == TRIES { Trial { hits: 1, ..trial } } else { trial };
            let death = Box::pin(stage.play(trial, &mut round.broken)).await?;
            let (engine, seed) = (&round.plan.engine, round.plan.seed);
            match death {
                Some(death) => {
                    say(format!("{engine}, seed {seed}: {death}"));
                    round.deaths.push(death);
                }
                None => {
                    say(format!(
                        "{engine}, seed {seed}: {} {} not reached",
                        trial.point.row, trial.point.name
                    ));
                    round.missed.push(trial);
                }
            }
            if death.is_some() || !round.broken.is_empty() {
                break;
            }
        }
    }
    let seen = observer.stop().await?;
    round.looks = seen.samples.len() + seen.reads.len();
    let findings = positions::judge(MEMBERS, &seen.samples, &seen.reads);
    round.broken.extend(findings.into_iter().map(Broken::Positions));
    let written = pressure.stop().await?;
    if !round.broken.is_empty() {
        round.kept = Some(cluster.keep());
    }
    Ok(vec![written])
}

/// One trial for each point. Members that are to lead and members that are to follow alternate, and swap with the seed.
fn trials(plan: &Plan, rng: &mut rand::rngs::StdRng) -> Vec<Trial> {
    let odd = plan.seed % 2 == 1;
    let places = plan.points.iter().enumerate();
    places
        .map(|(place, point)| {
            let leads = point.is_for_leaders() && (place % 2 == 1) == odd;
            Trial { point, hits: rng.random_range(point.hits(leads)), leads }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::points::POINTS;
    use super::*;

    #[test]
    fn two_seeds_have_a_leader_and_a_follower_die_at_each_point() {
        let plan = |seed| Plan {
            engine: "sled".to_owned(),
            points: POINTS.iter().collect(),
            watchers: 8,
            rate: 50,
            seed,
        };
        let of = |seed| trials(&plan(seed), &mut StdRng::seed_from_u64(seed));
        for (one, other) in of(1).iter().zip(of(2)) {
            assert_eq!(one.point, other.point);
            assert_eq!(one.leads != other.leads, one.point.is_for_leaders(), "{}", one.point.name);
            assert!(one.hits >= 1);
        }
    }
}
