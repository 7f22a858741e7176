//! The vocabulary: ids, what a watcher asks for, what it is handed.

use std::hash::{BuildHasherDefault, Hasher};

use holdfast_mvcc::types::{KeyRange, Revision};

/// A watcher of a hub. Ascending in the order of creation, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(u64);

/// A watch stream: the watchers of one stream share one queue. Chosen by the caller, who must not use one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u64);

/// For hash maps by [`WatcherId`] or [`StreamId`]: a lookup comes with each event that is handed out.
pub type HashIds = BuildHasherDefault<IdHasher>;

/// Spreads numbers that count up. The ids are ours, so nobody can choose them to collide.
#[derive(Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio: neighbours end up far apart, also in the upper bits, which the table uses too.
        self.0 = (self.0.rotate_left(32) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

/// What a watcher asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatcherSpec {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// The keys it watches. An empty range is allowed and never matches.
    pub range: KeyRange,
    /// The first revision it wants; may lie in the past or in the future.
    pub from: Revision,
    /// Which changes it wants.
    pub filter: Filter,
    /// Whether it wants the states before the changes; only handed on.
    pub prev_kv: PrevKv,
}

/// Which sorts of changes a watcher wants. Wanting none of them is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Puts are wanted.
    pub puts: bool,
    /// Deletes are wanted.
    pub deletes: bool,
}

/// Whether a watcher wants the state of the key before each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrevKv {
    /// It does not.
    Omitted,
    /// It does.
    Wanted,
}

/// What a stream's queue answers to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It took all of it.
    Taken,
    /// It took nothing of it. The caller owes an [`unblock`](crate::Hub::unblock) as soon as there is room.
    Full,
}

/// Records for one watcher: all it wants of the revisions it is handed, and whole revisions only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Who gets them.
    pub watcher: WatcherId,
    /// Its stream.
    pub stream: StreamId,
    /// Whether it wants the states before the changes.
    pub prev_kv: PrevKv,
    /// Indices into the records that were handed to the hub, ascending, at least one.
    pub records: &'a [usize],
}

/// Watchers that read history together; ends in `replay`, `put_back` or `compacted`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its watchers get nothing until the group is handed back"]
pub struct Group {
    /// The first revision that one of them still needs: where to read from.
    pub from: Revision,
    /// The furthest behind first.
    pub(crate) watchers: Vec<WatcherId>,
}

/// How many there are of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// All watchers.
    pub watchers: usize,
    /// Watchers that have been handed all there is, and those that wait for a future revision.
    pub synced: usize,
    /// Watchers that read history by cursor: new ones with a past revision, and lagging ones.
    pub lagging: usize,
    /// Streams with at least one watcher.
    pub streams: usize,
    /// Streams whose queue is full, as far as the hub was told.
    pub blocked: usize,
}

/// How much of history one group covers at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMax {
    /// Its watchers; at least one is taken.
    pub watchers: usize,
    /// From the first revision one of them needs to the first revision another one needs; at least one.
    pub revisions: u64,
}

/// What the hub looked at since it was made: what it costs, in counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Places in the index that records were compared with.
    pub index_nodes: u64,
    /// Watchers that were looked at because a record matched their keys.
    pub matched_watchers: u64,
    /// Watchers that changed between reading history, being synced and waiting for a future revision, or were put back.
    pub moves: u64,
    /// Cursors that were taken into a group.
    pub grouped: u64,
}

impl GroupMax {
    /// As many watchers as one read of history may well serve; as many revisions as one read usually gives.
    pub const DEFAULT: Self = Self { watchers: 1024, revisions: 1000 };
}

impl Default for GroupMax {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl WatcherId {
    /// Below or at every watcher.
    pub(crate) const FIRST: Self = Self(0);

    /// The watcher with this number.
    pub(crate) const fn new(id: u64) -> Self {
        Self(id)
    }
    /// The number of this watcher.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl StreamId {
    /// Below or at every stream.
    pub(crate) const FIRST: Self = Self(0);

    /// The stream with this number.
    pub const fn new(id: u64) -> Self {
        Self(id)
    }
    /// The number of this stream.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Filter {
    /// Every change.
    pub const ALL: Self = Self { puts: true, deletes: true };
}

impl Group {
    /// How many watchers it holds.
    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }
}
