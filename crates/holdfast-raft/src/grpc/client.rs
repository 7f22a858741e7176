//! Opens connections.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use holdfast_env::net::FRAMES_MAX;
use holdfast_env::{Duplex, Lane};
use holdfast_tls::Connector;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use super::codec::Frames;
use super::{
    CONNECT_PATH, CONNECTION_WINDOW_BYTES, GrpcNet, LANE_KEY, STREAM_WINDOW_BYTES, chain, lane_name,
};

pub(super) async fn open(net: &GrpcNet, address: &str, lane: Lane) -> Result<Duplex, String> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| chain(&error))?
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(net.config.keepalive_interval)
        .keep_alive_timeout(net.config.keepalive_timeout)
        .keep_alive_while_idle(true);
    let connected = match net.tls_of(address)? {
        None => endpoint.connect().await,
        Some(tls) => endpoint.connect_with_connector(Connector::watched(Arc::clone(&tls.connect))).await,
    };
    let channel = connected.map_err(|error| chain(&error))?;
    let mut client = Grpc::new(channel).max_decoding_message_size(net.config.frame_bytes_max);
    client.ready().await.map_err(|error| chain(&error))?;

    let (send, outbound) = mpsc::channel::<Bytes>(FRAMES_MAX);
    let (alive, ended) = oneshot::channel::<Infallible>();
    let mut request = Request::new(ReceiverStream::new(outbound).take_until(ended));
    let lane = lane_name(lane).parse().map_err(|_| "the lane's name is not valid metadata".to_owned())?;
    request.metadata_mut().insert(LANE_KEY, lane);
    let path = PathAndQuery::from_static(CONNECT_PATH);
    let response = client.streaming(request, path, Frames).await.map_err(|status| chain(&status))?;

    let (inbound, recv) = mpsc::channel(FRAMES_MAX);
    // Ends when either end of the connection does.
    net.runtime.spawn(pump(response.into_inner(), inbound, alive));
    Ok(Duplex { send, recv })
}

/// Moves frames from the network to the receiver until one of them is gone. Drops `alive` at the end: the outgoing
/// frames end with the incoming ones.
pub(super) async fn pump(
    mut frames: Streaming<Bytes>,
    inbound: mpsc::Sender<Bytes>,
    alive: oneshot::Sender<Infallible>,
) {
    let _alive = alive;
    loop {
        let frame = tokio::select! {
            biased;
            () = inbound.closed() => return,
            frame = frames.message() => frame,
        };
        match frame {
            Ok(Some(frame)) => {
                if inbound.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(status = chain(&status), "a peer connection broke");
                return;
            }
        }
    }
}
