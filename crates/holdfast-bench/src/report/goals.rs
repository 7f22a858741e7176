//! What we mean to reach, and whether a comparison shows that we do.
//!
//! A goal holds a figure of ours against that of another side of the same case, or against that of our own side without
//! what the case adds, or against a number. Against other systems it is the ratio of the medians; against ourselves the
//! median of the ratios within a round, because what disturbs a round disturbs both. A goal whose case was not run is
//! listed as not measured, and one whose operations failed is in doubt, whatever its figure.

use std::fmt::Write;

use super::{Pair, Round, Summary, paired_ratio};

/// Our default side.
pub(crate) const OURS: &str = "holdfast";
/// The side that most goals are held against.
pub(crate) const ETCD: &str = "etcd";
const CEILING: &str = "ceiling";

/// Something we mean to reach.
struct Goal {
    case: &'static str,
    what: &'static str,
    figure: Figure,
    bound: Bound,
    base: Base,
    /// Which of our own sides of the case, where it has more than one.
    side: usize,
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    PerSecond,
    P50,
    P99,
    /// Server CPU of a unit, the median.
    Cpu,
    /// The same over all rounds, dumps included.
    CpuOverall,
    /// The peak of memory less what was there before.
    ExtraMemory,
    /// CPUs that are busy all the time.
    Cpus,
}

/// Up to where it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
    /// Less than this.
    Below(f64),
}

/// What it is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Etcd,
    Ceiling,
    /// The first of our own sides in the case; with what that side is.
    Own(&'static str),
    /// Nothing: the figure itself is judged; with its unit.
    Itself(&'static str),
}

const fn goal(case: &'static str, what: &'static str, figure: Figure, bound: Bound, base: Base) -> Goal {
    Goal { case, what, figure, bound, base, side: 1 }
}

impl Goal {
    const fn of_side(self, side: usize) -> Self {
        Self { side, ..self }
    }
}

const THIRD: f64 = 1.0 / 3.0;
const WITHOUT_LISTS: Base = Base::Own("the one without lists");
const AT_THE_LEADER: Base = Base::Own("the leader's");
const ALL_ROUNDS: &str = "server CPU, all rounds with their dumps";
const CPU: &str = "server CPU";
const SPEED: &str = "per second";
const P50: &str = "p50";
const P99: &str = "p99";

const GOALS: [Goal; 25] = [
    goal("put", ALL_ROUNDS, Figure::CpuOverall, Bound::AtMost(3.5), Base::Ceiling),
    goal("put", ALL_ROUNDS, Figure::CpuOverall, Bound::AtMost(THIRD), Base::Etcd),
    goal("put", SPEED, Figure::PerSecond, Bound::AtLeast(2.7), Base::Etcd),
    goal("put", P99, Figure::P99, Bound::AtMost(0.4), Base::Etcd),
    goal("put-64", SPEED, Figure::PerSecond, Bound::AtLeast(2.3), Base::Etcd),
    goal("put-1000", SPEED, Figure::PerSecond, Bound::AtLeast(2.3), Base::Etcd),
    goal("put-one", P50, Figure::P50, Bound::AtMost(0.6), Base::Etcd),
    goal("put-one", P99, Figure::P99, Bound::Below(1.0), Base::Etcd),
    goal("get-linearizable", CPU, Figure::Cpu, Bound::AtMost(1.5), Base::Ceiling),
    goal("get-serializable", CPU, Figure::Cpu, Bound::AtMost(1.15), Base::Ceiling),
    goal("get-linearizable-followers", CPU, Figure::Cpu, Bound::AtMost(1.25), AT_THE_LEADER),
    goal("get-serializable-followers", CPU, Figure::Cpu, Bound::AtMost(1.25), AT_THE_LEADER),
    goal("watch-fanout", CPU, Figure::Cpu, Bound::AtMost(0.7), Base::Itself("us an event")),
    goal("watch-fanout", "p99 of the delivery", Figure::P99, Bound::AtMost(0.2), Base::Etcd),
    goal("put-watched", P99, Figure::P99, Bound::AtMost(1.3), Base::Own("the one without watchers")),
    goal("put-keys-watched", CPU, Figure::Cpu, Bound::AtMost(2.0), Base::Own("that with few watchers")),
    goal("slow-watchers", CPU, Figure::Cpu, Bound::AtMost(1.03), Base::Own("that without silent watchers")),
    goal("list-whole", "time", Figure::P50, Bound::AtMost(THIRD), Base::Etcd),
    goal(
        "list-whole",
        "memory beyond what was resident",
        Figure::ExtraMemory,
        Bound::AtMost(0.5),
        Base::Etcd,
    ),
    goal("list-whole-paged", "time", Figure::P50, Bound::AtMost(0.125), Base::Etcd),
    goal("put-beside-lists", "p99 beside whole lists", Figure::P99, Bound::AtMost(1.5), WITHOUT_LISTS),
    goal("put-beside-lists", "p99 beside lists in pages", Figure::P99, Bound::AtMost(1.5), WITHOUT_LISTS)
        .of_side(2),
    goal("lease-grant", CPU, Figure::Cpu, Bound::AtMost(THIRD), Base::Etcd),
    goal("lease-keepalive", CPU, Figure::Cpu, Bound::AtMost(0.5), Base::Etcd),
    goal(
        "lease-steady",
        "server CPU all the time",
        Figure::Cpus,
        Bound::Below(0.1),
        Base::Itself("of a core"),
    ),
];

/// One goal, as a row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The case, or the curve.
    pub(crate) case: &'static str,
    /// The figure in words.
    pub(crate) what: String,
    /// The bound in words.
    pub(crate) goal: String,
    /// What was found.
    pub(crate) found: Found,
}

/// What a comparison says about a goal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// Nothing: the case was not run, or not on the side that is needed.
    NotMeasured,
    /// A ratio, or the figure itself.
    Figure {
        /// It.
        figure: f64,
        /// Whether it is within the bound.
        is_met: bool,
        /// Operations that failed, on either side.
        failures: u64,
    },
}

impl Found {
    /// A figure, judged.
    pub(crate) fn judged(figure: Option<f64>, bound: Bound, failures: u64) -> Self {
        match figure.filter(|figure| figure.is_finite()) {
            None => Self::NotMeasured,
            Some(figure) => Self::Figure { figure, is_met: bound.holds(figure), failures },
        }
    }
}

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= bound,
            Self::AtMost(bound) => figure <= bound,
            Self::Below(bound) => figure < bound,
        }
    }

    /// In words, to stand before what it is a bound of.
    pub(crate) fn words(self) -> String {
        let (words, bound) = match self {
            Self::AtLeast(bound) => ("at least", bound),
            Self::AtMost(bound) => ("at most", bound),
            Self::Below(bound) => ("below", bound),
        };
        let number = format!("{bound:.3}");
        let number = number.trim_end_matches('0').trim_end_matches('.');
        format!("{words} {number}")
    }

    fn number(self) -> f64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) | Self::Below(bound) => bound,
        }
    }
}

impl Figure {
    fn of_summary(self, summary: &Summary) -> Option<f64> {
        match self {
            Self::PerSecond => Some(summary.per_second),
            Self::P50 => Some(summary.p50_us),
            Self::P99 => Some(summary.p99_us),
            Self::Cpu => Some(summary.server_cpu_us),
            Self::CpuOverall => Some(summary.server_cpu_us_overall),
            Self::ExtraMemory => summary.resident_extra_mib,
            Self::Cpus => Some(summary.server_cpus),
        }
    }

    /// The same of one round, where that is known.
    fn of_round(self, round: &Round) -> Option<f64> {
        match self {
            Self::PerSecond => Some(round.per_second),
            Self::P50 => Some(super::float(round.latency.p50_us)),
            Self::P99 => Some(super::float(round.latency.p99_us)),
            Self::Cpu => Some(super::float(round.server_cpu_us) / round.unit_count()),
            Self::Cpus => Some(round.server_cpus()),
            Self::CpuOverall | Self::ExtraMemory => None,
        }
    }
}

/// All goals, judged.
pub(crate) fn judge(rounds: &[Round], summaries: &[Summary]) -> Vec<Row> {
    GOALS.iter().map(|goal| goal.row(rounds, summaries)).collect()
}

/// The rows as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| case | what | goal | found | |\n| --- | --- | --- | ---: | --- |\n");
    for row in rows {
        let (found, verdict) = match row.found {
            Found::NotMeasured => ("-".to_owned(), "not measured".to_owned()),
            Found::Figure { figure, failures, .. } if failures > 0 => {
                (format!("{figure:.2}"), format!("**in doubt**: {failures} operations failed"))
            }
            Found::Figure { figure, is_met, .. } => {
                (format!("{figure:.2}"), if is_met { "met" } else { "**missed**" }.to_owned())
            }
        };
        writeln!(text, "| `{}` | {} | {} | {found} | {verdict} |", row.case, row.what, row.goal)
            .expect("writing to a string succeeds");
    }
    text
}

/// The summary of a case and side.
pub(crate) fn side<'a>(summaries: &'a [Summary], case: &str, side: &str) -> Option<&'a Summary> {
    summaries.iter().find(|summary| summary.case == case && summary.side == side)
}

impl Goal {
    fn row(&self, rounds: &[Round], summaries: &[Summary]) -> Row {
        let own = self.own_sides(summaries);
        let ours = match self.base {
            Base::Own(_) => own.get(self.side).copied(),
            _ => side(summaries, self.case, OURS),
        };
        let base = match self.base {
            Base::Etcd => side(summaries, self.case, ETCD),
            Base::Ceiling => side(summaries, self.case, CEILING),
            Base::Own(_) => own.first().copied(),
            Base::Itself(_) => ours,
        };
        let both = ours.zip(base);
        let figure = both.and_then(|(ours, base)| self.figure(rounds, ours, base));
        let failures = both.map_or(0, |(ours, base)| match self.base {
            Base::Itself(_) => ours.failures,
            _ => ours.failures + base.failures,
        });
        // Short rounds can miss every dump; then the figure does not hold its share of them, and must not say so.
        let no_dump = self.figure == Figure::CpuOverall && ours.is_some_and(|ours| ours.dumps == 0);
        let note = if no_dump { "; no dump of holdfast fell into these rounds" } else { "" };
        Row {
            case: self.case,
            what: format!("{}{note}", self.what),
            goal: self.words(),
            found: Found::judged(figure, self.bound, failures),
        }
    }

    fn figure(&self, rounds: &[Round], ours: &Summary, base: &Summary) -> Option<f64> {
        if let Base::Itself(_) = self.base {
            return self.figure.of_summary(ours);
        }
        if let Base::Own(_) = self.base {
            let pair = Pair { case: self.case, side: &ours.side, base: &base.side };
            return paired_ratio(rounds, &pair, |round| self.figure.of_round(round));
        }
        let base = self.figure.of_summary(base).filter(|figure| *figure > 0.0)?;
        Some(self.figure.of_summary(ours)? / base)
    }

    /// Our default system's sides of the case, where it has several, in the order in which they were first measured.
    fn own_sides<'a>(&self, summaries: &'a [Summary]) -> Vec<&'a Summary> {
        let is_own = |summary: &&Summary| {
            let label = summary.side.strip_prefix(OURS);
            summary.case == self.case && label.is_some_and(|label| label.starts_with(' '))
        };
        summaries.iter().filter(is_own).collect()
    }

    fn words(&self) -> String {
        let bound = self.bound.words();
        let of = if self.bound.number() < 1.0 { "of" } else { "times" };
        match self.base {
            Base::Etcd if self.bound == Bound::Below(1.0) => "below etcd's".to_owned(),
            Base::Etcd => format!("{bound} {of} etcd's"),
            Base::Ceiling => format!("{bound} {of} the ceiling's"),
            Base::Own(what) => format!("{bound} {of} {what}"),
            Base::Itself(unit) => format!("{bound} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summaries;
    use crate::report::tests::round;

    fn of(case: &str, round: Round) -> Round {
        Round { case: case.to_owned(), ..round }
    }

    fn lines(rounds: &[Round]) -> String {
        table(&judge(rounds, &summaries(rounds)))
    }

    fn assert_says(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    #[test]
    fn figures_are_held_against_other_systems() {
        // Of `round`: CPU 1000 us times its number, latencies in proportion to its units.
        let mut rounds = [round("holdfast", 3, 2700), round("etcd", 10, 1000), round("ceiling", 1, 3000)];
        rounds[0].dumps = 3;
        let text = lines(&rounds);
        assert_says(
            &text,
            "| `put` | server CPU, all rounds with their dumps | at most 3.5 times the ceiling's | 3.33 | met |",
        );
        assert_says(
            &text,
            "| `put` | server CPU, all rounds with their dumps | at most 0.333 of etcd's | 0.11 | met |",
        );
        assert_says(&text, "| `put` | per second | at least 2.7 times etcd's | 2.70 | met |");
        assert_says(&text, "| `put` | p99 | at most 0.4 of etcd's | 2.70 | **missed** |");
        assert_says(&text, "| `put-64` | per second | at least 2.3 times etcd's | - | not measured |");
        rounds[0].dumps = 0;
        assert!(lines(&rounds).contains("with their dumps; no dump of holdfast fell into these rounds |"));
        rounds[1].failures = 2;
        assert_says(
            &lines(&rounds),
            "| `put` | per second | at least 2.7 times etcd's | 2.70 | **in doubt**: 2 operations failed |",
        );
    }

    #[test]
    fn our_own_sides_are_held_against_the_first_of_them_round_by_round() {
        let mut rounds = Vec::new();
        for (number, base) in [(1, 100), (2, 1000), (3, 10)] {
            for (side, times) in [
                ("holdfast calm", 100),
                ("holdfast beside lists", 140),
                ("holdfast beside lists in pages", 160),
            ] {
                let mut one = of("put-beside-lists", round(side, number, 10));
                one.latency.p99_us = base * times;
                rounds.push(one);
            }
            // Others do not count as ours.
            rounds.push(of("put-beside-lists", round("holdfast-redb calm", number, 10)));
        }
        let text = lines(&rounds);
        let words = "at most 1.5 times the one without lists";
        assert_says(
            &text,
            &format!("| `put-beside-lists` | p99 beside whole lists | {words} | 1.40 | met |"),
        );
        assert_says(
            &text,
            &format!("| `put-beside-lists` | p99 beside lists in pages | {words} | 1.60 | **missed** |"),
        );
        assert_eq!(text.matches("| not measured |").count(), GOALS.len() - 2, "{text}");
    }

    #[test]
    fn some_figures_stand_alone() {
        let mut event = of("watch-fanout", round("holdfast", 1, 2000));
        event.failures = 0;
        let lease = Round { window_us: 20_000, ..of("lease-steady", round("holdfast", 1, 10)) };
        let text = lines(&[event, lease]);
        assert_says(&text, "| `watch-fanout` | server CPU | at most 0.7 us an event | 0.50 | met |");
        assert_says(
            &text,
            "| `watch-fanout` | p99 of the delivery | at most 0.2 of etcd's | - | not measured |",
        );
        assert_says(&text, "| `lease-steady` | server CPU all the time | below 0.1 of a core | 0.05 | met |");
    }

    #[test]
    fn memory_of_a_list_is_its_peak_over_the_least_before() {
        let list = |side, number, before: u64, peak: u64| Round {
            resident_before_bytes: Some(before << 20),
            resident_peak_bytes: peak << 20,
            ..of("list-whole", round(side, number, 10))
        };
        let rounds = [
            list("holdfast", 1, 100, 110),
            list("holdfast", 2, 109, 112),
            list("etcd", 1, 100, 140),
            list("etcd", 2, 150, 140),
        ];
        let what = "memory beyond what was resident";
        assert_says(
            &lines(&rounds),
            &format!("| `list-whole` | {what} | at most 0.5 of etcd's | 0.28 | met |"),
        );
    }

    #[test]
    fn bounds_hold_where_they_say() {
        assert!(Bound::AtMost(1.5).holds(1.5) && Bound::AtLeast(1.5).holds(1.5));
        assert!(!Bound::Below(1.0).holds(1.0) && Bound::Below(1.0).holds(0.99));
        assert_eq!(Bound::AtMost(THIRD).words(), "at most 0.333");
        assert_eq!(Bound::AtLeast(2.0).words(), "at least 2");
        assert_eq!(Found::judged(Some(f64::NAN), Bound::AtMost(1.0), 0), Found::NotMeasured);
    }
}
