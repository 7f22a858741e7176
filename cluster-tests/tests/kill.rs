//! Acknowledged puts survive SIGKILL of the leader, twice, and of all members: a small run of the `kill` workload.

use std::time::Duration;

use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use cluster_tests::workload::kill::{Plan, Report, run};
use cluster_tests::workload::writers::Load;

const PUTS: u64 = 2_000;

async fn small(system: System, random_kills: usize) -> anyhow::Result<Report> {
    let load = Load { writers: 16, value_bytes: 128, timeout: Duration::from_secs(3), seed: 7 };
    let plan = Plan { members: 3, puts: PUTS, random_kills, load, down: Duration::from_millis(500) };
    run(system, plan).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_puts_survive_kills() {
    skipped("100,000 puts under SIGKILL", "takes minutes; run: cargo run --release -p cluster-tests -- kill");
    let system = System::holdfast(&[]).expect("a binary to test");
    let report = small(system, 0).await.expect("the cluster serves again after each kill");
    println!("{report}");
    assert!(report.counts.acked >= PUTS);
    assert_eq!(report.kills.len(), 3);
    assert!(report.verdict.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_puts_survive_kills_at_random_moments() {
    skipped(
        "100 kills at random moments on each engine",
        "takes minutes; run: cargo run --release -p cluster-tests -- kill --kills 100 --member-flag=--engine=redb",
    );
    let system = System::holdfast(&["--engine=redb".to_owned()]).expect("a binary to test");
    let report = small(system, 8).await.expect("the cluster serves again after each kill");
    println!("{report}");
    assert_eq!(report.kills.len(), 8);
    assert!(report.counts.acked > 0 && report.verdict.is_clean(), "{report}");
}

/// How often the control may be tried.
const CONTROL_TRIES: usize = 3;

/// The control: what the judges call clean must be what a store that is known to be right does. etcd 3.5.1 is, but for
/// what looks like its issue 13766: a member killed under load may come back with a revision of its own, and stay so.
/// The judges see that; one clean run of a few shows what the control is here for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_passes_too() {
    let Some(etcd) = binary::etcd() else {
        return skipped(
            "the kill workload on real etcd",
            "there is no etcd; run scripts/fetch-peers or set ETCD_BIN",
        );
    };
    for attempt in 1..=CONTROL_TRIES {
        match small(System::etcd(etcd.clone(), &[]), 0).await {
            Ok(report) if report.verdict.is_clean() => return println!("{report}"),
            Ok(report) => println!("try {attempt}: {report}"),
            Err(error) => println!("try {attempt}: {error:#}"),
        }
    }
    panic!("no run of the control was clean");
}
