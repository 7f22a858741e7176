//! Tests of the way from events to transactions.

use holdfast_proto::mvccpb::KeyValue;

use super::*;

const WIDE: TxnLimits = TxnLimits { changes: 100, bytes: 100_000 };

fn all() -> Ranges {
    Ranges::new(&[]).unwrap()
}

fn put(key: &str, value: &str) -> KeyChange {
    let change = Change::Put { value: Bytes::from(value.to_owned()), lease: 0 };
    KeyChange { key: Bytes::from(key.to_owned()), change }
}

fn delete(key: &str) -> KeyChange {
    KeyChange { key: Bytes::from(key.to_owned()), change: Change::Delete }
}

fn event(at: i64, key: &str) -> Event {
    let kv = KeyValue { key: Bytes::from(key.to_owned()), mod_revision: at, ..KeyValue::default() };
    Event { kv: Some(kv), ..Event::default() }
}

fn revisions(made: &[(i64, &[KeyChange])]) -> Vec<Revision> {
    made.iter().map(|(at, changes)| Revision { at: *at, changes: changes.to_vec() }).collect()
}

fn backlog(made: &[(i64, &[KeyChange])]) -> Backlog {
    let mut backlog = Backlog::default();
    backlog.extend(revisions(made));
    backlog
}

fn keys(revision: &Revision) -> Vec<&[u8]> {
    revision.changes.iter().map(|change| &change.key[..]).collect()
}

#[test]
fn the_fragments_of_a_revision_are_put_together() {
    let mut assembler = Assembler::behind(4);
    let first = assembler.add(vec![event(4, "old"), event(5, "a"), event(6, "b")], true, &all());
    assert_eq!(first.iter().map(|revision| revision.at).collect::<Vec<_>>(), [5]);
    assert_eq!(assembler.add(vec![event(6, "c")], true, &all()), []);
    let last = assembler.add(vec![event(6, "d"), event(9, "e")], false, &all());
    assert_eq!(last.iter().map(|revision| revision.at).collect::<Vec<_>>(), [6, 9]);
    assert_eq!(keys(&last[0]), [b"b", b"c", b"d"]);
    // A stream that was begun anew says some of it again.
    assert_eq!(assembler.add(vec![event(9, "e")], false, &all()), []);
}

#[test]
fn a_revision_that_is_not_imported_moves_the_position() {
    let ranges = Ranges::new(&["a".to_owned()]).unwrap();
    let whole = Assembler::behind(0).add(vec![event(2, "b"), event(3, "a"), event(3, "b")], false, &ranges);
    assert_eq!(whole.len(), 2);
    assert_eq!((whole[0].at, keys(&whole[0]).len()), (2, 0));
    assert_eq!(keys(&whole[1]), [b"a"]);
    let mut backlog = Backlog::default();
    backlog.extend(whole[..1].to_vec());
    let batch = backlog.take(WIDE, i64::MAX).unwrap();
    assert!(batch.is_empty() && batch.at == 2);
    assert_eq!((backlog.bytes(), backlog.take(WIDE, i64::MAX)), (0, None));
}

#[test]
fn revisions_go_together_and_the_last_value_wins() {
    let mut waiting =
        backlog(&[(2, &[put("a", "1"), put("b", "1")]), (3, &[delete("b")]), (4, &[put("a", "2")])]);
    let batch = waiting.take(WIDE, i64::MAX).unwrap();
    assert_eq!(batch, Batch { at: 4, parts: vec![vec![put("a", "2"), delete("b")]], events: 4 });
    assert_eq!(waiting.bytes(), 0);
}

#[test]
fn a_revision_is_never_cut_to_fill_a_transaction() {
    let limits = TxnLimits { changes: 3, ..WIDE };
    let mut waiting = backlog(&[
        (2, &[put("a", "1"), put("b", "1")]),
        (3, &[put("c", "1"), put("d", "1")]),
        (4, &[put("d", "2")]),
    ]);
    let first = waiting.take(limits, i64::MAX).unwrap();
    assert_eq!((first.at, first.parts[0].len()), (2, 2));
    // The second change of `d` takes no place of its own.
    let second = waiting.take(limits, i64::MAX).unwrap();
    assert_eq!(second.parts, [vec![put("c", "1"), put("d", "2")]]);
    assert_eq!(second.at, 4);
}

#[test]
fn bytes_are_a_limit_too() {
    let value = "x".repeat(400);
    let limits = TxnLimits { bytes: 890, ..WIDE };
    let mut waiting = backlog(&[(2, &[put("a", &value)]), (3, &[put("b", &value)]), (4, &[put("c", "")])]);
    assert_eq!(waiting.take(limits, i64::MAX).unwrap().at, 3);
    assert_eq!(waiting.take(limits, i64::MAX).unwrap().at, 4);
}

#[test]
fn only_what_is_larger_than_a_transaction_is_applied_in_parts() {
    let limits = TxnLimits { changes: 2, ..WIDE };
    let big = [put("a", "1"), put("b", "1"), put("c", "1")];
    let mut waiting = backlog(&[(2, &[put("z", "0")]), (3, &big), (4, &[put("a", "2")])]);
    assert_eq!(waiting.take(limits, i64::MAX).unwrap().at, 2);
    let batch = waiting.take(limits, i64::MAX).unwrap();
    assert_eq!((batch.at, batch.parts), (3, vec![big[..2].to_vec(), big[2..].to_vec()]));
    assert_eq!(waiting.take(limits, i64::MAX).unwrap().at, 4);
}

#[test]
fn nothing_behind_the_end_is_taken() {
    let mut waiting = backlog(&[(2, &[put("a", "1")]), (3, &[put("b", "1")]), (4, &[put("c", "1")])]);
    assert_eq!(waiting.take(WIDE, 3).unwrap().at, 3);
    assert_eq!(waiting.take(WIDE, 3), None);
    assert_eq!(waiting.take(WIDE, 4).unwrap().at, 4);
}

#[test]
fn a_change_that_is_too_large_is_alone() {
    let limits = TxnLimits { changes: 10, bytes: 100 };
    let large = put("b", &"x".repeat(500));
    let parts = split(vec![put("a", ""), large.clone(), put("c", "")], limits);
    assert_eq!(parts, [vec![put("a", "")], vec![large], vec![put("c", "")]]);
    assert_eq!(split(Vec::new(), limits), [Vec::new()]);
}
