//! Each law with a lie that it has to find.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::locks::{self, Belief, Contender, Fact, Look, Names};
use super::told::{Breach, Kinds, Line, Wish, judge};
use super::world::{Digest, Range, World, hash};
use crate::judge::watch::history::{Applied, Step};

fn put(key: &'static str, value: &'static str) -> Step {
    Step::Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        lease: 0,
    }
}

fn delete(key: &'static str, range_end: &'static str) -> Step {
    Step::Delete {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(range_end.as_bytes()),
    }
}

/// 2: a=1; 3: a=2 and b=1; 4: a and b are deleted; 5: c=1; 6: a=3.
fn world() -> World {
    let commands = [
        vec![put("a", "1")],
        vec![put("a", "2"), put("b", "1")],
        vec![delete("a", "c")],
        vec![put("c", "1")],
        vec![put("a", "3")],
    ];
    let applied: Vec<Applied> =
        commands.into_iter().zip(2..).map(|(steps, revision)| Applied { revision, steps }).collect();
    World::replay(&applied, 6)
}

fn wish(range: Range) -> Wish {
    Wish { range, kinds: Kinds::All, from: Some(2) }
}

fn set(revision: i64, key: &str, value: &str) -> Line {
    Line::Change { revision, key: key.to_owned(), hash: Some(hash(value.as_bytes())) }
}

fn gone(revision: i64, key: &str) -> Line {
    Line::Change { revision, key: key.to_owned(), hash: None }
}

/// What is told of all keys, truly.
fn truth() -> Vec<Line> {
    vec![
        Line::Starts(2),
        set(2, "a", "1"),
        set(3, "b", "1"),
        set(3, "a", "2"),
        Line::CameTo(3),
        gone(4, "a"),
        gone(4, "b"),
        set(5, "c", "1"),
        set(6, "a", "3"),
        Line::CameTo(6),
    ]
}

fn breaches(lines: &[Line], compactions: &[i64]) -> Vec<Breach> {
    let compactions: BTreeSet<i64> = compactions.iter().copied().collect();
    judge(&world(), &wish(Range::Prefix(String::new())), lines, &compactions, 6).1
}

#[test]
fn the_truth_is_clean() {
    assert_eq!(breaches(&truth(), &[]), []);
    let (tally, breaches) = judge(
        &world(),
        &Wish { range: Range::Key("a".to_owned()), kinds: Kinds::Deletes, from: None },
        &[Line::Starts(2), gone(4, "a"), Line::CameTo(6)],
        &BTreeSet::new(),
        6,
    );
    assert_eq!((tally.changes, breaches), (1, vec![]));
}

#[test]
fn what_is_missing_is_found_wherever_it_is() {
    for place in [1, 2, 5, 7, 8] {
        let mut lines = truth();
        let Line::Change { revision, key, .. } = lines.remove(place) else { panic!("{place} is no change") };
        assert_eq!(breaches(&lines, &[]), [Breach::Missing { revision, key }]);
    }
    let missing = Breach::Missing { revision: 6, key: "a".to_owned() };
    assert_eq!(breaches(&truth()[..8], &[]), [missing]);
}

#[test]
fn what_is_told_twice_is_found() {
    let twice = |revision, key: &str| Breach::Twice { revision, key: key.to_owned() };
    for (from, to, revision, key) in [(1, 2, 2, "a"), (1, 5, 2, "a"), (5, 6, 4, "a"), (8, 9, 6, "a")] {
        let mut lines = truth();
        lines.insert(to, lines[from].clone());
        assert_eq!(breaches(&lines, &[]), [twice(revision, key)], "{from} again at {to}");
    }
}

#[test]
fn what_nobody_did_is_found() {
    for lie in [set(5, "c", "2"), set(5, "d", "1"), gone(5, "c")] {
        let mut lines = truth();
        lines[7] = lie;
        let found = breaches(&lines, &[]);
        assert!(matches!(found[..], [Breach::Invented { .. }, Breach::Missing { .. }]), "{found:?}");
    }
}

#[test]
fn progress_must_not_run_ahead_nor_step_back() {
    let mut lines = truth();
    lines[4] = Line::CameTo(4);
    assert!(breaches(&lines, &[]).contains(&Breach::Missing { revision: 4, key: "a".to_owned() }));
    lines[4] = Line::CameTo(2);
    assert_eq!(breaches(&lines, &[]), [Breach::Backwards { told: 2, before: 3 }]);
}

#[test]
fn a_loss_must_be_forced_and_honest() {
    let lossy = |from, to| [&truth()[..5], &[Line::Lost { from, to }], &truth()[8..]].concat();
    assert_eq!(breaches(&lossy(4, 6), &[6]), []);
    assert!(matches!(breaches(&lossy(4, 6), &[5, 7])[..], [Breach::Unforced { from: 4, to: 6, .. }]));
    assert_eq!(breaches(&lossy(3, 6), &[6]), [Breach::Backwards { told: 3, before: 4 }]);
    assert_eq!(breaches(&lossy(5, 6), &[6]).len(), 2, "what is before the loss is missing: a and b");
}

#[test]
fn a_relist_must_be_forced() {
    let relisted = |reason: &str, known| {
        let relisted = Line::Relisted { reason: reason.to_owned(), at: 5 };
        [&truth()[..5], &[Line::Known(known), relisted], &truth()[8..]].concat()
    };
    assert_eq!(breaches(&relisted("compacted", 3), &[5]), []);
    for (reason, known, compaction) in
        [("compacted", 3, 4), ("compacted", 4, 5), ("compacted", 3, 6), ("mismatch", 3, 5), ("asked", 3, 5)]
    {
        let found = breaches(&relisted(reason, known), &[compaction]);
        assert!(matches!(found[..], [Breach::Unforced { .. }]), "{reason} {known} {compaction}: {found:?}");
    }
}

#[test]
fn a_start_is_as_asked_for_and_once() {
    let mut lines = truth();
    lines[0] = Line::Starts(3);
    assert!(breaches(&lines, &[]).contains(&Breach::Start { told: Some(3), wanted: 2 }));
    lines = truth();
    lines.insert(5, Line::Starts(4));
    assert!(breaches(&lines, &[]).contains(&Breach::Backwards { told: 4, before: 4 }));
    assert!(breaches(&[], &[]).contains(&Breach::Silent));
    lines = truth();
    lines.push(Line::Refused("no".to_owned()));
    assert_eq!(breaches(&lines, &[]), [Breach::Refused { said: "no".to_owned() }]);
}

#[test]
fn an_informer_does_not_go_back() {
    let digest = Digest { objects: 0, hash: 0 };
    let back = [Line::Known(5), Line::Held { revision: 4, digest }];
    assert_eq!(breaches(&[&truth()[..], &back].concat(), &[]), [Breach::Backwards { told: 4, before: 5 }]);
    let skipped = |from| [&truth()[..5], &[Line::Skipped { from, at: 5 }], &truth()[8..]].concat();
    assert_eq!(breaches(&skipped(3), &[]), []);
    assert_eq!(breaches(&skipped(4), &[]), [Breach::Backwards { told: 4, before: 3 }]);
}

#[test]
fn digests_are_of_keys_revisions_and_values() {
    let ranges = [Range::Prefix(String::new()), Range::Between("b".to_owned(), "d".to_owned())];
    let wanted: BTreeSet<(i64, usize)> = [(3, 0), (3, 1), (4, 0), (6, 0), (6, 1)].into();
    let digests = world().digests(&ranges, &wanted);
    assert_eq!(digests[&(3, 0)].objects, 2);
    assert_eq!(digests[&(3, 1)].objects, 1);
    assert_eq!(digests[&(4, 0)], Digest::of(std::iter::empty()));
    let bytes = Bytes::from_static;
    let of = |revision, value| {
        let objects = [(bytes(b"a"), 6, bytes(b"3")), (bytes(b"c"), revision, value)];
        Digest::of(objects.iter().map(|(key, revision, value)| (key, *revision, value)))
    };
    assert_eq!(digests[&(6, 0)], of(5, bytes(b"1")));
    assert_ne!(digests[&(6, 0)], of(4, bytes(b"1")), "another revision");
    assert_ne!(digests[&(6, 0)], of(5, bytes(b"2")), "another value");
    assert_eq!(Digest::of(std::iter::empty()).hash, hash(b""));
}

#[test]
fn lines_are_read() {
    let lines = [
        ("S 2", Line::Starts(2)),
        ("P 3 00000000000000ff a/b", Line::Change { revision: 3, key: "a/b".to_owned(), hash: Some(255) }),
        ("D 4 a", gone(4, "a")),
        ("C 5", Line::CameTo(5)),
        ("L 6 8", Line::Lost { from: 6, to: 8 }),
        ("R compacted 9", Line::Relisted { reason: "compacted".to_owned(), at: 9 }),
        ("G 9 11", Line::Skipped { from: 9, at: 11 }),
        ("N 12", Line::Known(12)),
        ("K 12 3 0a", Line::Held { revision: 12, digest: Digest { objects: 3, hash: 10 } }),
        ("E it was refused", Line::Refused("it was refused".to_owned())),
    ];
    for (text, line) in lines {
        assert_eq!(Line::parse(text).unwrap(), line);
    }
    for text in ["", "S", "S x", "P 3 zz a", "P 3", "X 1"] {
        assert!(Line::parse(text).is_err(), "{text}");
    }
}

/// Two take the lock in turns, at 2 and 3: the first one writes at 4 and goes at 5, the second one writes at 6, goes at 7.
fn locked() -> World {
    let commands = [
        put("lock/1", ""),
        put("lock/2", ""),
        put("fact", "2/0/1"),
        delete("lock/1", ""),
        put("fact", "3/1/1"),
        delete("lock/2", ""),
    ];
    let applied =
        commands.into_iter().zip(2..).map(|(step, revision)| Applied { revision, steps: vec![step] });
    World::replay(&applied.collect::<Vec<_>>(), 7)
}

fn belief(token: i64, from: u64, until: u64) -> Belief {
    Belief { token, from, until }
}

fn contenders(first: Belief, second: Belief) -> [Contender; 2] {
    let fact = |revision, value: &str| vec![Fact { revision, value: value.to_owned() }];
    let unknown = Contender::default();
    [
        Contender { session: 0, beliefs: vec![first], facts: fact(4, "2/0/1"), ..unknown.clone() },
        Contender { session: 1, beliefs: vec![second], facts: fact(6, "3/1/1"), ..unknown },
    ]
}

fn look(at: u64, revision: i64, tokens: &[i64]) -> Look {
    Look { at, revision, tokens: tokens.iter().copied().collect() }
}

fn found(contenders: &[Contender], looks: &[Look]) -> Vec<locks::Finding> {
    let names = Names { queue: "lock/".to_owned(), fact: "fact".to_owned() };
    locks::judge(&locked(), &names, contenders, looks)
}

#[test]
fn turns_one_after_the_other_are_clean() {
    let looks = [look(12, 3, &[2, 3]), look(31, 5, &[3]), look(60, 7, &[])];
    assert_eq!(found(&contenders(belief(2, 10, 30), belief(3, 40, 50)), &looks), []);
}

#[test]
fn who_believes_too_long_is_found() {
    let overlap = locks::Finding::Overlap { token: 2, next: 3, nanoseconds: 1 };
    assert_eq!(found(&contenders(belief(2, 10, 41), belief(3, 40, 50)), &[]), [overlap]);
    let outlived = locks::Finding::Outlived { token: 2, nanoseconds: 5 };
    let looks = [look(5, 1, &[]), look(25, 5, &[3])];
    assert_eq!(found(&contenders(belief(2, 10, 30), belief(3, 40, 50)), &looks), [outlived]);
}

#[test]
fn tokens_that_fall_are_shared_or_made_up_are_found() {
    let falls = locks::Finding::Falls { token: 2, after: 3 };
    assert_eq!(found(&contenders(belief(2, 60, 70), belief(3, 40, 50)), &[]), [falls]);
    let shared = locks::Finding::Shared { token: 2 };
    assert_eq!(found(&contenders(belief(2, 10, 30), belief(2, 40, 50)), &[]), [shared]);
    let no_place = locks::Finding::NoPlace { token: 4 };
    assert_eq!(found(&contenders(belief(2, 10, 30), belief(4, 40, 50)), &[]), [no_place]);
}

#[test]
fn facts_are_fenced_kept_and_refused_for_good() {
    let mut some = contenders(belief(2, 10, 30), belief(3, 40, 50));
    some[0].facts[0].revision = 3;
    some[1].refused.push("3/1/1".to_owned());
    some[1].facts.clear();
    let lost = locks::Finding::LostFact { revision: 3, value: "2/0/1".to_owned() };
    let refused = locks::Finding::RefusedFact { revision: 6, value: "3/1/1".to_owned() };
    assert_eq!(found(&some, &[]), [lost, refused]);
    let names = Names { queue: "lock/".to_owned(), fact: "fact".to_owned() };
    let steps = [put("lock/1", ""), put("lock/2", ""), put("fact", "3/1/1")];
    let applied = steps.into_iter().zip(2..).map(|(step, revision)| Applied { revision, steps: vec![step] });
    let world = World::replay(&applied.collect::<Vec<_>>(), 4);
    let unfenced = locks::Finding::Unfenced { revision: 4, token: 3, held: 2 };
    assert_eq!(locks::judge(&world, &names, &[], &[]), [unfenced]);
}
