//! What subscribers are told, fast and slow ones.

use bytes::Bytes;
use futures::FutureExt;

use super::super::cache::{Cache, Update};
use super::super::hub::Step;
use super::super::object::{DecodeError, Entry};
use super::*;
use crate::codec::KeyValue;

/// A cache with its hub, moved on by hand.
struct Rig {
    cache: Cache<Bytes>,
    hub: Arc<Hub<Bytes>>,
}

fn entry(key: &str, value: &str, mod_revision: u64) -> Entry<Bytes> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let value = Bytes::copy_from_slice(value.as_bytes());
    let kv = KeyValue { key, value, create_revision: 1, mod_revision, version: 1, lease: None };
    Entry::decode(&kv, &|kv: &KeyValue| Ok::<_, DecodeError>(kv.value.clone()))
}

impl Rig {
    fn new() -> Self {
        let cache = Cache::new([].into());
        let hub = Arc::new(Hub::new(Arc::clone(cache.snapshot())));
        Self { cache, hub }
    }

    fn publish(&self, changes: Vec<Change<Bytes>>, relisted: Option<RelistReason>) {
        let snapshot = Arc::clone(self.cache.snapshot());
        let step = Step { snapshot, changes: changes.into(), relisted };
        self.hub.publish(self.cache.snapshot(), Some(step));
    }

    fn load(&mut self, revision: u64) {
        self.cache.load(revision, vec![entry("a", "0", revision)]);
        self.publish(Vec::new(), None);
    }

    fn put(&mut self, revision: u64, keys: &[&str]) {
        let updates = keys.iter().map(|key| Update::Set(entry(key, "1", revision))).collect();
        let changes = self.cache.apply(revision, updates).unwrap();
        self.publish(changes, None);
    }

    fn subscribe(&self, changes_max: usize) -> Subscription<Bytes> {
        Subscription::new(Arc::clone(&self.hub), changes_max)
    }
}

/// What is there to be told, without waiting, in short.
fn told(subscription: &mut Subscription<Bytes>) -> Option<String> {
    let event = subscription.next().now_or_never()??;
    let keys: Vec<_> = event.changes().iter().map(|change| change.key().escape_ascii().to_string()).collect();
    let revision = event.snapshot().revision();
    let kind = match &event {
        InformerEvent::Synced { .. } => "synced",
        InformerEvent::Changed { .. } => "changed",
        InformerEvent::Relisted { .. } => "relisted",
        InformerEvent::Lagged { from, .. } => &format!("lagged from {from}"),
    };
    Some(format!("{kind} at {revision}: {}", keys.join(" ")))
}

#[test]
fn a_subscriber_is_told_what_there_is_and_then_each_revision() {
    let mut rig = Rig::new();
    let mut early = rig.subscribe(100);
    assert_eq!(told(&mut early), None, "nothing is known before the first list");
    rig.load(5);
    rig.put(6, &["a", "b"]);
    let mut late = rig.subscribe(100);
    rig.put(8, &["c"]);
    for expected in ["synced at 5: ", "changed at 6: a b", "changed at 8: c"] {
        assert_eq!(told(&mut early).as_deref(), Some(expected));
    }
    for expected in ["synced at 6: ", "changed at 8: c"] {
        assert_eq!(told(&mut late).as_deref(), Some(expected));
    }
    let changes = rig.cache.replace(9, vec![entry("a", "1", 6)]).unwrap();
    rig.publish(changes, Some(RelistReason::Compacted));
    assert_eq!(told(&mut early).as_deref(), Some("relisted at 9: b c"));
    assert_eq!(told(&mut early), None);
    rig.hub.close();
    assert!(early.next().now_or_never().unwrap().is_none(), "it has ended, and that is told");
}

/// AW18: who does not read holds nobody up, is told so, and then what is different.
#[test]
fn aw18_a_slow_subscriber_is_told_that_it_lagged_and_what_is_different() {
    let mut rig = Rig::new();
    rig.load(5);
    let mut slow = rig.subscribe(3);
    let mut other = rig.subscribe(100);
    rig.put(6, &["a"]);
    rig.put(7, &["b", "c"]);
    rig.put(8, &["a"]);
    rig.put(9, &["d"]);
    // What was buffered is told in order; then the difference to what there is.
    for expected in ["synced at 5: ", "changed at 6: a", "changed at 7: b c", "lagged from 7 at 9: a d"] {
        assert_eq!(told(&mut slow).as_deref(), Some(expected));
    }
    rig.put(10, &["e"]);
    assert_eq!(told(&mut slow).as_deref(), Some("changed at 10: e"), "it follows again");
    let all: Vec<_> = std::iter::from_fn(|| told(&mut other)).collect();
    assert_eq!(all.len(), 6, "the other one is told each: {all:?}");
    assert_eq!(rig.hub.health().lagged, 1);
}

#[test]
fn a_revision_that_is_larger_than_a_buffer_is_told_when_nothing_waits() {
    let mut rig = Rig::new();
    rig.load(5);
    let mut subscription = rig.subscribe(2);
    rig.put(6, &["a", "b", "c", "d"]);
    for expected in ["synced at 5: ", "changed at 6: a b c d"] {
        assert_eq!(told(&mut subscription).as_deref(), Some(expected));
    }
}

#[test]
fn who_is_dropped_is_not_counted_any_more() {
    let mut rig = Rig::new();
    rig.load(5);
    let subscription = rig.subscribe(2);
    assert_eq!(rig.hub.health().subscribers, 1);
    drop(subscription);
    assert_eq!(rig.hub.health().subscribers, 0);
    rig.put(6, &["a"]);
    assert_eq!(rig.hub.health().lagged, 0);
}
