//! The stable store: runs of records, the head and the applied position, over an engine.
//!
//! # Layout
//! One tree; the first byte of a key is its kind.
//!
//! ```text
//! 'a' "applied"                                  position in the log and membership (codec)
//! 'a' "head"                                     the state beside the records (codec)
//! 'a' "scrubbed"                                 how far the scrub has come (codec)
//! 'a' "auth"                                     which content of users and roles counts (codec); none: there are none
//! 'u' number u64 BE, piece u32 BE                a piece of such a content (`auth`)
//! 'm' revision u64 BE, sub u32 BE                meta pack of the run that starts with this record
//! 'v' revision u64 BE, sub u32 BE                its value pack
//! 'l' lease id u64 BE, the sign bit turned        a lease (`lease`)
//! 'p' kind (1), revision, sub, piece u32 BE      a piece of a pack that is too long for one value
//! ```
//! A stored pack is `0 | pack`; or, where that saves an eighth, `2 | length of the pack u32 LE | the pack in LZ4`; or,
//! when longer than a piece, `1 | pieces u32 LE` with the bytes in its pieces.
//!
//! # Guard
//! The content is exactly the log up to `applied`. A large commit takes several engine batches, of which the last one
//! carries `applied` and head; after a crash between them, records above the head's revision are there. They are
//! removed at open ([`Stable::trim`]), before anything reads them. Who walks through the runs while a commit goes on may
//! meet those records, too; so all that belongs to a run is there before the key of its meta pack is, which is how runs
//! are found. Leases have no revision to tell by: all that a commit
//! changes of them is in its last batch. Of users and roles the last batch names the content that counts; others are
//! removed afterwards, and at open ([`Stable::trim_auth`]).

use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{Failpoint, Fault, Faults};
use holdfast_mvcc::auth::Auth;
use holdfast_mvcc::types::{Lease, LeaseChange, LeaseId, RecordId, Revision};
use holdfast_mvcc::{Head, RecordMeta};
use parking_lot::Mutex;

use crate::auth::{self, StoredAuthAt};
use crate::codec::{self, StoredApplied, StoredHead, StoredScrubbed};
use crate::engine::{Batch, Engine};
use crate::error::StoreError;
use crate::lease;
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, COMMIT_LEASES_MAX, LEASE_FRAME_MAX, PIECE_BYTES, RESTORE_RECORDS,
    SLICE_BYTES, SLICE_RUNS_MIN, UNPACKED_BYTES_MAX,
};
use crate::pack::{PackKind, Run, RunBuilder, metas};
use crate::record::Stored;
use crate::types::Applied;

const APPLIED: &[u8] = b"aapplied";
const HEAD: &[u8] = b"ahead";
const SCRUBBED: &[u8] = b"ascrubbed";
const AUTH: &[u8] = b"aauth";
const AUTH_PIECE: u8 = b'u';
const PIECE: u8 = b'p';
const LEASE: u8 = b'l';
const WHOLE: u8 = 0;
const IN_PIECES: u8 = 1;
const PACKED: u8 = 2;

/// Bytes of a lease's key and row.
const LEASE_BYTES_MAX: usize = 32;

/// Bytes of the key and the row that name the users and roles that count.
const AUTH_AT_BYTES_MAX: usize = 32;

/// Bytes of packs read in one page of a scan.
const PAGE_BYTES: usize = 512 << 10;

/// Records and positions over an engine.
#[derive(Clone)]
pub(crate) struct Stable {
    engine: Arc<dyn Engine>,
    /// Written by whoever reads or commits a position.
    auth: Arc<Mutex<WrittenAuth>>,
}

/// The users and roles that are in the engine.
#[derive(Debug, Default)]
struct WrittenAuth {
    auth: Arc<Auth>,
    /// 0 when there are none.
    number: u64,
}

/// A run together with how it lies in the engine.
#[derive(Debug)]
pub(crate) struct PlacedRun {
    /// The run.
    pub(crate) run: Run,
    meta_pieces: u32,
    value_pieces: u32,
}

/// The meta pack of a run, and how it lies in the engine.
#[derive(Debug)]
pub(crate) struct PlacedMeta {
    /// The id of the run's first record.
    pub(crate) first: RecordId,
    /// The pack.
    pub(crate) meta: Bytes,
    pieces: u32,
}

/// How much is read in one page of runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageMax {
    /// Runs.
    pub(crate) runs: usize,
    /// Bytes of both packs, exceeded by less than one run.
    pub(crate) bytes: usize,
}

impl PageMax {
    /// One run.
    pub(crate) const ONE: Self = Self { runs: 1, bytes: 0 };
}

impl Stable {
    /// Over this engine.
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, auth: Arc::default() }
    }

    /// Makes all commits durable.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        self.engine.flush()
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.engine.disk_bytes()
    }

    /// Head and position, or `None` when nothing was ever committed.
    pub(crate) fn position(&self) -> Result<Option<(Head, Applied)>, StoreError> {
        match (self.engine.get(HEAD)?, self.engine.get(APPLIED)?) {
            (None, None) => Ok(None),
            (Some(head), Some(applied)) => {
                let mut head: Head = codec::decode::<StoredHead>(&head)?.try_into()?;
                head.auth = self.read_auth()?;
                Ok(Some((head, codec::decode::<StoredApplied>(&applied)?.into())))
            }
            _ => Err(StoreError::damaged("head and applied position are not both there")),
        }
    }

    fn read_auth(&self) -> Result<Arc<Auth>, StoreError> {
        let mut written = self.auth.lock();
        let Some(at) = self.engine.get(AUTH)? else { return Ok(Arc::clone(&written.auth)) };
        let StoredAuthAt { number, pieces } = codec::decode(&at)?;
        let mut content = Vec::new();
        for piece in 0..pieces {
            let found = self.engine.get(&auth_key(number, piece))?;
            content.extend_from_slice(
                &found.ok_or_else(|| StoreError::damaged("a piece of users and roles is missing"))?,
            );
        }
        *written = WrittenAuth { auth: auth::decode(&content)?, number };
        Ok(Arc::clone(&written.auth))
    }

    /// Removes contents of users and roles that do not count.
    pub(crate) fn trim_auth(&self) -> Result<(), StoreError> {
        self.trim_auth_but(self.auth.lock().number)
    }

    fn trim_auth_but(&self, number: u64) -> Result<(), StoreError> {
        let mut from = vec![AUTH_PIECE];
        loop {
            let page = self.engine.scan(&from, BATCH_OPS_MAX, PAGE_BYTES)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = [last, &[0][..]].concat();
            let mut batch = Batch::default();
            let counts = auth_key(number, 0);
            for (key, _) in page.iter().filter(|(key, _)| key.get(..9) != counts.get(..9)) {
                batch.delete(key.to_vec());
            }
            if batch.ops() > 0 {
                self.engine.apply(batch)?;
            }
        }
    }

    /// The compact revision behind which the scrub has left nothing.
    pub(crate) fn scrubbed(&self) -> Result<Option<Revision>, StoreError> {
        let stored = self.engine.get(SCRUBBED)?;
        stored.map(|s| Ok(Revision::new(codec::decode::<StoredScrubbed>(&s)?.compact_revision))).transpose()
    }

    /// Notes that the scrub has left nothing behind this compact revision.
    pub(crate) fn set_scrubbed(&self, compact_revision: Revision) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let stored = StoredScrubbed { compact_revision: compact_revision.get() };
        batch.put(SCRUBBED.to_vec(), codec::encode(&stored));
        self.engine.apply(batch)
    }

    /// Stores runs and then, with the last batch, changes of leases, at most [`COMMIT_LEASES_MAX`] of them, and the position
    /// they lead to.
    pub(crate) fn commit(
        &self,
        runs: &[Run],
        leases: &[LeaseChange],
        head: &Head,
        applied: &Applied,
        faults: &Faults,
    ) -> Result<(), StoreError> {
        if faults.is_planted(Fault::PositionApart) {
            Writer::new(self).finish(&[], head, applied)?;
            faults.hit(Failpoint::CommitMidBatch);
        }
        let mut writer = Writer { faults: faults.clone(), ..Writer::new(self) };
        for run in runs {
            writer.put_run(run)?;
        }
        writer.finish(leases, head, applied)
    }

    /// Hands out all leases, ascending by id, many at a time.
    pub(crate) fn each_lease<E: From<StoreError>>(
        &self,
        mut take: impl FnMut(&[(LeaseId, Lease)]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut from = vec![LEASE];
        loop {
            let page = self.engine.scan(&from, LEASE_FRAME_MAX, PAGE_BYTES)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            // The least key behind.
            from = [last, &[0][..]].concat();
            let leases: Result<Vec<_>, StoreError> =
                page.iter().map(|(key, row)| Ok((lease_id(key)?, lease::from_row(row)?))).collect();
            take(&leases?)?;
        }
    }

    /// The value pack that holds the put `id`, with the id of its run, when there is one.
    pub(crate) fn value_pack(&self, id: RecordId) -> Result<Option<(RecordId, Bytes)>, StoreError> {
        let Some((key, stored)) = self.engine.get_le(&pack_key(PackKind::Value, id))? else {
            return Ok(None);
        };
        let first = key_id(&key)?;
        Ok(Some((first, self.load(PackKind::Value, first, &stored)?.0)))
    }

    /// The value packs of the runs behind the one that starts at `first`, at most so many, each with the id of its run, as they
    /// are stored.
    pub(crate) fn value_packs_behind(
        &self,
        first: RecordId,
        packs_max: usize,
    ) -> Result<Vec<StoredPack>, StoreError> {
        let from = pack_key(PackKind::Value, following(first));
        let found = self.engine.scan(&from, packs_max, UNPACKED_BYTES_MAX * packs_max)?;
        let stored = |(key, bytes): (Bytes, Bytes)| Ok(StoredPack { first: key_id(&key)?, bytes });
        found.into_iter().map(stored).collect()
    }

    /// A value pack, unpacked.
    pub(crate) fn unpacked(&self, stored: &StoredPack) -> Result<Bytes, StoreError> {
        Ok(self.load(PackKind::Value, stored.first, &stored.bytes)?.0)
    }

    /// The next meta packs from the run that starts at or behind `from`, ascending; empty at the end.
    pub(crate) fn meta_packs(&self, from: RecordId) -> Result<Vec<(RecordId, Bytes)>, StoreError> {
        let page = self.placed_metas(from, 256)?;
        Ok(page.into_iter().map(|placed| (placed.first, placed.meta)).collect())
    }

    /// Hands out the meta entries from the run that starts at or behind `from` up to `through` (inclusive), ascending, many
    /// at a time.
    pub(crate) fn each_meta<E: From<StoreError>>(
        &self,
        mut from: RecordId,
        through: Revision,
        mut take: impl FnMut(&[RecordMeta]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut records = Vec::new();
        loop {
            let page = self.meta_packs(from)?;
            let Some((last, _)) = page.last() else { break };
            from = following(*last);
            for (_, pack) in &page {
                records.extend(metas(pack)?.into_iter().filter(|meta| meta.id.revision <= through));
                if records.len() >= RESTORE_RECORDS {
                    take(&records)?;
                    records.clear();
                }
            }
        }
        take(&records)
    }

    /// Where the run begins that holds `id`, if there is one that does.
    pub(crate) fn run_of(&self, id: RecordId) -> Result<RecordId, StoreError> {
        let edge = self.engine.get_le(&pack_key(PackKind::Meta, id))?;
        edge.map_or(Ok(id), |(key, _)| key_id(&key))
    }

    /// The next runs from the one that starts at or behind `from`, ascending; empty at the end.
    pub(crate) fn runs(&self, from: RecordId, max: PageMax) -> Result<Vec<PlacedRun>, StoreError> {
        let metas = self.placed_metas(from, max.runs)?;
        let Some(first) = metas.first().map(|meta| meta.first) else { return Ok(Vec::new()) };
        // Behind the metas: a run whose meta pack is there has its values there. One walk is less than a search for each.
        let values = self.engine.scan(&pack_key(PackKind::Value, first), metas.len(), max.bytes)?;
        let passed = values.last().map(|(key, _)| key_id(key)).transpose()?;
        let mut values = values.into_iter().peekable();
        let mut placed: Vec<PlacedRun> = Vec::new();
        let mut bytes = 0;
        for meta in metas {
            if bytes > max.bytes {
                break;
            }
            let key = pack_key(PackKind::Value, meta.first);
            // What a crash has left, without a meta pack.
            while values.next_if(|(found, _)| **found < *key).is_some() {}
            let run = match values.next_if(|(found, _)| **found == *key) {
                Some((_, stored)) => self.with_stored_value(meta, Some(&stored))?,
                // The walk has passed the place where they would be.
                None if passed > Some(meta.first) => self.with_stored_value(meta, None)?,
                None => self.with_value(meta)?,
            };
            bytes += run.run.bytes();
            placed.push(run);
        }
        Ok(placed)
    }

    /// The meta packs of the next runs from the one that starts at or behind `from`, ascending; empty at the end.
    pub(crate) fn placed_metas(
        &self,
        from: RecordId,
        runs_max: usize,
    ) -> Result<Vec<PlacedMeta>, StoreError> {
        let page = self.engine.scan(&pack_key(PackKind::Meta, from), runs_max, PAGE_BYTES)?;
        page.iter()
            .map(|(key, stored)| {
                let first = key_id(key)?;
                let (meta, pieces) = self.load(PackKind::Meta, first, stored)?;
                Ok(PlacedMeta { first, meta, pieces })
            })
            .collect()
    }

    /// The run of this meta pack.
    pub(crate) fn with_value(&self, placed: PlacedMeta) -> Result<PlacedRun, StoreError> {
        let stored = self.engine.get(&pack_key(PackKind::Value, placed.first))?;
        self.with_stored_value(placed, stored.as_ref())
    }

    /// The run of this meta pack, whose values are stored so; without any it has none.
    fn with_stored_value(&self, placed: PlacedMeta, stored: Option<&Bytes>) -> Result<PlacedRun, StoreError> {
        let PlacedMeta { first, meta, pieces: meta_pieces } = placed;
        let (value, value_pieces) = match stored {
            Some(stored) => self.load(PackKind::Value, first, stored)?,
            None => (Bytes::new(), 0),
        };
        Ok(PlacedRun { run: Run { first, meta, value }, meta_pieces, value_pieces })
    }

    /// As [`Stable::with_value`] for a run that is to be removed: without what is in its value pack.
    pub(crate) fn without_value(&self, placed: PlacedMeta) -> Result<PlacedRun, StoreError> {
        let PlacedMeta { first, meta, pieces: meta_pieces } = placed;
        let stored = self.engine.get(&pack_key(PackKind::Value, first))?;
        let value_pieces = stored.as_ref().map_or(0, pieces_of);
        Ok(PlacedRun { run: Run { first, meta, value: Bytes::new() }, meta_pieces, value_pieces })
    }

    /// What work that goes through the whole store takes at a time.
    pub(crate) fn slice(&self) -> PageMax {
        PageMax { runs: SLICE_RUNS_MIN.max(SLICE_BYTES / self.pack_bytes()), bytes: SLICE_BYTES }
    }

    /// A page of about so many bytes of records: at least one run.
    pub(crate) fn page_of(&self, bytes: usize) -> PageMax {
        PageMax { runs: (bytes / self.pack_bytes()).clamp(1, self.slice().runs), bytes }
    }

    /// Replaces adjacent runs by others, atomically. At most a slice; one in pieces is replaced by nothing. The pieces go
    /// afterwards: a crash in between leaves bytes that nothing refers to.
    pub(crate) fn replace(&self, old: &[PlacedRun], new: &[Run]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for placed in old {
            batch.delete(pack_key(PackKind::Meta, placed.run.first));
            batch.delete(pack_key(PackKind::Value, placed.run.first));
        }
        for run in new {
            for (key, value) in run_puts(run) {
                batch.put(key, value);
            }
        }
        self.engine.apply(batch)?;
        for placed in old {
            self.delete_pieces(PackKind::Meta, placed.run.first, placed.meta_pieces)?;
            self.delete_pieces(PackKind::Value, placed.run.first, placed.value_pieces)?;
        }
        Ok(())
    }

    fn delete_pieces(&self, kind: PackKind, first: RecordId, pieces: u32) -> Result<(), StoreError> {
        let keys: Vec<_> = (0..pieces).map(|piece| piece_key(kind, first, piece)).collect();
        for some in keys.chunks(BATCH_OPS_MAX) {
            let mut batch = Batch::default();
            some.iter().for_each(|key| batch.delete(key.clone()));
            self.engine.apply(batch)?;
        }
        Ok(())
    }

    /// Removes the records above `revision`, which an interrupted commit has left.
    pub(crate) fn trim(&self, revision: Revision) -> Result<(), StoreError> {
        let above = RecordId::new(revision.next(), 0);
        // The run that starts at or below the bound may reach beyond it; all later ones are beyond it whole.
        let mut from = self.run_of(above)?;
        loop {
            let page = self.runs(from, self.slice())?;
            let Some(last) = page.last() else { return self.trim_values(above) };
            from = following(last.run.first);
            for placed in page {
                if placed.run.first.revision > revision {
                    // All of it is of the interrupted commit. Earlier releases may have had its values in a later batch.
                    self.replace(&[placed], &[])?;
                    continue;
                }
                let records = placed.run.records()?;
                if records.last().is_none_or(|r| r.id.revision <= revision) {
                    continue;
                }
                let kept = records.into_iter().filter(|r| r.id.revision <= revision);
                // Never one in pieces, which holds one record: that would be above whole.
                let runs = self.build_runs(kept.map(Stored::new));
                self.replace(&[placed], &runs)?;
            }
        }
    }

    /// Removes the value packs from `from` on: those that the last batch of an interrupted commit has put before their meta
    /// packs. A value is looked for in the pack at or below its id, where one that belongs to nothing would be in the way.
    fn trim_values(&self, from: RecordId) -> Result<(), StoreError> {
        let from = pack_key(PackKind::Value, from);
        loop {
            let page = self.engine.scan(&from, BATCH_OPS_MAX, PAGE_BYTES)?;
            if page.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::default();
            page.iter().for_each(|(key, _)| batch.delete(key.to_vec()));
            self.engine.apply(batch)?;
            for (key, stored) in &page {
                self.delete_pieces(PackKind::Value, key_id(key)?, pieces_of(stored))?;
            }
        }
    }

    /// What packs have at most, unless it is one record that has more.
    pub(crate) fn pack_bytes(&self) -> usize {
        self.engine.pack_bytes()
    }

    /// Cuts ascending records into runs.
    pub(crate) fn build_runs(&self, records: impl Iterator<Item = Stored>) -> Vec<Run> {
        let mut builder = RunBuilder::new(self.pack_bytes());
        let mut runs: Vec<Run> = records.filter_map(|stored| builder.add(stored.entry())).collect();
        runs.extend(builder.finish());
        runs
    }

    /// Cuts a run that was made for another store, unless it fits here as it is.
    pub(crate) fn cut(&self, run: Run) -> Result<Vec<Run>, StoreError> {
        if run.meta.len().max(run.value.len()) <= self.pack_bytes() {
            return Ok(vec![run]);
        }
        Ok(self.build_runs(run.records()?.into_iter().map(Stored::new)))
    }

    fn load(&self, kind: PackKind, first: RecordId, stored: &Bytes) -> Result<(Bytes, u32), StoreError> {
        match stored.first() {
            Some(&WHOLE) => Ok((stored.slice(1..), 0)),
            Some(&PACKED) => Ok((unpack(&stored[1..])?, 0)),
            Some(&IN_PIECES) if stored.len() == 5 => {
                let pieces = pieces_of(stored);
                let mut pack = Vec::new();
                for piece in 0..pieces {
                    let found = self.engine.get(&piece_key(kind, first, piece))?;
                    let found = found
                        .ok_or_else(|| StoreError::damaged(format!("a piece of {first:?} is missing")))?;
                    pack.extend_from_slice(&found);
                }
                Ok((pack.into(), pieces))
            }
            _ => Err(StoreError::damaged("a stored pack has an unknown form")),
        }
    }
}

/// A pack as it is stored.
pub(crate) struct StoredPack {
    /// Where its run begins.
    pub(crate) first: RecordId,
    bytes: Bytes,
}

/// Fills engine batches in order; the last one carries the position.
pub(crate) struct Writer<'a> {
    stable: &'a Stable,
    batch: Batch,
    /// Told of every batch but the last one of a commit.
    faults: Faults,
}

impl<'a> Writer<'a> {
    /// Nothing written yet.
    pub(crate) fn new(stable: &'a Stable) -> Self {
        Self { stable, batch: Batch::default(), faults: Faults::default() }
    }

    /// Adds a run.
    pub(crate) fn put_run(&mut self, run: &Run) -> Result<(), StoreError> {
        for (key, value) in run_puts(run) {
            self.put(key, value)?;
        }
        Ok(())
    }

    /// Adds leases, to a store that has no position yet.
    pub(crate) fn put_leases(&mut self, leases: &[(LeaseId, Lease)]) -> Result<(), StoreError> {
        leases.iter().try_for_each(|(id, lease)| self.put(lease_key(*id), lease::row(*lease)))
    }

    /// Writes what is left, without a position: more will follow.
    pub(crate) fn pause(self) -> Result<(), StoreError> {
        if self.batch.ops() == 0 { Ok(()) } else { self.stable.engine.apply(self.batch) }
    }

    /// Writes what is left together with changes of leases and the position.
    pub(crate) fn finish(
        mut self,
        leases: &[LeaseChange],
        head: &Head,
        applied: &Applied,
    ) -> Result<(), StoreError> {
        let stable = self.stable;
        let mut written = stable.auth.lock();
        let auth_at = self.put_auth(&mut written, &head.auth)?;
        let head = codec::encode(&StoredHead::from(head));
        let applied = codec::encode(&StoredApplied::from(applied));
        let bytes = head.len() + applied.len() + HEAD.len() + APPLIED.len();
        assert!(leases.len() <= COMMIT_LEASES_MAX, "a commit changes {} leases", leases.len());
        // One more for users and roles.
        self.make_room(3 + leases.len(), bytes + AUTH_AT_BYTES_MAX + leases.len() * LEASE_BYTES_MAX)?;
        for change in leases {
            match change.lease {
                Some(lease) => self.batch.put(lease_key(change.id), lease::row(lease)),
                None => self.batch.delete(lease_key(change.id)),
            }
        }
        self.batch.put(HEAD.to_vec(), head);
        self.batch.put(APPLIED.to_vec(), applied);
        let Some(at) = auth_at else { return stable.engine.apply(self.batch) };
        self.batch.put(AUTH.to_vec(), codec::encode(&at));
        stable.engine.apply(self.batch)?;
        written.number = at.number;
        stable.trim_auth_but(at.number)
    }

    /// Adds users and roles, if they have changed; answers what names them then.
    fn put_auth(
        &mut self,
        written: &mut WrittenAuth,
        auth: &Arc<Auth>,
    ) -> Result<Option<StoredAuthAt>, StoreError> {
        if Arc::ptr_eq(&written.auth, auth) {
            return Ok(None);
        }
        let is_same = written.auth == *auth;
        written.auth = Arc::clone(auth);
        if is_same {
            return Ok(None);
        }
        let number = written.number + 1;
        let mut pieces = 0;
        for piece in auth::encode(auth).chunks(PIECE_BYTES) {
            self.put(auth_key(number, pieces), piece.to_vec())?;
            pieces += 1;
        }
        Ok(Some(StoredAuthAt { number, pieces }))
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.make_room(1, key.len() + value.len())?;
        self.batch.put(key, value);
        Ok(())
    }

    fn make_room(&mut self, ops: usize, bytes: usize) -> Result<(), StoreError> {
        if self.batch.ops() + ops > BATCH_OPS_MAX || self.batch.bytes() + bytes > BATCH_BYTES_MAX {
            self.stable.engine.apply(std::mem::take(&mut self.batch))?;
            self.faults.hit(Failpoint::CommitMidBatch);
        }
        Ok(())
    }
}

/// The least id above `id`.
pub(crate) fn following(id: RecordId) -> RecordId {
    match id.sub.checked_add(1) {
        Some(sub) => RecordId::new(id.revision, sub),
        None => RecordId::new(id.revision.next(), 0),
    }
}

/// In the order in which they have to become visible: the key of the meta pack last.
fn run_puts(run: &Run) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut puts = Vec::new();
    if !run.value.is_empty() {
        put_pack(&mut puts, PackKind::Value, run.first, &run.value);
    }
    put_pack(&mut puts, PackKind::Meta, run.first, &run.meta);
    puts
}

fn put_pack(puts: &mut Vec<(Vec<u8>, Vec<u8>)>, kind: PackKind, first: RecordId, pack: &Bytes) {
    if pack.len() <= PIECE_BYTES {
        puts.push((pack_key(kind, first), whole(pack)));
        return;
    }
    let mut pieces = 0_u32;
    for piece in pack.chunks(PIECE_BYTES) {
        puts.push((piece_key(kind, first, pieces), piece.to_vec()));
        pieces += 1;
    }
    let mut stored = vec![IN_PIECES];
    stored.extend_from_slice(&pieces.to_le_bytes());
    puts.push((pack_key(kind, first), stored));
}

/// How many pieces a stored pack is in; 0 when it is in one value.
fn pieces_of(stored: &Bytes) -> u32 {
    match stored[..] {
        [IN_PIECES, a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// A pack in one value.
fn whole(pack: &Bytes) -> Vec<u8> {
    let mut stored = Vec::with_capacity(pack.len() + 1);
    let packed = lz4_flex::block::compress(pack);
    // Below an eighth of gain, reading without decompression is worth more.
    if packed.len() < pack.len() / 8 * 7 {
        stored.push(PACKED);
        let length = u32::try_from(pack.len()).expect("what is longer than a piece is cut");
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(&packed);
    } else {
        stored.push(WHOLE);
        stored.extend_from_slice(pack);
    }
    stored
}

/// The pack behind its form.
fn unpack(stored: &[u8]) -> Result<Bytes, StoreError> {
    let (length, packed) =
        stored.split_first_chunk::<4>().ok_or_else(|| StoreError::damaged("a packed pack is too short"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > UNPACKED_BYTES_MAX {
        return Err(StoreError::damaged("a packed pack is too long"));
    }
    let pack = lz4_flex::block::decompress(packed, length);
    match pack {
        Ok(pack) if pack.len() == length => Ok(pack.into()),
        Ok(_) | Err(_) => Err(StoreError::damaged("a packed pack cannot be unpacked")),
    }
}

fn pack_key(kind: PackKind, id: RecordId) -> Vec<u8> {
    let mut key = Vec::with_capacity(13);
    key.push(kind.byte());
    key.extend_from_slice(&id.revision.get().to_be_bytes());
    key.extend_from_slice(&id.sub.to_be_bytes());
    key
}

fn piece_key(kind: PackKind, first: RecordId, piece: u32) -> Vec<u8> {
    let mut key = vec![PIECE];
    key.extend_from_slice(&pack_key(kind, first));
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

fn auth_key(number: u64, piece: u32) -> Vec<u8> {
    let mut key = vec![AUTH_PIECE];
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(&piece.to_be_bytes());
    key
}

/// Ascends as the ids do.
fn lease_key(id: LeaseId) -> Vec<u8> {
    let mut key = vec![LEASE];
    key.extend_from_slice(&(id.0 ^ i64::MIN).to_be_bytes());
    key
}

fn lease_id(key: &[u8]) -> Result<LeaseId, StoreError> {
    let id = key.get(1..).and_then(|id| <[u8; 8]>::try_from(id).ok());
    let id = id.ok_or_else(|| StoreError::damaged("the key of a lease has the wrong length"))?;
    Ok(LeaseId(i64::from_be_bytes(id) ^ i64::MIN))
}

fn key_id(key: &[u8]) -> Result<RecordId, StoreError> {
    let (revision, sub) = key
        .get(1..)
        .and_then(|k| k.split_first_chunk::<8>())
        .and_then(|(revision, rest)| Some((*revision, <[u8; 4]>::try_from(rest).ok()?)))
        .ok_or_else(|| StoreError::damaged("a pack key has the wrong length"))?;
    Ok(RecordId::new(Revision::new(u64::from_be_bytes(revision)), u32::from_be_bytes(sub)))
}

#[cfg(test)]
mod tests;
