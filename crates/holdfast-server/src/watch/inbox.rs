//! What the dispatch loop is told by others that must not wait: changes from the storage, room from the streams.

use std::collections::VecDeque;

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
    /// Open streams. While there are none, changes are not kept. Under the same lock as the changes: a stream that opens
    /// finds either a change or that it was left out.
    streams: usize,
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
        /// Their size, about.
        bytes: usize,
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
        Self { content: Mutex::default(), arrived: Notify::new(), bytes_max, events, counts }
    }

    /// From now on changes are kept: a stream has opened.
    pub(super) fn stream_opened(&self) {
        self.content.lock().streams += 1;
    }

    /// One stream less.
    pub(super) fn stream_closed(&self) {
        self.content.lock().streams -= 1;
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
    fn publish(&self, records: &[&Record], revision: Revision) {
        self.events.count(records);
        let mut content = self.content.lock();
        if content.streams == 0 {
            // Nobody waits for it.
            Self::skip(&mut content, revision);
            return;
        }
        let bytes = records.iter().map(|record| cost(record)).sum::<usize>();
        if content.bytes > 0 && content.bytes + bytes > self.bytes_max {
            self.counts.overruns.inc();
            Self::skip(&mut content, revision);
        } else {
            content.bytes += bytes;
            let records = records.iter().copied().cloned().collect();
            content.news.push_back(News::Changes { records, revision, bytes });
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_mvcc::types::{PutRecord, RecordId};

    use super::*;
    use crate::metrics::{Fixed, Metrics};

    fn inbox(bytes_max: usize) -> (Inbox, Metrics) {
        let metrics = Metrics::new(&Fixed { member_id: 1, quota_bytes: 1 });
        (Inbox::new(bytes_max, metrics.events.clone(), metrics.watch.clone()), metrics)
    }

    fn put(revision: u64, bytes: usize) -> Vec<Record> {
        let change = Change::Put(PutRecord {
            create_revision: Revision::new(revision),
            version: 1,
            lease: None,
            value: Bytes::from(vec![0; bytes]),
        });
        let id = RecordId::new(Revision::new(revision), 0);
        vec![Record { id, key: Bytes::from_static(b"k"), change }]
    }

    fn revision(number: u64) -> Revision {
        Revision::new(number)
    }

    fn publish(inbox: &Inbox, records: &[Record], number: u64) {
        inbox.publish(&records.iter().collect::<Vec<_>>(), revision(number));
    }

    #[test]
    fn without_streams_nothing_is_kept() {
        let (inbox, metrics) = inbox(10_000);
        publish(&inbox, &put(2, 10), 2);
        publish(&inbox, &put(3, 10), 3);
        assert_eq!(inbox.take().news, [News::Skipped(revision(3))]);
        inbox.stream_opened();
        publish(&inbox, &put(4, 10), 4);
        let bytes = RECORD_BYTES + 11;
        let kept = News::Changes { records: put(4, 10), revision: revision(4), bytes };
        assert_eq!(inbox.take().news, [kept]);
        inbox.stream_closed();
        publish(&inbox, &put(5, 10), 5);
        assert_eq!(inbox.take().news, [News::Skipped(revision(5))]);
        assert_eq!((metrics.events.puts.get(), metrics.watch.overruns.get()), (4, 0), "counted all the same");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let (inbox, metrics) = inbox(1_000);
        inbox.stream_opened();
        publish(&inbox, &put(2, 5_000), 2);
        assert_eq!(inbox.take().news.len(), 1, "a single batch always fits");
        publish(&inbox, &put(3, 600), 3);
        publish(&inbox, &put(4, 600), 4);
        publish(&inbox, &put(5, 600), 5);
        let news = inbox.take().news;
        assert_eq!(news[0], News::Skipped(revision(4)), "what waited is left out, too");
        assert!(matches!(&news[1], News::Changes { revision, .. } if revision.get() == 5), "{news:?}");
        assert_eq!((news.len(), metrics.watch.overruns.get()), (2, 1));
    }

    #[test]
    fn an_installed_snapshot_replaces_what_waits() {
        let (inbox, metrics) = inbox(10_000);
        inbox.stream_opened();
        publish(&inbox, &put(2, 10), 2);
        inbox.replaced(revision(90));
        publish(&inbox, &put(91, 10), 91);
        let news = inbox.take().news;
        assert_eq!(news[0], News::Skipped(revision(90)));
        assert_eq!((news.len(), metrics.watch.overruns.get()), (2, 0), "no overrun");
    }
}
