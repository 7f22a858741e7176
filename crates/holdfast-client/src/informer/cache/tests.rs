//! A cache beside a naive model of it: lists, changes, relists, in any order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::KeyValue;
use crate::informer::object::{Decode, Object};
use crate::informer::tree::tests::allocated;

/// A key that holds a number; what is no number is no object.
type Number = u32;

fn decoder() -> Box<Decode<Number>> {
    Box::new(|kv| Ok(std::str::from_utf8(&kv.value)?.parse()?))
}

fn by_last_digit() -> Arc<[Indexer<Number>]> {
    let digit = |object: &Object<Number>| {
        // Twice the same, and none at all for some.
        let term = Bytes::from((object.value() % 10).to_string());
        if object.value() % 10 == 9 { vec![] } else { vec![term.clone(), "all".into(), term] }
    };
    [Indexer::new("last digit", digit)].into()
}

fn entry(kv: &KeyValue) -> Entry<Number> {
    Entry::decode(kv, &*decoder())
}

fn key(n: u8) -> Bytes {
    Bytes::from(format!("k/{n:03}"))
}

/// What a server does, in the simplest way.
#[derive(Debug, Clone, Default)]
struct Model {
    revision: u64,
    keys: BTreeMap<Bytes, KeyValue>,
}

impl Model {
    fn run(&mut self, writes: &[Write]) -> Vec<Update<Number>> {
        self.revision += 1;
        let mut updates = Vec::new();
        for write in writes {
            match write {
                Write::Put(at, value) => {
                    let before = self.keys.get(&key(*at));
                    let kv = KeyValue {
                        key: key(*at),
                        value: value.map_or("none".into(), |n| n.to_string().into()),
                        create_revision: before.map_or(self.revision, |kv| kv.create_revision),
                        mod_revision: self.revision,
                        version: before.map_or(1, |kv| kv.version + 1),
                        lease: None,
                    };
                    updates.push(Update::Set(entry(&kv)));
                    self.keys.insert(kv.key.clone(), kv);
                }
                Write::Delete(at) => {
                    if self.keys.remove(&key(*at)).is_some() {
                        updates.push(Update::Delete(key(*at)));
                    }
                }
            }
        }
        updates
    }

    fn list(&self, known: &Snapshot<Number>) -> Vec<Entry<Number>> {
        let known = |kv: &KeyValue| known.entry(&kv.key).filter(|entry| entry.is_of(kv)).cloned();
        self.keys.values().map(|kv| known(kv).unwrap_or_else(|| entry(kv))).collect()
    }

    fn number(kv: &KeyValue) -> Option<Number> {
        std::str::from_utf8(&kv.value).unwrap().parse().ok()
    }

    /// That a snapshot shows this, in every way in which it can be read.
    fn check(&self, snapshot: &Snapshot<Number>) {
        assert_eq!(snapshot.revision(), self.revision);
        assert_eq!(snapshot.len(), self.keys.len());
        assert_eq!(snapshot.digest(), Digest::of(self.keys.values()));
        let readable: Vec<_> =
            self.keys.values().filter_map(|kv| Some((kv.key.to_vec(), Self::number(kv)?))).collect();
        let listed: Vec<_> = snapshot.iter().map(|object| (object.key().to_vec(), *object.value())).collect();
        assert_eq!(listed, readable);
        let unreadable: Vec<_> = snapshot.unreadable().map(|unreadable| unreadable.key().to_vec()).collect();
        assert_eq!(unreadable.len() + readable.len(), self.keys.len());
        for n in 0..20 {
            match (self.keys.get(&key(n)), snapshot.get(key(n))) {
                (None, Ok(None)) => {}
                (Some(kv), Ok(Some(object))) => {
                    assert_eq!(Self::number(kv), Some(*object.value()));
                    assert_eq!(kv.mod_revision, object.mod_revision());
                    assert_eq!(kv.create_revision, object.create_revision());
                }
                (Some(kv), Err(_)) => assert_eq!(Self::number(kv), None, "it is there, and is told to be"),
                (expected, found) => panic!("{expected:?}, {found:?}"),
            }
        }
        let mut terms = BTreeMap::<String, Vec<Vec<u8>>>::new();
        for (key, number) in readable.into_iter().filter(|(_, number)| number % 10 != 9) {
            terms.entry((number % 10).to_string()).or_default().push(key.clone());
            terms.entry("all".to_owned()).or_default().push(key);
        }
        let found: Vec<_> = snapshot.terms("last digit").unwrap().map(<[u8]>::to_vec).collect();
        assert_eq!(found, terms.keys().map(|term| term.as_bytes().to_vec()).collect::<Vec<_>>());
        for (term, keys) in terms {
            let found = snapshot.by_index("last digit", term.as_bytes()).unwrap();
            assert_eq!(found.map(|object| object.key().to_vec()).collect::<Vec<_>>(), keys);
        }
        assert!(snapshot.by_index("nothing", b"1").is_none());
    }
}

#[derive(Debug, Clone)]
enum Write {
    Put(u8, Option<Number>),
    Delete(u8),
}

#[derive(Debug, Clone)]
enum Step {
    Revision(Vec<Write>),
    /// The same revision again, or an older one.
    Again(u64),
    /// Revisions that nobody tells of, then a list.
    Gap(Vec<Vec<Write>>),
    Progress,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        4 => (0..20_u8, proptest::option::weighted(0.9, 0..40_u32)).prop_map(|(k, v)| Write::Put(k, v)),
        2 => (0..20_u8).prop_map(Write::Delete),
    ];
    // Each key at most once in a revision, as servers have it.
    proptest::collection::vec(write, 1..6).prop_map(|writes| {
        let mut keys = BTreeSet::new();
        let key = |write: &Write| match write {
            Write::Put(key, _) | Write::Delete(key) => *key,
        };
        writes.into_iter().filter(|write| keys.insert(key(write))).collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => writes().prop_map(Step::Revision),
        1 => (0..5_u64).prop_map(Step::Again),
        1 => proptest::collection::vec(writes(), 0..8).prop_map(Step::Gap),
        1 => Just(Step::Progress),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Keeps by changes alone what a subscriber would know.
fn follow(known: &mut BTreeMap<Vec<u8>, Option<Number>>, changes: &[Change<Number>]) {
    for change in changes {
        let key = change.key().to_vec();
        let before = known.get(&key).copied();
        match change {
            Change::Added { object } => {
                assert!(matches!(before, None | Some(None)), "{change:?}");
                known.insert(key, Some(*object.value()));
            }
            Change::Modified { object, previous } => {
                assert_eq!(before, Some(Some(*previous.value())), "{change:?}");
                known.insert(key, Some(*object.value()));
            }
            Change::Deleted { last, .. } => {
                assert_eq!(before, Some(last.as_ref().map(|last| *last.value())), "{change:?}");
                known.remove(&key);
            }
            Change::Unreadable { previous, .. } => {
                assert_eq!(before.flatten(), previous.as_ref().map(|previous| *previous.value()));
                known.insert(key, None);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// AW20: the state is that of a naive model after each step, in each way in which it can be read; what readers hold
    /// does not change; changes alone lead to the same state.
    #[test]
    fn aw20_a_cache_shows_what_a_naive_model_shows(steps in steps()) {
        let mut cache = Cache::new(by_last_digit());
        let mut model = Model { revision: 1, ..Model::default() };
        let mut held = Vec::new();
        let mut followed = BTreeMap::new();
        cache.replace(1, vec![]).unwrap();
        for step in steps {
            match step {
                Step::Revision(writes) => {
                    let updates = model.run(&writes);
                    let count = updates.len();
                    let changes = cache.apply(model.revision, updates).unwrap();
                    prop_assert_eq!(changes.len(), count);
                    follow(&mut followed, &changes);
                }
                Step::Again(back) => {
                    let given = model.revision.saturating_sub(back);
                    let update = Update::Delete(key(0));
                    let refused = cache.apply(given, vec![update]).unwrap_err();
                    prop_assert_eq!(refused, NotNewer { given, known: model.revision });
                    if back > 0 {
                        prop_assert!(cache.replace(given, vec![]).is_err());
                    }
                }
                Step::Gap(revisions) => {
                    let before = model.keys.clone();
                    for writes in revisions {
                        model.run(&writes);
                    }
                    let changes = cache.replace(model.revision, model.list(cache.snapshot())).unwrap();
                    let keys: BTreeSet<_> = before.keys().chain(model.keys.keys()).collect();
                    let real = keys.iter().filter(|key| before.get(**key) != model.keys.get(**key)).count();
                    prop_assert_eq!(changes.len(), real, "only real changes, each once");
                    let gone = |change: &Change<Number>| matches!(change, Change::Deleted { sight: Sight::Seen, .. });
                    prop_assert!(!changes.iter().any(gone), "what was not seen is not told to be certain");
                    follow(&mut followed, &changes);
                }
                Step::Progress => {
                    model.revision += 1;
                    cache.advance(model.revision).unwrap();
                }
            }
            model.check(cache.snapshot());
            held.push((model.clone(), Arc::clone(cache.snapshot())));
        }
        let known: BTreeMap<_, _> = model.keys.values().map(|kv| (kv.key.to_vec(), Model::number(kv))).collect();
        prop_assert_eq!(&followed, &known);
        for (model, snapshot) in &held {
            model.check(snapshot);
        }
        // What a reader misses is the difference of two states.
        let (first, last) = (&held[0], &held[held.len() - 1]);
        let changes = last.1.changes_since(&first.1);
        let mut known: BTreeMap<_, _> =
            first.0.keys.values().map(|kv| (kv.key.to_vec(), Model::number(kv))).collect();
        follow(&mut known, &changes);
        prop_assert_eq!(&known, &followed);
    }
}

fn kv(key: &'static str, value: &'static str, create_revision: u64, mod_revision: u64) -> KeyValue {
    let (key, value) = (key.into(), value.into());
    KeyValue { key, value, create_revision, mod_revision, version: 1, lease: None }
}

/// An object that is known at a later revision is not set back, whatever revision the update says it is of.
#[test]
fn an_update_that_is_older_than_its_object_changes_nothing() {
    let mut cache = Cache::new(by_last_digit());
    cache.replace(9, vec![entry(&kv("a", "1", 2, 9))]).unwrap();
    let changes = cache.apply(10, vec![Update::Set(entry(&kv("a", "2", 2, 8)))]).unwrap();
    assert!(changes.is_empty());
    assert_eq!(*cache.snapshot().get("a").unwrap().unwrap().value(), 1);
    assert_eq!(cache.snapshot().digest(), Digest::of(&[kv("a", "1", 2, 9)]));
}

/// A cluster that was restored gives the same revisions to other values.
#[test]
fn a_list_with_the_same_revisions_and_other_values_is_a_change() {
    let mut cache = Cache::new(by_last_digit());
    cache.replace(9, vec![entry(&kv("a", "1", 2, 9))]).unwrap();
    let known = Arc::clone(cache.snapshot());
    assert!(known.entry(b"a").unwrap().is_of(&kv("a", "1", 2, 9)));
    assert!(!known.entry(b"a").unwrap().is_of(&kv("a", "2", 2, 9)));
    let changes = cache.replace(9, vec![entry(&kv("a", "2", 2, 9))]).unwrap();
    assert!(matches!(changes.as_slice(), [Change::Modified { .. }]), "{changes:?}");
}

/// What an object takes beside its key and its value: at most 150 bytes, after a list and after many single changes.
#[test]
fn an_object_takes_at_most_150_bytes_beside_key_and_value() {
    const OBJECTS: u64 = 50_000;
    let key = |n: u64| Bytes::from(format!("k/{:08}", n.wrapping_mul(2_654_435_761) % 100_000_000));
    let raw: Box<Decode<Box<[u8]>>> = Box::new(|kv| Ok(kv.value.as_ref().into()));
    let kv = |n: u64, mod_revision| KeyValue {
        key: key(n),
        value: Bytes::from_static(&[7; 256]),
        create_revision: 1,
        mod_revision,
        version: 1,
        lease: None,
    };
    // The object with its two counters and what points to the value; where the key lies beyond its own bytes; the tree.
    let object = allocated(size_of::<usize>() * 2 + size_of::<Object<Box<[u8]>>>());
    let key_beside = allocated(key(1).len()) - key(1).len();
    let beside = |cache: &Cache<Box<[u8]>>| {
        let (nodes, objects) = (cache.snapshot().entries.node_bytes(), cache.snapshot().len());
        object + key_beside + nodes / objects
    };
    let mut cache = Cache::new([].into());
    let mut kvs: Vec<_> = (0..OBJECTS).map(|n| kv(n, 1)).collect();
    kvs.sort_by(|a, b| a.key.cmp(&b.key));
    kvs.dedup_by(|a, b| a.key == b.key);
    cache.replace(1, kvs.iter().map(|kv| Entry::decode(kv, &*raw)).collect()).unwrap();
    let listed = beside(&cache);
    let mut cache = Cache::new([].into());
    for n in 0..OBJECTS {
        cache.apply(n + 1, vec![Update::Set(Entry::decode(&kv(n, n + 1), &*raw))]).unwrap();
    }
    let grown = beside(&cache);
    println!("beside key and value: {listed} bytes after a list, {grown} after single changes");
    assert!(listed <= 150 && grown <= 150, "{listed}, {grown}");
}

/// A term of an object takes some 50 bytes beside the term itself.
#[test]
fn a_term_of_an_object_takes_little() {
    const OBJECTS: u32 = 20_000;
    let mut cache = Cache::new(by_last_digit());
    for n in 1..=OBJECTS {
        let kv = KeyValue {
            key: Bytes::from(format!("k/{:08}", n.wrapping_mul(2_654_435_761) % 100_000_000)),
            value: (n % 9).to_string().into(),
            create_revision: 1,
            mod_revision: u64::from(n),
            version: 1,
            lease: None,
        };
        cache.apply(u64::from(n), vec![Update::Set(entry(&kv))]).unwrap();
    }
    // Each object has two terms.
    let each = cache.snapshot().indexes[0].node_bytes() / cache.snapshot().len() / 2;
    println!("a term of an object takes {each} bytes");
    assert!(each <= 60, "{each}");
}
