//! What a change costs the hub: it finds the watchers of one key.

use bytes::Bytes;
use holdfast_mvcc::types::{Change, KeyRange, RangeEnd, Record, RecordId, Revision};
use holdfast_paths::{Path, Step};
use holdfast_watch::{Delivery, Filter, Hub, PrevKv, StreamId, Taken, WatcherSpec};

fn main() {
    holdfast_paths::main(&[
        Path { name: "watch-1000-on-a-prefix", set_up: || publish(1_000, |_| everything()) },
        Path { name: "watch-100000-on-keys", set_up: || publish(100_000, single) },
        Path { name: "watch-nobody", set_up: || publish(0, single) },
        Path { name: "watch-add-and-remove", set_up: add_and_remove },
    ]);
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/default/{number:08}"))
}

fn single(number: u64) -> KeyRange {
    KeyRange { start: key(number), end: RangeEnd::Single }
}

fn everything() -> KeyRange {
    KeyRange {
        start: Bytes::from_static(b"/registry/"),
        end: RangeEnd::Before(Bytes::from_static(b"/registry0")),
    }
}

fn spec(number: u64, range: KeyRange) -> WatcherSpec {
    let (stream, from) = (StreamId::new(number % 50), Revision::FRESH.next());
    WatcherSpec { stream, range, from, filter: Filter::ALL, prev_kv: PrevKv::Omitted }
}

fn with_watchers(watchers: u64, range: fn(u64) -> KeyRange) -> Hub {
    let mut hub = Hub::new(Revision::FRESH);
    for number in 0..watchers {
        hub.add(spec(number, range(number)));
    }
    hub
}

fn publish(watchers: u64, range: fn(u64) -> KeyRange) -> Step {
    let mut hub = with_watchers(watchers, range);
    Box::new(move || {
        let next = hub.head().next();
        let change =
            Record { id: RecordId::new(next, 0), key: key(next.get() % 1_000), change: Change::Delete };
        let mut delivered = 0;
        hub.publish(&[change], next, &mut |delivery: Delivery<'_>| {
            delivered += delivery.records.len() as u64;
            Taken::Taken
        });
        delivered
    })
}

fn add_and_remove() -> Step {
    let mut hub = with_watchers(10_000, single);
    let mut number = 0;
    Box::new(move || {
        number += 1;
        let id = hub.add(spec(number, single(number % 20_000)));
        hub.remove(id);
        id.get()
    })
}
