//! From rounds to what people read: medians, ratios, tables, pictures.
//!
//! Module map: [`table`] is Markdown for the terminal and the docs, [`svg`] draws bars and [`chart`] lines, [`goals`] judges, [`page`] is all
//! of it with the losses.

pub(crate) mod chart;
pub(crate) mod goals;
pub(crate) mod page;
pub(crate) mod svg;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;

/// What figures are per.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    /// A call, or a whole list in pages.
    #[default]
    Operation,
    /// A put, delivered to all watchers that read.
    Put,
    /// An event that reached a watcher.
    Event,
    /// A connection that was opened and used once.
    Connection,
}

/// One measured stretch of one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Round {
    /// Name of the case.
    pub(crate) case: String,
    /// Who was measured.
    pub(crate) side: String,
    /// Counted from 1.
    pub(crate) round: u32,
    /// What figures are per: operations, events or connections.
    pub(crate) unit: Unit,
    /// How many of them.
    pub(crate) units: u64,
    /// How many others there were: of events, the puts behind them.
    pub(crate) puts: u64,
    /// Lists of everything that others made meanwhile, and in the warm-up.
    pub(crate) lists: u64,
    /// What failed.
    pub(crate) failures: u64,
    /// The first failure's words.
    pub(crate) first_failure: Option<String>,
    /// Units a second.
    pub(crate) per_second: f64,
    /// Latencies.
    pub(crate) latency: Percentiles,
    /// CPU of all members.
    pub(crate) server_cpu_us: u64,
    /// CPU of the load generator.
    pub(crate) client_cpu_us: u64,
    /// CPU that everybody else on the machine used from the first start to the last rest.
    pub(crate) foreign_cpu_us: Option<u64>,
    /// The same stretch of time.
    pub(crate) window_us: u64,
    /// Bytes of the page cache that all members made dirty, as the kernel counts them by process.
    pub(crate) dirtied_bytes: u64,
    /// Bytes the disk was sent meanwhile, by these members and everybody else.
    pub(crate) device_bytes: Option<u64>,
    /// Bytes that waited for watchers at the end, on all members.
    pub(crate) watch_queued_bytes: Option<u64>,
    /// Writing system calls of all members.
    pub(crate) write_calls: u64,
    /// Fsyncs of the members' Raft logs.
    pub(crate) log_fsyncs: Option<u64>,
    /// Members that took a snapshot meanwhile.
    pub(crate) dumps: u64,
    /// Checkpoints of the key index that ended meanwhile, on all members.
    pub(crate) checkpoints: u64,
    /// Memory of all members at the end.
    pub(crate) resident_bytes: u64,
    /// The most there was.
    pub(crate) resident_peak_bytes: u64,
    /// Memory of all members before the warm-up, where the peak counts from then on.
    pub(crate) resident_before_bytes: Option<u64>,
    /// What was added to it in the round.
    pub(crate) resident_growth_bytes: i64,
}

/// The rounds of one side in one case, as one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Name of the case.
    pub(crate) case: String,
    /// Who was measured.
    pub(crate) side: String,
    /// What figures are per.
    pub(crate) unit: Unit,
    /// How many rounds.
    pub(crate) rounds: usize,
    /// What failed, in all rounds.
    pub(crate) failures: u64,
    /// Units a second; like all that follows, the median over the rounds.
    pub(crate) per_second: f64,
    /// Median latency.
    pub(crate) p50_us: f64,
    /// 99 of 100 were faster.
    pub(crate) p99_us: f64,
    /// 999 of 1000 were faster.
    pub(crate) p999_us: f64,
    /// CPU of all members per unit.
    pub(crate) server_cpu_us: f64,
    /// The same over all rounds together: dumps fall into some rounds only, and a median can hide them.
    pub(crate) server_cpu_us_overall: f64,
    /// CPU of the load generator per unit.
    pub(crate) client_cpu_us: f64,
    /// Bytes of the page cache made dirty per unit.
    pub(crate) dirtied_bytes: f64,
    /// Bytes to the disk per unit.
    pub(crate) device_bytes: Option<f64>,
    /// Bytes that waited for watchers at the end of a round.
    pub(crate) watch_queued_mib: Option<f64>,
    /// Writing system calls per unit.
    pub(crate) write_calls: f64,
    /// Log fsyncs per unit.
    pub(crate) log_fsyncs: Option<f64>,
    /// Snapshots that were taken, all rounds and members.
    pub(crate) dumps: u64,
    /// Memory.
    pub(crate) resident_mib: f64,
    /// The most there was in any round.
    pub(crate) resident_peak_mib: f64,
    /// What was added in a round.
    pub(crate) resident_growth_mib: f64,
    /// The peak less the least there was before any round: what was resident before a later round is in part what the
    /// round before it has left.
    pub(crate) resident_extra_mib: Option<f64>,
    /// Lists that others made, in all rounds.
    pub(crate) lists: u64,
    /// CPUs that all members together kept busy.
    pub(crate) server_cpus: f64,
}

#[allow(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
fn float(number: u64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
fn signed_mib(bytes: i64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

fn mib(bytes: u64) -> f64 {
    float(bytes) / 1024.0 / 1024.0
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

impl Summary {
    /// Of rounds that have case and side in common, at least one.
    fn of(rounds: &[&Round]) -> Self {
        let median_of =
            |figure: fn(&Round) -> f64| median(rounds.iter().map(|round| figure(round)).collect());
        let total = |figure: fn(&Round) -> u64| float(rounds.iter().map(|round| figure(round)).sum());
        let units = total(|round| round.units).max(1.0);
        let known_median_of = |figure: fn(&Round) -> Option<f64>| {
            rounds.iter().map(|round| figure(round)).collect::<Option<Vec<f64>>>().map(median)
        };
        Self {
            case: rounds[0].case.clone(),
            side: rounds[0].side.clone(),
            unit: rounds[0].unit,
            rounds: rounds.len(),
            failures: rounds.iter().map(|round| round.failures).sum(),
            per_second: median_of(|round| round.per_second),
            p50_us: median_of(|round| float(round.latency.p50_us)),
            p99_us: median_of(|round| float(round.latency.p99_us)),
            p999_us: median_of(|round| float(round.latency.p999_us)),
            server_cpu_us: median_of(|round| float(round.server_cpu_us) / round.unit_count()),
            server_cpu_us_overall: total(|round| round.server_cpu_us) / units,
            client_cpu_us: median_of(|round| float(round.client_cpu_us) / round.unit_count()),
            dirtied_bytes: median_of(|round| float(round.dirtied_bytes) / round.unit_count()),
            device_bytes: known_median_of(|round| Some(float(round.device_bytes?) / round.unit_count())),
            watch_queued_mib: known_median_of(|round| round.watch_queued_bytes.map(mib)),
            write_calls: median_of(|round| float(round.write_calls) / round.unit_count()),
            log_fsyncs: known_median_of(|round| Some(float(round.log_fsyncs?) / round.unit_count())),
            dumps: rounds.iter().map(|round| round.dumps).sum(),
            resident_mib: median_of(|round| mib(round.resident_bytes)),
            resident_growth_mib: median_of(|round| signed_mib(round.resident_growth_bytes)),
            resident_peak_mib: rounds.iter().map(|r| mib(r.resident_peak_bytes)).fold(0.0, f64::max),
            resident_extra_mib: extra_mib(rounds),
            lists: rounds.iter().map(|round| round.lists).sum(),
            server_cpus: median_of(Round::server_cpus),
        }
    }
}

fn extra_mib(rounds: &[&Round]) -> Option<f64> {
    let before: Vec<u64> = rounds.iter().map(|round| round.resident_before_bytes).collect::<Option<_>>()?;
    let least = before.into_iter().min()?;
    let extra = |round: &&Round| mib(round.resident_peak_bytes.saturating_sub(least));
    Some(median(rounds.iter().map(extra).collect()))
}

impl Round {
    /// Adds what failed, and its words if nothing else has failed.
    pub(crate) fn add_failures(&mut self, failures: u64, first: Option<String>) {
        self.failures += failures;
        if self.first_failure.is_none() {
            self.first_failure = first;
        }
    }

    fn unit_count(&self) -> f64 {
        float(self.units.max(1))
    }

    fn server_cpus(&self) -> f64 {
        float(self.server_cpu_us) / float(self.window_us.max(1))
    }
}

/// CPUs' worth that others used while it was measured, the median over all rounds: how much the figures can be trusted.
pub(crate) fn foreign_cpus(rounds: &[Round]) -> Option<f64> {
    let share = |round: &Round| Some(float(round.foreign_cpu_us?) / float(round.window_us.max(1)));
    rounds.iter().map(share).collect::<Option<Vec<f64>>>().filter(|found| !found.is_empty()).map(median)
}

/// The median over the rounds of one side's figure divided by another's of the same round: what disturbs a round disturbs
/// both. `None` if they share no round in which both are known.
pub(crate) fn paired_ratio(
    rounds: &[Round],
    pair: &Pair<'_>,
    figure: impl Fn(&Round) -> Option<f64>,
) -> Option<f64> {
    let of = |side: &str, number: u32| {
        let is_it = |round: &&Round| round.case == pair.case && round.side == side && round.round == number;
        rounds.iter().find(is_it).and_then(&figure)
    };
    let numbers = rounds.iter().filter(|round| round.side == pair.side && round.case == pair.case);
    let ratios = numbers.filter_map(|round| {
        let base = of(pair.base, round.round).filter(|figure| *figure > 0.0)?;
        Some(of(pair.side, round.round)? / base)
    });
    Some(ratios.collect::<Vec<_>>()).filter(|ratios| !ratios.is_empty()).map(median)
}

/// Two sides of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// The case.
    pub(crate) case: &'a str,
    /// The side whose figure is asked for.
    pub(crate) side: &'a str,
    /// The one it is held against.
    pub(crate) base: &'a str,
}

/// One summary for each case and side, in the order in which they first occur.
pub(crate) fn summaries(rounds: &[Round]) -> Vec<Summary> {
    let mut found: Vec<Summary> = Vec::new();
    for round in rounds {
        let is_same = |case: &str, side: &str| case == round.case && side == round.side;
        if !found.iter().any(|summary| is_same(&summary.case, &summary.side)) {
            let same: Vec<&Round> = rounds.iter().filter(|other| is_same(&other.case, &other.side)).collect();
            found.push(Summary::of(&same));
        }
    }
    found
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn round(side: &str, number: u32, units: u64) -> Round {
        Round {
            case: "put".to_owned(),
            side: side.to_owned(),
            round: number,
            units,
            per_second: float(units) / 2.0,
            latency: Percentiles { p50_us: 10 * units, p99_us: 20 * units, ..Percentiles::default() },
            server_cpu_us: 1000 * u64::from(number),
            client_cpu_us: 500,
            foreign_cpu_us: Some(1000),
            window_us: 2000,
            dirtied_bytes: 64 * units,
            device_bytes: Some(32 * units),
            write_calls: 2 * units,
            log_fsyncs: Some(units / 4),
            resident_bytes: 32 << 20,
            resident_peak_bytes: 64 << 20,
            ..Round::default()
        }
    }

    #[test]
    fn medians_are_of_the_sorted() {
        assert!(median(vec![3.0, 1.0, 2.0]).total_cmp(&2.0).is_eq());
        assert!(median(vec![4.0, 1.0]).total_cmp(&2.5).is_eq());
        assert!(median(Vec::new()).total_cmp(&0.0).is_eq());
    }

    #[test]
    fn pairs_are_of_one_round() {
        let cost = |side: &str, number, server_cpu_us| Round { server_cpu_us, ..round(side, number, 10) };
        let rounds = [
            cost("a", 1, 1000),
            cost("b", 1, 1010),
            cost("a", 2, 9000),
            cost("b", 2, 9180),
            cost("b", 3, 6060),
            cost("a", 3, 6000),
            cost("b", 4, 1),
        ];
        let cpu = |round: &Round| Some(float(round.server_cpu_us));
        let ratio = paired_ratio(&rounds, &Pair { case: "put", side: "b", base: "a" }, cpu).unwrap();
        assert!((ratio - 1.01).abs() < 1e-9, "{ratio}");
        assert_eq!(paired_ratio(&rounds, &Pair { case: "put", side: "b", base: "c" }, cpu), None);
    }

    #[test]
    fn sides_are_summed_up_apart_and_a_dump_shows_in_the_overall_figure() {
        let mut rounds = vec![round("a", 1, 100), round("b", 1, 50), round("a", 2, 100), round("a", 30, 100)];
        rounds[3].dumps = 3;
        let found = summaries(&rounds);
        assert_eq!(
            found.iter().map(|s| (s.side.as_str(), s.rounds)).collect::<Vec<_>>(),
            [("a", 3), ("b", 1)]
        );
        assert!(found[0].server_cpu_us.total_cmp(&20.0).is_eq(), "{found:?}");
        assert!(found[0].server_cpu_us_overall.total_cmp(&110.0).is_eq(), "{found:?}");
        assert_eq!((found[0].dumps, found[0].log_fsyncs), (3, Some(0.25)));
    }
}
