//! The lists as a table: one row per list.

use std::fmt::Write;

use super::{Listed, Side, Way};

/// One list, in words.
pub(super) fn line(listed: &Listed) -> String {
    format!(
        "{} {}, {} keys in {:.1?}, CPU {:.1?}, resident {} MiB before, {} more at most, {} more behind it",
        temperature(listed),
        way(listed),
        listed.keys,
        listed.took,
        listed.cpu,
        tenths(listed.before),
        tenths(listed.peak.saturating_sub(listed.before)),
        tenths(listed.after.saturating_sub(listed.before)),
    )
}

/// The table. Sizes in MiB.
pub(crate) fn render(sides: &[Side]) -> String {
    let mut text = String::from(
        "| system | list | keys | seconds | server CPU seconds | resident before | more at most | more behind it |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for side in sides {
        for listed in &side.lists {
            writeln!(
                text,
                "| {} | {}, {} | {} | {:.1} | {:.1} | {} | {} | {} |",
                side.name,
                way(listed),
                temperature(listed),
                listed.keys,
                listed.took.as_secs_f64(),
                listed.cpu.as_secs_f64(),
                tenths(listed.before),
                tenths(listed.peak.saturating_sub(listed.before)),
                tenths(listed.after.saturating_sub(listed.before)),
            )
            .expect("writing to a string");
        }
    }
    text
}

fn way(listed: &Listed) -> &'static str {
    match listed.way {
        Way::Pages => "pages",
        Way::Stream => "stream",
    }
}

fn temperature(listed: &Listed) -> &'static str {
    if listed.is_cold { "cold" } else { "warm" }
}

/// MiB with one digit behind the point.
fn tenths(bytes: u64) -> String {
    let tenths = (bytes * 10 + (1 << 19)) >> 20;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_list_has_a_row_with_what_it_added() {
        let listed = Listed {
            way: Way::Stream,
            is_cold: true,
            keys: 7,
            took: Duration::from_millis(1500),
            cpu: Duration::from_millis(900),
            before: 100 << 20,
            peak: (112 << 20) + (1 << 19),
            after: 99 << 20,
        };
        let table = render(&[Side { name: "holdfast", lists: vec![listed] }]);
        assert!(
            table.ends_with("| holdfast | stream, cold | 7 | 1.5 | 0.9 | 100.0 | 12.5 | 0.0 |\n"),
            "{table}"
        );
    }
}
