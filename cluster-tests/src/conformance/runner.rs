//! Plays scripts against clusters and gathers the differences.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::call::{Answer, descriptors, send};
use super::differences::{Differences, Verdict};
use super::members::Members;
use super::script::{Call, Script, clip};
use crate::harness::binary::workspace;

/// What a comparison of several scripts found.
#[derive(Debug, Default)]
pub struct Report {
    /// Calls compared, over all subjects.
    pub compared: usize,
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

/// Sends every call in turn, around the members, and gives the answers in order.
///
/// A call that a member answers from its own state is preceded by a linearizable read there: otherwise a member that
/// lags, rightly, would look like one that errs.
pub async fn play(script: &Script, members: &Members) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(script.calls.len());
    for (number, call) in script.calls.iter().enumerate() {
        if members.count() > 1 && call.reads_locally() {
            members
                .catch_up(number)
                .await
                .with_context(|| format!("{} before {}", members.name, call.name))?;
        }
        answers.push(send(members.channel(number), call).await);
    }
    Ok(answers)
}

impl Report {
    /// Compares a subject's answers with etcd's, call by call.
    pub fn add(
        &mut self,
        subject: &str,
        table: &Differences,
        calls: &[Call],
        etcd: &[Answer],
        ours: &[Answer],
    ) {
        assert_eq!(etcd.len(), calls.len(), "etcd answered each call");
        assert_eq!(ours.len(), calls.len(), "the subject answered each call");
        for ((call, theirs), mine) in calls.iter().zip(etcd).zip(ours) {
            self.compared += 1;
            match table.compare(&call.name, theirs, mine) {
                Verdict::Same(used) => self.used.extend(used),
                Verdict::Different { etcd, ours } => self.differences.push(format!(
                    "{} on {subject}\n  call {}\n  etcd {}\n  ours {}",
                    call.name,
                    clip(&call.text),
                    clip(&etcd),
                    clip(&ours)
                )),
            }
        }
    }

    /// All differences as text, the first ones in full.
    pub fn text(&self) -> String {
        const SHOWN: usize = 200;
        let mut out = format!("{} of {} answers differ\n", self.differences.len(), self.compared);
        for difference in self.differences.iter().take(SHOWN) {
            writeln!(out, "{difference}").expect("writing to a string does not fail");
        }
        out
    }
}
