//! The search against brute force, and doctored histories.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn operation(call: Call, answer: Answer, began: u64, ended: u64) -> Operation {
    Operation { call, answer, began: ms(began), ended: ms(ended) }
}

/// Every order of every choice of the unanswered calls.
fn brute_force(operations: &[Operation]) -> bool {
    fn place(rest: &[Operation], state: State) -> bool {
        if rest.iter().all(|operation| operation.answer == Answer::Unknown) {
            return true;
        }
        (0..rest.len()).any(|first| {
            let end = |operation: &Operation| match operation.answer {
                Answer::Unknown => Duration::MAX,
                _ => operation.ended,
            };
            // Nothing that must come before it is left.
            if rest.iter().any(|other| end(other) < rest[first].began) {
                return false;
            }
            let mut others = rest.to_vec();
            let next = others.remove(first);
            step(state, &next).is_some_and(|state| place(&others, state))
        })
    }
    place(operations, None)
}

/// Up to six calls of a few values, with answers that may or may not be right.
fn random(rng: &mut StdRng) -> Vec<Operation> {
    let count = rng.random_range(1..=6);
    let state = |rng: &mut StdRng| [None, Some(1), Some(2)][rng.random_range(0..3)];
    let one = |rng: &mut StdRng| {
        let (call, answer) = match rng.random_range(0..3) {
            0 => (Call::Read, Answer::Saw(state(rng))),
            1 => (Call::Write(state(rng)), Answer::Written),
            _ => {
                let call = Call::Swap { expected: state(rng), new: rng.random_range(1..=2) };
                (call, Answer::Swapped(rng.random_bool(0.5)))
            }
        };
        let answer = if rng.random_bool(0.2) { Answer::Unknown } else { answer };
        let began = rng.random_range(0..20);
        operation(call, answer, began, began + rng.random_range(1..12))
    };
    (0..count).map(|_| one(rng)).collect()
}

#[test]
fn the_search_says_what_brute_force_says() {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..20_000 {
        let operations = random(&mut rng);
        let expected = brute_force(&operations);
        let found = search(&operations);
        assert_eq!(found == Verdict::Linearizable, expected, "{found:?} of {operations:#?}");
        if expected { right += 1 } else { wrong += 1 }
    }
    assert!(right > 2_000 && wrong > 2_000, "{right} right, {wrong} wrong");
}

/// A register that is used by four clients at once, answered by one that takes effect at a random moment of each call.
fn sound(seed: u64, count: u64) -> Vec<Operation> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut planned: Vec<(u64, u64, u64, Call)> = Vec::new();
    for client in 0..4 {
        let mut at = client;
        for number in 0..count / 4 {
            let ended = at + rng.random_range(1..40);
            let new = client * count + number;
            let call = match rng.random_range(0..4) {
                0 | 1 => Call::Read,
                2 => Call::Write(rng.random_bool(0.9).then_some(new)),
                _ => Call::Swap { expected: Some(rng.random_range(0..count)), new },
            };
            planned.push((rng.random_range(at..=ended), at, ended, call));
            at = ended + rng.random_range(1..10);
        }
    }
    planned.sort_by_key(|(effect, ..)| *effect);
    let mut state = None;
    let mut operations: Vec<Operation> = Vec::new();
    for (_, began, ended, call) in planned {
        let holds = matches!(call, Call::Swap { expected, .. } if expected == state);
        let answer = match call {
            Call::Read => Answer::Saw(state),
            Call::Write(_) => Answer::Written,
            Call::Swap { .. } => Answer::Swapped(holds),
        };
        let mut done = operation(call, answer, began, ended);
        state = step(state, &done).expect("it is answered by what holds");
        if rng.random_bool(0.02) {
            done.answer = Answer::Unknown;
        }
        operations.push(done);
    }
    operations.shuffle(&mut rng);
    operations
}

#[test]
fn a_sound_register_passes() {
    for seed in 0..50 {
        assert_eq!(judge("k", &sound(seed, 400)), None, "seed {seed}");
    }
}

#[test]
fn a_stale_read_is_found_where_it_is() {
    let write = |value, began| operation(Call::Write(Some(value)), Answer::Written, began, began + 2);
    let read = |value, began| operation(Call::Read, Answer::Saw(value), began, began + 2);
    let clean = [write(1, 0), read(Some(1), 5), write(2, 10), read(Some(2), 15)];
    assert_eq!(judge("k", &clean), None);
    let stale = [write(1, 0), read(Some(1), 5), write(2, 10), read(Some(1), 15), read(Some(2), 20)];
    let found = judge("k", &stale).expect("it is found");
    assert_eq!((found.verdict, found.at), (Verdict::NotLinearizable { explained: 3 }, Some(stale[3])));
}

#[test]
fn a_lost_write_a_double_swap_and_a_value_from_nowhere_are_found() {
    let write = operation(Call::Write(Some(1)), Answer::Written, 0, 2);
    let lost = operation(Call::Read, Answer::Saw(None), 3, 4);
    assert!(judge("k", &[write, lost]).is_some());
    let swap = |new, began| {
        operation(Call::Swap { expected: Some(1), new }, Answer::Swapped(true), began, began + 5)
    };
    assert!(judge("k", &[write, swap(2, 3), swap(3, 4)]).is_some());
    let nowhere = operation(Call::Read, Answer::Saw(Some(9)), 3, 4);
    assert!(judge("k", &[write, nowhere]).is_some());
}

#[test]
fn an_unknown_write_may_show_late_and_once_seen_stays() {
    let unknown = operation(Call::Write(Some(1)), Answer::Unknown, 0, 1);
    let read = |value, began| operation(Call::Read, Answer::Saw(value), began, began + 1);
    assert_eq!(judge("k", &[unknown, read(None, 5), read(Some(1), 10)]), None);
    assert!(judge("k", &[unknown, read(Some(1), 5), read(None, 10)]).is_some());
}

/// Writes that are all under way together can be put in any order, and none of them explains what was read.
#[test]
fn a_search_with_too_many_possibilities_gives_up_and_that_is_a_finding() {
    let mut operations: Vec<Operation> =
        (1..=16).map(|value| operation(Call::Write(Some(value)), Answer::Written, 0, 100)).collect();
    operations.push(operation(Call::Read, Answer::Saw(Some(99)), 101, 102));
    assert_eq!(Search::new(&operations).run(1_000), None);
    assert_eq!(
        Search::new(&operations).run(REMEMBERED_MAX),
        Some(false),
        "with more to remember it finds out"
    );
    let finding = Finding { key: "k".to_owned(), verdict: Verdict::GaveUp, at: None };
    assert_eq!(finding.to_string(), "k: not judged, too many possibilities");
}
