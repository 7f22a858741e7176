//! Golden scripts: `testscripts/<area>/<case>`. Each says first what it shows, then commands and what they answer.
//! `UPDATE_GOLDENFILES=1 cargo test -p holdfast-mvcc --test golden` writes the answers; read each line before
//! committing it.

mod runner;
mod syntax;

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
fn kv() {
    run_area("kv");
}

#[test]
fn txn() {
    run_area("txn");
}

#[test]
fn compact() {
    run_area("compact");
}

#[test]
fn restart() {
    run_area("restart");
}

#[test]
fn lease() {
    run_area("lease");
}

#[test]
fn contract() {
    run_area("contract");
}
