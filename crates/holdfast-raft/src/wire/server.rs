//! Accepts connections.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{select_all, unfold};
use holdfast_env::Incoming;
use holdfast_tls::{Acceptor, ServerStream};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::bind::bind_all;
use super::{LANE_BYTES, PeerNet, channels, frames, lane_of, uri};
use crate::limits::CONNECT_TIMEOUT;

/// Connections that wait to be taken; each is one peer that comes back.
const ACCEPTED_MAX: usize = 16;

pub(super) async fn listen(net: &PeerNet, address: &str) -> Result<mpsc::Receiver<Incoming>, String> {
    let uri = uri(address)?;
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
            Some((connections.next().await, connections))
        }))
    });
    let mut connections = select_all(connections);
    let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
    let net = net.clone();
    // It is owned by whoever takes the connections, and ends with that end of the channel.
    let runtime = net.runtime.clone();
    runtime.spawn(async move {
        loop {
            // Both arms are cancel-safe.
            let connection = tokio::select! {
                biased;
                () = accepted.closed() => return,
                Some(connection) = connections.next() => connection,
                else => return,
            };
            // Weak, so that a connection that lives on does not hide that nobody accepts any more.
            let (net, accepted) = (net.clone(), accepted.downgrade());
            let (stream, peer) = (connection.stream, connection.peer);
            net.runtime.clone().spawn(async move {
                if let Err(error) = serve(&net, stream, accepted).await {
                    tracing::debug!(%error, %peer, "a connection to the peer port broke");
                }
            });
        }
    });
    Ok(incoming)
}

/// Learns what the connection is for, hands it over and carries its frames.
async fn serve(
    net: &PeerNet,
    mut stream: ServerStream,
    accepted: mpsc::WeakSender<Incoming>,
) -> io::Result<()> {
    let mut line = [0; LANE_BYTES];
    // What comes after that has bounds of its own: the greeting, and then signs of life.
    let read = timeout(CONNECT_TIMEOUT, stream.read_exact(&mut line)).await;
    read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it does not say what it is for"))??;
    let lane = lane_of(&line).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not from a member of a holdfast cluster of this version",
        )
    })?;
    let (duplex, ends) = channels();
    let taken = match accepted.upgrade() {
        Some(accepted) => accepted.send(Incoming { lane, duplex }).await.is_ok(),
        None => false,
    };
    // Nobody takes connections any more: the member is stopping.
    if taken { frames::carry(stream, ends, &net.config).await } else { Ok(()) }
}
