//! The program from end to end, against the empty server alone: that is always there, and costs little.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-bench")).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_comparison_measures_prints_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (data, json, svg) =
        (directory.path().join("data"), directory.path().join("r.json"), directory.path().join("svg"));
    std::fs::create_dir(&data).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let output = bench(&[
        "compare",
        "--system=ceiling",
        "--case=put,get-linearizable,connections,watch-fanout",
        "--watchers=20",
        "--watchers-per-stream=3",
        "--watch-rate=100",
        "--rounds=2",
        "--duration=200ms",
        "--warm-up=0s",
        "--clients=8",
        "--idle-connections=20",
        &format!("--data-parent={}", path(&data)),
        &format!("--json={}", path(&json)),
        &format!("--svg={}", path(&svg)),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for case in [
        "put, per operation",
        "get-linearizable, per operation",
        "connections, per connection",
        "watch-fanout, per event",
    ] {
        assert!(table.contains(case), "{case} is not in\n{table}");
    }
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 8);
    for round in rounds {
        assert!(round["units"].as_u64().unwrap() > 0, "{round}");
        assert_eq!(round["failures"], 0, "{round}");
        assert!(round["latency"]["p50_us"].as_u64().unwrap() > 0, "{round}");
    }
    assert_eq!(rounds[4]["units"], 20);
    assert_eq!(rounds[6]["units"], 20 * rounds[6]["puts"].as_u64().unwrap(), "every watcher has every event");
    for case in ["put", "get-linearizable", "connections", "watch-fanout"] {
        assert!(svg.join(format!("{case}.svg")).is_file(), "{case}");
    }
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "directories of servers are left");
}

#[test]
fn a_program_that_is_not_there_is_said_before_anything_is_started() {
    let output = bench(&["compare", "--system=ceiling,holdfast", "--holdfast=/no/such/program"]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("/no/such/program is not there: cargo build --release"), "{said}");
    assert!(!said.contains("starting"), "{said}");
}

#[test]
fn servers_that_nobody_runs_are_an_error() {
    // Port 1 of loopback: nothing listens there.
    let output = bench(&["load", "put", "--endpoints=127.0.0.1:1", "--duration=1s"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("cannot connect to 127.0.0.1:1"), "{}", text(&output.stderr));
}

#[test]
fn an_interrupted_comparison_leaves_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let parent = format!("--data-parent={}", data.path().display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast-bench"))
        .args(["compare", "--system=ceiling", "--case=put", "--duration=1h", "--warm-up=0s", &parent])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "put: starting ceiling\n");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(data.path()).unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "no server was started");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "it ends by itself, and says that it failed");
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "holdfast-bench: interrupted\n");
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "directories of servers are left");
}

#[test]
fn a_footprint_of_nothing_is_refused() {
    let output = bench(&["footprint", "--system=ceiling"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("the empty server stores nothing"), "{}", text(&output.stderr));
}

#[test]
fn curves_of_nothing_are_refused() {
    let output = bench(&["growth", "--system=ceiling"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("nothing grows in it"), "{}", text(&output.stderr));
}
