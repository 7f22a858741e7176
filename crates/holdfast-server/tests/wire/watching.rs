//! A client of the Watch service: short forms of requests, and waits with a deadline.

use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::mvccpb;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::common::*;

/// More than any answer takes, on a machine that stands still for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An open watch stream.
pub(crate) struct Watching {
    pub(crate) ask: mpsc::Sender<pb::WatchRequest>,
    pub(crate) answers: Streaming<pb::WatchResponse>,
}

pub(crate) fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

/// A request for `[key, end)`, or the one key when `end` is empty.
pub(crate) fn watcher(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

pub(crate) fn from(start_revision: i64, request: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { start_revision, ..request }
}

impl Watching {
    pub(crate) async fn open(url: &str) -> Self {
        Self::try_open(url, &[]).await.unwrap()
    }

    pub(crate) async fn with_leader(url: &str) -> Result<Self, Status> {
        Self::try_open(url, &[("hasleader", "true")]).await
    }

    /// A stream whose transport takes no more than 64 KiB before its client has read them.
    pub(crate) async fn open_narrow(url: &str) -> Self {
        let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().initial_stream_window_size(65_535);
        Self::open_on(endpoint.connect_lazy(), &[]).await.unwrap()
    }

    pub(crate) async fn try_open(url: &str, metadata: &[(&'static str, &str)]) -> Result<Self, Status> {
        Self::open_on(channel(url), metadata).await
    }

    async fn open_on(channel: Channel, metadata: &[(&'static str, &str)]) -> Result<Self, Status> {
        let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let (ask, asked) = mpsc::channel(64);
        let mut opening = Request::new(tokio_stream::wrappers::ReceiverStream::new(asked));
        for (key, value) in metadata {
            opening.metadata_mut().insert(*key, value.parse().unwrap());
        }
        let answers = client.watch(opening).await?.into_inner();
        Ok(Self { ask, answers })
    }

    pub(crate) async fn send(&self, union: RequestUnion) {
        self.ask.send(request(union)).await.unwrap();
    }

    /// Asks for a watcher; the next answer must be the one to it.
    pub(crate) async fn create(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(create)).await;
        let answer = self.next().await;
        assert!(answer.created, "{answer:?}");
        assert!(answer.events.is_empty(), "{answer:?}");
        answer
    }

    pub(crate) async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
    }

    pub(crate) async fn ask_progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    /// Asks for progress until it is answered, as clients do; what comes before it is returned, too.
    pub(crate) async fn progress(&mut self) -> (Vec<pb::WatchResponse>, i64) {
        let mut before = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            self.ask_progress().await;
            // Unanswered means: not in sync yet.
            while let Ok(answer) =
                tokio::time::timeout(Duration::from_millis(300), self.answers.message()).await
            {
                let answer = answer.unwrap().unwrap();
                if is_progress(&answer) && answer.watch_id == -1 {
                    return (before, revision(&answer));
                }
                before.push(answer);
            }
        }
        panic!("no progress");
    }

    pub(crate) async fn answer(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer in time")
    }

    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        self.answer().await.unwrap().expect("the stream goes on")
    }

    /// The events of the next answers, until there are so many.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await;
            assert!(!answer.created && !answer.canceled, "{answer:?}");
            events.extend(answer.events);
        }
        assert_eq!(events.len(), count, "{events:?}");
        events
    }
}

pub(crate) fn revision(answer: &pb::WatchResponse) -> i64 {
    answer.header.as_ref().unwrap().revision
}

pub(crate) fn is_progress(answer: &pb::WatchResponse) -> bool {
    answer.events.is_empty() && !answer.created && !answer.canceled && answer.compact_revision == 0
}

/// Key, revision and value of an event; a deleted key has no value.
pub(crate) fn brief(event: &mvccpb::Event) -> (String, i64, Option<String>) {
    let kv = event.kv.as_ref().unwrap();
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let value = (event.r#type() == mvccpb::event::EventType::Put).then(|| text(&kv.value));
    (text(&kv.key), kv.mod_revision, value)
}

pub(crate) fn briefs(events: &[mvccpb::Event]) -> Vec<(String, i64, Option<String>)> {
    events.iter().map(brief).collect()
}

pub(crate) fn expected(events: &[(&str, i64, Option<&str>)]) -> Vec<(String, i64, Option<String>)> {
    events
        .iter()
        .map(|(key, revision, value)| ((*key).to_owned(), *revision, value.map(str::to_owned)))
        .collect()
}

/// The revisions of events.
pub(crate) fn revisions(events: &[mvccpb::Event]) -> Vec<i64> {
    events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

/// Makes sure that nothing was queued but what is expected: a progress answer comes behind it.
pub(crate) async fn nothing_more(watching: &mut Watching) {
    let (before, _) = watching.progress().await;
    assert!(before.is_empty(), "{before:?}");
}
