//! The verdict page of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::Plan;
use super::blows::Blow;
use crate::judge::sdk::locks::{Belief, Contender};
use crate::judge::sdk::told::Tally;
use crate::judge::watch::history::Flaw;

/// How many findings of each kind are printed, and flaws of the history.
const SHOWN_MAX: usize = 5;

/// What the harness wrote, beside what sessions did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writes {
    /// Commands that were acknowledged.
    pub acknowledged: usize,
    /// Commands whose outcome their writers did not know.
    pub unknown: usize,
    /// Changes of keys, by anybody.
    pub changes: usize,
    /// The final revision.
    pub revision: i64,
}

/// What sessions did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Locks {
    /// Sessions that were opened.
    pub opened: u64,
    /// Those that were lost.
    pub lost: u64,
    /// How often the lock was held.
    pub held: usize,
    /// The longest time, in nanoseconds.
    pub longest: u64,
    /// Writes under the lock: acknowledged, refused because it was not held any more, of unknown outcome.
    pub facts: usize,
    /// See there.
    pub refused: usize,
    /// See there.
    pub unknown: u64,
    /// States of the queue that members showed.
    pub looks: usize,
}

impl Locks {
    /// Of all of them, and how often the queue was seen to change.
    pub fn of(contenders: &[Contender], looks: usize) -> Self {
        let mut locks = Self { looks, ..Self::default() };
        for one in contenders {
            let longest = one.beliefs.iter().map(|Belief { from, until, .. }| until.saturating_sub(*from));
            locks.opened += one.opened;
            locks.lost += one.lost;
            locks.held += one.beliefs.len();
            locks.longest = longest.max().unwrap_or(0).max(locks.longest);
            locks.facts += one.facts.len();
            locks.refused += one.refused.len();
            locks.unknown += one.unknown;
        }
        locks
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// What was done, in order.
    pub blows: Vec<Blow>,
    /// Compactions that were asked for.
    pub compactions: usize,
    /// Writes.
    pub writes: Writes,
    /// What watches told.
    pub watches: Tally,
    /// What informers told.
    pub informers: Tally,
    /// States of informers that were compared.
    pub samples: usize,
    /// Sessions and locks.
    pub locks: Locks,
    /// Why the writes make no history to judge by.
    pub flaws: Vec<Flaw>,
    /// What is wrong.
    pub findings: Vec<String>,
    /// Where everything is kept, after a run with findings.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.flaws.is_empty() && self.findings.is_empty()
    }
}

/// The word behind who it is about.
fn kind(finding: &str) -> &str {
    let what =
        finding.rsplit_once("): ").or_else(|| finding.split_once(": ")).map_or(finding, |(_, what)| what);
    what.split(' ').next().unwrap_or(what)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { duration, informers, watches, sessions, seed, compact_every, .. } = &self.plan;
        let (seconds, compact_ms) = (duration.as_secs(), compact_every.as_millis());
        writeln!(f, "sdk: {informers} informers, {watches} watches, {sessions} sessions, {seconds} s")?;
        let Writes { acknowledged, unknown, changes, revision } = self.writes;
        writeln!(
            f,
            "  writes: {acknowledged} acknowledged, {unknown} of unknown outcome; {changes} changes, revision {revision}"
        )?;
        let mut blows: BTreeMap<Blow, usize> = BTreeMap::new();
        self.blows.iter().for_each(|blow| *blows.entry(*blow).or_default() += 1);
        let blows: Vec<String> = blows.iter().map(|(blow, count)| format!("{blow} {count}")).collect();
        writeln!(f, "  faults: {}; compactions {}", blows.join(", "), self.compactions)?;
        let Tally { changes, losses, lost, .. } = self.watches;
        writeln!(f, "  watches: {changes} changes told; {losses} losses to compactions, of {lost} changes")?;
        let Tally { changes, relists, skips, .. } = self.informers;
        let samples = self.samples;
        writeln!(
            f,
            "  informers: {changes} changes told, {relists} lists after compactions, {skips} slow subscribers, \
             {samples} states compared"
        )?;
        let Locks { opened, lost, held, longest, facts, refused, unknown, looks } = self.locks;
        writeln!(
            f,
            "  sessions: {opened} opened, {lost} lost; lock held {held} times, at most {} ms; writes under it: {facts} \
             acknowledged, {refused} refused, {unknown} unknown; {looks} states of the queue seen",
            longest / 1_000_000
        )?;
        self.flaws.iter().take(SHOWN_MAX).try_for_each(|flaw| writeln!(f, "  no history: {flaw:?}"))?;
        let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in &self.findings {
            let count = shown.entry(kind(finding)).or_default();
            *count += 1;
            if *count <= SHOWN_MAX {
                writeln!(f, "  {finding}")?;
            }
        }
        let counts = shown.iter().filter(|(_, count)| **count > SHOWN_MAX);
        counts.clone().try_for_each(|(kind, count)| writeln!(f, "  {kind}: {count} in all"))?;
        match (self.flaws.len(), self.findings.len()) {
            (0, 0) => writeln!(f, "  verdict: no finding")?,
            (0, count) => writeln!(f, "  verdict: {count} FINDINGS")?,
            (count, _) => writeln!(f, "  verdict: NOT JUDGED, {count} flaws in the history of writes")?,
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "  data, logs and what was told are in {}", kept.display())?;
        }
        write!(
            f,
            "  again: cargo run --release -p cluster-tests -- sdk --duration {seconds}s --informers {informers} --watches \
             {watches} --sessions {sessions} --compact-every-ms {compact_ms} --seed {seed}"
        )
    }
}
