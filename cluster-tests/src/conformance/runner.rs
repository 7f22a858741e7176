//! Scripts and table as they lie in the repository, and the comparison of what came of a script here and there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::call::descriptors;
use super::differences::{Differences, Verdict};
use super::player::Transcript;
use super::rules::Situation;
use super::script::{Script, clip};
use crate::harness::binary::workspace;

/// What a comparison of several scripts found.
#[derive(Debug, Default)]
pub struct Report {
    /// Answers compared, over all subjects.
    pub compared: usize,
    /// Events compared, over all subjects and watchers.
    pub events: usize,
    /// Entries of the table that were needed.
    pub used: BTreeSet<String>,
    /// Unexplained differences, one paragraph each.
    pub differences: Vec<String>,
}

/// Where scripts and table lie.
pub fn data_dir() -> PathBuf {
    workspace().join("cluster-tests/conformance")
}

/// All scripts, sorted by name. Each is meant for a fresh cluster.
pub fn scripts() -> anyhow::Result<Vec<Script>> {
    let pool = descriptors();
    let mut paths: Vec<PathBuf> =
        fs::read_dir(data_dir())?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "calls"));
    paths.sort();
    paths.iter().map(|path| Script::parse(&stem(path), &fs::read_to_string(path)?, &pool)).collect()
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The checked-in table.
pub fn table() -> anyhow::Result<Differences> {
    let path = data_dir().join("differences.txt");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Differences::parse(&text)
}

impl Report {
    /// Compares a subject's transcript of a script with etcd's.
    ///
    /// Calls that only one side came to are not compared: the other side says why it stopped.
    pub fn add(&mut self, table: &Differences, script: &Script, etcd: &Transcript, ours: &Transcript) {
        for transcript in [etcd, ours] {
            let faults = transcript.faults.iter().map(|fault| {
                let call = fault.watcher.and_then(|call| script.calls.get(call));
                let place = call
                    .map_or_else(|| after(script, transcript), |call| format!("watcher of {}", call.name));
                format!("{place} on {}\n  {}", transcript.name, fault.text)
            });
            self.differences.extend(faults);
        }
        let both = etcd.answers.iter().zip(&ours.answers);
        for (number, (call, (theirs, mine))) in script.calls.iter().zip(both).enumerate() {
            self.compared += 1;
            let verdict = table.compare(&situation(script, number, etcd), theirs, mine);
            self.judge(verdict, &format!("{} on {}\n  call {}", call.name, ours.name, clip(&call.text)));
        }
        if etcd.answers.len() == ours.answers.len() {
            self.add_watchers(table, script, etcd, ours);
        }
    }

    fn add_watchers(&mut self, table: &Differences, script: &Script, etcd: &Transcript, ours: &Transcript) {
        let pairs = etcd.history.iter().zip(&ours.history);
        let first = pairs.clone().find(|(theirs, mine)| theirs.text != mine.text);
        if first.is_some() || etcd.history.len() != ours.history.len() {
            let (theirs, mine) = (etcd.history.len(), ours.history.len());
            let first = first.map(|(theirs, mine)| format!("\n  etcd {}\n  ours {}", theirs.text, mine.text));
            let first = first.unwrap_or_default();
            self.differences
                .push(format!("the history of {}: {mine} events, not {theirs}{first}", ours.name));
        }
        let calls: BTreeSet<usize> =
            etcd.watchers.iter().chain(&ours.watchers).map(|watcher| watcher.call).collect();
        for number in calls {
            let call = &script.calls[number];
            let [theirs, mine] =
                [etcd, ours].map(|side| side.watchers.iter().find(|watcher| watcher.call == number));
            if [theirs, mine].iter().all(|side| side.is_some_and(|watcher| !watcher.is_ruled())) {
                continue;
            }
            self.events += mine.map_or(0, |watcher| watcher.received.len());
            let situation = situation(script, number, etcd);
            let mut verdict = table.compare_events(&situation, theirs, mine);
            // In the control either etcd may have lost what the other still has: compaction runs in the background.
            if ours.name.starts_with("etcd") && matches!(verdict, Verdict::Different { .. }) {
                verdict = table.compare_events(&situation, mine, theirs);
            }
            let place = format!("the events of {} on {}\n  call {}", call.name, ours.name, clip(&call.text));
            self.judge(verdict, &place);
        }
    }

    fn judge(&mut self, verdict: Verdict, place: &str) {
        match verdict {
            Verdict::Same(used) => self.used.extend(used),
            Verdict::Different { etcd, ours } => {
                self.differences.push(format!("{place}\n  etcd {}\n  ours {}", clip(&etcd), clip(&ours)));
            }
        }
    }

    /// All differences as text, the first ones in full.
    pub fn text(&self) -> String {
        const SHOWN: usize = 200;
        let mut out = format!(
            "{} differences in {} answers and {} events\n",
            self.differences.len(),
            self.compared,
            self.events
        );
        for difference in self.differences.iter().take(SHOWN) {
            writeln!(out, "{difference}").expect("writing to a string does not fail");
        }
        out
    }
}

fn situation<'a>(script: &'a Script, number: usize, etcd: &Transcript) -> Situation<'a> {
    Situation { call: &script.calls[number], is_before_start: etcd.before_start.contains(&number) }
}

fn after(script: &Script, transcript: &Transcript) -> String {
    match transcript.answers.len().checked_sub(1) {
        Some(last) => format!("at or after {}", script.calls[last].name),
        None => "before the first call".to_owned(),
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
