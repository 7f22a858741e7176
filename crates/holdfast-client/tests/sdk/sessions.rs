//! Sessions and what is held in them: locks, elections, barriers, queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use holdfast_client::{
    Client, Config, Error, HoldState, KeyRange, LeaseId, Op, Put, ReadLevel, Session, SessionState, Txn,
};
use holdfast_proto::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tokio::time::Instant;

use crate::backend::{Backend, PATIENCE, soon, until};
use crate::relay::Relay;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
const NOW: ReadLevel = ReadLevel::Linearizable;

async fn session(client: &Client) -> Session {
    client.session(LONG).await.unwrap()
}

async fn revoke(backend: &Backend, lease: LeaseId) {
    let request = pb::LeaseRevokeRequest { id: lease.0 };
    LeaseClient::new(backend.channel()).lease_revoke(request).await.unwrap();
}

async fn count(client: &Client, prefix: &'static str) -> u64 {
    client.count(KeyRange::prefix(prefix), NOW).await.unwrap().value
}

/// A session's keys end with it, whether it is ended, dropped or revoked; and a loss is seen.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_session_end_with_it() {
    Backend::each("sessions", async |backend| {
        let client = backend.client();
        let put = async |session: &Session, key: &'static str| {
            client.put_with(Put::new(key, "1").lease(session.lease())).await.unwrap();
        };
        let ended = session(&client).await;
        put(&ended, "s/1").await;
        assert_eq!(ended.state(), SessionState::Alive);
        ended.end().await.unwrap();
        assert_eq!(count(&client, "s/").await, 0);
        let dropped = session(&client).await;
        let clone = dropped.clone();
        put(&dropped, "s/2").await;
        drop(dropped);
        assert_eq!(count(&client, "s/").await, 1, "a clone is left");
        drop(clone);
        until("the lease of a dropped session ends", async || count(&client, "s/").await == 0).await;
        // The next renewal finds that out, in a third of the time to live.
        let mut revoked = client.session(Duration::from_secs(1)).await.unwrap();
        revoke(backend, revoked.lease()).await;
        soon(revoked.lost()).await;
        assert_eq!(revoked.state(), SessionState::Lost);
        assert!(matches!(revoked.lock("l").await, Err(Error::SessionLost)));
    })
    .await;
}

/// A session that cannot be renewed is suspect, and alive again when it can; when that takes too long it is
/// lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_cut_off_is_suspect_and_then_lost() {
    Backend::each("sessions over cuts", async |backend| {
        let relay = Relay::to(&backend.endpoints()[0]).await;
        let hasty = Config { call_timeout: Duration::from_millis(300), ..Config::default() };
        let client = Client::with_config([relay.endpoint.clone()], hasty).unwrap();
        let mut session = client.session(Duration::from_secs(6)).await.unwrap();
        relay.refuse(true);
        assert_eq!(soon(session.changed()).await, SessionState::Suspect);
        relay.refuse(false);
        while soon(session.changed()).await != SessionState::Alive {}
        relay.refuse(true);
        let before = Instant::now();
        soon(session.lost()).await;
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    })
    .await;
}

/// A lock is held by one at a time, in the order of asking, with a token that grows.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_held_by_one_at_a_time_with_a_token_that_grows() {
    Backend::each("locks", async |backend| {
        let (inside, token_last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let lockers = (0..8).map(|n| {
            let endpoints = backend.endpoints();
            let client = Client::new([endpoints[n % endpoints.len()].clone()]).unwrap();
            let (inside, token_last) = (Arc::clone(&inside), Arc::clone(&token_last));
            tokio::spawn(async move {
                let session = session(&client).await;
                for _ in 0..5 {
                    let lock = soon(session.lock("locks/one")).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                    assert!(token_last.swap(lock.token(), Ordering::SeqCst) < lock.token());
                    assert_eq!(lock.state(), HoldState::Held);
                    let guarded = Txn::new().when(lock.is_held()).then(Op::put("guarded", "x"));
                    assert!(client.txn(guarded).await.unwrap().succeeded);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    lock.unlock().await.unwrap();
                }
            })
        });
        for locker in join_all(lockers).await {
            locker.unwrap();
        }
        let client = backend.client();
        let (first, second) = (session(&client).await, session(&client).await);
        let held = first.try_lock("locks/two").await.unwrap().expect("nobody holds it");
        assert!(second.try_lock("locks/two").await.unwrap().is_none());
        assert_eq!(count(&client, "locks/two/").await, 1, "who does not get it leaves nothing");
        // Also who gives up waiting.
        let given_up = tokio::time::timeout(Duration::from_millis(200), second.lock("locks/two")).await;
        assert!(given_up.is_err());
        until("the place is given up", async || count(&client, "locks/two/").await == 1).await;
        // Two locks of one session are two locks.
        assert!(first.try_lock("locks/two").await.unwrap().is_none());
        drop(held);
        soon(second.lock("locks/two")).await.unwrap();
    })
    .await;
}

/// A lock that is lost shows it: its key is deleted, or its session ends. The next one has it then, and what the former
/// holder still tries on condition does not happen.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_lost_shows_it() {
    Backend::each("locks that are lost", async |backend| {
        let client = backend.client();
        let (first, second) = (session(&client).await, session(&client).await);
        let mut deleted = first.lock("l").await.unwrap();
        let waiting = tokio::spawn(async move { (second.lock("l").await, second) });
        until("two in the queue", async || count(&client, "l/").await == 2).await;
        let stale = deleted.is_held();
        client.delete(deleted.key().clone()).await.unwrap();
        soon(deleted.lost()).await;
        assert_eq!(deleted.state(), HoldState::Lost);
        let (next, second) = soon(waiting).await.unwrap();
        let mut next = next.unwrap();
        assert!(next.token() > deleted.token());
        assert!(!client.txn(Txn::new().when(stale).then(Op::put("x", "1"))).await.unwrap().succeeded);
        revoke(backend, second.lease()).await;
        soon(next.lost()).await;
        soon(first.lock("l")).await.unwrap();
    })
    .await;
}

/// One of many leads; the others see who, and each change of that in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_election_has_one_leader_whom_all_can_see() {
    Backend::each("elections", async |backend| {
        let client = backend.client();
        let mut observe = client.observe("e");
        assert_eq!(soon(observe.next()).await.unwrap(), None);
        let value = async |observe: &mut holdfast_client::Observe| {
            let leader = soon(observe.next()).await.unwrap();
            leader.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
        };
        let (one, two) = (session(&client).await, session(&client).await);
        let first = soon(one.campaign("e", "one")).await.unwrap();
        assert_eq!(value(&mut observe).await.unwrap(), "one");
        let waiting = tokio::spawn(async move { (two.campaign("e", "two").await, two) });
        until("two take part", async || count(&client, "e/").await == 2).await;
        first.proclaim("one again").await.unwrap();
        assert_eq!(value(&mut observe).await.unwrap(), "one again");
        let read = client.leader("e", NOW).await.unwrap().value.unwrap();
        assert_eq!((read.key, read.create_revision), (first.key().clone(), first.token()));
        first.resign().await.unwrap();
        let (second, two) = soon(waiting).await.unwrap();
        let second = second.unwrap();
        assert_eq!(value(&mut observe).await.unwrap(), "two");
        two.end().await.unwrap();
        assert_eq!(value(&mut observe).await, None);
        assert!(matches!(second.proclaim("late").await, Err(Error::SessionLost)));
    })
    .await;
}

/// Who waits at a barrier goes when it is released, or when the session that holds it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_holds_all_up_until_it_is_released() {
    Backend::each("barriers", async |backend| {
        let client = backend.client();
        let barrier = client.barrier("b");
        soon(barrier.wait()).await.unwrap();
        assert!(barrier.hold().await.unwrap());
        assert!(!barrier.hold().await.unwrap());
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let barrier = backend.client().barrier("b");
                tokio::spawn(async move { barrier.wait().await })
            })
            .collect();
        let early = tokio::time::timeout(Duration::from_millis(100), barrier.wait()).await;
        assert!(early.is_err(), "it holds");
        barrier.release().await.unwrap();
        for waited in soon(join_all(waiting)).await {
            waited.unwrap().unwrap();
        }
        let session = session(&client).await;
        assert!(barrier.hold_with(&session).await.unwrap());
        let (_, waited) = soon(futures::future::join(session.end(), barrier.wait())).await;
        waited.unwrap();
    })
    .await;
}

/// Each element of a queue is taken once, and one taker takes them in order.
#[tokio::test(flavor = "multi_thread")]
async fn an_element_of_a_queue_is_taken_once() {
    Backend::each("queues", async |backend| {
        const ELEMENTS: usize = 60;
        let client = backend.client();
        let queue = client.queue("q");
        assert_eq!(queue.try_take().await.unwrap(), None);
        for value in ["1", "2", "3"] {
            queue.put(value).await.unwrap();
        }
        for value in ["1", "2", "3"] {
            assert_eq!(queue.take().await.unwrap().value, value);
        }
        let takers: Vec<_> = (0..6)
            .map(|_| {
                let queue = backend.client().queue("q");
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    for _ in 0..ELEMENTS / 6 {
                        taken.push(String::from_utf8(queue.take().await.unwrap().value.to_vec()).unwrap());
                    }
                    taken
                })
            })
            .collect();
        for n in 0..ELEMENTS {
            queue.put(format!("{n:02}")).await.unwrap();
        }
        let taken = tokio::time::timeout(PATIENCE, join_all(takers)).await.expect("in time");
        let mut taken: Vec<_> = taken.into_iter().flat_map(Result::unwrap).collect();
        taken.sort();
        assert_eq!(taken, (0..ELEMENTS).map(|n| format!("{n:02}")).collect::<Vec<_>>());
        assert_eq!(queue.try_take().await.unwrap(), None);
    })
    .await;
}
