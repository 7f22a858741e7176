//! A curve as a picture: a panel for each figure, a line for each side, what grows along a logarithmic axis. Plain SVG
//! text, as for the bars.

use std::path::Path;

use super::svg::{COLOURS, MARGIN, WIDTH, escaped, head};
use crate::error::Error;
use crate::growth::curve::{Curve, Series, float};

const TITLE_HEIGHT: usize = 28;
const LEGEND_HEIGHT: usize = 22;
/// Of a panel: its title, the lines, what stands below the axis, and room to the next.
const PANEL_TITLE: usize = 26;
const PLOT_HEIGHT: usize = 120;
const BELOW: usize = 34;
const PANEL_HEIGHT: usize = PANEL_TITLE + PLOT_HEIGHT + BELOW;
/// Figures of the axis stand left of it.
const LEFT: usize = 80;
const RIGHT: usize = WIDTH - 30;

/// The file's name of a curve.
pub(crate) fn file_name(curve: &str) -> String {
    format!("growth-{curve}.svg")
}

/// Writes `growth-CURVE.svg` for each curve into the directory, which is made if it is not there.
pub(crate) fn write(directory: &Path, curves: &[Curve]) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(Error::io(format!("make {}", directory.display())))?;
    for curve in curves {
        let path = directory.join(file_name(&curve.name));
        std::fs::write(&path, render(curve)).map_err(Error::io(format!("write {}", path.display())))?;
    }
    Ok(())
}

fn render(curve: &Curve) -> String {
    let (figures, sides) = (curve.figures(), curve.sides());
    let top = MARGIN + TITLE_HEIGHT + LEGEND_HEIGHT;
    let height = top + figures.len() * PANEL_HEIGHT + MARGIN;
    let mut lines = head(&format!("over {}", curve.over), height);
    for (number, side) in sides.iter().enumerate() {
        lines.push(legend(number, side));
    }
    for (number, figure) in figures.iter().enumerate() {
        lines.extend(panel(curve, figure, top + number * PANEL_HEIGHT));
    }
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

fn colour(number: usize) -> &'static str {
    COLOURS[number % COLOURS.len()]
}

fn legend(number: usize, side: &str) -> String {
    let (x, y) = (MARGIN + number * 150, MARGIN + TITLE_HEIGHT);
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
        colour(number),
        x + 18,
        y + 11,
        escaped(side)
    )
}

/// Where a point of a panel lies.
struct Scale {
    /// Of what grows.
    from: f64,
    to: f64,
    /// The largest figure; the smallest shown is zero.
    most: f64,
    top: usize,
}

impl Scale {
    /// Of one figure; what grows is on the same axis in all panels.
    fn of(curve: &Curve, all: &[&Series], top: usize) -> Self {
        let sizes = || curve.series.iter().flat_map(|one| &one.points).map(|point| float(point.at.max(1)));
        let figures = all.iter().flat_map(|one| &one.points).filter_map(|point| point.figure);
        Self {
            from: sizes().fold(f64::INFINITY, f64::min),
            to: sizes().fold(1.0, f64::max),
            most: figures.fold(0.0, f64::max),
            top,
        }
    }

    fn x(&self, at: u64) -> f64 {
        let decades = (self.to / self.from).log10();
        let share = if decades > 0.0 { (float(at.max(1)) / self.from).log10() / decades } else { 0.5 };
        float(LEFT as u64) + share * float((RIGHT - LEFT) as u64)
    }

    fn y(&self, figure: f64) -> f64 {
        let share = if self.most > 0.0 { (figure / self.most).clamp(0.0, 1.0) } else { 0.0 };
        float((self.top + PANEL_TITLE + PLOT_HEIGHT) as u64) - share * float(PLOT_HEIGHT as u64)
    }
}

fn panel(curve: &Curve, figure: &str, top: usize) -> Vec<String> {
    let all: Vec<&Series> = curve.series.iter().filter(|series| series.figure == figure).collect();
    let scale = Scale::of(curve, &all, top);
    let mut lines =
        vec![format!("<text x=\"{MARGIN}\" y=\"{}\" fill=\"#444444\">{}</text>", top + 14, escaped(figure))];
    let shares: &[f64] = if scale.most > 0.0 { &[0.0, 0.5, 1.0] } else { &[0.0] };
    for share in shares {
        lines.push(rule(&scale, share * scale.most));
    }
    let mut sizes: Vec<u64> = all.iter().flat_map(|one| one.points.iter().map(|point| point.at)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let below = top + PANEL_TITLE + PLOT_HEIGHT + 16;
    for size in sizes {
        let x = scale.x(size);
        lines.push(format!(
            "<text x=\"{x:.1}\" y=\"{below}\" font-size=\"11\" text-anchor=\"middle\">{}</text>",
            short(size)
        ));
    }
    let sides = curve.sides();
    for series in all {
        let number = sides.iter().position(|side| *side == series.side).unwrap_or(0);
        lines.extend(line(&scale, series, colour(number)));
    }
    lines
}

/// A line across, with its figure in front.
fn rule(scale: &Scale, figure: f64) -> String {
    let y = scale.y(figure);
    format!(
        "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
         <text x=\"{}\" y=\"{:.1}\" font-size=\"11\" text-anchor=\"end\">{}</text>",
        LEFT - 8,
        y + 4.0,
        readable(figure)
    )
}

fn line(scale: &Scale, series: &Series, colour: &str) -> Vec<String> {
    let known = series.points.iter().filter_map(|point| Some((scale.x(point.at), scale.y(point.figure?))));
    let known: Vec<(f64, f64)> = known.collect();
    if known.is_empty() {
        return Vec::new();
    }
    let path: Vec<String> = known.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut lines = vec![format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    )];
    lines.extend(
        known.iter().map(|(x, y)| format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")),
    );
    lines
}

/// A size as short as it can be without loss.
fn short(size: u64) -> String {
    match size {
        0 => "0".to_owned(),
        millions if millions % 1_000_000 == 0 => format!("{}M", millions / 1_000_000),
        thousands if thousands % 1000 == 0 => format!("{}k", thousands / 1000),
        other => other.to_string(),
    }
}

/// A figure with three or four digits that matter.
pub(crate) fn readable(figure: f64) -> String {
    let decimals = match figure.abs() {
        large if large >= 1000.0 => 0,
        medium if medium >= 100.0 => 1,
        small if small >= 1.0 || small <= 0.0 => 2,
        _ => 4,
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::curve::Point;

    fn curve() -> Curve {
        let mut curve = Curve::new("keys", "keys", "");
        for (at, figure) in [(10_000, 40.0), (1_000_000, 80.0)] {
            curve.add("holdfast", "CPU <us>", Point::known(at, figure));
            curve.add("etcd", "CPU <us>", Point::known(at, 2.0 * figure));
        }
        curve.add("holdfast", "memory", Point { at: 10_000, figure: None });
        curve
    }

    #[test]
    fn a_picture_is_what_it_was() {
        let drawn = render(&curve());
        assert_eq!(drawn, include_str!("golden/growth.svg"), "{drawn}");
    }

    #[test]
    fn what_grows_is_on_a_logarithmic_axis_and_figures_begin_at_zero() {
        let curve = curve();
        let all: Vec<&Series> = curve.series.iter().filter(|series| series.figure == "CPU <us>").collect();
        let scale = Scale::of(&curve, &all, 0);
        let middle = f64::midpoint(scale.x(10_000), scale.x(1_000_000));
        assert!((scale.x(100_000) - middle).abs() < 1e-6);
        assert!((scale.y(0.0) - scale.y(160.0) - float(PLOT_HEIGHT as u64)).abs() < 1e-6);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0, 16, 4096, 5000, 10_000_000].map(short), ["0", "16", "4096", "5k", "10M"]);
        assert_eq!(
            [0.0, 0.0123, 5.0, 123.45, 12_345.6].map(readable),
            ["0.00", "0.0123", "5.00", "123.5", "12346"]
        );
    }

    #[test]
    fn each_curve_has_its_file() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("new"), &[curve()]).unwrap();
        assert!(directory.path().join("new/growth-keys.svg").is_file());
    }
}
