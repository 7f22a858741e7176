//! `etcdctl check perf`: a minute of puts, and a verdict in four lines. Its figures are the machine's; its form is ours
//! to keep.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

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
    let segments: Vec<&str> =
        printed.split(['\n', '\r']).map(str::trim).filter(|text| !text.is_empty()).collect();
    let mut lines = Vec::new();
    for subject in SUBJECTS {
        let found = segments.iter().find(|segment| segment.contains(subject));
        let line = found.with_context(|| format!("nothing about {subject} in {printed:?}"))?;
        // The first one stands right behind the progress bar, and not all that fail say FAIL.
        let begins = ["PASS", "FAIL", subject].iter().filter_map(|word| line.find(word)).min();
        lines.push(line[begins.unwrap_or(0)..].to_owned());
    }
    let last = segments.last().with_context(|| format!("no verdict in {printed:?}"))?;
    let code = match *last {
        "PASS" => Some(0),
        "FAIL" => Some(1),
        other => bail!("the last line is no verdict: {other:?}"),
    };
    ensure!(ended.code == code, "{last} with exit code {:?}", ended.code);
    lines.push((*last).to_owned());
    Ok(Verdict { lines, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stdout: &str, code: i32) -> Result<Verdict> {
        verdict(&Ended { stdout: stdout.into(), stderr: String::new(), code: Some(code) })
    }

    #[test]
    fn a_verdict_has_three_figures_and_a_sum() {
        let good = " 60 / 60 Boo\r 58 / 60 PASS: Throughput is 150 writes/s\nPASS: Slowest request took 0.05s\n\
                    PASS: Stddev is 0.01s\nPASS\n";
        assert_eq!(read(good, 0).unwrap().lines[0], "PASS: Throughput is 150 writes/s");
        let slow = " 96.67% 00m01sFAIL: Throughput too low: 116 writes/s\n\
                    Slowest request took too long: 0.613595s\nPASS: Stddev is 0.063535s\nFAIL\n";
        assert_eq!(read(slow, 1).unwrap().lines.len(), 4);
        assert!(read(good, 1).is_err() && read(slow, 0).is_err());
        assert!(read(&good.replace("0.01s\nPASS\n", "0.01s\n"), 0).is_err());
        assert!(read(&good.replace("Stddev", "Mean"), 0).is_err());
        assert!(read("", 0).is_err());
    }
}
