//! Changes of a range of keys, from a revision on, across connections and members.

use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::client::{ANSWER_BYTES_MAX, Client, PAUSE_MAX, jittered};
use crate::codec::watch::Event;
use crate::codec::{revision, signed};
use crate::error::{Error, refusal};
use crate::range::KeyRange;

/// Pause before a broken stream is opened again; doubles up to [`PAUSE_MAX`], and half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// A watch that resumes. Nothing happens but in [`Changes::next`]: there is no task, and what the caller does not take
/// waits on the server.
#[derive(Debug)]
pub(crate) struct Changes {
    client: Client,
    range: KeyRange,
    /// The first revision that was not given yet.
    next_revision: u64,
    stream: Option<Open>,
    /// Before the next stream is opened.
    pause: Duration,
    not_before: Instant,
}

#[derive(Debug)]
struct Open {
    member: usize,
    responses: Streaming<pb::WatchResponse>,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Change {
    /// Changes of whole revisions, in order, never empty.
    Events(Vec<Event>),
    /// Some revisions from the one wanted on are not known any more.
    Compacted,
}

/// Why a stream did not go on.
enum Broken {
    /// It may be opened again.
    Passing(Status),
    /// The server will not have it.
    Refused(Status),
}

impl Changes {
    /// The changes of a range, from a revision on.
    pub(crate) fn new(client: &Client, range: KeyRange, from: u64) -> Self {
        Self {
            client: client.clone(),
            range,
            next_revision: from,
            stream: None,
            pause: PAUSE_MIN,
            not_before: Instant::now(),
        }
    }

    /// The first revision that was not given yet.
    pub(crate) fn next_revision(&self) -> u64 {
        self.next_revision
    }

    /// Waits for changes, as long as it takes: a member that is gone or cut off is left for the next one. Cancel-safe.
    ///
    /// Errors: the server refuses the watch.
    pub(crate) async fn next(&mut self) -> Result<Change, Error> {
        loop {
            let (member, result) = match &mut self.stream {
                Some(open) => (open.member, next_response(&mut open.responses).await),
                None => {
                    tokio::time::sleep_until(self.not_before).await;
                    let (member, channel) = self.client.channel();
                    let opened = open(channel, self.request()).await;
                    match opened {
                        Ok(responses) => {
                            self.stream = Some(Open { member, responses });
                            continue;
                        }
                        Err(broken) => (member, Err(broken)),
                    }
                }
            };
            match result.and_then(|response| self.take(response)) {
                Ok(Some(change)) => return Ok(change),
                Ok(None) => {}
                Err(Broken::Refused(status)) => {
                    self.stream = None;
                    return Err(refusal(&status));
                }
                Err(Broken::Passing(status)) => {
                    tracing::debug!(%status, next_revision = self.next_revision, "a watch stream broke");
                    self.client.failed(member);
                    self.stream = None;
                    self.not_before = Instant::now() + jittered(self.pause);
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// What a response tells, if it is news.
    fn take(&mut self, response: pb::WatchResponse) -> Result<Option<Change>, Broken> {
        if response.compact_revision > 0 {
            self.stream = None;
            return Ok(Some(Change::Compacted));
        }
        if response.canceled {
            // Nobody asked for that: another stream may be taken.
            return Err(Broken::Passing(Status::cancelled(response.cancel_reason)));
        }
        self.pause = PAUSE_MIN;
        if response.created {
            return Ok(None);
        }
        let events = response.events.into_iter().map(|event| Event::decode(event, self.client.namespace()));
        let events = events.collect::<Result<Vec<_>, _>>().map_err(Broken::Passing)?;
        let Some(last) = events.last() else {
            // Progress: all before it was given.
            self.next_revision = self.next_revision.max(revision(response.header.as_ref()) + 1);
            return Ok(None);
        };
        self.next_revision = last.revision() + 1;
        Ok(Some(Change::Events(events)))
    }

    fn request(&self) -> pb::WatchCreateRequest {
        let (key, range_end) = self.client.namespace().range(&self.range);
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: signed(self.next_revision),
            progress_notify: true,
            ..Default::default()
        }
    }
}

async fn open(
    channel: tonic::transport::Channel,
    create: pb::WatchCreateRequest,
) -> Result<Streaming<pb::WatchResponse>, Broken> {
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open: its end would end the watch.
    let mut request = Request::new(tokio_stream::once(create).chain(tokio_stream::pending()));
    // A member that has lost its leader ends the stream, so that it is opened on another one.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    Ok(client.watch(request).await.map_err(broken)?.into_inner())
}

async fn next_response(responses: &mut Streaming<pb::WatchResponse>) -> Result<pb::WatchResponse, Broken> {
    match responses.message().await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => Err(Broken::Passing(Status::unavailable("the stream ended"))),
        Err(status) => Err(broken(status)),
    }
}

fn broken(status: Status) -> Broken {
    match status.code() {
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
            Broken::Refused(status)
        }
        _ => Broken::Passing(status),
    }
}
