//! A client for JSON over HTTP.

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Requests to one server.
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
}

/// An answer that goes on, line by line.
pub(crate) struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Http {
    pub(crate) fn new(base: String) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), base }
    }

    /// Sends a request; gives the status and the body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let (status, body) = self.answer(method, path, body).await;
        let body = body.collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Asks for lines.
    pub(crate) async fn lines(&self, path: &str) -> Lines {
        let (status, body) = self.answer(Method::GET, path, &Value::Null).await;
        assert_eq!(status, StatusCode::OK);
        Lines { body, read: Vec::new() }
    }

    async fn answer(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Incoming) {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .body(Full::new(body))
            .unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        (head.status, body)
    }
}

impl Lines {
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let frame = self.body.frame().await.unwrap().unwrap();
            self.read.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}
