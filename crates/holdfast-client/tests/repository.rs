//! RS1 to RS21: what a repository promises, tested by one suite that does not know what is behind it.
//!
//! `suite` has the tests; here are the backends that it runs on: in memory, on a member, on three members through three
//! clients, on a real etcd where there is one, and with objects that are sealed at rest.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "repository/cluster.rs"]
mod cluster;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "repository/memory.rs"]
mod memory;
#[path = "repository/report.rs"]
mod report;
#[path = "repository/suite.rs"]
mod suite;

use std::sync::Arc;

use holdfast_client::Client;
use holdfast_client::repo::{ClusterRepository, MemoryRepository, Place, Repository, Scope};
use holdfast_client::store::{
    AesGcm, ClusterStorage, Json, MemoryStorage, PrefixChain, Storage, Transformer, TypedStore,
};
use holdfast_testserver::TestCluster;
use report::Report;

/// Repositories for tests: each call gives new ones, which nobody else uses.
pub(crate) trait Backend: Sync {
    /// What it gives.
    type Repository: Repository<Report>;

    /// Several ways to one repository that is empty: different clients of different members, where there are some.
    fn repositories(&self, test: &str, scope: Scope) -> Vec<Self::Repository>;

    /// One.
    fn repository(&self, test: &str, scope: Scope) -> Self::Repository {
        self.repositories(test, scope).remove(0)
    }
}

struct Memory;

impl Backend for Memory {
    type Repository = MemoryRepository<Report>;

    fn repositories(&self, _test: &str, scope: Scope) -> Vec<Self::Repository> {
        let repository = MemoryRepository::new(scope);
        vec![repository.clone(), repository.clone(), repository]
    }
}

/// A cluster that all tests of a run share; each has a group of its own.
struct Cluster {
    clients: Vec<Client>,
}

impl Backend for Cluster {
    type Repository = ClusterRepository<Report>;

    fn repositories(&self, test: &str, scope: Scope) -> Vec<Self::Repository> {
        let place = || Place::new(test, "reports");
        let on = |client: &Client| ClusterRepository::new(client.clone(), place(), scope).unwrap();
        self.clients.iter().map(on).collect()
    }
}

/// The cluster's repository over a store of one's own, with objects that are sealed.
struct Sealed<S> {
    storage: S,
}

fn chain() -> impl Transformer {
    PrefixChain::new("holdfast:enc:aesgcm:1:", Arc::new(AesGcm::new(&[7; 32])))
}

impl<S: Storage + Clone> Backend for Sealed<S> {
    type Repository = ClusterRepository<Report, Json, Box<dyn Transformer>, S>;

    fn repositories(&self, test: &str, scope: Scope) -> Vec<Self::Repository> {
        let transformer: Box<dyn Transformer> = Box::new(chain());
        let store = TypedStore::new(self.storage.clone(), Json, transformer);
        vec![ClusterRepository::on(store, Place::new(test, "reports"), scope).unwrap()]
    }
}

fn each_member(cluster: &TestCluster) -> Vec<Client> {
    cluster.endpoints().into_iter().map(|endpoint| Client::new([endpoint]).unwrap()).collect()
}

/// A test for each rule.
macro_rules! in_memory {
    ($($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $rule() {
            suite::$rule(&Memory).await;
        }
    )*};
}

mod in_memory {
    use super::{Memory, suite};
    suite::rules!(in_memory);
}

/// RS1: the suite runs unchanged on a cluster of one. The rules run one after the other: they share its members.
#[tokio::test(flavor = "multi_thread")]
async fn rs1_the_suite_holds_on_a_cluster_of_one() {
    let cluster = TestCluster::single().await.unwrap();
    suite::all(&Cluster { clients: vec![Client::new(cluster.endpoints()).unwrap()] }).await;
    cluster.stop().await;
}

/// RS1, RS4: the suite runs unchanged on three members, each with a client of its own.
#[tokio::test(flavor = "multi_thread")]
async fn rs1_the_suite_holds_on_three_members_through_three_clients() {
    let cluster = TestCluster::three().await.unwrap();
    suite::all(&Cluster { clients: each_member(&cluster) }).await;
    cluster.stop().await;
}

/// AW3: the suite runs unchanged with a store in memory behind a codec and a transformer.
#[tokio::test(flavor = "multi_thread")]
async fn aw3_the_suite_holds_for_sealed_objects_in_memory() {
    suite::all(&Sealed { storage: MemoryStorage::new() }).await;
}

/// AW3: and with sealed objects on a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn aw3_the_suite_holds_for_sealed_objects_on_a_cluster() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    suite::all(&Sealed { storage: ClusterStorage::new(client) }).await;
    cluster.stop().await;
}

/// RS1: the suite runs unchanged on a real etcd.
#[tokio::test(flavor = "multi_thread")]
async fn rs1_the_suite_holds_on_a_real_etcd() {
    let Some(etcd) = etcd::Etcd::start("the suite of repositories").await else { return };
    let client = || Client::new([etcd.endpoint()]).unwrap();
    suite::all(&Cluster { clients: vec![client(), client()] }).await;
}
