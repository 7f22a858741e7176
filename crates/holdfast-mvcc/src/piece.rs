//! A long list in key order, piece by piece, so that nobody ever holds all of it.

use bytes::Bytes;

use crate::range::{CHUNK_KEYS, RangeSource, count_behind, fetch_one};
use crate::types::{KeyRange, KeyValue, Revision};

/// What a pair costs beside its key and value, for [`PieceMax::bytes`]: about its numbers on the wire.
const PAIR_BYTES: usize = 32;

/// A step visits no fewer keys: some may not be alive, and each step takes the index's lock.
const CHUNK_KEYS_MIN: usize = 64;

/// So many values are announced before it is known how large they are.
const FIRST_KEYS: usize = 4;

/// How much a piece holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceMax {
    /// At most so many keys; not 0.
    pub keys: usize,
    /// A piece ends with the pair that exceeds it: so it holds at least one.
    pub bytes: usize,
    /// Keys and their numbers without their values.
    pub keys_only: bool,
}

/// Some pairs of a range, ascending by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// The pairs.
    pub kvs: Vec<KeyValue>,
    /// Where to go on (pass as `after`); `None` when there is no further key.
    pub next: Option<Bytes>,
}

/// The next pairs of `range` alive at `at`, which the caller has resolved and found readable, behind `after` (exclusive).
///
/// Panics when no key is allowed.
pub fn piece<S: RangeSource>(
    source: &mut S,
    range: &KeyRange,
    at: Revision,
    after: Option<&Bytes>,
    max: &PieceMax,
) -> Result<Piece, S::Error> {
    assert!(max.keys > 0, "a piece holds at least one key");
    let mut piece = Piece { kvs: Vec::new(), next: after.cloned() };
    let mut bytes = 0;
    loop {
        // One more than is taken, to see whether there is one.
        let keys_max = (max.keys - piece.kvs.len()).saturating_add(1).clamp(CHUNK_KEYS_MIN, CHUNK_KEYS);
        let chunk = source.chunk(range, piece.next.as_ref(), at, keys_max)?;
        let mut keys = chunk.keys.into_iter();
        let mut announced = 0;
        while !keys.as_slice().is_empty() {
            if piece.kvs.len() == max.keys || bytes > max.bytes {
                piece.next = piece.kvs.last().map(|last| last.key.clone());
                return Ok(piece);
            }
            if announced == 0 && !max.keys_only {
                announced = likely(piece.kvs.len(), bytes, max).min(keys.len());
                announced = source.ahead(&keys.as_slice()[..announced])?;
            }
            let Some(key) = keys.next() else { break };
            announced = announced.saturating_sub(1);
            let pair = fetch_one(source, key, max.keys_only)?;
            bytes += pair.key.len() + pair.value.len() + PAIR_BYTES;
            piece.kvs.push(pair);
        }
        piece.next = chunk.next;
        if piece.next.is_none() {
            return Ok(piece);
        }
    }
}

/// How many more pairs a piece will hold, going by those that it holds: what is announced is read, also when it is not taken.
fn likely(taken: usize, bytes: usize, max: &PieceMax) -> usize {
    let pair_bytes = bytes.checked_div(taken).filter(|bytes| *bytes > 0);
    let by_bytes = pair_bytes.map_or(FIRST_KEYS, |pair_bytes| (max.bytes - bytes) / pair_bytes + 1);
    by_bytes.min(max.keys - taken)
}

/// How many keys of `range` are alive at `at` behind `after` (exclusive).
pub fn count<S: RangeSource>(
    source: &mut S,
    range: &KeyRange,
    at: Revision,
    after: Option<&Bytes>,
) -> Result<u64, S::Error> {
    count_behind(source, range, at, after.cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardly_more_is_announced_than_a_piece_takes() {
        let max = PieceMax { keys: 1_000, bytes: 100_000, keys_only: false };
        assert_eq!(likely(0, 0, &max), FIRST_KEYS);
        assert_eq!(likely(4, 4_000, &max), 97);
        assert_eq!(likely(1, 100_000, &max), 1, "one more exceeds it");
        assert_eq!(likely(990, 990, &max), 10, "as many as there may be");
    }
}
