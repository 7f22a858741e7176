//! What the hub looks at, counted: never timed.

use bytes::Bytes;
use holdfast_mvcc::types::{Change, KeyRange, RangeEnd, Record, RecordId, Revision};
use holdfast_watch::{
    Delivery, Filter, GroupMax, Hub, PrevKv, StreamId, Taken, WatcherId, WatcherSpec, Work,
};

const MANY: u64 = 100_000;

fn key(number: u64) -> Bytes {
    Bytes::from(format!("{number:08}"))
}

fn single(number: u64) -> KeyRange {
    KeyRange { start: key(number), end: RangeEnd::Single }
}

/// The keys `first..end`.
fn range(first: u64, end: u64) -> KeyRange {
    KeyRange { start: key(first), end: RangeEnd::Before(key(end)) }
}

fn everything() -> KeyRange {
    KeyRange { start: Bytes::new(), end: RangeEnd::Unbounded }
}

fn watch(hub: &mut Hub, stream: u64, range: KeyRange) -> WatcherId {
    watch_from(hub, stream, range, hub.head().get() + 1)
}

fn watch_from(hub: &mut Hub, stream: u64, range: KeyRange, from: u64) -> WatcherId {
    let (stream, from) = (StreamId::new(stream), Revision::new(from));
    hub.add(WatcherSpec { stream, range, from, filter: Filter::ALL, prev_kv: PrevKv::Omitted })
}

fn record(revision: u64, number: u64) -> Record {
    Record { id: RecordId::new(Revision::new(revision), 0), key: key(number), change: Change::Delete }
}

/// Publishes a change of a key as the next revision; who got it.
fn publish(hub: &mut Hub, number: u64, answer: Taken) -> Vec<WatcherId> {
    let next = hub.head().get() + 1;
    let mut offered = Vec::new();
    hub.publish(&[record(next, number)], Revision::new(next), &mut |delivery: Delivery<'_>| {
        offered.push(delivery.watcher);
        answer
    });
    offered
}

/// What `work` looks at.
fn cost(hub: &mut Hub, work: impl FnOnce(&mut Hub)) -> Work {
    let before = hub.work();
    work(hub);
    let after = hub.work();
    Work {
        index_nodes: after.index_nodes - before.index_nodes,
        matched_watchers: after.matched_watchers - before.matched_watchers,
        moves: after.moves - before.moves,
        grouped: after.grouped - before.grouped,
    }
}

#[test]
fn publish_visits_only_who_watches_the_key() {
    let mut hub = Hub::new(Revision::FRESH);
    for number in 0..MANY {
        watch(&mut hub, number % 100, single(number));
    }
    let found = watch(&mut hub, 7, single(500));
    let work = cost(&mut hub, |hub| assert!(publish(hub, 500, Taken::Taken).contains(&found)));
    assert_eq!(work, Work { index_nodes: 1, matched_watchers: 2, moves: 0, grouped: 0 });
    let work = cost(&mut hub, |hub| assert!(publish(hub, MANY, Taken::Taken).is_empty()));
    assert_eq!(work, Work { index_nodes: 1, ..Work::default() });
}

#[test]
fn publish_visits_only_ranges_that_hold_the_key_and_the_way_to_them() {
    let mut hub = Hub::new(Revision::FRESH);
    for number in 0..MANY {
        watch(&mut hub, number % 100, range(number * 10, number * 10 + 10));
    }
    let outer = watch(&mut hub, 1, range(0, MANY * 10));
    let work = cost(&mut hub, |hub| {
        let offered = publish(hub, 555_555, Taken::Taken);
        assert_eq!(offered.len(), 2);
        assert!(offered.contains(&outer));
    });
    assert_eq!(work.matched_watchers, 2);
    // The tree of 100,001 ranges is at most 24 high; two are found.
    assert!(work.index_nodes <= 1 + 3 * 24 * 2, "{} nodes", work.index_nodes);
}

#[test]
fn watchers_of_the_same_keys_are_matched_once() {
    let mut hub = Hub::new(Revision::FRESH);
    let watchers: Vec<_> = (0..MANY).map(|number| watch(&mut hub, number % 100, everything())).collect();
    let work = cost(&mut hub, |hub| assert_eq!(publish(hub, 5, Taken::Taken).len(), watchers.len()));
    assert_eq!(work, Work { index_nodes: 2, matched_watchers: MANY, ..Work::default() });
    // Any order of leaving is fine; who is left still gets all.
    let (gone, left) = watchers.split_at(watchers.len() - 3);
    gone.iter().rev().for_each(|id| hub.remove(*id));
    let work = cost(&mut hub, |hub| assert_eq!(publish(hub, 5, Taken::Taken).len(), left.len()));
    assert_eq!(work.matched_watchers, 3);
}

#[test]
fn a_blocked_stream_costs_nothing_however_many_events_pass() {
    let mut hub = Hub::new(Revision::FRESH);
    for _ in 0..MANY {
        watch(&mut hub, 1, everything());
    }
    let reader = watch(&mut hub, 2, single(5));
    // One of the stream's watchers is refused; the others are not even offered anything. Each falls behind once.
    let work = cost(&mut hub, |hub| {
        let next = hub.head().get() + 1;
        let mut refused = 0;
        hub.publish(&[record(next, 6)], Revision::new(next), &mut |_| {
            refused += 1;
            Taken::Full
        });
        assert_eq!(refused, 1);
    });
    assert_eq!(work.moves, MANY);
    // A thousand events later nobody looked at one of them.
    let work = cost(&mut hub, |hub| {
        for _ in 0..1000 {
            assert_eq!(publish(hub, 5, Taken::Taken), [reader]);
            assert!(hub.next_group().is_none());
        }
    });
    assert_eq!(work, Work { index_nodes: 1000, matched_watchers: 1000, moves: 0, grouped: 0 });
    // Room for the stream moves the stream, not its watchers.
    let work = cost(&mut hub, |hub| hub.unblock(StreamId::new(1)));
    assert_eq!(work, Work::default());
    let group = hub.next_group().expect("there is room");
    assert_eq!((group.from, group.watchers()), (Revision::new(2), GroupMax::DEFAULT.watchers));
}

#[test]
fn cursors_that_are_near_each_other_share_their_reads() {
    let mut hub = Hub::new(Revision::FRESH);
    for number in 0..1000 {
        publish(&mut hub, number % 10, Taken::Taken);
    }
    for number in 0..MANY {
        watch_from(&mut hub, number % 100, single(number), 2 + number % 500);
    }
    let (mut reads, mut delivered) = (0, 0);
    while let Some(group) = hub.next_group() {
        reads += 1;
        let records: Vec<_> = (group.from.get()..=1001).map(|at| record(at, (at - 2) % 10)).collect();
        hub.replay(group, &records, Revision::new(1001), &mut |_| {
            delivered += 1;
            Taken::Taken
        });
    }
    assert_eq!(delivered, 10, "only ten of the watched keys ever changed");
    // All groups are full but the last, and perhaps those that started with who waited longest.
    assert!(reads <= MANY.div_ceil(1024) + 2, "{reads} reads");
    assert_eq!(hub.figures().lagging, 0);
}

/// Somebody keeps adding watchers of the far past; a stream further on must not wait for ever.
#[test]
fn newcomers_with_old_revisions_hold_up_nobody() {
    let mut hub = Hub::with_group_max(Revision::FRESH, GroupMax { watchers: 2, revisions: 10 });
    for number in 0..1000 {
        publish(&mut hub, number, Taken::Taken);
    }
    let waits = watch_from(&mut hub, 1, everything(), 900);
    let mut groups = 0;
    while hub.watcher_progress(waits).is_none() {
        groups += 1;
        assert!(groups <= 8, "it waits for ever");
        for _ in 0..4 {
            watch_from(&mut hub, 2, everything(), 2);
        }
        let group = hub.next_group().expect("there are cursors");
        let records: Vec<_> = (group.from.get()..=1001).map(|at| record(at, at - 2)).collect();
        hub.replay(group, &records, Revision::new(1001), &mut |_| Taken::Taken);
    }
}
