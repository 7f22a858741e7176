//! The judgement on a run.
//!
//! The revision is the judge's total order. What members published, replayed in that order, is the model: every
//! acknowledged write is in it at the revision it was told, what was refused is not, every read equals it, and no
//! operation sees a revision below one that was known before it began. Together that is strict serializability.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_mvcc::types::{Change, KeyRange, RangeEnd, Record, Revision};

use super::history::{Found, History, Read, Recorded, Told, Violation, Write};

/// A key's state in the model.
#[derive(Debug, Clone)]
struct Held {
    value: Bytes,
    mod_revision: u64,
    create_revision: u64,
    version: u64,
}

type Model = BTreeMap<Bytes, Held>;

impl History {
    /// Judges everything recorded.
    pub fn judge(&self) -> Result<(), Violation> {
        let recorded = self.shared.lock();
        if let Some(violation) = &recorded.violation {
            return Err(violation.clone());
        }
        recorded.judge_gaps()?;
        let placed = recorded.place_values()?;
        for write in &recorded.writes {
            recorded.judge_write(write, &placed)?;
        }
        recorded.judge_leases()?;
        recorded.replay()
    }
}

fn contains(range: &KeyRange, key: &Bytes) -> bool {
    match &range.end {
        RangeEnd::Single => *key == range.start,
        RangeEnd::Before(end) => *key >= range.start && key < end,
        RangeEnd::Unbounded => *key >= range.start,
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
    fn place_values(&self) -> Result<BTreeMap<Bytes, u64>, Violation> {
        let mut placed = BTreeMap::new();
        for (revision, records) in &self.published {
            for record in records {
                if let Change::Put(put) = &record.change
                    && let Some(before) = placed.insert(put.value.clone(), *revision)
                {
                    return Err(Violation::new(format!(
                        "the value of {:?} was applied at {before} and at {revision}",
                        record.key
                    )));
                }
            }
        }
        Ok(placed)
    }

    fn judge_write(&self, write: &Write, placed: &BTreeMap<Bytes, u64>) -> Result<(), Violation> {
        let shown = (write.puts.iter().map(|(key, _)| key).collect::<Vec<_>>(), &write.delete, write.told);
        let wrong = |what: &str, at: Option<u64>| {
            Err(Violation::new(format!(
                "{what}: {shown:?}, at {at:?}, known before was {}",
                write.known_before
            )))
        };
        let mut places = write.puts.iter().map(|(_, value)| placed.get(value).copied());
        let at = places.next().flatten();
        if places.any(|other| other != at) {
            return wrong("a transaction is not in one revision", at);
        }
        match (write.told, at) {
            (Told::Done(told), Some(at)) if told != at => return wrong("a write is elsewhere", Some(at)),
            (Told::Done(_), None) if !write.puts.is_empty() => return wrong("a write is lost", None),
            (Told::Refused, Some(at)) => return wrong("a refused write is there", Some(at)),
            (Told::Done(_) | Told::Unknown, Some(at)) if at <= write.known_before => {
                return wrong("a write is before what was known when it began", Some(at));
            }
            _ => {}
        }
        if let (Told::Done(told), Some(range)) = (write.told, &write.delete) {
            let records = self.published.get(&told).map_or(&[][..], Vec::as_slice);
            let is_its = |record: &&Record| record.change == Change::Delete && contains(range, &record.key);
            let is_changed = write.deleted > 0 || !write.puts.is_empty();
            if is_changed && records.iter().filter(is_its).count() as u64 != write.deleted {
                return wrong("the deletes are not what was told", Some(told));
            }
            if is_changed && told <= write.known_before {
                return wrong("a delete is before what was known when it began", Some(told));
            }
        }
        Ok(())
    }

    /// Goes through the revisions with a model, and holds records, reads and empty deletes against it.
    fn replay(&self) -> Result<(), Violation> {
        let mut reads: Vec<&Read> = self.reads.iter().collect();
        reads.sort_by_key(|read| read.revision);
        let mut deletes: Vec<(u64, &Write)> = self.writes.iter().filter_map(told_delete).collect();
        deletes.sort_by_key(|(revision, _)| *revision);
        let (mut reads, mut deletes) = (reads.into_iter().peekable(), deletes.into_iter().peekable());
        let mut model = Model::new();
        let last = self.published.keys().next_back().copied().unwrap_or_default();
        for revision in 0..=last {
            for record in self.published.get(&revision).into_iter().flatten() {
                apply(&mut model, record)?;
            }
            while let Some(read) = reads.next_if(|read| read.revision == revision) {
                judge_read(&model, read)?;
            }
            // A delete leaves nothing behind; one that changed nothing had nothing to delete.
            while let Some((_, write)) = deletes.next_if(|(at, _)| *at == revision) {
                let left = write.delete.as_ref().and_then(|range| {
                    model
                        .keys()
                        .find(|key| contains(range, key) && !write.puts.iter().any(|(k, _)| k == *key))
                });
                if let Some(left) = left {
                    return Err(Violation::new(format!(
                        "{left:?} is left at {revision} by {:?}",
                        write.delete
                    )));
                }
            }
        }
        match (reads.next(), deletes.next()) {
            (None, None) => Ok(()),
            (read, _) => {
                Err(Violation::new(format!("told was a revision that never was, after {last}: {read:?}")))
            }
        }
    }
}

fn told_delete(write: &Write) -> Option<(u64, &Write)> {
    match write.told {
        Told::Done(revision) if write.delete.is_some() => Some((revision, write)),
        _ => None,
    }
}

fn apply(model: &mut Model, record: &Record) -> Result<(), Violation> {
    let before = model.remove(&record.key);
    let revision = record.id.revision.get();
    let wrong =
        |what: &str| Err(Violation::new(format!("{what}: {record:?}, the key was {before:?} before")));
    match &record.change {
        Change::Delete if before.is_none() => wrong("a key that was not there is deleted"),
        Change::Delete => Ok(()),
        Change::Put(put) => {
            let version = put.version;
            let (create_revision, expected) = match &before {
                Some(before) => (before.create_revision, before.version + 1),
                None => (revision, 1),
            };
            if version != expected || put.create_revision.get() != create_revision {
                return wrong("a put has the wrong version or create revision");
            }
            let held = Held { value: put.value.clone(), mod_revision: revision, create_revision, version };
            model.insert(record.key.clone(), held);
            Ok(())
        }
    }
}

fn judge_read(model: &Model, read: &Read) -> Result<(), Violation> {
    if read.revision < read.known_before {
        return Err(Violation::new(format!(
            "a linearizable read is stale: it shows {}, known was {}, of {:?}",
            read.revision, read.known_before, read.range
        )));
    }
    let expected = model.iter().filter(|(key, _)| contains(&read.range, key));
    let expected: Vec<Found> = expected
        .map(|(key, held)| Found {
            key: key.clone(),
            value: held.value.clone(),
            mod_revision: held.mod_revision,
        })
        .collect();
    if expected == read.found {
        return Ok(());
    }
    let short = |found: &[Found]| found.iter().map(|f| (f.key.clone(), f.mod_revision)).collect::<Vec<_>>();
    Err(Violation::new(format!(
        "a read of {:?} at {} gave {:?}, there was {:?}",
        read.range,
        read.revision,
        short(&read.found),
        short(&expected)
    )))
}

#[cfg(test)]
mod tests;
