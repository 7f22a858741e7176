//! The streams and their watchers as clients see them: ids, options, what each was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use holdfast_env::Monotonic;
use holdfast_mvcc::types::Revision;
use holdfast_watch::{Delivery, HashIds, PrevKv, StreamId, Taken, WatcherId};

use super::encoded::Encoded;
use super::outbound::{Delivered, Outbound, Place};
use crate::codec::watch::Response;
use crate::metrics::watch::WatchCounts;

/// A watcher, beside what the hub knows of it.
pub(super) struct Watcher {
    pub(super) outbound: Arc<Outbound>,
    /// Its id on the wire, unique on its stream.
    pub(super) watch_id: i64,
    /// The first revision its client named; none when it takes what comes.
    pub(super) start: Revision,
    pub(super) prev_kv: PrevKv,
    pub(super) takes_fragments: bool,
    pub(super) is_notified: bool,
    /// True when it was sent something since the last look at it for progress.
    pub(super) has_moved: bool,
    /// Where its newest events were queued.
    pub(super) last: Option<Place>,
}

/// How far progress has to be before a client that asked for it is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// As far as was visible when it asked, for the first time since the last answer ...
    pub(super) first: Revision,
    /// ... and for the last time. When that is further, another answer follows.
    pub(super) newest: Revision,
}

/// A stream.
pub(super) struct Stream {
    pub(super) outbound: Arc<Outbound>,
    /// The watchers by their ids on the wire. `None`: compaction took the watcher; its id stays used until the client
    /// cancels it, as in etcd.
    pub(super) ids: BTreeMap<i64, Option<WatcherId>>,
    /// Where the search for a free id goes on.
    next_id: i64,
    /// When its idle watchers are told of progress next; none while nobody wants that.
    pub(super) progress_due: Option<Monotonic>,
    /// The client asked for progress.
    pub(super) progress_asked: Option<Asked>,
}

impl Stream {
    pub(super) fn new(outbound: Arc<Outbound>) -> Self {
        Self { outbound, ids: BTreeMap::new(), next_id: 0, progress_due: None, progress_asked: None }
    }

    /// The next id that is free, counting up from 0.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.ids.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        id
    }
}

/// All streams and watchers. Owned by the dispatch loop.
pub(super) struct Table {
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) watchers: HashMap<WatcherId, Watcher, HashIds>,
    /// Streams with something new for their transport.
    woken: Vec<Arc<Outbound>>,
    /// Watchers that are behind, and the first revision each of them has not got. Some may have caught up silently,
    /// because what they missed was nothing to them.
    laggards: HashMap<WatcherId, Revision, HashIds>,
    /// Streams that were refused something though they have room: what was before a change has to be read, which the
    /// readers of history do.
    pub(super) cold: Vec<StreamId>,
    counts: WatchCounts,
}

impl Table {
    pub(super) fn new(counts: WatchCounts) -> Self {
        Self {
            streams: BTreeMap::new(),
            watchers: HashMap::default(),
            woken: Vec::new(),
            laggards: HashMap::default(),
            cold: Vec::new(),
            counts,
        }
    }

    /// Queues a delivery on its stream. The header's revision is that of the last change, or `head` if that is beyond it.
    pub(super) fn deliver(
        &mut self,
        delivery: Delivery<'_>,
        encoded: &mut Encoded<'_>,
        head: Revision,
    ) -> Taken {
        let (first, last) = encoded.span(delivery.records);
        let taken = self.queue(delivery, encoded, last.max(head));
        if taken == Taken::Full {
            self.laggards.insert(delivery.watcher, first);
        } else if !self.laggards.is_empty()
            && let Some(missed) = self.laggards.get_mut(&delivery.watcher)
        {
            *missed = last.next();
        }
        taken
    }

    fn queue(&mut self, delivery: Delivery<'_>, encoded: &mut Encoded<'_>, revision: Revision) -> Taken {
        let Some(watcher) = self.watchers.get_mut(&delivery.watcher) else {
            // It is being removed.
            return Taken::Taken;
        };
        let Ok(bytes) = encoded.select(delivery.prev_kv, delivery.records) else {
            self.cold.push(delivery.stream);
            return Taken::Full;
        };
        let events = u32::try_from(delivery.records.len()).unwrap_or(u32::MAX);
        let delivered = Delivered {
            watch_id: watcher.watch_id,
            revision,
            encoded: bytes,
            events,
            fragments: watcher.takes_fragments,
        };
        match watcher.outbound.deliver(delivered, watcher.last) {
            Ok(place) => {
                watcher.last = Some(place);
                watcher.has_moved = true;
                self.counts.events.inc_by(u64::from(events));
                if watcher.outbound.is_first_since_wake() {
                    self.woken.push(Arc::clone(&watcher.outbound));
                }
                Taken::Taken
            }
            Err(full) => full,
        }
    }

    /// Queues a response that is not about changes.
    pub(super) fn push(&mut self, stream: StreamId, response: Response) {
        if let Some(found) = self.streams.get(&stream) {
            found.outbound.push(response);
            if found.outbound.is_first_since_wake() {
                self.woken.push(Arc::clone(&found.outbound));
            }
        }
    }

    /// Notes that a watcher begins in the past.
    pub(super) fn begins_behind(&mut self, watcher: WatcherId, from: Revision) {
        self.laggards.insert(watcher, from);
    }

    /// The first revision that some watcher has not got; none when all have got everything. Forgets those who caught up.
    pub(super) fn oldest_missed(&mut self, is_behind: impl Fn(WatcherId) -> bool) -> Option<Revision> {
        let watchers = &self.watchers;
        self.laggards.retain(|id, _| watchers.contains_key(id) && is_behind(*id));
        self.laggards.values().min().copied()
    }

    /// Nobody is behind.
    pub(super) fn all_caught_up(&mut self) {
        self.laggards.clear();
    }

    /// Wakes each stream that got something, once.
    pub(super) fn wake(&mut self) {
        for outbound in self.woken.drain(..) {
            outbound.wake();
        }
    }
}
