//! The whole report as a page for the docs: how it was measured, the goals, every table, and where we lose.
//!
//! The losses are found by rule, not chosen: every figure in which our default side is worse than etcd.

use std::fmt::Write;

use super::{Pair, Round, Summary, foreign_cpus, paired_cpu_ratio, table};

/// Our default side.
const OURS: &str = "holdfast";
const ETCD: &str = "etcd";
/// What differs by less is noise on a shared machine.
const NOISE: f64 = 0.05;

/// Where a page comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// CPU, memory, kernel.
    pub(crate) machine: &'a str,
    /// What was run.
    pub(crate) command: &'a str,
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

/// A ratio we mean to reach, between our side and another.
struct Goal {
    case: &'static str,
    what: &'static str,
    figure: fn(&Summary) -> f64,
    /// In words, as the ratio is judged.
    bound: &'static str,
    is_met: fn(f64) -> bool,
}

const PUT_CPU: &str = "server CPU per put, dumps included";
const PUT_CPU_NO_DUMP: &str = "server CPU per put; no dump of holdfast fell into these rounds";

const GOALS: [Goal; 4] = [
    Goal {
        case: "put",
        what: "puts per second",
        figure: |s| s.per_second,
        bound: "at least 1.5 times etcd's",
        is_met: |ratio| ratio >= 1.5,
    },
    Goal {
        case: "put",
        what: PUT_CPU,
        figure: |s| s.server_cpu_us_overall,
        bound: "at most 0.6 of etcd's",
        is_met: |ratio| ratio <= 0.6,
    },
    Goal {
        case: "get-linearizable",
        what: "server CPU per linearizable get",
        figure: |s| s.server_cpu_us,
        bound: "at most 0.8 of etcd's",
        is_met: |ratio| ratio <= 0.8,
    },
    Goal {
        case: "watch-fanout",
        what: "server CPU per delivered event",
        figure: |s| s.server_cpu_us,
        bound: "at most 0.5 of etcd's",
        is_met: |ratio| ratio <= 0.5,
    },
];

const SLOW_WATCHERS: &str = "slow-watchers";
const SLOW_WATCHERS_SHARE: f64 = 0.03;

const METHOD: &str = "\
Every case runs in rounds; in each round every system gets the same load in turn, from one client thread, while the
others rest, and the figures are the medians of the rounds. Servers and client share the machine. Each case begins
with fresh data on the same disk. Each system runs with its defaults, etcd 3.5.1 with `--snapshot-count 10000`.

- *server CPU* is user and kernel time of all members together, from `/proc`. Around writes it is counted until the
  servers have nothing left to do: stable stores have caught up, no dump runs, the processes are quiet. *all rounds*
  divides the sum of all rounds instead of taking the median, so that dumps, which fall into some rounds only, are in it.
- *client CPU* is the load generator's own: a gauge of how fast the machine was at the time.
- Latencies of the closed loops are under full load. Those of the steady and busy cases count from the moment an
  operation was due. In watch cases latency is from when a put was due until its event has arrived.
- *device B* is what the whole disk was sent, whoever wrote; *dirtied B* is the kernel's count for the processes, which
  charges whole folios and can be far above what reaches the disk.
- *log fsyncs* are the servers' own counts (`etcd_disk_wal_fsync_duration_seconds_count`), of the Raft log alone.
- *dumps* are members that took a snapshot in a round, all rounds together. *grown* is resident memory added in a round;
  *queued* is what waits for watchers at its end, as holdfast says it.
- *ceiling* is a gRPC server on the same stack that stores nothing.
- *x base* is the ratio to etcd; in `slow-watchers`, to the same system without the silent watchers. Their
  queues are full before the window begins; the goal is judged by the median of the ratios within a round.
";

/// The page. Empty sections are left out.
pub(crate) fn render(origin: Origin<'_>, rounds: &[Round]) -> String {
    let summaries = &super::summaries(rounds)[..];
    let mut text = format!(
        "# Performance\n\nWritten by `scripts/bench`; change that, not this page.\n\n{}\n\n    {}\n",
        origin.machine, origin.command
    );
    if let Some(cpus) = foreign_cpus(rounds) {
        let trust = if cpus > QUIET_CPUS { ": read ratios, not absolute figures" } else { "" };
        writeln!(text, "\nMeanwhile other programs used {cpus:.2} of these CPUs{trust}.")
            .expect("writing to a string succeeds");
    }
    section(&mut text, "How", METHOD);
    section(&mut text, "Goals", &goals(rounds, summaries));
    section(&mut text, "Where holdfast is worse than etcd", &losses(summaries));
    section(&mut text, "Figures", table::render(summaries).trim_end());
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    if !body.is_empty() {
        write!(text, "\n## {title}\n\n{}\n", body.trim_end()).expect("writing to a string succeeds");
    }
}

fn side<'a>(summaries: &'a [Summary], case: &str, side: &str) -> Option<&'a Summary> {
    summaries.iter().find(|summary| summary.case == case && summary.side == side)
}

fn goals(rounds: &[Round], summaries: &[Summary]) -> String {
    let mut rows = Vec::new();
    for goal in &GOALS {
        let both = side(summaries, goal.case, OURS).zip(side(summaries, goal.case, ETCD));
        if let Some((ours, etcd)) = both {
            let ratio = (goal.figure)(ours) / (goal.figure)(etcd);
            // Short rounds can miss every dump; then the figure does not hold its share of them, and must not say so.
            let what = if goal.what == PUT_CPU && ours.dumps == 0 { PUT_CPU_NO_DUMP } else { goal.what };
            rows.push(row(what, goal.bound, ratio, (goal.is_met)(ratio)));
        }
    }
    let sides: Vec<&str> = summaries
        .iter()
        .filter(|summary| summary.case == SLOW_WATCHERS && summary.side.starts_with("holdfast "))
        .map(|summary| summary.side.as_str())
        .collect();
    if let [base, side, ..] = sides[..]
        && let Some(ratio) = paired_cpu_ratio(rounds, &Pair { case: SLOW_WATCHERS, side, base })
    {
        let is_met = ratio <= 1.0 + SLOW_WATCHERS_SHARE;
        rows.push(row(
            "server CPU per put with silent watchers, in pairs",
            "within 3 % of without",
            ratio,
            is_met,
        ));
    }
    if rows.is_empty() {
        return String::new();
    }
    format!("| what | goal | ratio found | |\n| --- | --- | ---: | --- |\n{}", rows.concat())
}

fn row(what: &str, bound: &str, ratio: f64, is_met: bool) -> String {
    format!("| {what} | {bound} | {ratio:.2} | {} |\n", if is_met { "met" } else { "**missed**" })
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

    fn page(rounds: &[Round]) -> String {
        render(Origin { machine: "2 cores", command: "bench compare" }, rounds)
    }

    #[test]
    fn goals_are_judged_and_losses_are_named() {
        let mut rounds = vec![round("holdfast", 1, 2000), round("etcd", 2, 1000)];
        for (side, number) in
            [("holdfast 900 reading + 0 silent", 100), ("holdfast 900 reading + 100 silent", 104)]
        {
            rounds.push(Round { case: "slow-watchers".to_owned(), ..round(side, number, 10) });
            rounds.last_mut().unwrap().round = 1;
        }
        let text = page(&rounds);
        for line in [
            "| puts per second | at least 1.5 times etcd's | 2.00 | met |",
            "| server CPU per put; no dump of holdfast fell into these rounds | at most 0.6 of etcd's | 0.25 | met |",
            "| server CPU per put with silent watchers, in pairs | within 3 % of without | 1.04 | **missed** |",
            "- `put`: median latency 2.00 times etcd's, 99th percentile 2.00 times etcd's.",
            "    bench compare",
            "Meanwhile other programs used 0.50 of these CPUs: read ratios, not absolute figures.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        rounds[0].dumps = 3;
        assert!(
            page(&rounds)
                .contains("| server CPU per put, dumps included | at most 0.6 of etcd's | 0.25 | met |")
        );
        let swapped = page(&[round("holdfast", 2, 1000), round("etcd", 1, 2000)]);
        assert!(swapped.contains("| puts per second | at least 1.5 times etcd's | 0.50 | **missed** |"));
        assert!(
            swapped.contains("- `put`: per second 0.50 of etcd's, server CPU each 4.00 times etcd's,"),
            "{swapped}"
        );
    }

    #[test]
    fn without_another_side_there_is_nothing_to_judge() {
        let text = page(&[round("holdfast", 1, 10)]);
        assert!(!text.contains("## Goals") && !text.contains("## Where"), "{text}");
        assert!(text.contains("| put, per operation |"));
    }
}
