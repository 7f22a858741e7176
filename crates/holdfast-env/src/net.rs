//! Connections between members, as two-way streams of frames.
//!
//! A frame is one encoded peer message, which is never empty. The real network lives in `holdfast-raft`, which owns the peer protocol; the
//! simulated one lives in `holdfast-sim`.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::BoxFuture;

/// How many frames wait in each direction of a connection before the sender waits. With frames of at most 1 MiB it
/// bounds a connection's memory to 16 MiB each way.
pub const FRAMES_MAX: usize = 16;

/// What a connection is for. Snapshots have their own, so that they never delay a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Appends, votes, read confirmations and forwarded proposals.
    Raft,
    /// One snapshot transfer.
    Snapshot,
}

/// One end of a connection. Frames arrive in the order sent, at most once; after a break `recv` ends and `send`
/// fails. Dropping either half closes the connection.
#[derive(Debug)]
pub struct Duplex {
    /// Frames to the other end. Bounded by [`FRAMES_MAX`].
    pub send: mpsc::Sender<Bytes>,
    /// Frames from the other end.
    pub recv: mpsc::Receiver<Bytes>,
}

/// A connection that another member has opened.
#[derive(Debug)]
pub struct Incoming {
    /// What it is for.
    pub lane: Lane,
    /// Our end.
    pub duplex: Duplex,
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Nothing answered at the address, or the connection broke while it was opened.
    #[error("cannot reach the peer at {address}: {reason}")]
    Unreachable {
        /// The peer's URL.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The listening address could not be taken.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Our own URL.
        address: String,
        /// What the network said.
        reason: String,
    },
}

/// Connects members. Addresses are peer URLs such as `http://10.0.0.1:2380`.
pub trait Net: Send + Sync + 'static {
    /// Opens a connection to the peer at `address`.
    fn connect(&self, address: &str, lane: Lane) -> BoxFuture<'static, Result<Duplex, NetError>>;
    /// Accepts connections at `address` until the returned receiver is dropped.
    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>>;
}

/// A network that reaches nobody, for whatever needs a world and no peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNet;

impl Net for NoNet {
    fn connect(&self, address: &str, _: Lane) -> BoxFuture<'static, Result<Duplex, NetError>> {
        let error = NetError::Unreachable { address: address.to_owned(), reason: "no network".to_owned() };
        Box::pin(async { Err(error) })
    }
    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>> {
        let error = NetError::Listen { address: address.to_owned(), reason: "no network".to_owned() };
        Box::pin(async { Err(error) })
    }
}
