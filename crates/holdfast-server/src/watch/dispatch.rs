//! The dispatch loop: the one owner of the hub, on a thread of its own.
//!
//! A turn takes what has arrived (slices of history, changes, requests), hands it out, and wakes each stream that got
//! something once. Whatever may take long is done elsewhere: history is read by [`super::catch_up`], bytes are written
//! by the streams' own tasks. So a turn is short, and the next one takes what has come meanwhile as one batch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{BoxFuture, Clock, Fault, Faults, Monotonic, Rng};
use holdfast_mvcc::types::{RangeEnd, Record, Revision};
use holdfast_storage::{Storage, Visible};
use holdfast_watch::{Delivery, Hub, PrevKv, StreamId, WatcherSpec};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::catch_up::{Read, Slice, Task, Unreadable};
use super::encoded::{Encoded, Previous};
use super::figures::Seen;
use super::inbox::{Inbox, News};
use super::outbound::Outbound;
use super::table::{Asked, Stream, Table, Watcher};
use crate::codec::watch::{Content, Create, Header, NO_WATCH, Response};
use crate::limits;
use crate::metrics::watch::WatchCounts;
use crate::status::{RefusedWatch, refused_watch};

/// What a stream's session asks for.
pub(super) enum Request {
    /// The stream's first one.
    Open(Arc<Outbound>),
    /// A new watcher.
    Create(Create),
    /// A new watcher that its client may not have, and why.
    Deny(&'static str),
    /// The end of the watcher with this id.
    Cancel(i64),
    /// How far the whole stream has seen.
    Progress,
    /// The client will ask for nothing more.
    HalfClose,
    /// The stream's last one.
    Close,
}

/// The parts of a dispatch loop.
pub(super) struct Dispatch {
    pub(super) hub: Hub,
    pub(super) table: Table,
    pub(super) inbox: Arc<Inbox>,
    pub(super) storage: Storage,
    pub(super) visible: watch::Receiver<Visible>,
    pub(super) header: Arc<Header>,
    /// The member's term now.
    pub(super) term: Box<dyn Fn() -> u64 + Send + Sync>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) progress_interval: Duration,
    /// One place for a task at each reader.
    pub(super) readers: Vec<mpsc::Sender<Task>>,
    /// Readers without a task.
    pub(super) idle: Vec<usize>,
    /// Watchers that want the states before the changes.
    pub(super) want_previous: usize,
    /// Streams that wait for the head to pass what was visible when they asked for progress.
    pub(super) asked: Vec<StreamId>,
    /// When which stream's idle watchers are told of progress.
    pub(super) due: BTreeSet<(Monotonic, StreamId)>,
    /// History could not be read: not again before this.
    pub(super) paused_until: Option<Monotonic>,
    /// Many deliveries were just made: changes gather until then.
    pub(super) gathering_until: Option<Monotonic>,
    /// The first revision that some watcher has not got, as it was seen last.
    pub(super) oldest_missed: Option<Revision>,
    /// When to look for it again.
    pub(super) look_again: Monotonic,
    pub(super) counts: WatchCounts,
    pub(super) seen: Arc<Mutex<Seen>>,
    /// What a test has planted.
    pub(super) faults: Faults,
}

/// What ends a wait.
enum Woken {
    Request(StreamId, Request),
    Read(Read),
    Arrived,
    Ended,
}

impl Dispatch {
    /// Works until `ended`.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<(StreamId, Request)>,
        mut reads: mpsc::Receiver<Read>,
        ended: CancellationToken,
    ) {
        let inbox = Arc::clone(&self.inbox);
        let mut timer: Option<(Monotonic, BoxFuture<'static, ()>)> = None;
        loop {
            self.turn(&mut requests, &mut reads);
            let alarm = self.alarm();
            if timer.as_ref().map(|(at, _)| *at) != alarm {
                timer = alarm.map(|at| (at, self.clock.sleep(at.since(self.clock.now()))));
            }
            let ring = async {
                match &mut timer {
                    Some((_, sleep)) => sleep.await,
                    None => std::future::pending().await,
                }
            };
            let woken = tokio::select! {
                biased;
                // All arms are cancel-safe: a channel gives up nothing it has not handed over, the rest only waits.
                () = ended.cancelled() => Woken::Ended,
                Some(read) = reads.recv() => Woken::Read(read),
                () = inbox.arrived(), if self.gathering_until.is_none() => Woken::Arrived,
                Some((stream, request)) = requests.recv() => Woken::Request(stream, request),
                () = ring => {
                    timer = None;
                    Woken::Arrived
                }
            };
            match woken {
                Woken::Ended => return,
                Woken::Arrived => {}
                Woken::Read(read) => self.replay(read),
                Woken::Request(stream, request) => {
                    // What was visible before the request is handed out before it is answered.
                    self.hand_out();
                    self.answer(stream, request);
                }
            }
        }
    }

    fn turn(&mut self, requests: &mut mpsc::Receiver<(StreamId, Request)>, reads: &mut mpsc::Receiver<Read>) {
        self.header.set_term((self.term)());
        while let Ok(read) = reads.try_recv() {
            self.replay(read);
        }
        let mut is_handed_out = !self.is_gathering();
        if is_handed_out {
            self.hand_out();
        }
        for _ in 0..limits::WATCH_REQUESTS_PER_TURN {
            let Ok((stream, request)) = requests.try_recv() else { break };
            // What was visible before the request is handed out before it is answered.
            if !std::mem::replace(&mut is_handed_out, true) {
                self.hand_out();
            }
            self.answer(stream, request);
        }
        self.answer_progress();
        self.notify_idle();
        self.read_on();
        self.table.wake();
        self.note();
    }

    fn is_gathering(&mut self) -> bool {
        if self.gathering_until.is_some_and(|until| self.clock.now() >= until) {
            self.gathering_until = None;
        }
        self.gathering_until.is_some()
    }

    /// Hands out what the storage has published, and lets streams go on that have room again.
    fn hand_out(&mut self) {
        let arrived = self.inbox.take();
        for stream in arrived.rooms {
            self.hub.unblock(stream);
        }
        if arrived.news.is_empty() {
            return;
        }
        let mut batch: Vec<Record> = Vec::new();
        let mut batched_bytes = 0;
        let mut through = self.hub.head();
        for news in arrived.news {
            match news {
                News::Changes { mut records, revision, bytes } => {
                    if batched_bytes + bytes > limits::WATCH_SLICE_BYTES_MAX {
                        self.publish(&std::mem::take(&mut batch), through);
                        batched_bytes = 0;
                    }
                    batched_bytes += bytes;
                    // The first ones may overlap with what was visible when the hub was made.
                    records.retain(|record| record.id.revision > through);
                    if batch.is_empty() {
                        batch = records;
                    } else {
                        batch.append(&mut records);
                    }
                    through = through.max(revision);
                }
                News::Skipped(revision) => {
                    self.publish(&std::mem::take(&mut batch), through);
                    through = through.max(revision);
                    self.hub.skip_to(through);
                }
            }
        }
        self.publish(&batch, through);
    }

    fn publish(&mut self, records: &[Record], through: Revision) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        assert!(first.id.revision > self.hub.head(), "no change is handed out twice");
        assert!(last.id.revision <= through, "changes reach no further than they say");
        let mut encoded = Encoded::new(records, Previous::Live(&self.storage));
        let table = &mut self.table;
        let mut deliveries = 0_u32;
        self.hub.publish(records, through, &mut |delivery: Delivery<'_>| {
            deliveries = deliveries.saturating_add(1);
            table.deliver(delivery, &mut encoded, Revision::NONE)
        });
        // They go on as cursors, with what the readers find.
        for stream in std::mem::take(&mut self.table.cold) {
            self.hub.unblock(stream);
        }
        let rest = limits::WATCH_GATHER_PER_DELIVERY.saturating_mul(deliveries).min(limits::WATCH_GATHER_MAX);
        if rest >= limits::WATCH_GATHER_MIN {
            self.gathering_until = Some(self.clock.now().after(rest));
        }
    }

    /// Hands out a slice of history.
    fn replay(&mut self, read: Read) {
        let Read { reader, group, result } = read;
        self.idle.push(reader);
        match result {
            Ok(Slice { records, previous, through }) => {
                let visible = self.visible.borrow().revision;
                let mut encoded = Encoded::new(&records, Previous::Read(previous));
                let table = &mut self.table;
                self.hub.replay(group, &records, through, &mut |delivery: Delivery<'_>| {
                    table.deliver(delivery, &mut encoded, visible)
                });
            }
            Err(Unreadable::Compacted(compact_revision)) => {
                let (table, want_previous) = (&mut self.table, &mut self.want_previous);
                let lowest = compact_revision.unwrap_or(Revision::FRESH);
                self.hub.compacted(group, lowest, &mut |id, stream| {
                    let Some(watcher) = table.watchers.remove(&id) else { return };
                    *want_previous -= usize::from(watcher.prev_kv == PrevKv::Wanted);
                    if let Some(found) = table.streams.get_mut(&stream) {
                        found.ids.insert(watcher.watch_id, None);
                    }
                    let content = Content::Compacted(compact_revision);
                    let response = Response { watch_id: watcher.watch_id, revision: Revision::NONE, content };
                    table.push(stream, response);
                });
            }
            Err(Unreadable::Store(error)) => {
                tracing::error!(%error, "cannot read history for watchers, trying again");
                self.hub.put_back(group);
                self.paused_until = Some(self.clock.now().after(limits::WATCH_RETRY));
            }
        }
    }

    /// Gives tasks to idle readers.
    fn read_on(&mut self) {
        let now = self.clock.now();
        if let Some(until) = self.paused_until {
            if now < until {
                return;
            }
            self.paused_until = None;
        }
        while let Some(reader) = self.idle.pop() {
            let Some(group) = self.hub.next_group() else {
                self.idle.push(reader);
                return;
            };
            self.counts.catch_up_reads.inc();
            let prev_kv = if self.want_previous > 0 { PrevKv::Wanted } else { PrevKv::Omitted };
            if let Err(mpsc::error::TrySendError::Full(task) | mpsc::error::TrySendError::Closed(task)) =
                self.readers[reader].try_send(Task { group, prev_kv })
            {
                // Only at the end: an idle reader has room.
                self.hub.put_back(task.group);
                return;
            }
        }
    }

    /// Does what a session asks for.
    pub(super) fn answer(&mut self, stream: StreamId, request: Request) {
        match request {
            Request::Open(outbound) => {
                self.table.streams.insert(stream, Stream::new(outbound));
            }
            Request::Create(create) => self.create(stream, create),
            Request::Deny(why) => {
                let (revision, content) = (self.visible.borrow().revision, Content::Refused(why));
                self.table.push(stream, Response { watch_id: NO_WATCH, revision, content });
            }
            Request::Cancel(watch_id) => self.cancel(stream, watch_id),
            Request::Progress => {
                let visible = self.visible.borrow().revision;
                let Some(found) = self.table.streams.get_mut(&stream) else { return };
                match &mut found.progress_asked {
                    Some(asked) => asked.newest = visible,
                    asked @ None => {
                        *asked = Some(Asked { first: visible, newest: visible });
                        self.asked.push(stream);
                    }
                }
            }
            Request::HalfClose => {
                if let Some(found) = self.table.streams.get(&stream)
                    && found.ids.values().all(Option::is_none)
                {
                    found.outbound.end();
                }
            }
            Request::Close => self.close(stream),
        }
    }

    fn create(&mut self, stream: StreamId, create: Create) {
        let visible = self.visible.borrow().revision;
        let Some(found) = self.table.streams.get_mut(&stream) else { return };
        if let Some(refused) = refusal(found, &create) {
            let content = Content::Refused(refused_watch(refused));
            self.table.push(stream, Response { watch_id: NO_WATCH, revision: visible, content });
            return;
        }
        let watch_id = if create.watch_id == 0 { found.free_id() } else { create.watch_id };
        let (from, start) = match u64::try_from(create.start_revision) {
            Ok(0) => (visible.next(), Revision::NONE),
            Ok(start) if self.faults.is_planted(Fault::WatchResumeOffByOne) => {
                (Revision::new(start).next(), Revision::new(start))
            }
            Ok(start) => (Revision::new(start), Revision::new(start)),
            Err(_) => unreachable!("a negative start was refused"),
        };
        let Create { range, filter, prev_kv, .. } = create;
        let id = self.hub.add(WatcherSpec { stream, range, from, filter, prev_kv });
        found.ids.insert(watch_id, Some(id));
        let watcher = Watcher {
            outbound: Arc::clone(&found.outbound),
            watch_id,
            start,
            prev_kv,
            takes_fragments: create.fragment,
            is_notified: create.progress_notify,
            has_moved: false,
            last: None,
        };
        if create.progress_notify && found.progress_due.is_none() {
            let due = self.clock.now().after(jittered(self.progress_interval, self.rng.next_u64()));
            found.progress_due = Some(due);
            self.due.insert((due, stream));
        }
        self.want_previous += usize::from(prev_kv == PrevKv::Wanted);
        self.table.watchers.insert(id, watcher);
        if from <= self.hub.head() {
            self.table.begins_behind(id, from);
        }
        self.table.push(stream, Response { watch_id, revision: visible, content: Content::Created });
    }

    fn cancel(&mut self, stream: StreamId, watch_id: i64) {
        let Some(found) = self.table.streams.get_mut(&stream) else { return };
        let Some(id) = found.ids.remove(&watch_id) else { return };
        if let Some(id) = id {
            self.hub.remove(id);
            let watcher = self.table.watchers.remove(&id);
            self.want_previous -= usize::from(watcher.is_some_and(|w| w.prev_kv == PrevKv::Wanted));
        }
        let revision = self.visible.borrow().revision;
        self.table.push(stream, Response { watch_id, revision, content: Content::Canceled });
    }

    fn close(&mut self, stream: StreamId) {
        let Some(found) = self.table.streams.remove(&stream) else { return };
        self.hub.remove_stream(stream);
        for id in found.ids.values().flatten() {
            let watcher = self.table.watchers.remove(id);
            self.want_previous -= usize::from(watcher.is_some_and(|w| w.prev_kv == PrevKv::Wanted));
        }
        if let Some(due) = found.progress_due {
            self.due.remove(&(due, stream));
        }
        self.asked.retain(|asked| *asked != stream);
        self.inbox.stream_closed();
    }

    /// Answers those who asked for progress, once the head has passed what was visible when they did: all before it is
    /// queued then. Says nothing to streams that are not in sync, as etcd does; they ask again.
    fn answer_progress(&mut self) {
        let head = self.hub.head();
        for stream in std::mem::take(&mut self.asked) {
            let Some(found) = self.table.streams.get_mut(&stream) else { continue };
            let Some(asked) = found.progress_asked.take() else { continue };
            if asked.newest > head {
                let first = if asked.first > head { asked.first } else { asked.newest };
                found.progress_asked = Some(Asked { first, ..asked });
                self.asked.push(stream);
            }
            if asked.first > head {
                continue;
            }
            let watchers = found.ids.values().flatten().filter_map(|id| self.table.watchers.get(id));
            let starts_later = watchers.into_iter().any(|watcher| watcher.start > head);
            let is_early = self.faults.is_planted(Fault::ProgressBeforeEvents);
            if let Some(revision) = self.hub.stream_progress(stream).or(is_early.then_some(head))
                && !starts_later
            {
                self.table
                    .push(stream, Response { watch_id: NO_WATCH, revision, content: Content::Progress });
            }
        }
    }

    /// Tells watchers that want it, and have got nothing since the last time, how far they have seen.
    fn notify_idle(&mut self) {
        let now = self.clock.now();
        while let Some(&(due, stream)) = self.due.first() {
            if due > now {
                return;
            }
            self.due.remove(&(due, stream));
            let next = now.after(jittered(self.progress_interval, self.rng.next_u64()));
            let Some(found) = self.table.streams.get_mut(&stream) else { continue };
            found.progress_due = Some(next);
            self.due.insert((next, stream));
            let outbound = Arc::clone(&found.outbound);
            let ids: Vec<_> = found.ids.values().flatten().copied().collect();
            for id in ids {
                let Some(watcher) = self.table.watchers.get_mut(&id) else { continue };
                let (was_idle, watch_id) = (!watcher.has_moved, watcher.watch_id);
                watcher.has_moved = false;
                if !watcher.is_notified || !was_idle || !outbound.has_room() {
                    continue;
                }
                if let Some(revision) = self.hub.watcher_progress(id).filter(|at| *at >= watcher.start) {
                    self.table.push(stream, Response { watch_id, revision, content: Content::Progress });
                }
            }
        }
    }

    /// When the loop has something to do by itself.
    fn alarm(&self) -> Option<Monotonic> {
        let due = self.due.first().map(|(due, _)| *due);
        [due, self.paused_until, self.gathering_until].into_iter().flatten().min()
    }

    /// Leaves figures for whoever asks. The watchers that are behind are looked through only from time to time.
    fn note(&mut self) {
        let figures = self.hub.figures();
        let hub = &self.hub;
        if figures.lagging == 0 {
            self.oldest_missed = None;
            self.table.all_caught_up();
        } else {
            let now = self.clock.now();
            if now >= self.look_again {
                self.look_again = now.after(limits::WATCH_LOOK);
                self.oldest_missed = self.table.oldest_missed(|id| hub.watcher_progress(id).is_none());
            }
        }
        *self.seen.lock() = Seen {
            figures,
            streams: self.table.streams.len(),
            head: hub.head(),
            oldest_missed: self.oldest_missed,
        };
    }
}

fn refusal(stream: &Stream, create: &Create) -> Option<RefusedWatch> {
    if matches!(&create.range.end, RangeEnd::Before(end) if create.range.start >= *end) {
        Some(RefusedWatch::EmptyRange)
    } else if create.start_revision < 0 {
        Some(RefusedWatch::NegativeStart)
    } else if create.watch_id != 0 && stream.ids.contains_key(&create.watch_id) {
        Some(RefusedWatch::DuplicateId)
    } else if stream.ids.len() >= limits::WATCHERS_PER_STREAM_MAX {
        Some(RefusedWatch::TooMany)
    } else {
        None
    }
}

/// An interval with up to a tenth more, so that streams opened together are not told together.
fn jittered(interval: Duration, random: u64) -> Duration {
    let tenth = u64::try_from(interval.as_nanos() / 10).unwrap_or(u64::MAX).max(1);
    interval.saturating_add(Duration::from_nanos(random % tenth))
}
