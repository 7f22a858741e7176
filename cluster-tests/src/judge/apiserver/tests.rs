//! A record without flaws, and doctored ones that each law has to refuse.

use super::*;
use crate::client::{Contents, Stored};
use crate::judge::watch::history::{Applied, Step};
use crate::judge::watch::record::Pair;

/// Key, create and mod revision, version, value.
type State = (&'static str, i64, i64, i64, &'static str);

struct World {
    history: History,
    keys: KeyTable,
    compactions: Vec<Compaction>,
}

/// 2: a=1; 3: b=1; 4: turn; 5: a=2; 6: c=1; 7: b deleted; 8: turn.
fn world() -> World {
    let put = |revision, key: &'static str, value: &'static str| Applied {
        revision,
        steps: vec![Step::Put { key: key.into(), value: value.into(), lease: 0 }],
    };
    let delete =
        Applied { revision: 7, steps: vec![Step::Delete { key: "b".into(), range_end: Bytes::new() }] };
    let applied = [
        put(2, "a", "1"),
        put(3, "b", "1"),
        put(4, "turn", "x"),
        put(5, "a", "2"),
        put(6, "c", "1"),
        delete,
        put(8, "turn", "y"),
    ];
    let pairs =
        [A5, C6, ("turn", 4, 8, 2, "y")].map(|(key, create_revision, mod_revision, version, value)| {
            (Bytes::from(key), Stored { value: value.into(), create_revision, mod_revision, version })
        });
    let end = Contents { revision: 8, pairs: pairs.into_iter().collect() };
    let mut keys = KeyTable::default();
    let history = History::replay(&applied, &end, &mut keys).expect("the history is whole");
    let compactions = vec![Compaction { revision: 4, asked_at: Duration::from_secs(5) }];
    World { history, keys, compactions }
}

const A2: State = ("a", 2, 2, 1, "1");
const A5: State = ("a", 2, 5, 2, "2");
const B3: State = ("b", 3, 3, 1, "1");
const C6: State = ("c", 6, 6, 1, "1");

impl World {
    fn held(&mut self, (key, create_revision, mod_revision, version, value): State) -> Held {
        let pair = Pair { value: value.as_bytes(), create_revision, mod_revision, version, lease: 0 };
        Held { key: self.keys.id(key.as_bytes()), mod_revision, print: pair.print() }
    }

    fn all(&mut self, states: &[State]) -> Vec<Held> {
        states.iter().map(|state| self.held(*state)).collect()
    }

    fn part(&mut self, header: Option<i64>, states: &[State], count: i64, more: bool) -> Part {
        Part { header, pairs: self.all(states), more, count }
    }

    fn judge(&mut self, seen: &Seen) -> Vec<Law> {
        let turn_key = Some(self.keys.id(b"turn"));
        let Self { history, keys, compactions } = self;
        let measure = Measure { history, keys, turn_key, compactions };
        judge(&measure, seen).into_iter().map(|finding| finding.law).collect()
    }
}

fn span() -> Span {
    Span { from: "a".into(), end: "t".into() }
}

/// Of 6: three keys in pages of two, and a stream.
fn lists(world: &mut World) -> Vec<Listed> {
    let first = world.part(Some(6), &[A5, B3], 3, true);
    let second = world.part(Some(8), &[C6], 1, false);
    let (one, two) = (world.part(None, &[A5], 0, false), world.part(Some(6), &[B3, C6], 3, false));
    vec![
        Listed { span: span(), way: Way::Pages(2), floor: 5, parts: vec![first, second] },
        Listed { span: span(), way: Way::Stream, floor: 6, parts: vec![one, two] },
    ]
}

fn flawless(world: &mut World) -> Seen {
    let (a2, b3) = (world.held(A2), world.held(B3));
    let (a, b, c) = (a2.key, b3.key, world.keys.id(b"c"));
    let shown_a2 = Some(Some(a2));
    let read = |at, states: &[State], world: &mut World| CacheRead {
        span: span(),
        floor: 3,
        wanted: 4,
        at,
        pairs: world.all(states),
    };
    Seen {
        lists: lists(world),
        reads: vec![read(5, &[A5, B3], world), read(7, &[A5, C6], world)],
        swaps: vec![
            Swap { key: a, expected: 0, outcome: Swapped::Won(2) },
            Swap { key: a, expected: 2, outcome: Swapped::Won(5) },
            Swap { key: a, expected: 9, outcome: Swapped::Lost { header: 3, shown: shown_a2 } },
            Swap { key: b, expected: 3, outcome: Swapped::Won(7) },
            Swap { key: b, expected: 3, outcome: Swapped::Lost { header: 7, shown: Some(None) } },
            Swap { key: c, expected: 0, outcome: Swapped::Lost { header: 6, shown: None } },
        ],
        turns: vec![
            Turn { expected: 0, outcome: Ok(4) },
            Turn { expected: 0, outcome: Err((4, 1)) },
            Turn { expected: 1, outcome: Ok(8) },
        ],
        refused: vec![Refused { revision: 3, at: Duration::from_secs(6) }],
    }
}

#[test]
fn a_record_without_flaws_passes() {
    let mut world = world();
    let seen = flawless(&mut world);
    assert_eq!(world.judge(&seen), []);
}

/// Alters one thing, and names the law that has to see it.
fn doctored(law: Law, alter: impl FnOnce(&mut Seen, &mut World)) {
    let mut world = world();
    let mut seen = flawless(&mut world);
    alter(&mut seen, &mut world);
    let laws = world.judge(&seen);
    assert!(!laws.is_empty() && laws.iter().all(|found| *found == law), "{law:?}: {laws:?}");
}

#[test]
fn lists_that_are_not_the_store_are_refused() {
    doctored(Law::List, |seen, _| drop(seen.lists[0].parts.pop()));
    doctored(Law::List, |seen, _| seen.lists[0].parts[0].pairs.swap(0, 1));
    doctored(Law::List, |seen, world| seen.lists[0].parts[1].pairs[0] = world.held(B3));
    doctored(Law::List, |seen, world| seen.lists[0].parts[0].pairs[0] = world.held(A2));
    doctored(Law::List, |seen, _| seen.lists[0].parts[0].more = false);
    doctored(Law::List, |seen, _| seen.lists[0].parts[1].count = 3);
    doctored(Law::List, |seen, _| seen.lists[0].parts[1].header = Some(5));
    doctored(Law::List, |seen, _| seen.lists[0].parts[1].header = None);
    doctored(Law::List, |seen, _| drop(seen.lists[1].parts.remove(0)));
    doctored(Law::List, |seen, _| seen.lists[1].parts[0].count = 1);
    doctored(Law::List, |seen, _| seen.lists[1].parts[1].count = 2);
    doctored(Law::List, |seen, _| seen.lists[1].parts[1].more = true);
    doctored(Law::List, |seen, world| {
        let double = world.part(None, &[A5], 0, false);
        seen.lists[1].parts.insert(0, double);
    });
}

#[test]
fn what_is_older_than_it_may_be_is_refused() {
    doctored(Law::Fresh, |seen, _| seen.lists[0].floor = 7);
    doctored(Law::Fresh, |seen, _| seen.reads[0].floor = 5);
    doctored(Law::Fresh, |seen, _| seen.reads[1].wanted = 8);
}

#[test]
fn caches_that_are_not_the_store_are_refused() {
    // Progress at 7 before the delete of 7 has come.
    doctored(Law::Cache, |seen, world| seen.reads[1].pairs.insert(1, world.held(B3)));
    doctored(Law::Cache, |seen, world| seen.reads[0].pairs[0] = world.held(A2));
    doctored(Law::Cache, |seen, _| seen.reads[0].pairs.truncate(1));
}

#[test]
fn swaps_that_cannot_be_are_refused() {
    doctored(Law::Swap, |seen, _| seen.swaps[1].expected = 0);
    doctored(Law::Swap, |seen, _| seen.swaps[2].expected = 2);
    doctored(Law::Swap, |seen, world| {
        let shown = Some(Some(world.held(A5)));
        seen.swaps[2].outcome = Swapped::Lost { header: 3, shown };
    });
    doctored(Law::Swap, |seen, world| {
        let shown = Some(Some(world.held(B3)));
        seen.swaps[4].outcome = Swapped::Lost { header: 7, shown };
    });
    doctored(Law::Swap, |seen, _| seen.swaps[5].outcome = Swapped::Lost { header: 5, shown: None });
}

#[test]
fn turns_that_two_take_or_nobody_may_are_refused() {
    doctored(Law::Turn, |seen, _| seen.turns[2] = Turn { expected: 0, outcome: Ok(4) });
    doctored(Law::Turn, |seen, _| seen.turns[1].outcome = Err((4, 0)));
    doctored(Law::Turn, |seen, _| seen.turns[1].outcome = Err((8, 1)));
    doctored(Law::Turn, |seen, _| seen.turns[2] = Turn { expected: 2, outcome: Ok(8) });
}

#[test]
fn reads_that_are_compacted_for_nothing_are_refused() {
    doctored(Law::Compacted, |seen, _| seen.refused[0].revision = 4);
    doctored(Law::Compacted, |seen, _| seen.refused[0].at = Duration::from_secs(4));
}
