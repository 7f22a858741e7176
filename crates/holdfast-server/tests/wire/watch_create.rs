//! Creating and canceling watchers: ids, ranges, start revisions, and what is refused. Compared with etcd 3.5.1.

use crate::common::*;
use crate::watching::*;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;

async fn single() -> (TestCluster, Kv, Watching) {
    let cluster = TestCluster::single().await.unwrap();
    let kv = kv(&cluster.endpoint(0));
    let watching = Watching::open(&cluster.endpoint(0)).await;
    (cluster, kv, watching)
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_free_ones_from_zero_or_the_clients_own() {
    let (cluster, _, mut watching) = single().await;
    let mut ids = Vec::new();
    for wanted in [0, 5, 0, 0, 0, 0, 0, -7] {
        let watch_id = wanted;
        ids.push(watching.create(pb::WatchCreateRequest { watch_id, ..watcher("a", "") }).await.watch_id);
    }
    assert_eq!(ids, [0, 5, 1, 2, 3, 4, 6, -7]);
    let twice = watching.create(pb::WatchCreateRequest { watch_id: 5, ..watcher("a", "") }).await;
    let text = "mvcc: duplicate watch ID provided on the WatchStream";
    assert_eq!((twice.watch_id, twice.canceled, twice.cancel_reason.as_str()), (-1, true, text));
    watching.cancel(5).await;
    let canceled = watching.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.cancel_reason.as_str()), (5, true, ""));
    let again = watching.create(pb::WatchCreateRequest { watch_id: 5, ..watcher("a", "") }).await;
    assert_eq!((again.watch_id, again.canceled), (5, false), "free again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_watcher_gets_nothing_more_and_an_unknown_one_no_answer() {
    let (cluster, mut kv, mut watching) = single().await;
    watching.create(watcher("a", "b")).await;
    watching.create(watcher("a", "")).await;
    put(&mut kv, "a", "1").await;
    assert_eq!(watching.events(2).await.len(), 2);
    watching.cancel(0).await;
    let canceled = watching.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, revision(&canceled)), (0, true, 2));
    watching.cancel(0).await;
    watching.cancel(99).await;
    put(&mut kv, "a", "2").await;
    let events = watching.next().await;
    assert_eq!((events.watch_id, revisions(&events.events)), (1, vec![3]));
    nothing_more(&mut watching).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_ranges_are_refused_and_the_stream_lives_on() {
    let (cluster, mut kv, mut watching) = single().await;
    for (key, end) in [("z", "a"), ("a", "a")] {
        let refused = watching.create(watcher(key, end)).await;
        let text = "mvcc: watcher range is empty";
        assert_eq!((refused.watch_id, refused.canceled, refused.cancel_reason.as_str()), (-1, true, text));
        assert_eq!(revision(&refused), 1);
    }
    // Nothing in it: from a client that knows more than the server.
    watching.ask.send(pb::WatchRequest { request_union: None }).await.unwrap();
    assert_eq!(watching.create(watcher("a", "")).await.watch_id, 0, "a refused create uses no id");
    put(&mut kv, "a", "1").await;
    assert_eq!(revisions(&watching.events(1).await), [2]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_ranges_mean_what_they_do_in_a_read() {
    let (cluster, mut kv, mut watching) = single().await;
    let cases = [("b", ""), ("b", "d"), ("b", "\0"), ("", "\0"), ("\0", "c"), ("", "")];
    for (key, end) in cases {
        watching.create(watcher(key, end)).await;
    }
    for key in ["a", "b", "c", "d"] {
        put(&mut kv, key, "v").await;
    }
    let mut seen = vec![Vec::new(); cases.len()];
    let (answers, _) = watching.progress().await;
    for answer in answers {
        for (key, ..) in briefs(&answer.events) {
            seen[usize::try_from(answer.watch_id).unwrap()].push(key);
        }
    }
    let keys = ["b", "bc", "bcd", "abcd", "ab", ""];
    assert_eq!(seen.iter().map(|keys| keys.concat()).collect::<Vec<_>>(), keys);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_replayed_and_then_goes_over_into_the_present() {
    let (cluster, mut kv, mut watching) = single().await;
    for value in ["1", "2", "3"] {
        put(&mut kv, "a", value).await;
    }
    let created = watching.create(from(3, watcher("a", ""))).await;
    assert_eq!((created.watch_id, revision(&created)), (0, 4), "the current revision");
    assert_eq!(briefs(&watching.events(2).await), expected(&[("a", 3, Some("2")), ("a", 4, Some("3"))]));
    put(&mut kv, "a", "4").await;
    assert_eq!(briefs(&watching.events(1).await), expected(&[("a", 5, Some("4"))]));
    let now = watching.create(watcher("a", "")).await;
    let others = kv.range(range_request("a", "")).await.unwrap().into_inner().header;
    assert_eq!((now.header, revision(&now)), (others, 5), "cluster, member and term as in all answers");
    put(&mut kv, "a", "5").await;
    let mut both = Vec::new();
    for _ in 0..2 {
        let answer = watching.next().await;
        assert_eq!(revision(&answer), 6, "a live event's own revision");
        both.push((answer.watch_id, revisions(&answer.events)));
    }
    both.sort();
    assert_eq!(both, [(0, vec![6]), (1, vec![6])], "from now on means behind the header's revision");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_future_is_waited_for() {
    let (cluster, mut kv, mut watching) = single().await;
    watching.create(from(4, watcher("a", ""))).await;
    put(&mut kv, "a", "2").await;
    put(&mut kv, "a", "3").await;
    // A watcher that waits for the future keeps the stream's progress back; another stream shows that the events of
    // revision 3 are out.
    let mut other = Watching::open(&cluster.endpoint(0)).await;
    other.create(from(2, watcher("a", ""))).await;
    assert_eq!(revisions(&other.events(2).await), [2, 3]);
    watching.ask_progress().await;
    put(&mut kv, "a", "4").await;
    let first = watching.next().await;
    assert_eq!(revisions(&first.events), [4], "and no progress before it: {first:?}");
    assert_eq!(watching.progress().await.1, 4);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compacted_starts_are_created_and_then_canceled() {
    let (cluster, mut kv, mut watching) = single().await;
    for value in ["1", "2", "3"] {
        put(&mut kv, "a", value).await;
    }
    kv.delete_range(delete_request("a", "")).await.unwrap();
    put(&mut kv, "b", "4").await;
    kv.compact(pb::CompactionRequest { revision: 5, physical: true }).await.unwrap();
    for start in [1, 2, 4] {
        let created = watching.create(from(start, watcher("a", ""))).await;
        assert_eq!((created.canceled, revision(&created)), (false, 6), "{start}");
        let canceled = watching.next().await;
        assert_eq!((canceled.watch_id, canceled.created), (created.watch_id, false), "{start}");
        assert_eq!((canceled.canceled, canceled.compact_revision), (true, 5), "{start}");
        assert_eq!((revision(&canceled), canceled.cancel_reason.as_str()), (0, ""), "{start}");
    }
    watching.create(from(5, watcher("a", "c"))).await;
    let rest = watching.events(2).await;
    let kept = expected(&[("a", 5, None), ("b", 6, Some("4"))]);
    assert_eq!(briefs(&rest), kept, "the delete at the compact revision is still there");
    // As in etcd, the id stays used until the client cancels it, too.
    let first = pb::WatchCreateRequest { watch_id: 1, ..watcher("a", "") };
    assert_eq!(watching.create(first.clone()).await.watch_id, -1);
    watching.cancel(1).await;
    assert!(watching.next().await.canceled);
    assert_eq!(watching.create(first).await.watch_id, 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_start_is_refused_as_compacted() {
    let (cluster, mut kv, mut watching) = single().await;
    put(&mut kv, "a", "1").await;
    for start in [-1, -5, i64::MIN] {
        let refused = watching.create(from(start, watcher("a", ""))).await;
        assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true), "{start}");
        assert_eq!(refused.cancel_reason, "etcdserver: mvcc: required revision has been compacted");
        assert_eq!((revision(&refused), refused.compact_revision), (2, 0), "{start}");
    }
    watching.create(from(1, watcher("a", ""))).await;
    assert_eq!(revisions(&watching.events(1).await), [2]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_no_more_still_listens() {
    let (cluster, mut kv, watching) = single().await;
    let Watching { ask, mut answers } = watching;
    drop(ask);
    assert!(answers.message().await.unwrap().is_none(), "without watchers there is nothing to come");
    let Watching { ask, answers } = Watching::open(&cluster.endpoint(0)).await;
    let (ask, unused) = (tokio::sync::mpsc::channel(1).0, ask);
    let mut watching = Watching { ask, answers };
    let create = pb::watch_request::RequestUnion::CreateRequest(watcher("a", ""));
    unused.send(request(create)).await.unwrap();
    drop(unused);
    assert!(watching.next().await.created);
    put(&mut kv, "a", "1").await;
    assert_eq!(revisions(&watching.events(1).await), [2]);
    cluster.stop().await;
}
