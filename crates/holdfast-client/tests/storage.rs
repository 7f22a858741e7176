//! NS1 to NS9, NS16 to NS20, NS22, AW9 to AW11: what a store promises, in memory and on a cluster alike, by one suite.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/etcd.rs"]
mod etcd;
#[path = "storage/suite.rs"]
mod suite;

use std::time::Duration;

use bytes::Bytes;
use holdfast_client::store::{
    ClusterStorage, Conditions, Lifetime, Limits, MemoryStorage, Selection, Storage, StorageWatch, StoreError,
};
use holdfast_client::{Client, KeyRange, ReadLevel};
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use tokio::time::Instant;

/// More than anything takes, on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes that the store in memory remembers here.
const CHANGES_MAX: usize = 512;

/// A store, and a way to make it forget.
pub(crate) trait Backend: Sync {
    /// What it gives.
    type Storage: Storage + Clone;

    /// The store. Tests use keys that begin with their own name.
    fn storage(&self) -> Self::Storage;

    /// Forgets all versions before the newest one.
    async fn compact(&self);
}

struct Memory(MemoryStorage);

impl Backend for Memory {
    type Storage = MemoryStorage;

    fn storage(&self) -> MemoryStorage {
        self.0.clone()
    }

    async fn compact(&self) {
        for n in 0..=CHANGES_MAX {
            self.0.put("filler".into(), n.to_string().into(), Conditions::none()).await.unwrap();
        }
    }
}

struct Cluster {
    client: Client,
    endpoint: String,
}

impl Cluster {
    fn of(cluster: &TestCluster) -> Self {
        Self { client: Client::new(cluster.endpoints()).unwrap(), endpoint: cluster.endpoint(0) }
    }
}

impl Backend for Cluster {
    type Storage = ClusterStorage;

    fn storage(&self) -> ClusterStorage {
        ClusterStorage::new(self.client.clone())
    }

    async fn compact(&self) {
        let newest = self.client.count(KeyRange::key("x"), ReadLevel::Linearizable).await.unwrap().revision;
        let revision = i64::try_from(newest).unwrap();
        let mut kv = KvClient::connect(self.endpoint.clone()).await.unwrap();
        kv.compact(pb::CompactionRequest { revision, physical: false }).await.unwrap();
    }
}

/// NS22: the suite runs on a store in memory.
#[tokio::test(flavor = "multi_thread")]
async fn ns22_the_suite_holds_in_memory() {
    let limits = Limits { changes_max: CHANGES_MAX, ..Limits::default() };
    suite::all(&Memory(MemoryStorage::with_limits(limits))).await;
}

/// NS22: the suite runs unchanged on a cluster of one.
#[tokio::test(flavor = "multi_thread")]
async fn ns22_the_suite_holds_on_a_cluster_of_one() {
    let cluster = TestCluster::single().await.unwrap();
    suite::all(&Cluster::of(&cluster)).await;
    cluster.stop().await;
}

/// NS22, NS1: the suite runs unchanged on three members, any of which may answer.
#[tokio::test(flavor = "multi_thread")]
async fn ns22_the_suite_holds_on_three_members() {
    let cluster = TestCluster::three().await.unwrap();
    suite::all(&Cluster::of(&cluster)).await;
    cluster.stop().await;
}

/// NS22: the suite runs unchanged on a real etcd.
#[tokio::test(flavor = "multi_thread")]
async fn ns22_the_suite_holds_on_a_real_etcd() {
    let Some(etcd) = etcd::Etcd::start("the suite of stores").await else { return };
    let endpoint = etcd.endpoint();
    suite::all(&Cluster { client: Client::new([endpoint.clone()]).unwrap(), endpoint }).await;
}

/// NS7: behind version 0 is all that ever happened, in memory and on a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn ns7_a_watch_behind_version_zero_tells_all_from_the_first_change_on() {
    async fn first(storage: &impl Storage) {
        let item = storage.put("k".into(), "1".into(), Conditions::none()).await.unwrap();
        let mut watch = storage.watch_prefix("k".into(), Some(0), Selection::all()).await.unwrap();
        let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(told.current, Some(item), "{}", storage.backend());
    }
    first(&MemoryStorage::new()).await;
    let cluster = TestCluster::single().await.unwrap();
    let on_cluster = Cluster::of(&cluster);
    first(&on_cluster.storage()).await;
    on_cluster.storage().put("k".into(), "2".into(), Conditions::none()).await.unwrap();
    on_cluster.compact().await;
    let refused = on_cluster.storage().watch_prefix("k".into(), Some(0), Selection::all()).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Compacted { wanted: 0, .. })), "{refused:?}");
    cluster.stop().await;
}

/// NS1: what was written through one member is waited for on each.
#[tokio::test(flavor = "multi_thread")]
async fn ns1_a_version_is_waited_for_on_each_member() {
    let cluster = TestCluster::three().await.unwrap();
    let all: Vec<_> = cluster
        .endpoints()
        .into_iter()
        .map(|endpoint| ClusterStorage::new(Client::new([endpoint]).unwrap()))
        .collect();
    for n in 0..30 {
        let item = all[n % 3].put("k".into(), n.to_string().into(), Conditions::none()).await.unwrap();
        for storage in &all {
            assert!(storage.wait(item.version, PATIENCE).await.unwrap() >= item.version);
            let seen = storage.get("k".into(), ReadLevel::AtLeast(item.version)).await.unwrap();
            assert_eq!(seen.version, item.version);
        }
    }
    cluster.stop().await;
}

async fn leases(cluster: &TestCluster) -> Vec<i64> {
    let mut client = LeaseClient::connect(cluster.endpoint(0)).await.unwrap();
    let answer = client.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    answer.leases.into_iter().map(|lease| lease.id).collect()
}

/// AW9, AW10: objects with the same time to live share a lease, a thousand at most.
#[tokio::test(flavor = "multi_thread")]
async fn aw10_objects_that_are_put_together_share_a_lease() {
    const OBJECTS: usize = 2_100;
    let cluster = TestCluster::single().await.unwrap();
    let storage = Cluster::of(&cluster).storage();
    let hour = Conditions::prev_version(0).with_lifetime(Lifetime::Ttl(Duration::from_secs(3_600)));
    let puts = (0..OBJECTS).map(|n| storage.put(format!("ttl/{n}").into(), Bytes::new(), hour));
    for put in futures::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(leases(&cluster).await.len(), 3);
    let other = hour.with_lifetime(Lifetime::Ttl(Duration::from_secs(7_200)));
    storage.put("ttl/other".into(), Bytes::new(), other).await.unwrap();
    assert_eq!(leases(&cluster).await.len(), 4);
    // A lease that somebody revokes is not used any more.
    let mut client = LeaseClient::connect(cluster.endpoint(0)).await.unwrap();
    for id in leases(&cluster).await {
        client.lease_revoke(pb::LeaseRevokeRequest { id }).await.unwrap();
    }
    assert_eq!(storage.count("ttl/".into(), ReadLevel::Linearizable).await.unwrap(), 0);
    storage.put("ttl/again".into(), Bytes::new(), hour).await.unwrap();
    assert_eq!(leases(&cluster).await.len(), 1);
    cluster.stop().await;
}

/// AW9: what has a time to live is gone behind it, and not before; what is written again without one stays.
#[tokio::test(flavor = "multi_thread")]
async fn aw9_an_object_lives_as_long_as_it_is_to() {
    let cluster = TestCluster::single().await.unwrap();
    let storage = Cluster::of(&cluster).storage();
    let began = Instant::now();
    let ttl = Duration::from_secs(2);
    let short = Conditions::none().with_lifetime(Lifetime::Ttl(ttl));
    let kept = storage.put("kept".into(), "1".into(), short).await.unwrap();
    storage.put("short".into(), "1".into(), short).await.unwrap();
    let keep = Conditions::prev_version(kept.version).with_lifetime(Lifetime::Kept);
    let kept = storage.put("kept".into(), "2".into(), keep).await.unwrap();
    let stays = storage.put("stays".into(), "1".into(), short).await.unwrap();
    storage.put("stays".into(), "2".into(), Conditions::prev_version(stays.version)).await.unwrap();
    for key in ["short", "kept"] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = storage.get(key.into(), ReadLevel::Linearizable).await;
            if matches!(read, Err(StoreError::NotFound { .. })) {
                assert!(began.elapsed() >= ttl, "{key} was gone too early");
                break;
            }
            assert!(Instant::now() < deadline, "{key} lives on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(storage.get("stays".into(), ReadLevel::Linearizable).await.unwrap().value, "2");
    let wrong = storage.put("kept".into(), "3".into(), Conditions::prev_version(kept.version)).await;
    assert!(matches!(wrong, Err(StoreError::Conflict { current: None, .. })));
    cluster.stop().await;
}
