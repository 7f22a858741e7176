//! Summaries as a Markdown table, which a terminal shows as well as a page does.

use std::fmt::Write;

use super::{Summary, Unit};

/// The side all others are held against, when it took part. Else each system is held against the first of its own
/// sides: the case asks what it does to a system that something is added.
const BASE: &str = "etcd";

/// One table for each case.
pub(crate) fn render(summaries: &[Summary]) -> String {
    let mut text = String::new();
    let mut cases: Vec<&str> = summaries.iter().map(|summary| summary.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let of_case: Vec<&Summary> = summaries.iter().filter(|summary| summary.case == case).collect();
        text.push_str(&render_case(case, &of_case));
        text.push('\n');
    }
    text
}

const HEADINGS: [&str; 17] = [
    "/s",
    "x etcd",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "server CPU us",
    "x etcd",
    "all rounds",
    "x etcd",
    "client CPU us",
    "disk B",
    "write calls",
    "log fsyncs",
    "dumps",
    "RSS MiB",
    "peak MiB",
    "grown MiB",
];

fn render_case(case: &str, summaries: &[&Summary]) -> String {
    let base = summaries.iter().find(|summary| summary.side == BASE).copied();
    let mut rows = vec![
        [format!("{case}, per {}", unit_name(summaries[0].unit))]
            .into_iter()
            .chain(HEADINGS.map(str::to_owned))
            .collect::<Vec<_>>(),
    ];
    rows.extend(summaries.iter().map(|summary| cells(summary, base)));
    let widths: Vec<usize> = (0..=HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let written = match column {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
            written.expect("writing to a string succeeds");
        }
        text.push('\n');
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                text.push_str(if column == 0 { "|" } else { "" });
                text.push_str(&"-".repeat(width + 1));
                text.push_str(if column == 0 { "-|" } else { ":|" });
            }
            text.push('\n');
        }
    }
    for summary in summaries.iter().filter(|summary| summary.failures > 0) {
        writeln!(text, "\n{}: {} operations failed.", summary.side, summary.failures)
            .expect("writing to a string succeeds");
    }
    text
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Operation => "operation",
        Unit::Put => "put",
        Unit::Event => "event",
        Unit::Connection => "connection",
    }
}

fn cells(summary: &Summary, base: Option<&Summary>) -> Vec<String> {
    let ratio = |figure: fn(&Summary) -> f64| match base.map(figure) {
        Some(of_base) if of_base > 0.0 => format!("{:.2}", figure(summary) / of_base),
        _ => "-".to_owned(),
    };
    vec![
        summary.side.clone(),
        format!("{:.0}", summary.per_second),
        ratio(|s| s.per_second),
        format!("{:.2}", summary.p50_us / 1000.0),
        format!("{:.2}", summary.p99_us / 1000.0),
        format!("{:.2}", summary.p999_us / 1000.0),
        format!("{:.2}", summary.server_cpu_us),
        ratio(|s| s.server_cpu_us),
        format!("{:.2}", summary.server_cpu_us_overall),
        ratio(|s| s.server_cpu_us_overall),
        format!("{:.2}", summary.client_cpu_us),
        format!("{:.0}", summary.written_bytes),
        format!("{:.2}", summary.write_calls),
        summary.log_fsyncs.map_or_else(|| "-".to_owned(), |fsyncs| format!("{fsyncs:.4}")),
        summary.dumps.to_string(),
        format!("{:.0}", summary.resident_mib),
        format!("{:.0}", summary.resident_peak_mib),
        format!("{:.1}", summary.resident_growth_mib),
    ]
}
