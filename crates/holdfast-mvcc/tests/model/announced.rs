//! What is announced of an answer, against the answer.

use std::ops::ControlFlow;

use holdfast_mvcc::command::{Range, RangeResponse};
use holdfast_mvcc::types::{KeyValue, Revision};
use holdfast_mvcc::{Announced, IndexedKey, IndexedLease, Pairs, RangeSource, range_into};

/// Keeps the pairs, and what was said of them.
#[derive(Default)]
struct Announcing {
    pairs: Vec<KeyValue>,
    announced: Option<(Vec<IndexedKey>, bool, bool, u64)>,
}

impl Pairs for Announcing {
    fn begin(&mut self, announced: &Announced<'_>) {
        let Announced { keys, keys_only, more, count } = *announced;
        assert!(self.announced.is_none() && self.pairs.is_empty(), "once, before the first pair");
        self.announced = Some((keys.to_vec(), keys_only, more, count));
    }
    fn push(&mut self, pair: KeyValue) -> ControlFlow<()> {
        self.pairs.push(pair);
        ControlFlow::Continue(())
    }
}

/// As `holdfast_mvcc::range`, and checks what is announced.
pub(super) fn range<S: RangeSource>(
    source: &mut S,
    request: &Range,
    at: Revision,
) -> Result<RangeResponse, S::Error> {
    let RangeResponse { kvs, more, count } = range_into(source, request, at, Announcing::default())?;
    let Announcing { pairs: kvs, announced } = kvs;
    if let Some((keys, keys_only, ..)) = &announced {
        assert_eq!(announced, Some((keys.clone(), request.keys_only, more, count)));
        assert_eq!(keys.len(), kvs.len());
        for (key, pair) in keys.iter().zip(&kvs) {
            let of_pair = (&pair.key, pair.mod_revision, pair.create_revision, pair.version);
            assert_eq!((&key.key, key.id.revision, key.create_revision, key.version), of_pair);
            if let IndexedLease::Known(lease) = key.lease {
                assert_eq!(lease, pair.lease);
            }
            if let Some(value_bytes) = key.value_bytes {
                assert!(*keys_only || value_bytes as usize == pair.value.len());
            }
        }
    }
    Ok(RangeResponse { kvs, more, count })
}
