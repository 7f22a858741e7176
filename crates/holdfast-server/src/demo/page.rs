//! A page of metrics in Prometheus' text format, as far as the demo reads it.

/// The lines of a page that hold values: name, labels, value.
pub(super) struct Page<'a> {
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    name: &'a str,
    /// Between the braces; empty without.
    labels: &'a str,
    value: f64,
}

impl<'a> Page<'a> {
    /// Reads a page; lines that are none of the format are left out.
    pub(super) fn parse(text: &'a str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}')?),
                None => (series, ""),
            };
            Some(Line { name, labels, value: value.parse().ok()? })
        });
        Self { lines: lines.collect() }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Line<'a>> {
        self.lines.iter().filter(move |line| line.name == name)
    }

    /// A metric without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.named(name).find(|line| line.labels.is_empty()).map(|line| line.value)
    }

    /// A metric without labels that counts.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.value(name).map(whole)
    }

    /// The sum over the series with this label.
    pub(super) fn sum(&self, name: &str, label: &str) -> u64 {
        let series = self.named(name).filter(|line| line.labels.split(',').any(|found| found == label));
        whole(series.map(|line| line.value).sum())
    }

    /// The label of the series that is 1.
    pub(super) fn label_of_one(&self, name: &str, label: &str) -> Option<&'a str> {
        let one = self.named(name).find(|line| whole(line.value) == 1)?;
        one.labels
            .split(',')
            .find_map(|part| part.strip_prefix(label)?.strip_prefix("=\"")?.strip_suffix('"'))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest u64 there is"
)]
fn whole(value: f64) -> u64 {
    value as u64
}
