//! Members die at a few of the named points, on both engines that keep data on disk: a small run of the `crash` workload.

use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use cluster_tests::workload::crash::points::Point;
use cluster_tests::workload::crash::{Plan, Round, run};
use cluster_tests::workload::watch::report::Report;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn small(engine: &str, points: &[&str], seed: u64) -> Round {
    let _turn = ONE_AT_A_TIME.lock().await;
    let points = points.iter().map(|name| Point::named(name).expect("a point of the table")).collect();
    let plan = Plan { engine: engine.to_owned(), points, watchers: 12, rate: 60, seed };
    run(System::holdfast(&[]).expect("a binary to test"), plan, drop).await.expect("a cluster starts")
}

fn assert_clean(round: &Round, deaths: usize) {
    let broken: Vec<String> = round.broken.iter().map(ToString::to_string).collect();
    let watched = round.watched.as_ref().map(ToString::to_string).unwrap_or_default();
    let is_judged = round.watched.as_ref().is_some_and(Report::is_clean);
    assert!(broken.is_empty() && is_judged, "{}\n{watched}", broken.join("\n"));
    assert_eq!(round.deaths.len(), deaths, "not reached: {:?}", round.missed);
    assert!(round.looks > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_sled_come_back_from_crash_points() {
    skipped(
        "every crash point 10 times on each engine",
        "takes half an hour; run: cargo run -p cluster-tests -- crash",
    );
    let round = small("sled", &["apply.after_commit", "dump.write.block_n", "install.gen_written"], 21).await;
    assert_clean(&round, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_on_redb_come_back_from_crash_points() {
    let round = small("redb", &["commit.mid_batch", "merge.mid", "purge.marked"], 22).await;
    assert_clean(&round, 3);
}
