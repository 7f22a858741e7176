//! What the dispatch loop is told by others that must not wait: changes from the storage, room from the streams.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_mvcc::types::{Change, Record, Revision};
use holdfast_storage::EventSink;
use holdfast_watch::StreamId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::events::EventCounts;
use crate::metrics::watch::WatchCounts;

/// What a record costs here beside key and value, about.
const RECORD_BYTES: usize = 128;

/// The storage's side of the dispatch loop. Bounded in bytes: when dispatch falls behind by more, what waits is dropped,
/// and dispatch is told to go on behind it; the watchers read what they missed from history.
pub struct Inbox {
    content: Mutex<Content>,
    arrived: Notify,
    /// Open streams, counted by their sessions. While there are none, changes are not kept.
    streams: AtomicUsize,
    bytes_max: usize,
    events: EventCounts,
    counts: WatchCounts,
}

/// Written by storage and streams, emptied by the dispatch loop.
#[derive(Debug, Default)]
struct Content {
    news: VecDeque<News>,
    bytes: usize,
    rooms: Vec<StreamId>,
}

/// What happened to the state, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Changes of whole revisions, the last of them `revision`.
    Changes {
        /// Ascending.
        records: Vec<Record>,
        /// How far they reach.
        revision: Revision,
    },
    /// Changes up to this revision are not told.
    Skipped(Revision),
}

/// All that arrived since the last look.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// In order.
    pub(super) news: VecDeque<News>,
    /// Streams that have room again.
    pub(super) rooms: Vec<StreamId>,
}

impl Inbox {
    /// An empty inbox.
    pub fn new(bytes_max: usize, events: EventCounts, counts: WatchCounts) -> Self {
        Self {
            content: Mutex::default(),
            arrived: Notify::new(),
            streams: AtomicUsize::new(0),
            bytes_max,
            events,
            counts,
        }
    }

    /// From now on changes are kept: a stream has opened.
    pub(super) fn stream_opened(&self) {
        self.streams.fetch_add(1, Ordering::SeqCst);
    }

    /// One stream less.
    pub(super) fn stream_closed(&self) {
        self.streams.fetch_sub(1, Ordering::SeqCst);
    }

    /// A stream that refused a delivery has room again.
    pub(super) fn has_room(&self, stream: StreamId) {
        self.content.lock().rooms.push(stream);
        self.arrived.notify_one();
    }

    /// Takes all that is there.
    pub(super) fn take(&self) -> Arrived {
        let mut content = self.content.lock();
        content.bytes = 0;
        Arrived { news: std::mem::take(&mut content.news), rooms: std::mem::take(&mut content.rooms) }
    }

    /// Completes when something arrived since the last time. Cancel-safe.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Leaves out everything up to `revision`.
    fn skip(content: &mut Content, revision: Revision) {
        content.bytes = 0;
        content.news.clear();
        content.news.push_back(News::Skipped(revision));
    }
}

impl EventSink for Inbox {
    fn publish(&self, records: Vec<Record>, revision: Revision) {
        self.events.count(&records);
        if self.streams.load(Ordering::SeqCst) == 0 {
            // Nobody waits for it; a stream that opens now looks here before it does anything.
            Self::skip(&mut self.content.lock(), revision);
            return;
        }
        let bytes = records.iter().map(cost).sum::<usize>();
        let mut content = self.content.lock();
        if content.bytes > 0 && content.bytes + bytes > self.bytes_max {
            self.counts.overruns.inc();
            Self::skip(&mut content, revision);
        } else {
            content.bytes += bytes;
            content.news.push_back(News::Changes { records, revision });
        }
        drop(content);
        self.arrived.notify_one();
    }

    fn replaced(&self, revision: Revision) {
        Self::skip(&mut self.content.lock(), revision);
        self.arrived.notify_one();
    }
}

fn cost(record: &Record) -> usize {
    let value = match &record.change {
        Change::Put(put) => put.value.len(),
        Change::Delete => 0,
    };
    RECORD_BYTES + record.key.len() + value
}
