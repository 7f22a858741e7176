//! The watch laws, each a checker, under random interleavings of everything that may happen to a hub.
//!
//! `PROPTEST_CASES` chooses how many runs; a failure prints the shortest steps that show it.

mod checkers;
mod doctored;
mod world;

use holdfast_mvcc::types::{KeyRange, RangeEnd};
use holdfast_watch::{Filter, GroupMax};
use proptest::prelude::*;

use world::{NewWatcher, Step, World, key};

const KEYS: u8 = 6;
const STREAMS: u8 = 4;

fn range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        3 => Just(None),
        1 => Just(Some(RangeEnd::Unbounded)),
        4 => (0..=KEYS).prop_map(|end| Some(RangeEnd::Before(key(end)))),
    ];
    (0..KEYS, end)
        .prop_map(|(start, end)| KeyRange { start: key(start), end: end.unwrap_or(RangeEnd::Single) })
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        6 => Just(Filter::ALL),
        2 => Just(Filter { puts: true, deletes: false }),
        2 => Just(Filter { puts: false, deletes: true }),
        1 => Just(Filter { puts: false, deletes: false }),
    ]
}

fn new_watcher() -> impl Strategy<Value = NewWatcher> {
    (0..STREAMS, range(), 0..4_u8, 0..12_u8, filter()).prop_map(|(stream, range, start, distance, filter)| {
        NewWatcher { stream, range, start, distance, filter }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec((0..KEYS, prop::bool::weighted(0.3)), 1..4).prop_map(Step::Write),
        8 => (1..6_u8).prop_map(Step::Publish),
        1 => (0..6_u8).prop_map(Step::SkipTo),
        6 => new_watcher().prop_map(Step::Add),
        2 => any::<u8>().prop_map(Step::Remove),
        1 => (0..STREAMS).prop_map(Step::RemoveStream),
        2 => (any::<u8>(), 0..STREAMS).prop_map(|(watcher, stream)| Step::Resume { watcher, stream }),
        5 => (0..STREAMS).prop_map(Step::Drain),
        6 => Just(Step::Group),
        6 => (any::<u8>(), 0..12_u8).prop_map(|(group, revisions)| Step::Replay { group, revisions }),
        1 => any::<u8>().prop_map(Step::PutBack),
        2 => (1..5_u8).prop_map(Step::Compact),
        4 => (0..STREAMS).prop_map(Step::Progress),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn watchers_see_what_the_laws_say(
        steps in prop::collection::vec(step(), 1..250),
        queue_records_max in 1..6_usize,
        watchers in 1..6_usize,
        revisions in 1..20_u64,
    ) {
        let mut world = World::new(queue_records_max, GroupMax { watchers, revisions });
        steps.iter().for_each(|step| world.step(step));
        world.come_to_rest();
        world.judge();
    }
}

/// The runs are worth something only if much is delivered in them: this one must deliver to all of its watchers.
#[test]
fn a_plain_run_delivers() {
    let mut world = World::new(2, GroupMax::DEFAULT);
    for stream in 0..STREAMS {
        let range = KeyRange { start: key(0), end: RangeEnd::Unbounded };
        world.step(&Step::Add(NewWatcher { stream, range, start: 3, distance: 0, filter: Filter::ALL }));
    }
    for number in 0..KEYS {
        world.step(&Step::Write(vec![(number, false), (number, true)]));
        world.step(&Step::Publish(1));
    }
    world.come_to_rest();
    world.judge();
    assert!(world.deliveries() >= 2 * usize::from(STREAMS), "{}", world.deliveries());
}
