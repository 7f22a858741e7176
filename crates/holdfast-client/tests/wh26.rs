//! WH26: folders, keys that are set once, and what is held, against real members.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use bytes::Bytes;
use holdfast_client::{
    Acquired, Client, Config, Error, Folder, FolderEvent, HoldState, ReadLevel, SetIfNotExists,
};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

/// More than anything takes, on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

fn client(cluster: &TestCluster) -> Client {
    Client::new(cluster.endpoints()).unwrap()
}

fn channel(cluster: &TestCluster) -> Channel {
    Channel::from_shared(cluster.endpoint(0)).unwrap().connect_lazy()
}

async fn leases(cluster: &TestCluster) -> Vec<i64> {
    let mut client = LeaseClient::new(channel(cluster));
    let answer = client.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    answer.leases.into_iter().map(|lease| lease.id).collect()
}

async fn compact(cluster: &TestCluster, revision: u64) {
    let revision = i64::try_from(revision).unwrap();
    let request = pb::CompactionRequest { revision, physical: false };
    KvClient::new(channel(cluster)).compact(request).await.unwrap();
}

async fn next(folder: &mut Folder) -> FolderEvent {
    timeout(PATIENCE, folder.next()).await.expect("an event in time").unwrap()
}

/// An event in short.
async fn told(folder: &mut Folder) -> String {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    match next(folder).await {
        FolderEvent::Fresh(kv) => format!("fresh {}={}", text(&kv.key), text(&kv.value)),
        FolderEvent::Created(kv) => format!("created {}={}", text(&kv.key), text(&kv.value)),
        FolderEvent::Modified(kv) => format!("modified {}={}", text(&kv.key), text(&kv.value)),
        FolderEvent::Deleted { key, revision } => format!("deleted {} at {revision}", text(&key)),
        FolderEvent::Ready { revision } => format!("ready at {revision}"),
        FolderEvent::Lost { from } => format!("lost from {from}"),
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

async fn held(
    client: &Client,
    key: &'static str,
    value: &'static str,
    ttl: Duration,
) -> holdfast_client::Held {
    match client.try_acquire(key, value, ttl).await.unwrap() {
        Acquired::Held(held) => held,
        Acquired::Taken(by) => panic!("taken by {by:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_a_folder_gives_what_is_there_as_fresh_then_each_change() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    for (key, value) in [("f/a", "1"), ("f/b", "1"), ("g", "1"), ("e", "1")] {
        client.put(key, value).await.unwrap();
    }
    let mut folder = client.watch_folder("f/");
    assert_eq!(told(&mut folder).await, "fresh f/a=1");
    assert_eq!(told(&mut folder).await, "fresh f/b=1");
    assert_eq!(told(&mut folder).await, "ready at 5");
    client.put("f/a", "2").await.unwrap();
    client.put("f", "beside").await.unwrap();
    client.put("f/c", "1").await.unwrap();
    client.delete("f/b").await.unwrap();
    client.put("f/b", "again").await.unwrap();
    for expected in ["modified f/a=2", "created f/c=1", "deleted f/b at 9", "created f/b=again"] {
        assert_eq!(told(&mut folder).await, expected);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_a_large_folder_is_one_state_though_it_is_read_in_pages() {
    const KEYS: usize = 2_500;
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    let puts = (0..KEYS).map(|n| {
        let client = client.clone();
        async move { client.put(format!("f/{n:05}"), "1").await.unwrap() }
    });
    let revision = futures::future::join_all(puts).await.into_iter().max().unwrap();
    let mut folder = client.watch_folder("f/");
    assert_eq!(told(&mut folder).await, "fresh f/00000=1");
    // Between the pages.
    client.put("f/02400", "2").await.unwrap();
    for n in 1..KEYS {
        assert_eq!(told(&mut folder).await, format!("fresh f/{n:05}=1"));
    }
    assert_eq!(told(&mut folder).await, format!("ready at {revision}"));
    assert_eq!(told(&mut folder).await, "modified f/02400=2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_a_folder_goes_on_when_members_come_and_go() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let client = client(&cluster);
    let mut folder = client.watch_folder("f/");
    assert_eq!(told(&mut folder).await, "ready at 1");
    let mut written = Vec::new();
    for stopped in 0..3 {
        for round in 0..5 {
            let value = format!("{stopped}.{round}");
            // What may have happened is written again; its value is the same.
            until("a put", async || client.put("f/k", value.clone()).await.is_ok()).await;
            written.push(value);
            if round == 2 {
                cluster.stop_member(stopped).await;
            }
        }
        cluster.start_member(stopped).await.unwrap();
    }
    let (mut seen, mut last) = (Vec::new(), 0);
    while seen.last() != written.last() {
        let (FolderEvent::Created(kv) | FolderEvent::Modified(kv)) = next(&mut folder).await else {
            panic!("a put is created or modified")
        };
        assert!(kv.mod_revision > last, "in order, and none twice");
        last = kv.mod_revision;
        seen.push(String::from_utf8(kv.value.to_vec()).unwrap());
    }
    seen.dedup();
    assert_eq!(seen, written, "and none missing");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_a_folder_says_when_compaction_took_what_it_had_not_given() {
    let mut cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    client.put("f/a", "1").await.unwrap();
    client.put("f/b", "1").await.unwrap();
    let mut folder = client.watch_folder("f/");
    for expected in ["fresh f/a=1", "fresh f/b=1", "ready at 3"] {
        assert_eq!(told(&mut folder).await, expected);
    }
    // Nothing is asked for before the compaction is done, so that the watch begins behind it.
    client.delete("f/a").await.unwrap();
    let revision = client.put("f/b", "2").await.unwrap();
    compact(&cluster, revision).await;
    for expected in ["lost from 4", "fresh f/b=2", "ready at 5"] {
        assert_eq!(told(&mut folder).await, expected);
    }
    client.put("f/c", "1").await.unwrap();
    assert_eq!(told(&mut folder).await, "created f/c=1");
    // Compacted while it follows, and has seen all: nothing is lost, also not by a member that comes back.
    let revision = client.put("other", "1").await.unwrap();
    client.put("f/d", "1").await.unwrap();
    assert_eq!(told(&mut folder).await, "created f/d=1");
    compact(&cluster, revision).await;
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    client.put("f/e", "1").await.unwrap();
    assert_eq!(told(&mut folder).await, "created f/e=1");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_of_many_who_set_a_key_that_does_not_exist_one_does() {
    let cluster = TestCluster::three().await.unwrap();
    let setters = (0..30).map(|n| {
        let client = Client::new([cluster.endpoint(n % 3)]).unwrap();
        async move { (n, client.set_if_not_exists("once", n.to_string()).await.unwrap()) }
    });
    let mut winner = None;
    let mut told = Vec::new();
    for (n, outcome) in futures::future::join_all(setters).await {
        match outcome {
            SetIfNotExists::Set { revision } => {
                assert_eq!((winner.replace(n), revision), (None, 2));
            }
            SetIfNotExists::Exists(kv) => told.push(kv.value),
        }
    }
    let winner = winner.expect("one has set it").to_string();
    assert_eq!(told, vec![Bytes::from(winner.clone()); 29]);
    assert_eq!(
        client(&cluster).get("once", ReadLevel::Linearizable).await.unwrap().value.unwrap().value,
        winner
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_who_does_not_acquire_leaves_no_lease() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    let first = held(&client, "leader", "one", LONG).await;
    assert_eq!((first.state(), first.revision()), (HoldState::Held, 2));
    let Acquired::Taken(by) = client.try_acquire("leader", "two", LONG).await.unwrap() else {
        panic!("held twice")
    };
    assert_eq!((by.value.as_ref(), by.lease), (b"one".as_ref(), Some(first.lease())));
    assert_eq!(leases(&cluster).await, [first.lease().0]);
    first.release().await.unwrap();
    assert_eq!(
        (client.get("leader", ReadLevel::Linearizable).await.unwrap().value, leases(&cluster).await),
        (None, vec![])
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_a_race_for_a_key_leaves_the_winners_lease_alone() {
    let cluster = TestCluster::three().await.unwrap();
    for round in 0..5 {
        let key = format!("leader-{round}");
        let racers = (0..12).map(|n| {
            let client = Client::new([cluster.endpoint(n % 3)]).unwrap();
            let key = key.clone();
            async move { client.try_acquire(key, n.to_string(), LONG).await.unwrap() }
        });
        let outcomes = futures::future::join_all(racers).await;
        let winners: Vec<_> =
            outcomes.iter().filter(|outcome| matches!(outcome, Acquired::Held(_))).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert_eq!(leases(&cluster).await.len(), 1, "round {round}");
        drop(outcomes);
        // A drop gives up in the background.
        until("no lease is left", async || leases(&cluster).await.is_empty()).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_who_waits_holds_it_next_and_who_stops_waiting_leaves_nothing() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    let first = held(&client, "leader", "one", LONG).await;
    let given_up = timeout(Duration::from_millis(200), client.acquire("leader", "never", LONG)).await;
    assert!(given_up.is_err());
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.acquire("leader", "two", LONG).await });
    let revision = first.revision();
    first.release().await.unwrap();
    let second = timeout(PATIENCE, waiting).await.expect("in time").unwrap().unwrap();
    assert!(second.revision() > revision, "a fencing token grows");
    assert_eq!(client.get("leader", ReadLevel::Linearizable).await.unwrap().value.unwrap().value, "two");
    assert_eq!(leases(&cluster).await, [second.lease().0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_what_is_held_is_kept_alive() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    // The shortest that the server grants is 2 s.
    let held = held(&client, "leader", "one", Duration::from_secs(2)).await;
    let deadline = Instant::now() + Duration::from_secs(6);
    while Instant::now() < deadline {
        assert!(
            client.get("leader", ReadLevel::Linearizable).await.unwrap().value.is_some(),
            "it ended while it was kept alive"
        );
        assert_ne!(held.state(), HoldState::Lost);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_a_loss_is_seen() {
    let mut cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    // The key is deleted.
    let mut deleted = held(&client, "a", "", LONG).await;
    client.delete("a").await.unwrap();
    timeout(PATIENCE, deleted.lost()).await.expect("a loss is seen");
    assert_eq!(deleted.state(), HoldState::Lost);
    // Deleted and made anew, by others.
    let mut replaced = held(&client, "b", "", LONG).await;
    client.delete("b").await.unwrap();
    client.put("b", "theirs").await.unwrap();
    timeout(PATIENCE, replaced.lost()).await.expect("a loss is seen");
    // The lease is revoked.
    let mut revoked = held(&client, "c", "", LONG).await;
    let request = pb::LeaseRevokeRequest { id: revoked.lease().0 };
    LeaseClient::new(channel(&cluster)).lease_revoke(request).await.unwrap();
    timeout(PATIENCE, revoked.lost()).await.expect("a loss is seen");
    // Nobody answers any more: at the latest when the lease may have ended.
    let config = Config { call_timeout: Duration::from_millis(300), ..Config::default() };
    let hasty = Client::with_config(cluster.endpoints(), config).unwrap();
    let before = Instant::now();
    let mut cut_off = held(&hasty, "d", "", Duration::from_secs(3)).await;
    cluster.stop_member(0).await;
    timeout(PATIENCE, cut_off.lost()).await.expect("a loss is seen");
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh26_what_is_held_outlives_compactions_and_its_member() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let client = client(&cluster);
    let held = held(&client, "leader", "one", Duration::from_secs(20)).await;
    for stopped in 0..3 {
        cluster.stop_member(stopped).await;
        until("a put", async || client.put("other", "1").await.is_ok()).await;
        cluster.start_member(stopped).await.unwrap();
        let revision = client.put("other", "2").await.unwrap();
        compact(&cluster, revision).await;
        let kv =
            client.get("leader", ReadLevel::Linearizable).await.unwrap().value.expect("it is still there");
        assert_eq!(kv.create_revision, held.revision());
        assert_ne!(held.state(), HoldState::Lost);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_nobody_listens_on_costs_an_attempt_and_no_answer() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(["http://127.0.0.1:1".to_owned(), cluster.endpoint(0)]).unwrap();
    for n in 0..10 {
        client.put("k", n.to_string()).await.unwrap();
    }
    assert_eq!(
        client.get("k", ReadLevel::Linearizable).await.unwrap().value.unwrap().version,
        10,
        "nothing was written twice"
    );
    let config = Config { call_timeout: Duration::from_millis(300), ..Config::default() };
    let alone = Client::with_config(["http://127.0.0.1:1"], config).unwrap();
    let error = alone.put("k", "x").await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { attempts } if !attempts.is_empty()), "{error}");
    assert!(error.to_string().contains("http://127.0.0.1:1: "), "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_fate_nobody_knows_is_not_made_again() {
    // Takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let config = Config { call_timeout: Duration::from_millis(500), ..Config::default() };
    let client = Client::with_config([endpoint], config).unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(&error, Error::Unknown { attempts } if attempts.len() == 1), "{error}");
    let error = client.get("k", ReadLevel::Linearizable).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "a read never has an unknown outcome: {error}");
}
