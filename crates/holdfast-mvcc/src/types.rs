//! The vocabulary: revisions, records, key ranges, key-value pairs.

use bytes::Bytes;

/// Store-wide logical time. A fresh store is at revision 1; 0 means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(u64);

/// The identity of one record: the revision of the change and its place within the revision, from 0.
/// Ordered as the changes happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RecordId {
    /// The revision of the change.
    pub revision: Revision,
    /// Its place within the revision, in the order of execution.
    pub sub: u32,
}

/// A lease's id; never 0 (0 on the wire means "no lease", here `None`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// The term of a leader, as the log counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// The index of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

/// The log entry that a command came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId {
    /// The term of the leader that wrote it.
    pub term: Term,
    /// Its place in the log; no two commands share one.
    pub index: LogIndex,
}

/// One lease, and not another that has its id before or after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRef {
    /// Its id.
    pub id: LeaseId,
    /// The entry that granted it.
    pub granted_at: LogIndex,
}

/// What is known of a lease beside its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The entry that granted it: what tells it from others with its id, as an id may be granted again.
    pub granted_at: LogIndex,
    /// The time to live that was granted, in seconds.
    pub granted_seconds: u64,
    /// What a leader has left of it at the last checkpoint, in seconds, below what was granted; `None` means all. The
    /// next leader counts from here.
    pub remaining_seconds: Option<u64>,
}

/// What a command did to a lease. Not part of the history: only the last change of a lease counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseChange {
    /// Which one.
    pub id: LeaseId,
    /// What it is now; `None` when it is gone.
    pub lease: Option<Lease>,
}

/// A member's id; never 0, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl Revision {
    /// The revision of a fresh store.
    pub const FRESH: Self = Self(1);
    /// No revision.
    pub const NONE: Self = Self(0);
    /// Above every revision: the index keeps 48 bits of one.
    pub const END: Self = Self(1 << 48);

    /// The revision with this number.
    pub const fn new(revision: u64) -> Self {
        Self(revision)
    }
    /// The number of this revision.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl RecordId {
    /// The `sub`-th record of `revision`.
    pub const fn new(revision: Revision, sub: u32) -> Self {
        Self { revision, sub }
    }
}

/// Where a key range ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// The range is the one key it starts with.
    Single,
    /// Up to, not including, this key. Empty when it is not above the start.
    Before(Bytes),
    /// Every key from the start on.
    Unbounded,
}

/// A range of keys, by unsigned bytewise order; the start is inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key of the range.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

/// One change of one key, as it is stored and as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub id: RecordId,
    /// The key it changed.
    pub key: Bytes,
    /// What it did.
    pub change: Change,
}

/// What a record did to its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key was created or replaced.
    Put(PutRecord),
    /// The key was deleted.
    Delete,
}

/// The state of a key after a put. Its mod revision is the record's revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutRecord {
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// Puts since then; 1 on creation.
    pub version: u64,
    /// The lease the key is attached to.
    pub lease: Option<LeaseId>,
    /// The value; may be empty.
    pub value: Bytes,
}

/// A key as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// The revision of the latest put.
    pub mod_revision: Revision,
    /// Puts since creation; 1 on creation.
    pub version: u64,
    /// The lease the key is attached to.
    pub lease: Option<LeaseId>,
    /// The value; empty also when only keys were asked for.
    pub value: Bytes,
}
