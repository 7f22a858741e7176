//! Counts RPCs by method and code, and gives the transport's "too large" error gRPC's own text.
//!
//! It stands around all services: a refusal carries its code in the headers, an answer in the trailers behind its body,
//! so the body is watched until its trailers pass. A body that is dropped before counts as canceled.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::status;

const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "Canceled"),
    (Code::Unknown, "Unknown"),
    (Code::InvalidArgument, "InvalidArgument"),
    (Code::DeadlineExceeded, "DeadlineExceeded"),
    (Code::NotFound, "NotFound"),
    (Code::AlreadyExists, "AlreadyExists"),
    (Code::PermissionDenied, "PermissionDenied"),
    (Code::ResourceExhausted, "ResourceExhausted"),
    (Code::FailedPrecondition, "FailedPrecondition"),
    (Code::Aborted, "Aborted"),
    (Code::OutOfRange, "OutOfRange"),
    (Code::Unimplemented, "Unimplemented"),
    (Code::Internal, "Internal"),
    (Code::Unavailable, "Unavailable"),
    (Code::DataLoss, "DataLoss"),
    (Code::Unauthenticated, "Unauthenticated"),
];

const GRPC_STATUS: &str = "grpc-status";

/// The calls that are being answered and have an end of their own; streams have none.
#[derive(Debug, Default)]
struct Answering {
    calls: AtomicUsize,
    none_left: Notify,
}

/// The counters of one method.
#[derive(Debug)]
pub struct MethodCounts {
    started: IntCounter,
    handled: [IntCounter; CODES.len()],
    /// For methods whose calls end by themselves.
    answering: Option<Arc<Answering>>,
}

impl MethodCounts {
    fn started(&self) {
        self.started.inc();
        if let Some(answering) = &self.answering {
            answering.calls.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn handled(&self, code: Code) {
        if let Some(answering) = &self.answering
            && answering.calls.fetch_sub(1, Ordering::SeqCst) == 1
        {
            answering.none_left.notify_waiters();
        }
        // A code is its place in the list, which begins at 0 and has no gap.
        if let Some(counter) = usize::try_from(i32::from(code)).ok().and_then(|at| self.handled.get(at)) {
            counter.inc();
        }
    }
}

/// The counters of all methods, by path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcMetrics {
    methods: Arc<HashMap<String, Arc<MethodCounts>>>,
    answering: Arc<Answering>,
}

impl RpcMetrics {
    /// Counters for every method of every client service.
    pub fn new(registry: &Registry) -> Self {
        let labels = ["grpc_type", "grpc_service", "grpc_method"];
        let made = "metric names are valid and unique";
        let started = IntCounterVec::new(
            Opts::new("grpc_server_started_total", "RPCs started on the server."),
            &labels,
        );
        let started = started.expect(made);
        let labels = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
        let handled = Opts::new(
            "grpc_server_handled_total",
            "RPCs completed on the server, regardless of success or failure.",
        );
        let handled = IntCounterVec::new(handled, &labels).expect(made);
        registry.register(Box::new(started.clone())).expect(made);
        registry.register(Box::new(handled.clone())).expect(made);
        let answering = Arc::<Answering>::default();
        let mut methods = HashMap::new();
        for (service, method, kind) in client_methods() {
            let counts = MethodCounts {
                started: started.with_label_values(&[kind, &service, &method]),
                handled: CODES.map(|(_, code)| {
                    handled.with_label_values(&[kind, service.as_str(), method.as_str(), code])
                }),
                answering: (kind == "unary").then(|| Arc::clone(&answering)),
            };
            methods.insert(format!("/{service}/{method}"), Arc::new(counts));
        }
        Self { methods: Arc::new(methods), answering }
    }

    /// An RPC begins.
    pub fn begin(&self, path: &str) -> Counting {
        let counts = self.methods.get(path).cloned();
        if let Some(counts) = &counts {
            counts.started();
        }
        Counting(counts)
    }

    /// Waits until no call is being answered. Streams do not count: they have no end of their own. Cancel-safe.
    pub async fn answered(&self) {
        loop {
            // Registered before the look, so that the last call's end is not missed.
            let mut none_left = std::pin::pin!(self.answering.none_left.notified());
            none_left.as_mut().enable();
            if self.answering.calls.load(Ordering::SeqCst) == 0 {
                return;
            }
            none_left.await;
        }
    }
}

/// Every method that clients may call: service, method, kind.
fn client_methods() -> Vec<(String, String, &'static str)> {
    let set = FileDescriptorSet::decode(holdfast_proto::FILE_DESCRIPTOR_SET)
        .expect("our own descriptors are well formed");
    let mut methods = Vec::new();
    for file in set.file.iter().filter(|file| !file.package().starts_with("holdfast.internal")) {
        for service in &file.service {
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "unary",
                    (false, true) => "server_stream",
                    (true, false) => "client_stream",
                    (true, true) => "bidi_stream",
                };
                methods.push((
                    format!("{}.{}", file.package(), service.name()),
                    method.name().to_owned(),
                    kind,
                ));
            }
        }
    }
    methods
}

/// A service whose RPCs are counted.
#[derive(Debug, Clone)]
pub struct RpcCounting<S> {
    inner: S,
    metrics: RpcMetrics,
}

impl<S> RpcCounting<S> {
    /// Counts into `metrics`.
    pub fn new(inner: S, metrics: RpcMetrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S> tower::Service<Request<Body>> for RpcCounting<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<CountedBody>;
    type Error = S::Error;
    type Future = CountedCall<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let counting = self.metrics.begin(request.uri().path());
        CountedCall::new(self.inner.call(request), counting)
    }
}

/// Counts the end of one RPC exactly once: the code it is told, or "canceled" when it is dropped untold. The default
/// counts nothing.
#[derive(Debug, Default)]
pub struct Counting(Option<Arc<MethodCounts>>);

impl Counting {
    /// The RPC has ended; what is told later does not count.
    pub fn ended(&mut self, code: Code) {
        if let Some(counts) = self.0.take() {
            counts.handled(code);
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.ended(Code::Cancelled);
    }
}

/// An RPC under way.
pub struct CountedCall<F> {
    inner: Pin<Box<F>>,
    counting: Counting,
}

impl<F> CountedCall<F> {
    /// An RPC that has begun.
    pub fn new(inner: F, counting: Counting) -> Self {
        Self { inner: Box::pin(inner), counting }
    }
}

impl<F, E> Future for CountedCall<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<CountedBody>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(result) = self.inner.as_mut().poll(cx) else { return Poll::Pending };
        let mut counting = std::mem::take(&mut self.counting);
        Poll::Ready(result.map(|response| {
            let response = with_grpc_text(response);
            // A refusal has no body: its code stands in the headers.
            if let Some(code) = code_of(response.headers()) {
                counting.ended(code);
            }
            response.map(|inner| CountedBody { inner, counting })
        }))
    }
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// Replaces the transport's refusal of a large message by the one that clients know.
fn with_grpc_text(response: Response<Body>) -> Response<Body> {
    if code_of(response.headers()) != Some(Code::OutOfRange) {
        return response;
    }
    let refused =
        Status::from_header_map(response.headers()).and_then(|s| status::too_large_in_transport(s.message()));
    match refused {
        Some(failure) => Status::from(failure).into_http(),
        None => response,
    }
}

/// A response's body, watched for its trailers.
#[derive(Debug)]
pub struct CountedBody {
    inner: Body,
    counting: Counting,
}

impl CountedBody {
    /// The body of an answer to this RPC.
    pub fn new(inner: Body, counting: Counting) -> Self {
        Self { inner, counting }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(code_of) {
                    self.counting.ended(code);
                }
            }
            Poll::Ready(Some(Err(status))) => self.counting.ended(status.code()),
            Poll::Ready(None) => self.counting.ended(Code::Ok),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_list_is_in_the_order_of_the_numbers() {
        for (at, (code, _)) in CODES.iter().enumerate() {
            assert_eq!(i32::from(*code), i32::try_from(at).unwrap());
        }
    }

    #[test]
    fn every_method_of_the_contract_is_counted_by_kind() {
        let methods = client_methods();
        let kind = |service: &str, method: &str| {
            methods.iter().find(|(s, m, _)| s == service && m == method).map(|(_, _, kind)| *kind)
        };
        assert_eq!(kind("etcdserverpb.KV", "Put"), Some("unary"));
        assert_eq!(kind("etcdserverpb.Watch", "Watch"), Some("bidi_stream"));
        assert_eq!(kind("etcdserverpb.Maintenance", "Snapshot"), Some("server_stream"));
        assert!(methods.iter().all(|(service, _, _)| !service.contains("internal")));
    }
}
