//! Who is interested in which keys: the index of the synced watchers.
//!
//! An *interest* is a key or a range that at least one watcher watches. Watchers of the same keys share it, so that a
//! record is matched once however many there are. Single keys are looked up in a hash map, ranges in a balanced tree.

use std::collections::HashMap;

use bytes::Bytes;
use holdfast_mvcc::types::{KeyRange, RangeEnd, Record};

use crate::spans::{End, Span, Spans};
use crate::types::WatcherId;

/// The place of an interest in its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterestId(usize);

/// Where a watcher stands in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) interest: InterestId,
    /// Among the watchers of the interest.
    position: usize,
}

/// The index. A hash map's order shows nowhere: it is only looked up.
#[derive(Debug, Default)]
pub(crate) struct Interests {
    keys: HashMap<Bytes, InterestId>,
    ranges: Spans,
    interests: Vec<Interest>,
    /// Places of interests that nobody has any more.
    free: Vec<InterestId>,
    watchers: usize,
    /// The interests with matched records, in the order of their first.
    matched: Vec<InterestId>,
}

#[derive(Debug, Default)]
struct Interest {
    watchers: Vec<WatcherId>,
    /// Indices of the records that match, ascending; empty between two calls of the hub.
    records: Vec<usize>,
}

/// An interest keeps the memory of this many matched records from one call to the next.
const MATCHED_KEPT_MAX: usize = 64;

enum Keys {
    One(Bytes),
    Many(Span),
}

impl InterestId {
    #[cfg(test)]
    pub(crate) fn new(id: usize) -> Self {
        Self(id)
    }
}

impl Keys {
    fn of(range: &KeyRange) -> Self {
        let start = range.start.clone();
        match &range.end {
            RangeEnd::Single => Self::One(start),
            RangeEnd::Before(end) => Self::Many(Span { start, end: End::Before(end.clone()) }),
            RangeEnd::Unbounded => Self::Many(Span { start, end: End::Unbounded }),
        }
    }
}

impl Interests {
    /// Adds a watcher: O(log n), whoever shares its range.
    pub(crate) fn add(&mut self, range: &KeyRange, watcher: WatcherId) -> Place {
        let keys = Keys::of(range);
        let known = match &keys {
            Keys::One(key) => self.keys.get(key).copied(),
            Keys::Many(span) => self.ranges.get(span),
        };
        let interest = known.unwrap_or_else(|| self.create(keys));
        let watchers = &mut self.interests[interest.0].watchers;
        watchers.push(watcher);
        self.watchers += 1;
        Place { interest, position: watchers.len() - 1 }
    }

    fn create(&mut self, keys: Keys) -> InterestId {
        let interest = self.free.pop().unwrap_or_else(|| {
            self.interests.push(Interest::default());
            InterestId(self.interests.len() - 1)
        });
        match keys {
            Keys::One(key) => drop(self.keys.insert(key, interest)),
            Keys::Many(span) => self.ranges.insert(span, interest),
        }
        interest
    }

    /// Removes the watcher at a place. Another may take the place over: it is named, and its place is now this one.
    #[must_use]
    pub(crate) fn remove(&mut self, range: &KeyRange, place: Place) -> Option<WatcherId> {
        let watchers = &mut self.interests[place.interest.0].watchers;
        watchers.swap_remove(place.position);
        self.watchers -= 1;
        let moved = watchers.get(place.position).copied();
        if watchers.is_empty() {
            self.interests[place.interest.0] = Interest::default();
            self.free.push(place.interest);
            match Keys::of(range) {
                Keys::One(key) => drop(self.keys.remove(&key)),
                Keys::Many(span) => self.ranges.remove(&span),
            }
        }
        moved
    }

    /// All watchers of the index, in an order that follows from what was done to it.
    pub(crate) fn all_watchers(&self) -> Vec<WatcherId> {
        self.interests.iter().flat_map(|interest| interest.watchers.iter().copied()).collect()
    }

    /// How many watchers the index holds.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers
    }

    /// Finds the interests of each record; returns how many nodes of the index it looked at. Ends in `clear`.
    pub(crate) fn match_records(&mut self, records: &[Record]) -> u64 {
        assert!(self.matched.is_empty(), "matches are cleared after each call");
        let mut visited = 0;
        let Self { keys, ranges, interests, matched, .. } = self;
        for (at, record) in records.iter().enumerate() {
            let mut note = |interest: InterestId| {
                let records = &mut interests[interest.0].records;
                if records.is_empty() {
                    matched.push(interest);
                }
                records.push(at);
            };
            keys.get(&record.key).copied().into_iter().for_each(&mut note);
            visited += 1 + ranges.holding(&record.key, &mut note);
        }
        visited
    }

    /// The interests with matched records, in the order of their first.
    pub(crate) fn matched(&self) -> &[InterestId] {
        &self.matched
    }

    /// The watchers of an interest.
    pub(crate) fn watchers_of(&self, interest: InterestId) -> &[WatcherId] {
        &self.interests[interest.0].watchers
    }

    /// The records an interest matched.
    pub(crate) fn records_of(&self, interest: InterestId) -> &[usize] {
        &self.interests[interest.0].records
    }

    /// Forgets the matched records.
    pub(crate) fn clear(&mut self) {
        for interest in self.matched.drain(..) {
            let records = &mut self.interests[interest.0].records;
            records.clear();
            records.shrink_to(MATCHED_KEPT_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
