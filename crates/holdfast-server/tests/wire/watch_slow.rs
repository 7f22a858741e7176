//! Streams that are not read, and streams with many watchers: bounded, and nobody else's problem.

use crate::common::*;
use crate::watching::*;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;

/// A queue of 64 KiB for each stream.
const SMALL: [&str; 1] = ["--watch-stream-bytes=65536"];

/// The value of a metric.
async fn metric(url: &str, name: &str) -> i64 {
    let (_, page) = http_get(url, "/metrics").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

/// Waits until a metric is as wanted.
async fn metric_until(url: &str, name: &str, wanted: impl Fn(i64) -> bool) -> i64 {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let value = metric(url, name).await;
        if wanted(value) {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} stays at {value}");
        tokio::task::yield_now().await;
    }
}

async fn write(kv: &mut Kv, count: usize, bytes: usize) {
    let value = "x".repeat(bytes);
    for n in 0..count {
        put(kv, &format!("k{n:04}"), &value).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_is_bounded_and_catches_up_later() {
    let cluster = TestCluster::start(1, &SMALL).await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    let mut unread = Watching::open_narrow(&url).await;
    for _ in 0..20 {
        unread.create(watcher("k", "l")).await;
    }
    let mut read = Watching::open(&url).await;
    read.create(watcher("k", "l")).await;
    let reader = tokio::spawn(async move {
        let events = read.events(300).await;
        (read, events)
    });
    write(&mut kv, 300, 2_000).await;
    let (mut read, events) = reader.await.unwrap();
    assert_eq!(revisions(&events), (2..=301).collect::<Vec<_>>(), "the others get everything");
    // 20 watchers of 600 kB each, were they kept.
    let queued = metric(&url, "holdfast_watch_queued_bytes").await;
    assert!(queued <= 65_536, "{queued} bytes are queued");
    assert!(metric(&url, "holdfast_watch_refusals_total").await > 0);
    let lagging = metric(&url, "etcd_debugging_mvcc_slow_watcher_total").await;
    assert!(lagging > 0, "watchers have become cursors");
    assert!(metric(&url, "holdfast_watch_lag_revisions").await > 0);
    let mut seen = vec![Vec::new(); 20];
    while seen.iter().any(|events| events.len() < 300) {
        let answer = unread.next().await;
        assert!(!answer.canceled);
        seen[usize::try_from(answer.watch_id).unwrap()].extend(revisions(&answer.events));
    }
    for (watcher, events) in seen.iter().enumerate() {
        assert_eq!(*events, (2..=301).collect::<Vec<_>>(), "watcher {watcher}");
    }
    assert!(metric(&url, "holdfast_watch_catch_up_reads_total").await > 0);
    assert_eq!(unread.progress().await, (vec![], 301));
    nothing_more(&mut read).await;
    metric_until(&url, "etcd_debugging_mvcc_slow_watcher_total", |lagging| lagging == 0).await;
    assert_eq!(metric(&url, "holdfast_watch_lag_revisions").await, 0);
    assert_eq!(metric(&url, "etcd_debugging_mvcc_pending_events_total").await, 0);
    assert_eq!(metric(&url, "etcd_debugging_mvcc_events_total").await, 21 * 300);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_compaction_cancels_a_watcher_that_is_behind() {
    let cluster = TestCluster::start(1, &SMALL).await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    let mut unread = Watching::open_narrow(&url).await;
    unread.create(watcher("k", "l")).await;
    write(&mut kv, 300, 2_000).await;
    kv.compact(pb::CompactionRequest { revision: 290, physical: true }).await.unwrap();
    let mut events = Vec::new();
    let canceled = loop {
        let answer = unread.next().await;
        if answer.canceled {
            break answer;
        }
        events.extend(revisions(&answer.events));
    };
    assert_eq!((canceled.watch_id, canceled.compact_revision, revision(&canceled)), (0, 290, 0));
    assert!(events.len() < 288, "it was behind");
    assert_eq!(
        events,
        (2..2 + i64::try_from(events.len()).unwrap()).collect::<Vec<_>>(),
        "and missed nothing"
    );
    unread.create(from(290, watcher("k", "l"))).await;
    assert_eq!(revisions(&unread.events(12).await), (290..=301).collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_larger_than_the_queue_gets_through() {
    let cluster = TestCluster::start(1, &SMALL).await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    let mut watching = Watching::open(&cluster.endpoint(0)).await;
    watching.create(watcher("k", "l")).await;
    watching.create(watcher("k", "l")).await;
    write(&mut kv, 3, 500_000).await;
    let mut seen = [Vec::new(), Vec::new()];
    while seen.iter().any(|events| events.len() < 3) {
        let answer = watching.next().await;
        seen[usize::try_from(answer.watch_id).unwrap()].extend(revisions(&answer.events));
    }
    assert_eq!(seen, [vec![2, 3, 4], vec![2, 3, 4]]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_share_a_stream_and_go_with_it() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    let mut watching = Watching::open(&url).await;
    const WATCHERS: usize = 2_000;
    let ask = watching.ask.clone();
    let creating = tokio::spawn(async move {
        for n in 0..WATCHERS {
            let create = watcher(&format!("k{:02}", n % 100), "");
            ask.send(request(pb::watch_request::RequestUnion::CreateRequest(create))).await.unwrap();
        }
    });
    for n in 0..WATCHERS {
        assert_eq!(watching.next().await.watch_id, i64::try_from(n).unwrap());
    }
    creating.await.unwrap();
    put(&mut kv, "k42", "v").await;
    let mut told = Vec::new();
    for _ in 0..WATCHERS / 100 {
        let answer = watching.next().await;
        assert_eq!(revisions(&answer.events), [2]);
        told.push(answer.watch_id);
    }
    told.sort_unstable();
    assert_eq!(told, (0..20).map(|n| n * 100 + 42).collect::<Vec<_>>());
    nothing_more(&mut watching).await;
    assert_eq!(metric(&url, "etcd_debugging_mvcc_watcher_total").await, 2_000);
    assert_eq!(metric(&url, "etcd_debugging_mvcc_watch_stream_total").await, 1);
    drop(watching);
    metric_until(&url, "etcd_debugging_mvcc_watcher_total", |watchers| watchers == 0).await;
    metric_until(&url, "etcd_debugging_mvcc_watch_stream_total", |streams| streams == 0).await;
    cluster.stop().await;
}
