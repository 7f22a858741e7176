//! Watches on three members: resumed elsewhere, through elections, restarts and the loss of a leader.

use std::time::Duration;

use crate::common::*;
use crate::three::leader;
use crate::watching::*;
use holdfast_testserver::TestCluster;
use tonic::Code;

/// What a stop takes at least when it waits for something that never ends.
const REQUESTS_GRACE: Duration = holdfast_server::limits::STOP_GRACE;

/// Elections that do not keep a test waiting.
pub(crate) const HURRIED: [&str; 2] = ["--election-timeout=500", "--heartbeat-interval=50"];

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_resumed_on_any_member() {
    let cluster = TestCluster::three().await.unwrap();
    let mut at_first = kv(&cluster.endpoint(0));
    let mut events = Vec::new();
    let mut next = 2;
    for round in 0..9 {
        let mut watching = Watching::open(&cluster.endpoint(round % 3)).await;
        watching.create(from(next, watcher("k", "l"))).await;
        for n in 0..5 {
            put(&mut at_first, &format!("k{n}"), &round.to_string()).await;
        }
        events.extend(watching.events(5).await);
        next = *revisions(&events).last().unwrap() + 1;
        drop(watching);
    }
    assert_eq!(revisions(&events), (2..=46).collect::<Vec<_>>());
    for member in 0..3 {
        let mut watching = Watching::open(&cluster.endpoint(member)).await;
        watching.create(from(2, watcher("k", "l"))).await;
        assert_eq!(watching.events(45).await, events, "member {member}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_leader_ends_no_stream() {
    let mut cluster = TestCluster::start(3, &HURRIED).await.unwrap();
    let first = leader(&cluster, 0).await;
    let other = (first + 1) % 3;
    let mut kv = kv(&cluster.endpoint(other));
    let mut watching = Watching::with_leader(&cluster.endpoint(other)).await.unwrap();
    watching.create(watcher("k", "")).await;
    put(&mut kv, "k", "before").await;
    cluster.stop_member(first).await;
    put(&mut kv, "k", "after").await;
    let seen = expected(&[("k", 2, Some("before")), ("k", 3, Some("after"))]);
    assert_eq!(briefs(&watching.events(2).await), seen);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_only_those_streams_end_that_want_one() {
    let mut cluster = TestCluster::start(3, &HURRIED).await.unwrap();
    let url = cluster.endpoint(2);
    put(&mut kv(&url), "k", "1").await;
    let mut wants = Watching::with_leader(&url).await.unwrap();
    wants.create(watcher("k", "")).await;
    let mut bears = Watching::open(&url).await;
    bears.create(watcher("k", "")).await;
    cluster.stop_member(0).await;
    cluster.stop_member(1).await;
    let no_leader = (Code::Unavailable, "etcdserver: no leader".to_owned());
    assert_eq!(refusal(wants.answer().await), no_leader);
    let refused = Watching::with_leader(&url).await.map(|_| ());
    assert_eq!(refusal(refused), no_leader, "at once");
    bears.create(from(2, watcher("k", ""))).await;
    assert_eq!(revisions(&bears.events(1).await), [2], "history is there without a leader");
    assert_eq!(bears.progress().await.1, 2);
    cluster.start_member(0).await.unwrap();
    cluster.start_member(1).await.unwrap();
    put(&mut kv(&url), "k", "2").await;
    let mut again = [revisions(&bears.events(2).await)].concat();
    again.dedup();
    assert_eq!(again, [3], "both its watchers go on");
    Watching::with_leader(&url).await.unwrap().create(watcher("k", "")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_streams_at_once_and_a_restart_has_the_history() {
    let mut cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut before = kv(&url);
    let mut watching = Watching::open(&url).await;
    watching.create(watcher("k", "l")).await;
    for n in 0..20 {
        put(&mut before, &format!("k{n}"), "v").await;
    }
    assert_eq!(watching.events(20).await.len(), 20);
    cluster.stop_member(0).await;
    assert_eq!(refusal(watching.answer().await), refused(Code::Unavailable, "etcdserver: server stopped"));
    cluster.start_member(0).await.unwrap();
    let mut resumed = Watching::open(&url).await;
    resumed.create(from(12, watcher("k", "l"))).await;
    assert_eq!(revisions(&resumed.events(10).await), (12..=21).collect::<Vec<_>>());
    put(&mut kv(&url), "k", "on").await;
    assert_eq!(revisions(&resumed.events(1).await), [22]);
    cluster.stop().await;
}

/// How long a member takes to stop while a client does not read its stream.
async fn stop_with_an_unread_stream(cluster: &mut TestCluster) -> Duration {
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    let mut unread = Watching::open_narrow(&url).await;
    unread.create(watcher("k", "l")).await;
    let value = "x".repeat(100_000);
    for n in 0..20 {
        put(&mut kv, &format!("k{n}"), &value).await;
    }
    let began = tokio::time::Instant::now();
    cluster.stop_member(0).await;
    let took = began.elapsed();
    drop(unread);
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let mut cluster = TestCluster::single().await.unwrap();
    // A machine that stands still makes one stop slow, but hardly five in a row.
    let mut took = stop_with_an_unread_stream(&mut cluster).await;
    for _ in 0..4 {
        if took < REQUESTS_GRACE {
            break;
        }
        cluster.start_member(0).await.unwrap();
        took = stop_with_an_unread_stream(&mut cluster).await;
    }
    assert!(took < REQUESTS_GRACE, "{took:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_tells_what_it_missed() {
    let mut cluster = TestCluster::three().await.unwrap();
    let away = (leader(&cluster, 0).await + 1) % 3;
    let mut kv = kv(&cluster.endpoint((away + 1) % 3));
    put(&mut kv, "k", "1").await;
    cluster.stop_member(away).await;
    for value in ["2", "3"] {
        put(&mut kv, "k", value).await;
    }
    cluster.start_member(away).await.unwrap();
    let mut watching = Watching::open(&cluster.endpoint(away)).await;
    // It may not have caught up; it waits then, and tells nothing older.
    watching.create(from(3, watcher("k", ""))).await;
    put(&mut kv, "k", "4").await;
    assert_eq!(revisions(&watching.events(3).await), [3, 4, 5]);
    assert_eq!(watching.progress().await, (vec![], 5));
    cluster.stop().await;
}
