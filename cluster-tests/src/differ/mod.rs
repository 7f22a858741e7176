//! The differential runner: random calls to real etcd and to holdfast, everything a client can see compared, and what
//! differs shrunk to a script of a few lines.
//!
//! What it is: the long form of the conformance runs ([`crate::conformance`] has the language, the player and the table
//! of explained differences). Same seed, same calls. Each seed is played on fresh clusters: one member of etcd, which
//! is the reference, and the subjects beside it.
//!
//! What it is not: a judge of histories under faults. One client, one call after the other.
//!
//! Module map: [`run`] here, [`mod@shrink`] makes a script smaller as long as it differs, [`trial`] plays one script on the
//! reference and one subject.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::shrink::shrink;
use self::trial::{Subject, Trial};
use crate::conformance::random;
use crate::conformance::runner::table;
use crate::harness::binary;
use crate::harness::cluster::System;

pub mod shrink;
pub mod trial;

/// Differences of one seed that are printed before they are shrunk.
const SHOWN_DIFFERENCES: usize = 3;

/// Calls of a script that are printed; a script that shrank is far shorter.
const SHOWN_CALLS: usize = 40;

/// What is compared with etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Ours.
    Holdfast,
    /// Etcd itself, as the control.
    Etcd,
}

/// Which seeds have users and roles, and switch auth on and off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthSeeds {
    /// None.
    None,
    /// All.
    All,
    /// The even ones.
    Even,
}

/// Makes passwords cheap to compare, on both sides.
const CHEAP_PASSWORDS: &str = "--bcrypt-cost=4";

/// What a run does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Calls in all, spread evenly over the seeds.
    pub calls: usize,
    /// One play each.
    pub seeds: Vec<u64>,
    /// How many watchers live at any time, about.
    pub watchers: usize,
    /// Bytes that every value is padded with.
    pub padding_bytes: usize,
    /// The sizes of the clusters that are compared with one member of etcd.
    pub members: Vec<usize>,
    /// What is compared.
    pub against: Against,
    /// A flag for every member of both sides.
    pub member_flags: Vec<String>,
    /// A flag for every member of what is compared with the reference.
    pub subject_flags: Vec<String>,
    /// Which seeds have users and roles.
    pub auth: AuthSeeds,
    /// How many plays shrinking may take.
    pub shrink_plays_max: usize,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers compared.
    pub answers: usize,
    /// Events compared, over all watchers.
    pub events: usize,
    /// Entries of the table that were needed.
    pub used: BTreeSet<String>,
    /// One paragraph for each seed and subject that differed.
    pub differences: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answers, events, differences, elapsed, used } = self;
        let used: Vec<&str> = used.iter().map(String::as_str).collect();
        write!(
            f,
            "{answers} answers and {events} events compared in {:.0} s; {} differences\nexplained by the table: {}",
            elapsed.as_secs_f64(),
            differences.len(),
            if used.is_empty() { "none".to_owned() } else { used.join(", ") }
        )
    }
}

impl Plan {
    /// Calls of one seed.
    pub fn calls_per_seed(&self) -> usize {
        self.calls.div_ceil(self.seeds.len().max(1))
    }

    /// The reference: one member of real etcd.
    pub fn reference(&self) -> anyhow::Result<Subject> {
        let etcd = binary::etcd().context("no etcd: set ETCD_BIN or run scripts/fetch-peers")?;
        Ok(Subject { system: System::etcd(etcd, &self.flags(&[])), members: 1 })
    }

    /// What is compared with the reference.
    pub fn subjects(&self) -> anyhow::Result<Vec<Subject>> {
        ensure!(!self.members.is_empty() && !self.members.contains(&0), "how many members?");
        let flags = self.flags(&self.subject_flags);
        let system = match self.against {
            Against::Holdfast => System::holdfast(&flags)?,
            Against::Etcd => System::etcd(self.reference()?.system.binary, &flags),
        };
        Ok(self.members.iter().map(|members| Subject { system: system.clone(), members: *members }).collect())
    }

    /// The flags of a member: those of both sides, and `own`.
    fn flags(&self, own: &[String]) -> Vec<String> {
        let mut flags = [&self.member_flags[..], own].concat();
        if !flags.iter().any(|flag| flag.starts_with("--bcrypt-cost")) {
            flags.push(CHEAP_PASSWORDS.to_owned());
        }
        flags
    }

    fn author(&self, seed: u64) -> random::Author {
        let has_auth = match self.auth {
            AuthSeeds::None => false,
            AuthSeeds::All => true,
            AuthSeeds::Even => seed.is_multiple_of(2),
        };
        let splits = self.against == Against::Etcd && self.members.iter().any(|count| *count > 1);
        let txn_reads = if splits { random::TxnReads::Newest } else { random::TxnReads::Any };
        let Self { watchers, padding_bytes, .. } = *self;
        random::Author {
            calls: self.calls_per_seed(),
            watchers,
            txn_reads,
            lists_leases: !splits,
            padding_bytes,
            auth: if has_auth { random::Auth::Switched } else { random::Auth::Off },
        }
    }
}

/// Plays every seed; `say` gets a line for each as it is done.
pub async fn run(plan: &Plan, mut say: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let (reference, subjects, table) = (plan.reference()?, plan.subjects()?, table()?);
    let mut outcome = Outcome::default();
    for seed in &plan.seeds {
        let text = random::script(*seed, plan.author(*seed));
        let trial = Trial { reference: &reference, subjects: &subjects, table: &table };
        let result = trial.play("random", &text).await.with_context(|| format!("seed {seed}"))?;
        outcome.answers += result.report.compared;
        outcome.events += result.report.events;
        outcome.used.extend(result.report.used.iter().cloned());
        let differing = result.differing(&subjects);
        say(&format!(
            "seed {seed}: {} answers and {} events compared, {} differences, {:.1} s",
            result.report.compared,
            result.report.events,
            result.report.differences.len(),
            result.elapsed.as_secs_f64()
        ));
        for difference in result.report.differences.iter().take(SHOWN_DIFFERENCES) {
            say(difference);
        }
        for subject in differing {
            let found = explain(plan, &trial, subject, *seed, &text).await?;
            say(&found);
            outcome.differences.push(found);
        }
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

/// The smallest script that shows a difference, and how to run it again.
async fn explain(
    plan: &Plan,
    trial: &Trial<'_>,
    subject: &Subject,
    seed: u64,
    text: &str,
) -> anyhow::Result<String> {
    let only = Trial { subjects: std::slice::from_ref(subject), ..*trial };
    let again = only.play("random", text).await?;
    if again.report.differences.is_empty() {
        return Ok(format!(
            "seed {seed} differed on {} once, and not when it was played again",
            subject.label()
        ));
    }
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let shrunk = shrink(lines, plan.shrink_plays_max, async |lines: &[String]| {
        anyhow::Ok(!only.play("shrunk", &lines.join("\n")).await?.report.differences.is_empty())
    })
    .await?;
    let script = shrunk.lines.join("\n");
    let last = only.play("shrunk", &script).await?;
    let path = save(seed, subject, &script)?;
    let mut out = format!("seed {seed} differs on {}\n", subject.label());
    match last.report.differences.first() {
        Some(difference) => writeln!(out, "{difference}")?,
        None => writeln!(out, "and did not when it was played once more")?,
    }
    writeln!(out, "shrunk to {} calls in {} plays:\n", shrunk.lines.len(), shrunk.plays)?;
    match shrunk.lines.len().checked_sub(SHOWN_CALLS) {
        None | Some(0) => writeln!(out, "{script}\n")?,
        Some(_) => writeln!(out, "{}\n(and so on, see the file)\n", shrunk.lines[..SHOWN_CALLS].join("\n"))?,
    }
    let against = if plan.against == Against::Etcd { " --against etcd" } else { "" };
    let mut members = subject.members.to_string();
    if plan.padding_bytes > 0 {
        members.push_str(&format!(" --padding-bytes {}", plan.padding_bytes));
    }
    match plan.auth {
        AuthSeeds::Even => {}
        AuthSeeds::None => members.push_str(" --auth none"),
        AuthSeeds::All => members.push_str(" --auth all"),
    }
    for (name, flags) in [("member", &plan.member_flags), ("subject", &plan.subject_flags)] {
        flags.iter().for_each(|flag| members.push_str(&format!(" --{name}-flag={flag}")));
    }
    let (calls, watchers) = (plan.calls_per_seed(), plan.watchers);
    writeln!(
        out,
        "again, all of it:  cargo run -p cluster-tests -- differ --seed {seed} --calls {calls} --watchers {watchers} \
         --members {members}{against}"
    )?;
    write!(
        out,
        "again, shrunk:     cargo run -p cluster-tests -- differ --script {} --members {members}{against}",
        path.display()
    )?;
    Ok(out)
}

fn save(seed: u64, subject: &Subject, script: &str) -> anyhow::Result<PathBuf> {
    let dir = binary::workspace().join("target/differ");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let path = dir.join(format!("seed-{seed}-{}.calls", subject.label()));
    std::fs::write(&path, format!("{script}\n")).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Plays a script from a file and gives the report as text, and whether there was no difference. With `shown`, what etcd
/// answered stands before it, line by line.
pub async fn play_file(plan: &Plan, path: &std::path::Path, shown: Shown) -> anyhow::Result<(String, bool)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let (reference, subjects, table) = (plan.reference()?, plan.subjects()?, table()?);
    let trial = Trial { reference: &reference, subjects: &subjects, table: &table };
    let result = trial.play(&name, &text).await?;
    let mut out = String::new();
    if shown == Shown::Transcript {
        let [transcript, ..] = &result.transcripts[..] else { bail!("nothing was played") };
        out.push_str(&trial::show(&result.script, transcript));
    }
    out.push_str(&result.report.text());
    Ok((out, result.report.differences.is_empty()))
}

/// What is printed of a script from a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The differences alone.
    Differences,
    /// Everything etcd answered and sent, too.
    Transcript,
}
