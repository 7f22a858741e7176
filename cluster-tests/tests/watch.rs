//! Watchers that come and go under faults are sent what history holds, by every law: a small run of the `watch` workload.

use std::time::Duration;

use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::judge::watch::Law;
use cluster_tests::skip::skipped;
use cluster_tests::workload::watch::report::Report;
use cluster_tests::workload::watch::writers::Load;
use cluster_tests::workload::watch::{Plan, run};
use tokio::sync::Mutex;

/// Clusters that compete for a small machine time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn small(system: System, members: usize, seed: u64) -> Report {
    let _turn = ONE_AT_A_TIME.lock().await;
    let load = Load { writers: 4, rate: 80, value_bytes_max: 300 };
    let (duration, compact_every) = (Duration::from_secs(8), Duration::from_millis(1_500));
    let plan = Plan { members, watchers: 40, duration, compact_every, load, seed };
    run(system, plan).await.expect("the cluster serves again after each fault")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_keep_the_laws() {
    skipped(
        "500 watchers under faults for 10 minutes",
        "takes 11 minutes; run: cargo run --release -p cluster-tests -- watch",
    );
    let report = small(System::holdfast(&[]).expect("a binary to test"), 3, 11).await;
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.counts.events > 0 && !report.faults.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_keeps_the_laws() {
    let report = small(System::holdfast(&[]).expect("a binary to test"), 1, 12).await;
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert!(report.counts.events > 0 && !report.faults.is_empty(), "{report}");
}

/// The control. etcd 3.5.1 tells progress before the events that it covers and below a future start, and loses deletes
/// at the compact revision, which may tear the revision or leave a gap; all else it keeps. Once in many, a killed
/// member comes back with a history of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_keeps_what_etcd_keeps() {
    let Some(etcd) = binary::etcd() else {
        return skipped(
            "the watch workload on real etcd",
            "there is no etcd; run scripts/fetch-peers or set ETCD_BIN",
        );
    };
    for seed in 11..14 {
        let report = small(System::etcd(etcd.clone(), &[]), 3, seed).await;
        println!("{report}");
        // What is known of etcd needs no further look.
        if let Some(kept) = &report.kept {
            std::fs::remove_dir_all(kept).expect("what was kept is removed");
        }
        let known = [Law::Progress, Law::Resumable, Law::Reliable, Law::Atomic];
        if report.flaws.is_empty() && report.by_law().keys().all(|law| known.contains(law)) {
            assert!(report.counts.events > 0, "{report}");
            return;
        }
    }
    panic!("no run of the control kept the laws that etcd keeps");
}
