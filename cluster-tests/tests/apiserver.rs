//! kube-apiserver's calls on real processes whose leader is killed, in short; `cluster-tests apiserver` is the long run.

use std::time::Duration;

use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use cluster_tests::workload::apiserver::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_api_servers_keep_what_they_are_promised() {
    skipped(
        "API servers under kills for 5 minutes",
        "takes 6 minutes; run: cargo run --release -p cluster-tests -- apiserver",
    );
    let plan = Plan {
        duration: Duration::from_secs(20),
        writers: 2,
        compact_every: Duration::from_millis(1_500),
        seed: 7,
    };
    let report = run(System::holdfast(&[]).expect("a binary to test"), plan).await;
    let report = report.expect("the cluster serves again after each kill");
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    // A run in which nothing happened would be clean, too.
    let (pages, streams, _) = report.lists;
    assert!(report.kills > 0 && pages > 0 && streams > 0 && report.reads > 0, "{report}");
    assert!(report.swaps.0 > 0 && report.swaps.1 > 0 && report.turns.0 > 1, "{report}");
    assert!(report.watched.events > 0 && report.watched.stream_progress > 0, "{report}");
}
