//! The client's side of watch streams: requests out as bytes, responses in as bytes, all into one queue.

use bytes::Bytes;
use prost_reflect::MethodDescriptor;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::call::{BytesCodec, path, with_token};

/// Requests on their way; a script sends the next one when the last was answered.
const REQUESTS_MAX: usize = 16;

/// Responses that wait to be looked at. Full, the streams are read no further until someone looks.
pub(super) const RESPONSES_MAX: usize = 1 << 16;

/// What came on one of the streams.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The number the stream was opened with.
    pub(super) stream: usize,
    /// A response, or how the stream ended.
    pub(super) what: Result<Bytes, Status>,
}

/// One open stream. Dropping it resets it: a client that goes away.
#[derive(Debug)]
pub(super) struct Stream {
    requests: mpsc::Sender<Bytes>,
    reader: JoinHandle<()>,
}

impl Stream {
    /// Opens a stream to the member behind `channel`, in the name of who has the token; its responses go to `queue` under
    /// `number`.
    pub(super) fn open(
        channel: &Channel,
        method: &MethodDescriptor,
        token: Option<&str>,
        number: usize,
        queue: mpsc::Sender<Incoming>,
    ) -> Self {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let path = path(method);
        let request = with_token(ReceiverStream::new(requests), token);
        let reader = tokio::spawn(async move {
            let end = read(grpc, path, request, number, &queue).await;
            // A queue without a reader belongs to a script that is over.
            drop(queue.send(Incoming { stream: number, what: Err(end) }).await);
        });
        Self { requests: sender, reader }
    }

    /// Sends one request. False when the stream takes none any more.
    pub(super) async fn send(&self, request: Bytes) -> bool {
        self.requests.send(request).await.is_ok()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Hands on what comes, until the stream ends, and says how it ended: with code `Ok` when nothing went wrong.
async fn read(
    mut grpc: tonic::client::Grpc<Channel>,
    path: http::uri::PathAndQuery,
    request: Request<ReceiverStream<Bytes>>,
    number: usize,
    queue: &mpsc::Sender<Incoming>,
) -> Status {
    if let Err(error) = grpc.ready().await {
        return Status::unavailable(format!("conformance: {error}"));
    }
    // The answer to this comes with the first response.
    let opened = grpc.streaming(request, path, BytesCodec).await;
    let mut responses = match opened {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match responses.message().await {
            Ok(Some(response)) => {
                if queue.send(Incoming { stream: number, what: Ok(response) }).await.is_err() {
                    return Status::new(Code::Ok, "");
                }
            }
            Ok(None) => return Status::new(Code::Ok, ""),
            Err(status) => return status,
        }
    }
}
