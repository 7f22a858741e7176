//! The streams: their watchers, whether they are blocked, and their cursors.
//!
//! A *cursor* is a watcher that reads history; it stands at the first revision it needs. The cursors of a stream lie in
//! two orders: by revision, and by their *turn*, which counts up whenever a cursor was served. The streams that are
//! not blocked and have cursors are *ready*, and lie in the same two orders by their first:
//!
//! ```text
//!   ready, by revision:  (4, stream 2)  (9, stream 1)         a blocked stream is in neither:
//!   ready, by turn:      (17, stream 1)  (20, stream 2)       its cursors, however many, cost nothing
//! ```
//! Blocking and unblocking a stream, however many cursors it has, moves one entry.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_mvcc::types::Revision;

use crate::types::{GroupMax, HashIds, StreamId, WatcherId};

/// One in so many groups starts with the cursor that was not served for the longest time, the others with the one that
/// is the furthest behind. So new watchers of the far past cannot hold up the others for ever.
const GROUPS_PER_LONGEST_WAITING: u64 = 4;

/// When a cursor was last served; each is given once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

/// A watcher that reads history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// The first revision it needs.
    pub(crate) next: Revision,
    pub(crate) watcher: WatcherId,
    pub(crate) turn: Turn,
}

/// All streams with at least one watcher. The hash map is only looked up.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    streams: HashMap<StreamId, Stream, HashIds>,
    /// By the first revision one of its cursors needs.
    ready_by_revision: BTreeSet<(Revision, StreamId)>,
    /// By the turn of the cursor that waits longest.
    ready_by_turn: BTreeSet<(Turn, StreamId)>,
    newest_turn: u64,
    groups: u64,
    blocked: usize,
}

#[derive(Debug, Default)]
struct Stream {
    watchers: BTreeSet<WatcherId>,
    /// How many of the watchers are at the head.
    synced: usize,
    is_blocked: bool,
    by_revision: BTreeMap<(Revision, WatcherId), Turn>,
    by_turn: BTreeMap<Turn, (Revision, WatcherId)>,
    /// Its entries among the ready streams.
    ready: Option<(Revision, Turn)>,
}

impl Stream {
    fn take(&mut self, cursor: Cursor) {
        let by_revision = self.by_revision.remove(&(cursor.next, cursor.watcher));
        let by_turn = self.by_turn.remove(&cursor.turn);
        assert_eq!(by_revision, Some(cursor.turn), "a cursor is where its watcher says");
        assert_eq!(by_turn, Some((cursor.next, cursor.watcher)), "a cursor is in both orders");
    }

    /// Its first cursors of these revisions.
    fn cursors(&self, from: Revision, through: Revision) -> impl Iterator<Item = Cursor> {
        let all = self.by_revision.range((from, WatcherId::FIRST)..);
        all.take_while(move |((next, _), _)| *next <= through).map(|(&(next, watcher), &turn)| Cursor {
            next,
            watcher,
            turn,
        })
    }
}

impl Streams {
    /// Adds a watcher, which is not at the head yet.
    pub(crate) fn join(&mut self, stream: StreamId, watcher: WatcherId) {
        self.streams.entry(stream).or_default().watchers.insert(watcher);
    }

    /// Removes a watcher that is neither a cursor nor at the head any more. The last one takes the stream with it.
    pub(crate) fn leave(&mut self, stream: StreamId, watcher: WatcherId) {
        let left = self.get_mut(stream);
        left.watchers.remove(&watcher);
        if !left.watchers.is_empty() {
            return;
        }
        assert_eq!(left.synced, 0, "a stream without watchers has no synced ones");
        assert!(left.by_revision.is_empty(), "a stream without watchers has no cursors");
        let is_blocked = left.is_blocked;
        self.streams.remove(&stream);
        self.blocked -= usize::from(is_blocked);
    }

    /// The watchers of a stream, ascending.
    pub(crate) fn watchers(&self, stream: StreamId) -> Vec<WatcherId> {
        self.streams.get(&stream).map_or_else(Vec::new, |stream| stream.watchers.iter().copied().collect())
    }

    /// One of its watchers reached the head.
    pub(crate) fn enter_head(&mut self, stream: StreamId) {
        self.get_mut(stream).synced += 1;
    }

    /// One of its watchers left the head.
    pub(crate) fn leave_head(&mut self, stream: StreamId) {
        self.get_mut(stream).synced -= 1;
    }

    /// All its watchers are at the head, or there are none.
    pub(crate) fn is_at_head(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.synced == stream.watchers.len())
    }

    /// Its queue is full, and it was not said since that there is room.
    pub(crate) fn is_blocked(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.is_blocked)
    }

    /// Its queue is full.
    pub(crate) fn block(&mut self, stream: StreamId) {
        let full = self.get_mut(stream);
        assert!(!full.is_blocked, "a blocked stream is offered nothing");
        full.is_blocked = true;
        self.blocked += 1;
        self.relist(stream);
    }

    /// Its queue has room. Without a word when it is not blocked, or not there.
    pub(crate) fn unblock(&mut self, stream: StreamId) {
        if self.is_blocked(stream) {
            self.get_mut(stream).is_blocked = false;
            self.blocked -= 1;
            self.relist(stream);
        }
    }

    /// The turn behind all others.
    pub(crate) fn new_turn(&mut self) -> Turn {
        self.newest_turn += 1;
        Turn(self.newest_turn)
    }

    /// Adds a cursor.
    pub(crate) fn push(&mut self, stream: StreamId, cursor: Cursor) {
        let owner = self.get_mut(stream);
        owner.by_revision.insert((cursor.next, cursor.watcher), cursor.turn);
        owner.by_turn.insert(cursor.turn, (cursor.next, cursor.watcher));
        self.relist(stream);
    }

    /// Removes a cursor.
    pub(crate) fn take(&mut self, stream: StreamId, cursor: Cursor) {
        self.get_mut(stream).take(cursor);
        self.relist(stream);
    }

    /// Takes out the next cursors that should read history together, the furthest behind first; none when no stream is
    /// ready.
    pub(crate) fn take_group(&mut self, max: GroupMax) -> Vec<Cursor> {
        let Some((anchor, stream)) = self.anchor() else { return Vec::new() };
        self.groups += 1;
        let through = Revision::new(anchor.next.get().saturating_add(max.revisions.saturating_sub(1)));
        let mut group = vec![anchor];
        self.take(stream, anchor);
        let near = self.ready_by_revision.range((anchor.next, StreamId::FIRST)..);
        let near = near.take_while(|(first, _)| *first <= through).map(|(_, stream)| *stream);
        let near: Vec<_> = near.filter(|other| *other != stream).take(max.watchers).collect();
        for stream in std::iter::once(stream).chain(near) {
            let room = max.watchers.saturating_sub(group.len());
            let owner = self.get_mut(stream);
            let taken: Vec<_> = owner.cursors(anchor.next, through).take(room).collect();
            taken.iter().for_each(|cursor| owner.take(*cursor));
            self.relist(stream);
            group.extend(taken);
        }
        group.sort_unstable();
        group
    }

    /// The cursor to begin the next group with, and its stream.
    fn anchor(&self) -> Option<(Cursor, StreamId)> {
        if (self.groups + 1).is_multiple_of(GROUPS_PER_LONGEST_WAITING) {
            let (turn, stream) = *self.ready_by_turn.first()?;
            let (next, watcher) = self.streams[&stream].by_turn[&turn];
            return Some((Cursor { next, watcher, turn }, stream));
        }
        let (next, stream) = *self.ready_by_revision.first()?;
        let cursor = self.streams[&stream].cursors(next, next).next();
        Some((cursor.expect("a ready stream has a cursor where it says"), stream))
    }

    /// How many streams there are.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// How many of them are blocked.
    pub(crate) fn blocked(&self) -> usize {
        self.blocked
    }

    fn get_mut(&mut self, stream: StreamId) -> &mut Stream {
        self.streams.get_mut(&stream).expect("a watcher's stream is there")
    }

    /// Brings a stream's entries among the ready ones up to date.
    fn relist(&mut self, id: StreamId) {
        let stream = self.streams.get_mut(&id).expect("a watcher's stream is there");
        let first = stream.by_revision.keys().next().map(|(revision, _)| *revision);
        let ready = first.zip(stream.by_turn.keys().next().copied()).filter(|_| !stream.is_blocked);
        let before = std::mem::replace(&mut stream.ready, ready);
        if before == ready {
            return;
        }
        if let Some((revision, turn)) = before {
            self.ready_by_revision.remove(&(revision, id));
            self.ready_by_turn.remove(&(turn, id));
        }
        if let Some((revision, turn)) = ready {
            self.ready_by_revision.insert((revision, id));
            self.ready_by_turn.insert((turn, id));
        }
    }
}
