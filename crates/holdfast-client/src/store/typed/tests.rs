//! Watches of objects of which some cannot be read.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::executor::block_on;
use futures::future::BoxFuture;

use super::*;
use crate::store::{ChangeKind, MemoryStorage, Opened, Selector};

type Watched<X> = TypedWatch<u64, Json, X, MemoryStorage>;

/// What a watch tells next: kind, number before, number now.
fn told<X: Transformer>(watch: &mut Watched<X>) -> (ChangeKind, Option<u64>, Option<u64>) {
    let change = block_on(watch.next()).unwrap().unwrap();
    let number = |item: Option<TypedItem<u64>>| item.map(|item| *item.value);
    (change.kind, number(change.previous), number(change.current))
}

/// AW8: what somebody wrote before, and cannot be decoded, does not hide what is there now, nor that it is gone.
#[test]
fn aw8_a_change_of_what_cannot_be_read_is_told() {
    let storage = MemoryStorage::new();
    let store = TypedStore::<u64, _, _, _>::new(storage.clone(), Json, Identity);
    let bad = || block_on(storage.put("k".into(), "?".into(), Conditions::none())).unwrap();
    let is_decode = |watch: &mut Watched<Identity>| matches!(block_on(watch.next()), Some(Err(StoreError::Decode { key, .. })) if key == "k");
    let first = bad();
    let even = Selection::new([Selector::equals("even", "yes")], |_, item: &TypedItem<u64>| {
        Some(if item.value.is_multiple_of(2) { "yes" } else { "no" }.into())
    });
    let mut all = block_on(store.watch("".into(), Some(first.version), Selection::all())).unwrap();
    let mut even = block_on(store.watch("".into(), Some(first.version), even)).unwrap();
    block_on(store.put("k".into(), 2, Conditions::none())).unwrap();
    assert_eq!(told(&mut all), (ChangeKind::Modified, None, Some(2)));
    assert_eq!(told(&mut even), (ChangeKind::Modified, None, Some(2)));
    bad();
    assert!(is_decode(&mut all) && is_decode(&mut even));
    block_on(store.put("k".into(), 3, Conditions::none())).unwrap();
    assert_eq!(told(&mut all), (ChangeKind::Modified, None, Some(3)));
    assert_eq!(told(&mut even), (ChangeKind::Left, None, Some(3)), "it may have been one");
    bad();
    assert!(is_decode(&mut all) && is_decode(&mut even));
    block_on(storage.delete("k".into(), Conditions::none())).unwrap();
    assert_eq!(told(&mut all), (ChangeKind::Deleted, None, None));
    assert_eq!(told(&mut even), (ChangeKind::Deleted, None, None));
}

/// Bytes as they are, behind a key service that does not answer so many times.
struct Failing(Arc<AtomicU32>);

impl Transformer for Failing {
    fn seal<'a>(&'a self, value: Bytes, _: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        Box::pin(std::future::ready(Ok(value)))
    }

    fn open<'a>(&'a self, value: Bytes, _: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        let result = match left {
            0 => Ok(Opened { value, is_stale: false }),
            _ => Err(TransformError::Kms { source: "gone".into() }),
        };
        Box::pin(std::future::ready(result))
    }
}

/// AW6: a key service that does not answer for a while costs no change.
#[test]
fn aw6_a_change_waits_for_the_key_service() {
    let failures = Arc::new(AtomicU32::new(0));
    let store = TypedStore::new(MemoryStorage::new(), Json, Failing(Arc::clone(&failures)));
    let mut watch: Watched<Failing> = block_on(store.watch("".into(), None, Selection::all())).unwrap();
    for n in [1, 2] {
        block_on(store.put("k".into(), n, Conditions::none())).unwrap();
    }
    failures.store(2, Ordering::Relaxed);
    for _ in 0..2 {
        let failed = block_on(watch.next()).unwrap();
        assert!(matches!(failed, Err(StoreError::Transform { source: TransformError::Kms { .. }, .. })));
    }
    assert_eq!(told(&mut watch), (ChangeKind::Created, None, Some(1)));
    assert_eq!(told(&mut watch), (ChangeKind::Modified, Some(1), Some(2)));
}
