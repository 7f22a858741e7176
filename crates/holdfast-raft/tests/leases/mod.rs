//! Leases on three members over real gRPC: kept alive and ended through any member, across leaders, many at once.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Cluster, PATIENCE, Running, eventually, get, put};
use holdfast_mvcc::command::{Command, LeaseExpire, LeaseGrant, Put, Refusal};
use holdfast_mvcc::types::{LeaseId, LeaseRef, Term};
use holdfast_raft::Node;

/// More log than any test here writes.
const NO_DUMPS: u64 = 1 << 30;

async fn grant(node: &Node, id: i64, ttl_seconds: u64) {
    let grant = Command::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl_seconds });
    node.propose(grant, PATIENCE).await.unwrap().outcome.response.unwrap();
}

async fn attach(node: &Node, key: &str, id: i64) {
    let put = Put {
        key: key.to_owned().into(),
        value: "v".into(),
        lease: Some(LeaseId(id)),
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    node.propose(Command::Put(put), PATIENCE).await.unwrap().outcome.response.unwrap();
}

/// The lease that has this id on a member, by the entry that granted it.
fn named(member: &Running, id: i64) -> LeaseRef {
    let id = LeaseId(id);
    LeaseRef { id, granted_at: member.storage.lease(id).unwrap().granted_at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_kept_alive_through_any_member_and_ends_without() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    cluster.leader(&[]).await;
    grant(&cluster.member(0).node, 7, 2).await;
    attach(&cluster.member(1).node, "kept", 7).await;
    let mut alive_until = Instant::now();
    for round in 0..9 {
        let node = &cluster.member(round % 3).node;
        alive_until = Instant::now() + Duration::from_secs(2);
        assert_eq!(node.keep_alive(LeaseId(7), PATIENCE).await.unwrap(), Some(2));
        let left = node.lease_left(LeaseId(7), PATIENCE).await.unwrap().unwrap();
        assert!(left.granted_seconds == 2 && left.left > Duration::from_secs(1), "{left:?}");
        assert_eq!(get(&cluster.member(round % 3).storage, "kept").as_deref(), Some("v"), "round {round}");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    for member in 0..3 {
        let storage = &cluster.member(member).storage;
        eventually("the key is gone", || get(storage, "kept").is_none().then_some(())).await;
        assert!(Instant::now() >= alive_until, "too early");
        let node = &cluster.member(member).node;
        assert_eq!(node.keep_alive(LeaseId(7), PATIENCE).await.unwrap(), None);
        assert_eq!(node.lease_left(LeaseId(7), PATIENCE).await.unwrap(), None);
    }
    cluster.stop_all().await;
}

/// etcd's #15247: a leader that is cut off judges leases that its successor keeps alive. Neither may it answer for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_ends_no_lease_and_keeps_none_alive() {
    let mut cluster = Cluster::start_with(3, NO_DUMPS, Duration::from_secs(1)).await;
    let old = cluster.leader(&[]).await;
    let other = (old + 1) % 3;
    grant(&cluster.member(old).node, 7, 2).await;
    attach(&cluster.member(old).node, "kept", 7).await;
    let term = cluster.member(old).node.health().term.get();
    let lease = named(cluster.member(old), 7);
    cluster.member(old).net.cut();
    let budget = Duration::from_millis(500);
    assert!(cluster.member(old).node.keep_alive(LeaseId(7), budget).await.is_err());
    // For much longer than the lease lives, so that the old leader has judged it.
    for _ in 0..14 {
        let kept = cluster.member(other).node.keep_alive(LeaseId(7), PATIENCE).await.unwrap();
        assert_eq!(kept, Some(2));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    cluster.member(old).net.mend();
    let late = LeaseExpire { term: Term(term), leases: vec![lease] };
    let answer = cluster.member(other).node.propose(Command::LeaseExpire(late), PATIENCE).await.unwrap();
    assert!(matches!(answer.outcome.response, Err(Refusal::OtherTerm { .. })), "{answer:?}");
    for _ in 0..10 {
        let node = &cluster.member(old).node;
        assert_eq!(node.keep_alive(LeaseId(7), PATIENCE).await.unwrap(), Some(2), "through the old one");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(get(&cluster.member(old).storage, "kept").as_deref(), Some("v"));
    eventually("it ends", || get(&cluster.member(old).storage, "kept").is_none().then_some(())).await;
    cluster.stop_all().await;
}

/// The proposal to end a lease waited for its place in the log: meanwhile the lease was revoked, and its id granted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_end_is_not_that_of_a_lease_granted_again() {
    let mut cluster = Cluster::start(1, NO_DUMPS).await;
    cluster.leader(&[]).await;
    let member = cluster.member(0);
    let propose = |command| member.node.propose(command, PATIENCE);
    grant(&member.node, 7, 60).await;
    let old = named(member, 7);
    propose(Command::LeaseRevoke(LeaseId(7))).await.unwrap().outcome.response.unwrap();
    grant(&member.node, 7, 60).await;
    attach(&member.node, "k", 7).await;
    let end = |lease| LeaseExpire { term: Term(member.node.health().term.get()), leases: vec![lease] };
    let late = propose(Command::LeaseExpire(end(old))).await.unwrap();
    assert!(late.outcome.response.is_ok(), "{late:?}");
    assert_eq!(get(&member.storage, "k").as_deref(), Some("v"));
    assert_ne!(named(member, 7), old);
    let own = propose(Command::LeaseExpire(end(named(member, 7)))).await.unwrap();
    assert!(own.outcome.response.is_ok() && get(&member.storage, "k").is_none(), "{own:?}");
    assert_eq!(member.storage.lease(LeaseId(7)), None);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlive_a_leader_and_a_restart_and_then_end() {
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    let old = cluster.leader(&[]).await;
    grant(&cluster.member(old).node, 7, 3).await;
    attach(&cluster.member(old).node, "k", 7).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.stop(old).await;
    let new = cluster.leader(&[old]).await;
    let left = cluster.member(new).node.lease_left(LeaseId(7), PATIENCE).await.unwrap().unwrap();
    assert!(left.left > Duration::from_secs(2), "{left:?}: all of the time again");
    cluster.restart(old).await;
    assert_eq!(cluster.member(old).node.keep_alive(LeaseId(7), PATIENCE).await.unwrap(), Some(3));
    for member in 0..3 {
        let storage = &cluster.member(member).storage;
        eventually("the key is gone", || get(storage, "k").is_none().then_some(())).await;
        assert!(storage.lease_ids().is_empty());
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leases_that_end_together_hold_no_write_up() {
    const LEASES: i64 = 3000;
    let mut cluster = Cluster::start(3, NO_DUMPS).await;
    let leader = cluster.leader(&[]).await;
    let node = cluster.member(leader).node.clone();
    let grants = (0..30).map(|writer| {
        let node = node.clone();
        tokio::spawn(async move {
            for id in (1..=LEASES).filter(|id| id % 30 == writer) {
                grant(&node, id, 4).await;
                if id % 3 == 0 {
                    attach(&node, &format!("k{id}"), id).await;
                }
            }
        })
    });
    for grant in grants.collect::<Vec<_>>() {
        grant.await.unwrap();
    }
    let storage = &cluster.member((leader + 1) % 3).storage;
    let mut slowest = Duration::ZERO;
    let deadline = Instant::now() + PATIENCE;
    while !storage.lease_ids().is_empty() {
        let began = Instant::now();
        put(&node, "beside", b"v", PATIENCE).await.unwrap();
        slowest = slowest.max(began.elapsed());
        assert!(Instant::now() < deadline, "{} leases are left", storage.lease_ids().len());
    }
    assert!(slowest < Duration::from_secs(2), "a write took {slowest:?}");
    assert_eq!(storage.status().keys > 0, get(storage, "beside").is_some());
    assert_eq!(get(storage, "k3"), None);
    assert!(cluster.member(leader).node.health().leases_expired >= LEASES.unsigned_abs());
    cluster.stop_all().await;
}
