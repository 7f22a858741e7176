//! Golden scripts: `testscripts/<area>/<case>`. Each says first what it shows, then commands and what they answer.
//! `UPDATE_GOLDENFILES=1 cargo test -p holdfast-watch --test golden` writes the answers; read each line before
//! committing it.

mod runner;

use std::path::Path;

use runner::Script;

fn run_area(area: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts").join(area);
    let mut cases: Vec<_> = std::fs::read_dir(&folder)
        .expect("the area's folder")
        .map(|case| case.expect("readable").path())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} holds no script", folder.display());
    for case in cases {
        goldenscript::run(&mut Script::new(), &case)
            .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    }
}

#[test]
fn publish() {
    run_area("publish");
}

#[test]
fn catch_up() {
    run_area("catch_up");
}

#[test]
fn progress() {
    run_area("progress");
}

#[test]
fn compact() {
    run_area("compact");
}
