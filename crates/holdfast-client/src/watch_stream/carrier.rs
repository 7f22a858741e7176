//! The task that owns a stream of watches.

use std::collections::{HashMap, VecDeque};
use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::{Delivery, Joining, Mailbox, Tell, Why};
use crate::auth::{self, Token, token_failure_in};
use crate::client::{ANSWER_BYTES_MAX, Client};
use crate::codec::{revision, unsigned};
use crate::error::Error;

/// A member that does not answer to a new watch in this time is left for the next one.
const CREATE_MAX: Duration = Duration::from_secs(10);

/// Requests that the transport has not taken yet; the others wait in the task.
const REQUESTS: usize = 16;

/// The id in an answer to who asked for progress.
const ALL_WATCHES: i64 = -1;

/// Closes the mailbox also when the task panics or its runtime ends.
struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Carries watches as long as there are some and the stream holds.
pub(super) async fn carry(client: Client, mailbox: Arc<Mailbox>, not_before: Instant) {
    let closing = Closing(mailbox);
    sleep_until(not_before).await;
    let mut carrier = Carrier::default();
    carrier.read(&closing.0);
    if carrier.watchers.is_empty() && closing.0.close_if_unused() {
        return;
    }
    let (member, channel) = client.channel();
    let token = match client.token().await {
        Ok(token) => token,
        Err(error) => {
            client.streams().broke(Why::Member);
            match refusal_in(&error) {
                Some(status) => carrier.refuse(&status),
                // Nobody has answered: the watches come back.
                None => tracing::debug!(%error, "no token for a stream of watches"),
            }
            return;
        }
    };
    // It may take as long as it likes: only who wants to know of progress needs it.
    let version = version_of(channel.clone(), token.as_ref());
    let broken = match open(channel, token.as_ref(), &mut carrier).await {
        Ok((requests, responses)) => carrier.run(&client, &closing.0, version, &requests, responses).await,
        Err(status) => Err(status),
    };
    let Err(status) = broken else { return };
    // Before the buffers end: whoever comes back finds another member or token, and the pause.
    let why = if client.forget(token.as_ref(), &status) { Why::Token } else { Why::Member };
    if client.streams().broke(why) {
        tracing::debug!(%status, "a stream of watches needs another token");
    } else if is_refused(&status) {
        carrier.refuse(&status);
    } else {
        tracing::debug!(%status, "a stream of watches broke");
        client.failed(member);
    }
}

/// What watches are told when no token will be had.
fn refusal_in(error: &Error) -> Option<Status> {
    match error {
        Error::Refused { code, message } => Some(Status::new(*code, message.clone())),
        _ => None,
    }
}

/// Opens a stream. It begins with the first request, without which servers do not answer.
async fn open(
    channel: Channel,
    token: Option<&Token>,
    carrier: &mut Carrier,
) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), Status> {
    let (requests, outgoing) = mpsc::channel(REQUESTS);
    carrier.send_what_fits(&requests);
    let deadline = Instant::now() + CREATE_MAX;
    let late = |_| Status::unavailable("no answer to a watch in time");
    let mut request = Request::new(ReceiverStream::new(outgoing));
    // A member that has lost its leader ends the stream, so that it is opened on another one.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    auth::show(&mut request, token);
    let mut stub = WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let responses = timeout_at(deadline, stub.watch(request)).await.map_err(late)??;
    Ok((requests, responses.into_inner()))
}

/// The version that a member says it has, if it says so in the time that it has for a new watch.
async fn version_of(channel: Channel, token: Option<&Token>) -> Option<String> {
    let mut request = Request::new(pb::StatusRequest::default());
    auth::show(&mut request, token);
    let mut stub = MaintenanceClient::new(channel);
    let answer = timeout(CREATE_MAX, stub.status(request)).await.ok()?.ok()?;
    Some(answer.into_inner().version)
}

/// Whether an answer to who asks for progress comes behind all changes before it. etcd 3.4.0 to 3.4.30 and 3.5.0 to 3.5.12
/// may say that they have come to a revision before they tell what has changed in it: who believes that misses the change.
/// What is told without being asked for is in order there, too. The same versions as kube-apiserver asks.
fn is_progress_in_order(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(3), Some(4), Some(patch)) => patch >= 31,
        (Some(3), Some(5), Some(patch)) => patch >= 13,
        (Some(major), Some(minor), Some(_)) => (major, minor) > (3, 5),
        _ => false,
    }
}

/// The watches on a stream.
#[derive(Debug, Default)]
struct Carrier {
    /// Whether the member is asked for progress at all. Not before its version is known: who wants to know asks again.
    is_progress_in_order: bool,
    watchers: HashMap<i64, Watcher>,
    /// Watches that the member has not confirmed yet, in the order in which they were asked for, which is that of the
    /// answers.
    unconfirmed: VecDeque<i64>,
    /// What is to be sent.
    outbox: VecDeque<pb::WatchRequest>,
    /// Watches that were confirmed when progress was asked for, until it is told.
    asked: Vec<i64>,
}

#[derive(Debug)]
struct Watcher {
    tell: Tell,
    /// Changes of a revision that is not complete yet.
    partial: Vec<mvccpb::Event>,
    /// The member's revision when it confirmed the watch.
    confirmed_at: Option<u64>,
}

impl Carrier {
    /// Takes what watches want.
    fn read(&mut self, mailbox: &Mailbox) {
        let (joining, leaving, is_progress_wanted) = mailbox.take();
        for Joining { create, tell } in joining {
            let id = create.watch_id;
            self.unconfirmed.push_back(id);
            self.watchers.insert(id, Watcher { tell, partial: Vec::new(), confirmed_at: None });
            self.outbox.push_back(request(RequestUnion::CreateRequest(create)));
        }
        for id in leaving {
            self.end(id);
        }
        if is_progress_wanted && self.is_progress_in_order {
            self.ask_progress();
        }
    }

    /// Sends as much as there is room for. The others wait for their turn: a request that is lost would never be answered.
    fn send_what_fits(&mut self, requests: &mpsc::Sender<pb::WatchRequest>) {
        while let Ok(room) = requests.try_reserve() {
            let Some(request) = self.outbox.pop_front() else { break };
            room.send(request);
        }
    }

    /// Members answer when all watches of the stream are up to date; some say nothing when one is not.
    fn ask_progress(&mut self) {
        if self.asked.is_empty() {
            let confirmed = self.watchers.iter().filter(|(_, watcher)| watcher.confirmed_at.is_some());
            self.asked = confirmed.map(|(id, _)| *id).collect();
        }
        let wanted = request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
        if !self.outbox.contains(&wanted) {
            self.outbox.push_back(wanted);
        }
    }

    /// All watches have come to this revision, but for those that were confirmed after it was told: etcd does not keep
    /// the one behind the other.
    fn tell_progress(&mut self, head: u64) {
        let asked = std::mem::take(&mut self.asked);
        let is_told = |id: &i64, watcher: &Watcher| {
            watcher.confirmed_at.is_some_and(|at| head > at || asked.contains(id))
        };
        let told: Vec<i64> =
            self.watchers.iter().filter(|(id, watcher)| is_told(id, watcher)).map(|(id, _)| *id).collect();
        for id in told {
            self.tell(id, Delivery::Progress(head), 0);
        }
    }

    /// Takes a watch off the stream, if it is on it.
    fn end(&mut self, id: i64) {
        if self.watchers.remove(&id).is_some() {
            self.outbox
                .push_back(request(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id })));
        }
    }

    /// Until there is no watch any more.
    ///
    /// Errors: the stream broke.
    async fn run(
        &mut self,
        client: &Client,
        mailbox: &Mailbox,
        version: impl Future<Output = Option<String>>,
        requests: &mpsc::Sender<pb::WatchRequest>,
        mut responses: Streaming<pb::WatchResponse>,
    ) -> Result<(), Status> {
        let (mut version, mut is_version_told) = (pin!(version), false);
        let mut answered_at = Instant::now();
        loop {
            if self.watchers.is_empty() && mailbox.close_if_unused() {
                return Ok(());
            }
            // All arms are cancel-safe: each takes something whole, or nothing; the version goes on where it was.
            tokio::select! {
                response = responses.message() => {
                    let response = response?.ok_or_else(|| Status::unavailable("the stream ended"))?;
                    answered_at = Instant::now();
                    self.take(response)?;
                    client.streams().works();
                }
                version = &mut version, if !is_version_told => {
                    is_version_told = true;
                    self.is_progress_in_order = version.is_some_and(|version| is_progress_in_order(&version));
                }
                () = mailbox.notify.notified() => {
                    if self.unconfirmed.is_empty() {
                        answered_at = Instant::now();
                    }
                    self.read(mailbox);
                }
                room = requests.reserve(), if !self.outbox.is_empty() => {
                    let room = room.map_err(|_| Status::unavailable("the stream takes no requests"))?;
                    room.send(self.outbox.pop_front().expect("the arm is off when there is none"));
                }
                () = sleep_until(answered_at + CREATE_MAX), if !self.unconfirmed.is_empty() => {
                    return Err(Status::unavailable("no answer to a watch in time"));
                }
            }
        }
    }

    /// Passes on what a response tells.
    ///
    /// Errors: the stream makes no sense, or its token is of no use.
    fn take(&mut self, response: pb::WatchResponse) -> Result<(), Status> {
        if let Some(status) = token_failure_in(&response.cancel_reason) {
            return Err(status);
        }
        let mut id = response.watch_id;
        if response.created {
            let next = self.unconfirmed.pop_front();
            let next = next.ok_or_else(|| Status::internal("a watch that nobody asked for"))?;
            // A watch that cannot be made has no id.
            if !response.canceled && next != id {
                return Err(Status::internal("watches are made in another order than they were asked for"));
            }
            id = next;
        }
        let head = revision(response.header.as_ref());
        if response.canceled || response.compact_revision > 0 {
            let Some(watcher) = self.watchers.remove(&id) else { return Ok(()) };
            // Without room it comes back, and is told again.
            watcher.tell.tell(ended(&response), 0);
        } else if response.created {
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.confirmed_at = Some(head);
            }
            self.tell(id, Delivery::Created(head), 0);
        } else if id == ALL_WATCHES {
            self.tell_progress(head);
        } else if response.events.is_empty() && !response.fragment {
            self.tell(id, Delivery::Progress(head), 0);
        } else {
            self.tell_events(id, response);
        }
        Ok(())
    }

    /// Tells changes of the revisions that are complete.
    fn tell_events(&mut self, id: i64, response: pb::WatchResponse) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let mut events = std::mem::take(&mut watcher.partial);
        events.extend(response.events);
        if response.fragment {
            // More changes of the last revision may follow.
            let last = events.last().map(mod_revision);
            let complete = events.iter().take_while(|event| Some(mod_revision(event)) != last).count();
            watcher.partial = events.split_off(complete);
        }
        if !events.is_empty() {
            let bytes = events.iter().map(bytes_of).sum();
            self.tell(id, Delivery::Events(events), bytes);
        }
    }

    fn tell(&mut self, id: i64, delivery: Delivery, bytes: usize) {
        let has_room = self.watchers.get(&id).is_none_or(|watcher| watcher.tell.tell(delivery, bytes));
        if !has_room {
            tracing::debug!(id, "a watch is read too slowly, and goes on by itself");
            self.end(id);
        }
    }

    fn refuse(&mut self, status: &Status) {
        for watcher in self.watchers.values() {
            // Without room it comes back, and is told again.
            watcher.tell.tell(Delivery::Refused(status.clone()), 0);
        }
    }
}

/// Why a member has ended a watch that nobody took off the stream.
fn ended(response: &pb::WatchResponse) -> Delivery {
    if response.compact_revision > 0 {
        return Delivery::Compacted(unsigned(response.compact_revision));
    }
    let reason = response.cancel_reason.as_str();
    if reason.contains("etcdserver: permission denied") {
        return Delivery::Refused(Status::permission_denied(reason));
    }
    if response.created {
        return Delivery::Refused(Status::invalid_argument(reason));
    }
    Delivery::Canceled(Status::cancelled(reason))
}

fn request(union: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(union) }
}

fn mod_revision(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// What an event takes, about.
fn bytes_of(event: &mvccpb::Event) -> usize {
    let of = |kv: &mvccpb::KeyValue| kv.key.len() + kv.value.len();
    size_of::<mvccpb::Event>() + event.kv.as_ref().map_or(0, of) + event.prev_kv.as_ref().map_or(0, of)
}

/// Whether another member, or the same one later, would say so too. What has a source was said by the transport.
fn is_refused(status: &Status) -> bool {
    status.source().is_none()
        && matches!(
            status.code(),
            Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
        )
}

#[cfg(test)]
mod tests;
