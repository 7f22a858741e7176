//! The JSON gateway answers as etcd's does: the same requests, one after the other, to real etcd and to holdfast with one
//! and three members; HTTP status and JSON are compared, field by field.

use std::time::Duration;

use cluster_tests::conformance::members::Members;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What tells one cluster or process from another, and says nothing about an API.
const OWN: [&str; 13] = [
    "cluster_id",
    "member_id",
    "members",
    "raft_term",
    "leader",
    "dbSize",
    "dbSizeInUse",
    "raftIndex",
    "raftTerm",
    "raftAppliedIndex",
    "hash",
    "token",
    "TTL",
];

/// What etcd 3.5.1 does not know yet.
const NEWER: [&str; 4] = ["storageVersion", "dbSizeQuota", "downgradeInfo", "hash_revision"];

/// How much of an answer is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// Status and body.
    All,
    /// Status and code: the text is of the JSON library.
    Code,
    /// So many lines of a stream, which goes on.
    Lines(usize),
    /// The status alone.
    Status,
}
use Compared::{All, Code, Lines, Status};

/// In this order: verb, path, body. `$TOKEN` is the last token that was answered.
const REQUESTS: &[(Compared, &str, &str, &str)] = &[
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9w","value":"PD4m","unknown":{"a":[1,null]}}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9v"} what follows"#),
    (
        All,
        "POST",
        "/v3/kv/range",
        r#"{"key":"AA==","rangeEnd":"AA==","sort_order":"DESCEND","sortTarget":1,"limit":"1"}"#,
    ),
    (All, "POST", "/v3/kv/range", r#"{"key":"AA==","range_end":"AA==","count_only":true,"limit":0}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"bm9uZQ==","serializable":true}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9v","revision":99}"#),
    (All, "POST", "/v3/kv/range", ""),
    (All, "POST", "/v3/kv/range", "{}"),
    (All, "POST", "/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    (All, "GET", "/v3/kv/range", ""),
    (All, "PUT", "/v3/kv/put", r#"{"key":"Zm9v"}"#),
    (All, "POST", "/v3/kv/nothing", "{}"),
    (All, "POST", "/v3/", "{}"),
    (Code, "POST", "/v3alpha/kv/range", r#"{"key":"Zm9v"}"#),
    (Code, "POST", "/v3/kv/range", r#"{"key":5}"#),
    (Code, "POST", "/v3/kv/range", r#"{"key":"*"}"#),
    (Code, "POST", "/v3/kv/range", r#"{"key":"Zm9v","limit":1.5}"#),
    (Code, "POST", "/v3/kv/range", r#"{"key":"Zm9v","sort_order":"SIDEWAYS"}"#),
    (Code, "POST", "/v3/kv/range", "{bad"),
    (Code, "POST", "/v3/kv/range", "[]"),
    (Code, "POST", "/v3/kv/range", "\"text\""),
    (All, "POST", "/v3/kv/put", "{}"),
    (
        All,
        "POST",
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"VERSION","result":"GREATER","version":"1"}],
            "success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"Zm94","value":"eA=="}}],
            "failure":[{"request_delete_range":{"key":"Zm9v"}}]}"#,
    ),
    (
        All,
        "POST",
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":3,"value":"bm8="}],"failure":[{"request_txn":{"success":[
            {"request_delete_range":{"key":"Zm94","prev_kv":true}}]}}]}"#,
    ),
    (
        All,
        "POST",
        "/v3/kv/txn",
        r#"{"success":[{"request_put":{"key":"YQ=="}},{"request_put":{"key":"YQ=="}}]}"#,
    ),
    (All, "POST", "/v3/kv/deleterange", r#"{"key":"Zm9w","prev_kv":true}"#),
    (All, "POST", "/v3/kv/deleterange", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/kv/compaction", r#"{"revision":"99"}"#),
    (All, "POST", "/v3/kv/compaction", r#"{"revision":3,"physical":true}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9v","revision":"2"}"#),
    (All, "POST", "/v3/lease/keepalive", r#"{"ID":77}"#),
    (All, "POST", "/v3/lease/grant", r#"{"TTL":60,"ID":"77"}"#),
    (All, "POST", "/v3/lease/grant", r#"{"TTL":60,"ID":77}"#),
    (All, "POST", "/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":"77"}"#),
    (All, "POST", "/v3/lease/keepalive", r#"{"ID":77}{"ID":"78"} {"ID":77}"#),
    (All, "POST", "/v3/lease/timetolive", r#"{"ID":"77","keys":true}"#),
    (All, "POST", "/v3/kv/lease/timetolive", r#"{"ID":"77","keys":true}"#),
    (All, "POST", "/v3/lease/leases", "{}"),
    (All, "POST", "/v3/kv/lease/leases", ""),
    (All, "POST", "/v3/lease/revoke", r#"{"ID":"77"}"#),
    (All, "POST", "/v3/kv/lease/revoke", r#"{"ID":"77"}"#),
    (Lines(1), "POST", "/v3/watch", r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#),
    (
        Lines(2),
        "POST",
        "/v3/watch",
        r#"{"create_request":{"key":"AA==","range_end":"AA==","start_revision":4,"prev_kv":true}}"#,
    ),
    (
        Lines(1),
        "POST",
        "/v3/watch",
        r#"{"createRequest":{"key":"Zm9v","watchId":"7","filters":["NOPUT",1]}}"#,
    ),
    (All, "POST", "/v3/maintenance/status", "{}"),
    (All, "POST", "/v3/maintenance/alarm", "{}"),
    (All, "POST", "/v3/maintenance/alarm", r#"{"action":"DEACTIVATE","alarm":"NOSPACE"}"#),
    (All, "POST", "/v3/maintenance/hash", "{}"),
    (All, "POST", "/v3/maintenance/defragment", "{}"),
    (Status, "POST", "/v3/maintenance/snapshot", "{}"),
    // Another member than the leader says so.
    (Code, "POST", "/v3/maintenance/transfer-leadership", r#"{"targetID":"5"}"#),
    (All, "POST", "/v3/maintenance/downgrade", r#"{"action":"VALIDATE","version":"none"}"#),
    (All, "POST", "/v3/cluster/member/list", "{}"),
    (All, "POST", "/v3/cluster/member/add", r#"{"peerURLs":["none"]}"#),
    // etcd 3.5.1 drops a change that comes before the one in front of it is applied.
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/cluster/member/update", r#"{"ID":"5","peerURLs":["http://127.0.0.1:1"]}"#),
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/cluster/member/promote", r#"{"ID":"5"}"#),
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/cluster/member/remove", r#"{"ID":"1"}"#),
    (All, "POST", "/v3/kv/put", r#"{"key":"Zm9w"}"#),
    (All, "POST", "/v3/lease/grant", r#"{"TTL":6000,"ID":99}"#),
    (All, "POST", "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"99"}"#),
    (All, "POST", "/v3/lock/lock", r#"{"name":"bG9jaw==","lease":"98"}"#),
    (All, "POST", "/v3/election/campaign", r#"{"name":"ZQ==","lease":"99","value":"dg=="}"#),
    (Lines(1), "POST", "/v3/election/observe", r#"{"name":"ZQ=="}"#),
    (All, "POST", "/v3/election/leader", r#"{"name":"ZQ=="}"#),
    (All, "POST", "/v3/election/resign", "{}"),
    (All, "POST", "/v3/election/leader", r#"{"name":"bm9uZQ=="}"#),
    (All, "POST", "/v3/election/proclaim", "{}"),
    (All, "POST", "/v3/lock/unlock", r#"{"key":"bm9uZQ=="}"#),
    (All, "POST", "/v3/auth/status", "{}"),
    (All, "POST", "/v3/auth/enable", "{}"),
    (All, "POST", "/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
    (All, "POST", "/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
    (All, "POST", "/v3/auth/role/add", r#"{"name":"root"}"#),
    (All, "POST", "/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
    (All, "POST", "/v3/auth/user/add", r#"{"name":"ann","password":"apple"}"#),
    (All, "POST", "/v3/auth/role/add", r#"{"name":"reader"}"#),
    (All, "POST", "/v3/auth/role/grant", r#"{"name":"reader","perm":{"permType":"READ","key":"Zm9v"}}"#),
    (All, "POST", "/v3/auth/role/get", r#"{"role":"reader"}"#),
    (All, "POST", "/v3/auth/role/list", "{}"),
    (All, "POST", "/v3/auth/user/grant", r#"{"user":"ann","role":"reader"}"#),
    (All, "POST", "/v3/auth/user/get", r#"{"name":"ann"}"#),
    (All, "POST", "/v3/auth/user/list", ""),
    (All, "POST", "/v3/auth/enable", "{}"),
    (All, "POST", "/v3/kv/range", r#"{"key":"Zm9v"}"#),
    (All, "POST", "/v3/auth/authenticate", r#"{"name":"ann","password":"pear"}"#),
    (All, "POST", "/v3/auth/authenticate", r#"{"name":"ann","password":"apple"}"#),
    (All, "POST $TOKEN", "/v3/kv/range", r#"{"key":"Zm9v"}"#),
    (All, "POST $TOKEN", "/v3/kv/range", r#"{"key":"Zm9w"}"#),
    (All, "POST $TOKEN", "/v3/kv/put", r#"{"key":"Zm9v"}"#),
    (All, "POST nonsense", "/v3/kv/range", r#"{"key":"Zm9v"}"#),
    (All, "POST $TOKEN", "/v3/auth/disable", "{}"),
    (All, "POST", "/v3/auth/authenticate", r#"{"name":"root","password":"secret"}"#),
    (All, "POST $TOKEN", "/v3/auth/user/changepw", r#"{"name":"ann","password":"plum"}"#),
    (All, "POST $TOKEN", "/v3/auth/role/revoke", r#"{"role":"reader","key":"Zm9v"}"#),
    (All, "POST $TOKEN", "/v3/auth/role/revoke", r#"{"role":"reader","key":"Zm9v"}"#),
    (All, "POST $TOKEN", "/v3/auth/user/revoke", r#"{"name":"ann","role":"reader"}"#),
    (All, "POST $TOKEN", "/v3/auth/role/delete", r#"{"role":"reader"}"#),
    (All, "POST $TOKEN", "/v3/auth/user/delete", r#"{"name":"ann"}"#),
    (All, "POST $TOKEN", "/v3/auth/disable", "{}"),
];

/// An answer, as far as it is compared.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// JSON, one for each line; a text where that is what came.
    body: Vec<Value>,
}

/// HTTP/1.0, whose answers end with the connection and are not cut into chunks.
async fn ask(url: &str, verb: &str, path: &str, body: &str, lines: Option<usize>) -> Answer {
    let authority = url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(authority).await.expect("the member listens");
    let (verb, token) = verb.split_once(' ').unwrap_or((verb, ""));
    let token = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
    let head = format!(
        "{verb} {path} HTTP/1.0\r\nHost: {authority}\r\n{token}Content-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("the member reads");
    let mut answer = BufReader::new(socket);
    let mut line = String::new();
    answer.read_line(&mut line).await.expect("an answer comes");
    let status =
        line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
    while line != "\r\n" {
        line.clear();
        answer.read_line(&mut line).await.expect("the headers end");
    }
    let mut text = String::new();
    match lines {
        None => drop(answer.read_to_string(&mut text).await.expect("the answer ends")),
        Some(count) => {
            for _ in 0..count {
                answer.read_line(&mut text).await.expect("the stream goes on");
            }
        }
    }
    let json = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| Value::from(line)));
    Answer { status, body: json.collect() }
}

/// Takes out what is a cluster's own, and the words that are not compared.
fn strip(value: &mut Value, compared: Compared) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !NEWER.contains(&name.as_str()));
            for (name, value) in fields {
                let is_release = name == "version" && value.as_str().is_some_and(|text| text.contains('.'));
                if is_release
                    || OWN.contains(&name.as_str())
                    || compared == Code && matches!(name.as_str(), "error" | "message")
                {
                    *value = Value::Null;
                }
                strip(value, compared);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| strip(value, compared)),
        _ => {}
    }
}

async fn play(system: System, count: usize) -> Vec<Answer> {
    let mut members = Members::start(system, count).await.expect("the members start");
    let (endpoints, mut token, mut answers) = (members.endpoints(), String::new(), Vec::new());
    for (number, (compared, verb, path, body)) in REQUESTS.iter().enumerate() {
        // Another member each time: the JSON of one must hold on all. Their tokens are known to all that have caught up.
        let member = if verb.contains(' ') { 0 } else { number % endpoints.len() };
        if members.count() > 1 {
            // A member may lag, rightly, and some headers are its own.
            members.catch_up(member).await.expect("the members agree");
        }
        let url = &endpoints[member];
        let lines = if let Lines(count) = compared { Some(*count) } else { None };
        let verb = verb.replace("$TOKEN", &token);
        let mut answer = tokio::time::timeout(TIMEOUT, ask(url, &verb, path, body, lines))
            .await
            .unwrap_or_else(|_| panic!("no answer to {path} {body}\n{}", members.log_ends()));
        if let Some(issued) = answer.body.first().and_then(|body| body["token"].as_str()) {
            token = issued.to_owned();
        }
        if *compared == Status {
            answer.body.clear();
        }
        answer.body.iter_mut().for_each(|value| strip(value, *compared));
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn the_gateway_answers_as_etcds_does() {
    let Some(etcd) = binary::etcd() else {
        return skipped(
            "the gateway beside etcd's",
            "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN",
        );
    };
    let cheap = ["--bcrypt-cost=4".to_owned()];
    let ours = || System::holdfast(&cheap).expect("holdfast is built");
    let (etcd, one, three) =
        tokio::join!(play(System::etcd(etcd, &cheap), 1), play(ours(), 1), play(ours(), 3));
    for ((request, etcd), (one, three)) in REQUESTS.iter().zip(&etcd).zip(one.iter().zip(&three)) {
        assert_eq!(one, etcd, "{request:?} on one member");
        assert_eq!(three, etcd, "{request:?} on three members");
    }
}
