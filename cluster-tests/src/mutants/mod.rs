//! Mutants: builds in which one mistake is planted, to show that something here finds it.
//!
//! A mistake has a name that both a member (`--plant NAME`) and the tests of all crates (`HOLDFAST_PLANT=NAME`) know; it
//! is in debug builds, and in those with the feature `failpoints`. For each one the trials of [`table`] are made in
//! turn, the cheapest first, until one fails; then the same trial has to pass without the mistake. What comes of it is
//! the [`report`].
//!
//! Trials are child processes ([`trial`]): the product is not linked here.

pub mod report;
pub mod table;
pub mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::workload::crash::points::names_in;
use report::{Death, Fate, Report, Row};
use table::{Layer, MUTANTS, Mutant, Trial};
use trial::{Ended, Runner};

/// What is tried.
#[derive(Debug)]
pub struct Plan {
    /// Only those; all when empty.
    pub only: Vec<String>,
    /// Only trials of those layers; all when empty.
    pub layers: Vec<Layer>,
    /// A trial that has found nothing by then is stopped.
    pub limit: Duration,
    /// The member's binary.
    pub holdfast: PathBuf,
}

/// Makes all trials, unless `stop` is set meanwhile. `tell` is told what happens.
///
/// # Errors
/// It was stopped, a mutant that is not known here or not in the binary, or a trial that cannot be started.
pub fn run(plan: &Plan, stop: Arc<AtomicBool>, tell: impl Fn(&str)) -> Result<Report> {
    let mutants = chosen(&plan.only)?;
    compare_with(&names_of(&plan.holdfast)?)?;
    let runner = Runner::new(plan.holdfast.clone(), stop)?;
    let mut clean: BTreeMap<String, u64> = BTreeMap::new();
    let mut report = Report::default();
    for mutant in mutants {
        let mut fates = Vec::new();
        for trial in mutant.trials.iter().filter(|trial| is_chosen(trial, &plan.layers)) {
            tell(&format!("{}: {trial}", mutant.name));
            let fate = attempt(&runner, mutant, trial, plan.limit, &mut clean)?;
            tell(&format!("{}: {fate}", mutant.name));
            let is_dead = matches!(fate, Fate::Killed(_));
            fates.push((*trial, fate));
            if is_dead {
                break;
            }
        }
        report.rows.push(Row { mutant: mutant.name, fates });
    }
    Ok(report)
}

/// One trial with the mistake, and when that has failed, the same without. `clean` remembers which have passed without,
/// and with how many seeds.
fn attempt(
    runner: &Runner,
    mutant: &Mutant,
    trial: &Trial,
    limit: Duration,
    clean: &mut BTreeMap<String, u64>,
) -> Result<Fate> {
    let ended = runner.make(trial, Some(mutant.name), None, limit)?;
    let (finding, took) = match ended {
        Ended::Passed { .. } => return Ok(Fate::Survived),
        Ended::TimedOut => return Ok(Fate::Stopped),
        Ended::NotRun { said } => return Ok(Fate::NotRun(said)),
        Ended::Failed { finding, took } => (finding, took),
    };
    // The simulation has tried these seeds; the others prove nothing here.
    let seeds = report::seed_of(&finding).map_or(0, |seed| seed + 1);
    let known = clean.entry(trial.to_string()).or_default();
    if *known > seeds {
        return Ok(Fate::Killed(Death { finding, took, without: None }));
    }
    match runner.make(trial, None, (seeds > 0).then_some(seeds), limit)? {
        Ended::Passed { took: without } => {
            *known = seeds + 1;
            Ok(Fate::Killed(Death { finding, took, without: Some(without) }))
        }
        Ended::Failed { finding, .. } => Ok(Fate::FailsAnyway(finding)),
        Ended::TimedOut => Ok(Fate::FailsAnyway("without the mistake it does not end in time".to_owned())),
        Ended::NotRun { said } => Ok(Fate::NotRun(said)),
    }
}

fn is_chosen(trial: &Trial, layers: &[Layer]) -> bool {
    layers.is_empty() || layers.contains(&trial.layer)
}

fn chosen(only: &[String]) -> Result<Vec<&'static Mutant>> {
    if let Some(unknown) = only.iter().find(|name| Mutant::named(name).is_none()) {
        let names: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        bail!("no mutant is named {unknown}; there are {}", names.join(", "));
    }
    let is_chosen = |mutant: &&Mutant| only.is_empty() || only.iter().any(|name| name == mutant.name);
    Ok(MUTANTS.iter().filter(is_chosen).collect())
}

/// Which mistakes this binary can make.
fn names_of(holdfast: &Path) -> Result<Vec<String>> {
    let refused = Command::new(holdfast).args(["--plant", "?"]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    if said.contains("this build has no") {
        bail!(
            "{} can make no mistakes: leave out --release, or build it with --features failpoints",
            holdfast.display()
        );
    }
    Ok(names_in(&said).into_iter().map(str::to_owned).collect())
}

fn compare_with(names: &[String]) -> Result<()> {
    let ours: Vec<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    if names != ours {
        bail!("the table of mutants has {ours:?}, the binary {names:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::binary;

    #[test]
    fn the_program_can_make_these_mistakes_and_no_others() {
        let program = binary::holdfast().expect("a binary to test");
        match names_of(&program) {
            Ok(names) => compare_with(&names).unwrap(),
            Err(error) => crate::skip::skipped("the table of mutants", &format!("{error:#}")),
        }
    }

    #[test]
    fn mutants_go_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), MUTANTS.len());
        assert_eq!(chosen(&["no-fsync".to_owned()]).unwrap()[0].name, "no-fsync");
        assert!(chosen(&["fsync".to_owned()]).unwrap_err().to_string().contains("ack-before-fsync"));
    }
}
