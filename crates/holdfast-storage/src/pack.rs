//! Packs: runs of records, ascending, under the id of the first one.
//!
//! A run is stored as two packs with the same key: a *meta pack* with the meta entries of all its records, and a
//! *value pack* with the value entries of its puts (absent when there are none). Runs never overlap: the record with
//! id x is in the run with the greatest key at or below x.
//!
//! ```text
//! pack   version 1 (1) | kind 'm' or 'v' (1) | count u32 LE | body length u32 LE | CRC-32C u32 LE | body: entries
//! ```
//! The checksum covers the ten bytes before it and the body.

use bytes::Bytes;
use holdfast_mvcc::RecordMeta;
use holdfast_mvcc::types::{Change, Record, RecordId};

use crate::error::StoreError;
use crate::record::{Stored, ValueEntry, pass_meta, pass_value, seek_value, take_meta, take_value};

const VERSION: u8 = 1;
const HEADER: usize = 14;

/// Which half of a run a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackKind {
    /// Everything but the values.
    Meta,
    /// The values.
    Value,
}

impl PackKind {
    /// The byte in packs and in engine keys.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Meta => b'm',
            Self::Value => b'v',
        }
    }
}

/// A run of records as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// The id of the first record.
    pub(crate) first: RecordId,
    /// The meta pack.
    pub(crate) meta: Bytes,
    /// The value pack; empty when the run has no put.
    pub(crate) value: Bytes,
}

/// A record as it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// Which one.
    pub(crate) id: RecordId,
    /// Its meta entry.
    pub(crate) meta: &'a [u8],
    /// Its value entry; empty for a delete.
    pub(crate) value: &'a [u8],
}

impl Stored {
    /// As it is written.
    pub(crate) fn entry(&self) -> Entry<'_> {
        Entry { id: self.record.id, meta: &self.meta, value: &self.value }
    }
}

impl Run {
    /// Bytes of both packs.
    pub(crate) fn bytes(&self) -> usize {
        self.meta.len() + self.value.len()
    }

    /// Reads all of it, for the sake of the checks.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.each_entry(|_| Ok(()))
    }

    /// Hands out the records as they are written, ascending, with the checks of [`Run::records`]: for who writes them
    /// elsewhere, or only wants them to be in order. Makes no copies.
    pub(crate) fn each_entry<E: From<StoreError>>(
        &self,
        mut take: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (count, metas) = unseal(PackKind::Meta, &self.meta)?;
        let Values { left: mut puts, body: values } = Values::new(&self.value)?;
        let (mut metas, mut values) = (&metas[..], &values[..]);
        let mut last = None;
        for _ in 0..count {
            let from = metas;
            let (id, is_put) = pass_meta(&mut metas)?;
            if last >= Some(id) {
                return Err(StoreError::damaged("a meta pack is out of order").into());
            }
            last = Some(id);
            let meta = &from[..from.len() - metas.len()];
            let from = values;
            if is_put {
                if puts == 0 || pass_value(&mut values)? != id {
                    return Err(StoreError::damaged(format!("the value of {id:?} is missing")).into());
                }
                puts -= 1;
            }
            let value = &from[..from.len() - values.len()];
            take(Entry { id, meta, value })?;
        }
        if metas.is_empty() { Ok(()) } else { Err(StoreError::damaged("a meta pack has a tail").into()) }
    }

    /// Decodes the records, ascending.
    pub(crate) fn records(&self) -> Result<Vec<Record>, StoreError> {
        let metas = metas(&self.meta)?;
        let mut values = Values::new(&self.value)?;
        let mut records = Vec::with_capacity(metas.len());
        for meta in metas {
            let change = match meta.put {
                None => Change::Delete,
                Some(_) => match values.next()? {
                    Some(entry) if entry.id == meta.id => Change::Put(entry.put),
                    _ => return Err(StoreError::damaged(format!("the value of {:?} is missing", meta.id))),
                },
            };
            records.push(Record { id: meta.id, key: meta.key, change });
        }
        Ok(records)
    }
}

/// Builds runs from ascending records. The cuts depend on nothing but the records and the size.
#[derive(Debug)]
pub(crate) struct RunBuilder {
    pack_bytes: usize,
    first: RecordId,
    meta: Vec<u8>,
    value: Vec<u8>,
    metas: u32,
    values: u32,
}

impl RunBuilder {
    /// Packs have at most so many bytes, unless it is one record that has more.
    pub(crate) fn new(pack_bytes: usize) -> Self {
        let (meta, value) = (Vec::new(), Vec::new());
        Self { pack_bytes, first: RecordId::default(), meta, value, metas: 0, values: 0 }
    }

    /// Adds a record; returns the run that it did not fit into.
    pub(crate) fn add(&mut self, entry: Entry<'_>) -> Option<Run> {
        let meta_bytes = HEADER + self.meta.len() + entry.meta.len();
        let value_bytes = HEADER + self.value.len() + entry.value.len();
        let full =
            if meta_bytes > self.pack_bytes || value_bytes > self.pack_bytes { self.finish() } else { None };
        if self.metas == 0 {
            self.first = entry.id;
        }
        self.meta.extend_from_slice(entry.meta);
        self.metas += 1;
        if !entry.value.is_empty() {
            self.value.extend_from_slice(entry.value);
            self.values += 1;
        }
        full
    }

    /// The run so far, if there is one.
    pub(crate) fn finish(&mut self) -> Option<Run> {
        if self.metas == 0 {
            return None;
        }
        let meta = seal(PackKind::Meta, self.metas, &self.meta);
        let value =
            if self.values == 0 { Bytes::new() } else { seal(PackKind::Value, self.values, &self.value) };
        // The room stays: the next run is about as large.
        self.meta.clear();
        self.value.clear();
        (self.metas, self.values) = (0, 0);
        Some(Run { first: self.first, meta, value })
    }
}

/// A pack of so many entries.
pub(crate) fn seal(kind: PackKind, count: u32, body: &[u8]) -> Bytes {
    let len = u32::try_from(body.len())
        .expect("a pack holds one record of at most some MiB, or many that have 32 KiB at most");
    let mut pack = Vec::with_capacity(HEADER + body.len());
    pack.extend_from_slice(&[VERSION, kind.byte()]);
    pack.extend_from_slice(&count.to_le_bytes());
    pack.extend_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&pack), body);
    pack.extend_from_slice(&crc.to_le_bytes());
    pack.extend_from_slice(body);
    pack.into()
}

/// Checks a pack and returns its count and body.
fn unseal(kind: PackKind, pack: &Bytes) -> Result<(u32, Bytes), StoreError> {
    let bad = |what: &str| StoreError::damaged(format!("{kind:?} pack: {what}"));
    let word = |at: usize| u32::from_le_bytes([pack[at], pack[at + 1], pack[at + 2], pack[at + 3]]);
    if pack.len() < HEADER || pack[0] < VERSION || pack[1] != kind.byte() {
        return Err(bad("unknown header"));
    }
    let body = pack.slice(HEADER..);
    let checksum = |version| {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[version]), &pack[1..10]);
        crc32c::crc32c_append(crc, &body)
    };
    if pack[0] > VERSION {
        // One of ours in which nothing but the version byte is broken still has our checksum.
        return Err(if checksum(VERSION) == word(10) {
            bad("the version byte does not match the checksum")
        } else {
            StoreError::newer(&format!("a {kind:?} pack"), pack[0], VERSION)
        });
    }
    if body.len() as u64 != u64::from(word(6)) {
        return Err(bad("wrong length"));
    }
    if checksum(VERSION) != word(10) {
        return Err(bad("checksum mismatch"));
    }
    Ok((word(2), body))
}

/// The entries of a meta pack, ascending.
pub(crate) fn metas(pack: &Bytes) -> Result<Vec<RecordMeta>, StoreError> {
    let (count, mut body) = unseal(PackKind::Meta, pack)?;
    let mut metas: Vec<RecordMeta> = Vec::with_capacity(count.min(4096) as usize);
    for _ in 0..count {
        let meta = take_meta(&mut body)?;
        if metas.last().is_some_and(|last| last.id >= meta.id) {
            return Err(StoreError::damaged("a meta pack is out of order"));
        }
        metas.push(meta);
    }
    if body.is_empty() { Ok(metas) } else { Err(StoreError::damaged("a meta pack has a tail")) }
}

/// The id of the first record of a meta pack, all of which is covered by the checksum that is looked at; `None` when there
/// is none.
pub(crate) fn first_id(pack: &Bytes) -> Result<Option<RecordId>, StoreError> {
    let (count, body) = unseal(PackKind::Meta, pack)?;
    if count == 0 { Ok(None) } else { Ok(Some(pass_meta(&mut &body[..])?.0)) }
}

/// The entries of a value pack, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    left: u32,
    body: Bytes,
}

impl Values {
    /// Those of no pack.
    pub(crate) fn none() -> Self {
        Self { left: 0, body: Bytes::new() }
    }

    /// Checks the pack; an empty one has no entries.
    pub(crate) fn new(pack: &Bytes) -> Result<Self, StoreError> {
        if pack.is_empty() {
            return Ok(Self::none());
        }
        let (left, body) = unseal(PackKind::Value, pack)?;
        Ok(Self { left, body })
    }

    /// The next entry.
    pub(crate) fn next(&mut self) -> Result<Option<ValueEntry>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        take_value(&mut self.body).map(Some)
    }

    /// The entry with this id, when it is among those that are left; goes on behind it.
    pub(crate) fn seek(&mut self, id: RecordId) -> Result<Option<ValueEntry>, StoreError> {
        seek_value(&mut self.body, id, &mut self.left)
    }
}

/// A pack as a later release may write it.
#[cfg(test)]
pub(crate) fn newer_pack(kind: PackKind) -> Bytes {
    let mut pack = vec![VERSION + 1, kind.byte()];
    pack.extend_from_slice(&[0x5a; 40]);
    pack.into()
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::types::{PutRecord, Revision};

    use super::*;
    use crate::limits::PACK_BYTES;

    fn record(revision: u64, value_bytes: usize) -> Record {
        Record {
            id: RecordId::new(Revision::new(revision), 0),
            key: Bytes::from(format!("k{revision}")),
            change: Change::Put(PutRecord {
                create_revision: Revision::new(revision),
                version: 1,
                lease: None,
                value: vec![b'x'; value_bytes].into(),
            }),
        }
    }

    fn runs(records: &[Record]) -> Vec<Run> {
        let mut builder = RunBuilder::new(PACK_BYTES);
        let mut runs: Vec<Run> =
            records.iter().filter_map(|r| builder.add(Stored::new(r.clone()).entry())).collect();
        runs.extend(builder.finish());
        runs
    }

    /// The bytes on disk; a change here needs a new version.
    #[test]
    fn golden_bytes() {
        let run = runs(&[record(2, 1)]).remove(0);
        let crc = |pack: &Bytes| pack[10..14].to_vec();
        assert_eq!(&run.meta[..10], [1, b'm', 1, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(crc(&run.meta), GOLDEN_META_CRC.to_le_bytes());
        assert_eq!(&run.meta[14..], [2, 0, 1, 2, b'k', b'2', 2, 1, 1]);
        assert_eq!(&run.value[..10], [1, b'v', 1, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(crc(&run.value), GOLDEN_VALUE_CRC.to_le_bytes());
        assert_eq!(&run.value[14..], [2, 0, 1, 2, 1, 1, b'x']);
    }
    const GOLDEN_META_CRC: u32 = 0x45ed_b67c;
    const GOLDEN_VALUE_CRC: u32 = 0x5736_d74e;

    #[test]
    fn runs_are_bounded_and_hold_all_records() {
        let records: Vec<Record> = (2..200).map(|n| record(n, 1000)).collect();
        let runs = runs(&records);
        assert!(runs.len() > 5);
        assert!(runs.iter().all(|r| r.meta.len() <= PACK_BYTES && r.value.len() <= PACK_BYTES));
        let read: Vec<Record> = runs.iter().flat_map(|r| r.records().unwrap()).collect();
        assert_eq!(read, records);
        assert!(runs.windows(2).all(|w| w[0].first < w[1].first));
    }

    #[test]
    fn a_large_record_has_a_run_of_its_own() {
        let runs = runs(&[record(2, 10), record(3, 100_000), record(4, 10)]);
        assert_eq!(runs.iter().map(|r| r.first.revision.get()).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn copied_entries_make_the_same_runs_and_are_checked_as_records_are() {
        let mut records: Vec<Record> = (2..200).map(|n| record(n, 1000)).collect();
        records.iter_mut().step_by(3).for_each(|record| record.change = Change::Delete);
        let runs = runs(&records);
        let mut builder = RunBuilder::new(PACK_BYTES);
        let mut copies = Vec::new();
        for run in &runs {
            run.each_entry(|entry| {
                copies.extend(builder.add(entry));
                Ok::<_, StoreError>(())
            })
            .unwrap();
        }
        copies.extend(builder.finish());
        assert_eq!(copies, runs);
        // Puts without values, with those of others, and behind a tail.
        let none = Run { value: Bytes::new(), ..runs[0].clone() };
        let others = Run { value: runs[1].value.clone(), ..runs[0].clone() };
        let tail = Run { meta: seal(PackKind::Meta, 0, &runs[0].meta[HEADER..]), ..runs[0].clone() };
        for bad in [none, others, tail] {
            assert!(matches!(bad.records(), Err(StoreError::Damaged(_))));
            assert!(matches!(bad.check(), Err(StoreError::Damaged(_))));
        }
    }

    #[test]
    fn find_takes_one_value_out() {
        let run = runs(&[record(2, 1), record(4, 2)]).remove(0);
        let find = |revision| {
            let id = RecordId::new(Revision::new(revision), 0);
            Values::new(&run.value).unwrap().seek(id).unwrap().map(|e| e.put.value.len())
        };
        assert_eq!([find(2), find(3), find(4), find(5)], [Some(1), None, Some(2), None]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let run = runs(&[record(2, 3)]).remove(0);
        for bit in 0..run.meta.len() * 8 {
            let mut meta = run.meta.to_vec();
            meta[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(metas(&meta.into()), Err(StoreError::Damaged(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let newer = newer_pack(PackKind::Meta);
        assert!(matches!(metas(&newer), Err(StoreError::Newer(_))));
        let newer = newer_pack(PackKind::Value);
        assert!(matches!(Values::new(&newer), Err(StoreError::Newer(_))));
    }
}
