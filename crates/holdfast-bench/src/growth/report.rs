//! Curves as text: a table for each side with how steep every figure is, and what goals say of them.

use std::fmt::Write;

use super::curve::{Curve, Growth, Series};
use super::store::{KEY_BYTES, REVISION_BYTES};
use super::subject::{GET_CPU, PUT_CPU, READ_CPU};
use crate::report::chart::{file_name, readable};
use crate::report::goals::{Bound, Found, OURS, Row};
use crate::report::table::aligned;

/// What is judged of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// The last figure divided by the first.
    Ratio,
    /// The last figure.
    Last,
}

/// Something we mean to reach, over sizes from `from` to `to` at least.
struct Goal {
    case: &'static str,
    curve: &'static str,
    figure: &'static str,
    judged: Judged,
    bound: Bound,
    from: u64,
    to: u64,
}

const fn over_keys(figure: &'static str) -> Goal {
    let (case, curve) = ("growth keys", "keys");
    let (judged, bound) = (Judged::Ratio, Bound::AtMost(1.5));
    Goal { case, curve, figure, judged, bound, from: 10_000, to: 10_000_000 }
}

const GOALS: [Goal; 5] = [
    over_keys(PUT_CPU),
    over_keys(GET_CPU),
    over_keys(READ_CPU),
    Goal {
        case: "growth key-memory",
        curve: "key-memory",
        figure: KEY_BYTES,
        judged: Judged::Last,
        bound: Bound::Below(120.0),
        from: 10_000_000,
        to: 10_000_000,
    },
    Goal {
        case: "growth revision-memory",
        curve: "revision-memory",
        figure: REVISION_BYTES,
        judged: Judged::Last,
        bound: Bound::Below(16.0),
        from: 1000,
        to: 1000,
    },
];

/// All goals, judged; without curves none is measured.
pub(crate) fn judge(growth: Option<&Growth>) -> Vec<Row> {
    GOALS.iter().map(|goal| goal.row(growth)).collect()
}

impl Goal {
    fn row(&self, growth: Option<&Growth>) -> Row {
        let curve = growth.and_then(|growth| growth.curves.iter().find(|curve| curve.name == self.curve));
        let figure = curve.and_then(|curve| curve.find(OURS, self.figure)).and_then(|one| self.figure(one));
        let ours = |failure: &&String| failure.starts_with(&format!("{OURS} at"));
        let failures = curve.map_or(0, |curve| curve.failures.iter().filter(ours).count() as u64);
        let bound = self.bound.words();
        let goal = match self.judged {
            Judged::Ratio => format!("{bound} times that of 10,000 keys with 10,000,000"),
            Judged::Last => bound,
        };
        let found = Found::judged(figure, self.bound, failures);
        Row { case: self.case, what: self.figure.to_owned(), goal, found }
    }

    /// `None` of curves that do not reach as far as the goal does.
    fn figure(&self, series: &Series) -> Option<f64> {
        match self.judged {
            Judged::Ratio => {
                let slope = series.slope().filter(|slope| slope.from <= self.from && slope.to >= self.to)?;
                Some(slope.ratio)
            }
            Judged::Last => series.last().filter(|(at, _)| *at >= self.to).map(|(_, figure)| figure),
        }
    }
}

/// The tables, without a heading of their own. `pictures` is where pictures are, as a page beside it would say.
pub(crate) fn render(growth: &Growth, pictures: Option<&str>) -> String {
    let mut text = String::new();
    for curve in &growth.curves {
        write!(text, "### Over {}: `{}`\n\n{}\n\n", curve.over, curve.name, curve.how)
            .expect("writing to a string succeeds");
        if let Some(pictures) = pictures {
            write!(text, "![{}]({pictures}{})\n\n", curve.name, file_name(&curve.name))
                .expect("writing to a string succeeds");
        }
        for side in curve.sides() {
            text.push_str(&table(curve, side));
            text.push('\n');
        }
        for failure in &curve.failures {
            write!(text, "{failure}\n\n").expect("writing to a string succeeds");
        }
    }
    text
}

/// A row for each size, then how steep each figure is.
fn table(curve: &Curve, side: &str) -> String {
    let columns: Vec<&Series> = curve.series.iter().filter(|series| series.side == side).collect();
    let mut sizes: Vec<u64> =
        columns.iter().flat_map(|series| series.points.iter().map(|point| point.at)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let row = |name: String, cell: &dyn Fn(&Series) -> Option<f64>| {
        let cells = columns.iter().map(|series| cell(series).map_or_else(|| "-".to_owned(), readable));
        [name].into_iter().chain(cells).collect::<Vec<String>>()
    };
    let heads = columns.iter().map(|series| series.figure.clone());
    let mut rows = vec![[format!("{side}: {}", curve.over)].into_iter().chain(heads).collect::<Vec<_>>()];
    for size in sizes {
        let figure = |series: &Series| series.points.iter().find(|point| point.at == size)?.figure;
        rows.push(row(size.to_string(), &figure));
    }
    rows.push(row("last / first".to_owned(), &|series| series.slope().map(|slope| slope.ratio)));
    rows.push(row("per decade".to_owned(), &|series| series.slope().map(|slope| slope.per_decade)));
    aligned(rows)
}

#[cfg(test)]
mod tests {
    use super::super::curve::Point;
    use super::*;
    use crate::report::goals;

    fn growth(sizes: &[u64], figures: &[f64]) -> Growth {
        let mut keys = Curve::new("keys", "keys", "Puts.");
        let mut memory = Curve::new("key-memory", "keys", "Memory.");
        for (at, figure) in sizes.iter().zip(figures) {
            for side in ["holdfast", "etcd"] {
                keys.add(side, PUT_CPU, Point::known(*at, *figure));
                memory.add(side, KEY_BYTES, Point::known(*at, *figure));
            }
        }
        Growth { curves: vec![keys, memory], ..Growth::default() }
    }

    fn verdicts(growth: &Growth) -> Vec<Found> {
        judge(Some(growth)).into_iter().map(|row| row.found).collect()
    }

    #[test]
    fn goals_are_judged_where_curves_reach_far_enough() {
        let whole = growth(&[10_000, 10_000_000], &[100.0, 119.0]);
        let found = verdicts(&whole);
        assert!(
            matches!(found[0], Found::Figure { figure, is_met: true, .. } if (figure - 1.19).abs() < 1e-9)
        );
        assert_eq!(found[1], Found::NotMeasured, "there is no such figure");
        assert!(matches!(found[3], Found::Figure { is_met: true, failures: 0, .. }), "{:?}", found[3]);
        let steep = verdicts(&growth(&[10_000, 10_000_000], &[100.0, 151.0]));
        assert!(matches!(steep[0], Found::Figure { is_met: false, .. }));
        assert!(matches!(steep[3], Found::Figure { is_met: false, .. }));
        let short = verdicts(&growth(&[10_000, 1_000_000], &[100.0, 101.0]));
        assert!(short.iter().all(|found| *found == Found::NotMeasured), "{short:?}");
        assert!(judge(None).iter().all(|row| row.found == Found::NotMeasured));
        let mut failed = whole;
        failed.curves[0].failures =
            vec!["holdfast at 10 keys: 1 failed".to_owned(), "etcd at 10 keys: 1 failed".to_owned()];
        assert!(goals::table(&judge(Some(&failed))).contains("**in doubt**: 1 operations failed"));
    }

    #[test]
    fn a_table_has_every_size_and_how_steep_it_is() {
        let mut growth = growth(&[100, 10_000], &[1.0, 4.0]);
        growth.curves[0].add("holdfast", "memory", Point { at: 100, figure: None });
        growth.curves[0].failures.push("etcd at 100 keys, Put: 2 failed, the first: x".to_owned());
        let text = render(&growth, Some("pictures/"));
        for line in [
            "### Over keys: `keys`",
            "![keys](pictures/growth-keys.svg)",
            "| holdfast: keys | server CPU us a put | memory |",
            "| 100            |                1.00 |      - |",
            "| 10000          |                4.00 |      - |",
            "| last / first   |                4.00 |      - |",
            "| per decade     |                2.00 |      - |",
            "etcd at 100 keys, Put: 2 failed, the first: x",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!render(&growth, None).contains("!["));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let growth = growth(&[1, 10], &[1.0, 2.0]);
        let text = serde_json::to_string(&growth).unwrap();
        assert_eq!(serde_json::from_str::<Growth>(&text).unwrap(), growth);
    }
}
