//! Plain text on a port for TLS, and TLS on a port for plain text.

use holdfast_testserver::TestCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use crate::certs::{Authority, Certs, LOCAL, as_strs, client_port, failures, files, put, put_over};

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_on_a_port_for_tls_is_told_so() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let pair = certs.issue("server", &ca, LOCAL);
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, None))).await.unwrap();
    let url = cluster.endpoint(0);
    let mut socket = TcpStream::connect(url.trim_start_matches("https://")).await.unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("this port speaks TLS"), "{answer}");
    let endpoint = Endpoint::from_shared(url.replace("https://", "http://")).unwrap();
    let said = put_over(endpoint.connect_lazy(), "a").await.unwrap_err();
    assert!(said.contains("this port speaks TLS: use https://"), "{said}");
    assert!(failures(cluster.server(0), "client", "plain_text").await >= 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_on_a_port_for_plain_text_is_told_so() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let cluster = TestCluster::single().await.unwrap();
    for (port, url) in [("client", cluster.endpoint(0)), ("peer", cluster.peer_url(0))] {
        let url = url.replace("http://", "https://");
        let said = put(&url, &files(&trust, None), "a").await.unwrap_err();
        assert!(said.contains("the server speaks plain text on this port: use http://"), "{said}");
        assert!(failures(cluster.server(0), port, "tls_on_plain_port").await >= 1);
    }
    cluster.stop().await;
}
