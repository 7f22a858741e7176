//! A case as a picture: bars for how much, at what cost, how late. Plain SVG text, no script, no fonts of its own.

use std::fmt::Write;
use std::path::Path;

use super::Summary;
use crate::error::Error;

pub(super) const WIDTH: usize = 640;
const BAR_HEIGHT: usize = 18;
const ROW_HEIGHT: usize = 24;
const PANEL_HEAD: usize = 28;
pub(super) const MARGIN: usize = 12;
/// Names stand left of it, bars right.
const BARS_LEFT: usize = 230;
/// Room for the figure behind the longest bar.
const FIGURE_WIDTH: usize = 90;
const BARS_WIDTH: usize = WIDTH - BARS_LEFT - FIGURE_WIDTH;
/// Told apart also by those who do not see colours alike, and in print.
pub(super) const COLOURS: [&str; 4] = ["#1b6ca8", "#d98e04", "#8a8a8a", "#5aa469"];

/// What a panel shows: its title, its figure, its decimals.
type Panel = (&'static str, fn(&Summary) -> f64, usize);

const PANELS: [Panel; 3] = [
    ("per second", |summary| summary.per_second, 0),
    ("server CPU, microseconds each, all members", |summary| summary.server_cpu_us, 2),
    ("99th percentile, milliseconds", |summary| summary.p99_us / 1000.0, 2),
];

/// Writes `CASE.svg` for each case into the directory, which is made if it is not there.
pub(crate) fn write(directory: &Path, summaries: &[Summary]) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(Error::io(format!("make {}", directory.display())))?;
    let mut cases: Vec<&str> = summaries.iter().map(|summary| summary.case.as_str()).collect();
    cases.dedup();
    for case in cases {
        let of_case: Vec<&Summary> = summaries.iter().filter(|summary| summary.case == case).collect();
        let path = directory.join(format!("{case}.svg"));
        std::fs::write(&path, render(case, &of_case))
            .map_err(Error::io(format!("write {}", path.display())))?;
    }
    Ok(())
}

/// The picture of one case.
fn render(case: &str, summaries: &[&Summary]) -> String {
    let panel_height = PANEL_HEAD + ROW_HEIGHT * summaries.len();
    let height = 2 * MARGIN + PANEL_HEAD + panel_height * PANELS.len();
    let mut lines = head(case, height);
    for (number, panel) in PANELS.iter().enumerate() {
        let top = MARGIN + PANEL_HEAD + number * panel_height;
        lines.extend(panel_lines(panel, summaries, top));
    }
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

/// The beginning of a picture: its size, its ground, its title.
pub(super) fn head(title: &str, height: usize) -> Vec<String> {
    vec![
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">"
        ),
        format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"),
        format!(
            "<text x=\"{MARGIN}\" y=\"{}\" font-size=\"16\" font-weight=\"bold\">{}</text>",
            MARGIN + 16,
            escaped(title)
        ),
    ]
}

fn panel_lines((title, figure, decimals): &Panel, summaries: &[&Summary], top: usize) -> Vec<String> {
    let most = summaries.iter().map(|summary| figure(summary)).fold(0.0, f64::max);
    let mut lines = vec![format!("<text x=\"{MARGIN}\" y=\"{}\" fill=\"#444444\">{title}</text>", top + 18)];
    for (row, summary) in summaries.iter().enumerate() {
        let (value, y) = (figure(summary), top + PANEL_HEAD + row * ROW_HEIGHT);
        let (width, colour) = (bar_width(value, most), COLOURS[row % COLOURS.len()]);
        let baseline = y + 14;
        let mut line = format!("<text x=\"{MARGIN}\" y=\"{baseline}\">{}</text>", escaped(&summary.side));
        write!(
            line,
            "<rect x=\"{BARS_LEFT}\" y=\"{y}\" width=\"{width}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{baseline}\">{value:.decimals$}</text>",
            BARS_LEFT + width + 6
        )
        .expect("writing to a string succeeds");
        lines.push(line);
    }
    lines
}

/// In proportion to the largest, at least a line.
fn bar_width(value: f64, most: f64) -> usize {
    let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "between 0 and the width of the picture"
    )]
    let width = (share * BARS_WIDTH as f64).round() as usize;
    width.max(1)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::summaries;
    use crate::report::tests::round;

    #[test]
    fn a_picture_is_what_it_was() {
        let found = summaries(&[round("holdfast", 1, 2000), round("etcd <x> & y", 2, 1000)]);
        let drawn = render("put", &found.iter().collect::<Vec<_>>());
        assert_eq!(drawn, include_str!("golden/put.svg"), "{drawn}");
    }

    #[test]
    fn bars_are_in_proportion_and_never_vanish() {
        assert_eq!(bar_width(10.0, 10.0), BARS_WIDTH);
        assert_eq!(bar_width(5.0, 10.0), BARS_WIDTH / 2);
        assert_eq!((bar_width(0.0, 10.0), bar_width(0.0, 0.0)), (1, 1));
    }

    #[test]
    fn each_case_has_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut rounds = vec![round("a", 1, 10), round("b", 1, 20)];
        rounds.push(crate::report::Round { case: "cas".to_owned(), ..round("a", 1, 5) });
        write(&directory.path().join("new"), &summaries(&rounds)).unwrap();
        for case in ["put", "cas"] {
            let text = std::fs::read_to_string(directory.path().join(format!("new/{case}.svg"))).unwrap();
            assert!(text.contains(&format!(">{case}</text>")));
        }
    }
}
