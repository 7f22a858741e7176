//! Tests of one key's history.

use super::*;

fn put(revision: u64, create: u64, version: u64) -> (RecordId, Option<PutMeta>) {
    let meta = PutMeta {
        create_revision: Revision::new(create),
        version,
        lease: None,
        value_bytes: u32::try_from(revision & 0xffff).unwrap(),
    };
    (RecordId::new(Revision::new(revision), 0), Some(meta))
}

fn delete(revision: u64) -> (RecordId, Option<PutMeta>) {
    (RecordId::new(Revision::new(revision), 0), None)
}

fn history(records: &[(RecordId, Option<PutMeta>)]) -> History {
    let mut history = History::new(records[0].0, records[0].1.as_ref());
    for (id, put) in &records[1..] {
        history.push(*id, put.as_ref());
    }
    history
}

/// (revision, create, version) of the record seen at `revision`; create and version 0 for a tombstone.
fn at(history: &History, revision: u64) -> Option<(u64, u64, u64)> {
    history.at(Revision::new(revision)).map(|entry| {
        let numbers = entry.put.map_or((0, 0), |put| (put.create_revision.get(), put.version));
        (entry.id.revision.get(), numbers.0, numbers.1)
    })
}

fn three_generations() -> History {
    history(&[put(3, 3, 1), put(5, 3, 2), delete(6), put(8, 8, 1), delete(9), put(11, 11, 1), put(12, 11, 2)])
}

#[test]
fn versions_and_create_revisions_follow_from_the_place() {
    let history = three_generations();
    let seen: Vec<_> = (2..=13).map(|revision| at(&history, revision)).collect();
    let expected = [
        None,
        Some((3, 3, 1)),
        Some((3, 3, 1)),
        Some((5, 3, 2)),
        Some((6, 0, 0)),
        Some((6, 0, 0)),
        Some((8, 8, 1)),
        Some((9, 0, 0)),
        Some((9, 0, 0)),
        Some((11, 11, 1)),
        Some((12, 11, 2)),
        Some((12, 11, 2)),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn compaction_changes_nothing_at_or_above_its_revision() {
    for compact in 0..=13 {
        let full = three_generations();
        let retained: Vec<_> = full.retained(Some(Revision::new(compact))).collect();
        let mut dropped = full.clone();
        assert!(dropped.drop_compacted(Revision::new(compact)));
        let left: Vec<_> = dropped.retained(None).collect();
        assert_eq!(left, retained, "compacted at {compact}");
        for revision in compact..=13 {
            let expected = at(&full, revision).filter(|seen| seen.2 > 0 || seen.0 >= compact);
            assert_eq!(at(&dropped, revision), expected, "at {revision}, compacted at {compact}");
        }
    }
}

#[test]
fn a_tombstone_outlives_the_compaction_at_its_own_revision_only() {
    let mut history = history(&[put(3, 3, 1), delete(6)]);
    assert!(history.drop_compacted(Revision::new(6)));
    let left: Vec<_> = history.retained(None).map(|entry| entry.id.revision.get()).collect();
    assert_eq!(left, [6]);
    assert!(!history.drop_compacted(Revision::new(7)), "nothing is left above the tombstone");
}

#[test]
fn a_compacted_history_goes_on_where_it_was() {
    let mut history = history(&[put(3, 3, 1), put(5, 3, 2), put(9, 3, 3)]);
    assert!(history.drop_compacted(Revision::new(20)));
    assert!(matches!(history, History::One(_)), "one put is held inline again");
    assert_eq!(history.live_value_bytes(), Some(9));
    let (id, meta) = put(21, 3, 4);
    history.push(id, meta.as_ref());
    assert_eq!(at(&history, 20), Some((9, 3, 3)));
    assert_eq!(at(&history, 21), Some((21, 3, 4)));
}

#[test]
fn numbers_too_large_for_the_inline_form_are_kept_exactly() {
    let far = 1 << 40;
    let versions = u64::from(u32::MAX) + 7;
    for (id, meta) in [put(far, 3, 2), put(20, 3, versions)] {
        let history = History::new(id, meta.as_ref());
        assert!(matches!(history, History::Many(_)));
        let entry = history.newest();
        let kept = entry.put.unwrap();
        assert_eq!((entry.id, kept.create_revision.get(), kept.version), (id, 3, meta.unwrap().version));
    }
}

#[test]
fn subs_of_30_bits_are_kept_exactly() {
    let id = RecordId::new(Revision::new((1 << 48) - 1), (1 << 30) - 1);
    let history = History::new(id, None);
    assert_eq!(history.newest(), Entry { id, put: None });
    assert!(history.is_retained(id, Some(id.revision)));
}

#[test]
#[should_panic(expected = "records of a key ascend")]
fn a_record_out_of_order_stops_the_process() {
    let (id, meta) = put(5, 3, 2);
    history(&[put(3, 3, 1), put(5, 3, 2)]).push(id, meta.as_ref());
}
