//! Two ends over loopback TCP.

use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{Duplex, Incoming, Lane, Net, NetError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{PeerNet, PeerNetConfig};

/// Longer than anything here takes, shorter than a patient person's patience.
const LIMIT: Duration = Duration::from_secs(20);

fn net() -> PeerNet {
    net_with(PeerNetConfig { frame_bytes_max: 2 << 20, ..PeerNetConfig::default() })
}

fn net_with(config: PeerNetConfig) -> PeerNet {
    PeerNet::new(tokio::runtime::Handle::current(), config)
}

/// A tenth of what it is, so that tests are short.
fn hasty() -> PeerNetConfig {
    PeerNetConfig {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(100),
        ..PeerNetConfig::default()
    }
}

/// A port that was free a moment ago.
async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
    let frames: Vec<Bytes> = (1..40u8).map(|n| Bytes::from(vec![n; usize::from(n) * 20_000])).collect();
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

#[tokio::test]
async fn a_peer_that_gives_no_sign_of_life_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut client = net_with(hasty()).connect(&address, Lane::Raft).await.unwrap();
    let (mut silent, _) = listener.accept().await.unwrap();
    assert_eq!(within(client.recv.recv()).await, None);
    within(client.send.closed()).await;
    // What it got: what the connection is for, and signs of life.
    let mut got = Vec::new();
    within(silent.read_to_end(&mut got)).await.unwrap();
    let life = got.strip_prefix(b"holdfast-peer/1 raft\n").expect("a line comes first");
    assert!(!life.is_empty() && life.chunks(4).all(|chunk| chunk == [0; 4]), "{life:?}");
}

#[tokio::test]
async fn a_connection_without_frames_lives_on() {
    let address = free_address().await;
    let mut incoming = net_with(hasty()).listen(&address).await.unwrap();
    let mut client = net_with(hasty()).connect(&address, Lane::Raft).await.unwrap();
    let mut server = within(incoming.recv()).await.unwrap().duplex;
    tokio::time::sleep(hasty().keepalive_timeout * 5).await;
    client.send.send(Bytes::from_static(b"there")).await.unwrap();
    assert_eq!(within(server.recv.recv()).await.unwrap(), "there");
    server.send.send(Bytes::from_static(b"back")).await.unwrap();
    assert_eq!(within(client.recv.recv()).await.unwrap(), "back");
}

/// A member that applies slowly takes no frames for a while; that is no reason to give it up.
#[tokio::test]
async fn a_connection_whose_frames_nobody_takes_lives_on() {
    let address = free_address().await;
    let mut incoming = net_with(hasty()).listen(&address).await.unwrap();
    let client = net_with(hasty()).connect(&address, Lane::Raft).await.unwrap();
    let mut server = within(incoming.recv()).await.unwrap().duplex;
    let sender = tokio::spawn(async move {
        for number in 0..200_u32 {
            client.send.send(Bytes::from(number.to_be_bytes().repeat(25_000))).await.unwrap();
        }
        client
    });
    tokio::time::sleep(hasty().keepalive_timeout * 5).await;
    for number in 0..200_u32 {
        assert_eq!(within(server.recv.recv()).await.unwrap()[..4], number.to_be_bytes());
    }
    drop(within(sender).await.unwrap());
}

#[tokio::test]
async fn what_is_sent_before_the_end_arrives() {
    let (client, mut server, _incoming, _) = pair(Lane::Raft).await;
    for number in 0..10_u8 {
        client.send.send(Bytes::from(vec![number; 100_000])).await.unwrap();
    }
    let Duplex { send, recv: _recv } = client;
    drop(send);
    for number in 0..10_u8 {
        assert_eq!(within(server.recv.recv()).await.unwrap()[0], number);
    }
    assert_eq!(within(server.recv.recv()).await, None);
}

#[tokio::test]
async fn who_speaks_another_protocol_is_turned_away() {
    let address = free_address().await;
    let mut incoming = net().listen(&address).await.unwrap();
    let port = address.strip_prefix("http://").unwrap();
    for words in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET /members HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stranger = TcpStream::connect(port).await.unwrap();
        stranger.write_all(words).await.unwrap();
        // An end, or a reset because of what was not read.
        assert!(within(stranger.read_u8()).await.is_err());
    }
    let client = net().connect(&address, Lane::Snapshot).await.unwrap();
    assert_eq!(within(incoming.recv()).await.unwrap().lane, Lane::Snapshot);
    drop(client);
}
