//! Changes on condition: guaranteed updates, software transactions, waiting for a revision, the members' health.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use holdfast_client::store::{ClusterStorage, Storage, StoreError};
use holdfast_client::{Client, Config, Error, KeyRange, Known, Put, ReadLevel, UpdateError};

use crate::backend::{Backend, PATIENCE, soon, until};
use crate::relay::Relay;

const NOW: ReadLevel = ReadLevel::Linearizable;

fn number(value: Option<&Bytes>) -> u64 {
    value.map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap())
}

async fn increment(client: &Client, known: Known) -> holdfast_client::Updated {
    let next = |kv: Option<&holdfast_client::KeyValue>| {
        Ok::<_, Infallible>((number(kv.map(|kv| &kv.value)) + 1).to_string().into())
    };
    client.guaranteed_update("n", known, next).await.unwrap()
}

/// NS16: a change is made of what there is, also when others are first: each try takes what the one before has read.
#[tokio::test(flavor = "multi_thread")]
async fn ns16_a_guaranteed_update_is_made_of_what_there_is() {
    Backend::each("guaranteed updates", async |backend| {
        let client = backend.client();
        let updates = (0..12).map(|_| {
            let client = backend.client();
            tokio::spawn(async move { increment(&client, Known::Nothing).await })
        });
        let updates = join_all(updates).await;
        assert!(updates.iter().all(|update| update.as_ref().unwrap().is_written));
        let kv = client.get("n", NOW).await.unwrap().value.unwrap();
        assert_eq!((number(Some(&kv.value)), kv.version), (12, 12), "none is lost, none is twice");
    })
    .await;
}

/// NS16: a cached object saves the read when it is up to date; when it is not, the failed transaction brings the right
/// one, and what is made of the wrong one is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn ns16_a_cached_object_is_a_hint_and_no_more() {
    Backend::each("guaranteed updates with hints", async |backend| {
        let client = backend.client();
        increment(&client, Known::Nothing).await;
        let cached = client.get("n", NOW).await.unwrap().value;
        assert_eq!(increment(&client, Known::Cached(cached.clone())).await.attempts, 1);
        let updated = increment(&client, Known::Cached(cached.clone())).await;
        assert_eq!((updated.value.as_ref(), updated.attempts), (b"3".as_ref(), 2), "one more round trip");
        // The function refuses the old one: it is asked again with what there is.
        let mut seen = Vec::new();
        let refuses_old = |kv: Option<&holdfast_client::KeyValue>| {
            let now = number(kv.map(|kv| &kv.value));
            seen.push(now);
            if now < 3 { Err("too old") } else { Ok(Bytes::from("9")) }
        };
        let updated =
            client.guaranteed_update("n", Known::Cached(cached.clone()), refuses_old).await.unwrap();
        assert_eq!((updated.value.as_ref(), seen), (b"9".as_ref(), vec![1, 3]));
        // It makes the old value of the old one: that is a change of what there is.
        let makes_one = |_: Option<&holdfast_client::KeyValue>| Ok::<_, Infallible>(Bytes::from("1"));
        let updated = client.guaranteed_update("n", Known::Cached(cached), makes_one).await.unwrap();
        assert!(updated.is_written);
        let refused = client.guaranteed_update("n", Known::Nothing, |_| Err("never")).await.unwrap_err();
        assert!(matches!(refused, UpdateError::Refused("never")), "{refused:?}");
    })
    .await;
}

/// NS16: what is so already is not written, and a key keeps its lease.
#[tokio::test(flavor = "multi_thread")]
async fn ns16_nothing_is_written_when_nothing_changes() {
    Backend::each("guaranteed updates of the same", async |backend| {
        let client = backend.client();
        let session = client.session(Duration::from_secs(600)).await.unwrap();
        let put = client.put_with(Put::new("n", "1").lease(session.lease())).await.unwrap();
        let same = |_: Option<&holdfast_client::KeyValue>| Ok::<_, Infallible>(Bytes::from("1"));
        let updated = client.guaranteed_update("n", Known::Nothing, same).await.unwrap();
        assert_eq!((updated.is_written, updated.mod_revision, updated.attempts), (false, put.revision, 0));
        increment(&client, Known::Nothing).await;
        let kv = client.get("n", NOW).await.unwrap().value.unwrap();
        assert_eq!((kv.value.as_ref(), kv.lease), (b"2".as_ref(), Some(session.lease())));
    })
    .await;
}

/// NS1, NS17: a wait ends when the revision has come, on every member, and says how far it is when it does not in time.
#[tokio::test(flavor = "multi_thread")]
async fn ns17_a_wait_ends_when_the_revision_has_come() {
    Backend::each("waits", async |backend| {
        let client = backend.client();
        let first = client.put("f/a", "1").await.unwrap();
        for endpoint in backend.endpoints() {
            let client = Client::new([endpoint]).unwrap();
            assert!(client.wait(first, Duration::ZERO).await.unwrap() >= first);
        }
        let late = client.wait(first + 2, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(late, Error::FutureRevision { current: Some(now) } if now == first), "{late}");
        let waiting = backend.client();
        let waiting = tokio::spawn(async move {
            waiting.wait_and_list(KeyRange::prefix("f/"), first + 2, Duration::from_secs(60)).await
        });
        client.put("f/b", "1").await.unwrap();
        let last = client.put("f/c", "1").await.unwrap();
        let read = soon(waiting).await.unwrap().unwrap();
        assert_eq!((read.value.len(), read.revision), (3, last));
    })
    .await;
}

/// A store waits over a member that cannot be reached for a while, and says so when the time is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_waits_while_nobody_can_be_reached() {
    Backend::each("waits over cuts", async |backend| {
        let relay = Relay::to(&backend.endpoints()[0]).await;
        let hasty = Config { call_timeout: Duration::from_millis(300), ..Config::default() };
        let client = Client::with_config([relay.endpoint.clone()], hasty).unwrap();
        let storage = ClusterStorage::new(client);
        relay.refuse(true);
        let late = storage.wait(1, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(late, StoreError::Unavailable { .. }), "{late}");
        let before = relay.connections();
        let waiting = tokio::spawn(async move { storage.wait(1, PATIENCE).await });
        until("it has been tried", async || relay.connections() > before).await;
        relay.refuse(false);
        assert!(soon(waiting).await.unwrap().unwrap() >= 1);
    })
    .await;
}

/// Software transactions: none sees the half of another, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn software_transactions_happen_as_if_one_after_the_other() {
    Backend::each("software transactions", async |backend| {
        const ACCOUNTS: u64 = 4;
        let client = backend.client();
        for n in 0..ACCOUNTS {
            client.put(format!("a/{n}"), "100").await.unwrap();
        }
        let movers = (0..6_u64).map(|mover| {
            let client = backend.client();
            tokio::spawn(async move {
                for round in 0..5 {
                    let (from, to) = ((mover + round) % ACCOUNTS, (mover + round * 3 + 1) % ACCOUNTS);
                    let (from, to) = (format!("a/{from}"), format!("a/{to}"));
                    let moved = client.transact(|tx| {
                        let (from, to) = (from.clone(), to.clone());
                        async move {
                            let before = number(tx.get(from.clone()).await?.as_ref());
                            tx.put(from, (before - 1).to_string());
                            // Sees its own write when both are the same.
                            let before = number(tx.get(to.clone()).await?.as_ref());
                            tx.put(to, (before + 1).to_string());
                            Ok::<_, Error>(())
                        }
                    });
                    moved.await.unwrap();
                }
            })
        });
        let movers = join_all(movers);
        let reader = backend.client();
        let sums = async {
            for _ in 0..20 {
                let sum = reader.transact(|tx| async move {
                    let mut sum = 0;
                    for n in 0..ACCOUNTS {
                        sum += number(tx.get(format!("a/{n}")).await?.as_ref());
                    }
                    Ok::<_, Error>(sum)
                });
                assert_eq!(sum.await.unwrap().value, 100 * ACCOUNTS);
            }
        };
        let (movers, ()) = futures::future::join(movers, sums).await;
        movers.into_iter().for_each(|mover| mover.unwrap());
        let all = client.list_all(KeyRange::prefix("a/"), NOW).await.unwrap().value;
        assert_eq!(all.iter().map(|kv| number(Some(&kv.value))).sum::<u64>(), 100 * ACCOUNTS);
    })
    .await;
}

/// Each endpoint says how it is, or why it does not; and the leader can be asked first.
#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_says_how_it_is() {
    Backend::each("health", async |backend| {
        let mut endpoints = backend.endpoints();
        let count = endpoints.len();
        endpoints.push("http://127.0.0.1:1".to_owned());
        let client = Client::new(endpoints).unwrap();
        client.put("k", "v").await.unwrap();
        until("all members know their leader", async || {
            client.health().await.iter().filter(|health| health.is_healthy()).count() == count
        })
        .await;
        let health = client.health().await;
        assert_eq!(health.iter().filter(|health| health.is_leader()).count(), 1, "{health:?}");
        let down = &health[count];
        let attempt = down.status.as_ref().unwrap_err();
        assert!(!down.is_healthy() && attempt.endpoint == "http://127.0.0.1:1", "{attempt:?}");
        assert!(attempt.cause.to_lowercase().contains("refused"), "the real cause: {}", attempt.cause);
        let leader = client.prefer_leader().await.unwrap();
        let leads = health.iter().find(|health| health.is_leader()).unwrap();
        assert_eq!(leader, leads.endpoint);
        client.put("k", "v").await.unwrap();
    })
    .await;
}
