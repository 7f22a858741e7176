//! What a run recorded, and the judgement on it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_mvcc::types::{Change, Record, Revision};
use holdfast_storage::EventSink;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::Report;

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
    shared: Arc<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
struct Recorded {
    start: Option<Instant>,
    trace: Vec<String>,
    report: Report,
    /// What members published, by revision; all must agree.
    published: BTreeMap<u64, Vec<Record>>,
    /// The highest revision that any finished operation has told a client.
    known: u64,
    writes: Vec<Write>,
    reads: Vec<Read>,
    violation: Option<Violation>,
}

/// A write and what its client was told. Values are unique in a run.
#[derive(Debug, Clone)]
pub struct Write {
    /// The key written.
    pub key: Bytes,
    /// The value written, unique in the run.
    pub value: Bytes,
    /// The highest revision known to anyone when the write began.
    pub known_before: u64,
    /// What the client was told.
    pub told: Told,
}

/// What a client was told of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It happened at this revision.
    Done(u64),
    /// It did not happen and never will.
    Refused,
    /// It may have happened, or still happen.
    Unknown,
}

/// A linearizable read and its answer.
#[derive(Debug, Clone)]
pub struct Read {
    /// The key read.
    pub key: Bytes,
    /// The highest revision known to anyone when the read began.
    pub known_before: u64,
    /// The store's revision in the answer.
    pub revision: u64,
    /// The value and mod revision, when the key existed.
    pub found: Option<(Bytes, u64)>,
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

    /// Records a finished write.
    pub fn wrote(&self, write: Write) {
        self.trace((&write.key, &write.value, write.told));
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
        self.trace((&read.key, read.revision, &read.found));
        let mut recorded = self.shared.lock();
        recorded.report.reads += 1;
        recorded.known = recorded.known.max(read.revision);
        recorded.reads.push(read);
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

    /// Judges everything recorded.
    pub fn judge(&self) -> Result<(), Violation> {
        let recorded = self.shared.lock();
        if let Some(violation) = &recorded.violation {
            return Err(violation.clone());
        }
        recorded.judge_gaps()?;
        let placed = recorded.place_values();
        for write in &recorded.writes {
            judge_write(write, &placed)?;
        }
        recorded.reads.iter().try_for_each(|read| recorded.judge_read(read))
    }
}

fn judge_write(write: &Write, placed: &BTreeMap<Bytes, u64>) -> Result<(), Violation> {
    let at = placed.get(&write.value).copied();
    match (write.told, at) {
        (Told::Done(told), Some(at)) if told != at => {
            Err(Violation::new(format!("a write told revision {told} is at {at}: {write:?}")))
        }
        (Told::Done(told), None) => {
            Err(Violation::new(format!("the write of revision {told} is lost: {write:?}")))
        }
        (Told::Refused, Some(at)) => {
            Err(Violation::new(format!("a refused write is at revision {at}: {write:?}")))
        }
        (Told::Done(_) | Told::Unknown, Some(at)) if at <= write.known_before => {
            Err(Violation::new(format!("a write is at {at}, before what was known when it began: {write:?}")))
        }
        _ => Ok(()),
    }
}

impl Recorded {
    fn judge_gaps(&self) -> Result<(), Violation> {
        let gap = (Revision::FRESH.next().get()..)
            .zip(self.published.keys())
            .find(|(expected, is)| expected != *is);
        gap.map_or(Ok(()), |(expected, is)| {
            Err(Violation::new(format!("revision {expected} was never published, {is} was")))
        })
    }

    /// Where each value was written. A value that stands twice was applied twice.
    fn place_values(&self) -> BTreeMap<Bytes, u64> {
        let mut placed = BTreeMap::new();
        for (revision, records) in &self.published {
            for record in records {
                if let Change::Put(put) = &record.change {
                    let before = placed.insert(put.value.clone(), *revision);
                    assert!(
                        before.is_none(),
                        "value {:?} was applied at {before:?} and at {revision}",
                        put.value
                    );
                }
            }
        }
        placed
    }

    fn judge_read(&self, read: &Read) -> Result<(), Violation> {
        if read.revision < read.known_before {
            return Err(Violation::new(format!("a linearizable read is stale: {read:?}")));
        }
        let expected = self.published.range(..=read.revision).rev().find_map(|(revision, records)| {
            let record = records.iter().rev().find(|record| record.key == read.key)?;
            Some(match &record.change {
                Change::Put(put) => Some((put.value.clone(), *revision)),
                Change::Delete => None,
            })
        });
        if expected.flatten() == read.found {
            Ok(())
        } else {
            Err(Violation::new(format!("a read does not match its revision: {read:?}")))
        }
    }
}

/// One life of one member, as the history hears it: revisions ascend within a life and agree with all others.
#[derive(Debug)]
pub(super) struct LifeSink {
    history: History,
    last: Mutex<u64>,
}

impl LifeSink {
    /// A sink for a new life.
    pub(super) fn new(history: History) -> Self {
        Self { history, last: Mutex::new(0) }
    }
}

impl EventSink for LifeSink {
    fn publish(&self, records: Vec<Record>, _revision: Revision) {
        let mut recorded = self.history.shared.lock();
        let mut last = self.last.lock();
        let mut by_revision: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_revision.entry(record.id.revision.get()).or_default().push(record);
        }
        for (revision, records) in by_revision {
            if revision <= *last {
                let what = format!("revision {revision} was published after {last} in one life");
                recorded.violation.get_or_insert(Violation::new(what));
            }
            *last = revision;
            let first = recorded.published.entry(revision).or_insert_with(|| records.clone());
            if *first != records {
                let what = format!("members disagree on revision {revision}: {first:?} and {records:?}");
                recorded.violation.get_or_insert(Violation::new(what));
            }
        }
    }

    fn replaced(&self, revision: Revision) {
        *self.last.lock() = revision.get();
    }
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::types::{PutRecord, RecordId};

    use super::*;

    fn put(revision: u64, key: &str, value: &str) -> Record {
        let put = PutRecord {
            create_revision: Revision::new(revision),
            version: 1,
            lease: None,
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        let id = RecordId::new(Revision::new(revision), 0);
        Record { id, key: Bytes::copy_from_slice(key.as_bytes()), change: Change::Put(put) }
    }

    fn write(value: &'static str, known_before: u64, told: Told) -> Write {
        Write {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(value.as_bytes()),
            known_before,
            told,
        }
    }

    fn history_of(records: &[Record]) -> History {
        let history = History::default();
        for record in records {
            LifeSink::new(history.clone()).publish(vec![record.clone()], record.id.revision);
        }
        history
    }

    fn read_of(known_before: u64, revision: u64, found: Option<(&'static str, u64)>) -> Read {
        let found = found.map(|(value, at)| (Bytes::from_static(value.as_bytes()), at));
        Read { key: Bytes::from_static(b"k"), known_before, revision, found }
    }

    #[tokio::test]
    async fn a_sound_history_passes() {
        let history = history_of(&[put(2, "k", "a"), put(3, "k", "b")]);
        history.wrote(write("a", 0, Told::Done(2)));
        history.wrote(write("b", 2, Told::Unknown));
        history.wrote(write("c", 2, Told::Refused));
        history.read(read_of(2, 2, Some(("a", 2))));
        history.read(read_of(3, 3, Some(("b", 3))));
        assert_eq!(history.judge(), Ok(()));
    }

    #[tokio::test]
    async fn each_broken_promise_is_found() {
        let records = [put(2, "k", "a"), put(3, "k", "b")];
        let lost = history_of(&records);
        lost.wrote(write("c", 0, Told::Done(4)));
        let moved = history_of(&records);
        moved.wrote(write("a", 0, Told::Done(3)));
        let refused = history_of(&records);
        refused.wrote(write("b", 0, Told::Refused));
        let early = history_of(&records);
        early.wrote(write("b", 3, Told::Unknown));
        let stale = history_of(&records);
        stale.read(read_of(3, 2, Some(("a", 2))));
        let wrong = history_of(&records);
        wrong.read(read_of(2, 3, Some(("a", 2))));
        let gap = history_of(&[put(2, "k", "a"), put(4, "k", "b")]);
        let split = history_of(&[put(2, "k", "a"), put(2, "k", "b")]);
        for (name, history) in [
            ("lost", lost),
            ("moved", moved),
            ("refused", refused),
            ("early", early),
            ("stale", stale),
            ("wrong", wrong),
            ("gap", gap),
            ("split", split),
        ] {
            assert!(history.judge().is_err(), "the judge does not see: {name}");
        }
    }
}
