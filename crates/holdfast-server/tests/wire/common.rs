//! What the end-to-end tests share: clients and short forms of requests.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::{request_op, response_op};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// More than any answer in these tests.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(crate) type Kv = KvClient<Channel>;

pub(crate) fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).unwrap().timeout(Duration::from_secs(20)).connect_lazy()
}

pub(crate) fn kv(url: &str) -> Kv {
    KvClient::new(channel(url)).max_decoding_message_size(ANSWER_BYTES_MAX)
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn put_request(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

pub(crate) fn range_request(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

pub(crate) fn delete_request(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(end), prev_kv: false }
}

pub(crate) async fn put(kv: &mut Kv, key: &str, value: &str) -> i64 {
    let answer = kv.put(put_request(key, value)).await.unwrap().into_inner();
    answer.header.unwrap().revision
}

/// The value of a key, by a linearizable read.
pub(crate) async fn get(kv: &mut Kv, key: &str) -> Option<String> {
    let answer = kv.range(range_request(key, "")).await.unwrap().into_inner();
    answer.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

pub(crate) fn keys(answer: &pb::RangeResponse) -> Vec<String> {
    answer.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

pub(crate) fn op_put(key: &str, value: &str) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestPut(put_request(key, value))) }
}

pub(crate) fn op_range(request: pb::RangeRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

pub(crate) fn op_delete(key: &str, end: &str) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete_request(key, end))) }
}

pub(crate) fn op_txn(txn: pb::TxnRequest) -> pb::RequestOp {
    pb::RequestOp { request: Some(request_op::Request::RequestTxn(txn)) }
}

/// A transaction without compares, so that the operations run.
pub(crate) fn txn(ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare: vec![], success: ops, failure: vec![] }
}

pub(crate) fn inner_range(response: &pb::ResponseOp) -> &pb::RangeResponse {
    let Some(response_op::Response::ResponseRange(range)) = &response.response else {
        panic!("{response:?}")
    };
    range
}

/// Code and text of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

pub(crate) fn refused(code: Code, text: &str) -> (Code, String) {
    (code, text.to_owned())
}

/// A plain HTTP/1.1 GET: status and body.
pub(crate) async fn http_get(url: &str, path: &str) -> (u16, String) {
    http_request("GET", url, path).await
}

pub(crate) async fn http_request(method: &str, url: &str, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}
