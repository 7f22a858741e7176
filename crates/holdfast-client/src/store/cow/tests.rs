//! Versions of a store: limits, what goes when it is full, readers beside writers.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

type Text = Arc<str>;

fn put(cow: &Cow<Text>, key: &str, value: &str) -> Result<Written<Text>, TooLarge> {
    let bytes = u64::try_from(value.len()).unwrap();
    let key = Bytes::copy_from_slice(key.as_bytes());
    cow.write(&key, |_, _| Ok::<_, TooLarge>(Decision::Put(value.into(), bytes)))
}

fn delete(cow: &Cow<Text>, key: &'static str) -> Written<Text> {
    cow.write(&Bytes::from(key), |_, _| Ok::<_, TooLarge>(Decision::Delete)).unwrap()
}

fn keys(view: &View<Text>) -> Vec<String> {
    view.prefix(b"").map(|item| String::from_utf8(item.key.to_vec()).unwrap()).collect()
}

fn limited(objects_max: u64, bytes_max: u64, when_full: WhenFull) -> Cow<Text> {
    Cow::new(Limits { objects_max, bytes_max, when_full, ..Limits::default() }, true)
}

#[test]
fn each_change_has_a_version_and_a_reader_keeps_the_one_it_took() {
    let cow = limited(10, 1_000, WhenFull::Reject);
    let empty = cow.view();
    assert_eq!((empty.version(), empty.len(), empty.bytes()), (FIRST, 0, 0));
    let created = put(&cow, "b", "1").unwrap();
    assert_eq!((created.version, created.previous.is_none()), (2, true));
    let first = cow.view();
    put(&cow, "a", "12").unwrap();
    let changed = put(&cow, "b", "2").unwrap();
    let current = changed.current.unwrap();
    assert_eq!((current.version, current.created), (4, 2));
    let gone = delete(&cow, "b");
    assert_eq!((gone.version, gone.previous.unwrap().version), (5, 4));
    let again = put(&cow, "b", "3").unwrap().current.unwrap();
    assert_eq!((again.version, again.created), (6, 6), "made again is another object");
    assert_eq!(keys(&first), ["b"]);
    assert_eq!(&*first.get(b"b").unwrap().value, "1");
    assert_eq!(keys(&cow.view()), ["a", "b"]);
    assert_eq!(cow.view().bytes(), 5);
    assert_eq!(keys(&empty), [""; 0]);
}

#[test]
fn the_past_can_be_read_as_far_as_changes_are_remembered() {
    let limits = Limits { changes_max: 3, ..Limits::default() };
    let cow = Cow::<Text>::new(limits, true);
    for n in 2..=7 {
        assert_eq!(put(&cow, "k", &n.to_string()).unwrap().version, n);
    }
    for version in 4..=7 {
        let view = cow.view_at(version).ok().unwrap();
        assert_eq!((view.version(), &*view.get(b"k").unwrap().value), (version, &*version.to_string()));
    }
    assert!(matches!(cow.view_at(3), Err(Asked::Compacted { oldest: 4 })));
    assert!(matches!(cow.view_at(8), Err(Asked::Future { current: 7 })));
    let after = |version| cow.changes(version, 10).map(|changes| changes.iter().map(|c| c.version).collect());
    assert_eq!(after(4).ok(), Some(vec![5, 6, 7]));
    assert_eq!(after(7).ok(), Some(vec![]));
    assert_eq!(after(99).ok(), Some(vec![]));
    assert!(matches!(after(3), Err(Asked::Compacted { oldest: 4 })));
    assert_eq!(cow.changes(4, 2).ok().map(|changes| changes.len()), Some(2));
}

/// RS16: what has no room is refused, and nothing happens.
#[test]
fn rs16_a_full_store_that_rejects_says_which_limit_it_was() {
    let cow = limited(2, 20, WhenFull::Reject);
    put(&cow, "a", "12345").unwrap();
    put(&cow, "b", "12345").unwrap();
    let full = |result: Result<Written<Text>, TooLarge>| result.err().map(|full| full.limit);
    assert_eq!(full(put(&cow, "c", "1")), Some(Limit::Objects));
    assert_eq!(full(put(&cow, "b", "123456789012345")), Some(Limit::Bytes));
    assert_eq!((cow.view().version(), cow.view().bytes()), (3, 12));
    put(&cow, "b", "1234567890123").unwrap();
    let small = Limits { object_bytes_max: 3, ..Limits::default() };
    let small = Cow::<Text>::new(small, false);
    let refused = put(&small, "a", "1234").err().unwrap();
    assert_eq!(refused, TooLarge { limit: Limit::ObjectBytes, wanted: 4, max: 3 });
}

/// RS16: the oldest goes, each eviction is a change of its own.
#[test]
fn rs16_the_one_that_was_not_written_for_the_longest_time_goes() {
    let cow = limited(3, 1_000, WhenFull::EvictOldest);
    for key in ["a", "b", "c", "a"] {
        put(&cow, key, "1").unwrap();
    }
    // A read is no use.
    cow.get(b"b");
    let written = put(&cow, "d", "1").unwrap();
    assert_eq!(written.version, 7);
    assert_eq!(keys(&cow.view()), ["a", "c", "d"]);
    let changes = cow.changes(5, 10).ok().unwrap();
    let told: Vec<_> =
        changes.iter().map(|change| (change.version, change.kind, change.key.clone())).collect();
    assert_eq!(told, [(6, ChangeKind::Evicted, "b".into()), (7, ChangeKind::Created, "d".into())]);
    assert_eq!(changes[0].previous.as_ref().unwrap().version, 3);
    assert_eq!(keys(&cow.view_at(6).ok().unwrap()), ["a", "c"], "the state between is a state");
}

/// RS16: as many go as are needed, but never the one that is written.
#[test]
fn rs16_as_many_go_as_make_room_and_never_what_is_written() {
    let cow = limited(100, 40, WhenFull::EvictOldest);
    for key in ["a", "b", "c", "d"] {
        put(&cow, key, "123456789").unwrap();
    }
    put(&cow, "a", "1234567890123456789012345").unwrap();
    assert_eq!(keys(&cow.view()), ["a", "d"]);
    assert_eq!(cow.view().bytes(), 36);
    let refused = put(&cow, "e", "1234567890123456789012345678901234567890").err().unwrap();
    assert_eq!(refused.limit, Limit::Bytes, "what is too large alone drives nobody out");
    assert_eq!(keys(&cow.view()), ["a", "d"]);
}

/// RS16: reads by key count as use.
#[test]
fn rs16_the_least_recently_used_goes() {
    let cow = limited(3, 1_000, WhenFull::EvictLru);
    for key in ["a", "b", "c"] {
        put(&cow, key, "1").unwrap();
    }
    for key in ["a", "c", "a"] {
        cow.get(key.as_bytes());
    }
    put(&cow, "d", "1").unwrap();
    assert_eq!(keys(&cow.view()), ["a", "c", "d"]);
    put(&cow, "e", "1").unwrap();
    assert_eq!(keys(&cow.view()), ["a", "d", "e"]);
    cow.get(b"d");
    put(&cow, "f", "1").unwrap();
    assert_eq!(keys(&cow.view()), ["d", "e", "f"]);
}

/// What is written again and again leaves no more places behind than there are objects, and a bit.
#[test]
fn the_order_of_evictions_is_swept() {
    let cow = limited(10, 1_000, WhenFull::EvictLru);
    for n in 0..10_000 {
        put(&cow, &(n % 10).to_string(), "1").unwrap();
    }
    assert!(cow.writer.lock().unwrap().len() <= 20 + STALE_PLACES_MAX + 1);
    put(&cow, "x", "1").unwrap();
    assert_eq!(keys(&cow.view()), ["1", "2", "3", "4", "5", "6", "7", "8", "9", "x"]);
}

/// RS11: a writer that is in the middle of a write holds no reader up.
#[test]
fn rs11_readers_do_not_wait_for_a_writer() {
    let cow = Cow::<Text>::new(Limits::default(), false);
    put(&cow, "k", "1").unwrap();
    let (inside, done) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cow.write(&Bytes::from("k"), |_, _| {
                inside.wait();
                // Stays in the middle of the write until the reader has read.
                done.wait();
                Ok::<_, TooLarge>(Decision::Put("2".into(), 1))
            })
            .map(drop)
            .unwrap();
        });
        inside.wait();
        assert_eq!(&*cow.get(b"k").0.unwrap().value, "1");
        assert_eq!(cow.view().prefix(b"").count(), 1);
        assert!(cow.changes(1, 10).is_ok());
        done.wait();
    });
    assert_eq!(&*cow.get(b"k").0.unwrap().value, "2");
}

/// RS11: eight readers and four writers at once: every state that is seen is one that was, and versions only grow.
#[test]
fn rs11_what_readers_see_while_others_write_is_always_a_whole_version() {
    const WRITES: u64 = 2_000;
    let cow = Cow::<Text>::new(Limits::default(), false);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let (cow, is_done) = (&cow, &is_done);
            scope.spawn(move || {
                let mut last = 0;
                while !is_done.load(Ordering::Relaxed) {
                    let view = cow.view();
                    assert!(view.version() >= last, "reader {reader}");
                    last = view.version();
                    let newest = view.prefix(b"").map(|item| item.version).max().unwrap_or(FIRST);
                    assert_eq!(newest, view.version(), "the last change is in it, and nothing behind it");
                }
            });
        }
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let cow = &cow;
                scope.spawn(move || {
                    for n in 0..WRITES {
                        put(cow, &format!("{writer}-{}", n % 50), "1").unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(cow.view().version(), FIRST + 4 * WRITES);
}

/// A value that counts how often it is copied.
struct Copies(Arc<AtomicU64>);

impl Clone for Copies {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

/// RS11: a write among a hundred thousand objects copies a path to one of them, not the objects.
#[test]
fn rs11_a_write_does_not_copy_the_others() {
    let cow = Cow::<Copies>::new(Limits::default(), false);
    let copies = Arc::new(AtomicU64::new(0));
    let put = |n: u32| {
        let value = Copies(Arc::clone(&copies));
        let key = Bytes::from(format!("{n:06}"));
        cow.write(&key, |_, _| Ok::<_, TooLarge>(Decision::Put(value, 1))).map(drop).unwrap();
    };
    (0..100_000).for_each(put);
    let kept = cow.view();
    copies.store(0, Ordering::Relaxed);
    put(50_000);
    assert!(copies.load(Ordering::Relaxed) < 10, "{copies:?}");
    assert_eq!(kept.get(b"050000").unwrap().version, 50_002);
    assert_eq!(cow.view().get(b"050000").unwrap().version, 100_002);
}
