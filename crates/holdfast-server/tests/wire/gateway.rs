//! The JSON gateway of running members; beside etcd's it is in `cluster-tests/tests/gateway.rs`.

use crate::common::*;
use holdfast_testserver::TestCluster;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An open answer: its status, and its body behind it.
struct Answer {
    status: u16,
    body: BufReader<TcpStream>,
}

impl Answer {
    /// To a request in HTTP/1.0, whose answer is not cut into chunks.
    async fn to(url: &str, path: &str, headers: &str, body: &str) -> Self {
        let authority = url.trim_start_matches("http://");
        let mut socket = TcpStream::connect(authority).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.0\r\nHost: {authority}\r\n{headers}Content-Length: {}", body.len());
        socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        let mut body = BufReader::new(socket);
        let mut line = String::new();
        body.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        while line != "\r\n" {
            line.clear();
            body.read_line(&mut line).await.unwrap();
        }
        Self { status, body }
    }

    /// The next line; null at the end.
    async fn line(&mut self) -> Value {
        let mut line = String::new();
        self.body.read_line(&mut line).await.unwrap();
        if line.is_empty() { Value::Null } else { serde_json::from_str(&line).unwrap() }
    }
}

async fn post(url: &str, path: &str, headers: &str, body: &Value) -> (u16, Value) {
    let mut answer = Answer::to(url, path, headers, &body.to_string()).await;
    (answer.status, answer.line().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_changes_as_they_come_and_ends_with_its_client() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut watch = Answer::to(&url, "/v3/watch", "", r#"{"create_request":{"key":"aw=="}}"#).await;
    assert_eq!(watch.status, 200);
    assert_eq!(watch.line().await["result"]["created"], true);
    for value in ["one", "two"] {
        put(&mut kv(&url), "k", value).await;
        let told = watch.line().await;
        let expected = if value == "one" { "b25l" } else { "dHdv" };
        assert_eq!(told["result"]["events"][0]["kv"]["value"], expected, "{told}");
    }
    let figures = || cluster.server(0).watch_figures();
    assert_eq!(figures().watchers, 1);
    drop(watch);
    while figures().watchers > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_and_bounded_as_those_of_grpc_are() {
    let cluster = TestCluster::start(1, &["--max-request-bytes=16384"]).await.unwrap();
    let url = cluster.endpoint(0);
    let (status, put) = post(&url, "/v3/kv/put", "", &json!({ "key": "aw==", "value": "YWFh" })).await;
    assert_eq!((status, &put["header"]["revision"]), (200, &json!("2")));
    let (_, page) = http_get(&url, "/metrics").await;
    let counted = r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#;
    assert!(page.contains(counted), "{page}");
    // Larger than a request may be; than a message may be; than a body is read.
    for (bytes, code, status) in [(40_000, 3, 400), (800_000, 8, 429), (2_000_000, 8, 429)] {
        let large = json!({ "key": "aw==", "value": "YWFh".repeat(bytes / 4) });
        let (found, said) = post(&url, "/v3/kv/put", "", &large).await;
        assert_eq!((found, &said["code"]), (status, &json!(code)), "{bytes}: {said}");
    }
    // An object without an end is not gathered for ever.
    let endless = format!("{{\"create_request\":{{\"key\":\"{}", "YWFh".repeat(600_000));
    let mut refused = Answer::to(&url, "/v3/watch", "", &endless).await;
    assert_eq!((refused.status, &refused.line().await["error"]["code"]), (429, &json!(8)));
    // etcd answers 500 here.
    let mut refused = Answer::to(&url, "/v3/watch", "", "{bad").await;
    assert_eq!((refused.status, &refused.line().await["error"]["code"]), (400, &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_in_browsers_are_refused() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let range = json!({ "key": "aw==" });
    // Its own address as well: a name that somebody else has may point to it.
    for origin in ["http://example.com", "null", &url] {
        let (status, said) = post(&url, "/v3/kv/range", &format!("Origin: {origin}\r\n"), &range).await;
        assert_eq!((status, &said["code"]), (403, &json!(7)), "{said}");
        assert!(said["message"].as_str().unwrap().contains("drops the header Origin"), "{said}");
    }
    assert_eq!(post(&url, "/v3/kv/range", "", &range).await.0, 200);
}

/// A browser sends such a request for any page, without asking before.
#[tokio::test(flavor = "multi_thread")]
async fn the_paths_of_grpc_take_nothing_else() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    // Put "k" to "v", framed.
    let body = "\0\0\0\0\x06\n\x01k\x12\x01v";
    for content_type in ["", "Content-Type: text/plain\r\n", "Content-Type: application/json\r\n"] {
        let answer = Answer::to(&url, "/etcdserverpb.KV/Put", content_type, body).await;
        assert_eq!(answer.status, 415, "{content_type}");
    }
    let (_, found) = post(&url, "/v3/kv/range", "", &json!({ "key": "aw==" })).await;
    assert_eq!((&found["count"], &found["header"]["revision"]), (&Value::Null, &json!("1")), "{found}");
    let answer =
        Answer::to(&url, "/etcdserverpb.KV/Put", "Content-Type: application/grpc+proto\r\n", body).await;
    assert_eq!(answer.status, 200);
}

/// A path that etcd has since 3.6.
#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_history_has_a_path() {
    let cluster = TestCluster::single().await.unwrap();
    let (status, said) = post(&cluster.endpoint(0), "/v3/maintenance/hashkv", "", &json!({})).await;
    assert_eq!((status, &said["hash_revision"]), (200, &json!("1")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_left_out() {
    let cluster = TestCluster::start(1, &["--enable-grpc-gateway=false"]).await.unwrap();
    assert_eq!(Answer::to(&cluster.endpoint(0), "/v3/kv/range", "", r#"{"key":"aw=="}"#).await.status, 404);
    assert_eq!(http_get(&cluster.endpoint(0), "/version").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_for_the_call_reach_it() {
    let cluster = TestCluster::start(1, &["--bcrypt-cost=4"]).await.unwrap();
    let url = cluster.endpoint(0);
    for (path, body) in [
        ("/v3/auth/user/add", json!({ "name": "root", "password": "secret" })),
        ("/v3/auth/role/add", json!({ "name": "root" })),
        ("/v3/auth/user/grant", json!({ "user": "root", "role": "root" })),
        ("/v3/auth/enable", json!({})),
    ] {
        assert_eq!(post(&url, path, "", &body).await.0, 200, "{path}");
    }
    let range = json!({ "key": "aw==" });
    assert_eq!(post(&url, "/v3/kv/range", "", &range).await.0, 400, "nobody asks");
    let (_, issued) =
        post(&url, "/v3/auth/authenticate", "", &json!({ "name": "root", "password": "secret" })).await;
    let token = issued["token"].as_str().unwrap();
    for name in ["Authorization", "Grpc-Metadata-Token", "Grpc-Metadata-Authorization"] {
        assert_eq!(
            post(&url, "/v3/kv/range", &format!("{name}: {token}\r\n"), &range).await.0,
            200,
            "{name}"
        );
        let (status, said) = post(&url, "/v3/kv/range", &format!("{name}: unknown\r\n"), &range).await;
        assert_eq!((status, &said["message"]), (401, &json!("etcdserver: invalid auth token")), "{name}");
    }
}
