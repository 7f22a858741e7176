//! Judges what watchers were sent against the store's history. The laws, each with doctored records that it has to
//! refuse in `watch/tests.rs`:
//!
//! | law | what it says |
//! | --- | --- |
//! | ordered | events come by revision, within a revision as they were made; a header is never behind its events |
//! | unique | an event comes once |
//! | reliable | between two events of a session nothing is left out; in the end everything has come |
//! | atomic | the events of a revision come together, in one response |
//! | resumable | a session that starts at R begins with the first event at or after R; nothing is lost in between |
//! | progress | progress at R: all up to R came before it, nothing up to R comes after it; none before the start |
//! | start | nothing older than the start comes, whether that lies in the past or in the future |
//! | faithful | each event is one of history's, in the range, passes the filters, and shows the key as it was |
//! | prev_kv | the pair before the change comes when asked for, and is right; only compaction excuses its absence |
//! | cancel | only a compaction beyond the next revision cancels unasked; nothing comes for a watcher that is gone |
//!
//! History comes from the writers alone ([`history`]); no watcher is a witness for another one.

pub mod history;
mod laws;
pub mod record;

use std::fmt;

use history::History;
use laws::Case;
use record::{Compaction, KeyTable, Life, Stray, Wish};

/// A law of watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table of the module says what each of them is")]
pub enum Law {
    Ordered,
    Unique,
    Reliable,
    Atomic,
    Resumable,
    Progress,
    Start,
    Faithful,
    PrevKv,
    Cancel,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordered => "ordered",
            Self::Unique => "unique",
            Self::Reliable => "reliable",
            Self::Atomic => "atomic",
            Self::Resumable => "resumable",
            Self::Progress => "progress",
            Self::Start => "start",
            Self::Faithful => "faithful",
            Self::PrevKv => "prev_kv",
            Self::Cancel => "cancel",
        })
    }
}

/// A breach of a law.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// An event after a later one.
    OutOfOrder { revision: i64, after: i64 },
    /// A header's revision below an event of its response.
    HeaderBehind { header: i64, revision: i64 },
    /// An event that came before.
    Repeated { revision: i64, key: String },
    /// Events left out between others.
    Gap { missing: i64, before: i64 },
    /// The watcher had every chance and never got there.
    Unfinished { missing: i64, next: i64 },
    /// Events of one revision in more than one response.
    Split { revision: i64 },
    /// Some events of a revision, not all.
    Torn { revision: i64, got: usize, of: usize },
    /// Events left out between the start and the first event.
    NotResumed { start: i64, missing: i64, first: i64 },
    /// The client did not take up where it ended: the record is not complete.
    BrokenRecord { next: i64, asked: i64 },
    /// Progress before an event that it covers.
    TooEarlyProgress { progress: i64, missing: i64 },
    /// An event after progress that covers it.
    EventAfterProgress { progress: i64, revision: i64 },
    /// Progress below what a future start allows.
    ProgressBeforeStart { progress: i64, start: i64 },
    /// An event older than the start.
    BeforeStart { revision: i64, start: i64 },
    /// Events for a watcher whose creation was not answered.
    NotCreated,
    /// An event that history does not know.
    Phantom { revision: i64, key: String },
    /// An event outside the range, or one that the filters should have stopped.
    Unasked { revision: i64, key: String },
    /// An event with another value, version or revision than history's.
    Altered { revision: i64, key: String },
    /// The wrong pair before the change.
    WrongPrevious { revision: i64, key: String },
    /// No pair before the change, and no compaction that would excuse it.
    NoPrevious { revision: i64, key: String },
    /// A pair before the change that nobody asked for, or that did not exist.
    UnaskedPrevious { revision: i64, key: String },
    /// Canceled for a compaction that nobody asked for.
    NoSuchCompaction { compact_revision: i64 },
    /// Canceled for a compaction that does not reach the next revision.
    NeedlessCancel { compact_revision: i64, next: i64 },
    /// Canceled by the server for no reason.
    CanceledUnasked,
    /// A response for a watcher that the stream does not have.
    Stray { watch_id: i64 },
}

impl Breach {
    /// The law that was broken.
    pub fn law(&self) -> Law {
        match self {
            Self::OutOfOrder { .. } | Self::HeaderBehind { .. } => Law::Ordered,
            Self::Repeated { .. } => Law::Unique,
            Self::Gap { .. } | Self::Unfinished { .. } => Law::Reliable,
            Self::Split { .. } | Self::Torn { .. } => Law::Atomic,
            Self::NotResumed { .. } | Self::BrokenRecord { .. } => Law::Resumable,
            Self::TooEarlyProgress { .. }
            | Self::EventAfterProgress { .. }
            | Self::ProgressBeforeStart { .. } => Law::Progress,
            Self::BeforeStart { .. } | Self::NotCreated => Law::Start,
            Self::Phantom { .. } | Self::Unasked { .. } | Self::Altered { .. } => Law::Faithful,
            Self::WrongPrevious { .. } | Self::NoPrevious { .. } | Self::UnaskedPrevious { .. } => {
                Law::PrevKv
            }
            Self::NoSuchCompaction { .. }
            | Self::NeedlessCancel { .. }
            | Self::CanceledUnasked
            | Self::Stray { .. } => Law::Cancel,
        }
    }
}

/// A breach and where it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The watcher, by its place; of a stray response `None`.
    pub watcher: Option<usize>,
    /// Which of its sessions.
    pub session: usize,
    /// The member that served it.
    pub member: usize,
    /// What is wrong.
    pub breach: Breach,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, member, breach, .. } = self;
        let who = self.watcher.map_or_else(String::new, |watcher| format!("watcher {watcher}, "));
        write!(f, "{}: {who}session {session} on member {member}: {breach:?}", breach.law())
    }
}

/// All that is recorded of a run.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The measure.
    pub history: &'a History,
    /// The names of keys.
    pub keys: &'a KeyTable,
    /// The watchers. Each had the time to get everything up to the newest revision.
    pub lives: &'a [Life],
    /// Responses that fit no watcher.
    pub strays: &'a [Stray],
    /// All compactions that were asked for, whether or not they were acknowledged.
    pub compactions: &'a [Compaction],
}

/// Everything that is wrong with a run.
pub fn judge(record: &Record<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = record.strays.iter().map(stray).collect();
    for (watcher, life) in record.lives.iter().enumerate() {
        let expected = expected(record.history, record.keys, &life.wish);
        for (number, session) in life.sessions.iter().enumerate() {
            let case = Case::new(record, life, session, &expected);
            let breaches = laws::of_session(&case);
            let member = session.member;
            findings.extend(breaches.into_iter().map(|breach| Finding {
                watcher: Some(watcher),
                session: number,
                member,
                breach,
            }));
        }
        for (number, breach) in laws::of_life(record, life, &expected) {
            let member = life.sessions.get(number).map_or(0, |session| session.member);
            findings.push(Finding { watcher: Some(watcher), session: number, member, breach });
        }
    }
    findings
}

/// The last revision at which something happens that a watcher with this wish is sent; 0 for none.
pub fn last_wanted(history: &History, keys: &KeyTable, wish: &Wish) -> i64 {
    expected(history, keys, wish).last().map_or(0, |place| history.changes()[*place].revision)
}

/// Places in history of all changes that such a watcher wants, its start aside.
fn expected(history: &History, keys: &KeyTable, wish: &Wish) -> Vec<usize> {
    let covered: Vec<bool> = keys.keys().iter().map(|key| wish.covers(key)).collect();
    let changes = history.changes().iter().enumerate();
    let wanted = changes.filter(|(_, change)| covered[change.key.place()] && wish.wants(change.kind));
    wanted.map(|(place, _)| place).collect()
}

fn stray(stray: &Stray) -> Finding {
    let Stray { member, watch_id } = *stray;
    Finding { watcher: None, session: 0, member, breach: Breach::Stray { watch_id } }
}

#[cfg(test)]
mod tests;
