//! Checksums that members compare: of the history ([`HistoryHasher`]) and of the state (`Mixer`).

use crate::types::{Change, Record, RecordId};

/// Hashes a history record by record, so that members with the same compact revision get the same hash for the same
/// revision. Feed the retained records (`State::is_retained`) up to the revision to hash, ascending by id.
///
/// # What is hashed
/// CRC-32C over the bytes `holdfast history 1`, then per record: mod revision, sub (`u32`), key length (`u32`), key,
/// and a kind byte: 0 for a delete; 1 for a put, followed by create revision, version, lease (0 for none), value
/// length (`u32`) and value. Numbers are little-endian, `u64` where not said otherwise.
#[derive(Debug, Clone)]
pub struct HistoryHasher {
    crc: u32,
    last: Option<RecordId>,
}

impl Default for HistoryHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl HistoryHasher {
    /// The hash of an empty history; not 0.
    pub fn new() -> Self {
        Self { crc: crc32c::crc32c(b"holdfast history 1"), last: None }
    }

    /// Adds the next record. Panics when its id is not above the one before.
    pub fn record(&mut self, record: &Record) {
        assert!(self.last < Some(record.id), "records are hashed in ascending order");
        self.last = Some(record.id);
        self.bytes(&record.id.revision.get().to_le_bytes());
        self.bytes(&record.id.sub.to_le_bytes());
        self.sized(&record.key);
        match &record.change {
            Change::Delete => self.bytes(&[0]),
            Change::Put(put) => {
                self.bytes(&[1]);
                self.bytes(&put.create_revision.get().to_le_bytes());
                self.bytes(&put.version.to_le_bytes());
                self.bytes(&put.lease.map_or(0, |lease| lease.0).to_le_bytes());
                self.sized(&put.value);
            }
        }
    }

    /// The hash of what was added.
    pub fn finish(&self) -> u32 {
        self.crc
    }

    fn sized(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("keys and values are far below 4 GiB");
        self.bytes(&length.to_le_bytes());
        self.bytes(bytes);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

/// A 64-bit digest of numbers and byte strings, in order. Not against an adversary.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mixer {
    state: u64,
}

impl Mixer {
    pub(crate) fn number(&mut self, number: u64) {
        // The odd constant is 2^64 divided by the golden ratio: it spreads each bit over the upper half.
        self.state = (self.state.rotate_left(23) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.number(u64::from(crc32c::crc32c(bytes)));
    }

    pub(crate) fn finish(&self) -> u64 {
        // The multiplication moves entropy up only; fold it down again.
        self.state ^ (self.state >> 32)
    }
}

#[cfg(test)]
mod tests {
    //! The encoding is pinned: members of different builds compare hashes.

    use bytes::Bytes;

    use super::*;
    use crate::types::{LeaseId, PutRecord, Revision};

    fn put(revision: u64, key: &'static str, lease: Option<LeaseId>) -> Record {
        Record {
            id: RecordId::new(Revision::new(revision), 0),
            key: Bytes::from_static(key.as_bytes()),
            change: Change::Put(PutRecord {
                create_revision: Revision::new(2),
                version: 1,
                lease,
                value: Bytes::from_static(b"v"),
            }),
        }
    }

    fn hash(records: &[Record]) -> u32 {
        let mut hasher = HistoryHasher::new();
        records.iter().for_each(|record| hasher.record(record));
        hasher.finish()
    }

    #[test]
    fn the_encoding_is_the_documented_one() {
        let mut bytes = b"holdfast history 1".to_vec();
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'k', 1]);
        bytes.extend([
            2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'v',
        ]);
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, b'k', 0]);
        let delete = Record {
            id: RecordId::new(Revision::new(3), 5),
            key: Bytes::from_static(b"k"),
            change: Change::Delete,
        };
        assert_eq!(hash(&[put(2, "k", Some(LeaseId(7))), delete]), crc32c::crc32c(&bytes));
    }

    #[test]
    fn an_empty_history_has_a_hash() {
        assert_ne!(hash(&[]), 0);
    }

    #[test]
    fn each_part_of_a_record_counts() {
        let hashes = [
            hash(&[put(2, "k", None)]),
            hash(&[put(3, "k", None)]),
            hash(&[put(2, "l", None)]),
            hash(&[put(2, "k", Some(LeaseId(1)))]),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash));
        }
    }

    #[test]
    #[should_panic(expected = "ascending order")]
    fn a_record_twice_stops_the_process() {
        hash(&[put(2, "k", None), put(2, "k", None)]);
    }
}
