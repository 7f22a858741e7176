//! Listening sockets for clients.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::{select_all, unfold};
use holdfast_env::Clock;
use holdfast_raft::bind_all;
use tokio::net::{TcpListener, TcpStream};

use crate::config::MemberUrl;
use crate::error::ServerError;

/// Pause after a failed accept (usually: no file descriptors left), so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepted connections of all listeners.
pub type Connections = Pin<Box<dyn Stream<Item = Result<TcpStream, io::Error>> + Send>>;

/// Listens on every address of each URL, see [`bind_all`].
///
/// Errors: an address that is taken, not ours, or does not resolve.
pub async fn bind(flag: &'static str, urls: &[MemberUrl]) -> Result<Vec<TcpListener>, ServerError> {
    let mut listeners = Vec::new();
    for url in urls {
        let bound = bind_all(&url.authority()).await;
        listeners.extend(bound.map_err(|source| ServerError::Listen {
            flag,
            url: url.to_string(),
            source,
        })?);
    }
    Ok(listeners)
}

/// Where the listeners really are, which matters when port 0 was asked for.
pub fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// All connections, as they come. Never ends and never fails: an accept that fails is tried again.
pub fn connections(listeners: Vec<TcpListener>, clock: &Arc<dyn Clock>) -> Connections {
    let streams = listeners.into_iter().map(|listener| {
        let state = (listener, Arc::clone(clock));
        Box::pin(unfold(state, |(listener, clock)| async move {
            let stream = accept(&listener, clock.as_ref()).await;
            Some((Ok(stream), (listener, clock)))
        }))
    });
    Box::pin(select_all(streams))
}

async fn accept(listener: &TcpListener, clock: &dyn Clock) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                // Answers are small and waited for; a socket that refuses the option still works.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot switch off Nagle's algorithm on a client's connection");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client's connection: check the limit on open files");
                clock.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
