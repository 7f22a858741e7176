//! What became of the mutants.

use std::fmt;
use std::time::Duration;

use super::table::Trial;

/// Characters of a finding that are shown.
const SHOWN_MAX: usize = 160;

/// The end of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The first line of what was found.
    pub finding: String,
    /// How long that took.
    pub took: Duration,
    /// How long the same took without the mistake; nothing when it was known to pass.
    pub without: Option<Duration>,
}

/// What a trial did to a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was found.
    Killed(Death),
    /// It was not.
    Survived,
    /// It was not, in the time that a trial has.
    Stopped,
    /// Something was found, and is found without the mistake, too.
    FailsAnyway(String),
    /// The trial could not be made.
    NotRun(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(death) => write!(f, "killed after {} s: {}", death.took.as_secs(), death.finding),
            Self::Survived => write!(f, "survived"),
            Self::Stopped => write!(f, "survived until it was stopped"),
            Self::FailsAnyway(finding) => write!(f, "fails without the mistake, too: {finding}"),
            Self::NotRun(said) => write!(f, "could not be run: {said}"),
        }
    }
}

/// A mutant, and what was tried on it.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub mutant: &'static str,
    /// The trials that were made, in their order.
    pub fates: Vec<(Trial, Fate)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order of the table.
    pub rows: Vec<Row>,
}

impl Row {
    /// What has killed it.
    pub fn killed(&self) -> Option<(&Trial, &Death)> {
        self.fates.iter().find_map(|(trial, fate)| match fate {
            Fate::Killed(death) => Some((trial, death)),
            _ => None,
        })
    }
}

impl Report {
    /// The mutants that nothing has found.
    pub fn survivors(&self) -> Vec<&'static str> {
        self.rows.iter().filter(|row| row.killed().is_none()).map(|row| row.mutant).collect()
    }

    /// Whether each of them was found.
    pub fn is_clean(&self) -> bool {
        self.survivors().is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| mutant | killed by | s | s without it | first finding |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            write!(f, "| {} |", row.mutant)?;
            match row.killed() {
                Some((trial, death)) => {
                    let without =
                        death.without.map_or_else(|| "as above".to_owned(), |took| seconds(took).to_string());
                    let (layer, took) = (trial.layer.name(), seconds(death.took));
                    writeln!(f, " {layer}: `{trial}` | {took} | {without} | {} |", shown(&death.finding))?;
                }
                None => {
                    let fates: Vec<_> =
                        row.fates.iter().map(|(trial, fate)| format!("{trial}: {fate}")).collect();
                    writeln!(f, " NOTHING | | | {} |", fates.join("; "))?;
                }
            }
        }
        match self.survivors().as_slice() {
            [] => write!(f, "{} mutants, all killed", self.rows.len()),
            survivors => write!(f, "{} mutants, SURVIVED: {}", self.rows.len(), survivors.join(", ")),
        }
    }
}

/// Rounded up.
fn seconds(took: Duration) -> u64 {
    took.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

fn shown(finding: &str) -> String {
    let mut text: String = finding.chars().take(SHOWN_MAX).collect();
    if text.len() < finding.len() {
        text.push('…');
    }
    text.replace('|', "\\|")
}

/// The first line of what was found in what a trial said: what a test has panicked with, or what follows a count of
/// findings, or, when there is neither, the last line.
pub fn finding_in(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let introduces = |line: &&str| {
        let count = line.split_once(" findings").map(|(before, _)| before.rsplit(' ').next());
        let is_count = count.flatten().is_some_and(|count| count.parse::<u64>().is_ok_and(|count| count > 0));
        line.contains("panicked at") || is_count && !line.starts_with("verdict")
    };
    let at = lines.iter().position(introduces);
    let found = at.and_then(|at| lines.get(at + 1)).or(lines.last());
    found.map_or_else(String::new, |line| (*line).to_owned())
}

/// The seed of the simulation that found something.
pub fn seed_of(finding: &str) -> Option<u64> {
    finding.strip_prefix("seed ")?.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::table::{Layer, Trial};

    const TRIAL: Trial = Trial { layer: Layer::Tests, arguments: &["-p", "x"] };

    fn row(fate: Fate) -> Row {
        Row { mutant: "no-fsync", fates: vec![(TRIAL, fate)] }
    }

    #[test]
    fn a_mutant_is_dead_only_when_it_was_found() {
        let death = Death { finding: "a|b".to_owned(), took: Duration::from_millis(1200), without: None };
        let report = Report { rows: vec![row(Fate::Killed(death))] };
        assert!(report.is_clean());
        assert!(
            report.to_string().contains("| no-fsync | tests: `cargo test -p x` | 2 | as above | a\\|b |")
        );
        for fate in
            [Fate::Survived, Fate::Stopped, Fate::FailsAnyway("x".to_owned()), Fate::NotRun("y".to_owned())]
        {
            let report = Report { rows: vec![row(fate)] };
            assert_eq!(report.survivors(), ["no-fsync"]);
        }
        assert!(!Report { rows: vec![Row { mutant: "no-fsync", fates: Vec::new() }] }.is_clean());
    }

    #[test]
    fn findings_are_read_from_what_was_said() {
        let test = "running 1 test\nthread 'x' (7) panicked at a.rs:3:4:\nseed 12: lost\nreproduce: y";
        assert_eq!(finding_in(test), "seed 12: lost");
        assert_eq!(seed_of("seed 12: lost"), Some(12));
        assert_eq!(seed_of("lost"), None);
        let watch =
            "  order: 0 findings\n  progress: 3 findings\n    watcher 4\n  verdict: 3 FINDINGS\n  again: z";
        assert_eq!(finding_in(watch), "watcher 4");
        assert_eq!(finding_in("a\nb\n"), "b");
        assert_eq!(finding_in("seen 10 findings\nearly"), "early");
    }
}
