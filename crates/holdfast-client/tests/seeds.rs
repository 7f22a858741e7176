//! docs/seeds.md names tests; they exist.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::path::Path;

/// The rows of docs/seeds.md: their ids, and what is said to show them.
fn rows() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("../../../docs/seeds.md").lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    let rows = cells.filter(|cells| cells[0].ends_with(|last: char| last.is_ascii_digit()));
    rows.map(|cells| (cells[0], cells[2])).collect()
}

/// The texts between backticks that name a test: path and function.
fn tests_in(cell: &str) -> Vec<(&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect()
}

#[test]
fn each_row_names_tests_that_exist_or_says_that_there_is_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (id, cell) in rows() {
        let tests = tests_in(cell);
        if tests.is_empty() && !cell.starts_with("not yet: ") {
            missing.push(format!("{id}: no test, and no reason"));
        }
        for (path, name) in tests {
            let source = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            let is_there = [" ", "\n"].iter().any(|before| source.contains(&format!("{before}fn {name}(")))
                || source.contains(&format!(" fn {name}<"));
            if !is_there {
                missing.push(format!("{id}: {path}::{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Nothing was left out, and nothing is there twice.
#[test]
fn each_row_of_a_client_is_there_once() {
    let ids: Vec<&str> = rows().into_iter().map(|(id, _)| id).collect();
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len());
    let wanted = [("CP", 1..=15), ("RS", 1..=21), ("WH", 26..=26), ("NS", 1..=9), ("AW", 3..=18)];
    for (family, numbers) in wanted {
        for number in numbers {
            let id = format!("{family}{number}");
            assert!(ids.contains(&id.as_str()), "{id} is not there");
        }
    }
}

/// RS14: what is in memory and what is on a cluster is compared, for who has to choose.
#[test]
fn rs14_the_backends_are_compared_in_the_documentation() {
    let page = include_str!("../../../docs/sdk.md");
    assert!(page.contains("| | `MemoryRepository` | `ClusterRepository` |"));
    for asked in ["outlives the process", "scales with"] {
        assert!(page.lines().any(|line| line.starts_with(&format!("| {asked} | "))), "{asked}");
    }
}
