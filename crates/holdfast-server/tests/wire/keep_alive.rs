//! Streams of keep-alives: one answer for each request in its order, and an end when the leader is wanted and lost.

use std::time::Duration;

use crate::common::*;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::lease_client::LeaseClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

type Leases = LeaseClient<Channel>;

struct Stream {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

/// Opens a stream; it has a request already, as some clients want an answer before they see the stream.
async fn open(leases: &mut Leases, wants_leader: bool) -> Stream {
    let (requests, receiver) = mpsc::channel(2_000);
    requests.send(pb::LeaseKeepAliveRequest { id: 1 }).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(receiver));
    if wants_leader {
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    }
    let answers = leases.lease_keep_alive(request).await.unwrap().into_inner();
    Stream { requests, answers }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keep_alives_are_answered_in_their_order() {
    let cluster = TestCluster::three().await.unwrap();
    for member in 0..3 {
        let mut leases = LeaseClient::new(channel(&cluster.endpoint(member)));
        let granted = member as i64 + 100;
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: granted }).await.unwrap();
        let Stream { requests, mut answers } = open(&mut leases, false).await;
        for number in 0..1_500 {
            let id = if number % 3 == 0 { granted } else { -number };
            requests.send(pb::LeaseKeepAliveRequest { id }).await.unwrap();
        }
        drop(requests);
        let first = answers.message().await.unwrap().unwrap();
        assert_eq!((first.id, first.ttl), (1, 0));
        for number in 0..1_500 {
            let answer = answers.message().await.unwrap().expect("one answer for each");
            let expected = if number % 3 == 0 { (granted, 60) } else { (-number, 0) };
            assert_eq!((answer.id, answer.ttl), expected, "{number}");
            assert!(answer.header.unwrap().revision > 0);
        }
        assert_eq!(answers.message().await.unwrap(), None, "the client has ended the stream");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_wants_a_leader_ends_without_one() {
    let mut cluster =
        TestCluster::start(3, &["--election-timeout=500", "--heartbeat-interval=50"]).await.unwrap();
    let mut leases = LeaseClient::new(channel(&cluster.endpoint(2)));
    let mut wants = open(&mut leases, true).await;
    let mut does_not = open(&mut leases, false).await;
    for stream in [&mut wants, &mut does_not] {
        assert_eq!(stream.answers.message().await.unwrap().unwrap().ttl, 0);
    }
    cluster.stop_member(0).await;
    cluster.stop_member(1).await;
    // Nothing is asked: it ends by itself.
    let ended = tokio::time::timeout(Duration::from_secs(20), wants.answers.message()).await;
    let status = ended.expect("it ends").unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    let silent = tokio::time::timeout(Duration::from_millis(300), does_not.answers.message()).await;
    assert!(silent.is_err(), "the other one waits: {silent:?}");
    does_not.requests.send(pb::LeaseKeepAliveRequest { id: 1 }).await.unwrap();
    let status = does_not.answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "nobody can answer it");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_member_stops() {
    let mut cluster = TestCluster::start(1, &[]).await.unwrap();
    let mut leases = LeaseClient::new(channel(&cluster.endpoint(0)));
    let mut stream = open(&mut leases, false).await;
    assert_eq!(stream.answers.message().await.unwrap().unwrap().ttl, 0);
    let stopping = cluster.stop_member(0);
    let (ended, ()) = tokio::join!(stream.answers.message(), stopping);
    assert_eq!(ended.unwrap_err().message(), "etcdserver: server stopped");
    cluster.stop().await;
}
