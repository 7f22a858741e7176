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

mod carrier;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_proto::{etcdserverpb as pb, mvccpb};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::Status;

use crate::client::{Client, PAUSE_MAX, jittered};

/// Pause before a stream is opened behind one that broke; doubles up to [`PAUSE_MAX`], and half of it is random.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(20);

/// Deliveries that wait for the reader of a watch.
const BUFFER_DELIVERIES: usize = 64;
/// And their bytes: a watch with more is taken off the stream. One delivery is taken whatever its size.
const BUFFER_BYTES: usize = 1024 * 1024;

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

    /// A seat for it.
    ///
    /// Errors: the request back, when the stream has ended.
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
        drop(tokio::spawn(carrier::carry(client.clone(), mailbox, not_before)));
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
