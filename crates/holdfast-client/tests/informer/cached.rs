//! Cached stores.

use holdfast_client::informer::{CachedError, CachedStore, Expected, InformerOptions};
use holdfast_client::store::{Codec, Json};
use holdfast_client::{Client, Error, KeyRange, LeaseId, Put, ReadLevel};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::lease_client::LeaseClient;

use super::{PATIENCE, client, compact};

fn numbers() -> InformerOptions<u64> {
    InformerOptions::decode_with(|kv| Ok(Json.decode(&kv.value)?))
}

fn store(client: &Client) -> (holdfast_client::informer::Informer<u64>, CachedStore<u64, Json>) {
    let informer = client.informer(KeyRange::prefix("n/"), numbers());
    let store = CachedStore::new(informer.reader().clone(), Json).wait_max(PATIENCE);
    (informer, store)
}

async fn number(store: &CachedStore<u64, Json>, key: &'static str, level: ReadLevel) -> Option<u64> {
    store.get(key, level).await.unwrap().value.map(|object| *object.value())
}

/// AW16, AW26, AW27: each level of a read, from the cache, and what it shows.
#[tokio::test(flavor = "multi_thread")]
async fn aw26_reads_come_from_the_cache_and_are_as_fresh_as_asked_for() {
    let cluster = TestCluster::three().await.unwrap();
    let other = client(&cluster);
    let (informer, store) = store(&Client::new([cluster.endpoint(2)]).unwrap());
    let first = other.put("n/a", "1").await.unwrap();
    for n in 2..40 {
        let revision = other.put("n/a", n.to_string()).await.unwrap();
        let level = if n % 2 == 0 { ReadLevel::Linearizable } else { ReadLevel::AtLeast(revision) };
        assert_eq!(number(&store, "n/a", level).await, Some(n), "{level:?}");
        assert_eq!(number(&store, "n/a", ReadLevel::Any).await, Some(n), "the cache has it by then");
    }
    assert_eq!(number(&store, "n/missing", ReadLevel::Linearizable).await, None);
    // A write elsewhere moves the revision, and nothing in the range.
    other.put("elsewhere", "1").await.unwrap();
    assert_eq!(number(&store, "n/a", ReadLevel::Linearizable).await, Some(39));
    // The past comes from the server.
    let read = store.get("n/a", ReadLevel::Exact(first)).await.unwrap();
    assert_eq!((read.value.map(|object| *object.value()), read.revision), (Some(1), first));
    let read = store.list("n/", ReadLevel::Exact(first)).await.unwrap();
    assert_eq!((read.value.len(), read.revision), (1, first));
    compact(&cluster, first + 5).await;
    let gone = store.get("n/a", ReadLevel::Exact(first)).await.unwrap_err();
    assert!(matches!(gone, CachedError::Server(Error::Compacted { .. })), "{gone}");
    let outside = store.get("elsewhere", ReadLevel::Any).await.unwrap_err();
    assert!(matches!(outside, CachedError::OutOfRange { .. }), "{outside}");
    let hasty = store.clone().wait_max(std::time::Duration::from_millis(100));
    let late = hasty.get("n/a", ReadLevel::AtLeast(first + 1_000)).await.unwrap_err();
    assert!(matches!(late, CachedError::Wait(_)), "{late}");
    informer.stop().await;
    cluster.stop().await;
}

/// AW16: writes go to the server, conditions hold there, and what was written is read.
#[tokio::test(flavor = "multi_thread")]
async fn aw16_writes_go_to_the_server_and_are_read_from_the_cache() {
    let cluster = TestCluster::single().await.unwrap();
    let (informer, store) = store(&client(&cluster));
    let created = store.put_if("n/a", &1, Expected::Missing).await.unwrap();
    let conflict = store.put_if("n/a", &2, Expected::Missing).await.unwrap_err();
    match conflict {
        CachedError::Conflict { current: Some(current) } => {
            assert_eq!((*current.value(), current.mod_revision()), (1, created));
        }
        other => panic!("{other}"),
    }
    let changed = store.put_if("n/a", &2, Expected::At(created)).await.unwrap();
    assert_eq!(number(&store, "n/a", ReadLevel::AtLeast(changed)).await, Some(2));
    assert!(matches!(store.delete_if("n/a", created).await, Err(CachedError::Conflict { current: Some(_) })));
    let deleted = store.delete_if("n/a", changed).await.unwrap();
    assert_eq!(number(&store, "n/a", ReadLevel::AtLeast(deleted)).await, None);
    assert!(matches!(
        store.put_if("n/a", &3, Expected::At(changed)).await,
        Err(CachedError::Conflict { current: None })
    ));
    let put = store.put("n/b", &7).await.unwrap();
    let list = store.list("n/", ReadLevel::AtLeast(put)).await.unwrap();
    assert_eq!(list.value.iter().map(|object| *object.value()).collect::<Vec<_>>(), [7]);
    assert!(store.delete("n/b").await.unwrap().existed);
    // What is no number is an error, and never "not there".
    let revision = client(&cluster).put("n/c", "text").await.unwrap();
    let error = store.get("n/c", ReadLevel::AtLeast(revision)).await.unwrap_err();
    assert!(matches!(error, CachedError::Unreadable(_)), "{error}");
    match store.list("n/", ReadLevel::AtLeast(revision)).await.unwrap_err() {
        CachedError::Unreadable(unreadable) => assert_eq!(unreadable.key(), b"n/c"),
        other => panic!("{other}"),
    }
    let beside = store.put("n/d", &8).await.unwrap();
    let list = store.list("n/d", ReadLevel::AtLeast(beside)).await.unwrap();
    assert_eq!(list.value.len(), 1, "what cannot be read is not in this list");
    informer.stop().await;
    cluster.stop().await;
}

/// AW16: revision 0 is that of nothing: it is not what is deleted, and what it is expected of is not there.
#[tokio::test(flavor = "multi_thread")]
async fn aw16_nothing_is_deleted_at_revision_zero() {
    let cluster = TestCluster::single().await.unwrap();
    let (informer, store) = store(&client(&cluster));
    let missing = store.delete_if("n/a", 0).await.unwrap_err();
    assert!(matches!(missing, CachedError::Conflict { current: None }), "{missing}");
    let created = store.put_if("n/a", &1, Expected::At(0)).await.unwrap();
    for refused in [store.put_if("n/a", &2, Expected::At(0)).await, store.delete_if("n/a", 0).await] {
        let CachedError::Conflict { current: Some(current) } = refused.unwrap_err() else {
            panic!("it is there")
        };
        assert_eq!((*current.value(), current.mod_revision()), (1, created));
    }
    informer.stop().await;
    cluster.stop().await;
}

/// AW16: updates that begin with what a cache has, which may be out of date, lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn aw16_updates_through_many_caches_lose_nothing() {
    const CACHES: u64 = 4;
    const UPDATES: u64 = 25;
    let cluster = TestCluster::three().await.unwrap();
    let endpoints = cluster.endpoints();
    let stores: Vec<_> = (0..CACHES)
        .map(|n| store(&Client::new([endpoints[usize::try_from(n).unwrap() % 3].clone()]).unwrap()))
        .collect();
    let updates = stores.iter().map(|(_, store)| async {
        for _ in 0..UPDATES {
            let add = |known: Option<&holdfast_client::informer::Object<u64>>| {
                Some(known.map_or(0, |object| *object.value()) + 1)
            };
            store.update("n/sum", add).await.unwrap().unwrap();
        }
    });
    futures::future::join_all(updates).await;
    for (_, store) in &stores {
        assert_eq!(number(store, "n/sum", ReadLevel::Linearizable).await, Some(CACHES * UPDATES));
    }
    let revision = stores[0].1.update("n/sum", |_| None).await.unwrap();
    assert_eq!(revision, None, "nothing is written when nothing is to be changed");
    cluster.stop().await;
}

/// AW16: what lives with a lease still does when it was updated.
#[tokio::test(flavor = "multi_thread")]
async fn aw16_an_update_keeps_the_lease() {
    let cluster = TestCluster::single().await.unwrap();
    let direct = client(&cluster);
    let mut leases = LeaseClient::connect(cluster.endpoint(0)).await.unwrap();
    leases.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 3_600 }).await.unwrap();
    let first = direct.put_with(Put::new("n/a", "1").lease(LeaseId(7))).await.unwrap().revision;
    let (informer, store) = store(&direct);
    let second = store.put_if("n/a", &2, Expected::At(first)).await.unwrap();
    let add = |known: Option<&holdfast_client::informer::Object<u64>>| known.map(|known| *known.value() + 1);
    let third = store.update("n/a", add).await.unwrap().unwrap();
    assert!(third > second);
    let kv = direct.get("n/a", ReadLevel::Linearizable).await.unwrap().value.unwrap();
    assert_eq!((kv.value.as_ref(), kv.lease), (b"3".as_ref(), Some(LeaseId(7))));
    informer.stop().await;
    cluster.stop().await;
}

/// AW16: an update is left undone because of what is there, and not because of what a cache does not have yet.
#[tokio::test(flavor = "multi_thread")]
async fn aw16_an_update_is_left_undone_only_after_a_look() {
    let cluster = TestCluster::single().await.unwrap();
    let direct = client(&cluster);
    direct.put("n/a", "1").await.unwrap();
    let (_informer, store) = store(&direct);
    // The cache has most likely not listed yet.
    let add = |known: Option<&holdfast_client::informer::Object<u64>>| known.map(|known| *known.value() + 1);
    assert!(store.update("n/a", add).await.unwrap().is_some());
    assert_eq!(number(&store, "n/a", ReadLevel::Linearizable).await, Some(2));
    cluster.stop().await;
}
