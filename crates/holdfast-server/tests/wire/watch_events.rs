//! What watchers are told of changes: forms, order, whole revisions, filters, fragments.

use crate::common::*;
use crate::watching::*;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;

async fn single(flags: &[&str]) -> (TestCluster, Kv, Watching) {
    let cluster = TestCluster::start(1, flags).await.unwrap();
    let kv = kv(&cluster.endpoint(0));
    let watching = Watching::open(&cluster.endpoint(0)).await;
    (cluster, kv, watching)
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_and_deletes_have_etcds_forms_live_and_from_history() {
    let (cluster, mut kv, mut live) = single(&[]).await;
    let wanted = pb::WatchCreateRequest { prev_kv: true, ..watcher("k", "") };
    live.create(wanted.clone()).await;
    put(&mut kv, "k", "1").await;
    put(&mut kv, "k", "2").await;
    kv.delete_range(delete_request("k", "")).await.unwrap();
    put(&mut kv, "k", "3").await;
    let mut late = Watching::open(&cluster.endpoint(0)).await;
    late.create(from(2, wanted)).await;
    for events in [live.events(4).await, late.events(4).await] {
        let kvs: Vec<_> = events.iter().map(|event| event.kv.clone().unwrap()).collect();
        let numbers: Vec<_> =
            kvs.iter().map(|kv| (kv.create_revision, kv.mod_revision, kv.version)).collect();
        assert_eq!(numbers, [(2, 2, 1), (2, 3, 2), (0, 4, 0), (5, 5, 1)]);
        assert!(kvs[2].value.is_empty() && kvs[2].key == "k", "{:?}", kvs[2]);
        let before: Vec<_> =
            events.iter().map(|e| e.prev_kv.as_ref().map(|kv| (kv.value.clone(), kv.mod_revision))).collect();
        assert_eq!(before, [None, Some((bytes("1"), 2)), Some((bytes("2"), 3)), None]);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_history_has_no_more_is_left_out() {
    let (cluster, mut kv, mut watching) = single(&[]).await;
    put(&mut kv, "k", "1").await;
    put(&mut kv, "k", "2").await;
    kv.compact(pb::CompactionRequest { revision: 3, physical: true }).await.unwrap();
    put(&mut kv, "k", "3").await;
    watching.create(pb::WatchCreateRequest { prev_kv: true, ..from(3, watcher("k", "")) }).await;
    let events = watching.events(2).await;
    assert_eq!(events[0].prev_kv, None, "the state at revision 2 is compacted");
    assert_eq!(events[1].prev_kv.as_ref().unwrap().value, "2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_drop_what_they_name() {
    let (cluster, mut kv, mut watching) = single(&[]).await;
    for filters in [vec![0], vec![1], vec![0, 1], vec![9]] {
        watching.create(pb::WatchCreateRequest { filters, ..watcher("k", "") }).await;
    }
    put(&mut kv, "k", "1").await;
    kv.delete_range(delete_request("k", "")).await.unwrap();
    let (answers, at) = watching.progress().await;
    assert_eq!(at, 3);
    let mut seen = vec![Vec::new(); 4];
    for answer in answers {
        assert!(!answer.events.is_empty(), "nothing is sent when all is filtered");
        seen[usize::try_from(answer.watch_id).unwrap()].extend(revisions(&answer.events));
    }
    assert_eq!(seen, [vec![3], vec![2], vec![], vec![2, 3]]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_comes_whole_and_in_the_order_of_its_operations() {
    let (cluster, mut kv, mut live) = single(&[]).await;
    live.create(watcher("a", "z")).await;
    put(&mut kv, "c", "").await;
    let inner = op_txn(txn(vec![op_put("y", "2")]));
    kv.txn(txn(vec![op_put("x", "1"), inner, op_delete("c", ""), op_put("a", "3")])).await.unwrap();
    let mut late = Watching::open(&cluster.endpoint(0)).await;
    late.create(from(3, watcher("a", "z"))).await;
    assert_eq!(live.events(1).await.len(), 1);
    for watching in [&mut live, &mut late] {
        let answer = watching.next().await;
        let whole = [("x", 3, Some("1")), ("y", 3, Some("2")), ("c", 3, None), ("a", 3, Some("3"))];
        assert_eq!(briefs(&answer.events), expected(&whole));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_missed_or_repeated_where_history_meets_the_present() {
    let (cluster, mut kv, _) = single(&[]).await;
    let endpoint = cluster.endpoint(0);
    let writer = tokio::spawn(async move {
        for n in 0..400 {
            put(&mut kv, &format!("k{}", n % 7), &n.to_string()).await;
        }
    });
    let mut watches = Vec::new();
    for start in [1, 2, 50, 150, 250, 399] {
        let endpoint = endpoint.clone();
        watches.push(tokio::spawn(async move {
            let mut watching = Watching::open(&endpoint).await;
            watching.create(from(start, watcher("k", "l"))).await;
            let first = start.max(2);
            let mut events = Vec::new();
            while revisions(&events).last() != Some(&401) {
                events.extend(watching.next().await.events);
            }
            assert_eq!(revisions(&events), (first..=401).collect::<Vec<_>>(), "from {start}");
        }));
    }
    writer.await.unwrap();
    for watch in watches {
        watch.await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_revision_is_cut_only_when_that_is_wanted() {
    let (cluster, mut kv, mut watching) = single(&["--max-request-bytes=1048576"]).await;
    let large = "x".repeat(300_000);
    for n in 0..8 {
        put(&mut kv, &format!("k{n}"), &large).await;
    }
    for fragment in [true, false] {
        let wanted = watcher("k", "l");
        watching.create(pb::WatchCreateRequest { fragment, prev_kv: true, ..wanted }).await;
    }
    kv.delete_range(delete_request("k", "l")).await.unwrap();
    let mut pieces = [Vec::new(), Vec::new()];
    while pieces.iter().flatten().map(|(events, _)| *events).sum::<usize>() < 16 {
        let answer = watching.next().await;
        assert_eq!(revision(&answer), 10);
        pieces[usize::try_from(answer.watch_id).unwrap()].push((answer.events.len(), answer.fragment));
    }
    // Eight states before of 300 kB each, cut below 1.5 MiB.
    assert_eq!(pieces[0], [(5, true), (3, false)]);
    assert_eq!(pieces[1], [(8, false)], "whole at any size");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_previous_values_come_in_bounded_answers() {
    const KEYS: usize = 24;
    let (cluster, mut kv, mut live) = single(&[]).await;
    let value = "v".repeat(512 * 1024);
    for key in 0..KEYS {
        put(&mut kv, &format!("k{key:02}"), &value).await;
    }
    let wanted = pb::WatchCreateRequest { prev_kv: true, ..watcher("k", "l") };
    live.create(wanted.clone()).await;
    for key in 0..KEYS {
        kv.delete_range(delete_request(&format!("k{key:02}"), "")).await.unwrap();
    }
    let mut late = Watching::open(&cluster.endpoint(0)).await;
    let first_delete = i64::try_from(KEYS).unwrap() + 2;
    late.create(from(first_delete, wanted)).await;
    for watching in [&mut live, &mut late] {
        let mut keys = Vec::new();
        while keys.len() < KEYS {
            let answer = watching.next().await;
            assert!(answer.events.len() <= 20, "{} previous values of 512 KiB at once", answer.events.len());
            for event in answer.events {
                assert_eq!(event.prev_kv.unwrap().value.len(), value.len());
                keys.push(event.kv.unwrap().key);
            }
        }
        let expected: Vec<_> = (0..KEYS).map(|key| bytes(&format!("k{key:02}"))).collect();
        assert_eq!(keys, expected, "each once, in order");
    }
    cluster.stop().await;
}
