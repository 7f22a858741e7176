//! Listening sockets for clients.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use futures::stream::{select_all, unfold};
use holdfast_env::Clock;
use holdfast_raft::bind_all;
use holdfast_tls::Acceptor;
use holdfast_tls::limits::ACCEPT_RETRY;
use tokio::net::{TcpListener, TcpStream};

use crate::config::MemberUrl;
use crate::error::ServerError;

/// A socket that listens.
pub struct Bound {
    /// The socket.
    pub socket: TcpListener,
    /// True when its URL is https://.
    pub is_tls: bool,
}

/// A connection as it was accepted: its handshake is still to be made, where that holds up nobody else.
pub struct Taken {
    /// The connection.
    pub socket: TcpStream,
    /// Who made it.
    pub peer: SocketAddr,
    /// What makes the handshake.
    pub acceptor: Acceptor,
}

/// Accepted connections of all listeners.
pub type Connections = Pin<Box<dyn Stream<Item = Taken> + Send>>;

/// Listens on every address of each URL, see [`bind_all`].
///
/// Errors: an address that is taken, not ours, or does not resolve.
pub async fn bind(flag: &'static str, urls: &[MemberUrl]) -> Result<Vec<Bound>, ServerError> {
    let mut listeners = Vec::new();
    for url in urls {
        let bound = bind_all(&url.authority()).await;
        let bound = bound.map_err(|source| ServerError::Listen { flag, url: url.to_string(), source })?;
        listeners.extend(bound.into_iter().map(|socket| Bound { socket, is_tls: url.is_tls() }));
    }
    Ok(listeners)
}

/// Where the listeners really are, which matters when port 0 was asked for.
pub fn addresses(listeners: &[Bound]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.socket.local_addr().ok()).collect()
}

/// All connections, as they come. Never ends and never fails: an accept that fails is tried again.
pub fn connections(listeners: Vec<(Bound, Acceptor)>, clock: &Arc<dyn Clock>) -> Connections {
    let streams = listeners.into_iter().map(|(listener, acceptor)| {
        let state = (listener.socket, acceptor, Arc::clone(clock));
        Box::pin(unfold(state, |(listener, acceptor, clock)| async move {
            let (socket, peer) = accept(&listener, clock.as_ref()).await;
            let taken = Taken { socket, peer, acceptor: acceptor.clone() };
            Some((taken, (listener, acceptor, clock)))
        }))
    });
    Box::pin(select_all(streams))
}

async fn accept(listener: &TcpListener, clock: &dyn Clock) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and waited for; a socket that refuses the option still works.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot switch off Nagle's algorithm on a client's connection");
                }
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client's connection: check the limit on open files");
                clock.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
