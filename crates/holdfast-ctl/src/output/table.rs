//! Tables and sizes, in etcdctl's shapes.

/// A cell with blanks in it is no wider, where it can be broken at one.
const CELL_WIDTH_MAX: usize = 30;

/// A table, all to the right, names in the middle.
pub(crate) fn table(names: &[&str], rows: &[Vec<String>]) -> String {
    let broken_rows: Vec<Vec<String>> = rows.iter().flat_map(|row| broken(row)).collect();
    let widths: Vec<usize> = (0..names.len())
        .map(|column| {
            let cells = broken_rows.iter().map(|row| row[column].chars().count());
            // A cell that was broken takes all that it may.
            let whole = rows.iter().map(|row| row[column].chars().count().min(CELL_WIDTH_MAX));
            cells.chain(whole).chain([names[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = || {
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        format!("+{}+\n", dashes.join("+"))
    };
    let cells = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let centred = names.iter().zip(&widths).map(|(name, width)| format!("{name:^width$}"));
    let mut text = line();
    text.push_str(&cells(centred.collect()));
    text.push_str(&line());
    for row in &broken_rows {
        let row = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
        text.push_str(&cells(row.collect()));
    }
    text.push_str(&line());
    text
}

/// A row as the lines that it takes.
fn broken(row: &[String]) -> Vec<Vec<String>> {
    let cells: Vec<Vec<String>> = row.iter().map(|cell| lines(cell)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    (0..height)
        .map(|at| cells.iter().map(|cell| cell.get(at).cloned().unwrap_or_default()).collect())
        .collect()
}

/// A cell as lines of whole words: what the lines but the last leave empty, squared, is least.
fn lines(cell: &str) -> Vec<String> {
    let words: Vec<&str> = cell.split(' ').collect();
    let width = |words: &[&str]| words.iter().map(|word| word.chars().count() + 1).sum::<usize>() - 1;
    let longest = words.iter().map(|word| word.chars().count()).max().unwrap_or(0);
    let width_max = CELL_WIDTH_MAX.max(longest);
    // From each word on: the least cost, and where the next line begins.
    let mut best = vec![(0, words.len()); words.len() + 1];
    for from in (0..words.len()).rev() {
        if width(&words[from..]) > width_max {
            let fits = (from + 1..words.len()).filter(|next| width(&words[from..*next]) <= width_max);
            let costs =
                fits.map(|next| ((width_max - width(&words[from..next])).pow(2) + best[next].0, next));
            // One word always fits.
            best[from] = costs.min().unwrap_or((0, words.len()));
        }
    }
    let mut lines = Vec::new();
    let mut from = 0;
    while from < words.len() {
        let next = best[from].1;
        lines.push(words[from..next].join(" "));
        from = next;
    }
    lines
}

/// Bytes for people, as etcdctl rounds them: in thousands, one digit behind the point below ten.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut unit, mut size) = (0, 1_u64);
    while bytes / size >= 1000 && unit + 1 < UNITS.len() {
        size *= 1000;
        unit += 1;
    }
    // Rounded to tenths.
    let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        // And once more to whole ones; halves to the even one.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let is_up = rest > 5 || (rest == 5 && whole % 2 == 1);
        format!("{} {}", whole + u128::from(is_up), UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcdctl 3.5.1 prints.
    #[test]
    fn sizes_and_tables_are_etcdctls() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (20_549, "20 kB"),
            (21_500, "22 kB"),
            (1_540_096, "1.5 MB"),
            (98_304, "98 kB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        let row = ["ce0163be", "7", "16", "20 kB"].map(str::to_owned).to_vec();
        let expected = "\
+----------+----------+------------+------------+
|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE |
+----------+----------+------------+------------+
| ce0163be |        7 |         16 |      20 kB |
+----------+----------+------------+------------+
";
        assert_eq!(table(&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"], &[row]), expected);
    }

    /// What etcdctl 3.5.1 makes of an alarm in a row of `endpoint status`.
    #[test]
    fn long_cells_are_broken_at_blanks() {
        let row = ["a", "memberID:1416105970545904626 alarm:NOSPACE "].map(str::to_owned).to_vec();
        let expected = "\
+----+--------------------------------+
| ID |             ERRORS             |
+----+--------------------------------+
|  a |   memberID:1416105970545904626 |
|    |                 alarm:NOSPACE  |
+----+--------------------------------+
";
        assert_eq!(table(&["ID", "ERRORS"], &[row]), expected);
        assert_eq!(lines("aaa bb cc ddddd").len(), 1);
        assert_eq!(lines("word ".repeat(9).trim_end()).len(), 2);
        assert_eq!(lines(&"x".repeat(50)), ["x".repeat(50)]);
    }
}
