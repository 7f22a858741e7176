//! The JSON gateway: etcd's API below `/v3/` for who speaks HTTP/1.1 and JSON.
//!
//! It is a translation and nothing else. A JSON body becomes the message that it stands for, which goes as a gRPC call to
//! the same services that serve the port, in this process; what they answer becomes JSON. So every rule, limit, refusal
//! and count is theirs. Streams are translated message by message: what is not read is not fetched.
//!
//! Module map: `paths` says which path is which method; `json` translates messages and cuts a body into them;
//! `calls` is gRPC's framing, both ways; here are the route and the forms of the answers.

mod calls;
mod json;
mod paths;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, StatusCode, header, uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::limits::MESSAGE_TIMEOUT;
use crate::metrics::rpc::{CountedBody, RpcCounting};
use crate::receiving::{Receiving, Share, late};
use calls::{Answers, Refused, frame};
use paths::Method;

/// How much larger a message may be as JSON: base64 takes a third more, names and quotes the rest.
const JSON_FACTOR: usize = 2;

/// Headers with this in front become metadata of the call.
const METADATA: &str = "grpc-metadata-";

/// What the routes work with.
struct Gateway {
    services: RpcCounting<Routes>,
    json_bytes_max: usize,
    receiving: Arc<Receiving>,
}

/// The gateway's routes, in front of the services. `bytes_max` is what a message may have on the wire; what is not whole yet
/// counts among all that is being received.
pub fn routes(services: RpcCounting<Routes>, bytes_max: usize, receiving: Arc<Receiving>) -> Router {
    let gateway = Gateway { services, json_bytes_max: JSON_FACTOR * bytes_max, receiving };
    Router::new()
        .route("/v3/{*path}", any(call))
        .route("/v3/", any(async || plain(StatusCode::NOT_FOUND, "Not Found\n")))
        // What it was called before etcd 3.4.
        .route("/v3beta/{*path}", any(call))
        .with_state(Arc::new(gateway))
}

async fn call(
    State(gateway): State<Arc<Gateway>>,
    Path(path): Path<String>,
    request: Request<Body>,
) -> Response {
    let Some(method) = paths::method(&path) else { return plain(StatusCode::NOT_FOUND, "Not Found\n") };
    if request.method() != Verb::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    }
    if let Err(status) = not_from_a_page(request.headers()) {
        return refused(&status);
    }
    let (head, body) = request.into_parts();
    let refusal = Refused::default();
    let share = Share::of(Arc::clone(&gateway.receiving));
    let body = if method.input_streams {
        calls::requests(method, body, gateway.json_bytes_max, share, Arc::clone(&refusal))
    } else {
        match whole(method, body, gateway.json_bytes_max, share).await {
            Ok(message) => tonic::body::Body::new(http_body_util::Full::new(frame(&message))),
            Err(status) => return refused(&status),
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = Verb::POST;
    *request.version_mut() = axum::http::Version::HTTP_2;
    *request.uri_mut() = method.grpc.parse::<uri::Uri>().expect("a method's path is a URI");
    *request.headers_mut() = metadata(&head.headers);
    let Ok(answer) = gateway.services.clone().oneshot(request).await;
    let (head, body) = answer.into_parts();
    let answers = Answers::new(method, &head.headers, body, refusal);
    if method.output_streams { streamed(answers).await } else { single(answers).await }
}

/// The only message of a call; the empty one when there is no body.
async fn whole(method: &Method, mut body: Body, bytes_max: usize, mut share: Share) -> Result<Bytes, Status> {
    let read = async {
        let mut text = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken_off(&error))?;
            // Trailers say nothing here.
            let Some(bytes) = frame.data_ref() else { continue };
            text.extend_from_slice(bytes);
            if text.len() > bytes_max {
                return Err(too_large(bytes_max));
            }
            share.set(text.len())?;
        }
        Ok(text)
    };
    let text = timeout(MESSAGE_TIMEOUT, read).await.unwrap_or_else(|_| Err(late()))?;
    json::decode(&method.input, &text).map_err(Status::invalid_argument)
}

fn broken_off(error: &axum::Error) -> Status {
    Status::cancelled(format!("the request's body broke off: {error}"))
}

fn too_large(bytes_max: usize) -> Status {
    Status::resource_exhausted(format!("a JSON request may have {bytes_max} bytes: see --max-request-bytes"))
}

/// Refuses what a browser sends for a page: a store without auth would be open to every page that somebody near it looks
/// at. A member has no pages of its own, and an address that equals the page's proves nothing: its name may point anywhere.
fn not_from_a_page(headers: &HeaderMap) -> Result<(), Status> {
    if headers.contains_key(header::ORIGIN) {
        return Err(Status::permission_denied(
            "a page in a browser may not call a member: put a proxy in front that checks who asks and drops the header Origin",
        ));
    }
    Ok(())
}

/// What a call's services get to know: the token, and whatever is named as metadata.
fn metadata(from: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in from {
        let named = name.as_str().strip_prefix(METADATA).and_then(|name| name.parse::<HeaderName>().ok());
        let kept = named.or_else(|| {
            (name == header::AUTHORIZATION || name.as_str() == "grpc-timeout").then(|| name.clone())
        });
        if let Some(name) = kept {
            metadata.append(name, value.clone());
        }
    }
    metadata.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    metadata.insert(header::TE, HeaderValue::from_static("trailers"));
    metadata
}

async fn single(mut answers: Answers<CountedBody>) -> Response {
    let answer = match answers.next().await {
        Ok(Some(answer)) => answer,
        Ok(None) => return refused(&Status::internal("the call ended without an answer")),
        Err(status) => return refused(&status),
    };
    // What follows the answer says whether it counts.
    match answers.next().await {
        Ok(_) => json_answer(StatusCode::OK, answer.into()),
        Err(status) => refused(&status),
    }
}

/// One object a line, each as soon as it is there: `{"result":...}`, and `{"error":...}` for how it ended.
async fn streamed(mut answers: Answers<CountedBody>) -> Response {
    // Whether there is a stream at all is told by the HTTP status.
    let first = match answers.next().await {
        Ok(first) => first,
        Err(status) => return json_answer(http_status(status.code()), error_line(&status).into()),
    };
    let Some(first) = first else { return json_answer(StatusCode::OK, Body::empty()) };
    let lines = stream::unfold((Some(first), Some(answers)), |(first, answers)| async move {
        let mut answers = answers?;
        let (line, left) = match first {
            Some(first) => (result_line(&first), Some(answers)),
            None => match answers.next().await {
                Ok(Some(answer)) => (result_line(&answer), Some(answers)),
                Ok(None) => return None,
                Err(status) => (error_line(&status), None),
            },
        };
        Some((Ok::<_, std::convert::Infallible>(line), (None, left)))
    });
    json_answer(StatusCode::OK, Body::from_stream(lines))
}

fn result_line(answer: &[u8]) -> Bytes {
    [b"{\"result\":".as_slice(), answer, b"}\n"].concat().into()
}

/// In the words of etcd 3.5 and of 3.6, which call the code by different names.
fn error_line(status: &Status) -> Bytes {
    let (code, http) = (i32::from(status.code()), http_status(status.code()));
    let error = serde_json::json!({
        "grpc_code": code,
        "code": code,
        "http_code": http.as_u16(),
        "http_status": http.canonical_reason().unwrap_or_default(),
        "message": status.message(),
    });
    format!("{}\n", serde_json::json!({ "error": error })).into()
}

/// The text comes under both names that clients look for.
fn refused(status: &Status) -> Response {
    let body = serde_json::json!({
        "error": status.message(),
        "code": i32::from(status.code()),
        "message": status.message(),
    });
    json_answer(http_status(status.code()), body.to_string().into())
}

fn json_answer(status: StatusCode, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}

fn plain(status: StatusCode, body: &'static str) -> Response {
    (status, [(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))], body).into_response()
}

/// The HTTP status that etcd's gateway gives for a code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
