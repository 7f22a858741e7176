//! The client port: all gRPC services and the HTTP routes behind one listener.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_proto::{etcdserverpb as pb, v3electionpb, v3lockpb};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server as Transporter;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::config::Config;
use crate::error::ServerError;
use crate::frontend::Frontend;
use crate::listener::Connections;
use crate::metrics::rpc::{RpcLayer, RpcMetrics};
use crate::services::cluster::ClusterService;
use crate::services::kv::KvService;
use crate::services::later;
use crate::services::maintenance::MaintenanceService;
use crate::services::watch::WatchService;
use crate::status::Failure;
use crate::{http, limits};

/// All routes of the client port.
pub fn routes<H: Health>(
    frontend: &Arc<Frontend>,
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
        .add_service(sized!(pb::lease_server::LeaseServer<_>, later::LeaseLater))
        .add_service(sized!(pb::auth_server::AuthServer<_>, later::AuthLater))
        .add_service(sized!(v3lockpb::lock_server::LockServer<_>, later::LockLater))
        .add_service(sized!(v3electionpb::election_server::ElectionServer<_>, later::ElectionLater))
        .add_service(health)
        .add_service(described().build_v1().map_err(reflection)?)
        .add_service(described().build_v1alpha().map_err(reflection)?);
    Ok(grpc.into_axum_router().merge(http::routes(Arc::clone(frontend))).fallback(unknown))
}

/// What answers to no route: a gRPC client gets a status, anyone else a plain 404.
async fn unknown(headers: HeaderMap) -> Response {
    let content_type =
        headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        return tonic::Status::from(Failure::Unimplemented("this service")).into_http::<axum::body::Body>();
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// How connections are treated.
pub struct Transport {
    concurrent_streams_max: u32,
    keepalive_interval: Option<Duration>,
    keepalive_timeout: Duration,
    metrics: RpcMetrics,
}

impl Transport {
    /// As the configuration says.
    pub fn of(config: &Config, metrics: RpcMetrics) -> Self {
        Self {
            concurrent_streams_max: config.limits.concurrent_streams_max,
            keepalive_interval: config.keepalive_interval,
            keepalive_timeout: config.keepalive_timeout,
            metrics,
        }
    }

    /// Serves until `stop`, then until the connections are closed.
    pub async fn serve(
        self,
        routes: axum::Router,
        connections: Connections,
        stop: CancellationToken,
    ) -> Result<(), tonic::transport::Error> {
        Transporter::builder()
            .accept_http1(true)
            .max_concurrent_streams(self.concurrent_streams_max)
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(self.keepalive_interval)
            .http2_keepalive_timeout(Some(self.keepalive_timeout))
            .layer(RpcLayer::new(self.metrics))
            .add_routes(Routes::from(routes))
            .serve_with_incoming_shutdown(connections, async move { stop.cancelled().await })
            .await
    }
}
