//! Opens connections.

use std::sync::Arc;

use holdfast_env::{Duplex, Lane};
use holdfast_tls::Connector;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{PeerNet, chain, channels, frames, lane_line, uri};

pub(super) async fn open(net: &PeerNet, address: &str, lane: Lane) -> Result<Duplex, String> {
    let uri = uri(address)?;
    match net.tls_of(address)? {
        None => {
            let host = uri.host().ok_or("the URL has no host")?;
            let port = uri.port_u16().ok_or("the URL has no port")?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let socket = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
            socket.set_nodelay(true).map_err(|error| error.to_string())?;
            begin(net, socket, lane).await
        }
        Some(tls) => {
            let connector = Connector::frames(Arc::clone(&tls.connect));
            let stream = connector.connect(uri).await.map_err(|error| chain(&error))?;
            begin(net, stream, lane).await
        }
    }
}

/// Says what the connection is for, and leaves it to a task.
async fn begin(
    net: &PeerNet,
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    lane: Lane,
) -> Result<Duplex, String> {
    stream.write_all(lane_line(lane)).await.map_err(|error| chain(&error))?;
    let (duplex, ends) = channels();
    let config = net.config.clone();
    // Ends when either end of the connection does.
    net.runtime.spawn(async move {
        if let Err(error) = frames::carry(stream, ends, &config).await {
            tracing::debug!(%error, "a peer connection broke");
        }
    });
    Ok(duplex)
}
