//! The rules of watches.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use holdfast_client::repo::{Event, Filter, Repository, RepositoryWatch, Scope, Stored};
use holdfast_client::store::{ChangeKind, Selector};
use tokio::time::timeout;

use crate::Backend;
use crate::report::{Report, key, report};

/// More than anything takes, on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

async fn next<T>(watch: &mut impl RepositoryWatch<T>) -> Event<T> {
    let event = timeout(PATIENCE, watch.next()).await.expect("an event in time");
    event.expect("the watch goes on").expect("an event")
}

/// An event in short: what happened, to whom, and the texts before and after.
async fn told(watch: &mut impl RepositoryWatch<Report>) -> String {
    let Event { kind, key, version, current, previous } = next(watch).await;
    let text = |stored: Option<Stored<Report>>| stored.map_or("-".to_owned(), |s| s.object.text.clone());
    if let Some(current) = &current {
        assert_eq!(current.version, version, "the object has the version of its change");
    }
    if let Some(previous) = &previous {
        assert!(previous.version < version);
    }
    format!("{kind:?} {key} {}>{}", text(previous), text(current))
}

pub(crate) async fn watch_tells_each_change_once_with_what_was_before<B: Backend>(backend: &B) {
    let r = backend.repository("watch", Scope::Namespaced);
    let mut watch = r.watch(&Filter::all(), None).await.unwrap();
    r.create(report("n", "a", "1")).await.unwrap();
    r.update(report("n", "a", "2"), None).await.unwrap();
    r.apply(report("m", "b", "1")).await.unwrap();
    let deleted = r.delete(&key("n", "a"), None).await.unwrap();
    r.create(report("n", "a", "3")).await.unwrap();
    assert_eq!(told(&mut watch).await, "Created n/a ->1");
    assert_eq!(told(&mut watch).await, "Modified n/a 1>2");
    assert_eq!(told(&mut watch).await, "Created m/b ->1");
    let gone = next(&mut watch).await;
    assert_eq!((gone.kind, gone.version, gone.current), (ChangeKind::Deleted, deleted.at, None));
    assert_eq!(gone.previous, Some(deleted.last));
    assert_eq!(told(&mut watch).await, "Created n/a ->3");
}

pub(crate) async fn watch_after_a_list_misses_nothing<B: Backend>(backend: &B) {
    let r = backend.repository("list-watch", Scope::Namespaced);
    r.create(report("n", "a", "1")).await.unwrap();
    let listed = r.list(&Filter::all()).await.unwrap();
    r.update(report("n", "a", "2"), None).await.unwrap();
    r.create(report("n", "b", "1")).await.unwrap();
    let mut watch = r.watch(&Filter::all(), Some(listed.version)).await.unwrap();
    r.create(report("n", "c", "1")).await.unwrap();
    for event in ["Modified n/a 1>2", "Created n/b ->1", "Created n/c ->1"] {
        assert_eq!(told(&mut watch).await, event);
    }
}

pub(crate) async fn watch_goes_on_after_the_last_event<B: Backend>(backend: &B) {
    let r = backend.repository("watch-resume", Scope::Namespaced);
    let mut after = r.list(&Filter::all()).await.unwrap().version;
    for n in 0..10 {
        r.create(report("n", &n.to_string(), "1")).await.unwrap();
    }
    for n in 0..10 {
        let mut watch = r.watch(&Filter::all(), Some(after)).await.unwrap();
        let event = next(&mut watch).await;
        assert_eq!(event.key.name(), n.to_string());
        after = event.version;
    }
}

pub(crate) async fn watch_without_a_version_begins_now<B: Backend>(backend: &B) {
    let all = backend.repositories("watch-now", Scope::Namespaced);
    all[0].create(report("n", "before", "1")).await.unwrap();
    let mut watch = all.last().unwrap().watch(&Filter::all(), None).await.unwrap();
    all[0].create(report("n", "after", "1")).await.unwrap();
    assert_eq!(told(&mut watch).await, "Created n/after ->1");
}

pub(crate) async fn watch_of_a_namespace_tells_nothing_else<B: Backend>(backend: &B) {
    let r = backend.repository("watch-namespace", Scope::Namespaced);
    let mut watch = r.watch(&Filter::namespace("n"), None).await.unwrap();
    for (namespace, name) in [("m", "a"), ("nn", "a"), ("n", "a"), ("n-", "a"), ("n", "b")] {
        r.create(report(namespace, name, "1")).await.unwrap();
    }
    for event in ["Created n/a ->1", "Created n/b ->1"] {
        assert_eq!(told(&mut watch).await, event);
    }
}

pub(crate) async fn watch_of_one_object_tells_nothing_else<B: Backend>(backend: &B) {
    let r = backend.repository("watch-one", Scope::Namespaced);
    let mut watch = r.watch(&Filter::named("n", "a"), None).await.unwrap();
    for name in ["ab", "a", "b"] {
        r.create(report("n", name, "1")).await.unwrap();
    }
    r.delete(&key("n", "ab"), None).await.unwrap();
    r.delete(&key("n", "a"), None).await.unwrap();
    for event in ["Created n/a ->1", "Deleted n/a 1>-"] {
        assert_eq!(told(&mut watch).await, event);
    }
}

pub(crate) async fn ns7_watch_with_selectors_tells_who_enters_and_who_leaves<B: Backend>(backend: &B) {
    let r = backend.repository("watch-selectors", Scope::Namespaced);
    let failed = Filter::all().and(Selector::equals("result", "fail"));
    let mut watch = r.watch(&failed, None).await.unwrap();
    r.create(report("n", "a", "1").with_result("pass")).await.unwrap();
    r.apply(report("n", "a", "2").with_result("fail")).await.unwrap();
    r.apply(report("n", "a", "3").with_result("fail")).await.unwrap();
    r.apply(report("n", "a", "4").with_result("pass")).await.unwrap();
    r.apply(report("n", "a", "5").with_result("warn")).await.unwrap();
    r.delete(&key("n", "a"), None).await.unwrap();
    r.create(report("n", "b", "1").with_result("fail")).await.unwrap();
    r.delete(&key("n", "b"), None).await.unwrap();
    let events =
        ["Entered n/a 1>2", "Modified n/a 2>3", "Left n/a 3>4", "Created n/b ->1", "Deleted n/b 1>-"];
    for event in events {
        assert_eq!(told(&mut watch).await, event);
    }
}

pub(crate) async fn watch_keeps_the_order_of_versions_while_many_write<B: Backend>(backend: &B) {
    const EACH: usize = 20;
    let all = backend.repositories("watch-order", Scope::Namespaced);
    let mut watch = all[0].watch(&Filter::all(), None).await.unwrap();
    let writers = (0..6).map(|n| {
        let r = all[n % all.len()].clone();
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for round in 0..EACH {
                let object = report("n", &n.to_string(), &round.to_string());
                versions.push(r.apply(object).await.unwrap().into_stored().version);
            }
            versions
        })
    });
    let written = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect::<BTreeSet<_>>();
    assert_eq!(written.len(), 6 * EACH);
    for version in written {
        assert_eq!(next(&mut watch).await.version, version, "each, in order, none twice");
    }
}

pub(crate) async fn watches_side_by_side_see_the_same<B: Backend>(backend: &B) {
    let all = backend.repositories("watches", Scope::Namespaced);
    let mut watches = Vec::new();
    for n in 0..12 {
        watches.push(all[n % all.len()].watch(&Filter::all(), None).await.unwrap());
    }
    for n in 0..5 {
        all[n % all.len()].create(report("n", &n.to_string(), "1")).await.unwrap();
    }
    for watch in &mut watches {
        for n in 0..5 {
            assert_eq!(told(watch).await, format!("Created n/{n} ->1"));
        }
    }
}

pub(crate) async fn rs18_a_watch_of_a_cluster_id_tells_nothing_of_others<B: Backend>(backend: &B) {
    let whole = backend.repository("ids-watch", Scope::Namespaced);
    let one = whole.for_cluster("one").unwrap();
    let mut watch = one.watch(&Filter::all(), None).await.unwrap();
    let mut outside = whole.watch(&Filter::all(), None).await.unwrap();
    for (r, text) in [(&whole.for_cluster("on").unwrap(), "on"), (&whole, "whole"), (&one, "one")] {
        r.create(report("n", "a", text)).await.unwrap();
    }
    whole.create(report("n", "b", "whole")).await.unwrap();
    assert_eq!(told(&mut watch).await, "Created n/a ->one");
    assert_eq!(told(&mut outside).await, "Created n/a ->whole");
    assert_eq!(told(&mut outside).await, "Created n/b ->whole");
}
