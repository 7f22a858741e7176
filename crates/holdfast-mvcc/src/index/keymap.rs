//! An ordered map from keys to small values that wastes little memory and is searched with few cache misses.
//!
//! A B-tree of the standard library, filled in ascending order, leaves its nodes half empty, which costs as much again
//! as the entries, and a search in it follows a pointer for each key that it compares. Here entries lie in sorted
//! *leaves* that grow by a few entries at a time; beside the keys of a leaf lie their [`Heads`], which almost always
//! decide. The leaves lie in one array, each from the second on under its lower *bound*: a leaf covers the keys from its
//! bound up to the next leaf's, the first one all below the first bound.
//!
//! Each leaf knows how many of its values are alive, and since when none has changed: a count of what is alive as of a later
//! moment passes it without looking at its entries.

use std::ops::Bound;

use super::heads::Heads;
use crate::types::Revision;

/// Where a leaf is split. Inserting moves half a leaf on average: 5 KiB at 44 bytes an entry, about 100 ns; a split moves
/// the array of leaves, 88 bytes for each 256 keys, and happens once in 128 insertions.
const LEAF_ENTRIES_MAX: usize = 256;
/// By how many entries a full leaf grows: few sizes, so that the allocator can use again what a leaf outgrew.
const LEAF_GROWTH: usize = LEAF_ENTRIES_MAX / 8;

/// What a leaf whose entries need not be looked at counts for in a bounded count, in entries: it is one miss of the cache.
const LEAF_STEPS: usize = 8;

type Entry<V> = (Box<[u8]>, V);

/// A value that is alive or not, and has been so since its last change.
pub(crate) trait Changing {
    /// Its last change, which never steps back, and whether it is alive since.
    fn last_change(&self) -> (Revision, bool);
}

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
    /// How many of the values are alive.
    alive: u32,
    /// No value has changed since.
    changed: Revision,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        let first =
            Leaf { entries: Vec::new(), heads: Heads::default(), alive: 0, changed: Revision::default() };
        Self { leaves: vec![first], bounds: Vec::new(), heads: Heads::default(), len: 0 }
    }
}

impl<V: Changing> KeyMap<V> {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&V> {
        let leaf = &self.leaves[self.leaf_of(key)];
        let place = leaf.search(key).ok()?;
        Some(&leaf.entries[place].1)
    }

    /// Changes the value of a key; `None` when there is no such key.
    pub(crate) fn update<R>(&mut self, key: &[u8], change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let number = self.leaf_of(key);
        let leaf = &mut self.leaves[number];
        let place = leaf.search(key).ok()?;
        let value = &mut leaf.entries[place].1;
        let (_, was_alive) = value.last_change();
        let result = change(value);
        let (changed, is_alive) = value.last_change();
        leaf.alive = leaf.alive + u32::from(is_alive) - u32::from(was_alive);
        leaf.changed = leaf.changed.max(changed);
        Some(result)
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
        leaf.alive -= u32::from(value.last_change().1);
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

    /// The leaf in which the entries behind a bound begin, and where in it; that may be its end.
    fn place_behind(&self, from: Bound<&[u8]>) -> (usize, usize) {
        match from {
            Bound::Included(key) | Bound::Excluded(key) => {
                let number = self.leaf_of(key);
                let place = match (self.leaves[number].search(key), from) {
                    (Ok(place), Bound::Excluded(_)) => place + 1,
                    (Ok(place) | Err(place), _) => place,
                };
                (number, place)
            }
            Bound::Unbounded => (0, 0),
        }
    }

    /// Counts the values behind a bound and before `end` that are alive as of a revision, which `is_alive` tells of a value that
    /// has changed since. Looks at about `steps_max` entries, at least one; answers the key behind which to go on.
    pub(crate) fn count_alive<'a>(
        &'a self,
        from: Bound<&[u8]>,
        end: Option<&[u8]>,
        at: Revision,
        steps_max: usize,
        is_alive: impl Fn(&V) -> bool,
    ) -> (u64, Option<&'a [u8]>) {
        let (first, mut place) = self.place_behind(from);
        let (mut alive, mut steps) = (0, 0);
        let mut last: Option<&[u8]> = None;
        for (number, leaf) in (first..).zip(&self.leaves[first..]) {
            if let Some(last) = last
                && steps >= steps_max
            {
                return (alive, Some(last));
            }
            let is_whole = place == 0 && leaf.changed <= at && self.is_before(number, end);
            let entries = &leaf.entries[std::mem::take(&mut place)..];
            if is_whole {
                alive += u64::from(leaf.alive);
                steps += LEAF_STEPS;
                last = entries.last().map(|(key, _)| &**key).or(last);
                continue;
            }
            for (key, value) in entries {
                if end.is_some_and(|end| **key >= *end) {
                    return (alive, None);
                }
                if let Some(last) = last
                    && steps >= steps_max
                {
                    return (alive, Some(last));
                }
                alive += u64::from(is_alive(value));
                steps += 1;
                last = Some(key);
            }
        }
        (alive, None)
    }

    /// True when all keys of a leaf lie before `end`.
    fn is_before(&self, number: usize, end: Option<&[u8]>) -> bool {
        let Some(end) = end else { return true };
        match self.bounds.get(number) {
            Some(next) => **next <= *end,
            None => self.leaves[number].entries.last().is_none_or(|(last, _)| **last < *end),
        }
    }

    /// The entries behind a bound, ascending.
    pub(crate) fn range<'a>(&'a self, from: Bound<&'a [u8]>) -> impl Iterator<Item = (&'a [u8], &'a V)> + 'a {
        let (number, place) = self.place_behind(from);
        let first = &self.leaves[number].entries[place..];
        let rest = self.leaves[number + 1..].iter().flat_map(|leaf| &leaf.entries);
        first.iter().chain(rest).map(|(key, value)| (&**key, value))
    }

    /// The entries of at least one leaf behind a bound, ascending; `None` behind the last. Whether they are alive, and since
    /// when, must stay as it is.
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

impl<V: Changing> Leaf<V> {
    fn of(entries: Vec<Entry<V>>) -> Self {
        let heads = Heads::of(entries.len(), |place| &*entries[place].0);
        let mut leaf = Self { entries, heads, alive: 0, changed: Revision::default() };
        for (_, value) in &leaf.entries {
            let (changed, is_alive) = value.last_change();
            leaf.alive += u32::from(is_alive);
            leaf.changed = leaf.changed.max(changed);
        }
        leaf
    }

    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.heads.search(key, |place| &self.entries[place].0)
    }

    fn insert_at(&mut self, place: usize, entry: Entry<V>) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(LEAF_GROWTH);
            self.heads.reserve_exact(LEAF_GROWTH);
        }
        let (changed, is_alive) = entry.1.last_change();
        self.alive += u32::from(is_alive);
        self.changed = self.changed.max(changed);
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

    /// Even numbers are alive; the number is when they became so.
    impl Changing for u16 {
        fn last_change(&self) -> (Revision, bool) {
            (Revision::new(u64::from(*self)), self.is_multiple_of(2))
        }
    }

    /// Counts in steps of a few entries.
    fn count(
        map: &KeyMap<u16>,
        from: Bound<&[u8]>,
        end: Option<&[u8]>,
        at: Revision,
        steps_max: usize,
    ) -> usize {
        let step = |from| map.count_alive(from, end, at, steps_max, |value| is_alive_at(*value, at));
        let (mut alive, mut next) = step(from);
        while let Some(after) = next {
            let (more, behind) = step(Bound::Excluded(after));
            assert!(behind.is_none_or(|behind| behind > after));
            alive += more;
            next = behind;
        }
        usize::try_from(alive).unwrap()
    }

    /// What has changed since was not there before.
    fn is_alive_at(value: u16, at: Revision) -> bool {
        let (changed, is_alive) = value.last_change();
        is_alive && changed <= at
    }

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
                let add = |value: &mut u16| std::mem::replace(value, value.saturating_add(number % 8));
                prop_assert_eq!(map.update(&key, add), model.get_mut(&key).map(add));
            }
            for (_, number) in ops.iter().take(20) {
                let (one, other) = (key(number % 2000), key(number / 3 % 2000));
                let (start, end) = if one < other { (one, other) } else { (other, one) };
                let at = Revision::new(u64::from(number.rotate_left(5)));
                for (from, end) in [
                    (Bound::Unbounded, None),
                    (Bound::Included(&*start), Some(&*end)),
                    (Bound::Excluded(&*start), Some(&*end)),
                    (Bound::Included(&*start), None),
                ] {
                    // The model's range refuses what holds nothing.
                    let is_within = |key: &[u8]| end.is_none_or(|end| key < end);
                    let alive = model.range::<[u8], _>((from, Bound::Unbounded));
                    let alive = alive.filter(|(key, value)| is_within(key) && is_alive_at(**value, at)).count();
                    for steps_max in [1, 7, 100, usize::MAX] {
                        prop_assert_eq!(count(&map, from, end, at, steps_max), alive);
                    }
                }
            }
        }
    }
}
