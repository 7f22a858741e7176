//! The verdict page of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Plan;
use super::group::Tally;
use super::nemesis::Fault;
use crate::judge::latency::Spread;
use crate::judge::watch::history::Flaw;
use crate::judge::watch::record::{Content, End, Life, Whose};
use crate::judge::watch::{Finding, Law};

/// How many findings of each law are printed.
const SHOWN_MAX: usize = 5;

/// What watchers were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Watchers that began anew, each with a first revision of its own.
    pub lives: usize,
    /// Events.
    pub events: usize,
    /// Responses with events.
    pub responses: usize,
    /// Sessions that took up where another one of the same watcher had ended.
    pub resumes: usize,
    /// Those on another member.
    pub elsewhere: usize,
    /// Sessions that the client canceled.
    pub canceled: usize,
    /// Sessions that a compaction ended.
    pub compacted: usize,
    /// Revisions that those lost.
    pub lost: i64,
    /// Progress of one watcher.
    pub progress: usize,
    /// Progress of a stream, counted for each of its watchers.
    pub stream_progress: usize,
}

impl Counts {
    /// Of all these lives.
    pub fn of(lives: &[Life]) -> Self {
        let mut counts = Self { lives: lives.len(), ..Self::default() };
        for life in lives {
            counts.resumes += life.sessions.len().saturating_sub(1);
            let pairs = life.sessions.windows(2);
            counts.elsewhere += pairs.filter(|pair| pair[0].member != pair[1].member).count();
            for session in &life.sessions {
                counts.events += session.events.len();
                match session.end {
                    End::Canceled => counts.canceled += 1,
                    End::Compacted { start, .. } => {
                        counts.compacted += 1;
                        counts.lost += start - session.reached();
                    }
                    End::Left | End::Refused => {}
                }
                for message in &session.messages {
                    match message.content {
                        Content::Events { .. } => counts.responses += 1,
                        Content::Progress { of: Whose::Watcher, .. } => counts.progress += 1,
                        Content::Progress { of: Whose::Stream, .. } => counts.stream_progress += 1,
                    }
                }
            }
        }
        counts
    }
}

/// What the writers did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writes {
    /// Commands that took effect.
    pub applied: usize,
    /// Commands whose outcome their writers did not know.
    pub unknown: usize,
    /// Changes of keys.
    pub changes: usize,
    /// The final revision.
    pub revision: i64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// The plan.
    pub plan: Plan,
    /// The faults, in order.
    pub faults: Vec<Fault>,
    /// Compactions that were asked for.
    pub compactions: usize,
    /// Writes.
    pub writes: Writes,
    /// Watchers.
    pub counts: Counts,
    /// Streams.
    pub tally: Tally,
    /// From the acknowledgement of a write to the arrival of its event, at readers that read.
    pub lag: Option<Spread>,
    /// The same at slow readers.
    pub slow_lag: Option<Spread>,
    /// Why the writes make no history to judge by.
    pub flaws: Vec<Flaw>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Where the members' data and logs are kept, after a run with findings.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.flaws.is_empty() && self.findings.is_empty()
    }

    /// Findings by law.
    pub fn by_law(&self) -> BTreeMap<Law, Vec<&Finding>> {
        let mut laws: BTreeMap<Law, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            laws.entry(finding.breach.law()).or_default().push(finding);
        }
        laws
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { members, watchers, duration, load, .. } = &self.plan;
        writeln!(f, "{}: {members} members, {watchers} watchers, {} s", self.system, duration.as_secs())?;
        let Writes { applied, unknown, changes, revision } = self.writes;
        writeln!(f, "  writers: {} at {} a second together", load.writers, load.rate)?;
        writeln!(
            f,
            "  writes: {applied} took effect, {unknown} of unknown outcome, {changes} changes, revision {revision}"
        )?;
        let mut faults: BTreeMap<Fault, usize> = BTreeMap::new();
        self.faults.iter().for_each(|fault| *faults.entry(*fault).or_default() += 1);
        let faults: Vec<String> = faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        writeln!(f, "  faults: {}; compactions {}", faults.join(", "), self.compactions)?;
        self.fmt_watchers(f)?;
        let ms =
            |spread: Option<Spread>| spread.map_or_else(|| "none".to_owned(), |spread| spread.to_string());
        writeln!(f, "  lag of live events: {}; slow readers: {}", ms(self.lag), ms(self.slow_lag))?;
        self.fmt_findings(f)?;
        if let Some(kept) = &self.kept {
            writeln!(f, "  data and logs are in {}", kept.display())?;
        }
        write!(f, "  again: {}", self.plan.command(&self.system))
    }
}

impl Report {
    fn fmt_watchers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { lives, events, responses, resumes, elsewhere, canceled, compacted, lost, .. } =
            self.counts;
        writeln!(f, "  delivered: {events} events in {responses} responses to {lives} lives of watchers")?;
        writeln!(
            f,
            "  resumes: {resumes}, {elsewhere} on another member, {canceled} after a cancel; {compacted} after a \
             compaction, which cost {lost} revisions"
        )?;
        let Counts { progress, stream_progress, .. } = self.counts;
        let Tally { streams, left, naps, progress_asked, not_opened, .. } = self.tally;
        writeln!(
            f,
            "  progress: {progress} of watchers, {stream_progress} of streams ({progress_asked} asked for)"
        )?;
        writeln!(
            f,
            "  streams: {streams}, {left} left by the client, {not_opened} did not open; {naps} pauses in reading"
        )?;
        for (said, count) in &self.tally.ends {
            writeln!(f, "    {count} ended with {said}")?;
        }
        Ok(())
    }

    fn fmt_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for flaw in self.flaws.iter().take(SHOWN_MAX) {
            writeln!(f, "  no history: {flaw:?}")?;
        }
        if !self.flaws.is_empty() {
            return writeln!(f, "  verdict: NOT JUDGED, {} flaws in the history of writes", self.flaws.len());
        }
        for (law, findings) in self.by_law() {
            writeln!(f, "  {law}: {} findings", findings.len())?;
            for finding in findings.iter().take(SHOWN_MAX) {
                writeln!(f, "    {finding}")?;
            }
        }
        match self.findings.len() {
            0 => writeln!(f, "  verdict: no finding"),
            count => writeln!(f, "  verdict: {count} FINDINGS"),
        }
    }
}

/// How long events took from the acknowledgement of their write to their arrival. Only live ones count: those above the
/// revision at which their watcher was created.
pub fn lags(lives: &[Life], acked_at: &BTreeMap<i64, Duration>) -> Vec<Duration> {
    let mut lags = Vec::new();
    for session in lives.iter().flat_map(|life| &life.sessions) {
        let Some(created) = session.created else { continue };
        for message in &session.messages {
            let Content::Events { first, end, .. } = message.content else { continue };
            let newest = session.events[first..end].last().map_or(0, |event| event.revision);
            if let Some(acked) = acked_at.get(&newest).filter(|_| newest > created) {
                lags.push(message.at.saturating_sub(*acked));
            }
        }
    }
    lags
}
