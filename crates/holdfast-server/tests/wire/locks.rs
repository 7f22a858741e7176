//! Locks: one holder at a time, in the order of arrival, and nothing left behind by those who gave up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::*;
use crate::lining_up::*;
use crate::three::leader;
use crate::watching::PATIENCE;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::v3lockpb as lock;
use holdfast_testserver::TestCluster;
use tonic::{Code, Request};

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_a_key_with_a_lease() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(0x1f).await;
    let locked = member.lock("L", 0x1f).await.unwrap();
    assert_eq!((text(&locked.key), locked.header.unwrap().revision), ("L/1f".to_owned(), 2));
    let kv = member.kv.clone().range(range_request("L/1f", "")).await.unwrap().into_inner().kvs.remove(0);
    assert_eq!((kv.value.len(), kv.lease, kv.create_revision), (0, 0x1f, 2));
    // Again, with the same lease: it is held already.
    let again = member.lock("L", 0x1f).await.unwrap();
    assert_eq!((text(&again.key), again.header.unwrap().revision), ("L/1f".to_owned(), 2));
    assert_eq!(member.unlock(b"L/1f").await, 3);
    assert_eq!(member.unlock(b"L/1f").await, 3, "what is not locked can be unlocked");
    let unknown = refusal(member.lock("L", 0x99).await);
    assert_eq!(unknown, refused(Code::Unknown, "etcdserver: requested lease not found"));
    let nameless = lock::UnlockRequest::default();
    let nameless = refusal(member.locks.clone().unlock(nameless).await);
    assert_eq!(nameless, refused(Code::Unknown, "etcdserver: key is not provided"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_the_server_grants_one_of_a_minute() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    let key = text(&member.lock("L", 0).await.unwrap().key);
    let id = i64::from_str_radix(key.strip_prefix("L/").unwrap(), 16).unwrap();
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    let lease = member.leases.clone().lease_time_to_live(request).await.unwrap().into_inner();
    assert_eq!((lease.granted_ttl, lease.keys), (60, vec![bytes(&key)]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_lockers_on_three_members_hold_it_one_at_a_time_in_their_order() {
    const LOCKERS: i64 = 24;
    let cluster = TestCluster::three().await.unwrap();
    let holders = Arc::new(AtomicUsize::new(0));
    let mut line = follow_line(&cluster.endpoint(0), "L").await;
    let mut lockers = Vec::new();
    for id in 1..=LOCKERS {
        let member = Member::at(&cluster.endpoint(usize::try_from(id).unwrap() % 3));
        member.grant(id).await;
        let holders = Arc::clone(&holders);
        lockers.push(tokio::spawn(async move {
            let locked = member.lock("L", id).await.unwrap();
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "{id} is not alone");
            // Others get their chance to be wrong.
            put(&mut member.kv.clone(), "work", &id.to_string()).await;
            assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1);
            member.unlock(&locked.key).await;
        }));
    }
    for locker in lockers {
        locker.await.unwrap();
    }
    // The line moved as it stood: keys went in the order in which they had come.
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for event in line.events(2 * usize::try_from(LOCKERS).unwrap()).await {
        let is_put = event.r#type == i32::from(holdfast_proto::mvccpb::event::EventType::Put);
        let key = text(&event.kv.unwrap().key);
        if is_put { came.push(key) } else { went.push(key) }
    }
    assert_eq!(came, went);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_goes_away_leaves_no_key() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    for id in [1, 2, 3] {
        member.grant(id).await;
    }
    let held = member.lock("L", 1).await.unwrap();
    let (second, third) = (member.clone(), member.clone());
    let second = tokio::spawn(async move { second.lock("L", 2).await });
    member.until_in_line("L", 2).await;
    let third = tokio::spawn(async move { third.lock("L", 3).await });
    member.until_in_line("L", 3).await;
    second.abort();
    member.until_in_line("L", 2).await;
    assert_eq!(member.line("L").await, ["L/1", "L/3"]);
    assert!(!third.is_finished(), "the first one still holds it");
    member.unlock(&held.key).await;
    assert_eq!(text(&third.await.unwrap().unwrap().key), "L/3");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_without_a_lease_that_goes_away_leaves_none() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    member.lock("L", 1).await.unwrap();
    let waiter = member.clone();
    let waiter = tokio::spawn(async move { waiter.lock("L", 0).await });
    member.until_in_line("L", 2).await;
    waiter.abort();
    member.until_in_line("L", 1).await;
    let leases = member.leases.clone().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(leases.leases.len(), 1, "{leases:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_whose_time_is_over_leaves_no_key() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    member.grant(2).await;
    member.lock("L", 1).await.unwrap();
    let mut hurried = Request::new(lock::LockRequest { name: bytes("L"), lease: 2 });
    hurried.set_timeout(Duration::from_millis(500));
    let (code, text) = refusal(member.lock_with(hurried).await);
    // The transport's own words come first when the machine stands still.
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?} {text}");
    member.until_in_line("L", 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_lease_ends_is_free() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    // The shortest: nobody keeps it alive.
    member.grant_for(1, 1).await;
    member.grant(2).await;
    member.lock("L", 1).await.unwrap();
    assert_eq!(text(&member.lock("L", 2).await.unwrap().key), "L/2");
    assert_eq!(member.line("L").await, ["L/2"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_whose_lease_ends_is_told_while_it_waits() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    member.grant(2).await;
    member.lock("L", 1).await.unwrap();
    let waiter = member.clone();
    let waiter = tokio::spawn(async move { waiter.lock("L", 2).await });
    member.until_in_line("L", 2).await;
    member.revoke(2).await;
    let told = refusal(waiter.await.unwrap());
    assert_eq!(told, refused(Code::Unknown, "mutex: session is expired"));
    assert_eq!(member.line("L").await, ["L/1"], "who waited does not hold it");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_made_anew_is_not_the_waiters() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    member.grant(2).await;
    let held = member.lock("L", 1).await.unwrap();
    let waiter = member.clone();
    let waiter = tokio::spawn(async move { waiter.lock("L", 2).await });
    member.until_in_line("L", 2).await;
    // Gone, back, and alone, all in what may be one turn of the watch.
    member.unlock(b"L/2").await;
    put(&mut member.kv.clone(), "L/2", "").await;
    member.unlock(&held.key).await;
    let told = refusal(waiter.await.unwrap());
    assert_eq!(told, refused(Code::Unknown, "mutex: session is expired"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_outlive_a_compaction_of_what_they_watch() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    member.grant(2).await;
    let held = member.lock("L", 1).await.unwrap();
    let waiter = member.clone();
    let waiter = tokio::spawn(async move { waiter.lock("L", 2).await });
    member.until_in_line("L", 2).await;
    let mut revision = 0;
    for n in 0..10 {
        revision = put(&mut member.kv.clone(), "other", &n.to_string()).await;
    }
    member.kv.clone().compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    member.unlock(&held.key).await;
    assert_eq!(text(&waiter.await.unwrap().unwrap().key), "L/2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_outlives_a_change_of_leader() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let first = leader(&cluster, 0).await;
    let other = Member::at(&cluster.endpoint((first + 1) % 3));
    other.grant(1).await;
    other.grant(2).await;
    let held = other.lock("L", 1).await.unwrap();
    let waiter = other.clone();
    let waiter = tokio::spawn(async move { waiter.lock("L", 2).await });
    other.until_in_line("L", 2).await;
    cluster.stop_member(first).await;
    // The client tries again when it hears that there was no leader; to unlock twice is to unlock.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while other.locks.clone().unlock(lock::UnlockRequest { key: held.key.clone() }).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "no new leader");
    }
    assert_eq!(text(&waiter.await.unwrap().unwrap().key), "L/2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_on_a_member_that_stops_is_told_and_leaves_no_key() {
    let mut cluster = TestCluster::three().await.unwrap();
    let stays = leader(&cluster, 0).await;
    let goes = (stays + 1) % 3;
    let (staying, going) = (Member::at(&cluster.endpoint(stays)), Member::at(&cluster.endpoint(goes)));
    staying.grant(1).await;
    staying.grant(2).await;
    staying.lock("L", 1).await.unwrap();
    let waiter = tokio::spawn(async move { going.lock("L", 2).await });
    staying.until_in_line("L", 2).await;
    cluster.stop_member(goes).await;
    assert_eq!(refusal(waiter.await.unwrap()), refused(Code::Unavailable, "etcdserver: server stopped"));
    assert_eq!(staying.line("L").await, ["L/1"]);
    cluster.stop().await;
}
