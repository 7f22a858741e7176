//! Leases on three real processes: through any member, across a killed leader, a stopped one, and a restart of all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::harness::cluster::{Cluster, System};
use cluster_tests::workload::lease_fencing;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::lease_client::LeaseClient;
use holdfast_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest, WatchCreateRequest, WatchRequest, watch_client::WatchClient, watch_request,
};
use holdfast_proto::mvccpb::event::EventType;
use tonic::transport::{Channel, Endpoint};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one call may take before it is tried again.
const CALL: Duration = Duration::from_secs(10);

/// Clients of all members.
struct Clients(Vec<Channel>);

impl Clients {
    fn new(cluster: &Cluster) -> Result<Self> {
        let channel = |url: String| Ok(Endpoint::from_shared(url)?.timeout(CALL).connect_lazy());
        Ok(Self(cluster.endpoints().into_iter().map(channel).collect::<Result<_>>()?))
    }

    fn leases(&self, member: usize) -> LeaseClient<Channel> {
        LeaseClient::new(self.0[member].clone())
    }

    async fn grant(&self, member: usize, ttl: i64, id: i64) -> Result<i64> {
        let request = LeaseGrantRequest { ttl, id };
        Ok(self.leases(member).lease_grant(request).await?.into_inner().id)
    }

    async fn attach(&self, member: usize, key: &str, lease: i64) -> Result<()> {
        let request = PutRequest { key: key.to_owned().into(), lease, ..Default::default() };
        KvClient::new(self.0[member].clone()).put(request).await?;
        Ok(())
    }

    async fn exists(&self, member: usize, key: &str) -> Result<bool> {
        let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
        Ok(KvClient::new(self.0[member].clone()).range(request).await?.into_inner().count > 0)
    }

    /// One keep-alive on a stream of its own.
    async fn keep_alive(&self, member: usize, id: i64) -> Result<i64> {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        let mut answers = self.leases(member).lease_keep_alive(requests).await?.into_inner();
        let answer = answers.message().await?.context("the stream ended without an answer")?;
        ensure!(answer.id == id && answer.header.is_some());
        Ok(answer.ttl)
    }

    /// As a client does it: whatever fails is tried again, on the members in turn.
    async fn keep_alive_somewhere(&self, members: &[usize], id: i64) -> Result<i64> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        for member in members.iter().cycle() {
            match tokio::time::timeout(Duration::from_millis(1500), self.keep_alive(*member, id)).await {
                Ok(Ok(ttl)) => return Ok(ttl),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            }
            if Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no answer")))
    }

    async fn until_gone(&self, member: usize, key: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let exists = self.exists(member, key).await;
            if matches!(exists, Ok(false)) {
                break;
            }
            ensure!(Instant::now() < deadline, "{key} is still there on member {member}: {exists:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

async fn start() -> (Cluster, Clients) {
    let system = System::holdfast(&[]).expect("a binary to test");
    let cluster = Cluster::start(system, 3).await.expect("three members");
    let clients = Clients::new(&cluster).expect("endpoints");
    (cluster, clients)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_lives_and_ends_through_any_member() -> Result<()> {
    let (_cluster, clients) = start().await;
    let id = clients.grant(0, 0, 0).await?;
    assert!(id > 0);
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"l"),
        ..Default::default()
    };
    let request = watch_request::RequestUnion::CreateRequest(create);
    sender.send(WatchRequest { request_union: Some(request) }).await?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let channel = clients.0[2].clone();
    let mut events = WatchClient::new(channel).watch(requests).await?.into_inner();
    ensure!(events.message().await?.context("created")?.created);
    for (member, key) in ["k2", "k1", "k3"].into_iter().enumerate() {
        clients.attach(member, key, id).await?;
    }
    for round in 0..6 {
        assert_eq!(clients.keep_alive(round % 3, id).await?, 2);
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let told = clients.leases((round + 1) % 3).lease_time_to_live(request).await?.into_inner();
        assert_eq!((told.granted_ttl, told.keys.len()), (2, 3));
        assert!(told.ttl <= 2 && clients.exists(round % 3, "k1").await?);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    for member in 0..3 {
        clients.until_gone(member, "k1").await?;
        assert_eq!(clients.keep_alive(member, id).await?, 0);
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let told = clients.leases(member).lease_time_to_live(request).await?.into_inner();
        assert_eq!((told.ttl, told.granted_ttl), (-1, 0));
        let listed = clients.leases(member).lease_leases(LeaseLeasesRequest {}).await?.into_inner();
        assert!(listed.leases.is_empty());
    }
    // What was put, each at its own revision, and then all deletes at one, in the order of the keys.
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.extend(events.message().await?.context("events")?.events);
    }
    let deleted = seen.split_off(3);
    assert!(deleted.iter().all(|event| event.r#type() == EventType::Delete));
    let kvs: Vec<_> = deleted.into_iter().filter_map(|event| event.kv).collect();
    assert!(kvs.iter().all(|kv| kv.mod_revision == kvs[0].mod_revision));
    assert!(kvs.iter().map(|kv| &kv.key[..]).eq([&b"k1"[..], b"k2", b"k3"]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_outlives_the_leader_and_a_restart_of_all_and_then_ends() -> Result<()> {
    let (mut cluster, clients) = start().await;
    clients.grant(0, 5, 7).await?;
    clients.attach(1, "kept", 7).await?;
    clients.grant(0, 4, 8).await?;
    clients.attach(1, "lost", 8).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let leader = cluster.leader(PATIENCE).await?;
    cluster.kill(leader)?;
    let others: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    assert_eq!(clients.keep_alive_somewhere(&others, 7).await?, 5);
    let new_leader_at = Instant::now();
    assert!(clients.exists(others[0], "lost").await?, "a new leader gives all of the time again");
    while new_leader_at.elapsed() < Duration::from_secs(8) {
        assert_eq!(clients.keep_alive_somewhere(&others, 7).await?, 5);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    clients.until_gone(others[1], "lost").await?;
    assert!(clients.exists(others[1], "kept").await?);
    cluster.kill_all()?;
    for member in 0..3 {
        cluster.spawn(member)?;
    }
    cluster.wait_ready(PATIENCE).await?;
    let request = LeaseTimeToLiveRequest { id: 7, keys: true };
    let told = clients.leases(leader).lease_time_to_live(request).await?.into_inner();
    assert_eq!((told.granted_ttl, told.keys), (5, vec![Bytes::from_static(b"kept")]));
    for member in 0..3 {
        clients.until_gone(member, "kept").await?;
        assert_eq!(clients.keep_alive(member, 7).await?, 0);
    }
    Ok(())
}

/// The leader stands still for longer than a lease lives, which is kept alive through its successor: etcd's #15247.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_stopped_ends_no_lease() -> Result<()> {
    let (mut cluster, clients) = start().await;
    clients.grant(0, 3, 7).await?;
    clients.attach(1, "kept", 7).await?;
    for round in 0..2 {
        let leader = cluster.leader(PATIENCE).await?;
        assert_eq!(clients.keep_alive_somewhere(&[leader], 7).await?, 3);
        cluster.member(leader).process()?.pause()?;
        let others: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
        let stopped = Instant::now();
        while stopped.elapsed() < Duration::from_secs(6) {
            assert_eq!(clients.keep_alive_somewhere(&others, 7).await?, 3, "round {round}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        cluster.member(leader).process()?.resume()?;
        let back = Instant::now();
        while back.elapsed() < Duration::from_secs(2) {
            assert_eq!(clients.keep_alive_somewhere(&others, 7).await?, 3, "round {round}");
            assert!(clients.exists(others[0], "kept").await?, "round {round}: it ended early");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    clients.until_gone(0, "kept").await
}

/// A short form of `cluster-tests lease-fencing`, which is the long one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_fenced_from_a_leader_that_goes_on() -> Result<()> {
    let plan = lease_fencing::Plan { members: 3, rounds: 2, kept: 3, dying: 4, seed: 1 };
    let report = lease_fencing::run(System::holdfast(&[])?, plan).await?;
    ensure!(report.is_clean(), "{report}");
    ensure!(report.record.stops.len() == 2 && report.record.leases.len() >= 11, "{report}");
    Ok(())
}
