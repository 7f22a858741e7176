//! `etcdctl check perf`: a minute of puts, and a verdict in four lines. Its figures are the machine's; its form is ours
//! to keep.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::console::{Console, Ended};
use crate::conformance::members::Members;
use crate::harness::cluster::System;

/// The load runs for a minute; the rest is for a machine that is busy.
const TAKES_MAX: Duration = Duration::from_secs(180);

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The lines on throughput, on the slowest request and on the deviation, and the verdict over all.
    pub lines: Vec<String>,
    /// The exit code.
    pub code: Option<i32>,
}

/// What each line is about, however it came out.
const SUBJECTS: [&str; 3] = ["Throughput", "Slowest request", "Stddev"];

/// Runs the small load on one member, given as `host:port`.
pub async fn run(program: &Path, endpoint: &str) -> Result<Verdict> {
    let args = ["check", "perf", "--load=s"].map(str::to_owned);
    verdict(&Console::start(program, endpoint, &args)?.end(TAKES_MAX).await?)
}

/// Runs it on a fresh cluster.
pub async fn run_on(program: &Path, system: System, members: usize) -> Result<Verdict> {
    let members = Members::start(system, members).await?;
    let endpoints = members.endpoints();
    let endpoint = endpoints.first().context("a cluster without members")?;
    run(program, endpoint.split_once("://").map_or(endpoint, |(_, bare)| bare)).await
}

/// Reads the verdict. Errors: it is not in the form that etcdctl gives it against etcd.
fn verdict(ended: &Ended) -> Result<Verdict> {
    let printed = format!("{}\n{}", String::from_utf8_lossy(&ended.stdout), ended.stderr);
    let is_verdict = |line: &&str| line.starts_with("PASS") || line.starts_with("FAIL");
    let lines: Vec<String> =
        printed.split(['\n', '\r']).map(str::trim).filter(is_verdict).map(str::to_owned).collect();
    let last = lines.last().with_context(|| format!("no verdict in {printed:?}"))?;
    ensure!(
        ["PASS", "FAIL"].contains(&last.as_str()),
        "the verdict over all is not the last line: {lines:?}"
    );
    ensure!(lines.len() == SUBJECTS.len() + 1, "not {} lines of verdict: {lines:?}", SUBJECTS.len() + 1);
    for (line, subject) in lines.iter().zip(SUBJECTS) {
        ensure!(line.contains(subject), "{line:?} is not about {subject}");
    }
    Ok(Verdict { lines, code: ended.code })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stdout: &str) -> Result<Verdict> {
        verdict(&Ended { stdout: stdout.into(), stderr: String::new(), code: Some(0) })
    }

    #[test]
    fn a_verdict_has_three_figures_and_a_sum() {
        let good = " 60 / 60 Boo\rPASS: Throughput is 150 writes/s\nPASS: Slowest request took 0.05s\nPASS: Stddev is \
                    0.01s\nPASS\n";
        assert_eq!(read(good).unwrap().lines.len(), 4);
        assert!(read(&good.replace("PASS\n", "")).is_err());
        assert!(read(&good.replace("Stddev", "Mean")).is_err());
        assert!(read("").is_err());
    }
}
