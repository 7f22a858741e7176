//! An ordered map from keys to small values that wastes little memory.
//!
//! A B-tree of the standard library, filled in ascending order, leaves its nodes half empty, which costs as much again
//! as the entries. Here entries lie in sorted *leaves* that grow by a few entries at a time; a B-tree holds the leaves,
//! each under its lower bound. A leaf covers the keys from its bound up to the next leaf's. The first bound is the empty
//! key, so that every key has a leaf.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Where a leaf is split. Inserting moves half a leaf on average: 1.3 KiB at 40 bytes an entry.
const LEAF_ENTRIES_MAX: usize = 64;
/// By how many entries a full leaf grows.
const LEAF_GROWTH: usize = 6;

type Entry<V> = (Box<[u8]>, V);
type Leaf<V> = Vec<Entry<V>>;

/// Keys in unsigned bytewise order.
#[derive(Debug, Clone)]
pub(crate) struct KeyMap<V> {
    leaves: BTreeMap<Box<[u8]>, Leaf<V>>,
    len: usize,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { leaves: BTreeMap::from([(Box::default(), Leaf::new())]), len: 0 }
    }
}

impl<V> KeyMap<V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let (_, leaf) = self.leaves.range::<[u8], _>(up_to(key)).next_back()?;
        let place = search(leaf, key).ok()?;
        Some(&leaf[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let (_, leaf) = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back()?;
        let place = search(leaf, key).ok()?;
        Some(&mut leaf[place].1)
    }

    /// Adds a key that is not there yet.
    pub(crate) fn insert(&mut self, key: Box<[u8]>, value: V) {
        self.len += 1;
        let leaf = self.leaf_mut(&key);
        let (Ok(place) | Err(place)) = search(leaf, &key);
        assert!(leaf.get(place).is_none_or(|(other, _)| *other != key), "the key is new");
        if leaf.len() < LEAF_ENTRIES_MAX {
            insert_at(leaf, place, (key, value));
        } else if place == leaf.len() {
            // Ascending keys: the full leaf stays full.
            self.leaves.insert(key.clone(), vec![(key, value)]);
        } else {
            let mut upper = leaf.split_off(LEAF_ENTRIES_MAX / 2);
            leaf.shrink_to_fit();
            if place <= leaf.len() {
                insert_at(leaf, place, (key, value));
            } else {
                let place = place - leaf.len();
                insert_at(&mut upper, place, (key, value));
            }
            self.leaves.insert(upper[0].0.clone(), upper);
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let leaf = self.leaf_mut(key);
        let place = search(leaf, key).ok()?;
        let (_, value) = leaf.remove(place);
        if leaf.capacity() > leaf.len() + 2 * LEAF_GROWTH {
            leaf.shrink_to(leaf.len() + LEAF_GROWTH);
        }
        if leaf.len() < LEAF_ENTRIES_MAX / 4 {
            self.merge(key);
        }
        self.len -= 1;
        Some(value)
    }

    /// The entries behind a bound, ascending.
    pub(crate) fn range<'a>(&'a self, from: Bound<&'a [u8]>) -> impl Iterator<Item = (&'a [u8], &'a V)> + 'a {
        let start = match from {
            Bound::Included(key) | Bound::Excluded(key) => key,
            Bound::Unbounded => &[],
        };
        let first = self.leaves.range::<[u8], _>(up_to(start)).next_back();
        let first = first.map_or(&[][..], |(_, leaf)| &leaf[behind(leaf, from)..]);
        let rest = self.leaves.range::<[u8], _>((Bound::Excluded(start), Bound::Unbounded));
        let entries = first.iter().chain(rest.flat_map(|(_, leaf)| leaf));
        entries.map(|(key, value)| (&**key, value))
    }

    /// The entries of at least one leaf behind a bound, ascending; `None` behind the last.
    pub(super) fn leaf_behind(&mut self, from: Bound<&[u8]>) -> Option<&mut [Entry<V>]> {
        let (key, _) = self.range(from).next()?;
        let key: Box<[u8]> = key.into();
        let leaf = self.leaf_mut(&key);
        let place = search(leaf, &key).expect("just seen");
        Some(&mut leaf[place..])
    }

    fn leaf_mut(&mut self, key: &[u8]) -> &mut Leaf<V> {
        let leaf = self.leaves.range_mut::<[u8], _>(up_to(key)).next_back();
        leaf.expect("the first leaf's bound is the empty key").1
    }

    /// Joins the leaf of `key` with the one before, when both are small.
    fn merge(&mut self, key: &[u8]) {
        let mut around = self.leaves.range::<[u8], _>(up_to(key)).rev();
        let (Some((bound, leaf)), Some((_, before))) = (around.next(), around.next()) else { return };
        if leaf.is_empty() || leaf.len() + before.len() <= LEAF_ENTRIES_MAX / 2 {
            let bound = bound.clone();
            let leaf = self.leaves.remove(&bound).expect("just seen");
            let before = self.leaf_mut(key);
            before.reserve_exact(leaf.len());
            before.extend(leaf);
        }
    }
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

fn search<V>(leaf: &Leaf<V>, key: &[u8]) -> Result<usize, usize> {
    leaf.binary_search_by(|(other, _)| (**other).cmp(key))
}

/// The place of the first entry behind a bound.
fn behind<V>(leaf: &Leaf<V>, from: Bound<&[u8]>) -> usize {
    match from {
        Bound::Included(key) => leaf.partition_point(|(other, _)| **other < *key),
        Bound::Excluded(key) => leaf.partition_point(|(other, _)| **other <= *key),
        Bound::Unbounded => 0,
    }
}

fn insert_at<V>(leaf: &mut Leaf<V>, place: usize, entry: Entry<V>) {
    if leaf.len() == leaf.capacity() {
        leaf.reserve_exact(LEAF_GROWTH);
    }
    leaf.insert(place, entry);
}

#[cfg(test)]
mod tests {
    //! Against the standard library's map.

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
            ops in proptest::collection::vec((0..3_u8, any::<u16>()), 0..1500),
            ascending in any::<bool>(),
            removals in 0..1500_usize,
        ) {
            let mut map = KeyMap::default();
            let mut model = BTreeMap::new();
            for (place, (kind, number)) in ops.iter().enumerate() {
                let key = key(if ascending { u16::try_from(place).unwrap() * 3 } else { number % 2000 });
                if *kind > 0 && !model.contains_key(&key) {
                    map.insert(key.clone(), *number);
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
