//! A client that pings too often is sent away in gRPC's words; one that pings as clients of etcd do is not.

use std::time::Duration;

use holdfast_testserver::TestCluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::*;

const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A client that speaks HTTP/2 by hand.
struct Raw(TcpStream);

impl Raw {
    async fn connect(url: &str) -> Self {
        let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        Self(stream)
    }

    async fn ping(&mut self) {
        self.0.write_all(b"\0\0\x08\x06\0\0\0\0\0pingping").await.unwrap();
    }

    /// Kind and payload of the next frame; `None` when the connection has ended.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    }

    /// Reads up to the next frame of a kind.
    async fn until(&mut self, kind: u8) -> Option<Vec<u8>> {
        loop {
            let (found, payload) = self.frame().await?;
            if found == kind {
                return Some(payload);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fourth_early_ping_ends_the_connection() {
    let cluster = TestCluster::single().await.unwrap();
    let mut client = Raw::connect(&cluster.endpoint(0)).await;
    for _ in 0..3 {
        client.ping().await;
        assert_eq!(client.until(PING).await.unwrap(), b"pingping", "answered");
    }
    client.ping().await;
    let goaway = client.until(GOAWAY).await.expect("it is told why");
    assert_eq!(goaway, b"\0\0\0\0\0\0\0\x0btoo_many_pings");
    assert_eq!(client.frame().await, None, "and the connection ends");
    // Others go on.
    assert_eq!(put(&mut kv(&cluster.endpoint(0)), "a", "1").await, 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_between_pings_has_a_flag() {
    for (flag, pause) in [("0s", Duration::ZERO), ("50ms", Duration::from_millis(55))] {
        let cluster = TestCluster::start(1, &[&format!("--grpc-keepalive-min-time={flag}")]).await.unwrap();
        let mut client = Raw::connect(&cluster.endpoint(0)).await;
        for _ in 0..20 {
            client.ping().await;
            assert_eq!(client.until(PING).await.expect("the connection goes on"), b"pingping", "{flag}");
            // Longer than the least time, and so no strike.
            tokio::time::sleep(pause).await;
        }
        cluster.stop().await;
    }
}

/// gRPC clients ping for their estimate of the bandwidth when they receive data: never a strike.
#[tokio::test(flavor = "multi_thread")]
async fn pings_beside_calls_are_no_strikes() {
    let cluster = TestCluster::single().await.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(cluster.endpoint(0)).unwrap();
    let endpoint = endpoint.http2_adaptive_window(true);
    let mut client = Kv::new(endpoint.connect().await.unwrap());
    let value = "v".repeat(200_000);
    for n in 0..50 {
        put(&mut client, &format!("k{n}"), &value).await;
        assert_eq!(get(&mut client, &format!("k{n}")).await.map(|value| value.len()), Some(200_000));
    }
    cluster.stop().await;
}
