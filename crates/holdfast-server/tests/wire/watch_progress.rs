//! Progress: on request and from time to time, and never more than what was told.

use std::time::Duration;

use crate::common::*;
use crate::watching::*;
use holdfast_proto::etcdserverpb as pb;
use holdfast_server::limits;
use holdfast_testserver::TestCluster;

async fn single(flags: &[&str]) -> (TestCluster, Kv, Watching) {
    let cluster = TestCluster::start(1, flags).await.unwrap();
    let kv = kv(&cluster.endpoint(0));
    let watching = Watching::open(&cluster.endpoint(0)).await;
    (cluster, kv, watching)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_with_what_was_written_before_it() {
    let (cluster, mut kv, mut watching) = single(&[]).await;
    assert_eq!(watching.progress().await, (vec![], 1), "without watchers nothing was missed");
    watching.create(watcher("a", "")).await;
    for n in 2..30 {
        assert_eq!(put(&mut kv, "elsewhere", "").await, n);
        // Once: the answer to a request behind an acknowledged write covers the write.
        watching.ask_progress().await;
        let answer = watching.next().await;
        assert!(is_progress(&answer), "{answer:?}");
        assert_eq!((answer.watch_id, revision(&answer)), (-1, n));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_behind_the_events_it_speaks_of() {
    let (cluster, mut kv, _) = single(&[]).await;
    let endpoint = cluster.endpoint(0);
    let writer = tokio::spawn(async move {
        for _ in 0..600 {
            put(&mut kv, "k", "").await;
        }
    });
    let mut watching = Watching::open(&endpoint).await;
    watching.create(from(2, watcher("k", ""))).await;
    let mut seen = 1;
    while seen < 601 {
        watching.ask_progress().await;
        let answer = watching.next().await;
        if is_progress(&answer) {
            assert!(revision(&answer) <= seen, "progress {} behind event {seen}", revision(&answer));
            assert!(revision(&answer) >= seen, "and it does not go back: {} {seen}", revision(&answer));
        }
        for event in revisions(&answer.events) {
            assert_eq!(event, seen + 1);
            seen = event;
        }
    }
    writer.await.unwrap();
    cluster.stop().await;
}

/// While one watcher of a stream still reads history, nobody is told that the stream has seen all.
#[tokio::test(flavor = "multi_thread")]
async fn progress_waits_for_those_who_read_history() {
    let (cluster, mut kv, mut watching) = single(&[]).await;
    let puts = i64::try_from(limits::TXN_OPS_MAX).unwrap();
    let value = "x".repeat(1000);
    for round in 0..40 {
        let ops = (0..puts).map(|n| op_put(&format!("k/{round}/{n}"), &value)).collect();
        kv.txn(txn(ops)).await.unwrap();
    }
    watching.create(watcher("elsewhere", "")).await;
    watching.create(from(2, watcher("k/", "k0"))).await;
    let (mut seen, mut told) = (1, false);
    while !told {
        watching.ask_progress().await;
        let answer = watching.next().await;
        if is_progress(&answer) {
            assert!(revision(&answer) <= seen, "progress {} behind event {seen}", revision(&answer));
            told = true;
        }
        seen = revisions(&answer.events).last().copied().unwrap_or(seen);
    }
    assert_eq!(seen, 41, "then all of it was told");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_watchers_are_told_from_time_to_time() {
    let (cluster, mut kv, mut watching) = single(&["--watch-progress-notify-interval=200ms"]).await;
    let progress_notify = true;
    let idle = watching.create(pb::WatchCreateRequest { progress_notify, ..watcher("idle", "") }).await;
    watching.create(watcher("silent", "")).await;
    let future = pb::WatchCreateRequest { progress_notify, ..from(1_000, watcher("idle", "")) };
    watching.create(future).await;
    let began = tokio::time::Instant::now();
    for round in 0..3 {
        let last = put(&mut kv, "elsewhere", "").await;
        // The one that comes may have been on its way before the put.
        let mut told = 0;
        while told < last {
            let answer = watching.next().await;
            assert!(is_progress(&answer), "{answer:?}");
            assert_eq!(answer.watch_id, idle.watch_id, "only who asked, and is not waiting for the future");
            assert!(revision(&answer) >= told, "round {round}");
            told = revision(&answer);
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "not before its time");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interval_has_etcds_older_name_too() {
    let (cluster, _, mut watching) = single(&["--experimental-watch-progress-notify-interval=100ms"]).await;
    watching.create(pb::WatchCreateRequest { progress_notify: true, ..watcher("idle", "") }).await;
    assert!(is_progress(&watching.next().await));
    cluster.stop().await;
}
