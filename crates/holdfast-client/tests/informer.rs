//! Informers and cached stores against real members: AW12 to AW45, as far as they live in the client.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "informer/cached.rs"]
mod cached;
#[allow(dead_code, reason = "others want to know more of it")]
#[path = "support/relay.rs"]
mod relay;

use std::time::Duration;

use bytes::Bytes;
use holdfast_client::informer::{
    Change, Digest, Informer, InformerEvent, InformerOptions, InformerState, RelistReason, Relists, Sight,
    Subscription, Verified, WaitError,
};
use holdfast_client::{Client, Compare, KeyRange, Op, ReadLevel, Txn};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::kv_client::KvClient;
use relay::Relay;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

/// More than anything takes, on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

fn client(cluster: &TestCluster) -> Client {
    Client::new(cluster.endpoints()).unwrap()
}

async fn compact(cluster: &TestCluster, revision: u64) {
    let revision = i64::try_from(revision).unwrap();
    let request = pb::CompactionRequest { revision, physical: true };
    let channel = Channel::from_shared(cluster.endpoint(0)).unwrap().connect_lazy();
    KvClient::new(channel).compact(request).await.unwrap();
}

/// Values are texts; those that begin with `!` are none.
fn texts() -> InformerOptions<String> {
    InformerOptions::decode_with(|kv| {
        let text = String::from_utf8(kv.value.to_vec())?;
        if text.starts_with('!') { Err("it begins with !".into()) } else { Ok(text) }
    })
    .index("length", |object| vec![object.value().len().to_string().into()])
}

fn informer(client: &Client, prefix: &'static str) -> Informer<String> {
    client.informer(KeyRange::prefix(prefix), texts())
}

/// What a reader has, in short.
fn shown(informer: &Informer<String>) -> Vec<String> {
    let snapshot = informer.reader().snapshot();
    let text = |key: &[u8], value: &str| format!("{}={value}", key.escape_ascii());
    snapshot.iter().map(|object| text(object.key(), object.value())).collect()
}

async fn next(subscription: &mut Subscription<String>) -> InformerEvent<String> {
    timeout(PATIENCE, subscription.next()).await.expect("an event in time").expect("it goes on")
}

/// An event in short.
async fn told(subscription: &mut Subscription<String>) -> String {
    let event = next(subscription).await;
    let changes: Vec<_> = event
        .changes()
        .iter()
        .map(|change| match change {
            Change::Added { object } => format!("+{}={}", object.key().escape_ascii(), object.value()),
            Change::Modified { object, previous } => {
                format!("{}={}<{}", object.key().escape_ascii(), object.value(), previous.value())
            }
            Change::Deleted { key, last, sight, .. } => {
                let last = last.as_ref().map_or("?", |last| last.value().as_str());
                let mark = if *sight == Sight::Seen { "" } else { "~" };
                format!("-{}<{last}{mark}", key.escape_ascii())
            }
            Change::Unreadable { unreadable, previous } => {
                let previous = previous.as_ref().map_or("", |previous| previous.value().as_str());
                format!("?{}<{previous}", unreadable.key().escape_ascii())
            }
        })
        .collect();
    let kind = match &event {
        InformerEvent::Synced { snapshot } => return format!("synced {}", snapshot.len()),
        InformerEvent::Changed { .. } => "",
        InformerEvent::Relisted { reason: RelistReason::Compacted, .. } => "relisted: ",
        InformerEvent::Relisted { .. } => "relisted for another reason: ",
        InformerEvent::Lagged { .. } => "lagged: ",
    };
    format!("{kind}{}", changes.join(" "))
}

/// AW17, AW28, AW29: a list in pages at one revision, then what happens, each revision once and as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn aw17_an_informer_shows_what_there_is_and_then_what_happens() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    for n in 0..300 {
        client.put(format!("f/{n:03}"), "x").await.unwrap();
    }
    client.put("g", "beside").await.unwrap();
    let informer = informer(&client, "f/");
    let mut subscription = informer.reader().subscribe();
    assert_eq!(told(&mut subscription).await, "synced 300");
    assert!(informer.reader().has_synced());
    client.put("f/000", "yy").await.unwrap();
    client.put("f", "beside").await.unwrap();
    client.delete("f/001").await.unwrap();
    let txn = Txn::new().then(Op::put("f/new", "zz")).then(Op::put("f/002", "zz")).then(Op::delete("f/003"));
    let revision = client.txn(txn).await.unwrap().revision;
    client.delete_range(KeyRange::prefix("f/00")).await.unwrap();
    for expected in [
        "f/000=yy<x",
        "-f/001<x",
        "+f/new=zz f/002=zz<x -f/003<x",
        "-f/000<yy -f/002<zz -f/004<x -f/005<x -f/006<x -f/007<x -f/008<x -f/009<x",
    ] {
        let found = told(&mut subscription).await;
        let sorted = |text: &str| {
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        assert_eq!(sorted(&found), sorted(expected));
    }
    let snapshot = informer.reader().snapshot();
    assert!(snapshot.revision() > revision);
    assert_eq!(snapshot.len(), 291);
    assert_eq!(snapshot.by_index("length", b"2").unwrap().count(), 1);
    assert!(matches!(informer.reader().verify().await.unwrap(), Verified::Same { .. }));
    informer.stop().await;
    cluster.stop().await;
}

/// AW17, AW44: changes that were compacted behind an informer that was cut off cost one list, and it tells only what is
/// different: no object that is the same, and those that are gone with what they were last.
#[tokio::test(flavor = "multi_thread")]
async fn aw17_compaction_behind_an_informer_leads_to_one_list_with_the_difference() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    for (key, value) in [("f/a", "1"), ("f/b", "1"), ("f/c", "1"), ("f/d", "1")] {
        client.put(key, value).await.unwrap();
    }
    let relay = Relay::to(&cluster.endpoint(0)).await;
    let informer = informer(&Client::new([relay.endpoint.clone()]).unwrap(), "f/");
    let mut subscription = informer.reader().subscribe();
    assert_eq!(told(&mut subscription).await, "synced 4");
    client.put("f/a", "2").await.unwrap();
    assert_eq!(told(&mut subscription).await, "f/a=2<1");
    relay.refuse(true);
    client.put("f/b", "2").await.unwrap();
    client.delete("f/c").await.unwrap();
    // Made and gone again: nobody is told.
    client.put("f/x", "1").await.unwrap();
    client.delete("f/x").await.unwrap();
    client.put("f/e", "1").await.unwrap();
    // Away and back as it was: another object.
    client.delete("f/d").await.unwrap();
    let revision = client.put("f/d", "1").await.unwrap();
    compact(&cluster, revision).await;
    assert_eq!(informer.reader().snapshot().len(), 4, "what was known can be read meanwhile");
    relay.refuse(false);
    assert_eq!(told(&mut subscription).await, "relisted: f/b=2<1 -f/c<1~ f/d=1<1 +f/e=1");
    client.put("f/a", "3").await.unwrap();
    assert_eq!(told(&mut subscription).await, "f/a=3<2", "and goes on");
    let health = informer.reader().health();
    assert_eq!(health.relists, Relists { compacted: 1, ..Relists::default() });
    assert_eq!(health.state, InformerState::Live);
    assert!(matches!(informer.reader().verify().await.unwrap(), Verified::Same { .. }));
    cluster.stop().await;
}

/// AW17: a cut without a loss costs no list, and nothing is told twice or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn aw17_an_informer_that_was_cut_off_goes_on_where_it_was() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    client.put("f/a", "0").await.unwrap();
    let relay = Relay::to(&cluster.endpoint(0)).await;
    let informer = informer(&Client::new([relay.endpoint.clone()]).unwrap(), "f/");
    let mut subscription = informer.reader().subscribe();
    assert_eq!(told(&mut subscription).await, "synced 1");
    for n in 1..=5 {
        relay.refuse(true);
        client.put("f/a", n.to_string()).await.unwrap();
        relay.refuse(false);
        assert_eq!(told(&mut subscription).await, format!("f/a={n}<{}", n - 1));
    }
    // What it has seen may be compacted.
    relay.refuse(true);
    compact(&cluster, informer.reader().snapshot().revision()).await;
    client.put("f/a", "last").await.unwrap();
    relay.refuse(false);
    assert_eq!(told(&mut subscription).await, "f/a=last<5");
    assert_eq!(informer.reader().health().relists.total(), 0);
    cluster.stop().await;
}

/// AW44: members that restart one after the other cost no list.
#[tokio::test(flavor = "multi_thread")]
async fn aw44_members_that_restart_cost_no_list() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let client = client(&cluster);
    client.put("f/a", "0").await.unwrap();
    let informer = informer(&client, "f/");
    let reader = informer.reader().clone();
    reader.wait_for(1, PATIENCE).await.unwrap();
    let mut last = 0;
    for member in 0..3 {
        cluster.stop_member(member).await;
        last = written(&client, &format!("f/{member}")).await;
        cluster.start_member(member).await.unwrap();
        let snapshot = reader.wait_for(last, PATIENCE).await.unwrap();
        assert!(snapshot.get(format!("f/{member}")).unwrap().is_some());
    }
    assert_eq!(reader.health().relists.total(), 0);
    assert!(reader.snapshot().revision() >= last);
    assert!(matches!(reader.verify().await.unwrap(), Verified::Same { .. }));
    cluster.stop().await;
}

/// Puts until that is acknowledged.
async fn written(client: &Client, key: &str) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.put(key.to_owned(), "x").await {
            Ok(revision) => return revision,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// AW21, AW22, AW25: who waits for the revision of a write sees it, also when it was written outside of the range; nobody
/// waits for the server's next word of progress, which comes each ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn aw22_who_waits_for_a_write_sees_it_and_waits_for_nothing_else() {
    let cluster = TestCluster::three().await.unwrap();
    let writer = Client::new([cluster.endpoint(1)]).unwrap();
    let informer = informer(&Client::new([cluster.endpoint(2)]).unwrap(), "f/");
    let reader = informer.reader();
    for n in 0..50 {
        let revision = writer.put("f/a", n.to_string()).await.unwrap();
        let snapshot = reader.wait_for(revision, PATIENCE).await.unwrap();
        assert_eq!(*snapshot.get("f/a").unwrap().unwrap().value(), n.to_string());
    }
    for n in 0..10 {
        let revision = writer.put("elsewhere", n.to_string()).await.unwrap();
        let snapshot = reader.wait_for(revision, PATIENCE).await.unwrap();
        assert!(snapshot.revision() >= revision);
    }
    let ahead = reader.snapshot().revision() + 1_000;
    let late = reader.wait_for(ahead, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(late, WaitError::Late { wanted, .. } if wanted == ahead), "never ok when it is not");
    informer.stop().await;
    cluster.stop().await;
}

/// A generator of numbers, the same always.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// One random write.
async fn write(client: &Client, random: &mut Lcg) -> u64 {
    let key = |random: &mut Lcg| format!("f/{:02}", random.below(60));
    let value = |random: &mut Lcg| {
        if random.below(20) == 0 { "!".to_owned() } else { random.below(9_999).to_string() }
    };
    match random.below(10) {
        0..6 => client.put(key(random), value(random)).await.unwrap(),
        6..8 => client.delete(key(random)).await.unwrap().revision,
        8 => {
            let from = random.below(60);
            let range = KeyRange::between(format!("f/{from:02}"), format!("f/{:02}", from + 4));
            client.delete_range(range).await.unwrap().revision
        }
        _ => {
            let (a, b) = (random.below(30), 30 + random.below(30));
            let txn = Txn::new()
                .when(Compare::exists(format!("f/{a:02}")))
                .then(Op::put(format!("f/{a:02}"), value(random)))
                .then(Op::put(format!("f/{b:02}"), value(random)))
                .or_else(Op::put(format!("f/{a:02}"), value(random)));
            client.txn(txn).await.unwrap().revision
        }
    }
}

/// AW37: after 1,000 random writes, with cuts and a compaction in between, the cache has the digest of what the server
/// has at the same revision; and what its subscriber was told, change by change, is the same.
#[tokio::test(flavor = "multi_thread")]
async fn aw37_after_a_thousand_random_writes_the_digests_are_equal() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    let relay = Relay::to(&cluster.endpoint(0)).await;
    let informer = informer(&Client::new([relay.endpoint.clone()]).unwrap(), "f/");
    let reader = informer.reader();
    let mut subscription = reader.subscribe_with(64);
    assert_eq!(told(&mut subscription).await, "synced 0");
    let mut random = Lcg(7);
    let mut last = 0;
    for n in 0..1_000 {
        match n {
            300 | 600 => relay.refuse(true),
            350 => relay.refuse(false),
            650 => {
                compact(&cluster, last).await;
                relay.refuse(false);
            }
            _ => {}
        }
        last = write(&client, &mut random).await;
        if n % 100 == 99 && n != 299 && n != 599 {
            reader.wait_for(last, PATIENCE).await.unwrap();
            assert!(matches!(reader.verify().await.unwrap(), Verified::Same { .. }), "after write {n}");
        }
    }
    let snapshot = reader.wait_for(last, PATIENCE).await.unwrap();
    let stored =
        client.list_all(KeyRange::prefix("f/"), ReadLevel::Exact(snapshot.revision())).await.unwrap();
    assert_eq!(snapshot.digest(), Digest::of(&stored.value));
    assert_eq!(reader.health().relists, Relists { compacted: 1, ..Relists::default() });
    // The subscriber was not read: it lags, and still comes to the same.
    let mut known = std::collections::BTreeMap::new();
    let mut at = 0;
    while at < snapshot.revision() {
        let event = next(&mut subscription).await;
        assert!(event.snapshot().revision() > at, "in order, and none twice");
        at = event.snapshot().revision();
        for change in event.changes() {
            match change.object() {
                Some(object) => known.insert(object.key().to_vec(), object.value().clone()),
                None => known.remove(change.key()),
            };
        }
        if reader.snapshot().revision() == at || event.snapshot().digest() == snapshot.digest() {
            break;
        }
    }
    let shown: Vec<_> =
        snapshot.iter().map(|object| (object.key().to_vec(), object.value().clone())).collect();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), shown);
    assert_eq!(reader.health().lagged, 1);
    cluster.stop().await;
}

/// AW8: what cannot be decoded is told, is there, and stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn aw8_what_cannot_be_decoded_is_told_and_stops_nothing() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    client.put("f/a", "!").await.unwrap();
    client.put("f/b", "1").await.unwrap();
    let informer = informer(&client, "f/");
    let reader = informer.reader();
    let mut subscription = reader.subscribe();
    assert_eq!(told(&mut subscription).await, "synced 2");
    assert_eq!(shown(&informer), ["f/b=1"]);
    let snapshot = reader.snapshot();
    let unreadable = snapshot.get("f/a").expect_err("it is there, and is no text");
    assert!(unreadable.to_string().ends_with("cannot be decoded: it begins with !"), "{unreadable}");
    for (key, value, expected) in
        [("f/b", "!", "?f/b<1"), ("f/b", "!!", "?f/b<"), ("f/a", "2", "+f/a=2"), ("f/c", "!", "?f/c<")]
    {
        client.put(key, value).await.unwrap();
        assert_eq!(told(&mut subscription).await, expected);
    }
    client.delete("f/b").await.unwrap();
    assert_eq!(told(&mut subscription).await, "-f/b<?");
    assert_eq!((reader.health().unreadable, reader.health().objects), (1, 2));
    assert!(matches!(reader.verify().await.unwrap(), Verified::Same { .. }), "the digest is of all keys");
    cluster.stop().await;
}

/// AW37: a list that somebody asks for tells nothing when nothing is different.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_asked_for_tells_only_what_is_different() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    client.put("f/a", "1").await.unwrap();
    let informer = informer(&client, "f/");
    let mut subscription = informer.reader().subscribe();
    assert_eq!(told(&mut subscription).await, "synced 1");
    let before = informer.reader().snapshot();
    informer.reader().relist();
    assert_eq!(told(&mut subscription).await, "relisted for another reason: ");
    let (a, b) = (before.get("f/a").unwrap().unwrap(), informer.reader().snapshot());
    assert!(std::sync::Arc::ptr_eq(a, b.get("f/a").unwrap().unwrap()), "nothing is decoded twice");
    assert_eq!(informer.reader().health().relists, Relists { asked: 1, ..Relists::default() });
    cluster.stop().await;
}

/// AW15, AW44: an informer that is stopped, or dropped, leaves no task; who follows or waits is told; readers still read.
#[tokio::test(flavor = "multi_thread")]
async fn aw15_an_informer_that_ends_leaves_no_task_and_tells_all_who_wait() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    client.put("f/a", "1").await.unwrap();
    let first = informer(&client, "f/");
    let reader = first.reader().clone();
    reader.wait_for(1, PATIENCE).await.unwrap();
    let mut subscription = reader.subscribe();
    assert_eq!(told(&mut subscription).await, "synced 1");
    let ahead = reader.clone();
    let waiting = tokio::spawn(async move { ahead.wait_for(1_000, PATIENCE).await });
    first.stop().await;
    assert!(subscription.next().await.is_none());
    assert!(matches!(waiting.await.unwrap(), Err(WaitError::Stopped { wanted: 1_000, .. })));
    assert_eq!((reader.state(), reader.snapshot().len()), (InformerState::Stopped, 1));
    assert!(reader.subscribe().next().await.is_none(), "nothing follows");
    // Many at once, ended in each state.
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let base = tasks();
    for round in 0..20 {
        let informers: Vec<_> = (0..20).map(|_| informer(&client, "f/")).collect();
        if round % 2 == 0 {
            for informer in &informers {
                informer.reader().wait_for(1, PATIENCE).await.unwrap();
            }
        }
        for (n, informer) in informers.into_iter().enumerate() {
            if n % 2 == 0 { informer.stop().await } else { drop(informer) }
        }
    }
    let deadline = Instant::now() + PATIENCE;
    // Beside them a stream of watches may still end, and connections of the members come and go.
    while tasks() > base + 8 {
        assert!(Instant::now() < deadline, "{} tasks, {base} before", tasks());
        tokio::task::yield_now().await;
    }
    cluster.stop().await;
}

/// AW13: many watches of one client share its stream; each informer sees its own range, in order.
#[tokio::test(flavor = "multi_thread")]
async fn aw13_informers_of_one_client_each_see_their_range() {
    let cluster = TestCluster::single().await.unwrap();
    let client = client(&cluster);
    let informers: Vec<_> = (0..20)
        .map(|n| client.informer(KeyRange::prefix(Bytes::from(format!("{n:02}/"))), texts()))
        .collect();
    let mut last = 0;
    for round in 0..10 {
        for n in 0..20 {
            last = client.put(format!("{n:02}/k"), format!("{n} {round}")).await.unwrap();
        }
    }
    for (n, informer) in informers.iter().enumerate() {
        let snapshot = informer.reader().wait_for(last, PATIENCE).await.unwrap();
        let values: Vec<_> = snapshot.iter().map(|object| object.value().clone()).collect();
        assert_eq!(values, [format!("{n} 9")]);
    }
    cluster.stop().await;
}
