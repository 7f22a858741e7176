//! An ordered map from keys to small values that wastes little memory and is searched with few cache misses.
//!
//! A B-tree of the standard library, filled in ascending order, leaves its nodes half empty, which costs as much again
//! as the entries, and a search in it follows a pointer for each key that it compares. Here entries lie in sorted
//! *leaves* that grow by a few entries at a time; beside the keys of a leaf lie their [`Heads`], which almost always
//! decide. The leaves lie in one array, each from the second on under its lower *bound*: a leaf covers the keys from its
//! bound up to the next leaf's, the first one all below the first bound.

use std::ops::Bound;

use super::heads::Heads;

/// Where a leaf is split. Inserting moves half a leaf on average: 5 KiB at 44 bytes an entry, about 100 ns; a split moves
/// the array of leaves, 72 bytes for each 256 keys, and happens once in 128 insertions.
const LEAF_ENTRIES_MAX: usize = 256;
/// By how many entries a full leaf grows: few sizes, so that the allocator can use again what a leaf outgrew.
const LEAF_GROWTH: usize = LEAF_ENTRIES_MAX / 8;

type Entry<V> = (Box<[u8]>, V);

/// Keys in unsigned bytewise order.
#[derive(Debug, Clone)]
pub(crate) struct KeyMap<V> {
    /// Never empty.
    leaves: Vec<Leaf<V>>,
    /// The lower bounds of the leaves behind the first.
    bounds: Vec<Box<[u8]>>,
    heads: Heads,
    len: usize,
}

#[derive(Debug, Clone)]
struct Leaf<V> {
    entries: Vec<Entry<V>>,
    heads: Heads,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { leaves: vec![Leaf::of(Vec::new())], bounds: Vec::new(), heads: Heads::default(), len: 0 }
    }
}

impl<V> KeyMap<V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let leaf = &self.leaves[self.leaf_of(key)];
        let place = leaf.search(key).ok()?;
        Some(&leaf.entries[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let number = self.leaf_of(key);
        let leaf = &mut self.leaves[number];
        let place = leaf.search(key).ok()?;
        Some(&mut leaf.entries[place].1)
    }

    /// Adds a key that is not there yet.
    pub(crate) fn insert(&mut self, key: Box<[u8]>, value: V) {
        self.len += 1;
        let number = self.leaf_of(&key);
        let leaf = &mut self.leaves[number];
        let Err(place) = leaf.search(&key) else { panic!("the key is new") };
        if leaf.entries.len() < LEAF_ENTRIES_MAX {
            leaf.insert_at(place, (key, value));
        } else if place == leaf.entries.len() {
            // Ascending keys: the full leaf stays full.
            self.add_leaf(number + 1, vec![(key, value)]);
        } else {
            let mut lower = std::mem::take(&mut leaf.entries);
            let mut upper = lower.split_off(LEAF_ENTRIES_MAX / 2);
            let (half, place) = if place <= lower.len() {
                (&mut lower, place)
            } else {
                let place = place - lower.len();
                (&mut upper, place)
            };
            // Not by doubling.
            half.reserve_exact(1);
            half.insert(place, (key, value));
            for half in [&mut lower, &mut upper] {
                let capacity = half.len().next_multiple_of(LEAF_GROWTH);
                half.shrink_to(capacity);
                half.reserve_exact(capacity - half.len());
            }
            *leaf = Leaf::of(lower);
            self.add_leaf(number + 1, upper);
        }
    }

    /// Adds a key that is behind all others, without a search.
    pub(crate) fn append(&mut self, key: Box<[u8]>, value: V) {
        self.len += 1;
        let number = self.leaves.len();
        let leaf = &mut self.leaves[number - 1];
        assert!(leaf.entries.last().is_none_or(|(last, _)| *last < key), "the key is behind all others");
        if leaf.entries.len() < LEAF_ENTRIES_MAX {
            leaf.insert_at(leaf.entries.len(), (key, value));
        } else {
            self.add_leaf(number, vec![(key, value)]);
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let number = self.leaf_of(key);
        let leaf = &mut self.leaves[number];
        let place = leaf.search(key).ok()?;
        let (_, value) = leaf.entries.remove(place);
        leaf.heads.remove(place);
        if leaf.entries.capacity() >= leaf.entries.len() + 2 * LEAF_GROWTH {
            let capacity = leaf.entries.len().next_multiple_of(LEAF_GROWTH);
            leaf.entries.shrink_to(capacity);
            leaf.heads.shrink_to(capacity);
        }
        if leaf.entries.len() < LEAF_ENTRIES_MAX / 4 {
            self.merge(number);
        }
        self.len -= 1;
        Some(value)
    }

    /// The entries behind a bound, ascending.
    pub(crate) fn range<'a>(&'a self, from: Bound<&'a [u8]>) -> impl Iterator<Item = (&'a [u8], &'a V)> + 'a {
        let (number, place) = match from {
            Bound::Included(key) | Bound::Excluded(key) => {
                let number = self.leaf_of(key);
                let place = match (self.leaves[number].search(key), from) {
                    (Ok(place), Bound::Excluded(_)) => place + 1,
                    (Ok(place) | Err(place), _) => place,
                };
                (number, place)
            }
            Bound::Unbounded => (0, 0),
        };
        let first = &self.leaves[number].entries[place..];
        let rest = self.leaves[number + 1..].iter().flat_map(|leaf| &leaf.entries);
        first.iter().chain(rest).map(|(key, value)| (&**key, value))
    }

    /// The entries of at least one leaf behind a bound, ascending; `None` behind the last.
    pub(super) fn leaf_behind(&mut self, from: Bound<&[u8]>) -> Option<&mut [Entry<V>]> {
        let (key, _) = self.range(from).next()?;
        let key: Box<[u8]> = key.into();
        let number = self.leaf_of(&key);
        let leaf = &mut self.leaves[number];
        let place = leaf.search(&key).expect("just seen");
        Some(&mut leaf.entries[place..])
    }

    /// The number of the leaf that covers a key.
    fn leaf_of(&self, key: &[u8]) -> usize {
        match self.heads.search(key, |place| &self.bounds[place]) {
            Ok(place) => place + 1,
            Err(place) => place,
        }
    }

    /// Adds a leaf, which is not the first; its bound is its first key.
    fn add_leaf(&mut self, number: usize, entries: Vec<Entry<V>>) {
        let place = number - 1;
        self.bounds.insert(place, entries[0].0.clone());
        self.heads.insert(place, |place| self.bounds.get(place).map(|bound| &**bound));
        self.leaves.insert(number, Leaf::of(entries));
    }

    /// Joins a leaf with the one before, when both are small.
    fn merge(&mut self, number: usize) {
        let Some(before) = number.checked_sub(1) else { return };
        let (entries, ahead) = (self.leaves[number].entries.len(), self.leaves[before].entries.len());
        if entries > 0 && entries + ahead > LEAF_ENTRIES_MAX / 2 {
            return;
        }
        let leaf = self.leaves.remove(number);
        self.bounds.remove(before);
        self.heads.remove(before);
        let mut joined = std::mem::take(&mut self.leaves[before].entries);
        joined.reserve_exact(leaf.entries.len());
        joined.extend(leaf.entries);
        self.leaves[before] = Leaf::of(joined);
    }
}

impl<V> Leaf<V> {
    fn of(entries: Vec<Entry<V>>) -> Self {
        let heads = Heads::of(entries.len(), |place| &*entries[place].0);
        Self { entries, heads }
    }

    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.search(key, |place| &self.entries[place].0)
    }

    fn insert_at(&mut self, place: usize, entry: Entry<V>) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(LEAF_GROWTH);
            self.heads.reserve_exact(LEAF_GROWTH);
        }
        self.entries.insert(place, entry);
        self.heads.insert(place, |place| self.entries.get(place).map(|(key, _)| &**key));
    }
}

#[cfg(test)]
mod tests {
    //! Against the standard library's map.

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Box<[u8]> {
        // Numbers below 300 have one byte, so that keys are prefixes of each other.
        if number < 300 { Box::from([number.to_be_bytes()[1]]) } else { Box::from(number.to_be_bytes()) }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_agrees_with_a_btree(
            ops in proptest::collection::vec((0..3_u8, any::<u16>()), 0..4000),
            ascending in any::<bool>(),
            removals in 0..4000_usize,
        ) {
            let mut map = KeyMap::default();
            let mut model = BTreeMap::new();
            for (place, (kind, number)) in ops.iter().enumerate() {
                let key = key(if ascending { u16::try_from(place).unwrap() * 3 } else { number % 2000 });
                if *kind > 0 && !model.contains_key(&key) {
                    let is_behind = model.last_key_value().is_none_or(|(last, _)| *last < key);
                    if is_behind && number % 2 == 0 {
                        map.append(key.clone(), *number);
                    } else {
                        map.insert(key.clone(), *number);
                    }
                    model.insert(key, *number);
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
            }
            for (_, number) in ops.iter().take(removals) {
                let key = key(number % 2000);
                prop_assert_eq!(map.remove(&key), model.remove(&key));
            }
            prop_assert_eq!(map.len(), model.len());
            for (_, number) in ops.iter().take(50) {
                let key = key(number % 2000);
                for from in [Bound::Included(&*key), Bound::Excluded(&*key), Bound::Unbounded] {
                    let seen: Vec<_> = map.range(from).map(|(key, value)| (Box::from(key), *value)).collect();
                    let model: Vec<_> = model.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, value)| (key.clone(), *value)).collect();
                    prop_assert_eq!(seen, model);
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.get_mut(&key), model.get_mut(&key));
            }
        }
    }
}
