//! What was found: figures over something that grows, and how steep they are.

use serde::{Deserialize, Serialize};

/// All curves, and where they come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// CPU, memory, kernel.
    pub(crate) machine: String,
    /// What was run.
    pub(crate) command: String,
    /// In the order they were measured.
    pub(crate) curves: Vec<Curve>,
}

/// Figures over one thing that grows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Curve {
    /// Its name, as flags and files have it.
    pub(crate) name: String,
    /// What grows, as a plural.
    pub(crate) over: String,
    /// How it was measured, in a sentence.
    pub(crate) how: String,
    /// One for each side and figure.
    pub(crate) series: Vec<Series>,
    /// What failed, and where.
    pub(crate) failures: Vec<String>,
}

/// One figure of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Who was measured.
    pub(crate) side: String,
    /// What, with its unit.
    pub(crate) figure: String,
    /// In the order of what grows.
    pub(crate) points: Vec<Point>,
}

/// One figure at one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// How much there is of what grows; not zero.
    pub(crate) at: u64,
    /// The figure, where there is one.
    pub(crate) figure: Option<f64>,
}

/// How steep a series is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slope {
    /// Where it begins and ends: the first and the last known figure.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The last figure divided by the first.
    pub(crate) ratio: f64,
    /// By how much it is multiplied where what grows is multiplied by ten.
    pub(crate) per_decade: f64,
}

impl Curve {
    /// Without figures.
    pub(crate) fn new(name: &str, over: &str, how: &str) -> Self {
        let (name, over, how) = (name.to_owned(), over.to_owned(), how.to_owned());
        Self { name, over, how, series: Vec::new(), failures: Vec::new() }
    }

    /// Adds a figure of a side at a size.
    pub(crate) fn add(&mut self, side: &str, figure: &str, point: Point) {
        let is_it = |series: &&mut Series| series.side == side && series.figure == figure;
        match self.series.iter_mut().find(is_it) {
            Some(series) => series.points.push(point),
            None => self.series.push(Series {
                side: side.to_owned(),
                figure: figure.to_owned(),
                points: vec![point],
            }),
        }
    }

    /// The sides, in the order in which they came.
    pub(crate) fn sides(&self) -> Vec<&str> {
        distinct(self.series.iter().map(|series| series.side.as_str()))
    }

    /// The figures, in the order in which they came.
    pub(crate) fn figures(&self) -> Vec<&str> {
        distinct(self.series.iter().map(|series| series.figure.as_str()))
    }

    /// The series of a side and figure.
    pub(crate) fn find(&self, side: &str, figure: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.side == side && series.figure == figure)
    }
}

fn distinct<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

impl Point {
    /// A figure that is known.
    pub(crate) fn known(at: u64, figure: f64) -> Self {
        Self { at, figure: Some(figure) }
    }
}

impl Series {
    /// How steep it is; `None` with fewer than two figures above zero at different sizes.
    pub(crate) fn slope(&self) -> Option<Slope> {
        let known = |point: &Point| Some((point.at, point.figure.filter(|figure| *figure > 0.0)?));
        let (from, first) = self.points.iter().find_map(known)?;
        let (to, last) = self.points.iter().rev().find_map(known)?;
        let decades = (float(to) / float(from.max(1))).log10();
        let ratio = last / first;
        (decades > 0.0).then(|| Slope { from, to, ratio, per_decade: ratio.powf(1.0 / decades) })
    }

    /// The last figure, and its size.
    pub(crate) fn last(&self) -> Option<(u64, f64)> {
        self.points.iter().rev().find_map(|point| Some((point.at, point.figure?)))
    }
}

/// A figure for people.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// The sizes from `first` to `last`, each `step` times the one before; `last` is among them.
pub(crate) fn sizes(first: u64, last: u64, step: u64) -> Vec<u64> {
    let mut found = Vec::new();
    let mut size = first;
    while size < last {
        found.push(size);
        size = size.saturating_mul(step.max(2));
    }
    found.push(last);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: &[(u64, Option<f64>)]) -> Series {
        let points = points.iter().map(|(at, figure)| Point { at: *at, figure: *figure }).collect();
        Series { side: "holdfast".to_owned(), figure: "CPU".to_owned(), points }
    }

    #[test]
    fn a_slope_is_of_the_ends_and_of_a_decade() {
        let slope = series(&[(10, Some(2.0)), (100, Some(90.0)), (1000, Some(8.0))]).slope().unwrap();
        assert_eq!((slope.from, slope.to), (10, 1000));
        assert!((slope.ratio - 4.0).abs() < 1e-9 && (slope.per_decade - 2.0).abs() < 1e-9, "{slope:?}");
        let slope =
            series(&[(10, None), (100, Some(3.0)), (1000, Some(3.0)), (10_000, None)]).slope().unwrap();
        assert_eq!((slope.from, slope.to), (100, 1000));
        assert!((slope.per_decade - 1.0).abs() < 1e-9);
        assert_eq!(series(&[]).slope(), None);
        assert_eq!(series(&[(10, Some(2.0))]).slope(), None);
        assert_eq!(series(&[(10, Some(0.0)), (100, Some(1.0))]).slope(), None, "nothing is no base");
    }

    #[test]
    fn figures_are_kept_by_side() {
        let mut curve = Curve::new("keys", "keys", "");
        for (side, at) in [("a", 1), ("a", 10), ("b", 1)] {
            curve.add(side, "CPU", Point::known(at, float(at)));
            curve.add(side, "memory", Point { at, figure: None });
        }
        assert_eq!((curve.sides(), curve.figures()), (vec!["a", "b"], vec!["CPU", "memory"]));
        assert_eq!(curve.find("a", "CPU").unwrap().last(), Some((10, 10.0)));
        assert_eq!(curve.find("b", "memory").unwrap().last(), None);
        assert_eq!(curve.find("c", "CPU"), None);
    }

    #[test]
    fn sizes_reach_the_last() {
        assert_eq!(sizes(10, 1000, 10), [10, 100, 1000]);
        assert_eq!(sizes(10, 5000, 10), [10, 100, 1000, 5000]);
        assert_eq!(sizes(100, 50, 10), [50], "never beyond what is allowed");
    }
}
