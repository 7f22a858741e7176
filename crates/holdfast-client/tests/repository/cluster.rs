//! What only a repository on a cluster does: keys that others can see and damage, members that do not answer.

use std::time::Duration;

use holdfast_client::repo::{
    ClusterRepository, Filter, Operation, Place, RepoError, Repository, RepositoryWatch, Scope,
};
use holdfast_client::{Client, Config, ReadLevel};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::kv_client::KvClient;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::report::{Report, key, report};

const PATIENCE: Duration = Duration::from_secs(60);

fn place() -> Place {
    Place::new("wgpolicyk8s.io", "policyreports")
}

fn on(client: &Client) -> ClusterRepository<Report> {
    ClusterRepository::new(client.clone(), place(), Scope::Namespaced).unwrap()
}

/// RS9: keys are where the documentation says, in each scope.
#[tokio::test(flavor = "multi_thread")]
async fn rs9_objects_are_where_others_can_find_them() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let r = on(&client);
    let created = r.create(report("default", "my-report", "1")).await.unwrap();
    r.for_cluster("eu-1").unwrap().create(report("default", "my-report", "2")).await.unwrap();
    let elsewhere = place().under("/apps/r");
    let elsewhere = ClusterRepository::<Report>::new(client.clone(), elsewhere, Scope::Namespaced).unwrap();
    elsewhere.create(report("default", "my-report", "3")).await.unwrap();
    let keys = [
        ("/r/wgpolicyk8s.io/policyreports/default/my-report", "1"),
        ("/r@eu-1/wgpolicyk8s.io/policyreports/default/my-report", "2"),
        ("/apps/r/wgpolicyk8s.io/policyreports/default/my-report", "3"),
    ];
    for (key, text) in keys {
        let kv = client.get(key, ReadLevel::Linearizable).await.unwrap().value.unwrap();
        let value: serde_json::Value = serde_json::from_slice(&kv.value).unwrap();
        assert_eq!(value["text"], text);
    }
    let kv = client.get(keys[0].0, ReadLevel::Linearizable).await.unwrap().value.unwrap();
    assert_eq!(kv.mod_revision, created.version, "a version is the revision of the key's latest change");
    for bad in [Place::new("a/b", "c"), Place::new("", "c"), Place::new("a", "b/c"), place().under("/r@x")] {
        let refused = ClusterRepository::<Report>::new(client.clone(), bad, Scope::Namespaced);
        assert!(matches!(refused, Err(RepoError::Invalid(_))));
    }
    cluster.stop().await;
}

/// RS3: what cannot be decoded is never "not found".
#[tokio::test(flavor = "multi_thread")]
async fn rs3_what_cannot_be_decoded_is_there() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let r = on(&client);
    let mut watch = r.watch(&Filter::all(), None).await.unwrap();
    let bad = "/r/wgpolicyk8s.io/policyreports/n/bad";
    let version = client.put(bad, "{").await.unwrap();
    let is_decode = |error: RepoError<Report>| match error {
        RepoError::Decode { key, version: of, .. } => (key.as_str(), of) == ("n/bad", version),
        _ => false,
    };
    assert!(is_decode(r.get(&key("n", "bad")).await.unwrap_err()));
    assert!(is_decode(r.list(&Filter::all()).await.unwrap_err()));
    assert!(is_decode(r.list(&Filter::named("n", "bad")).await.unwrap_err()));
    assert!(is_decode(r.update(report("n", "bad", "1"), Some(1)).await.unwrap_err()));
    assert!(is_decode(timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap_err()));
    let exists = r.create(report("n", "bad", "1")).await.unwrap_err();
    assert!(matches!(exists, RepoError::AlreadyExists { version: of, .. } if of == version), "{exists}");
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 1);
    let gone = r.delete(&key("n", "bad"), None).await.unwrap_err();
    assert!(matches!(gone, RepoError::Gone { at, .. } if at > version), "{gone}");
    assert!(matches!(r.get(&key("n", "bad")).await, Err(RepoError::NotFound { .. })));
    assert_eq!(r.counters().count(Operation::Get, "decode"), 1);
    assert_eq!(r.counters().read()[0].labels.backend, "cluster");
    cluster.stop().await;
}

/// A write that nobody answers to may have happened; a read has not.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_answer_is_unknown_and_a_read_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Takes all that is sent and says nothing.
    let silent = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut buffer = [0; 1024];
                while connection.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let config = Config { call_timeout: Duration::from_millis(500), ..Config::default() };
    let r = on(&Client::with_config([endpoint], config).unwrap());
    assert!(matches!(r.create(report("n", "a", "1")).await, Err(RepoError::Unknown { .. })));
    assert!(matches!(r.update(report("n", "a", "1"), None).await, Err(RepoError::Unknown { .. })));
    assert!(matches!(r.apply(report("n", "a", "1")).await, Err(RepoError::Unknown { .. })));
    assert!(matches!(r.delete(&key("n", "a"), None).await, Err(RepoError::Unknown { .. })));
    assert!(matches!(r.get(&key("n", "a")).await, Err(RepoError::Unavailable { .. })));
    assert!(matches!(r.list(&Filter::all()).await, Err(RepoError::Unavailable { .. })));
    assert_eq!(r.counters().count(Operation::Create, "unknown"), 1);
    silent.abort();
}

/// A way to a member on which requests arrive and answers are lost.
async fn without_answers(member: String) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let member = member.trim_start_matches("http://").to_owned();
    let forwarding = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&member).await.unwrap();
            let (mut requests, to_client) = client.into_split();
            let (mut answers, mut to_server) = server.into_split();
            connections.spawn(async move {
                let mut nowhere = tokio::io::sink();
                let forward = tokio::io::copy(&mut requests, &mut to_server);
                drop(tokio::join!(forward, tokio::io::copy(&mut answers, &mut nowhere)));
                // Open until then: the client waits, as nobody tells it that nothing will come.
                drop(to_client);
            });
        }
    });
    (endpoint, forwarding)
}

/// What is unknown may have happened, and then has happened once: it was not sent again, though there was where to.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_unknown_and_was_done_once() {
    let cluster = TestCluster::single().await.unwrap();
    let direct = Client::new(cluster.endpoints()).unwrap();
    let (one, forwards_one) = without_answers(cluster.endpoint(0)).await;
    let (other, forwards_other) = without_answers(cluster.endpoint(0)).await;
    let config = Config { call_timeout: Duration::from_secs(1), ..Config::default() };
    let lossy = on(&Client::with_config([one, other], config).unwrap());
    for name in ["a", "b"] {
        assert!(matches!(lossy.apply(report("n", name, "1")).await, Err(RepoError::Unknown { .. })));
        let key = format!("/r/wgpolicyk8s.io/policyreports/n/{name}");
        let kv = direct.get(key, ReadLevel::Linearizable).await.unwrap().value.expect("it has arrived");
        assert_eq!(kv.version, 1, "once");
    }
    // Who looks finds out.
    let looked = on(&direct).get(&key("n", "a")).await.unwrap();
    assert_eq!(looked.object.text, "1");
    forwards_one.abort();
    forwards_other.abort();
    cluster.stop().await;
}

/// RS20: ready means that it answers within two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn rs20_a_repository_that_does_not_answer_is_not_ready() {
    let mut cluster = TestCluster::single().await.unwrap();
    let r = on(&Client::new(cluster.endpoints()).unwrap());
    r.ready().await.unwrap();
    cluster.stop_member(0).await;
    let refused = timeout(PATIENCE, r.ready()).await.expect("it is bounded");
    assert!(matches!(refused, Err(RepoError::Unavailable { .. })));
    cluster.start_member(0).await.unwrap();
    r.ready().await.unwrap();
    cluster.stop().await;
}

/// What was compacted before it was given is said to be, right before the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_as_compacted_when_its_place_is_compacted() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let r = on(&client);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let mut early = r.watch(&Filter::all(), Some(first.version)).await.unwrap();
    for text in ["2", "3"] {
        r.update(report("n", "a", text), None).await.unwrap();
    }
    let last = r.update(report("n", "a", "4"), None).await.unwrap();
    let revision = i64::try_from(last.version).unwrap();
    let mut kv = KvClient::connect(cluster.endpoint(0)).await.unwrap();
    kv.compact(pb::CompactionRequest { revision, physical: false }).await.unwrap();
    let refused = r.watch(&Filter::all(), Some(first.version)).await.map(drop);
    assert!(matches!(refused, Err(RepoError::Compacted { wanted, .. }) if wanted == first.version));
    // It was established, but has not asked for anything before the compaction.
    let lost = timeout(PATIENCE, early.next()).await.unwrap().unwrap();
    assert!(matches!(lost, Err(RepoError::Compacted { .. })), "{lost:?}");
    assert!(early.next().await.is_none());
    let mut watch = r.watch(&Filter::all(), Some(last.version)).await.unwrap();
    r.update(report("n", "a", "5"), None).await.unwrap();
    let event = timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.previous.unwrap().object.text, "4");
    cluster.stop().await;
}

/// A watch goes on while members come and go: each change once, in order, with what was before.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_on_other_members() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let r = on(&Client::new(cluster.endpoints()).unwrap());
    let mut watch = r.watch(&Filter::all(), None).await.unwrap();
    let first = r.create(report("n", "a", "0")).await.unwrap();
    let mut last = first.version;
    for stopped in 0..3 {
        for round in 0..4 {
            // What may have happened is written again: an upsert of the same.
            while r.apply(report("n", "a", &format!("{stopped}.{round}"))).await.is_err() {
                tokio::task::yield_now().await;
            }
            if round == 1 {
                cluster.stop_member(stopped).await;
            }
        }
        cluster.start_member(stopped).await.unwrap();
    }
    let mut before: Option<String> = None;
    while before.as_deref() != Some("2.3") {
        let event = timeout(PATIENCE, watch.next()).await.expect("in time").unwrap().unwrap();
        assert!(event.version >= last, "in order, and none twice");
        last = event.version + 1;
        assert_eq!(event.previous.map(|stored| stored.object.text.clone()), before, "and none missing");
        before = event.current.map(|stored| stored.object.text.clone());
    }
    cluster.stop().await;
}
