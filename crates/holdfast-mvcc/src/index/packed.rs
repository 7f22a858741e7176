//! The records of one key in a single allocation.
//!
//! # Layout
//! A boxed slice of 16-bit parts, numbers in little-endian order of parts:
//!
//! ```text
//! parts   0..2   how many records
//!         2..4   how many later generations
//!         4..6   the length of the newest put's value in bytes; 0 when the newest record is a tombstone
//!         6..9   the create revision of the oldest record; 0 when that is a tombstone
//!         9..12  the version of the oldest record; 0 when that is a tombstone
//!        12..    5 parts per record, ascending: revision (3), sub with flags (2)
//!          ..    free
//!          ..end 2 parts per later generation: the place of its first record; the first one is outermost
//! ```
//!
//! One allocation instead of three (records, generations, header) saves two pointers, two capacities and the
//! allocator's own overhead, which is what keeps a key with two records within its budget.

use crate::types::{RecordId, Revision};

/// The first revision that the index cannot hold. At 100,000 revisions a second it is 89 years away.
pub(crate) const REVISION_END: u64 = Revision::END.get();

const RECORDS: usize = 0;
const STARTS: usize = 2;
const VALUE_BYTES: usize = 4;
const OLDEST_CREATE: usize = 6;
const OLDEST_VERSION: usize = 9;
const HEADER: usize = 12;
const SLOT: usize = 5;
const START: usize = 2;

const TOMBSTONE: u32 = 1 << 31;
const LEASED: u32 = 1 << 30;
const SUB_MASK: u32 = LEASED - 1;

/// The first place within a revision that the index cannot hold.
pub(crate) const SUB_END: u32 = LEASED;

/// A record's place within its revision, with what kind of record it is in the top two bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sub(u32);

/// What kind of record a [`Sub`] belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Put,
    LeasedPut,
    Tombstone,
}

/// One record: when it happened and what it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) revision: u64,
    pub(crate) sub: Sub,
}

/// See the module's layout.
#[derive(Debug, Clone)]
pub(crate) struct Packed(Box<[u16]>);

impl Sub {
    pub(crate) fn new(sub: u32, kind: Kind) -> Self {
        assert!(sub <= SUB_MASK, "at most 2^30 records in one revision");
        match kind {
            Kind::Put => Self(sub),
            Kind::LeasedPut => Self(sub | LEASED),
            Kind::Tombstone => Self(sub | TOMBSTONE),
        }
    }
    pub(crate) fn get(self) -> u32 {
        self.0 & SUB_MASK
    }
    pub(crate) fn kind(self) -> Kind {
        match (self.0 & TOMBSTONE != 0, self.0 & LEASED != 0) {
            (true, _) => Kind::Tombstone,
            (false, true) => Kind::LeasedPut,
            (false, false) => Kind::Put,
        }
    }
}

impl Slot {
    pub(crate) fn id(self) -> RecordId {
        RecordId::new(Revision::new(self.revision), self.sub.get())
    }
}

impl Packed {
    /// No records yet, and room for `records`.
    pub(crate) fn with_room(records: usize) -> Self {
        Self(vec![0; round_up(HEADER + SLOT * records)].into_boxed_slice())
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.count(RECORDS)
    }

    pub(crate) fn slot(&self, place: usize) -> Slot {
        assert!(place < self.len(), "only records that exist are looked at");
        let at = HEADER + SLOT * place;
        let sub = u32::from(self.0[at + 3]) | u32::from(self.0[at + 4]) << 16;
        Slot { revision: self.long(at), sub: Sub(sub) }
    }

    /// Adds a record behind the newest, with the length of its value.
    pub(crate) fn push(&mut self, slot: Slot, value_bytes: u32) {
        let records = self.len();
        // A quarter more: amortised, and within the budget of 16 bytes per further revision.
        self.make_room(SLOT, SLOT * (records / 4));
        let at = HEADER + SLOT * records;
        self.set_long(at, slot.revision);
        self.set_word(at + 3, slot.sub.0);
        self.set_count(RECORDS, records + 1);
        self.set_word(VALUE_BYTES, value_bytes);
    }

    /// Lets a generation start at the next record.
    pub(crate) fn push_start(&mut self) {
        let starts = self.count(STARTS);
        self.make_room(START + SLOT, START * (starts / 4));
        let at = self.0.len() - START * (starts + 1);
        let place = self.len();
        self.set_count(at, place);
        self.set_count(STARTS, starts + 1);
    }

    /// Where the generation that holds `place` starts.
    pub(crate) fn start_of(&self, place: usize) -> usize {
        let (mut low, mut high) = (0, self.count(STARTS));
        while low < high {
            let middle = low.midpoint(high);
            if self.start(middle) <= place {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1).map_or(0, |last| self.start(last))
    }

    /// How many records satisfy a condition that holds for the first ones only.
    pub(crate) fn partition_point(&self, holds: impl Fn(Slot) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if holds(self.slot(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Create revision and version of the oldest record.
    pub(crate) fn oldest(&self) -> (u64, u64) {
        (self.long(OLDEST_CREATE), self.long(OLDEST_VERSION))
    }

    pub(crate) fn set_oldest(&mut self, create_revision: u64, version: u64) {
        self.set_long(OLDEST_CREATE, create_revision);
        self.set_long(OLDEST_VERSION, version);
    }

    pub(crate) fn value_bytes(&self) -> u32 {
        self.word(VALUE_BYTES)
    }

    /// The records from `place` on, without the numbers of the oldest.
    pub(crate) fn behind(&self, place: usize) -> Self {
        let mut behind = Self::with_room(self.len() - place + self.count(STARTS));
        for at in place..self.len() {
            if at > place && self.start_of(at) == at {
                behind.push_start();
            }
            behind.push(self.slot(at), self.value_bytes());
        }
        behind
    }

    fn start(&self, number: usize) -> usize {
        self.count(self.0.len() - START * (number + 1))
    }

    fn make_room(&mut self, parts: usize, parts_ahead: usize) {
        let front = HEADER + SLOT * self.len();
        let back = START * self.count(STARTS);
        if front + parts + back <= self.0.len() {
            return;
        }
        let length = round_up(front + parts + parts_ahead + back);
        let mut grown = vec![0; length].into_boxed_slice();
        grown[..front].copy_from_slice(&self.0[..front]);
        grown[length - back..].copy_from_slice(&self.0[self.0.len() - back..]);
        self.0 = grown;
    }

    fn word(&self, at: usize) -> u32 {
        u32::from(self.0[at]) | u32::from(self.0[at + 1]) << 16
    }

    #[expect(clippy::cast_possible_truncation, reason = "cut to 16 bits on purpose")]
    fn set_word(&mut self, at: usize, word: u32) {
        self.0[at] = word as u16;
        self.0[at + 1] = (word >> 16) as u16;
    }

    fn long(&self, at: usize) -> u64 {
        u64::from(self.word(at)) | u64::from(self.0[at + 2]) << 32
    }

    #[expect(clippy::cast_possible_truncation, reason = "cut to 16 and 32 bits on purpose")]
    fn set_long(&mut self, at: usize, long: u64) {
        assert!(long < REVISION_END, "{long} does not fit the index");
        self.set_word(at, long as u32);
        self.0[at + 2] = (long >> 32) as u16;
    }

    fn count(&self, at: usize) -> usize {
        self.word(at) as usize
    }

    fn set_count(&mut self, at: usize, count: usize) {
        let count = u32::try_from(count).expect("a key has less than 2^32 retained records");
        self.set_word(at, count);
    }
}

/// Up to what common allocators give out anyway: a multiple of 16 bytes, less one word of theirs.
fn round_up(parts: usize) -> usize {
    (parts + 4).next_multiple_of(8) - 4
}
