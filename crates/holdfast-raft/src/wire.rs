//! Connections between members over the real network: frames on a TCP connection, with or without TLS.
//!
//! Whoever connects says first, in a line of fixed length, what the connection is for (`lane_line`); then both sides send
//! frames, each an encoded `PeerMessage` behind its length (`frames`). Every connection is a TCP connection of its own, so
//! that a snapshot never delays a heartbeat.

mod bind;
mod client;
mod frames;
mod server;

use std::sync::Arc;
use std::time::Duration;

pub use bind::bind_all;
use holdfast_env::net::FRAMES_MAX;
use holdfast_env::{BoxFuture, Duplex, Incoming, Lane, Net, NetError};
use holdfast_tls::{ClientTls, Port, Reloading, ServerTls};
use http::Uri;
use tokio::sync::mpsc;

/// The length of the line that a connection begins with.
const LANE_BYTES: usize = 21;

/// Sizes and times of the peer network.
#[derive(Debug, Clone)]
pub struct PeerNetConfig {
    /// The largest frame accepted, in bytes. Must hold one entry of the largest allowed size and 1 MiB.
    pub frame_bytes_max: usize,
    /// Each side of a connection gives a sign of life when it has been silent for this long...
    pub keepalive_interval: Duration,
    /// ...and closes the connection when the other side is silent for this much longer.
    pub keepalive_timeout: Duration,
}

impl Default for PeerNetConfig {
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
pub struct PeerNet {
    runtime: tokio::runtime::Handle,
    config: PeerNetConfig,
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

impl PeerNet {
    /// Connections run on `runtime`, in plain text.
    pub fn new(runtime: tokio::runtime::Handle, config: PeerNetConfig) -> Self {
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

impl Net for PeerNet {
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

/// The two ends of a connection's channels: the user's, and ours.
fn channels() -> (Duplex, frames::Ends) {
    let (send, outbound) = mpsc::channel(FRAMES_MAX);
    let (inbound, recv) = mpsc::channel(FRAMES_MAX);
    (Duplex { send, recv }, frames::Ends { outbound, inbound })
}

/// How a connection begins.
fn lane_line(lane: Lane) -> &'static [u8; LANE_BYTES] {
    match lane {
        Lane::Raft => b"holdfast-peer/1 raft\n",
        Lane::Snapshot => b"holdfast-peer/1 snap\n",
    }
}

fn lane_of(line: &[u8; LANE_BYTES]) -> Option<Lane> {
    [Lane::Raft, Lane::Snapshot].into_iter().find(|lane| lane_line(*lane) == line)
}

fn uri(address: &str) -> Result<Uri, String> {
    address.parse().map_err(|error| format!("not a URL: {error}"))
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
