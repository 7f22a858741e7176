//! Who is refused, and what both ends are told.

use std::time::Duration;

use holdfast_client::{Client, Config};
use holdfast_testserver::TestCluster;
use holdfast_tls::{ClientFiles, Verify};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certs::{
    Authority, Certs, LOCAL, Leaf, as_strs, client_port, failures, failures_from, files, put,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_certificate_has_a_cause_on_both_ends() {
    let (ca, other, certs) = (Authority::new(), Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let others = certs.trust("other.crt", &[&other]);
    let pair = certs.issue("server", &ca, LOCAL);
    let good = certs.issue("good", &ca, LOCAL);
    let foreign = certs.issue("foreign", &other, LOCAL);
    let expired = certs.issue("expired", &ca, Leaf { until_year: 2001, ..LOCAL });
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, Some(&trust)))).await.unwrap();
    let (url, server) = (cluster.endpoint(0), cluster.server(0));
    let cases = [
        (files(&trust, None), "no_certificate", "wants a client certificate"),
        (files(&trust, Some(&foreign)), "unknown_ca", "does not trust the CA of our client certificate"),
        (files(&trust, Some(&expired)), "expired", "our client certificate has expired"),
        (files(&others, Some(&good)), "ours_refused", "of a CA that is not trusted here"),
    ];
    for (files, cause, words) in cases {
        let said = put(&url, &files, "a").await.unwrap_err();
        assert!(said.contains(words), "{cause}: {said}");
        assert!(failures(server, "client", cause).await > 0);
    }
    // Whoever believes anything is served; it has to show a certificate all the same.
    let blind = ClientFiles { verify: Verify::Nothing, ..files(&others, Some(&good)) };
    put(&url, &blind, "a").await.unwrap();
    // The SDK says it once, however often it has tried.
    let config = Config {
        tls: files(&others, Some(&good)),
        call_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let client = Client::with_config([url], config).unwrap();
    let said = client.set_if_not_exists("a", "1").await.unwrap_err().to_string();
    assert_eq!(said.matches("is not trusted here").count(), 1, "{said}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_name_or_an_old_certificate_is_not_believed() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    for (leaf, words) in [
        (Leaf { hosts: &["db.example"], ..LOCAL }, "is not for 127.0.0.1, but for"),
        (Leaf { until_year: 2001, ..LOCAL }, "the server's certificate has expired"),
    ] {
        let pair = certs.issue("server", &ca, leaf);
        let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, None))).await.unwrap();
        let said = put(&cluster.endpoint(0), &files(&trust, None), "a").await.unwrap_err();
        assert!(said.contains(words), "{said}");
        assert!(failures(cluster.server(0), "client", "ours_refused").await > 0);
        cluster.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_with_an_allowed_name_are_admitted() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let mut flags = client_port(&pair, Some(&trust));
    flags.push("--client-cert-allowed-hostname=app.example,tool.example".to_owned());
    let cluster = TestCluster::start(1, &as_strs(&flags)).await.unwrap();
    let url = cluster.endpoint(0);
    let tool = certs.issue("tool", &ca, Leaf { hosts: &["tool.example"], ..LOCAL });
    put(&url, &files(&trust, Some(&tool)), "a").await.unwrap();
    let said = put(&url, &files(&trust, Some(&pair)), "a").await.unwrap_err();
    assert!(said.contains("does not admit the name"), "{said}");
    assert_eq!(failures(cluster.server(0), "client", "name_not_allowed").await, 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stand_still_hold_up_nobody_and_end() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, None))).await.unwrap();
    let url = cluster.endpoint(0);
    let authority = url.trim_start_matches("https://");
    let began = tokio::time::Instant::now();
    let mut standing = Vec::new();
    for number in 0..64 {
        let mut socket = TcpStream::connect(authority).await.unwrap();
        if number % 2 == 0 {
            // The begin of a record of 512 bytes that never come.
            socket.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        }
        standing.push(socket);
    }
    put(&url, &files(&trust, None), "a").await.unwrap();
    assert!(began.elapsed() < holdfast_tls::limits::HANDSHAKE_TIME_MAX, "{:?}", began.elapsed());
    for mut socket in standing {
        // Closed, with or without an alert.
        drop(socket.read_to_end(&mut Vec::new()).await);
    }
    assert!(began.elapsed() >= holdfast_tls::limits::HANDSHAKE_TIME_MAX);
    assert_eq!(failures_from(64, cluster.server(0), "client", "late").await, 64);
    cluster.stop().await;
}
