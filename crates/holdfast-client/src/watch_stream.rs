//! One stream that carries the watches of a client to a member.
//!
//! All watches of a client and its namespaces share one stream, and with it one connection. A task owns it: it sends what
//! watches ask for, and puts what the member says into the buffer of the watch that it is for. It never waits for a
//! watch: one whose buffer is full is taken off the stream, and comes back when its reader has emptied the buffer, from
//! the revision it has come to. It never waits for the member either: what it has to say is queued here, and the
//! member's answers are read meanwhile.
//!
//! The stream lives as long as it carries a watch. When it breaks, the buffers of all its watches end, and each watch
//! that is read comes back on a new stream, to the member that is asked first by then.
//!
//! ```text
//!   Watch ── join, leave ──► Mailbox ──► task ── create, cancel ──► member
//!   Watch ◄──── Delivery (bounded) ─────  task ◄── responses ──────
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use crate::auth::{self, Token, token_failure_in};
use crate::client::{ANSWER_BYTES_MAX, Client, PAUSE_MAX, jittered};
use crate::codec::{revision, unsigned};
use crate::error::Error;

/// Pause before a stream is opened behind one that broke; doubles up to [`PAUSE_MAX`], and half of it is random.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(20);

/// A member that does not answer to a new watch in this time is left for the next one.
const CREATE_MAX: Duration = Duration::from_secs(10);

/// Deliveries that wait for the reader of a watch.
const BUFFER_DELIVERIES: usize = 64;
/// And their bytes: a watch with more is taken off the stream. One delivery is taken whatever its size.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Requests that the transport has not taken yet; the others wait in the task.
const REQUESTS: usize = 16;

/// The id in an answer to who asked for progress.
const ALL_WATCHES: i64 = -1;

/// What a watch is told. When there are no more, the watch is not on the stream any longer.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// The member has the watch, at this revision.
    Created(u64),
    /// Changes of whole revisions, in order, never empty.
    Events(Vec<mvccpb::Event>),
    /// All changes up to this revision were told.
    Progress(u64),
    /// Changes before this revision are not known any more, some of them wanted.
    Compacted(u64),
    /// The member has ended the watch, for a reason that passes.
    Canceled(Status),
    /// The member will not have it.
    Refused(Status),
}

/// A place on a stream.
#[derive(Debug)]
pub(crate) struct Seat {
    mailbox: Arc<Mailbox>,
    id: i64,
    deliveries: mpsc::Receiver<(Delivery, usize)>,
    buffered: Arc<AtomicUsize>,
}

impl Seat {
    /// What is told next; `None` when the watch is not on the stream any more. Cancel-safe.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Delivery>> {
        self.deliveries.poll_recv(context).map(|told| {
            let (delivery, bytes) = told?;
            self.buffered.fetch_sub(bytes, Ordering::Relaxed);
            Some(delivery)
        })
    }
}

impl Seat {
    /// Has the member asked how far it has come, for all watches on the stream.
    pub(crate) fn ask_progress(&self) {
        self.mailbox.lock().is_progress_wanted = true;
        self.mailbox.notify.notify_one();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.mailbox.lock().leaving.push(self.id);
        self.mailbox.notify.notify_one();
    }
}

/// What watches say to the task of a stream.
#[derive(Debug, Default)]
struct Mailbox {
    /// Written by watches and emptied by the task.
    letters: Mutex<Letters>,
    notify: Notify,
}

/// At most one of each kind for each watch.
#[derive(Debug, Default)]
struct Letters {
    joining: Vec<Joining>,
    leaving: Vec<i64>,
    id_last: i64,
    /// Some watch wants to know how far the member has come.
    is_progress_wanted: bool,
    /// Nobody reads them any more.
    is_closed: bool,
}

#[derive(Debug)]
struct Joining {
    create: pb::WatchCreateRequest,
    tell: Tell,
}

/// The task's end of a seat.
#[derive(Debug)]
struct Tell {
    deliveries: mpsc::Sender<(Delivery, usize)>,
    buffered: Arc<AtomicUsize>,
}

impl Tell {
    /// Whether there was room for it.
    fn tell(&self, delivery: Delivery, bytes: usize) -> bool {
        let before = self.buffered.fetch_add(bytes, Ordering::Relaxed);
        (before == 0 || before + bytes <= BUFFER_BYTES) && self.deliveries.try_send((delivery, bytes)).is_ok()
    }
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`, and the request back, when the stream has ended.
    fn join(self: &Arc<Self>, mut create: pb::WatchCreateRequest) -> Result<Seat, pb::WatchCreateRequest> {
        let mut letters = self.lock();
        if letters.is_closed {
            return Err(create);
        }
        letters.id_last += 1;
        let id = letters.id_last;
        create.watch_id = id;
        let (deliveries, told) = mpsc::channel(BUFFER_DELIVERIES);
        let buffered = Arc::new(AtomicUsize::new(0));
        let tell = Tell { deliveries, buffered: Arc::clone(&buffered) };
        letters.joining.push(Joining { create, tell });
        drop(letters);
        self.notify.notify_one();
        Ok(Seat { mailbox: Arc::clone(self), id, deliveries: told, buffered })
    }

    /// Who joins, who leaves, and whether progress is wanted.
    fn take(&self) -> (Vec<Joining>, Vec<i64>, bool) {
        let mut letters = self.lock();
        let (joining, leaving) = (std::mem::take(&mut letters.joining), std::mem::take(&mut letters.leaving));
        (joining, leaving, std::mem::take(&mut letters.is_progress_wanted))
    }

    /// Closes it if nobody waits for an answer.
    fn close_if_unused(&self) -> bool {
        let mut letters = self.lock();
        letters.is_closed |= letters.joining.is_empty();
        letters.is_closed
    }

    fn close(&self) {
        let mut letters = self.lock();
        letters.is_closed = true;
        letters.joining.clear();
    }
}

/// The streams of a client: one, or none yet, or one that has broken.
#[derive(Debug)]
pub(crate) struct Streams {
    state: Mutex<State>,
}

/// Written by whoever joins, and by the task when its stream opens or breaks.
#[derive(Debug)]
struct State {
    mailbox: Option<Arc<Mailbox>>,
    /// Before the next stream is opened.
    pause: Duration,
    not_before: Instant,
    /// The last stream was broken for its token, and none has worked since.
    is_renewed: bool,
}

/// What a stream broke for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The token that it was opened with.
    Token,
    /// Anything else.
    Member,
}

impl Streams {
    pub(crate) fn new() -> Self {
        let state = State { mailbox: None, pause: PAUSE_MIN, not_before: Instant::now(), is_renewed: false };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat on the stream that there is, or else on a new one.
    pub(crate) fn join(&self, client: &Client, create: pb::WatchCreateRequest) -> Seat {
        let mut state = self.lock();
        let refused = match &state.mailbox {
            Some(mailbox) => mailbox.join(create),
            None => Err(create),
        };
        let create = match refused {
            Ok(seat) => return seat,
            Err(create) => create,
        };
        let mailbox = Arc::new(Mailbox::default());
        let seat = mailbox.join(create).expect("a new mailbox is open");
        state.mailbox = Some(Arc::clone(&mailbox));
        let not_before = state.not_before;
        drop(state);
        // Ends when it carries no watch any more, or breaks; its guard tells either way.
        drop(tokio::spawn(carry(client.clone(), mailbox, not_before)));
        seat
    }

    /// Whether it is worth to open another one with another token: not twice in a row.
    fn broke(&self, why: Why) -> bool {
        let mut state = self.lock();
        state.not_before = Instant::now() + jittered(state.pause);
        state.pause = (state.pause * 2).min(PAUSE_MAX);
        match why {
            Why::Token => !std::mem::replace(&mut state.is_renewed, true),
            Why::Member => false,
        }
    }

    fn works(&self) {
        let mut state = self.lock();
        state.pause = PAUSE_MIN;
        state.is_renewed = false;
    }
}

/// Closes the mailbox also when the task panics or its runtime ends.
struct Closing(Arc<Mailbox>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Carries watches as long as there are some and the stream holds.
async fn carry(client: Client, mailbox: Arc<Mailbox>, not_before: Instant) {
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
            return carrier.refuse(&status_of(&error));
        }
    };
    let broken = match open(channel, token.as_ref(), &mut carrier).await {
        Ok((requests, responses)) => carrier.run(&client, &closing.0, &requests, responses).await,
        Err(status) => Err(status),
    };
    let Err(status) = broken else { return };
    // Before the buffers end: whoever comes back finds another member or token, and the pause.
    if client.forget(token.as_ref(), &status) && client.streams().broke(Why::Token) {
        tracing::debug!(%status, "a stream of watches needs another token");
    } else if is_refused(&status) {
        client.streams().broke(Why::Member);
        carrier.refuse(&status);
    } else {
        tracing::debug!(%status, "a stream of watches broke");
        client.streams().broke(Why::Member);
        client.failed(member);
    }
}

/// What watches are told when no token is to be had.
fn status_of(error: &Error) -> Status {
    match error {
        Error::Refused { code, message } => Status::new(*code, message.clone()),
        error => Status::unavailable(error.to_string()),
    }
}

/// Opens a stream. It begins with the first request, without which servers do not answer.
async fn open(
    channel: tonic::transport::Channel,
    token: Option<&Token>,
    carrier: &mut Carrier,
) -> Result<(mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>), Status> {
    let (requests, outgoing) = mpsc::channel(REQUESTS);
    while let (Some(request), Ok(room)) = (carrier.outbox.pop_front(), requests.try_reserve()) {
        room.send(request);
    }
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

/// The watches on a stream.
#[derive(Debug, Default)]
struct Carrier {
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
        if is_progress_wanted {
            self.ask_progress();
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
        requests: &mpsc::Sender<pb::WatchRequest>,
        mut responses: Streaming<pb::WatchResponse>,
    ) -> Result<(), Status> {
        let mut answered_at = Instant::now();
        loop {
            if self.watchers.is_empty() && mailbox.close_if_unused() {
                return Ok(());
            }
            // All arms are cancel-safe: each takes something whole, or nothing.
            tokio::select! {
                response = responses.message() => {
                    let response = response?.ok_or_else(|| Status::unavailable("the stream ended"))?;
                    answered_at = Instant::now();
                    self.take(response)?;
                    client.streams().works();
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

/// Whether another member, or the same one later, would say so too.
pub(crate) fn is_refused(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}
