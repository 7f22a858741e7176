//! The verdict page of a run.

use std::fmt;
use std::path::PathBuf;

use super::Plan;
use super::cut_off::CutOff;
use super::leased::Outcome as LeasedOutcome;
use super::world::{Counts, Record};
use crate::judge::apiserver::{Finding, Swapped, Way};
use crate::judge::latency::Spread;
use crate::judge::watch as watches;
use crate::judge::watch::history::Flaw;
use crate::workload::watch::report::Counts as Watched;

/// How many findings of each sort are printed.
const SHOWN_MAX: usize = 8;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// The plan.
    pub plan: Plan,
    /// How often the leader was killed.
    pub kills: usize,
    /// Transactions that took effect, and that did not.
    pub swaps: (usize, usize),
    /// Turns of the compactors that were taken, and that were lost.
    pub turns: (usize, usize),
    /// Lists in pages, and as streams; and their parts.
    pub lists: (usize, usize, usize),
    /// Consistent reads.
    pub reads: usize,
    /// Compactions that were asked for.
    pub compactions: usize,
    /// Other figures.
    pub counts: Counts,
    /// What watch caches were sent.
    pub watched: Watched,
    /// Why the writes make no history to judge by.
    pub flaws: Vec<Flaw>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What is wrong with watches.
    pub watch_findings: Vec<watches::Finding>,
    /// What never came to an end.
    pub lasting: Vec<String>,
    /// A member that was cut off.
    pub cut_off: Option<CutOff>,
    /// Keys with leases.
    pub leased: Option<LeasedOutcome>,
    /// Where the members' data and logs are kept, after a run with findings.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Before anything is judged.
    pub fn of(system: String, plan: Plan, kills: usize, record: &Record) -> Self {
        let seen = &record.seen;
        let won = seen.swaps.iter().filter(|swap| matches!(swap.outcome, Swapped::Won(_))).count();
        let taken = seen.turns.iter().filter(|turn| turn.outcome.is_ok()).count();
        let streams = seen.lists.iter().filter(|list| list.way == Way::Stream).count();
        let parts = seen.lists.iter().map(|list| list.parts.len()).sum();
        Self {
            system,
            plan,
            kills,
            swaps: (won, seen.swaps.len() - won),
            turns: (taken, seen.turns.len() - taken),
            lists: (seen.lists.len() - streams, streams, parts),
            reads: seen.reads.len(),
            compactions: record.compactions.len(),
            counts: record.counts.clone(),
            watched: Watched::of(&record.lives),
            flaws: Vec::new(),
            findings: Vec::new(),
            watch_findings: Vec::new(),
            lasting: Vec::new(),
            cut_off: None,
            leased: None,
            kept: None,
        }
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.flaws.is_empty() && self.all().is_empty()
    }

    /// All findings, in words.
    fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = self.lasting.clone();
        all.extend(self.findings.iter().map(ToString::to_string));
        all.extend(self.watch_findings.iter().map(|finding| format!("watch: {finding}")));
        let cut_off = self.cut_off.iter().flat_map(CutOff::findings);
        all.extend(cut_off.map(|finding| format!("cut off: {finding}")));
        let leased = self.leased.iter().flat_map(LeasedOutcome::findings);
        all.extend(leased.map(|finding| format!("leased: {finding}")));
        all
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counts, watched, .. } = self;
        let seconds = self.plan.duration.as_secs();
        writeln!(
            f,
            "{}: 3 API servers on 3 members, {seconds} s, the leader killed {} times",
            self.system, self.kills
        )?;
        let ((won, lost), (taken, missed)) = (self.swaps, self.turns);
        writeln!(
            f,
            "  transactions: {won} took effect, {lost} did not, {} of unknown outcome at first",
            counts.unknown
        )?;
        writeln!(f, "  compactors: {taken} turns taken, {missed} lost; {} compactions", self.compactions)?;
        let (pages, streams, parts) = self.lists;
        writeln!(
            f,
            "  lists: {pages} in pages, {streams} as streams, {parts} parts; {} broken off, {} compacted",
            counts.broken_lists, counts.compacted_lists
        )?;
        let waits = Spread::of(&counts.waits).map_or_else(|| "none".to_owned(), |spread| spread.to_string());
        writeln!(
            f,
            "  consistent reads: {}, waited {waits}; {} gave up after 3 s",
            self.reads, counts.late_reads
        )?;
        writeln!(
            f,
            "  watch caches: {} events, {} streams, {} resumes ({} elsewhere), {} compacted, {} progress requests, {} answers",
            watched.events,
            counts.streams,
            watched.resumes,
            watched.elsewhere,
            watched.compacted,
            counts.progress_requests,
            watched.stream_progress
        )?;
        let ends: Vec<String> =
            counts.stream_ends.iter().map(|(why, count)| format!("{why} {count}")).collect();
        writeln!(f, "  streams ended: {}", ends.join(", "))?;
        if let Some(cut_off) = &self.cut_off {
            writeln!(f, "  cut off: {cut_off}")?;
        }
        if let Some(leased) = &self.leased {
            writeln!(f, "  leased: {leased}")?;
        }
        if !self.flaws.is_empty() {
            writeln!(f, "  NOT JUDGED: the writes make no history: {} flaws", self.flaws.len())?;
            self.flaws.iter().take(SHOWN_MAX).try_for_each(|flaw| writeln!(f, "    {flaw:?}"))?;
        }
        let all = self.all();
        writeln!(f, "  findings: {}", all.len())?;
        all.iter().take(SHOWN_MAX).try_for_each(|finding| writeln!(f, "    {finding}"))?;
        if let Some(kept) = &self.kept {
            writeln!(f, "  data and logs are in {}", kept.display())?;
        }
        let (writers, seed) = (self.plan.writers, self.plan.seed);
        write!(
            f,
            "  again: cargo run --release -p cluster-tests -- apiserver --duration {seconds}s --writers {writers} \
             --compact-every-ms {} --seed {seed}",
            self.plan.compact_every.as_millis()
        )
    }
}
