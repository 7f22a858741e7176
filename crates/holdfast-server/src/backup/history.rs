//! The keys of a file, judged before anything is made of them.
//!
//! The first of two walks: it remembers of each key what the next record has to follow, which of its records a compaction
//! leaves, and whether its lease is there. What it takes is of the order of a member's key index.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use holdfast_mvcc::types::{Change, LeaseId, PutRecord, Record, RecordId, Revision};
use holdfast_proto::mvccpb;

use super::file::{Database, FileError};
use super::schema::{RecordKey, bucket, key_value};

/// What is known of one key, as of the last record seen.
#[derive(Debug, Clone, Copy)]
struct Past {
    last: RecordId,
    /// Create revision, version and lease; `None` when it is deleted.
    alive: Option<(Revision, u64, Option<LeaseId>)>,
    /// The put that the key shows at the compact revision.
    at_compaction: Option<RecordId>,
}

/// The history of a file, judged.
#[derive(Debug)]
pub struct History {
    /// The newest revision.
    pub revision: Revision,
    /// The lowest readable one.
    pub compact_revision: Option<Revision>,
    /// The puts below the compact revision, or at it, that are kept.
    kept: HashSet<RecordId>,
    /// The puts whose key is alive and whose lease is not there.
    orphans: HashSet<RecordId>,
}

/// What a caller wants of the revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bump {
    /// The newest revision is to be so much higher.
    pub by: u64,
}

/// Where raised revisions end: room for as many more.
const BUMPED_END: Revision = Revision::new(Revision::END.get() / 2);

impl History {
    /// Goes through the keys of a file that has these leases.
    ///
    /// # Errors
    /// The first thing that no history can contain.
    pub fn judge(
        database: &Database,
        compact_revision: Option<Revision>,
        leases: &HashSet<LeaseId>,
        bump: Option<Bump>,
    ) -> Result<Self, FileError> {
        let newest = newest(database)?.max(compact_revision.unwrap_or(Revision::FRESH)).max(Revision::FRESH);
        let (revision, compact_revision) = match bump {
            None => (newest, compact_revision),
            Some(Bump { by }) => {
                let bumped = newest.get().checked_add(by).map(Revision::new).filter(|at| *at < BUMPED_END);
                let too_high =
                    || database.impossible(format!("revision {newest:?} and {by} are too high together"));
                let bumped = bumped.ok_or_else(too_high)?;
                (bumped, Some(bumped))
            }
        };
        let mut pasts: HashMap<Bytes, Past> = HashMap::new();
        each_record(database, |record| {
            let is_compacted = Some(record.id.revision) <= compact_revision;
            let before = pasts.get(&record.key).copied();
            check(&record, before.filter(|_| !is_compacted))
                .map_err(|what| database.impossible(format!("record {:?}: {what}", record.id)))?;
            let alive = match &record.change {
                Change::Put(put) => Some((put.create_revision, put.version, put.lease)),
                Change::Delete => None,
            };
            let at_compaction = match before {
                _ if is_compacted => alive.map(|_| record.id),
                before => before.and_then(|before| before.at_compaction),
            };
            // Not a slice of the message, which would keep its value in memory.
            let key = Bytes::copy_from_slice(&record.key);
            pasts.insert(key, Past { last: record.id, alive, at_compaction });
            Ok(())
        })?;
        let is_orphan = |past: &&Past| {
            past.alive.is_some_and(|(_, _, lease)| lease.is_some_and(|lease| !leases.contains(&lease)))
        };
        let orphans = pasts.values().filter(is_orphan).map(|past| past.last).collect();
        let kept = pasts.values().filter_map(|past| past.at_compaction).collect();
        Ok(Self { revision, compact_revision, kept, orphans })
    }

    /// How many keys were attached to a lease that is not there: they live on without one.
    pub fn orphans(&self) -> usize {
        self.orphans.len()
    }

    /// Goes through what is kept, ascending; the second walk.
    ///
    /// # Errors
    /// What `each` says.
    pub fn each<E: From<FileError>>(
        &self,
        database: &Database,
        mut each: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        each_record(database, |mut record| {
            if !self.is_kept(&record) {
                return Ok(());
            }
            if let Change::Put(put) = &mut record.change
                && self.orphans.contains(&record.id)
            {
                put.lease = None;
            }
            each(record)
        })
    }

    fn is_kept(&self, record: &Record) -> bool {
        match self.compact_revision {
            Some(compacted) if record.id.revision <= compacted => match record.change {
                Change::Put(_) => self.kept.contains(&record.id),
                Change::Delete => record.id.revision == compacted,
            },
            _ => true,
        }
    }
}

/// The last revision of a file; 0 when it has none.
fn newest(database: &Database) -> Result<Revision, FileError> {
    let damaged = |error| database.damaged(error);
    let Some(keys) = database.reader.bucket(bucket::KEY).map_err(damaged)? else { return Ok(Revision::NONE) };
    let Some((last, _)) = database.reader.last(&keys).map_err(damaged)? else { return Ok(Revision::NONE) };
    let last = RecordKey::decode(&last).ok_or_else(|| database.impossible("a key is no revision"))?;
    Ok(last.id.revision)
}

fn each_record<E: From<FileError>>(
    database: &Database,
    mut each: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    database.each(bucket::KEY, |key, value| {
        let at = RecordKey::decode(key).ok_or_else(|| database.impossible("a key is no revision"))?;
        let kv =
            key_value(value).map_err(|error| database.impossible(format!("record {:?}: {error}", at.id)))?;
        // etcdutl marks a revision that it has bumped to with an empty put.
        if kv.key.is_empty() {
            return Ok(());
        }
        let record = record(at, kv);
        each(record.map_err(|what| database.impossible(format!("record {:?}: {what}", at.id)))?)
    })
}

fn record(at: RecordKey, kv: mvccpb::KeyValue) -> Result<Record, &'static str> {
    let number = |number: i64| u64::try_from(number).map_err(|_| "a number is below zero");
    if at.is_delete {
        return Ok(Record { id: at.id, key: kv.key, change: Change::Delete });
    }
    if number(kv.mod_revision)? != at.id.revision.get() {
        return Err("it says that it is of another revision");
    }
    let put = PutRecord {
        create_revision: Revision::new(number(kv.create_revision)?),
        version: number(kv.version)?,
        lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
        value: kv.value,
    };
    Ok(Record { id: at.id, key: kv.key, change: Change::Put(put) })
}

/// Whether a record can follow what is known of its key.
fn check(record: &Record, before: Option<Past>) -> Result<(), &'static str> {
    let Change::Put(put) = &record.change else {
        return match before {
            Some(Past { alive: None, .. }) => Err("a deleted key is deleted again"),
            _ => Ok(()),
        };
    };
    let revision = record.id.revision;
    if put.create_revision > revision || put.create_revision == Revision::NONE || put.version == 0 {
        return Err("its create revision or version is impossible");
    }
    if put.version >= Revision::END.get() / 2 {
        return Err("its version is too high");
    }
    match before.map(|before| before.alive) {
        Some(Some((create_revision, version, _)))
            if put.create_revision != create_revision || put.version != version + 1 =>
        {
            Err("it does not follow the put before it")
        }
        Some(None) if put.create_revision != revision || put.version != 1 => {
            Err("a put behind a delete does not create its key")
        }
        _ => Ok(()),
    }
}
