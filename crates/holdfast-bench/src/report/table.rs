//! Summaries as Markdown tables, which a terminal shows as well as a page does: for each case one of speed and cost,
//! one of disk and memory.

use std::fmt::Write;

use super::{Summary, Unit};

/// The side all others are held against, when it took part. Else each system is held against the first of its own
/// sides: the case asks what it does to a system that something is added.
const BASE: &str = "etcd";
/// Fewer a second are shown with decimals.
const FEW: f64 = 100.0;
/// Stands where there is no figure.
const UNKNOWN: &str = "-";

/// A heading, and what stands below it.
struct Column {
    heading: &'static str,
    cell: Cell,
}

/// What a cell is made from.
enum Cell {
    /// How many a second; with decimals where there are few.
    Speed,
    /// A figure with so many decimals, if there is one.
    Figure(fn(&Summary) -> Option<f64>, usize),
    /// A figure divided by that of the base.
    Ratio(fn(&Summary) -> f64),
}

const fn figure(heading: &'static str, of: fn(&Summary) -> Option<f64>, decimals: usize) -> Column {
    Column { heading, cell: Cell::Figure(of, decimals) }
}

const fn ratio(of: fn(&Summary) -> f64) -> Column {
    Column { heading: "x base", cell: Cell::Ratio(of) }
}

const SPEED_AND_COST: [Column; 10] = [
    Column { heading: "/s", cell: Cell::Speed },
    ratio(|s| s.per_second),
    figure("p50 ms", |s| Some(s.p50_us / 1000.0), 2),
    figure("p99 ms", |s| Some(s.p99_us / 1000.0), 2),
    figure("p99.9 ms", |s| Some(s.p999_us / 1000.0), 2),
    figure("server CPU us", |s| Some(s.server_cpu_us), 2),
    ratio(|s| s.server_cpu_us),
    figure("all rounds", |s| Some(s.server_cpu_us_overall), 2),
    ratio(|s| s.server_cpu_us_overall),
    figure("client CPU us", |s| Some(s.client_cpu_us), 2),
];

const DISK_AND_MEMORY: [Column; 10] = [
    figure("device B", |s| s.device_bytes, 0),
    figure("dirtied B", |s| Some(s.dirtied_bytes), 0),
    figure("write calls", |s| Some(s.write_calls), 2),
    figure("log fsyncs", |s| s.log_fsyncs, 4),
    figure("dumps", |s| Some(super::float(s.dumps)), 0),
    figure("RSS MiB", |s| Some(s.resident_mib), 0),
    figure("peak MiB", |s| Some(s.resident_peak_mib), 0),
    figure("grown MiB", |s| Some(s.resident_growth_mib), 1),
    figure("extra MiB", |s| s.resident_extra_mib, 1),
    figure("queued MiB", |s| s.watch_queued_mib, 2),
];

/// Two tables for each case. `pictures` is where pictures are, as a page beside it would say; none are shown without.
pub(crate) fn render(summaries: &[Summary], pictures: Option<&str>) -> String {
    let mut text = String::new();
    let mut cases: Vec<&str> = summaries.iter().map(|summary| summary.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let of_case: Vec<&Summary> = summaries.iter().filter(|summary| summary.case == case).collect();
        if let Some(pictures) = pictures {
            write!(text, "![{case}]({pictures}{case}.svg)\n\n").expect("writing to a string succeeds");
        }
        let unit = unit_name(of_case[0].unit);
        text.push_str(&table(&format!("{case}, per {unit}"), &SPEED_AND_COST, &of_case));
        text.push('\n');
        text.push_str(&table(&format!("{case}: disk and memory"), &DISK_AND_MEMORY, &of_case));
        text.push('\n');
        for summary in of_case.iter().filter(|summary| summary.lists > 0) {
            writeln!(text, "{}: {} lists, in all rounds.\n", summary.side, summary.lists)
                .expect("writing to a string succeeds");
        }
        for summary in of_case.iter().filter(|summary| summary.failures > 0) {
            writeln!(text, "{}: {} failed.\n", summary.side, summary.failures)
                .expect("writing to a string succeeds");
        }
    }
    text
}

/// Columns that have no figure for anybody are left out.
fn table(title: &str, columns: &[Column], summaries: &[&Summary]) -> String {
    let columns: Vec<&Column> = columns
        .iter()
        .filter(|column| summaries.iter().any(|summary| column.cell.is_known(summary)))
        .collect();
    let head = [title].into_iter().chain(columns.iter().map(|column| column.heading));
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    for summary in summaries {
        let base = base_of(summary, summaries);
        let cells = columns.iter().map(|column| column.cell.text(summary, base));
        rows.push([summary.side.clone()].into_iter().chain(cells).collect());
    }
    aligned(rows)
}

/// A table of these rows, which have as many cells as the first: the heads, and in the first column names.
pub(crate) fn aligned(mut rows: Vec<Vec<String>>) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    // Two: room for the rule of a column of figures.
    let widths: Vec<usize> = (0..columns).map(|column| width(column).max(2)).collect();
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => "-".repeat(*width),
        _ => format!("{}:", "-".repeat(width - 1)),
    });
    rows.insert(1, rule.collect());
    rows.iter().map(|row| line(row, &widths)).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut text = "|".to_owned();
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let written = match column {
            0 => write!(text, " {cell:<width$} |"),
            _ => write!(text, " {cell:>width$} |"),
        };
        written.expect("writing to a string succeeds");
    }
    text + "\n"
}

fn base_of<'a>(summary: &Summary, all: &[&'a Summary]) -> Option<&'a Summary> {
    let system = |one: &Summary| one.side.split(' ').next().unwrap_or_default().to_owned();
    let etcd = all.iter().find(|other| other.side == BASE);
    etcd.or_else(|| all.iter().find(|other| system(other) == system(summary))).copied()
}

impl Cell {
    fn is_known(&self, summary: &Summary) -> bool {
        match self {
            Self::Figure(of, _) => of(summary).is_some(),
            Self::Speed | Self::Ratio(_) => true,
        }
    }

    fn text(&self, summary: &Summary, base: Option<&Summary>) -> String {
        match self {
            Self::Speed if summary.per_second < FEW => format!("{:.2}", summary.per_second),
            Self::Speed => format!("{:.0}", summary.per_second),
            Self::Figure(of, decimals) => {
                of(summary).map_or_else(|| UNKNOWN.to_owned(), |figure| format!("{figure:.decimals$}"))
            }
            Self::Ratio(of) => match base.map(of) {
                Some(of_base) if of_base > 0.0 => format!("{:.2}", of(summary) / of_base),
                _ => UNKNOWN.to_owned(),
            },
        }
    }
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Operation => "operation",
        Unit::Put => "put",
        Unit::Event => "event",
        Unit::Connection => "connection",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summaries;
    use crate::report::tests::round;

    #[test]
    fn a_table_is_what_it_was() {
        let mut rounds = vec![round("holdfast", 1, 2000), round("etcd", 2, 1000), round("ceiling", 1, 9000)];
        rounds[2].log_fsyncs = None;
        rounds[1].failures = 3;
        for side in ["holdfast 9 reading + 0 silent", "holdfast 9 reading + 1 silent"] {
            let number = if side.contains("+ 1") { 3 } else { 2 };
            rounds.push(crate::report::Round {
                case: "slow-watchers".to_owned(),
                unit: Unit::Put,
                ..round(side, number, 10)
            });
        }
        let text = render(&summaries(&rounds), None);
        assert_eq!(text, include_str!("golden/table.md"), "{text}");
    }
}
