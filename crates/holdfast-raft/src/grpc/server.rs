//! Accepts connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{select_all, unfold};
use futures::{Stream, StreamExt};
use holdfast_env::net::FRAMES_MAX;
use holdfast_env::{BoxFuture, Duplex, Incoming};
use holdfast_tls::Acceptor;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::bind::bind_all;
use super::client::pump;
use super::codec::Frames;
use super::stream::PeerStream;
use super::{CONNECT_PATH, CONNECTION_WINDOW_BYTES, GrpcNet, LANE_KEY, STREAM_WINDOW_BYTES, chain, lane_of};

/// Connections that wait to be taken; each is one peer that comes back.
const ACCEPTED_MAX: usize = 16;

pub(super) async fn listen(net: &GrpcNet, address: &str) -> Result<mpsc::Receiver<Incoming>, String> {
    let uri: http::Uri = address.parse().map_err(|error| format!("not a URL: {error}"))?;
    let authority = uri.authority().filter(|authority| authority.port_u16().is_some());
    let authority = authority.ok_or("the URL has no host or no port")?;
    let listeners = bind_all(authority.as_str()).await.map_err(|error| error.to_string())?;
    let acceptor = match net.tls_of(address)? {
        None => Acceptor::plain(Arc::clone(&net.port)),
        Some(tls) => Acceptor::tls(Arc::clone(&net.port), Arc::clone(&tls.accept)),
    };
    let connections = listeners.into_iter().map(|listener| {
        let connections = holdfast_tls::Incoming::new(listener, acceptor.clone());
        Box::pin(unfold(connections, |mut connections| async move {
            let accepted = connections.next().await;
            Some((Ok::<_, Infallible>(PeerStream(accepted.stream)), connections))
        }))
    });
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    let service = PeerService { net: net.clone(), accepted: accepted.downgrade() };
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(net.config.keepalive_interval))
        .http2_keepalive_timeout(Some(net.config.keepalive_timeout))
        .add_service(service)
        .serve_with_incoming_shutdown(select_all(connections), async move {
            accepted.closed().await;
        });
    let address = address.to_owned();
    // It is owned by whoever takes the connections: with the server ends the only lasting sender of `incoming`.
    net.runtime.spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(address, error = chain(&error), "the peer port stopped");
        }
    });
    Ok(incoming)
}

#[derive(Clone)]
struct PeerService {
    net: GrpcNet,
    /// Weak, so that a connection that lives on does not hide that nobody accepts any more.
    accepted: mpsc::WeakSender<Incoming>,
}

impl NamedService for PeerService {
    const NAME: &'static str = "holdfast.internal.v1.Peer";
}

impl Service<http::Request<Body>> for PeerService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != CONNECT_PATH {
                return Ok(Status::unimplemented("peers only use Connect").into_http());
            }
            let mut grpc = Grpc::new(Frames).max_decoding_message_size(service.net.config.frame_bytes_max);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl StreamingService<Bytes> for PeerService {
    type Response = Bytes;
    type ResponseStream = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let lane = request.metadata().get(LANE_KEY).and_then(|name| lane_of(name.to_str().ok()?));
            let lane = lane.ok_or_else(|| Status::invalid_argument("holdfast-lane is missing or unknown"))?;
            let (send, outbound) = mpsc::channel(FRAMES_MAX);
            let (inbound, recv) = mpsc::channel(FRAMES_MAX);
            let (alive, ended) = oneshot::channel::<Infallible>();
            service.net.runtime.spawn(pump(request.into_inner(), inbound, alive));
            let connection = Incoming { lane, duplex: Duplex { send, recv } };
            let stopping = || Status::unavailable("the member is stopping");
            let accepted = service.accepted.upgrade().ok_or_else(stopping)?;
            accepted.send(connection).await.map_err(|_| stopping())?;
            let frames: Self::ResponseStream =
                Box::pin(ReceiverStream::new(outbound).take_until(ended).map(Ok));
            Ok(Response::new(frames))
        })
    }
}
