//! What answers the requests of one client connection.
//!
//! Most requests of a busy member are calls with one small message and one small answer: puts, gets, transactions. In front
//! of a service stand layers that others need, for streams, for compression, for messages in many pieces, for paths that
//! have to be looked up: together they cost as much as everything else that a call costs here. So a call of one of
//! a few methods goes from the frame to its service, and its answer back into frames, when its message is whole in the
//! first frame. Whatever is different in any way (a message in pieces or compressed, one that cannot be
//! decoded, HTTP/1) goes through the layers, with what was taken of its body in front: nothing here refuses anything.

mod list;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::{BoxFuture, FutureExt};
use holdfast_proto::codec::Codec;
use holdfast_proto::etcdserverpb::kv_server::Kv;
use holdfast_proto::etcdserverpb::lease_server::Lease;
use holdfast_proto::etcdserverpb::{self as pb, response_op};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride};
use tonic::metadata::MetadataMap;
use tower::ServiceExt;

use crate::auth::certificates::CertificateId;
use crate::frontend::Frontend;
use crate::metrics::rpc::{CountedBody, CountedCall, Counting, RpcMetrics};
use crate::receiving::{Received, Receiving};
use crate::serve::is_grpc;
use crate::services::kv::{Found, KvService};
use crate::services::lease::LeaseService;
use list::List;

/// What is in front of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A longer answer is encoded and sent in pieces, as those of the layers are.
const WHOLE_BYTES_MAX: usize = 16 * 1024;

/// A transaction with a list of more pairs is long, however short they are: measuring it takes time, too.
const WHOLE_PAIRS_MAX: usize = 64;

/// The requests of one connection.
pub struct Port<S> {
    shared: Arc<Shared<S>>,
    /// What the connection has shown.
    certificate: Option<CertificateId>,
}

/// What the connections of a listener share: the services, and the service `S` that is all of them with their layers.
pub struct Shared<S> {
    kv: KvService,
    lease: LeaseService,
    metrics: RpcMetrics,
    receiving: Arc<Receiving>,
    layers: S,
}

impl<S> Shared<S> {
    /// For the services of this member.
    pub fn new(frontend: &Arc<Frontend>, layers: S) -> Self {
        Self {
            kv: KvService::new(Arc::clone(frontend)),
            lease: LeaseService::new(Arc::clone(frontend)),
            metrics: frontend.metrics.rpc.clone(),
            receiving: Arc::clone(&frontend.receiving),
            layers,
        }
    }
}

/// Calls that come often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Range,
    Put,
    DeleteRange,
    Txn,
    LeaseGrant,
    LeaseRevoke,
}

impl Method {
    /// The method of a request, if it is one of these and comes over HTTP/2, uncompressed.
    fn of<B>(request: &Request<B>) -> Option<Self> {
        let method = match request.uri().path() {
            "/etcdserverpb.KV/Range" => Self::Range,
            "/etcdserverpb.KV/Put" => Self::Put,
            "/etcdserverpb.KV/DeleteRange" => Self::DeleteRange,
            "/etcdserverpb.KV/Txn" => Self::Txn,
            "/etcdserverpb.Lease/LeaseGrant" => Self::LeaseGrant,
            "/etcdserverpb.Lease/LeaseRevoke" => Self::LeaseRevoke,
            _ => return None,
        };
        let headers = request.headers();
        let is_plain = request.version() == Version::HTTP_2
            && request.method() == axum::http::Method::POST
            && is_grpc(headers)
            && !headers.contains_key("grpc-encoding");
        is_plain.then_some(method)
    }
}

/// The answer of a [`Port`].
pub enum Answer {
    /// A whole message, then the trailers of success.
    Whole {
        /// The message with its prefix; `None` once it was taken.
        message: Option<Bytes>,
        /// What comes behind it; `None` once it was taken.
        trailers: Option<HeaderMap>,
        /// Told when the trailers are taken.
        counting: Counting,
    },
    /// A long list, then the trailers of success.
    List {
        /// What is left of it.
        list: Box<List>,
        /// What comes behind it; `None` once it was taken.
        trailers: Option<HeaderMap>,
        /// Told when the trailers are taken.
        counting: Counting,
    },
    /// What the layers give.
    Layers(CountedBody),
}

impl<S> Port<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync,
    S: 'static,
    S::Future: Send,
{
    /// For one connection.
    pub fn new(shared: Arc<Shared<S>>, certificate: Option<CertificateId>) -> Self {
        Self { shared, certificate }
    }

    /// Through the layers. Boxed: it is large, and most calls do without it.
    fn layered(self, request: Request<Replayed>, counting: Counting) -> BoxFuture<'static, Response<Answer>> {
        let is_grpc = is_grpc(request.headers());
        let receiving = Arc::clone(&self.shared.receiving);
        let mut request = request.map(|body| match is_grpc {
            true => Body::new(Received::new(body, receiving)),
            false => Body::new(body),
        });
        if let Some(id) = self.certificate {
            request.extensions_mut().insert(id);
        }
        let answering = CountedCall::new(self.shared.layers.clone().oneshot(request), counting);
        Box::pin(async move {
            let Ok(response) = answering.await;
            response.map(Answer::Layers)
        })
    }

    /// Straight to the service, if the message allows it.
    async fn direct(
        self,
        method: Method,
        request: Request<Incoming>,
        counting: Counting,
    ) -> Response<Answer> {
        let (mut parts, body) = request.into_parts();
        let mut body = Replayed::new(body);
        let Some(message) = body.whole_message().await else {
            return self.layered(Request::from_parts(parts, body), counting).await;
        };
        if let Some(id) = self.certificate {
            parts.extensions.insert(id);
        }
        let Shared { kv, lease, .. } = &*self.shared;
        macro_rules! call {
            ($service:ident.$method:ident) => {
                match decode(parts, message) {
                    Ok(request) => {
                        // So that the frame, which holds more than this message, goes as soon as its service has copied
                        // what it keeps.
                        drop(body);
                        return answered($service.$method(request).await, counting);
                    }
                    Err(parts) => parts,
                }
            };
        }
        let parts = match method {
            Method::Range => call!(kv.list),
            Method::Put => call!(kv.put),
            Method::DeleteRange => call!(kv.delete_range),
            Method::Txn => call!(kv.txn),
            Method::LeaseGrant => call!(lease.lease_grant),
            Method::LeaseRevoke => call!(lease.lease_revoke),
        };
        self.layered(Request::from_parts(*parts, body), counting).await
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Port<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync,
    S: 'static,
    S::Future: Send,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Answer>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let counting = self.shared.metrics.begin(request.uri().path());
        let port = Self { shared: Arc::clone(&self.shared), certificate: self.certificate };
        match Method::of(&request) {
            Some(method) => Box::pin(async move { Ok(port.direct(method, request, counting).await) }),
            None => {
                let layered = port.layered(request.map(Replayed::new), counting);
                Box::pin(layered.map(Ok))
            }
        }
    }
}

/// The request that a message is; what it came with, when it cannot be decoded.
fn decode<Q: Message + Default>(parts: Parts, message: Bytes) -> Result<tonic::Request<Q>, Box<Parts>> {
    match Q::decode(message) {
        Ok(message) => {
            let metadata = MetadataMap::from_headers(parts.headers);
            Ok(tonic::Request::from_parts(metadata, parts.extensions, message))
        }
        Err(_) => Err(Box::new(parts)),
    }
}

/// What is sent for a result.
fn answered<A: Answering>(
    result: Result<tonic::Response<A>, Status>,
    mut counting: Counting,
) -> Response<Answer> {
    let result = result.and_then(|answer| {
        let (metadata, message, _) = answer.into_parts();
        Ok((metadata, message.sending()?))
    });
    let (metadata, sending) = match result {
        Ok(answer) => answer,
        Err(status) => {
            counting.ended(status.code());
            return status.into_http::<Body>().map(|empty| Answer::Layers(CountedBody::new(empty, counting)));
        }
    };
    let mut response = Response::new(match sending {
        Sending::Whole(message) => {
            Answer::Whole { message: Some(message), trailers: Some(success()), counting }
        }
        Sending::List(list) => Answer::List { list, trailers: Some(success()), counting },
        Sending::Layers(body) => Answer::Layers(CountedBody::new(body, counting)),
    });
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A message as the layers send it.
fn encoded<A: Measured>(message: A) -> Body {
    let encoder = Codec::<A, A>::default().encoder();
    let messages = tokio_stream::once(Ok(message));
    let as_it_is = SingleMessageCompressionOverride::default();
    Body::new(EncodeBody::new_server(encoder, messages, None, as_it_is, Some(usize::MAX)))
}

/// A message with its prefix.
fn framed(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("a short message"));
    message.encode(&mut bytes).expect("a buffer that grows has room");
    bytes.freeze()
}

/// How an answer is sent.
enum Sending {
    /// As one message, with its prefix.
    Whole(Bytes),
    /// As a long list.
    List(Box<List>),
    /// As the layers send it.
    Layers(Body),
}

/// What services answer.
trait Answering {
    /// How this one is sent.
    fn sending(self) -> Result<Sending, Status>;
}

impl<A: Measured> Answering for A {
    fn sending(self) -> Result<Sending, Status> {
        Ok(if self.is_long() { Sending::Layers(encoded(self)) } else { Sending::Whole(framed(&self)) })
    }
}

impl Answering for Found {
    fn sending(self) -> Result<Sending, Status> {
        let list = match self {
            Self::Pairs(response) => return response.sending(),
            Self::Encoded(list) => list,
        };
        let bytes = list.bytes;
        let is_short = bytes <= WHOLE_BYTES_MAX;
        let whole = if is_short { list::whole(&list).map(Sending::Whole) } else { None };
        let sending = whole.or_else(|| List::new(list).map(Sending::List));
        sending.ok_or_else(|| {
            Status::resource_exhausted(format!(
                "a list of {bytes} bytes is too long for one answer of gRPC, which has 4 GiB at most: set a limit, and ask for \
                 the rest from behind the last key"
            ))
        })
    }
}

/// A message that may be long.
trait Measured: Message + Default + 'static {
    /// True for one that is sent in pieces.
    fn is_long(&self) -> bool {
        self.encoded_len() > WHOLE_BYTES_MAX
    }
}

impl Measured for pb::PutResponse {}
impl Measured for pb::DeleteRangeResponse {}
impl Measured for pb::LeaseGrantResponse {}
impl Measured for pb::LeaseRevokeResponse {}
impl Measured for pb::RangeResponse {}

impl Measured for pb::TxnResponse {
    fn is_long(&self) -> bool {
        let is_long = |op: &pb::ResponseOp| match &op.response {
            Some(response_op::Response::ResponseRange(range)) => range.kvs.len() > WHOLE_PAIRS_MAX,
            _ => false,
        };
        self.responses.iter().any(is_long) || self.encoded_len() > WHOLE_BYTES_MAX
    }
}

/// A body of which some frames were taken: they come first again.
struct Replayed {
    taken: VecDeque<Result<Frame<Bytes>, hyper::Error>>,
    rest: Incoming,
}

impl Replayed {
    fn new(rest: Incoming) -> Self {
        Self { taken: VecDeque::new(), rest }
    }

    /// The one message of the body, without its prefix, if it comes whole and uncompressed in the first frame. The frames
    /// that were looked at stay in the body.
    async fn whole_message(&mut self) -> Option<Bytes> {
        let first = self.rest.frame().await?;
        let message = first.as_ref().ok().and_then(Frame::data_ref).and_then(whole);
        self.taken.push_back(first);
        while message.is_some() && !self.rest.is_end_stream() {
            match self.rest.frame().await {
                None => break,
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(other) => {
                    self.taken.push_back(other);
                    return None;
                }
            }
        }
        message
    }
}

/// The message in a frame that holds one message and nothing else.
fn whole(frame: &Bytes) -> Option<Bytes> {
    let (prefix, message) = frame.split_first_chunk::<PREFIX_BYTES>()?;
    let [flags, length @ ..] = *prefix;
    let is_whole = flags == 0 && u32::from_be_bytes(length) as usize == message.len();
    is_whole.then(|| frame.slice(PREFIX_BYTES..))
}

impl HttpBody for Replayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.taken.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.taken.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Self::Layers(body) => Pin::new(body).poll_frame(context),
            Self::Whole { message, trailers, counting } => {
                if let Some(message) = message.take() {
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                counting.ended(tonic::Code::Ok);
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Self::List { list, trailers, counting } => {
                match ready!(list.poll_piece(context)) {
                    Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                    Ok(None) => {}
                    Err(status) => {
                        counting.ended(status.code());
                        return Poll::Ready(Some(Err(status)));
                    }
                }
                counting.ended(tonic::Code::Ok);
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Layers(body) => body.is_end_stream(),
            Self::Whole { trailers, .. } | Self::List { trailers, .. } => trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Layers(body) => body.size_hint(),
            // None: there are trailers.
            Self::Whole { .. } | Self::List { .. } => SizeHint::default(),
        }
    }
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::Pairs;
    use holdfast_mvcc::command::RangeResponse;
    use holdfast_mvcc::types::{KeyValue, Revision};

    use super::*;
    use crate::codec::list::ListWriter;
    use crate::codec::response;

    #[test]
    fn a_frame_is_one_message_or_goes_the_long_way() {
        let frame = |bytes: &[u8]| whole(&Bytes::copy_from_slice(bytes));
        assert_eq!(frame(&[0, 0, 0, 0, 2, 7, 8]), Some(Bytes::from_static(&[7, 8])));
        assert_eq!(frame(&[0, 0, 0, 0, 0]), Some(Bytes::new()));
        // Too short, compressed, unfinished, more than one, none.
        for bytes in [&[0, 0, 0, 0][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 1, 7, 8], &[]] {
            assert_eq!(frame(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn the_methods_are_those_of_the_contract() {
        let set = prost_types::FileDescriptorSet::decode(holdfast_proto::FILE_DESCRIPTOR_SET).unwrap();
        let paths = set.file.iter().flat_map(|file| {
            let services = file.service.iter();
            let methods =
                services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
            methods
                .map(|(service, method)| format!("/{}.{}/{}", file.package(), service.name(), method.name()))
        });
        let named = |path: &String| {
            let request = Request::post(path).version(Version::HTTP_2);
            Method::of(&request.header("content-type", "application/grpc").body(()).unwrap()).is_some()
        };
        assert_eq!(paths.filter(named).count(), 6);
    }

    #[test]
    fn what_is_different_in_any_way_goes_the_long_way() {
        let put = || Request::post("/etcdserverpb.KV/Put").version(Version::HTTP_2);
        let grpc = || put().header("content-type", "application/grpc+proto");
        let method = |request: axum::http::request::Builder| Method::of(&request.body(()).unwrap());
        assert_eq!(method(grpc()), Some(Method::Put));
        assert_eq!(method(put().header("content-type", "text/plain")), None);
        assert_eq!(method(grpc().version(Version::HTTP_11)), None);
        assert_eq!(method(grpc().method("GET")), None);
        assert_eq!(method(grpc().header("grpc-encoding", "identity")), None);
    }

    async fn body_of(answer: impl Answering) -> (bool, Bytes, HeaderMap) {
        let response = answered(Ok(tonic::Response::new(answer)), Counting::default());
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc");
        let is_whole = matches!(response.body(), Answer::Whole { .. });
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        (is_whole, collected.to_bytes(), trailers)
    }

    /// Whether in one piece or in several, it is the same message and the same end.
    #[tokio::test]
    async fn an_answer_is_its_message_and_trailers() {
        let pair = |bytes: usize| KeyValue {
            key: Bytes::from_static(b"key"),
            create_revision: Revision::new(2),
            mod_revision: Revision::new(2),
            version: 1,
            lease: None,
            value: vec![7; bytes].into(),
        };
        let header = pb::ResponseHeader { revision: 9, ..pb::ResponseHeader::default() };
        for (values, in_one_piece) in
            [(&[][..], true), (&[10], true), (&[100; 100], true), (&[100; 200], false), (&[20_000], false)]
        {
            let count = values.len() as u64;
            let mut pairs = ListWriter::new(header, None);
            assert!(values.iter().all(|bytes| pairs.push(pair(*bytes)).is_continue()));
            let list = ListWriter::finish(RangeResponse { kvs: pairs, more: false, count }).unwrap();
            let kvs = values.iter().map(|bytes| pair(*bytes)).collect();
            let message = response::range(RangeResponse { kvs, more: false, count }, header);
            for found in [Found::Encoded(list), Found::Pairs(message.clone())] {
                let (is_whole, bytes, trailers) = body_of(found).await;
                assert_eq!(is_whole, in_one_piece, "{count} pairs");
                assert!(bytes == framed(&message), "{count} pairs");
                assert_eq!(trailers, success());
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_has_no_body() {
        let refused = answered::<pb::PutResponse>(Err(Status::unavailable("not now")), Counting::default());
        assert_eq!(refused.headers()["grpc-status"], "14");
        assert!(refused.body().is_end_stream());
    }
}
