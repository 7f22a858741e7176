//! The whole report as a page for the docs: how it was measured, the goals, every table, and where we lose.
//!
//! The losses are found by rule, not chosen: every figure in which our default side is worse than etcd.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::goals::{self, ETCD, OURS, side};
use super::{Round, Summary, foreign_cpus, table};
use crate::growth::curve::Growth;
use crate::growth::report as curves;

/// What differs by less is noise on a shared machine.
const NOISE: f64 = 0.05;

/// Where some of the figures of a page come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// CPU, memory, kernel.
    pub(crate) machine: String,
    /// What was run.
    pub(crate) command: String,
    /// The cases that are of this run and of no later one.
    pub(crate) cases: Vec<String>,
}

/// What a page shows beside the rounds of a comparison.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Beside<'a> {
    /// Curves that were measured on their own.
    pub(crate) growth: Option<&'a Growth>,
    /// Where their pictures are, as the page says it; none are shown without.
    pub(crate) pictures: Option<&'a str>,
}

/// A figure that someone waits for, worse when it is larger, except the first.
type Figure = (&'static str, fn(&Summary) -> Option<f64>);

const SPEED: Figure = ("per second", |s| Some(s.per_second));
const COSTS: [Figure; 9] = [
    ("server CPU each", |s| Some(s.server_cpu_us)),
    ("server CPU each over all rounds", |s| Some(s.server_cpu_us_overall)),
    ("median latency", |s| Some(s.p50_us)),
    ("99th percentile", |s| Some(s.p99_us)),
    ("99.9th percentile", |s| Some(s.p999_us)),
    ("bytes to the disk each", |s| s.device_bytes),
    ("log fsyncs each", |s| s.log_fsyncs),
    ("resident memory", |s| Some(s.resident_mib)),
    ("peak memory", |s| Some(s.resident_peak_mib)),
];

/// Up to so many CPUs of other programs, a machine counts as quiet; other measured systems at rest are among them.
const QUIET_CPUS: f64 = 0.15;

const METHOD: &str = "\
Every case runs in rounds; in each round every system gets the same load in turn, from one client thread, while the
others rest, and the figures are the medians of the rounds. Servers and client share the machine. Each case begins
with fresh data on the same disk. Each system runs with its defaults, etcd 3.5.1 with `--snapshot-count 10000`.

- *server CPU* is user and kernel time of all members together, from `/proc`. Around writes it is counted until the
  servers have nothing left to do: stable stores have caught up, no dump runs, the processes are quiet. *all rounds*
  divides the sum of all rounds instead of taking the median, so that dumps, which fall into some rounds only, are in it.
- *client CPU* is the load generator's own: a gauge of how fast the machine was at the time.
- Latencies of the closed loops are under full load. Those of the steady and busy cases count from the moment an
  operation was due. In watch cases latency is from when a put was due until its event has arrived, in `put-watched` and
  `put-keys-watched` until it was answered.
- One client (`put-one`) is connected to the leader. *at followers* and *at the leader* are the same load on the members
  that have that part at the time.
- `list-whole` and `list-whole-paged` are one client that lists everything over and over. *extra* is the members' peak of
  memory meanwhile, less the least that was resident before any round.
- In `put-beside-lists` and `put-watched`, what lists and watchers read is read by a second thread, so that puts do not
  wait for that in the client.
- *device B* is what the whole disk was sent, whoever wrote; *dirtied B* is the kernel's count for the processes, which
  charges whole folios and can be far above what reaches the disk.
- *log fsyncs* are the servers' own counts (`etcd_disk_wal_fsync_duration_seconds_count`), of the Raft log alone.
- *dumps* are members that took a snapshot in a round, all rounds together. *grown* is resident memory added in a round;
  *queued* is what waits for watchers at its end, as holdfast says it.
- Unless HOLDFAST_BIN names another, holdfast is what `scripts/release` builds, compiled with a profile of what it does
  under load. The ceiling and the load generator are compiled without one.
- *holdfast-cold* has the least memory for values that it accepts, `--memory-bytes=16MiB`: lists read all of them from the
  stable store.
- *ceiling* is a gRPC server on the same stack that stores nothing.
- *x base* is the ratio to etcd; where a case has several sides of each system, to the first of the same system's.
- Goals against other systems are judged by the ratio of the medians, goals against our own other side by the median of
  the ratios within a round.
- In `slow-watchers`, the queues of the silent watchers are full before the window begins.
";

const GROWTH_METHOD: &str = "\
How costs grow with what a store holds and with what is asked of it. Each system is measured alone, size after size, with
short loads; *last / first* and *per decade* say by how much a figure is multiplied from the first size to the last, and
where what grows is multiplied by ten. CPU is that of all members.
";

/// The page. Empty sections are left out.
pub(crate) fn render(runs: &[Run], rounds: &[Round], beside: Beside<'_>) -> String {
    let summaries = &super::summaries(rounds)[..];
    let mut text = String::from(
        "# Performance\n\nWritten by `scripts/bench`; change that, not this page. Where the time goes, with flame graphs, and why costs grow \
         as they do: [profiles.md](profiles.md).\n",
    );
    for run in runs {
        let cases = if runs.len() > 1 { format!(": {}", run.cases.join(", ")) } else { String::new() };
        write!(text, "\n{}{cases}\n\n    {}\n", run.machine, run.command)
            .expect("writing to a string succeeds");
    }
    if let Some(cpus) = foreign_cpus(rounds) {
        let trust = if cpus > QUIET_CPUS { ": read ratios, not absolute figures" } else { "" };
        writeln!(text, "\nMeanwhile other programs used {cpus:.2} of these CPUs{trust}.")
            .expect("writing to a string succeeds");
    }
    section(&mut text, "How", METHOD);
    let mut rows = goals::judge(rounds, summaries);
    rows.extend(curves::judge(beside.growth));
    section(&mut text, "Goals", &goals::table(&rows));
    section(&mut text, "Where holdfast is worse than etcd", &losses(summaries));
    section(&mut text, "Figures", table::render(summaries, beside.pictures).trim_end());
    if let Some(growth) = beside.growth {
        let head = format!("{}\n\n    {}\n\n{GROWTH_METHOD}", growth.machine, growth.command);
        let body = format!("{head}\n{}", curves::render(growth, beside.pictures));
        section(&mut text, "Growth", &body);
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    if !body.is_empty() {
        write!(text, "\n## {title}\n\n{}\n", body.trim_end()).expect("writing to a string succeeds");
    }
}

fn losses(summaries: &[Summary]) -> String {
    let mut text = String::new();
    for ours in summaries.iter().filter(|summary| summary.side == OURS) {
        let Some(etcd) = side(summaries, &ours.case, ETCD) else { continue };
        let mut worse = Vec::new();
        let slower = ratio(SPEED.1(etcd), SPEED.1(ours));
        worse.extend(slower.map(|ratio| format!("{} {:.2} of etcd's", SPEED.0, 1.0 / ratio)));
        for (name, figure) in COSTS {
            worse.extend(
                ratio(figure(ours), figure(etcd)).map(|ratio| format!("{name} {ratio:.2} times etcd's")),
            );
        }
        if !worse.is_empty() {
            writeln!(text, "- `{}`: {}.", ours.case, worse.join(", ")).expect("writing to a string succeeds");
        }
    }
    text
}

/// How much larger, when that is more than noise.
fn ratio(larger: Option<f64>, smaller: Option<f64>) -> Option<f64> {
    let (larger, smaller) = larger.zip(smaller)?;
    let ratio = larger / smaller;
    (smaller > 0.0 && ratio > 1.0 + NOISE).then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::round;

    fn run(cases: &[&str]) -> Run {
        let cases = cases.iter().map(|case| (*case).to_owned()).collect();
        Run { machine: "2 cores".to_owned(), command: "bench compare".to_owned(), cases }
    }

    fn page(rounds: &[Round]) -> String {
        render(&[run(&["put"])], rounds, Beside::default())
    }

    #[test]
    fn curves_are_a_section_of_their_own_and_their_goals_are_among_the_others() {
        let rounds = [round("holdfast", 1, 10)];
        let mut growth = Growth { machine: "2 cores".to_owned(), ..Growth::default() };
        growth.curves.push(crate::growth::curve::Curve::new("keys", "keys", "Puts."));
        let beside = Beside { growth: Some(&growth), pictures: Some("performance/") };
        let text = render(&[run(&["put"]), run(&["cas"])], &rounds, beside);
        assert!(text.contains("## Growth\n") && text.contains("(performance/growth-keys.svg)"), "{text}");
        assert!(text.contains("\n![put](performance/put.svg)\n\n| put, per operation |"), "{text}");
        assert!(text.contains("\n2 cores: cas\n\n    bench compare\n"), "{text}");
        for text in [text, page(&rounds)] {
            assert!(text.contains("| `growth keys` | server CPU us a put |"), "{text}");
        }
    }

    #[test]
    fn goals_are_judged_and_losses_are_named() {
        let text = page(&[round("holdfast", 1, 3000), round("etcd", 4, 1000)]);
        for line in [
            "| `put` | per second | at least 2.7 times etcd's | 3.00 | met |",
            "| `put` | p99 | at most 0.4 of etcd's | 3.00 | **missed** |",
            "| `lease-grant` | server CPU | at most 0.333 of etcd's | - | not measured |",
            "- `put`: median latency 3.00 times etcd's, 99th percentile 3.00 times etcd's.",
            "    bench compare",
            "Meanwhile other programs used 0.50 of these CPUs: read ratios, not absolute figures.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let swapped = page(&[round("holdfast", 2, 1000), round("etcd", 1, 2000)]);
        assert!(swapped.contains("| `put` | per second | at least 2.7 times etcd's | 0.50 | **missed** |"));
        assert!(
            swapped.contains("- `put`: per second 0.50 of etcd's, server CPU each 4.00 times etcd's,"),
            "{swapped}"
        );
    }

    #[test]
    fn without_another_side_there_is_nothing_to_judge() {
        let text = page(&[round("holdfast", 1, 10)]);
        assert!(!text.contains("| met |") && !text.contains("**missed**"), "{text}");
        assert!(text.contains("| not measured |") && !text.contains("## Where"), "{text}");
        assert!(text.contains("| put, per operation |"));
    }
}
