//! Two ends over loopback TCP.

use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{Duplex, Incoming, Lane, Net, NetError};
use tokio::sync::mpsc;

use super::{GrpcNet, GrpcNetConfig};

/// Longer than anything here takes, shorter than a patient person's patience.
const LIMIT: Duration = Duration::from_secs(20);

fn net() -> GrpcNet {
    let config = GrpcNetConfig { frame_bytes_max: 2 << 20, ..GrpcNetConfig::default() };
    GrpcNet::new(tokio::runtime::Handle::current(), config)
}

/// A port that was free a moment ago.
async fn free_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn pair(lane: Lane) -> (Duplex, Duplex, mpsc::Receiver<Incoming>, String) {
    let address = free_address().await;
    let mut incoming = net().listen(&address).await.unwrap();
    let client = net().connect(&address, lane).await.unwrap();
    let accepted = within(incoming.recv()).await.unwrap();
    assert_eq!(accepted.lane, lane);
    (client, accepted.duplex, incoming, address)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it took too long")
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_both_ways() {
    let (mut client, mut server, _incoming, _) = pair(Lane::Raft).await;
    let frames: Vec<Bytes> = (0..40u8).map(|n| Bytes::from(vec![n; usize::from(n) * 20_000])).collect();
    let sent = frames.clone();
    let sender = tokio::spawn(async move {
        for frame in sent {
            client.send.send(frame).await.unwrap();
        }
        let back = client.recv.recv().await;
        (client, back)
    });
    for frame in &frames {
        assert_eq!(within(server.recv.recv()).await.unwrap(), frame);
    }
    server.send.send(Bytes::from_static(b"back")).await.unwrap();
    assert_eq!(within(sender).await.unwrap().1.unwrap(), "back");
}

#[tokio::test]
async fn dropping_one_half_closes_both_ends() {
    for drop_send in [true, false] {
        let (client, mut server, _incoming, _) = pair(Lane::Snapshot).await;
        let Duplex { send, mut recv } = client;
        if drop_send {
            drop(send);
            assert_eq!(within(server.recv.recv()).await, None);
            drop(server);
            assert_eq!(within(recv.recv()).await, None);
        } else {
            drop(recv);
            assert_eq!(within(server.recv.recv()).await, None);
            within(send.closed()).await;
        }
    }
}

#[tokio::test]
async fn frames_beyond_the_limit_break_the_connection() {
    let (client, mut server, _incoming, _) = pair(Lane::Raft).await;
    client.send.send(Bytes::from(vec![0; (2 << 20) + 1])).await.unwrap();
    assert_eq!(within(server.recv.recv()).await, None);
}

#[tokio::test]
async fn addresses_that_cannot_be_used_say_so() {
    let address = free_address().await;
    let error = within(net().connect(&address, Lane::Raft)).await.unwrap_err();
    assert!(matches!(&error, NetError::Unreachable { address: at, .. } if *at == address), "{error}");
    let _first = net().listen(&address).await.unwrap();
    assert!(matches!(net().listen(&address).await, Err(NetError::Listen { .. })));
    assert!(matches!(net().listen("nonsense").await, Err(NetError::Listen { .. })));
}
