//! The empty server's watch streams: one response to each watcher for each put.

use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::watch_server::Watch;
use holdfast_proto::etcdserverpb::{WatchRequest, WatchResponse};
use holdfast_proto::mvccpb::Event;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Empty;

/// Responses of a stream that may wait for its connection; a full queue makes the stream fall behind the puts.
const WAITING_MAX: usize = 1024;

#[tonic::async_trait]
impl Watch for Empty {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, outbound) = mpsc::channel(WAITING_MAX);
        let session =
            Session { requests: request.into_inner(), puts: self.puts.subscribe(), responses, watchers: 0 };
        // It ends with its client or with the puts, and nobody waits for it: the process holds nothing worth waiting for.
        drop(tokio::spawn(session.run()));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// One watch stream.
struct Session {
    requests: Streaming<WatchRequest>,
    puts: broadcast::Receiver<Event>,
    responses: mpsc::Sender<Result<WatchResponse, Status>>,
    /// Numbered from 0.
    watchers: i64,
}

impl Session {
    async fn run(mut self) {
        // Both arms are cancel-safe: what is not taken stays where it is.
        loop {
            let is_sent = tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.create(&request).await,
                    Ok(None) | Err(_) => false,
                },
                put = self.puts.recv() => match put {
                    Ok(event) => self.deliver(event).await,
                    Err(broadcast::error::RecvError::Closed | broadcast::error::RecvError::Lagged(_)) => false,
                },
            };
            if !is_sent {
                return;
            }
        }
    }

    async fn create(&mut self, request: &WatchRequest) -> bool {
        let Some(RequestUnion::CreateRequest(_)) = &request.request_union else { return true };
        let watch_id = self.watchers;
        self.watchers += 1;
        self.send(WatchResponse { watch_id, created: true, ..WatchResponse::default() }).await
    }

    async fn deliver(&self, event: Event) -> bool {
        for watch_id in 0..self.watchers {
            let events = vec![event.clone()];
            if !self.send(WatchResponse { watch_id, events, ..WatchResponse::default() }).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, response: WatchResponse) -> bool {
        self.responses.send(Ok(response)).await.is_ok()
    }
}
