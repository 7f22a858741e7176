//! Interests come and go: their places are used again.

use bytes::Bytes;
use holdfast_mvcc::types::{KeyRange, RangeEnd};

use super::Interests;
use crate::types::WatcherId;

#[test]
fn who_leaves_leaves_nothing_behind() {
    let mut interests = Interests::default();
    for round in 0..1000_u32 {
        let start = Bytes::copy_from_slice(&round.to_be_bytes());
        let ends = [RangeEnd::Single, RangeEnd::Unbounded, RangeEnd::Before(Bytes::from_static(b"z"))];
        let ranges = ends.map(|end| KeyRange { start: start.clone(), end });
        let places = ranges.clone().map(|range| interests.add(&range, WatcherId::new(1)));
        assert_eq!(interests.watchers(), 3);
        for (range, place) in ranges.iter().zip(places) {
            assert_eq!(interests.remove(range, place), None, "it was alone");
        }
    }
    assert_eq!(interests.watchers(), 0);
    assert!(interests.keys.is_empty());
    assert_eq!(interests.interests.len(), 3, "places are used again");
    assert!(interests.interests.iter().all(|interest| interest.watchers.capacity() == 0));
}
