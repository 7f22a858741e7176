//! A call whose message comes in one frame takes a short way to its service, the same in pieces the long one: their answers
//! are alike, frame by frame.

use bytes::Bytes;
use h2::client::SendRequest;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use http::{HeaderMap, Request};
use prost::Message;

use crate::common::*;

/// How a message is sent.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// In one frame, which ends the stream.
    Whole,
    /// In one frame; an empty one ends the stream.
    WholeAndEmpty,
    /// In two frames.
    InTwo,
}

/// What is not about the time, the length of the way, or the revision.
#[derive(Debug, PartialEq)]
struct Answer {
    headers: HeaderMap,
    /// Without their prefix.
    messages: Vec<Bytes>,
    trailers: Option<HeaderMap>,
}

struct Client {
    requests: SendRequest<Bytes>,
    authority: String,
}

impl Client {
    async fn connect(url: &str) -> Self {
        let authority = url.trim_start_matches("http://").to_owned();
        let stream = tokio::net::TcpStream::connect(&authority).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { requests, authority }
    }

    async fn call(&self, method: &str, headers: &[(&str, &str)], body: Bytes, cut: Cut) -> Answer {
        let mut request = Request::post(format!("http://{}/etcdserverpb.{method}", self.authority))
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = self.requests.clone().ready().await.unwrap();
        let (answer, mut sent) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        match cut {
            Cut::Whole => sent.send_data(body, true).unwrap(),
            // The server may have answered to the first frame, and closed the stream, before the second one is sent. What it
            // has answered is compared all the same.
            Cut::WholeAndEmpty => {
                sent.send_data(body, false).unwrap();
                drop(sent.send_data(Bytes::new(), true));
            }
            Cut::InTwo => {
                let middle = body.len() / 2;
                sent.send_data(body.slice(..middle), false).unwrap();
                drop(sent.send_data(body.slice(middle..), true));
            }
        }
        let (mut head, mut body) = answer.await.unwrap().into_parts();
        head.headers.remove("date");
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            bytes.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await.unwrap();
        Answer { headers: head.headers, messages: messages(&bytes), trailers }
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<5>() {
        let [flags, length @ ..] = *prefix;
        assert_eq!(flags, 0, "nothing is compressed");
        let (message, rest) = rest.split_at(u32::from_be_bytes(length) as usize);
        messages.push(Bytes::copy_from_slice(message));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "what is behind the last message has no prefix");
    messages
}

fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];

/// A call that changes nothing, so that it can be made again.
struct Call {
    method: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Bytes,
    /// The status that it ends with.
    ends: &'static str,
}

fn calls() -> Vec<Call> {
    let call = |method, body, ends| Call { method, headers: GRPC, body, ends };
    let raw = |bytes: &'static [u8]| call("KV/Put", Bytes::from_static(bytes), "13");
    let compressed = &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
    let with_token = &[("content-type", "application/grpc"), ("token", "nobody's")];
    let get = || framed(&range_request("key", ""));
    vec![
        call("KV/Range", get(), "0"),
        call("KV/Range", framed(&range_request("many", "manz")), "0"),
        call("KV/Range", framed(&pb::RangeRequest::default()), "3"),
        call("KV/Put", framed(&pb::PutRequest::default()), "3"),
        call("KV/DeleteRange", framed(&delete_request("absent", "")), "0"),
        call("KV/Txn", framed(&txn(vec![op_range(range_request("many", "manz"))])), "0"),
        call("KV/Txn", framed(&txn(vec![op_delete("absent", "")])), "0"),
        call("Lease/LeaseGrant", framed(&pb::LeaseGrantRequest { ttl: 60, id: 7 }), "9"),
        call("Lease/LeaseRevoke", framed(&pb::LeaseRevokeRequest { id: 77 }), "5"),
        // What no service gets to see: not decodable, compressed without saying how, unfinished, no whole prefix.
        raw(&[0, 0, 0, 0, 3, 0xff, 0xff, 0xff]),
        raw(&[1, 0, 0, 0, 2, 10, 0]),
        raw(&[0, 0, 0, 0, 9, 10, 0]),
        raw(&[0, 0]),
        Call { method: "KV/Range", headers: compressed, body: get(), ends: "12" },
        Call { method: "KV/Range", headers: with_token, body: get(), ends: "0" },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_way_and_the_long_way_are_told_apart_by_nothing() {
    let cluster = TestCluster::single().await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    put(&mut kv, "key", "value").await;
    for number in 0..100 {
        put(&mut kv, &format!("many/{number:03}"), &"x".repeat(300)).await;
    }
    let client = Client::connect(&cluster.endpoint(0)).await;
    let lease = framed(&pb::LeaseGrantRequest { ttl: 60, id: 7 });
    let granted = client.call("Lease/LeaseGrant", GRPC, lease, Cut::Whole).await;
    assert_eq!(granted.trailers.unwrap()["grpc-status"], "0");
    for Call { method, headers, body, ends } in calls() {
        let long = client.call(method, headers, body.clone(), Cut::InTwo).await;
        let status = long.trailers.as_ref().unwrap_or(&long.headers).get("grpc-status");
        assert_eq!(status.unwrap(), ends, "{method} {body:?}: {long:?}");
        for cut in [Cut::Whole, Cut::WholeAndEmpty] {
            let short = client.call(method, headers, body.clone(), cut).await;
            assert_eq!(short, long, "{method} {body:?}, {cut:?}");
        }
    }
    cluster.stop().await;
}

/// Both ways count, once each.
#[tokio::test(flavor = "multi_thread")]
async fn both_ways_are_counted() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::connect(&cluster.endpoint(0)).await;
    let put = framed(&put_request("key", "value"));
    for cut in [Cut::Whole, Cut::WholeAndEmpty, Cut::InTwo] {
        client.call("KV/Put", GRPC, put.clone(), cut).await;
    }
    client.call("KV/Put", GRPC, framed(&pb::PutRequest::default()), Cut::Whole).await;
    let (_, page) = http_get(&cluster.endpoint(0), "/metrics").await;
    let count = |line: &str| {
        let found = page.lines().find(|found| found.starts_with(line)).unwrap_or_else(|| panic!("no {line}"));
        found.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}";
    assert_eq!(count(&format!("grpc_server_started_total{{{labels}")), 4);
    let handled = |code: &str| {
        let labels = labels.replacen("grpc_method", &format!("grpc_code=\"{code}\",grpc_method"), 1);
        count(&format!("grpc_server_handled_total{{{labels}"))
    };
    assert_eq!((handled("OK"), handled("InvalidArgument"), handled("Canceled")), (3, 1, 0));
    cluster.stop().await;
}
