//! What decides between sorted keys that lie elsewhere: of each key the four bytes behind what all of them begin with.
//!
//! A search by halves through keys that are allocations of their own waits for memory at each step. Neighbours in order
//! begin alike, so that four bytes behind their common beginning tell most of them apart; these lie in one array, and a
//! search looks at one key, or at the few that have the same head.

/// The heads of sorted, distinct keys, which their owner keeps in the same order. Where a function takes `key_at`, that
/// gives the key at a place.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads {
    /// All keys begin with the same so many bytes.
    common: usize,
    /// Of each key the bytes behind `common`, big-endian, with zeros behind its end: they ascend, and may be equal.
    heads: Vec<u32>,
}

fn head(key: &[u8], common: usize) -> u32 {
    let rest = &key[common..];
    if let Some(bytes) = rest.first_chunk() {
        return u32::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 4];
    bytes[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(bytes)
}

/// How many bytes two keys begin with alike.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

impl Heads {
    /// Of so many keys.
    pub(super) fn of<'a>(len: usize, key_at: impl Fn(usize) -> &'a [u8]) -> Self {
        let mut heads = Self { common: 0, heads: Vec::new() };
        heads.renew(len, key_at);
        heads
    }

    /// The place of a key, or where it would be.
    pub(super) fn search<'a>(&self, key: &[u8], key_at: impl Fn(usize) -> &'a [u8]) -> Result<usize, usize> {
        if self.heads.is_empty() {
            return Err(0);
        }
        let beginning = &key_at(0)[..self.common];
        let Some(start) = key.get(..self.common) else {
            return Err(if key < beginning { 0 } else { self.heads.len() });
        };
        if start != beginning {
            return Err(if start < beginning { 0 } else { self.heads.len() });
        }
        let head = head(key, self.common);
        let from = self.heads.partition_point(|other| *other < head);
        let equal = self.heads[from..].iter().take_while(|other| **other == head).count();
        let mut places = from..from + equal;
        while !places.is_empty() {
            let middle = places.start + places.len() / 2;
            match key_at(middle).cmp(key) {
                std::cmp::Ordering::Less => places.start = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => places.end = middle,
            }
        }
        Err(places.start)
    }

    /// A key was inserted at `place`; `key_at` knows it, and gives `None` behind the last key.
    pub(super) fn insert<'a>(&mut self, place: usize, key_at: impl Fn(usize) -> Option<&'a [u8]>) {
        let at = |place| key_at(place).expect("the owner has this many keys");
        let len = self.heads.len() + 1;
        let (key, neighbour) = (at(place), key_at(if place == 0 { 1 } else { 0 }));
        // A single key begins like all keys: what is common shows with the second.
        let shared = neighbour.map_or(0, |other| common(key, other));
        if len <= 2 || shared < self.common {
            self.renew(len, at);
        } else {
            self.heads.insert(place, head(key, self.common));
        }
    }

    /// The key at `place` was removed.
    pub(super) fn remove(&mut self, place: usize) {
        self.heads.remove(place);
    }

    pub(super) fn reserve_exact(&mut self, more: usize) {
        self.heads.reserve_exact(more);
    }

    pub(super) fn shrink_to(&mut self, capacity: usize) {
        self.heads.shrink_to(capacity);
    }

    fn renew<'a>(&mut self, len: usize, key_at: impl Fn(usize) -> &'a [u8]) {
        // Sorted: what the first and the last have in common, all have.
        self.common = if len < 2 { 0 } else { common(key_at(0), key_at(len - 1)) };
        self.heads.clear();
        self.heads.reserve_exact(len);
        self.heads.extend((0..len).map(|place| head(key_at(place), self.common)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few different bytes, zeros among them, so that keys are prefixes of each other and heads are equal.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255)], 0..14)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_search_is_that_of_the_keys(
            beginning in key(),
            keys in proptest::collection::vec((key(), any::<bool>()), 0..60),
            asked in proptest::collection::vec(key(), 0..30),
        ) {
            let mut sorted: Vec<Vec<u8>> = Vec::new();
            let mut heads = Heads::default();
            let whole = |key: &[u8]| [&beginning, key].concat();
            for (key, is_alike) in keys {
                let key = if is_alike { whole(&key) } else { key };
                let found = heads.search(&key, |place| &sorted[place]);
                prop_assert_eq!(found, sorted.binary_search(&key));
                match found {
                    Ok(place) => {
                        sorted.remove(place);
                        heads.remove(place);
                    }
                    Err(place) => {
                        sorted.insert(place, key);
                        heads.insert(place, |place| sorted.get(place).map(|key| &**key));
                    }
                }
            }
            for key in asked.iter().flat_map(|key| [key.clone(), whole(key)]).chain(sorted.clone()) {
                prop_assert_eq!(heads.search(&key, |place| &sorted[place]), sorted.binary_search(&key));
            }
        }
    }
}
