//! The table of a run of crash rounds: each point, how often members died there, and what was found.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::Round;
use super::points::Point;
use super::trial::Death;
use crate::judge::latency::Spread;

/// How many findings of a round are printed.
const SHOWN_MAX: usize = 10;

/// All rounds of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// The rounds.
    pub rounds: Vec<Round>,
}

impl Report {
    /// Whether nothing was found in any round.
    pub fn is_clean(&self) -> bool {
        self.rounds.iter().all(Round::is_clean)
    }

    /// The points of the plan at which nobody died, with their engines.
    pub fn never_reached(&self) -> Vec<(String, &'static str)> {
        let mut planned = BTreeSet::new();
        for round in &self.rounds {
            planned.extend(round.plan.points.iter().map(|point| (round.plan.engine.clone(), point.name)));
        }
        for round in &self.rounds {
            for death in &round.deaths {
                planned.remove(&(round.plan.engine.clone(), death.trial.point.name));
            }
        }
        planned.into_iter().collect()
    }

    /// The table of one engine.
    fn table(&self, engine: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_engine = || self.rounds.iter().filter(|round| round.plan.engine == engine);
        let seeds: Vec<u64> = of_engine().map(|round| round.plan.seed).collect();
        let (first, last) = (seeds.iter().min(), seeds.iter().max());
        let count = seeds.len();
        writeln!(f, "{engine}: {count} rounds, seeds {} to {}", first.unwrap_or(&0), last.unwrap_or(&0))?;
        writeln!(
            f,
            "| row | point | deaths | of leaders | of followers | at hit | serves again: median, max | not reached |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for point in Point::all() {
            let planned = of_engine().any(|round| round.plan.points.contains(&point));
            if !planned {
                continue;
            }
            let deaths: Vec<&Death> = of_engine()
                .flat_map(|round| &round.deaths)
                .filter(|death| death.trial.point.name == point.name)
                .collect();
            let led = deaths.iter().filter(|death| death.led).count();
            let hits = deaths.iter().map(|death| death.trial.hits);
            let hits = match (hits.clone().min(), hits.max()) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                _ => "-".to_owned(),
            };
            let again: Vec<Duration> = deaths.iter().map(|death| death.serves_again).collect();
            let again = Spread::of(&again).map_or_else(
                || "-".to_owned(),
                |spread| format!("{}, {} ms", spread.median.as_millis(), spread.max.as_millis()),
            );
            let missed = of_engine()
                .flat_map(|round| &round.missed)
                .filter(|trial| trial.point.name == point.name)
                .count();
            let (row, name, all) = (point.row, point.name, deaths.len());
            writeln!(
                f,
                "| {row} | `{name}` | {all} | {led} | {} | {hits} | {again} | {missed} |",
                all - led
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engines: BTreeSet<&str> = self.rounds.iter().map(|round| round.plan.engine.as_str()).collect();
        for engine in engines {
            self.table(engine, f)?;
        }
        let deaths: usize = self.rounds.iter().map(|round| round.deaths.len()).sum();
        let looks: usize = self.rounds.iter().map(|round| round.looks).sum();
        let watched = || self.rounds.iter().filter_map(|round| round.watched.as_ref());
        let applied: usize = watched().map(|report| report.writes.applied).sum();
        let unknown: usize = watched().map(|report| report.writes.unknown).sum();
        let events: usize = watched().map(|report| report.counts.events).sum();
        let resumes: usize = watched().map(|report| report.counts.resumes).sum();
        let compactions: usize = watched().map(|report| report.compactions).sum();
        writeln!(
            f,
            "{deaths} deaths; {applied} commands took effect, {unknown} of unknown outcome, {compactions} compactions, \
             {events} events, {resumes} resumes, {looks} looks at positions and local reads"
        )?;
        for round in self.rounds.iter().filter(|round| !round.is_clean()) {
            writeln!(f, "{}, seed {}:", round.plan.engine, round.plan.seed)?;
            for broken in round.broken.iter().take(SHOWN_MAX) {
                writeln!(f, "  {broken}")?;
            }
            if let Some(report) = round.watched.as_ref().filter(|report| !report.is_clean()) {
                writeln!(f, "{report}")?;
            }
            if let Some(kept) = &round.kept {
                writeln!(f, "  data and logs are in {}", kept.display())?;
            }
        }
        let bad = self.rounds.iter().filter(|round| !round.is_clean()).count();
        write!(f, "rounds with findings: {bad} of {}", self.rounds.len())
    }
}
