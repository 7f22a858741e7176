//! Files that are replaced while members run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_testserver::TestCluster;

use crate::certs::{Authority, Certs, LOCAL, Leaf, as_strs, client_port, files, put, until};

fn expires(cluster: &TestCluster, which: &str) -> Option<i64> {
    let expiries = cluster.server(0).tls().figures().expiries;
    expiries.into_iter().find(|expiry| expiry.which == which).map(|expiry| expiry.at)
}

/// 2101-01-01 in seconds since 1970.
const IN_2101: i64 = 4_133_980_800;

#[tokio::test(flavor = "multi_thread")]
async fn certificate_and_ca_are_replaced_under_new_connections_without_a_failure() {
    let (old, new, certs) = (Authority::new(), Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&old]);
    let pair = certs.issue("server", &old, LOCAL);
    let own = certs.issue("alice", &old, LOCAL);
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, Some(&trust)))).await.unwrap();
    let url = cluster.endpoint(0);
    let (over, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (over, made, files, url) =
            (Arc::clone(&over), Arc::clone(&made), files(&trust, Some(&own)), url.clone());
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                // Each is a client of its own, with the files as they are then.
                put(&url, &files, "a").await.unwrap();
                made.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let more = |by: u64| {
        let made = Arc::clone(&made);
        let from = made.load(Ordering::Relaxed);
        async move { until(|| made.load(Ordering::Relaxed) >= from + by).await }
    };
    more(5).await;
    // As operators do: both CAs first, then certificates of the new one, then the new one alone.
    let ca_before = cluster.server(0).tls().figures();
    certs.trust("ca.crt", &[&old, &new]);
    until(|| cluster.server(0).tls().reloads() > 0).await;
    assert_eq!(ca_before.expiries, cluster.server(0).tls().figures().expiries);
    certs.issue("alice", &new, LOCAL);
    more(5).await;
    certs.issue("server", &new, Leaf { until_year: 2101, ..LOCAL });
    until(|| expires(&cluster, "client") == Some(IN_2101)).await;
    more(5).await;
    let before = cluster.server(0).tls().reloads();
    certs.trust("ca.crt", &[&new]);
    until(|| cluster.server(0).tls().reloads() > before).await;
    more(5).await;
    over.store(true, Ordering::Relaxed);
    load.await.expect("no connection failed");
    // Who was left behind is out.
    let late = certs.issue("late", &old, LOCAL);
    put(&url, &files(&trust, Some(&late)), "a").await.unwrap_err();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_its_certificate_is_not_taken_until_both_are_there() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let next = certs.issue("next", &ca, Leaf { until_year: 2101, ..LOCAL });
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, None))).await.unwrap();
    std::fs::copy(&next.key, &pair.key).unwrap();
    until(|| cluster.server(0).tls().refusals() > 0).await;
    put(&cluster.endpoint(0), &files(&trust, None), "a").await.unwrap();
    assert_ne!(expires(&cluster, "client"), Some(IN_2101));
    std::fs::copy(&next.cert, &pair.cert).unwrap();
    until(|| expires(&cluster, "client") == Some(IN_2101)).await;
    put(&cluster.endpoint(0), &files(&trust, None), "a").await.unwrap();
    cluster.stop().await;
}
