//! Updates and deletes on a store that somebody else writes to, and objects that are written anew.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::executor::block_on;

use super::*;
use crate::store::{
    AesGcm, Change, Expect, Identity, Items, Json, Limits, MemoryStorage, MemoryWatch, Page, PrefixChain,
    Removed, Selection,
};

/// A store in memory that counts what it is asked, and lets somebody else write in between.
#[derive(Clone, Default)]
struct Counted {
    storage: MemoryStorage,
    gets: Arc<AtomicU32>,
    puts: Arc<AtomicU32>,
    /// So many puts come too late: somebody else writes the key just before.
    late: Arc<AtomicU32>,
}

impl Counted {
    fn asked(&self) -> (u32, u32) {
        (self.gets.swap(0, Ordering::Relaxed), self.puts.swap(0, Ordering::Relaxed))
    }
}

type E = StoreError<Bytes>;

impl Storage for Counted {
    type Watch = MemoryWatch<Bytes>;

    fn backend(&self) -> &'static str {
        "counted"
    }

    fn wait(&self, version: u64, time_max: Duration) -> impl Future<Output = Result<u64, E>> + Send {
        self.storage.wait(version, time_max)
    }

    async fn put(&self, key: Bytes, value: Bytes, conditions: Conditions) -> Result<Item<Bytes>, E> {
        self.puts.fetch_add(1, Ordering::Relaxed);
        let late = self.late.load(Ordering::Relaxed);
        if late > 0 {
            self.late.store(late - 1, Ordering::Relaxed);
            self.storage
                .put(key.clone(), (100 * u64::from(late)).to_string().into(), Conditions::none())
                .await?;
        }
        self.storage.put(key, value, conditions).await
    }

    fn delete(
        &self,
        key: Bytes,
        conditions: Conditions,
    ) -> impl Future<Output = Result<Removed<Bytes>, E>> + Send {
        self.storage.delete(key, conditions)
    }

    async fn get(&self, key: Bytes, level: ReadLevel) -> Result<Item<Bytes>, E> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.storage.get(key, level).await
    }

    fn list(
        &self,
        prefix: Bytes,
        level: ReadLevel,
        selection: Selection<Bytes>,
    ) -> impl Future<Output = Result<Items<Bytes>, E>> + Send {
        self.storage.list(prefix, level, selection)
    }

    fn page(
        &self,
        prefix: Bytes,
        behind: Option<Bytes>,
        limit: usize,
        level: ReadLevel,
    ) -> impl Future<Output = Result<Page<Bytes>, E>> + Send {
        self.storage.page(prefix, behind, limit, level)
    }

    fn count(&self, prefix: Bytes, level: ReadLevel) -> impl Future<Output = Result<u64, E>> + Send {
        self.storage.count(prefix, level)
    }

    fn watch_prefix(
        &self,
        prefix: Bytes,
        after: Option<u64>,
        selection: Selection<Bytes>,
    ) -> impl Future<Output = Result<MemoryWatch<Bytes>, E>> + Send {
        self.storage.watch_prefix(prefix, after, selection)
    }
}

type Numbers<X> = TypedStore<u64, Json, X, Counted>;

fn numbers() -> (Numbers<Identity>, Counted) {
    let counted = Counted::default();
    (TypedStore::new(counted.clone(), Json, Identity), counted)
}

fn add_one(number: Option<&u64>) -> Result<u64, Infallible> {
    Ok(number.copied().unwrap_or(0) + 1)
}

fn update<X: Transformer>(store: &Numbers<X>, hint: Option<TypedItem<u64>>) -> TypedItem<u64> {
    block_on(store.guaranteed_update("k".into(), hint, add_one)).unwrap()
}

/// NS16: read, change, write: one of each when nobody is in between; a hint saves the read.
#[test]
fn ns16_an_update_reads_once_and_writes_once_and_a_hint_saves_the_read() {
    let (store, counted) = numbers();
    let first = update(&store, None);
    assert_eq!((*first.value, counted.asked()), (1, (1, 1)), "what is not there is made");
    let second = update(&store, None);
    assert_eq!((*second.value, counted.asked()), (2, (1, 1)));
    let third = update(&store, Some(second));
    assert_eq!((*third.value, counted.asked()), (3, (0, 1)));
    let hinted = update(&store, Some(first));
    assert_eq!((*hinted.value, counted.asked()), (4, (0, 2)), "an old hint costs a try, not a read");
}

/// NS16: a conflict brings the object along: each try is one round trip.
#[test]
fn ns16_a_try_that_comes_too_late_goes_on_with_the_object_that_it_was_told() {
    let (store, counted) = numbers();
    update(&store, None);
    counted.asked();
    counted.late.store(3, Ordering::Relaxed);
    let item = update(&store, None);
    assert_eq!(*item.value, 101, "on top of what was written last");
    assert_eq!(counted.asked(), (1, 4));
}

/// NS16: bounded: who never gets through is told so, with what is there.
#[test]
fn ns16_who_is_always_too_late_is_told_after_a_bounded_number_of_tries() {
    let (store, counted) = numbers();
    counted.late.store(u32::MAX, Ordering::Relaxed);
    let result = block_on(store.guaranteed_update("k".into(), None, add_one));
    assert!(matches!(result, Err(UpdateError::Store(StoreError::Conflict { current: Some(_), .. }))));
    assert_eq!(counted.asked(), (1, ATTEMPTS_MAX));
}

/// NS16: what would be the same bytes is not written; because of a hint, not before a look.
#[test]
fn ns16_nothing_is_written_when_nothing_changes() {
    let (store, counted) = numbers();
    let first = update(&store, None);
    counted.asked();
    let same = |number: Option<&u64>| Ok::<_, Infallible>(*number.unwrap());
    let kept = block_on(store.guaranteed_update("k".into(), None, same)).unwrap();
    assert_eq!((kept.version, counted.asked()), (first.version, (1, 0)));
    let kept = block_on(store.guaranteed_update("k".into(), Some(first.clone()), same)).unwrap();
    assert_eq!((kept.version, counted.asked()), (first.version, (1, 0)));
    let second = update(&store, None);
    counted.asked();
    let kept = block_on(store.guaranteed_update("k".into(), Some(first), same)).unwrap();
    assert_eq!((kept.version, *kept.value, counted.asked()), (second.version, 2, (1, 0)), "an old hint");
}

/// NS16: a refusal because of a hint is a refusal only after a look.
#[test]
fn ns16_a_refusal_because_of_an_old_hint_is_looked_into_once() {
    let (store, counted) = numbers();
    let first = update(&store, None);
    update(&store, None);
    counted.asked();
    let only_two = |number: Option<&u64>| match number {
        Some(2) => Ok(20),
        other => Err(format!("{other:?}")),
    };
    let item = block_on(store.guaranteed_update("k".into(), Some(first), only_two)).unwrap();
    assert_eq!((*item.value, counted.asked()), (20, (1, 1)));
    let refused = block_on(store.guaranteed_update("k".into(), Some(item), only_two));
    assert!(matches!(refused, Err(UpdateError::Caller(text)) if text == "Some(20)"));
    assert_eq!(counted.asked(), (1, 0));
}

/// AW11: deleted as what it was when it was looked at, whatever happens in between.
#[test]
fn aw11_a_delete_is_validated_with_the_object_that_is_deleted() {
    let (store, counted) = numbers();
    let first = update(&store, None);
    let second = update(&store, None);
    counted.asked();
    let is = |wanted: u64| move |number: &u64| if *number == wanted { Ok(()) } else { Err(*number) };
    let refused = block_on(store.delete_validated("k".into(), None, is(7)));
    assert!(matches!(refused, Err(UpdateError::Caller(2))));
    let removed = block_on(store.delete_validated("k".into(), Some(first), is(2))).unwrap();
    assert_eq!((*removed.item.value, removed.item.version), (2, second.version));
    assert!(removed.at > second.version, "the version of the deletion");
    let gone = block_on(store.delete_validated("k".into(), Some(second), is(2)));
    assert!(matches!(gone, Err(UpdateError::Store(StoreError::NotFound { .. }))), "{gone:?}");
}

fn chain(newest: u8) -> PrefixChain {
    let link = |n: u8| (format!("holdfast:enc:{n}:"), Arc::new(AesGcm::new(&[n; 32])));
    let (prefix, transformer) = link(newest);
    let rest = (0..newest).rev().map(link);
    rest.fold(PrefixChain::new(prefix, transformer), |chain, (prefix, transformer)| {
        chain.and(prefix, transformer)
    })
}

/// AW6: an object that is stale is written again, though nothing in it changes.
#[test]
fn aw6_an_update_that_changes_nothing_writes_what_is_stale() {
    let counted = Counted::default();
    let old = Numbers::new(counted.clone(), Json, chain(0));
    let first = update(&old, None);
    let new = Numbers::new(counted.clone(), Json, chain(1));
    counted.asked();
    let same = |number: Option<&u64>| Ok::<_, Infallible>(*number.unwrap());
    let item = block_on(new.guaranteed_update("k".into(), None, same)).unwrap();
    assert!(item.version > first.version);
    assert_eq!(counted.asked(), (1, 1));
    let read = block_on(new.get("k".into(), ReadLevel::Linearizable)).unwrap();
    assert!(!read.is_stale);
    let again = block_on(new.guaranteed_update("k".into(), None, same)).unwrap();
    assert_eq!(again.version, item.version);
}

/// AW6: all stale objects are written again, in parts, by whoever goes on with the cursor.
#[test]
fn aw6_stale_objects_are_written_again_in_parts_that_can_be_resumed() {
    const OBJECTS: u64 = 1_050;
    let counted = Counted::default();
    let old = Numbers::new(counted.clone(), Json, chain(0));
    for n in 0..OBJECTS {
        block_on(old.put(format!("a/{n:05}").into(), n, Conditions::none())).unwrap();
    }
    block_on(old.put("b/other".into(), 0, Conditions::none())).unwrap();
    let (mut cursor, mut parts, mut rewritten) = (None, 0, 0);
    loop {
        // Another process goes on each time: nothing but the cursor is kept.
        let new = Numbers::new(counted.clone(), Json, chain(1));
        let done = block_on(new.rewrite_stale("a/".into(), cursor, 300)).unwrap();
        parts += 1;
        rewritten += done.rewritten;
        cursor = done.cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((parts, rewritten), (3, OBJECTS));
    let new = Numbers::new(counted.clone(), Json, chain(1));
    let done = block_on(new.rewrite_stale("a/".into(), None, u64::MAX)).unwrap();
    assert_eq!((done.seen, done.rewritten), (OBJECTS, 0), "what was done is done");
    // The old key is not needed any more.
    let alone = PrefixChain::new("holdfast:enc:1:", Arc::new(AesGcm::new(&[1; 32])));
    let alone = Numbers::new(counted, Json, alone);
    let listed = block_on(alone.list("a/".into(), ReadLevel::Linearizable, Selection::all())).unwrap();
    let numbers: Vec<_> = listed.items.iter().map(|item| *item.value).collect();
    assert_eq!(numbers, (0..OBJECTS).collect::<Vec<_>>());
    let other = block_on(alone.get("b/other".into(), ReadLevel::Linearizable));
    assert!(matches!(other, Err(StoreError::Transform { .. })), "beside the prefix nothing was written");
}

/// AW6: an object that nobody here can open is counted and named, and does not stop the others.
#[test]
fn aw6_what_cannot_be_opened_does_not_stop_the_others() {
    let counted = Counted::default();
    let old = Numbers::new(counted.clone(), Json, chain(0));
    for key in ["a", "b", "d"] {
        block_on(old.put(key.into(), 1, Conditions::none())).unwrap();
    }
    let foreign = block_on(counted.put("c".into(), "holdfast:enc:9:x".into(), Conditions::none())).unwrap();
    // No number, but sealed as numbers are.
    let sealed = block_on(chain(0).seal("?".into(), b"e")).unwrap();
    block_on(counted.put("e".into(), sealed, Conditions::none())).unwrap();
    let new = Numbers::new(counted.clone(), Json, chain(1));
    let done = block_on(new.rewrite_stale("".into(), None, u64::MAX)).unwrap();
    let wanted =
        Rewritten { seen: 5, rewritten: 4, unreadable: 1, first_unreadable: Some("c".into()), cursor: None };
    assert_eq!(done, wanted);
    let kept = block_on(counted.get("c".into(), ReadLevel::Any)).unwrap();
    assert_eq!(kept, foreign);
}

/// AW4: what is copied to another key by whoever can write does not open there.
#[test]
fn aw4_a_ciphertext_that_was_moved_to_another_key_is_an_error_of_that_key() {
    let storage = MemoryStorage::new();
    let store = TypedStore::<u64, _, _, _>::new(storage.clone(), Json, chain(0));
    block_on(store.put("a".into(), 1, Conditions::none())).unwrap();
    let sealed = block_on(storage.get("a".into(), ReadLevel::Linearizable)).unwrap();
    let moved = block_on(storage.put("b".into(), sealed.value, Conditions::none())).unwrap();
    match block_on(store.get("b".into(), ReadLevel::Linearizable)) {
        Err(StoreError::Transform { key, version, .. }) => {
            assert_eq!((key, version), (moved.key, moved.version));
        }
        other => panic!("{other:?}"),
    }
}

/// RS3, AW8: what cannot be decoded is there, under its version, and can be deleted.
#[test]
fn rs3_what_cannot_be_decoded_is_not_missing() {
    let (store, counted) = numbers();
    let put = counted.storage.put("k".into(), "no number".into(), Conditions::none());
    let stored = block_on(put).unwrap();
    let is_decode = |error: Option<TypedError<u64>>| matches!(error, Some(StoreError::Decode { key, version, .. }) if key == "k" && version == stored.version);
    assert!(is_decode(block_on(store.get("k".into(), ReadLevel::Any)).err()));
    let listed = block_on(store.list("".into(), ReadLevel::Any, Selection::all()));
    assert!(is_decode(listed.err()));
    assert!(is_decode(block_on(store.put("k".into(), 1, Conditions::prev_version(0))).err()));
    assert_eq!(block_on(store.count("".into(), ReadLevel::Any)).unwrap(), 1);
    let gone = block_on(store.delete("k".into(), Conditions::expect(Expect::Present)));
    assert!(matches!(gone, Err(StoreError::Gone { at, .. }) if at > stored.version));
    assert_eq!(block_on(store.count("".into(), ReadLevel::Any)).unwrap(), 0);
}

/// A typed watch says which object it cannot decode, and goes on.
#[test]
fn a_watch_names_what_it_cannot_decode_and_goes_on() {
    let storage = MemoryStorage::with_limits(Limits::default());
    let store = TypedStore::<u64, _, _, _>::new(storage.clone(), Json, Identity);
    let even = Selection::new([crate::store::Selector::equals("even", "yes")], |_, item: &TypedItem<u64>| {
        Some(if item.value.is_multiple_of(2) { "yes" } else { "no" }.into())
    });
    let mut watch = block_on(store.watch("".into(), None, even)).unwrap();
    assert!(!watch.server_side());
    block_on(store.put("a".into(), 1, Conditions::none())).unwrap();
    block_on(storage.put("b".into(), "?".into(), Conditions::none())).unwrap();
    block_on(store.put("c".into(), 2, Conditions::none())).unwrap();
    let error = block_on(watch.next()).unwrap();
    assert!(matches!(error, Err(StoreError::Decode { key, .. }) if key == "b"));
    let Change { key, current, .. } = block_on(watch.next()).unwrap().unwrap();
    assert_eq!((key, *current.unwrap().value), ("c".into(), 2));
}
