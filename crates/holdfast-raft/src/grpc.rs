//! Connections between members over the real network: one gRPC stream of frames per connection.
//!
//! A frame is an encoded `PeerMessage` already, so the gRPC codec passes bytes through. Every connection is a TCP
//! connection of its own, so that a snapshot never delays a heartbeat.

mod bind;
mod client;
mod codec;
mod server;
mod stream;

use std::sync::Arc;
use std::time::Duration;

pub use bind::bind_all;
use holdfast_env::{BoxFuture, Duplex, Incoming, Lane, Net, NetError};
use holdfast_tls::{ClientTls, Port, Reloading, ServerTls};
use tokio::sync::mpsc;

/// The metadata key that says what a connection is for.
const LANE_KEY: &str = "holdfast-lane";

/// The gRPC method of a connection.
const CONNECT_PATH: &str = "/holdfast.internal.v1.Peer/Connect";

/// Flow-control windows between peers, in bytes: one stream per connection, so both are generous.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Sizes and times of the peer network.
#[derive(Debug, Clone)]
pub struct GrpcNetConfig {
    /// The largest frame accepted, in bytes. Must hold one entry of the largest allowed size and 1 MiB.
    pub frame_bytes_max: usize,
    /// A connection without any sign of life is probed this often...
    pub keepalive_interval: Duration,
    /// ...and closed when the probe is not answered within this time.
    pub keepalive_timeout: Duration,
}

impl Default for GrpcNetConfig {
    /// 16 MiB frames; a dead peer is noticed within 1.5 s.
    fn default() -> Self {
        Self {
            frame_bytes_max: 16 << 20,
            keepalive_interval: Duration::from_millis(500),
            keepalive_timeout: Duration::from_secs(1),
        }
    }
}

/// The real network between members.
#[derive(Clone)]
pub struct GrpcNet {
    runtime: tokio::runtime::Handle,
    config: GrpcNetConfig,
    port: Arc<Port>,
    tls: Option<PeerTls>,
}

/// What `https://` addresses are served and connected to with.
#[derive(Clone)]
pub struct PeerTls {
    /// For the members that connect.
    pub accept: Arc<Reloading<ServerTls>>,
    /// For connections to other members.
    pub connect: Arc<Reloading<ClientTls>>,
}

impl GrpcNet {
    /// Connections run on `runtime`, in plain text.
    pub fn new(runtime: tokio::runtime::Handle, config: GrpcNetConfig) -> Self {
        Self { runtime, config, port: Port::new("peer"), tls: None }
    }

    /// With `tls` for `https://` addresses; connections that fail are counted on `port`.
    #[must_use]
    pub fn with_tls(self, tls: Option<PeerTls>, port: Arc<Port>) -> Self {
        Self { tls, port, ..self }
    }

    fn tls_of(&self, address: &str) -> Result<Option<&PeerTls>, String> {
        if !address.starts_with("https://") {
            return Ok(None);
        }
        let missing = || {
            "this member has no certificate for https:// between members: give --peer-cert-file".to_owned()
        };
        self.tls.as_ref().map(Some).ok_or_else(missing)
    }
}

impl Net for GrpcNet {
    fn connect(&self, address: &str, lane: Lane) -> BoxFuture<'static, Result<Duplex, NetError>> {
        let (net, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            let opened = client::open(&net, &address, lane).await;
            opened.map_err(|reason| NetError::Unreachable { address, reason })
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>> {
        let (net, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            let listening = server::listen(&net, &address).await;
            listening.map_err(|reason| NetError::Listen { address, reason })
        })
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Raft => "raft",
        Lane::Snapshot => "snapshot",
    }
}

fn lane_of(name: &str) -> Option<Lane> {
    [Lane::Raft, Lane::Snapshot].into_iter().find(|lane| lane_name(*lane) == name)
}

/// An error with all that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
