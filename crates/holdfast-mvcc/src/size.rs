//! The logical size of the store: the bytes of all retained records.
//!
//! A compaction must say at once how much it frees, equally on every member, although the index is cleaned up later and
//! at each member's own pace. So the garbage is written down as it arises: when a record replaces a put, the put is
//! dropped by the first compaction at or above the new record's revision; a tombstone is dropped by the first one above
//! its own. Both come in ascending order of revision, and a compaction takes them from the front.

use std::collections::VecDeque;

use crate::types::Revision;

/// What a record costs beside its key and its value, in logical bytes: ids, numbers, checksums, index.
pub(crate) const RECORD_BYTES: u64 = 64;

const CHUNK_BYTES: usize = 4096;
/// Two varints of at most ten bytes.
const PAIR_BYTES_MAX: usize = 20;

/// The logical bytes of one record.
pub(crate) fn record_bytes(key: &[u8], value_bytes: u32) -> u64 {
    RECORD_BYTES + key.len() as u64 + u64::from(value_bytes)
}

/// The sum over all retained records, and what future compactions take from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogicalSize {
    total: u64,
    replaced_puts: Garbage,
    tombstones: Garbage,
}

impl LogicalSize {
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
    /// A record came into being.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.total += bytes;
    }
    /// A record that was counted is not retained any more.
    pub(crate) fn remove(&mut self, bytes: u64) {
        self.total = self.total.checked_sub(bytes).expect("only counted records are removed");
    }
    /// A put of so many bytes was replaced or deleted at `revision`.
    pub(crate) fn replaced_at(&mut self, revision: Revision, bytes: u64) {
        self.replaced_puts.push(revision.get(), bytes);
    }
    /// A tombstone of so many bytes was written at `revision`.
    pub(crate) fn tombstone_at(&mut self, revision: Revision, bytes: u64) {
        self.tombstones.push(revision.get(), bytes);
    }
    /// Takes away what is not retained with this compact revision.
    pub(crate) fn compact(&mut self, compact_revision: Revision) {
        let compact = compact_revision.get();
        let puts = self.replaced_puts.release(compact);
        let tombstones = compact.checked_sub(1).map_or(0, |below| self.tombstones.release(below));
        self.remove(puts + tombstones);
    }
}

/// Pairs of (revision, bytes), revisions ascending, as varints in chunks: about 4 bytes a pair.
#[derive(Debug, Clone, Default)]
struct Garbage {
    chunks: VecDeque<Chunk>,
}

#[derive(Debug, Clone)]
struct Chunk {
    /// The revision that the next unread pair's difference counts from.
    read_revision: u64,
    /// The first unread byte of `encoded`.
    read: usize,
    /// The revision of the last pair.
    last_revision: u64,
    /// The bytes of all unread pairs together.
    bytes: u64,
    encoded: Vec<u8>,
}

impl Garbage {
    fn push(&mut self, revision: u64, bytes: u64) {
        let has_room = |chunk: &Chunk| chunk.encoded.len() + PAIR_BYTES_MAX <= CHUNK_BYTES;
        if !self.chunks.back().is_some_and(has_room) {
            self.chunks.push_back(Chunk {
                read_revision: revision,
                read: 0,
                last_revision: revision,
                bytes: 0,
                encoded: Vec::with_capacity(CHUNK_BYTES),
            });
        }
        let chunk = self.chunks.back_mut().expect("a chunk with room was made");
        let step = revision.checked_sub(chunk.last_revision).expect("revisions ascend");
        write_varint(&mut chunk.encoded, step);
        write_varint(&mut chunk.encoded, bytes);
        chunk.last_revision = revision;
        chunk.bytes += bytes;
    }

    /// Removes all pairs up to and including `revision` and answers their sum.
    fn release(&mut self, revision: u64) -> u64 {
        let mut released = 0;
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.last_revision > revision {
                return released + chunk.release(revision);
            }
            released += chunk.bytes;
            self.chunks.pop_front();
        }
        released
    }
}

impl Chunk {
    fn release(&mut self, revision: u64) -> u64 {
        let mut released = 0;
        loop {
            let mut read = self.read;
            let next_revision = self.read_revision + read_varint(&self.encoded, &mut read);
            if next_revision > revision {
                return released;
            }
            let bytes = read_varint(&self.encoded, &mut read);
            released += bytes;
            self.bytes -= bytes;
            self.read_revision = next_revision;
            self.read = read;
        }
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn read_varint(encoded: &[u8], place: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = encoded[*place];
        *place += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    //! The queue against plain sums.

    use super::*;

    #[test]
    fn a_release_takes_exactly_what_lies_at_or_below() {
        let pairs: Vec<(u64, u64)> = (0..5000)
            .map(|i| (i / 3 * 7, if i % 50 == 0 { u64::MAX >> 20 } else { i * 31 % 5000 }))
            .collect();
        let mut garbage = Garbage::default();
        for &(revision, bytes) in &pairs {
            garbage.push(revision, bytes);
        }
        let mut below = 0;
        for bound in [0, 1, 6, 7, 8, 3000, 3000, 9999, 11_661, 11_662, 20_000] {
            let expected: u64 =
                pairs.iter().filter(|pair| pair.0 <= bound).map(|pair| pair.1).sum::<u64>() - below;
            assert_eq!(garbage.release(bound), expected, "up to {bound}");
            below += expected;
        }
        assert!(garbage.chunks.is_empty());
    }
}
