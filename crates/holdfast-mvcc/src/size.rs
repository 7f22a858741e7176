//! The logical size of the store: the bytes of all retained records.
//!
//! A compaction must say at once how much it frees, equally on every member, although the index is cleaned up later and
//! at each member's own pace. So the garbage is written down as it arises: when a record replaces a put, the put is
//! dropped by the first compaction at or above the new record's revision; a tombstone is dropped by the first one above
//! its own. Both come in ascending order of revision, and a compaction takes them from the front.

use std::collections::VecDeque;

use crate::types::Revision;
use crate::varint;

/// What a record costs beside its key and its value, in logical bytes: ids, numbers, checksums, index.
pub(crate) const RECORD_BYTES: u64 = 64;

const CHUNK_BYTES: usize = 4096;
/// Two varints of at most ten bytes.
const PAIR_BYTES_MAX: usize = 20;
/// What one pair counts is far below: a key, a value and what a record costs.
const PAIR_SUM_MAX: u64 = 1 << 40;

/// The logical bytes of one record.
pub(crate) fn record_bytes(key: &[u8], value_bytes: u32) -> u64 {
    RECORD_BYTES + key.len() as u64 + u64::from(value_bytes)
}

/// A queue of a [`LogicalSize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    ReplacedPuts,
    Tombstones,
}

/// The sum over all retained records, and what future compactions take from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogicalSize {
    total: u64,
    replaced_puts: Garbage,
    tombstones: Garbage,
}

impl LogicalSize {
    /// So large, with no garbage yet.
    pub(crate) fn of(total: u64) -> Self {
        Self { total, ..Self::default() }
    }
    /// The bytes that compactions will take in the end.
    pub(crate) fn garbage(&self) -> u64 {
        [&self.replaced_puts, &self.tombstones]
            .iter()
            .flat_map(|queue| &queue.chunks)
            .map(|chunk| chunk.bytes)
            .sum()
    }
    /// Appends one chunk of a queue, up to `through`: `first revision v | length v | pairs`. False when there is none
    /// with this number. Numbers stay the same until the next compaction.
    pub(crate) fn save(&self, queue: Queue, chunk: usize, through: Revision, out: &mut Vec<u8>) -> bool {
        let Some(chunk) = self.queue(queue).chunks.get(chunk) else { return false };
        let end = chunk.end_of(through.get());
        if end > chunk.read {
            varint::write(out, chunk.read_revision);
            varint::write(out, (end - chunk.read) as u64);
            out.extend_from_slice(&chunk.encoded[chunk.read..end]);
        }
        true
    }
    /// Takes a chunk off the front of `input`. `None` when it is not one that [`LogicalSize::save`] wrote up to
    /// `through`, or does not follow what is there.
    pub(crate) fn load(&mut self, queue: Queue, through: Revision, input: &mut &[u8]) -> Option<()> {
        let mut revision = varint::take(input)?;
        let length = usize::try_from(varint::take(input)?).ok()?;
        let (mut pairs, rest) = input.split_at_checked(length)?;
        *input = rest;
        let queue = match queue {
            Queue::ReplacedPuts => &mut self.replaced_puts,
            Queue::Tombstones => &mut self.tombstones,
        };
        if queue.chunks.back().is_some_and(|last| last.last_revision > revision) {
            return None;
        }
        while !pairs.is_empty() {
            revision = revision.checked_add(varint::take(&mut pairs)?)?;
            let bytes = varint::take(&mut pairs)?;
            if revision > through.get() || bytes > PAIR_SUM_MAX {
                return None;
            }
            queue.push(revision, bytes);
        }
        Some(())
    }
    fn queue(&self, queue: Queue) -> &Garbage {
        match queue {
            Queue::ReplacedPuts => &self.replaced_puts,
            Queue::Tombstones => &self.tombstones,
        }
    }
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
        varint::write(&mut chunk.encoded, step);
        varint::write(&mut chunk.encoded, bytes);
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
    /// Behind the unread pairs up to and including `revision`.
    fn end_of(&self, revision: u64) -> usize {
        if self.last_revision <= revision {
            return self.encoded.len();
        }
        let (mut end, mut at) = (self.read, self.read_revision);
        loop {
            let mut next = end;
            at += varint::read(&self.encoded, &mut next);
            if at > revision {
                return end;
            }
            varint::read(&self.encoded, &mut next);
            end = next;
        }
    }

    fn release(&mut self, revision: u64) -> u64 {
        let mut released = 0;
        loop {
            let mut read = self.read;
            let next_revision = self.read_revision + varint::read(&self.encoded, &mut read);
            if next_revision > revision {
                return released;
            }
            let bytes = varint::read(&self.encoded, &mut read);
            released += bytes;
            self.bytes -= bytes;
            self.read_revision = next_revision;
            self.read = read;
        }
    }
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
