//! The retained history of one key: which records exist, in which generation, under which ids.
//!
//! # Generations
//! A key's *generation* runs from the put that creates it to the delete that ends it. Within one, the create revision
//! is fixed and the version counts up by one per put, so neither is stored per record: a record's version follows from
//! its place. Only the oldest retained generation may have lost its head to compaction; its first retained version and
//! its create revision are kept beside the records. A later generation starts at version 1, at its first record.
//!
//! # Layout
//! Most keys hold one put. It lives inline in 24 bytes ([`One`]); anything else (more records, tombstones, numbers that
//! do not fit) is packed into one allocation ([`Packed`]), with 10 bytes per record.

use std::num::NonZeroU64;

use super::keymap::Changing;
use super::packed::{Kind, Packed, REVISION_END, Slot, Sub};
use crate::state::PutMeta;
use crate::types::{RecordId, Revision};

/// One record of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: RecordId,
    /// `None` for a tombstone.
    pub(crate) put: Option<EntryPut>,
}

/// What the index knows of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryPut {
    pub(crate) create_revision: Revision,
    pub(crate) version: u64,
    pub(crate) leased: bool,
}

/// The records of one key, ascending by id; never empty.
#[derive(Debug, Clone)]
pub(crate) enum History {
    One(One),
    Many(Many),
}

/// Any history.
#[derive(Debug, Clone)]
pub(crate) struct Many(Packed);

/// A single put with small numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct One {
    revision: NonZeroU64,
    sub: Sub,
    value_bytes: u32,
    /// The create revision lies so many revisions before `revision`.
    create_back: u32,
    version: u32,
}

const _: () = assert!(size_of::<History>() == 24);

fn slot(id: RecordId, put: Option<&PutMeta>) -> Slot {
    let kind = match put {
        None => Kind::Tombstone,
        Some(PutMeta { lease: Some(_), .. }) => Kind::LeasedPut,
        Some(PutMeta { lease: None, .. }) => Kind::Put,
    };
    Slot { revision: id.revision.get(), sub: Sub::new(id.sub, kind) }
}

impl History {
    /// The history that consists of this record.
    pub(crate) fn new(id: RecordId, put: Option<&PutMeta>) -> Self {
        Self::with_room(id, put, 1)
    }

    /// The history that begins with this record and is going to have so many.
    pub(crate) fn with_room(id: RecordId, put: Option<&PutMeta>, records: usize) -> Self {
        if records == 1
            && let Some(one) = put.and_then(|put| One::new(id, put))
        {
            return Self::One(one);
        }
        let mut packed = Packed::with_room(records);
        packed.set_oldest(put.map_or(0, |put| put.create_revision.get()), put.map_or(0, |put| put.version));
        packed.push(slot(id, put), put.map_or(0, |put| put.value_bytes));
        Self::Many(Many(packed))
    }

    /// Adds the next record, which must follow the newest: a greater id, and for a put the numbers that follow from
    /// the generation it continues or starts.
    pub(crate) fn push(&mut self, id: RecordId, put: Option<&PutMeta>) {
        let many = match self {
            Self::One(one) => {
                *self = Self::Many(one.widen());
                let Self::Many(many) = self else { unreachable!("just widened") };
                many
            }
            Self::Many(many) => many,
        };
        many.push(id, put);
    }

    /// The newest record.
    pub(crate) fn newest(&self) -> Entry {
        match self {
            Self::One(one) => one.entry(),
            Self::Many(many) => many.newest(),
        }
    }

    /// The length of the newest put's value, or `None` when the key is deleted.
    pub(crate) fn live_value_bytes(&self) -> Option<u32> {
        match self {
            Self::One(one) => Some(one.value_bytes),
            Self::Many(many) => many.newest().put.map(|_| many.0.value_bytes()),
        }
    }

    /// The length of the value of one of the records, when it is the newest and a put.
    pub(crate) fn value_bytes_of(&self, entry: Entry) -> Option<u32> {
        match self {
            Self::One(one) => Some(one.value_bytes),
            Self::Many(many) => {
                let is_newest = many.0.slot(many.0.len() - 1).id() == entry.id;
                (is_newest && entry.put.is_some()).then(|| many.0.value_bytes())
            }
        }
    }

    /// The newest record at or below `revision`.
    pub(crate) fn at(&self, revision: Revision) -> Option<Entry> {
        match self {
            Self::One(one) => Some(one.entry()).filter(|entry| entry.id.revision <= revision),
            Self::Many(many) => many.place_at(revision).map(|place| many.entry(place)),
        }
    }

    /// The records that are retained with this compact revision, ascending.
    pub(crate) fn retained(
        &self,
        compact_revision: Option<Revision>,
    ) -> impl ExactSizeIterator<Item = Entry> + '_ {
        let first = compact_revision.map_or(0, |compact| self.retained_from(compact));
        (first..self.len()).map(|place| self.entry(place))
    }

    /// True when the record exists and is retained with this compact revision.
    pub(crate) fn is_retained(&self, id: RecordId, compact_revision: Option<Revision>) -> bool {
        let place = match self {
            Self::One(one) => (one.entry().id == id).then_some(0),
            Self::Many(many) => {
                let place = many.0.partition_point(|slot| slot.id() < id);
                (place < many.0.len() && many.0.slot(place).id() == id).then_some(place)
            }
        };
        let first = compact_revision.map_or(0, |compact| self.retained_from(compact));
        place.is_some_and(|place| place >= first)
    }

    /// Drops what is not retained. False when nothing is left: the key must go.
    #[must_use]
    pub(crate) fn drop_compacted(&mut self, compact_revision: Revision) -> bool {
        let first = self.retained_from(compact_revision);
        let Self::Many(many) = self else { return true };
        if first == many.0.len() {
            return false;
        }
        if first > 0 {
            many.drop_front(first);
        }
        if let Some(one) = many.narrow() {
            *self = Self::One(one);
        }
        true
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(many) => many.0.len(),
        }
    }

    fn entry(&self, place: usize) -> Entry {
        match self {
            Self::One(one) => one.entry(),
            Self::Many(many) => many.entry(place),
        }
    }

    /// The place of the first retained record: the newest put at or below the compact revision stays, because it is
    /// what a reader there sees; a tombstone stays only at exactly the compact revision, for watchers that start there.
    fn retained_from(&self, compact_revision: Revision) -> usize {
        let Self::Many(many) = self else { return 0 };
        match many.place_at(compact_revision) {
            None => 0,
            Some(place) => {
                let slot = many.0.slot(place);
                let is_gone = slot.sub.kind() == Kind::Tombstone && slot.revision < compact_revision.get();
                place + usize::from(is_gone)
            }
        }
    }
}

impl One {
    /// `None` when a number does not fit.
    fn new(id: RecordId, put: &PutMeta) -> Option<Self> {
        let revision = id.revision.get();
        assert!(revision < REVISION_END, "revision {revision} does not fit the index");
        let create_back = revision.checked_sub(put.create_revision.get());
        let create_back = create_back.expect("a key is created at or before its changes");
        Some(Self {
            revision: NonZeroU64::new(revision).expect("records start at revision 2"),
            sub: slot(id, Some(put)).sub,
            value_bytes: put.value_bytes,
            create_back: u32::try_from(create_back).ok()?,
            version: u32::try_from(put.version).ok()?,
        })
    }

    fn entry(self) -> Entry {
        let revision = self.revision.get();
        let put = EntryPut {
            create_revision: Revision::new(revision - u64::from(self.create_back)),
            version: u64::from(self.version),
            leased: self.sub.kind() == Kind::LeasedPut,
        };
        Entry { id: RecordId::new(Revision::new(revision), self.sub.get()), put: Some(put) }
    }

    fn widen(self) -> Many {
        let revision = self.revision.get();
        let mut packed = Packed::with_room(2);
        packed.set_oldest(revision - u64::from(self.create_back), u64::from(self.version));
        packed.push(Slot { revision, sub: self.sub }, self.value_bytes);
        Many(packed)
    }
}

impl Changing for History {
    fn last_change(&self) -> (Revision, bool) {
        match self {
            Self::One(one) => (Revision::new(one.revision.get()), true),
            Self::Many(many) => {
                let slot = many.0.slot(many.0.len() - 1);
                (Revision::new(slot.revision), slot.sub.kind() != Kind::Tombstone)
            }
        }
    }
}

impl Many {
    fn push(&mut self, id: RecordId, put: Option<&PutMeta>) {
        let newest = self.newest();
        assert!(id > newest.id, "records of a key ascend");
        match (newest.put, put) {
            (Some(before), Some(put)) => {
                assert_eq!(put.create_revision, before.create_revision, "a put keeps the create revision");
                assert_eq!(put.version, before.version + 1, "a put counts the version up by one");
            }
            (None, Some(put)) => {
                assert_eq!(put.create_revision, id.revision, "a put after a delete creates the key");
                assert_eq!(put.version, 1, "a put after a delete starts at version 1");
                self.0.push_start();
            }
            (Some(_), None) => {}
            (None, None) => panic!("a deleted key cannot be deleted again"),
        }
        self.0.push(slot(id, put), put.map_or(0, |put| put.value_bytes));
    }

    fn newest(&self) -> Entry {
        self.entry(self.0.len() - 1)
    }

    fn entry(&self, place: usize) -> Entry {
        let slot = self.0.slot(place);
        let kind = slot.sub.kind();
        if kind == Kind::Tombstone {
            return Entry { id: slot.id(), put: None };
        }
        let (create_revision, version) = match self.0.start_of(place) {
            0 => {
                let (create_revision, version) = self.0.oldest();
                (create_revision, version + place as u64)
            }
            start => (self.0.slot(start).revision, (place - start) as u64 + 1),
        };
        let create_revision = Revision::new(create_revision);
        Entry {
            id: slot.id(),
            put: Some(EntryPut { create_revision, version, leased: kind == Kind::LeasedPut }),
        }
    }

    fn place_at(&self, revision: Revision) -> Option<usize> {
        let records = self.0.len();
        // Most reads are at the newest revision: no search.
        let behind = if self.0.slot(records - 1).revision <= revision.get() {
            records
        } else {
            self.0.partition_point(|slot| slot.revision <= revision.get())
        };
        behind.checked_sub(1)
    }

    fn drop_front(&mut self, places: usize) {
        let oldest = self.entry(places).put;
        self.0 = self.0.behind(places);
        self.0.set_oldest(
            oldest.map_or(0, |put| put.create_revision.get()),
            oldest.map_or(0, |put| put.version),
        );
    }

    /// The inline form, when there is one.
    fn narrow(&self) -> Option<One> {
        if self.0.len() > 1 {
            return None;
        }
        let slot = self.0.slot(0);
        let put = self.entry(0).put?;
        Some(One {
            revision: NonZeroU64::new(slot.revision)?,
            sub: slot.sub,
            value_bytes: self.0.value_bytes(),
            create_back: u32::try_from(slot.revision - put.create_revision.get()).ok()?,
            version: u32::try_from(put.version).ok()?,
        })
    }
}

#[cfg(test)]
mod tests;
