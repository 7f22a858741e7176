//! Every fault once, all workloads at once, three members: the short form of the `run` workload.

use std::time::Duration;

use cluster_tests::harness::cluster::System;
use cluster_tests::nemesis::{FAULTS, Fault};
use cluster_tests::skip::skipped;
use cluster_tests::workload::chaos::{Minimum, Plan, WORKLOADS, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_once_and_nothing_is_found() {
    skipped(
        "every fault at least five times, on three and on five members",
        "takes 15 minutes each; run: cargo run --release -p cluster-tests -- run --nodes 5 --duration 15m",
    );
    let plan = Plan {
        members: 3,
        faults: FAULTS.iter().map(|(fault, ..)| *fault).collect::<Vec<Fault>>(),
        workloads: WORKLOADS.iter().map(|(workload, _)| *workload).collect(),
        duration: Duration::from_secs(120),
        length: Duration::from_millis(200)..=Duration::from_millis(700),
        rounds: Some(1),
        rate: 120,
        watchers: 16,
        other_binary: None,
        minimum: Minimum { operations: 1_000, faults: 0 },
        seed: 7,
    };
    let system = System::holdfast(&[]).expect("a binary to test");
    let report = run(system, plan, |line| println!("{line}")).await.expect("the cluster starts");
    println!("{report}");
    assert!(report.findings.is_empty() && report.void().is_empty(), "{report}");
    // All of them, unless the machine is so busy that the time is over before.
    assert!(report.incidents.len() >= FAULTS.len() / 4, "{report}");
}
