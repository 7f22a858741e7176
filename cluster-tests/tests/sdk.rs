//! The SDK in a process of its own, on a cluster that is broken: small runs of the `sdk` and `collector` workloads.

use std::time::Duration;

use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use cluster_tests::workload::collector;
use cluster_tests::workload::sdk::{Plan, run};
use cluster_tests::workload::watch::writers::Load;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn informers_watches_and_locks_keep_what_they_promise() {
    skipped(
        "20 informers and 200 watches under faults for 10 minutes",
        "takes 12 minutes; run: cargo run --release -p cluster-tests -- sdk",
    );
    let _turn = ONE_AT_A_TIME.lock().await;
    let plan = Plan {
        duration: Duration::from_secs(20),
        informers: 5,
        watches: 40,
        sessions: 3,
        load: Load { writers: 3, rate: 40, value_bytes_max: 200 },
        compact_every: Duration::from_millis(2_000),
        seed: 5,
    };
    let report = run(System::holdfast(&[]).expect("a binary to test"), plan).await;
    let report = report.expect("the cluster serves again after each fault");
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    // A run in which nothing happened would be clean, too.
    assert!(!report.blows.is_empty() && report.compactions > 0, "{report}");
    assert!(report.watches.changes > 0 && report.informers.changes > 0 && report.samples > 0, "{report}");
    assert!(report.locks.held > 1 && report.locks.facts > 0 && report.locks.looks > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_keeps_the_newest_and_tells_each_version_once() {
    skipped(
        "a collector of three sources with 100,000 objects each for 10 minutes",
        "takes 15 minutes; run: cargo run --release -p cluster-tests -- collector --objects 100000",
    );
    let _turn = ONE_AT_A_TIME.lock().await;
    let plan = collector::Plan {
        duration: Duration::from_secs(20),
        objects: 200,
        rate: 60,
        direct_rate: 20,
        seed: 6,
    };
    let report = collector::run(System::holdfast(&[]).expect("a binary to test"), plan).await;
    let report = report.expect("the cluster serves again after each fault");
    println!("{report}");
    assert!(report.findings.is_empty(), "{report}");
    assert!(!report.troubles.is_empty() && report.tally.puts > 600 && report.raced.applied > 0, "{report}");
}
