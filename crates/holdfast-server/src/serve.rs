//! The client port: all gRPC services and the HTTP routes behind one listener.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::future::Either;
use holdfast_env::Clock;
use holdfast_proto::{etcdserverpb as pb, v3electionpb, v3lockpb};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::auth::certificates::{Certificates, Showing};
use crate::config::Config;
use crate::connection::{Calls, Connection};
use crate::cork::cork;
use crate::error::ServerError;
use crate::frontend::Frontend;
use crate::lines::Lines;
use crate::listener::{Connections, Taken};
use crate::metrics::rpc::RpcCounting;
use crate::pings::{PingRule, PingWatch};
use crate::port::{Port, Shared};
use crate::services::auth::AuthService;
use crate::services::cluster::ClusterService;
use crate::services::election::ElectionService;
use crate::services::kv::KvService;
use crate::services::lease::LeaseService;
use crate::services::lock::LockService;
use crate::services::maintenance::MaintenanceService;
use crate::services::watch::WatchService;
use crate::status::Failure;
use crate::{gateway, http, limits};

/// All routes of the client port.
pub fn routes<H: Health>(
    frontend: &Arc<Frontend>,
    lines: &Arc<Lines>,
    config: &Config,
    health: HealthServer<H>,
) -> Result<axum::Router, ServerError> {
    // Above it a message is refused by the transport, before it is read.
    let bytes_max = config.limits.request_bytes_max + limits::GRPC_OVERHEAD_BYTES;
    let reflection = |error: tonic_reflection::server::Error| ServerError::Serve(error.to_string());
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(holdfast_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Answers may be as large as what they hold: only decoding is bounded.
    macro_rules! sized {
        ($server:ty, $service:expr) => {
            <$server>::new($service)
                .max_decoding_message_size(bytes_max)
                .max_encoding_message_size(usize::MAX)
        };
    }
    let grpc = Routes::default()
        .add_service(sized!(pb::kv_server::KvServer<_>, KvService::new(Arc::clone(frontend))))
        .add_service(sized!(pb::cluster_server::ClusterServer<_>, ClusterService::new(Arc::clone(frontend))))
        .add_service(sized!(
            pb::maintenance_server::MaintenanceServer<_>,
            MaintenanceService::new(Arc::clone(frontend))
        ))
        .add_service(WatchService::new(Arc::clone(frontend), bytes_max))
        .add_service(sized!(pb::lease_server::LeaseServer<_>, LeaseService::new(Arc::clone(frontend))))
        .add_service(sized!(pb::auth_server::AuthServer<_>, AuthService::new(Arc::clone(frontend))))
        .add_service(sized!(
            v3lockpb::lock_server::LockServer<_>,
            LockService::new(Arc::clone(frontend), Arc::clone(lines))
        ))
        .add_service(sized!(
            v3electionpb::election_server::ElectionServer<_>,
            ElectionService::new(Arc::clone(frontend), Arc::clone(lines))
        ))
        .add_service(health)
        .add_service(described().build_v1().map_err(reflection)?)
        .add_service(described().build_v1alpha().map_err(reflection)?);
    let grpc = grpc.into_axum_router();
    let mut routes = grpc.clone().merge(http::routes(Arc::clone(frontend)));
    if config.has_json_gateway {
        let counted = RpcCounting::new(Routes::from(grpc).prepare(), frontend.metrics.rpc.clone());
        routes = routes.merge(gateway::routes(counted, bytes_max, Arc::clone(&frontend.receiving)));
    }
    Ok(routes.fallback(unknown))
}

/// Lets nothing but gRPC through to gRPC's paths. They would take any POST, and a browser sends one for any page without
/// asking the member, as long as its content type is one of those that forms have.
#[derive(Clone)]
struct OnlyGrpc<S>(S);

impl<S, B> tower::Service<Request<B>> for OnlyGrpc<S>
where
    S: tower::Service<Request<B>, Response = axum::http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !is_grpc_path(request.uri().path()) || is_grpc(request.headers()) {
            return Either::Left(self.0.call(request));
        }
        let text = "this path is for gRPC, with the content type application/grpc; JSON goes to /v3/\n";
        let mut refusal = axum::http::Response::new(Body::new(http_body_util::Full::from(text)));
        *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Either::Right(ready(Ok(refusal)))
    }
}

/// Services have a dot in their names, in front of a method; no other path begins so.
fn is_grpc_path(path: &str) -> bool {
    path.split('/').nth(1).is_some_and(|service| service.contains('.'))
}

/// True for a request of gRPC, by its content type.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc"))
}

/// What answers to no route: a gRPC client gets a status, anyone else a plain 404.
async fn unknown(headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        return tonic::Status::from(Failure::Unimplemented("this service")).into_http::<axum::body::Body>();
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// How connections are treated.
pub struct Transport {
    concurrent_streams_max: u32,
    keepalive_interval: Option<Duration>,
    keepalive_timeout: Duration,
    pings: PingRule,
}

impl Transport {
    /// As the configuration says.
    pub fn of(config: &Config, clock: Arc<dyn Clock>) -> Self {
        Self {
            concurrent_streams_max: config.limits.concurrent_streams_max,
            keepalive_interval: config.keepalive_interval,
            keepalive_timeout: config.keepalive_timeout,
            pings: PingRule { time_min: config.keepalive_time_min, clock },
        }
    }

    /// Serves until `stop`, then until the connections are closed.
    pub async fn serve(
        self,
        frontend: &Arc<Frontend>,
        routes: axum::Router,
        mut connections: Connections,
        users: Option<Arc<Certificates>>,
        stop: CancellationToken,
    ) {
        let shared = Arc::new(Shared::new(frontend, OnlyGrpc(Routes::from(routes).prepare())));
        let mut open = JoinSet::new();
        let gate = Arc::new(Semaphore::new(limits::UNSEEN_CONNECTIONS_MAX));
        loop {
            tokio::select! {
                // All arms are cancel-safe: a connection that was accepted is handed over at once.
                () = stop.cancelled() => break,
                Some((taken, unseen)) = next(&gate, &mut connections) => {
                    let calls = Calls::default();
                    let (transport, pings) = (self.transport(&calls), PingWatch::new(self.pings.clone()));
                    let (shared, users, stop) = (Arc::clone(&shared), users.clone(), stop.clone());
                    open.spawn(async move {
                        drop(unseen);
                        let Taken { socket, peer, acceptor } = taken;
                        let stream = tokio::select! {
                            // A handshake that is dropped is a connection that is closed.
                            () = stop.cancelled() => None,
                            stream = acceptor.accept(socket, peer) => stream,
                        };
                        let Some(stream) = stream else { return };
                        let user = users.and_then(|users| users.show(&stream.common_name()?));
                        let port = Port::new(shared, user.as_ref().map(Showing::id));
                        let (corked, cork) = cork(stream, pings);
                        let served = transport.serve_connection(TokioIo::new(corked), port).into_owned();
                        until_closed(Connection::new(served, calls, cork), stop).await;
                        drop(user);
                    });
                }
                Some(_) = open.join_next(), if !open.is_empty() => {}
            }
        }
        // The port is free again before the last client has gone.
        drop(connections);
        while open.join_next().await.is_some() {}
    }

    fn transport(&self, calls: &Calls) -> auto::Builder<Calls> {
        let mut transport = auto::Builder::new(calls.clone());
        transport
            .http2()
            .timer(TokioTimer::new())
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .max_concurrent_streams(self.concurrent_streams_max)
            .keep_alive_interval(self.keepalive_interval)
            .keep_alive_timeout(self.keepalive_timeout);
        // Without a timer there is no limit on how long a client may take for its request's headers.
        transport.http1().timer(TokioTimer::new());
        transport
    }
}

/// The next connection, and what is to be dropped once its task runs: it comes when those before it have had their turn, so that
/// a crowd that comes at once waits in the listener's queue, and not in front of what the member has to do.
async fn next(gate: &Arc<Semaphore>, connections: &mut Connections) -> Option<(Taken, OwnedSemaphorePermit)> {
    // A gate that is never closed.
    let unseen = Arc::clone(gate).acquire_owned().await.ok()?;
    Some((connections.next().await?, unseen))
}

/// Serves a connection to its end; from `stop` on it takes no further calls.
async fn until_closed<C: GracefulConnection>(mut connection: Connection<C>, stop: CancellationToken)
where
    C::Error: std::fmt::Display,
{
    let ended = tokio::select! {
        // Both arms are cancel-safe: the connection goes on below.
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.close();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection broke");
    }
}
