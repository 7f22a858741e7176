//! That the judge lets a sound history pass, and finds each way in which one can be unsound.

use std::time::Duration;

use holdfast_mvcc::types::{PutRecord, RecordId};
use holdfast_storage::EventSink;
use tokio::time::Instant;

use super::super::history::LifeSink;
use super::*;

fn put(revision: u64, key: &str, value: &str, version: u64) -> Record {
    let put = PutRecord {
        create_revision: Revision::new(revision + 1 - version),
        version,
        lease: None,
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let id = RecordId::new(Revision::new(revision), 0);
    Record { id, key: Bytes::copy_from_slice(key.as_bytes()), change: Change::Put(put) }
}

fn delete(revision: u64, key: &str) -> Record {
    let id = RecordId::new(Revision::new(revision), 0);
    Record { id, key: Bytes::copy_from_slice(key.as_bytes()), change: Change::Delete }
}

fn key_range(key: &'static str) -> KeyRange {
    KeyRange { start: Bytes::from_static(key.as_bytes()), end: RangeEnd::Single }
}

fn write(value: &'static str, known_before: u64, told: Told) -> Write {
    let puts = vec![(Bytes::from_static(b"k"), Bytes::from_static(value.as_bytes()))];
    Write { puts, delete: None, deleted: 0, known_before, told }
}

fn erase(deleted: u64, told: Told) -> Write {
    Write { puts: Vec::new(), delete: Some(key_range("k")), deleted, known_before: 0, told }
}

fn history_of(records: &[Record]) -> History {
    let history = History::default();
    for record in records {
        LifeSink::new(history.clone()).publish(&[record], record.id.revision);
    }
    history
}

fn read_of(known_before: u64, revision: u64, found: Option<(&'static str, u64)>) -> Read {
    let found = found.map(|(value, mod_revision)| Found {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(value.as_bytes()),
        mod_revision,
    });
    Read { range: key_range("k"), known_before, revision, found: found.into_iter().collect() }
}

#[tokio::test]
async fn a_sound_history_passes() {
    let history = history_of(&[put(2, "k", "a", 1), put(3, "k", "b", 2), delete(4, "k")]);
    history.wrote(write("a", 0, Told::Done(2)));
    history.wrote(write("b", 2, Told::Unknown));
    history.wrote(write("c", 2, Told::Refused));
    history.wrote(erase(1, Told::Done(4)));
    history.wrote(erase(0, Told::Done(4)));
    history.read(read_of(2, 2, Some(("a", 2))));
    history.read(read_of(3, 3, Some(("b", 3))));
    history.read(read_of(4, 4, None));
    history.watched(2, 3, &[put(2, "k", "a", 1), put(3, "k", "b", 2)]);
    history.watched(5, 4, &[]);
    assert_eq!(history.judge(), Ok(()));
}

fn leased(key: &'static str, alive_seconds: u64) -> (History, super::super::history::LeasePlace) {
    let history = history_of(&[put(2, key, "a", 1), delete(3, key)]);
    let place = history.granted(Instant::now());
    history.attaching(place, Bytes::from_static(key.as_bytes()));
    history.attached(place, &Bytes::from_static(key.as_bytes()));
    history.renewed(place, Instant::now() + Duration::from_secs(alive_seconds));
    (history, place)
}

#[tokio::test(start_paused = true)]
async fn a_lease_may_not_end_early() {
    assert_eq!(leased("k", 0).0.judge(), Ok(()), "at its time");
    assert!(leased("k", 1).0.judge().is_err(), "before it");
    let (revoked, place) = leased("k", 1);
    revoked.revoking(place);
    assert_eq!(revoked.judge(), Ok(()), "it was asked for");
    let (told, place) = leased("other", 0);
    told.renewed(place, Instant::now() + Duration::from_secs(1));
    told.told_gone(place);
    assert!(told.judge().is_err(), "a member said that it is gone");
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_lease_end_together() {
    let history = history_of(&[put(2, "k", "a", 1), put(3, "l", "b", 1), delete(4, "k"), delete(5, "l")]);
    let place = history.granted(Instant::now());
    for key in ["k", "l"] {
        history.attaching(place, Bytes::from_static(key.as_bytes()));
        history.attached(place, &Bytes::from_static(key.as_bytes()));
    }
    assert!(history.judge().is_err());
}

type Doctor = fn(&History);

#[tokio::test]
async fn each_broken_promise_is_found() {
    let doctored: [(&str, Doctor); 16] = [
        ("lost", |history| history.wrote(write("c", 0, Told::Done(4)))),
        ("moved", |history| history.wrote(write("a", 0, Told::Done(3)))),
        ("refused", |history| history.wrote(write("b", 0, Told::Refused))),
        ("early", |history| history.wrote(write("b", 3, Told::Unknown))),
        ("stale", |history| history.read(read_of(3, 2, Some(("a", 2))))),
        ("wrong", |history| history.read(read_of(2, 3, Some(("a", 2))))),
        ("never", |history| history.read(read_of(2, 9, Some(("b", 3))))),
        ("undeleted", |history| history.wrote(erase(0, Told::Done(3)))),
        ("not its delete", |history| history.wrote(erase(1, Told::Done(3)))),
        ("half a transaction", |history| {
            let mut half = write("a", 0, Told::Done(2));
            half.puts.push((Bytes::from_static(b"l"), Bytes::from_static(b"missing")));
            history.wrote(half);
        }),
        ("an event missing", |history| history.watched(2, 3, &[put(2, "k", "a", 1)])),
        ("an event twice", |history| {
            history.watched(2, 2, &[put(2, "k", "a", 1), put(2, "k", "a", 1)]);
        }),
        ("an event of before", |history| history.watched(3, 3, &[put(2, "k", "a", 1), put(3, "k", "b", 2)])),
        ("progress that lies", |history| history.watched(4, 5, &[])),
        ("a gap in a life", |history| {
            let life = LifeSink::new(history.clone());
            life.begin(1);
            life.publish(&[&put(3, "k", "b", 2)], Revision::new(3));
        }),
        ("compacted by nobody", |history| {
            history.compacting(2);
            history.told_compacted(3);
        }),
    ];
    for (name, doctor) in doctored {
        // Revision 5 is published by nobody that the watcher of "progress that lies" has seen.
        let history = history_of(&[put(2, "k", "a", 1), put(3, "k", "b", 2)]);
        if name == "progress that lies" {
            LifeSink::new(history.clone()).publish(&[&put(4, "k", "d", 3)], Revision::new(4));
        }
        doctor(&history);
        assert!(history.judge().is_err(), "the judge does not see: {name}");
    }
    let gap = history_of(&[put(2, "k", "a", 1), put(4, "k", "b", 2)]);
    let split = history_of(&[put(2, "k", "a", 1), put(2, "k", "b", 1)]);
    let twice = history_of(&[put(2, "k", "a", 1), put(3, "k", "a", 2)]);
    let version = history_of(&[put(2, "k", "a", 1), put(3, "k", "b", 3)]);
    let absent = history_of(&[delete(2, "k")]);
    for (name, history) in
        [("gap", gap), ("split", split), ("twice", twice), ("version", version), ("absent", absent)]
    {
        assert!(history.judge().is_err(), "the judge does not see: {name}");
    }
}
