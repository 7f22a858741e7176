//! What a run recorded. The judgement on it is in [`judge`](super::judge).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::Failpoint;
use holdfast_mvcc::types::{KeyRange, Record, Revision};
use holdfast_storage::EventSink;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::lease_laws::HeldLease;
use super::{PointCount, Report};

pub(super) use super::lease_laws::LeasePlace;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    what: String,
}

impl Violation {
    /// A broken promise, in words.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// Everything clients, members and the nemesis did. Cheap to clone; all clones write to one record.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub(super) shared: Arc<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
pub(super) struct Recorded {
    start: Option<Instant>,
    trace: Vec<String>,
    pub(super) report: Report,
    points: BTreeMap<Failpoint, PointCount>,
    /// What members published, by revision; all must agree.
    pub(super) published: BTreeMap<u64, Vec<Record>>,
    /// When the first member published it.
    pub(super) published_at: BTreeMap<u64, Instant>,
    /// Leases whose grant was acknowledged.
    pub(super) leases: Vec<HeldLease>,
    /// The highest revision that any finished operation has told a client.
    known: u64,
    /// The highest revision that anybody asked to compact at.
    compacted_max: u64,
    pub(super) writes: Vec<Write>,
    pub(super) reads: Vec<Read>,
    pub(super) violation: Option<Violation>,
}

/// A write and what its client was told. Values are unique in a run.
#[derive(Debug, Clone)]
pub struct Write {
    /// The keys that it puts, each with a value that is unique in the run.
    pub puts: Vec<(Bytes, Bytes)>,
    /// The range that it deletes.
    pub delete: Option<KeyRange>,
    /// How many keys its client was told that it deleted.
    pub deleted: u64,
    /// The highest revision known to anyone when the write began.
    pub known_before: u64,
    /// What the client was told.
    pub told: Told,
}

/// What a client was told of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It happened at this revision; if it changed nothing, this is the newest one before it.
    Done(u64),
    /// It did not happen and never will.
    Refused,
    /// It may have happened, or still happen.
    Unknown,
}

/// A key with what it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// When it was changed last.
    pub mod_revision: u64,
}

/// A read and its answer.
#[derive(Debug, Clone)]
pub struct Read {
    /// The keys read.
    pub range: KeyRange,
    /// For a linearizable read, the highest revision known to anyone when it began; else 0.
    pub known_before: u64,
    /// The revision that it shows.
    pub revision: u64,
    /// What was there, ascending.
    pub found: Vec<Found>,
}

/// Of a value that may be long, what tells it from all others.
fn head(value: &Bytes) -> Bytes {
    value.slice(..value.len().min(12))
}

impl History {
    /// The highest revision that any finished operation has told a client.
    pub fn known(&self) -> u64 {
        self.shared.lock().known
    }

    /// Adds to the trace.
    pub fn trace(&self, event: impl Debug) {
        let mut recorded = self.shared.lock();
        let now = Instant::now();
        let start = *recorded.start.get_or_insert(now);
        let at = now.duration_since(start).as_micros();
        recorded.trace.push(format!("{at} {event:?}"));
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.shared.lock().report);
    }

    /// Changes the counts of a failpoint.
    pub fn count_point(&self, at: Failpoint, change: impl FnOnce(&mut PointCount)) {
        change(self.shared.lock().points.entry(at).or_default());
    }

    /// The counts of the failpoints that were reached.
    pub fn points(&self) -> BTreeMap<Failpoint, PointCount> {
        self.shared.lock().points.clone()
    }

    /// Notes a broken promise; the first one counts.
    pub fn violate(&self, what: impl Into<String>) {
        self.shared.lock().violation.get_or_insert(Violation::new(what));
    }

    /// The first broken promise that was noted so far.
    pub fn violation(&self) -> Option<Violation> {
        self.shared.lock().violation.clone()
    }

    /// Notes that somebody is about to ask for a compaction.
    pub fn compacting(&self, revision: u64) {
        let mut recorded = self.shared.lock();
        recorded.compacted_max = recorded.compacted_max.max(revision);
    }

    /// Records that a member called everything below a revision compacted.
    pub fn told_compacted(&self, compact_revision: u64) {
        let asked = self.shared.lock().compacted_max;
        if compact_revision > asked {
            self.violate(format!(
                "a member says that {compact_revision} is compacted, asked was up to {asked}"
            ));
        }
    }

    /// Records a finished write.
    pub fn wrote(&self, write: Write) {
        let puts: Vec<_> = write.puts.iter().map(|(key, value)| (key, head(value), value.len())).collect();
        self.trace((puts, &write.delete, write.deleted, write.told));
        let mut recorded = self.shared.lock();
        match write.told {
            Told::Done(revision) => {
                recorded.report.acknowledged += 1;
                recorded.known = recorded.known.max(revision);
            }
            Told::Refused => recorded.report.refused += 1,
            Told::Unknown => recorded.report.unknown += 1,
        }
        recorded.writes.push(write);
    }

    /// Records an answered read.
    pub fn read(&self, read: Read) {
        let found: Vec<_> = read.found.iter().map(|found| (&found.key, found.mod_revision)).collect();
        self.trace((&read.range, read.revision, found));
        let mut recorded = self.shared.lock();
        recorded.report.reads += 1;
        recorded.known = recorded.known.max(read.revision);
        recorded.reads.push(read);
    }

    /// Checks a page of changes that a watcher was given: from one revision through another, both inclusive.
    pub fn watched(&self, from: u64, through: u64, records: &[Record]) {
        let mut recorded = self.shared.lock();
        let mut by_revision: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        let ascends = records.is_sorted_by(|a, b| a.id < b.id);
        for record in records {
            by_revision.entry(record.id.revision.get()).or_default().push(record.clone());
        }
        let wrong = (from..=through)
            .find(|revision| match recorded.published.get(revision) {
                Some(published) => by_revision.get(revision) != Some(published),
                None => true,
            })
            .or_else(|| by_revision.keys().copied().find(|revision| !(from..=through).contains(revision)));
        recorded.report.watched += by_revision.len() as u64;
        if let Some(revision) = wrong {
            let (given, was) = (by_revision.get(&revision), recorded.published.get(&revision));
            let what = format!(
                "a watcher of {from}..={through} got for {revision} {given:?}, published was {was:?}"
            );
            recorded.violation.get_or_insert(Violation::new(what));
        } else if !ascends {
            recorded.violation.get_or_insert(Violation::new("a watcher got events out of order"));
        }
    }

    /// What happened, line by line, with the simulated time in microseconds.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lock().trace.clone()
    }

    /// The counts and the trace's hash.
    pub fn report(&self) -> Report {
        let recorded = self.shared.lock();
        let revision = recorded.published.keys().next_back().copied().unwrap_or_default();
        let mut trace_hash = DefaultHasher::new();
        recorded.trace.hash(&mut trace_hash);
        Report { trace_hash: trace_hash.finish(), revision, ..recorded.report }
    }
}

/// One life of one member, as the history hears it: whole revisions, each behind the one before, equal to what all
/// others publish.
#[derive(Debug)]
pub(super) struct LifeSink {
    history: History,
    /// The last revision published; `None` until it is known where the life begins.
    last: Mutex<Option<u64>>,
}

impl LifeSink {
    /// A sink for a new life.
    pub(super) fn new(history: History) -> Self {
        Self { history, last: Mutex::new(None) }
    }

    /// The life begins behind this revision.
    pub(super) fn begin(&self, revision: u64) {
        self.last.lock().get_or_insert(revision);
    }
}

impl EventSink for LifeSink {
    fn publish(&self, records: &[&Record], _revision: Revision) {
        let mut recorded = self.history.shared.lock();
        let mut last = self.last.lock();
        let mut by_revision: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_revision.entry(record.id.revision.get()).or_default().push(Record::clone(record));
        }
        for (revision, records) in by_revision {
            let before = last.replace(revision);
            if before.is_some_and(|before| revision != before + 1) {
                let what = format!("revision {revision} was published behind {before:?} in one life");
                recorded.violation.get_or_insert(Violation::new(what));
            }
            recorded.published_at.entry(revision).or_insert_with(Instant::now);
            let first = recorded.published.entry(revision).or_insert_with(|| records.clone());
            if *first != records {
                let what = format!("members disagree on revision {revision}: {first:?} and {records:?}");
                recorded.violation.get_or_insert(Violation::new(what));
            }
        }
    }

    fn replaced(&self, revision: Revision) {
        self.history.count(|report| report.installs += 1);
        let before = self.last.lock().replace(revision.get());
        if before.is_some_and(|before| revision.get() < before) {
            self.history.violate(format!("an install went from revision {before:?} back to {revision:?}"));
        }
    }
}
