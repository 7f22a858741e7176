//! One watch stream: reads what its client asks for, and ends it when its time has come.

use std::sync::Arc;

use futures::stream::{Stream, StreamExt};
use holdfast_proto::etcdserverpb as pb;
use holdfast_watch::StreamId;
use pb::watch_request::RequestUnion;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Permit;
use super::dispatch::Request;
use super::outbound::Outbound;
use crate::codec;
use crate::status::{self, Failure};

/// One watch stream.
pub(super) struct Session<C> {
    pub(super) stream: StreamId,
    pub(super) outbound: Arc<Outbound>,
    pub(super) client: C,
    /// Says why its client may not watch a range.
    pub(super) permit: Permit,
    pub(super) dispatch: mpsc::Sender<(StreamId, Request)>,
    /// Changes when the leader has been lost for too long; none when the client does not care.
    pub(super) leader_lost: Option<watch::Receiver<u64>>,
    /// True when this member is no source of events any more.
    pub(super) unfit: watch::Receiver<bool>,
    pub(super) stop: CancellationToken,
}

/// What a session waits for.
enum Next {
    /// The client sent something, or `None`: will send nothing more.
    Asked(Option<pb::WatchRequest>),
    /// The client broke off.
    Broken(Status),
    /// There is room for answers.
    Room,
    /// Nobody reads the answers any more.
    Gone,
    /// The stream has to end.
    Ends(Failure),
}

/// What a session is ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// The client's next request.
    Requests,
    /// Room for the answer to it.
    Room,
    /// The end.
    End,
}

impl<C: Stream<Item = Result<pb::WatchRequest, Status>> + Unpin> Session<C> {
    /// Serves until the stream ends, and takes it out of dispatch.
    pub(super) async fn run(mut self) {
        self.serve().await;
        self.ask(Request::Close).await;
    }

    async fn serve(&mut self) {
        self.ask(Request::Open(Arc::clone(&self.outbound))).await;
        let mut ready = Ready::Requests;
        loop {
            match self.next(ready).await {
                Next::Asked(Some(request)) => {
                    self.asked(request).await;
                    // A client that asks and does not read is not read either.
                    ready = Ready::Room;
                }
                Next::Asked(None) => {
                    self.ask(Request::HalfClose).await;
                    ready = Ready::End;
                }
                Next::Room => ready = Ready::Requests,
                Next::Gone => return,
                Next::Broken(status) => {
                    match status::broken_stream(&status) {
                        Some(failure) => self.outbound.fail(failure),
                        None => self.outbound.fail_with(status),
                    }
                    return;
                }
                Next::Ends(failure) => {
                    self.outbound.fail(failure);
                    return;
                }
            }
        }
    }

    async fn next(&mut self, ready: Ready) -> Next {
        let Self { outbound, client, leader_lost, unfit, stop, .. } = self;
        let lost = async {
            match leader_lost {
                // An error means that the member stops.
                Some(lost) => drop(lost.changed().await),
                None => std::future::pending().await,
            }
        };
        let asked = async {
            match ready {
                Ready::Requests => client.next().await,
                Ready::Room | Ready::End => std::future::pending().await,
            }
        };
        let reader = async {
            match ready {
                Ready::Room => {
                    outbound.room().await;
                    if outbound.is_reader_gone() { Next::Gone } else { Next::Room }
                }
                Ready::Requests | Ready::End => {
                    outbound.reader_gone().await;
                    Next::Gone
                }
            }
        };
        tokio::select! {
            biased;
            // All arms are cancel-safe: a message that is read in part stays in the stream, the others only wait.
            () = stop.cancelled() => Next::Ends(Failure::Stopped),
            Ok(_) = unfit.wait_for(|unfit| *unfit) => Next::Ends(Failure::Unfit),
            next = reader => next,
            () = lost => Next::Ends(Failure::LeaderRequired),
            message = asked => match message.transpose() {
                Ok(request) => Next::Asked(request),
                Err(status) => Next::Broken(status),
            },
        }
    }

    async fn asked(&self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let create = codec::watch::create(&create);
                let permitted = (self.permit)(&create.range);
                self.ask(permitted.map_or_else(Request::Deny, |()| Request::Create(create))).await;
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.ask(Request::Cancel(cancel.watch_id)).await,
            Some(RequestUnion::ProgressRequest(_)) => self.ask(Request::Progress).await,
            // From a client that knows more than we do.
            None => {}
        }
    }

    /// Waits while dispatch has too much to do. When it has ended, so will this session.
    async fn ask(&self, request: Request) {
        if self.dispatch.send((self.stream, request)).await.is_err() {
            tracing::debug!("a watch stream outlives dispatch");
        }
    }
}
