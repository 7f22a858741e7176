//! The queue of one watch stream: what its client has not taken yet.
//!
//! Dispatch and session put responses in, the transport takes them out, when the client reads. Everything goes through
//! this one queue, so that what a response promises about others (created before events, events before progress) holds
//! by its place. Bounded in bytes: a delivery that does not fit is refused whole, and so is every delivery behind it,
//! until there is room; the dispatch loop is told then, once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use futures::task::AtomicWaker;
use holdfast_mvcc::types::Revision;
use holdfast_watch::{StreamId, Taken};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::Status;

use super::inbox::Inbox;
use crate::codec::watch::{Content, Events, Header, Response};
use crate::metrics::watch::WatchCounts;
use crate::status::Failure;

#[cfg(test)]
mod tests;

/// What a response costs beside its events.
const RESPONSE_BYTES: usize = 128;

/// A response takes further revisions of its watcher up to this size. Clients bound the size of a message; 4 MiB is a
/// usual default.
const COALESCED_BYTES_MAX: usize = 256 * 1024;

/// How many bytes the transport takes before they are given back to the queue's bound.
const RETURN_BYTES: usize = 64 * 1024;

/// The queue of one stream.
pub(super) struct Outbound {
    stream: StreamId,
    bytes_max: usize,
    /// From this size on a response is cut, if its watcher wants that.
    fragment_bytes: usize,
    queue: Mutex<Queue>,
    /// The transport's task.
    reader: AtomicWaker,
    /// Dispatch has queued something and will wake the transport at the end of its turn.
    is_to_wake: AtomicBool,
    /// Tells the session of room, and of the reader's end.
    changed: Notify,
    header: Arc<Header>,
    inbox: Arc<Inbox>,
    counts: WatchCounts,
}

/// Written by dispatch, session and transport.
#[derive(Debug, Default)]
struct Queue {
    responses: VecDeque<Queued>,
    /// The number of the first response in the queue; they are numbered as they come.
    first: u64,
    /// Responses below this number take no further events: something else that tells of them stands behind.
    closed_below: u64,
    /// Of everything that the transport has not encoded yet.
    bytes: usize,
    /// A delivery was refused: its watcher waits until the queue is down to so many bytes.
    wanted: Option<usize>,
    ended: Option<Ended>,
    reader_gone: bool,
}

#[derive(Debug)]
struct Queued {
    response: Response,
    events: u32,
    fragments: bool,
}

/// How a stream ends.
#[derive(Debug)]
enum Ended {
    /// Behind what is queued.
    Drained,
    /// At once.
    Failed(Status),
}

/// Events for one watcher.
pub(super) struct Delivered {
    /// The watcher's id on the wire.
    pub(super) watch_id: i64,
    /// For the header.
    pub(super) revision: Revision,
    /// Encoded.
    pub(super) encoded: Bytes,
    /// How many.
    pub(super) events: u32,
    /// Whether the watcher takes fragments.
    pub(super) fragments: bool,
}

/// Where in the queue a watcher's newest events are; they may be gone by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u64);

impl Queued {
    fn bytes(&self) -> usize {
        let events = match &self.response.content {
            Content::Events(events) => events.bytes(),
            _ => 0,
        };
        RESPONSE_BYTES + events
    }
}

/// Bounds of a queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutboundBytes {
    /// Of a queue; one delivery may be larger, when it is alone.
    pub(super) queue_max: usize,
    /// From this size on a response is cut, if its watcher wants that.
    pub(super) fragment: usize,
}

impl Outbound {
    pub(super) fn new(
        stream: StreamId,
        bytes: OutboundBytes,
        header: Arc<Header>,
        inbox: Arc<Inbox>,
        counts: WatchCounts,
    ) -> Self {
        Self {
            stream,
            bytes_max: bytes.queue_max,
            fragment_bytes: bytes.fragment,
            queue: Mutex::default(),
            reader: AtomicWaker::new(),
            is_to_wake: AtomicBool::new(false),
            changed: Notify::new(),
            header,
            inbox,
            counts,
        }
    }

    /// Queues events for a watcher, together with its last ones if those are still here; says where they are, or that
    /// there is no room. Call [`Outbound::wake`] afterwards.
    pub(super) fn deliver(&self, delivered: Delivered, last: Option<Place>) -> Result<Place, Taken> {
        let mut queue = self.queue.lock();
        let Delivered { watch_id, revision, encoded, events, fragments } = delivered;
        let encoded_bytes = encoded.len();
        let bytes = encoded_bytes + RESPONSE_BYTES;
        if queue.reader_gone || queue.ended.is_some() {
            // The session ends soon; nobody will see it.
            return Ok(Place(0));
        }
        if queue.wanted.is_some() || (queue.bytes > 0 && queue.bytes + bytes > self.bytes_max) {
            let room = (self.bytes_max / 2).min(self.bytes_max.saturating_sub(bytes));
            let wanted = queue.wanted.unwrap_or(room);
            queue.wanted = Some(wanted.min(room));
            self.counts.refusals.inc();
            return Err(Taken::Full);
        }
        self.counts.events_pending.add(i64::from(events));
        if let Some(place) = last
            && let Some((queued, earlier)) = queue.open(place)
            && earlier + encoded_bytes <= COALESCED_BYTES_MAX
        {
            queued.events += events;
            queued.response.revision = queued.response.revision.max(revision);
            if let Content::Events(earlier) = &mut queued.response.content {
                earlier.append(encoded);
            }
            queue.add_bytes(encoded_bytes, &self.counts);
            return Ok(place);
        }
        let content = Content::Events(Events::new(encoded));
        let response = Response { watch_id, revision, content };
        Ok(queue.push(Queued { response, events, fragments }, &self.counts))
    }

    /// Queues a response without events, whether there is room or not: the session asks for [`Outbound::room`] before it
    /// causes one, and dispatch before it volunteers one. Call [`Outbound::wake`] afterwards.
    pub(super) fn push(&self, response: Response) {
        let mut queue = self.queue.lock();
        if queue.reader_gone || queue.ended.is_some() {
            return;
        }
        queue.push(Queued { response, events: 0, fragments: false }, &self.counts);
        queue.closed_below = queue.first + queue.responses.len() as u64;
    }

    /// True when a response that nobody waits for may be queued.
    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue.lock();
        queue.wanted.is_none() && queue.bytes < self.bytes_max
    }

    /// True for the first call since the last [`Outbound::wake`]. Dispatch alone asks.
    pub(super) fn is_first_since_wake(&self) -> bool {
        // One thread reads and writes it, so that nothing has to be ordered.
        let is_first = !self.is_to_wake.load(Ordering::Relaxed);
        self.is_to_wake.store(true, Ordering::Relaxed);
        is_first
    }

    /// Wakes the transport.
    pub(super) fn wake(&self) {
        self.is_to_wake.store(false, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Waits until the queue has room, or nobody reads it any more. Cancel-safe.
    pub(super) async fn room(&self) {
        self.until(|queue| queue.reader_gone || queue.bytes < self.bytes_max).await;
    }

    /// Waits until nobody reads it any more. Cancel-safe.
    pub(super) async fn reader_gone(&self) {
        self.until(|queue| queue.reader_gone).await;
    }

    /// True when nobody reads it any more.
    pub(super) fn is_reader_gone(&self) -> bool {
        self.queue.lock().reader_gone
    }

    // Only the stream's session waits, for one thing at a time.
    async fn until(&self, holds: impl Fn(&Queue) -> bool) {
        while !holds(&self.queue.lock()) {
            self.changed.notified().await;
        }
    }

    /// Ends the stream behind what is queued.
    pub(super) fn end(&self) {
        self.queue.lock().ended.get_or_insert(Ended::Drained);
        self.reader.wake();
    }

    /// Ends the stream with a failure, at once.
    pub(super) fn fail(&self, failure: Failure) {
        self.fail_with(failure.into());
    }

    /// As [`Outbound::fail`], with a status that the transport made.
    pub(super) fn fail_with(&self, status: Status) {
        let mut queue = self.queue.lock();
        if !matches!(queue.ended, Some(Ended::Failed(_))) {
            queue.ended = Some(Ended::Failed(status));
        }
        drop(queue);
        self.reader.wake();
    }

    /// Gives back what the transport has encoded.
    fn returned(&self, queue: &mut Queue, sent: &mut Sent) {
        let before = queue.bytes;
        queue.bytes -= sent.bytes;
        self.counts.bytes_pending.sub(signed(sent.bytes));
        self.counts.events_pending.sub(sent.events);
        *sent = Sent::default();
        if before >= self.bytes_max && queue.bytes < self.bytes_max {
            self.changed.notify_one();
        }
        if queue.wanted.is_some_and(|wanted| queue.bytes <= wanted) {
            queue.wanted = None;
            self.inbox.has_room(self.stream);
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Queue {
    fn push(&mut self, queued: Queued, counts: &WatchCounts) -> Place {
        let place = Place(self.first + self.responses.len() as u64);
        self.add_bytes(queued.bytes(), counts);
        self.responses.push_back(queued);
        place
    }

    fn add_bytes(&mut self, bytes: usize, counts: &WatchCounts) {
        self.bytes += bytes;
        counts.bytes_pending.add(signed(bytes));
    }

    /// The response at a place, with the bytes of its events, if it takes further ones.
    fn open(&mut self, place: Place) -> Option<(&mut Queued, usize)> {
        if place.0 < self.first.max(self.closed_below) {
            return None;
        }
        let at = usize::try_from(place.0 - self.first).ok()?;
        let queued = self.responses.get_mut(at)?;
        let bytes = queued.bytes() - RESPONSE_BYTES;
        Some((queued, bytes))
    }
}

/// The transport's end of a queue: the responses, as the client takes them.
pub struct Responses {
    outbound: Arc<Outbound>,
    /// Taken out of the queue, but still counted there.
    taken: VecDeque<Queued>,
    /// The rest of a response that was cut, last first.
    fragments: Vec<Response>,
    sent: Sent,
}

/// Encoded, and not given back yet.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    events: i64,
}

impl Responses {
    pub(super) fn new(outbound: Arc<Outbound>) -> Self {
        Self { outbound, taken: VecDeque::new(), fragments: Vec::new(), sent: Sent::default() }
    }

    /// The next of what was taken.
    fn next_taken(&mut self) -> Option<Response> {
        if let Some(fragment) = self.fragments.pop() {
            return Some(fragment);
        }
        let queued = self.taken.pop_front()?;
        self.sent.bytes += queued.bytes();
        self.sent.events += i64::from(queued.events);
        if self.sent.bytes >= RETURN_BYTES {
            let mut queue = self.outbound.queue.lock();
            self.outbound.returned(&mut queue, &mut self.sent);
        }
        if !queued.fragments {
            return Some(queued.response);
        }
        self.fragments = queued.response.into_fragments(&self.outbound.header, self.outbound.fragment_bytes);
        self.fragments.reverse();
        self.fragments.pop()
    }
}

impl Stream for Responses {
    type Item = Result<Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(response) = this.next_taken() {
            return Poll::Ready(Some(Ok(response)));
        }
        // Before the look, so that whatever comes behind the look wakes us.
        this.outbound.reader.register(cx.waker());
        let mut queue = this.outbound.queue.lock();
        if this.sent.bytes > 0 {
            this.outbound.returned(&mut queue, &mut this.sent);
        }
        match &queue.ended {
            Some(Ended::Failed(status)) => {
                let status = status.clone();
                queue.ended = Some(Ended::Drained);
                queue.drop_all(&this.outbound.counts);
                return Poll::Ready(Some(Err(status)));
            }
            Some(Ended::Drained) if queue.responses.is_empty() => return Poll::Ready(None),
            Some(Ended::Drained) | None => {}
        }
        if queue.responses.is_empty() {
            return Poll::Pending;
        }
        queue.first += queue.responses.len() as u64;
        std::mem::swap(&mut queue.responses, &mut this.taken);
        drop(queue);
        Poll::Ready(this.next_taken().map(Ok))
    }
}

impl Queue {
    fn drop_all(&mut self, counts: &WatchCounts) {
        let events: i64 = self.responses.iter().map(|queued| i64::from(queued.events)).sum();
        counts.events_pending.sub(events);
        counts.bytes_pending.sub(signed(self.bytes));
        self.first += self.responses.len() as u64;
        self.responses.clear();
        self.bytes = 0;
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        let outbound = &self.outbound;
        let mut queue = outbound.queue.lock();
        let taken: i64 = self.taken.iter().map(|queued| i64::from(queued.events)).sum();
        outbound.counts.events_pending.sub(taken + self.sent.events);
        queue.drop_all(&outbound.counts);
        queue.reader_gone = true;
        // A refused delivery is still owed an answer, but its watcher is removed with the stream.
        queue.wanted = None;
        drop(queue);
        outbound.changed.notify_one();
    }
}
