//! A long list in key order, piece by piece, so that nobody ever holds all of it.

use bytes::Bytes;

use crate::range::{CHUNK_KEYS, RangeSource, count_behind, fetch_one};
use crate::types::{KeyRange, KeyValue, Revision};

/// What a pair costs beside its key and value, for [`PieceMax::bytes`]: about its numbers on the wire.
const PAIR_BYTES: usize = 32;

/// A step visits no fewer keys: some may not be alive, and each step takes the index's lock.
const CHUNK_KEYS_MIN: usize = 64;

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
        if !max.keys_only {
            source.ahead(&chunk.keys)?;
        }
        for key in chunk.keys {
            if piece.kvs.len() == max.keys || bytes > max.bytes {
                piece.next = piece.kvs.last().map(|last| last.key.clone());
                return Ok(piece);
            }
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

/// How many keys of `range` are alive at `at` behind `after` (exclusive).
pub fn count<S: RangeSource>(
    source: &mut S,
    range: &KeyRange,
    at: Revision,
    after: Option<&Bytes>,
) -> Result<u64, S::Error> {
    count_behind(source, range, at, after.cloned())
}
