//! Repositories over a store that forgets quickly, and that others write to.

use futures::executor::block_on;
use serde::{Deserialize, Serialize};

use super::*;
use crate::store::{ChangeKind, Limits, MemoryStorage};

#[derive(Serialize, Deserialize)]
struct Report {
    name: String,
}

impl Object for Report {
    fn name(&self) -> &str {
        &self.name
    }
}

fn report(name: &str) -> Report {
    Report { name: name.to_owned() }
}

/// A repository, and the store under it, which remembers three changes.
fn repository() -> (ClusterRepository<Report, Json, Identity, MemoryStorage>, MemoryStorage) {
    let storage = MemoryStorage::with_limits(Limits { changes_max: 3, ..Limits::default() });
    let store = TypedStore::new(storage.clone(), Json, Identity);
    (ClusterRepository::on(store, Place::new("g", "reports"), Scope::Cluster).unwrap(), storage)
}

/// RS5: a watch can go on from the list of one object, also when the object's own version is compacted.
#[test]
fn rs5_a_list_of_one_object_is_where_a_watch_goes_on() {
    let (reports, _) = repository();
    let first = block_on(reports.create(report("a"))).unwrap();
    for n in 0..10 {
        block_on(reports.create(report(&format!("a{n}")))).unwrap();
    }
    for (name, found) in [("a", vec![first.version]), ("missing", vec![])] {
        let filter = Filter::name(name);
        let listed = block_on(reports.list(&filter)).unwrap();
        assert_eq!(listed.items.iter().map(|item| item.version).collect::<Vec<_>>(), found);
        let mut watch = block_on(reports.watch(&filter, Some(listed.version))).unwrap();
        let applied = block_on(reports.apply(report(name))).unwrap().into_stored();
        let event = block_on(watch.next()).unwrap().unwrap();
        assert_eq!((event.key.name(), event.version), (name, applied.version));
    }
}

/// RS3: the list of one object does not look at others, whatever is wrong with them.
#[test]
fn rs3_a_list_of_one_object_is_not_stopped_by_another() {
    let (reports, storage) = repository();
    block_on(storage.put("/r/g/reports/ab".into(), "{".into(), Conditions::none())).unwrap();
    assert!(block_on(reports.list(&Filter::name("a"))).unwrap().items.is_empty());
    assert!(matches!(block_on(reports.list(&Filter::name("ab"))), Err(RepoError::Decode { .. })));
}

/// RS3: that something is gone which nobody can read is told to who asked for its name, and to nobody else.
#[test]
fn rs3_a_deletion_of_what_cannot_be_read_is_told_to_who_asked_for_it() {
    let (reports, storage) = repository();
    for name in ["a", "b"] {
        let key = format!("/r/g/reports/{name}");
        block_on(storage.put(key.into(), "{".into(), Conditions::none())).unwrap();
    }
    let mut watch = block_on(reports.watch(&Filter::name("b"), None)).unwrap();
    for name in ["a", "b"] {
        let key = format!("/r/g/reports/{name}");
        block_on(storage.delete(key.into(), Conditions::none())).unwrap();
    }
    let event = block_on(watch.next()).unwrap().unwrap();
    assert_eq!((event.kind, event.key.name(), event.previous.is_none()), (ChangeKind::Deleted, "b", true));
}
