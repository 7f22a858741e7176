//! Positions in the Raft log, shared by the log, the storage and the raft crates.

/// A Raft term. 0 means "before any election".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(u64);

/// The index of a log entry. The first entry of a cluster has index 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(u64);

/// The identity of a log entry: two logs that hold the same id hold the same entry. Ordered by term, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    term: Term,
    index: LogIndex,
}

impl Term {
    /// The term with this number.
    pub const fn new(term: u64) -> Self {
        Self(term)
    }
    /// The number of this term.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl LogIndex {
    /// The position with this number.
    pub const fn new(index: u64) -> Self {
        Self(index)
    }
    /// The number of this position.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The position right behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LogId {
    /// The entry that the leader of `term` wrote at `index`.
    pub const fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
    /// The term of the leader that wrote the entry.
    pub const fn term(self) -> Term {
        self.term
    }
    /// The position of the entry.
    pub const fn index(self) -> LogIndex {
        self.index
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for LogIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}
