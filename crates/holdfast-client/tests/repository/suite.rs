//! The rules. Each takes a repository of its own from the backend, and says nothing of what is behind it; versions are
//! only compared, as other rules may write to the same store.

#[path = "watches.rs"]
mod watches;

use std::collections::BTreeSet;

use futures::future::join_all;
use holdfast_client::repo::{Applied, Deleted, Filter, Invalid, ObjectKey, RepoError, Repository, Scope};
use holdfast_client::store::{Operator, Selector};
pub(crate) use watches::*;

use crate::Backend;
use crate::report::{FORBIDDEN, Report, cluster_report, key, report};

/// Passes the names of all rules to another macro. A rule that is not here is an unused function, which is an error.
macro_rules! rules {
    ($then:ident) => {
        $then! {
            rs4_create_gives_the_object_and_its_version
            rs4_create_of_what_is_there_fails_and_changes_nothing
            rs4_of_a_hundred_who_create_one_succeeds
            rs4_what_was_deleted_can_be_created_and_is_another_object
            rs5_update_replaces_the_object_and_gives_a_greater_version
            rs5_update_of_what_is_not_there_fails_and_creates_nothing
            rs5_update_at_a_version_of_what_is_not_there_is_not_found
            rs5_update_at_its_version_succeeds
            rs5_update_at_another_version_is_a_conflict_with_what_is_there
            rs5_no_object_has_version_zero
            rs5_of_many_who_update_at_one_version_one_succeeds
            rs5_updates_that_are_tried_again_after_a_conflict_lose_nothing
            ns18_a_version_tells_an_object_from_one_made_again_with_the_same_name
            rs6_delete_gives_the_object_as_it_was_last
            rs6_delete_of_what_is_not_there_is_not_found
            rs6_delete_at_its_version_succeeds
            rs6_delete_at_another_version_is_a_conflict_and_deletes_nothing
            rs6_delete_at_a_version_of_what_is_not_there_is_not_found
            rs6_of_many_who_delete_one_succeeds
            rs7_get_gives_what_was_written_last
            rs7_get_of_what_is_not_there_is_not_found
            rs7_what_one_wrote_another_reads
            rs8_a_list_of_nothing_is_empty_and_has_a_version
            rs8_a_list_of_a_namespace_that_nobody_uses_is_empty
            rs13_a_list_is_in_the_order_of_keys
            rs13_a_list_of_many_is_whole
            rs2_a_namespace_is_listed_alone
            rs2_one_object_is_listed_alone
            rs2_a_name_is_listed_in_each_namespace
            rs2_selectors_choose_by_fields
            ns12_a_selector_tells_a_missing_field_from_an_empty_one
            rs2_a_filter_that_makes_no_sense_is_invalid
            rs9_namespaces_that_begin_the_same_do_not_mix
            rs9_what_is_no_name_is_invalid_and_nothing_is_written
            rs10_a_namespace_where_there_are_none_is_invalid
            rs10_no_namespace_where_there_are_some_is_invalid
            rs10_objects_without_namespaces_are_kept
            rs20_count_counts
            rs20_count_counts_what_a_filter_wants
            rs20_a_repository_that_answers_is_ready
            rs20_versions_grow_over_all_objects
            apply_creates_and_then_updates
            apply_of_many_at_once_creates_once
            rs3_what_cannot_be_encoded_is_invalid_and_nothing_is_written
            rs3_what_is_too_large_is_too_large_and_nothing_is_written
            a_large_object_is_kept_as_it_is
            watch_tells_each_change_once_with_what_was_before
            watch_after_a_list_misses_nothing
            watch_goes_on_after_the_last_event
            watch_without_a_version_begins_now
            watch_of_a_namespace_tells_nothing_else
            watch_of_one_object_tells_nothing_else
            ns7_watch_with_selectors_tells_who_enters_and_who_leaves
            watch_keeps_the_order_of_versions_while_many_write
            watches_side_by_side_see_the_same
            rs18_cluster_ids_do_not_see_each_other
            rs18_a_watch_of_a_cluster_id_tells_nothing_of_others
            rs18_a_cluster_id_is_a_name
        }
    };
}
pub(crate) use rules;

/// Runs each rule, one after the other, and says which.
pub(crate) async fn all<B: Backend>(backend: &B) {
    macro_rules! run {
        ($($rule:ident)*) => {$(
            eprintln!("{}", stringify!($rule));
            $rule(backend).await;
        )*};
    }
    rules!(run);
}

async fn texts(repository: &impl Repository<Report>, filter: &Filter) -> Vec<String> {
    let listed = repository.list(filter).await.unwrap();
    listed.items.iter().map(|item| format!("{} {}", path(&item.object), item.object.text)).collect()
}

fn path(report: &Report) -> String {
    let namespace = report.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    namespace + &report.name
}

fn is_not_found<V>(result: Result<V, RepoError<Report>>, wanted: &ObjectKey) -> bool {
    matches!(result, Err(RepoError::NotFound { key }) if key == *wanted)
}

fn is_invalid<V>(result: &Result<V, RepoError<Report>>) -> bool {
    matches!(result, Err(RepoError::Invalid(_)))
}

pub(crate) async fn rs4_create_gives_the_object_and_its_version<B: Backend>(backend: &B) {
    let r = backend.repository("create", Scope::Namespaced);
    let created = r.create(report("n", "a", "1")).await.unwrap();
    assert_eq!(*created.object, report("n", "a", "1"));
    assert!(created.version > 0);
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), created);
}

pub(crate) async fn rs4_create_of_what_is_there_fails_and_changes_nothing<B: Backend>(backend: &B) {
    let r = backend.repository("create-twice", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let error = r.create(report("n", "a", "2")).await.unwrap_err();
    let is_told = matches!(
        &error,
        RepoError::AlreadyExists { key: of, version } if *of == key("n", "a") && *version == first.version
    );
    assert!(is_told, "{error}");
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), first);
}

/// RS4: exactly one of a hundred succeeds, all others are told that it exists.
pub(crate) async fn rs4_of_a_hundred_who_create_one_succeeds<B: Backend>(backend: &B) {
    let all = backend.repositories("create-race", Scope::Namespaced);
    let creators = (0..100).map(|n| {
        let r = all[n % all.len()].clone();
        tokio::spawn(async move { (n, r.create(report("n", "a", &n.to_string())).await) })
    });
    let (mut winners, mut told) = (Vec::new(), 0);
    for outcome in join_all(creators).await {
        match outcome.unwrap() {
            (n, Ok(stored)) => winners.push((n, stored)),
            (_, Err(RepoError::AlreadyExists { .. })) => told += 1,
            (n, Err(error)) => panic!("{n}: {error:?}"),
        }
    }
    assert_eq!((winners.len(), told), (1, 99));
    let (n, stored) = winners.remove(0);
    for r in &all {
        let there = r.get(&key("n", "a")).await.unwrap();
        assert_eq!((there.object.text.as_str(), there.version), (n.to_string().as_str(), stored.version));
    }
}

pub(crate) async fn rs4_what_was_deleted_can_be_created_and_is_another_object<B: Backend>(backend: &B) {
    let r = backend.repository("create-again", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let deleted = r.delete(&key("n", "a"), None).await.unwrap();
    let second = r.create(report("n", "a", "1")).await.unwrap();
    assert!(first.version < deleted.at && deleted.at < second.version);
}

pub(crate) async fn rs5_update_replaces_the_object_and_gives_a_greater_version<B: Backend>(backend: &B) {
    let r = backend.repository("update", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let second = r.update(report("n", "a", "2"), None).await.unwrap();
    assert_eq!(*second.object, report("n", "a", "2"));
    assert!(second.version > first.version);
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), second);
}

pub(crate) async fn rs5_update_of_what_is_not_there_fails_and_creates_nothing<B: Backend>(backend: &B) {
    let r = backend.repository("update-missing", Scope::Namespaced);
    assert!(is_not_found(r.update(report("n", "a", "1"), None).await, &key("n", "a")));
    assert!(is_not_found(r.get(&key("n", "a")).await, &key("n", "a")));
    r.create(report("n", "a", "1")).await.unwrap();
    r.delete(&key("n", "a"), None).await.unwrap();
    assert!(is_not_found(r.update(report("n", "a", "2"), None).await, &key("n", "a")));
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 0);
}

pub(crate) async fn rs5_update_at_a_version_of_what_is_not_there_is_not_found<B: Backend>(backend: &B) {
    let r = backend.repository("update-missing-at", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    r.delete(&key("n", "a"), None).await.unwrap();
    let update = r.update(report("n", "a", "2"), Some(first.version)).await;
    assert!(is_not_found(update, &key("n", "a")));
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 0);
}

pub(crate) async fn rs5_update_at_its_version_succeeds<B: Backend>(backend: &B) {
    let r = backend.repository("update-at", Scope::Namespaced);
    let mut stored = r.create(report("n", "a", "0")).await.unwrap();
    for text in ["1", "2", "3"] {
        stored = r.update(report("n", "a", text), Some(stored.version)).await.unwrap();
    }
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), stored);
}

pub(crate) async fn rs5_update_at_another_version_is_a_conflict_with_what_is_there<B: Backend>(backend: &B) {
    let r = backend.repository("update-conflict", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let second = r.update(report("n", "a", "2"), None).await.unwrap();
    for version in [first.version, second.version + 1_000_000] {
        match r.update(report("n", "a", "3"), Some(version)).await {
            Err(RepoError::Conflict { key: of, current }) => {
                assert_eq!((of, current), (key("n", "a"), second.clone()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), second);
}

pub(crate) async fn rs5_no_object_has_version_zero<B: Backend>(backend: &B) {
    let r = backend.repository("zero", Scope::Namespaced);
    assert!(is_not_found(r.update(report("n", "a", "1"), Some(0)).await, &key("n", "a")));
    assert!(is_not_found(r.delete(&key("n", "a"), Some(0)).await, &key("n", "a")));
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let update = r.update(report("n", "a", "2"), Some(0)).await;
    assert!(matches!(update, Err(RepoError::Conflict { current, .. }) if current == first));
    let delete = r.delete(&key("n", "a"), Some(0)).await;
    assert!(matches!(delete, Err(RepoError::Conflict { current, .. }) if current == first));
}

pub(crate) async fn rs5_of_many_who_update_at_one_version_one_succeeds<B: Backend>(backend: &B) {
    let all = backend.repositories("update-race", Scope::Namespaced);
    let first = all[0].create(report("n", "a", "0")).await.unwrap();
    let updates = (0..30).map(|n| {
        let (r, version) = (all[n % all.len()].clone(), first.version);
        tokio::spawn(async move { r.update(report("n", "a", &format!("{n}")), Some(version)).await })
    });
    let outcomes: Vec<_> = join_all(updates).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    let winner = winners[0];
    for outcome in &outcomes {
        match outcome {
            Ok(_) => {}
            Err(RepoError::Conflict { current, .. }) => assert_eq!(current, winner),
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(crate) async fn rs5_updates_that_are_tried_again_after_a_conflict_lose_nothing<B: Backend>(backend: &B) {
    let all = backend.repositories("counter", Scope::Namespaced);
    all[0].create(report("n", "a", "0")).await.unwrap();
    let adders = (0..8).map(|n| {
        let r = all[n % all.len()].clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                let mut seen = r.get(&key("n", "a")).await.unwrap();
                loop {
                    let sum = seen.object.text.parse::<u32>().unwrap() + 1;
                    match r.update(report("n", "a", &sum.to_string()), Some(seen.version)).await {
                        Ok(_) => break,
                        Err(RepoError::Conflict { current, .. }) => seen = current,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        })
    });
    for adder in join_all(adders).await {
        adder.unwrap();
    }
    assert_eq!(all[0].get(&key("n", "a")).await.unwrap().object.text, "40");
}

pub(crate) async fn ns18_a_version_tells_an_object_from_one_made_again_with_the_same_name<B: Backend>(
    backend: &B,
) {
    let r = backend.repository("remade", Scope::Namespaced);
    let old = r.create(report("n", "a", "1")).await.unwrap();
    r.delete(&key("n", "a"), Some(old.version)).await.unwrap();
    let new = r.create(report("n", "a", "1")).await.unwrap();
    let update = r.update(report("n", "a", "2"), Some(old.version)).await;
    assert!(matches!(update, Err(RepoError::Conflict { current, .. }) if current == new));
    let delete = r.delete(&key("n", "a"), Some(old.version)).await;
    assert!(matches!(delete, Err(RepoError::Conflict { current, .. }) if current == new));
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), new);
}

pub(crate) async fn rs6_delete_gives_the_object_as_it_was_last<B: Backend>(backend: &B) {
    let r = backend.repository("delete", Scope::Namespaced);
    r.create(report("n", "a", "1")).await.unwrap();
    let last = r.update(report("n", "a", "2"), None).await.unwrap();
    let Deleted { last: gone, at } = r.delete(&key("n", "a"), None).await.unwrap();
    assert_eq!(gone, last);
    assert!(at > last.version);
    assert!(is_not_found(r.get(&key("n", "a")).await, &key("n", "a")));
}

pub(crate) async fn rs6_delete_of_what_is_not_there_is_not_found<B: Backend>(backend: &B) {
    let r = backend.repository("delete-missing", Scope::Namespaced);
    assert!(is_not_found(r.delete(&key("n", "a"), None).await, &key("n", "a")));
    r.create(report("n", "a", "1")).await.unwrap();
    r.delete(&key("n", "a"), None).await.unwrap();
    assert!(is_not_found(r.delete(&key("n", "a"), None).await, &key("n", "a")));
}

pub(crate) async fn rs6_delete_at_its_version_succeeds<B: Backend>(backend: &B) {
    let r = backend.repository("delete-at", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    assert_eq!(r.delete(&key("n", "a"), Some(first.version)).await.unwrap().last, first);
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 0);
}

pub(crate) async fn rs6_delete_at_another_version_is_a_conflict_and_deletes_nothing<B: Backend>(backend: &B) {
    let r = backend.repository("delete-conflict", Scope::Namespaced);
    let first = r.create(report("n", "a", "1")).await.unwrap();
    let second = r.update(report("n", "a", "2"), None).await.unwrap();
    match r.delete(&key("n", "a"), Some(first.version)).await {
        Err(RepoError::Conflict { current, .. }) => assert_eq!(current, second),
        other => panic!("{other:?}"),
    }
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), second);
}

pub(crate) async fn rs6_delete_at_a_version_of_what_is_not_there_is_not_found<B: Backend>(backend: &B) {
    let r = backend.repository("delete-missing-at", Scope::Namespaced);
    assert!(is_not_found(r.delete(&key("n", "a"), Some(7)).await, &key("n", "a")));
}

pub(crate) async fn rs6_of_many_who_delete_one_succeeds<B: Backend>(backend: &B) {
    let all = backend.repositories("delete-race", Scope::Namespaced);
    all[0].create(report("n", "a", "1")).await.unwrap();
    let deletes = (0..30).map(|n| {
        let r = all[n % all.len()].clone();
        tokio::spawn(async move { r.delete(&key("n", "a"), None).await })
    });
    let outcomes: Vec<_> = join_all(deletes).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().all(|outcome| outcome.is_ok() || is_not_found(outcome, &key("n", "a"))));
}

pub(crate) async fn rs7_get_gives_what_was_written_last<B: Backend>(backend: &B) {
    let r = backend.repository("get", Scope::Namespaced);
    r.create(report("n", "a", "0")).await.unwrap();
    for n in 1..10 {
        let written = r.apply(report("n", "a", &n.to_string())).await.unwrap().into_stored();
        assert_eq!(r.get(&key("n", "a")).await.unwrap(), written);
    }
}

pub(crate) async fn rs7_get_of_what_is_not_there_is_not_found<B: Backend>(backend: &B) {
    let r = backend.repository("get-missing", Scope::Namespaced);
    r.create(report("n", "ab", "1")).await.unwrap();
    for missing in [key("n", "a"), key("n", "abc"), key("m", "ab")] {
        assert!(is_not_found(r.get(&missing).await, &missing));
    }
}

pub(crate) async fn rs7_what_one_wrote_another_reads<B: Backend>(backend: &B) {
    let all = backend.repositories("get-other", Scope::Namespaced);
    for n in 0..10 {
        let name = n.to_string();
        let written = all[n % all.len()].create(report("n", &name, "1")).await.unwrap();
        for r in &all {
            assert_eq!(r.get(&key("n", &name)).await.unwrap(), written);
            assert_eq!(r.count(&Filter::all()).await.unwrap(), u64::try_from(n).unwrap() + 1);
        }
    }
}

pub(crate) async fn rs8_a_list_of_nothing_is_empty_and_has_a_version<B: Backend>(backend: &B) {
    let r = backend.repository("list-empty", Scope::Namespaced);
    let listed = r.list(&Filter::all()).await.unwrap();
    assert!(listed.items.is_empty() && listed.version > 0);
    let created = r.create(report("n", "a", "1")).await.unwrap();
    assert!(created.version > listed.version);
    let one = r.list(&Filter::named("n", "b")).await.unwrap();
    assert!(one.items.is_empty() && one.version >= created.version);
}

pub(crate) async fn rs8_a_list_of_a_namespace_that_nobody_uses_is_empty<B: Backend>(backend: &B) {
    let r = backend.repository("list-unused", Scope::Namespaced);
    r.create(report("n", "a", "1")).await.unwrap();
    let listed = r.list(&Filter::namespace("m")).await.unwrap();
    assert!(listed.items.is_empty() && listed.version > 0);
    assert_eq!(r.count(&Filter::namespace("m")).await.unwrap(), 0);
}

/// The order is that of the bytes of `namespace/name`, so that of the key, whatever the order of writes.
pub(crate) async fn rs13_a_list_is_in_the_order_of_keys<B: Backend>(backend: &B) {
    let r = backend.repository("order", Scope::Namespaced);
    let names =
        [("b", "a"), ("a", "z"), ("a-b", "c"), ("a", "a"), ("ab", "a"), ("ä", "a"), ("a", "a.b"), ("A", "b")];
    for (namespace, name) in names {
        r.create(report(namespace, name, "1")).await.unwrap();
    }
    let listed = r.list(&Filter::all()).await.unwrap();
    let paths: Vec<_> = listed.items.iter().map(|item| path(&item.object)).collect();
    let sorted: BTreeSet<_> = names.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    assert_eq!(paths, sorted.into_iter().collect::<Vec<_>>());
    assert_eq!(paths[1], "a-b/c", "a hyphen comes before a slash");
}

pub(crate) async fn rs13_a_list_of_many_is_whole<B: Backend>(backend: &B) {
    const OBJECTS: usize = 600;
    let r = backend.repository("many", Scope::Namespaced);
    let creates = (0..OBJECTS).map(|n| r.create(report("n", &format!("{n:04}"), "1")));
    let created: Vec<_> = join_all(creates).await.into_iter().map(Result::unwrap).collect();
    let listed = r.list(&Filter::all()).await.unwrap();
    assert_eq!(listed.items, created);
    assert!(listed.version >= created.iter().map(|stored| stored.version).max().unwrap());
    assert_eq!(r.count(&Filter::all()).await.unwrap(), u64::try_from(OBJECTS).unwrap());
}

pub(crate) async fn rs2_a_namespace_is_listed_alone<B: Backend>(backend: &B) {
    let r = backend.repository("namespace", Scope::Namespaced);
    for (namespace, name) in [("n", "a"), ("n", "b"), ("m", "a"), ("nn", "a"), ("n-", "a")] {
        r.create(report(namespace, name, "1")).await.unwrap();
    }
    assert_eq!(texts(&r, &Filter::namespace("n")).await, ["n/a 1", "n/b 1"]);
    assert_eq!(texts(&r, &Filter::namespace("nn")).await, ["nn/a 1"]);
}

pub(crate) async fn rs2_one_object_is_listed_alone<B: Backend>(backend: &B) {
    let r = backend.repository("named", Scope::Namespaced);
    for name in ["a", "ab", "abc"] {
        r.create(report("n", name, "1")).await.unwrap();
    }
    assert_eq!(texts(&r, &Filter::named("n", "ab")).await, ["n/ab 1"]);
    assert_eq!(texts(&r, &Filter::key(&key("n", "a"))).await, ["n/a 1"]);
    assert_eq!(texts(&r, &Filter::named("n", "x")).await, [""; 0]);
    assert_eq!(texts(&r, &Filter::named("n", "a").and(Selector::equals("text", "2"))).await, [""; 0]);
}

pub(crate) async fn rs2_a_name_is_listed_in_each_namespace<B: Backend>(backend: &B) {
    let r = backend.repository("name", Scope::Namespaced);
    for (namespace, name) in [("n", "a"), ("n", "b"), ("m", "a"), ("o", "b")] {
        r.create(report(namespace, name, "1")).await.unwrap();
    }
    assert_eq!(texts(&r, &Filter::name("a")).await, ["m/a 1", "n/a 1"]);
    assert_eq!(r.count(&Filter::name("a")).await.unwrap(), 2);
}

pub(crate) async fn rs2_selectors_choose_by_fields<B: Backend>(backend: &B) {
    let r = backend.repository("selectors", Scope::Namespaced);
    r.create(report("n", "a", "1").with_result("pass")).await.unwrap();
    r.create(report("n", "b", "2").with_result("fail")).await.unwrap();
    r.create(report("m", "c", "3").with_result("fail")).await.unwrap();
    r.create(report("m", "d", "4")).await.unwrap();
    let all = |selector| Filter::all().and(selector);
    let cases = [
        (all(Selector::equals("result", "fail")), vec!["m/c 3", "n/b 2"]),
        (Filter::namespace("n").and(Selector::equals("result", "fail")), vec!["n/b 2"]),
        (all(Selector::new(Operator::In, "result", ["pass", "warn"])), vec!["n/a 1"]),
        (all(Selector::new(Operator::Prefix, "result", ["f"])), vec!["m/c 3", "n/b 2"]),
        (all(Selector::new(Operator::Greater, "text", ["2"])), vec!["m/c 3", "m/d 4"]),
        (all(Selector::new(Operator::Less, "text", ["2"])), vec!["n/a 1"]),
        (all(Selector::equals("result", "fail")).and(Selector::equals("text", "3")), vec!["m/c 3"]),
        (all(Selector::equals("no-such-field", "x")), vec![]),
    ];
    for (filter, wanted) in cases {
        assert_eq!(texts(&r, &filter).await, wanted, "{filter:?}");
        assert_eq!(r.count(&filter).await.unwrap(), u64::try_from(wanted.len()).unwrap());
    }
}

pub(crate) async fn ns12_a_selector_tells_a_missing_field_from_an_empty_one<B: Backend>(backend: &B) {
    let r = backend.repository("missing-field", Scope::Namespaced);
    r.create(report("n", "empty", "1").with_result("")).await.unwrap();
    r.create(report("n", "missing", "1")).await.unwrap();
    let none: [&str; 0] = [];
    let cases = [
        (Selector::equals("result", ""), vec!["n/empty 1"]),
        (Selector::new(Operator::Exists, "result", none), vec!["n/empty 1"]),
        (Selector::new(Operator::Missing, "result", none), vec!["n/missing 1"]),
        (Selector::new(Operator::NotIn, "result", ["x"]), vec!["n/empty 1", "n/missing 1"]),
        (Selector::new(Operator::NotIn, "result", [""]), vec!["n/missing 1"]),
    ];
    for (selector, wanted) in cases {
        assert_eq!(texts(&r, &Filter::all().and(selector.clone())).await, wanted, "{selector:?}");
    }
}

pub(crate) async fn rs2_a_filter_that_makes_no_sense_is_invalid<B: Backend>(backend: &B) {
    let r = backend.repository("bad-filter", Scope::Namespaced);
    let filters = [
        Filter::namespace(""),
        Filter::namespace("a/b"),
        Filter::name("a/b"),
        Filter::all().and(Selector::equals("", "x")),
        Filter::all().and(Selector::new(Operator::Exists, "result", ["x"])),
    ];
    for filter in filters {
        assert!(is_invalid(&r.list(&filter).await), "{filter:?}");
        assert!(is_invalid(&r.count(&filter).await), "{filter:?}");
        assert!(is_invalid(&r.watch(&filter, None).await.map(drop)), "{filter:?}");
    }
}

pub(crate) async fn rs9_namespaces_that_begin_the_same_do_not_mix<B: Backend>(backend: &B) {
    let r = backend.repository("prefixes", Scope::Namespaced);
    let names = [("a", "b"), ("ab", "c"), ("a.b", "c"), ("a", "b.c"), ("a@b", "c")];
    for (namespace, name) in names {
        r.create(report(namespace, name, namespace)).await.unwrap();
    }
    for (namespace, name) in names {
        assert_eq!(r.get(&key(namespace, name)).await.unwrap().object.text, namespace);
        r.delete(&key(namespace, name), None).await.unwrap();
    }
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 0);
}

pub(crate) async fn rs9_what_is_no_name_is_invalid_and_nothing_is_written<B: Backend>(backend: &B) {
    let r = backend.repository("bad-names", Scope::Namespaced);
    let long = "x".repeat(254);
    for bad in ["", "a/b", "/", "a\0b", "a\n", &long] {
        for object in [report("n", bad, "1"), report(bad, "n", "1")] {
            assert!(is_invalid(&r.create(object.clone()).await), "{bad:?}");
            assert!(is_invalid(&r.update(object.clone(), None).await), "{bad:?}");
            assert!(is_invalid(&r.apply(object).await), "{bad:?}");
        }
    }
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 0);
}

pub(crate) async fn rs10_a_namespace_where_there_are_none_is_invalid<B: Backend>(backend: &B) {
    let r = backend.repository("no-namespaces", Scope::Cluster);
    assert_eq!(r.scope(), Scope::Cluster);
    assert!(is_invalid(&r.create(report("n", "a", "1")).await));
    assert!(is_invalid(&r.update(report("n", "a", "1"), None).await));
    assert!(is_invalid(&r.apply(report("n", "a", "1")).await));
    assert!(is_invalid(&r.get(&key("n", "a")).await));
    assert!(is_invalid(&r.delete(&key("n", "a"), None).await));
    assert!(is_invalid(&r.list(&Filter::namespace("n")).await));
    assert!(is_invalid(&r.watch(&Filter::namespace("n"), None).await.map(drop)));
}

pub(crate) async fn rs10_no_namespace_where_there_are_some_is_invalid<B: Backend>(backend: &B) {
    let r = backend.repository("namespaces", Scope::Namespaced);
    let own = ObjectKey::cluster("a").unwrap();
    assert!(is_invalid(&r.create(cluster_report("a", "1")).await));
    assert!(is_invalid(&r.update(cluster_report("a", "1"), None).await));
    assert!(is_invalid(&r.apply(cluster_report("a", "1")).await));
    assert!(is_invalid(&r.get(&own).await));
    assert!(is_invalid(&r.delete(&own, None).await));
}

pub(crate) async fn rs10_objects_without_namespaces_are_kept<B: Backend>(backend: &B) {
    let r = backend.repository("cluster-scope", Scope::Cluster);
    let own = |name: &str| ObjectKey::cluster(name).unwrap();
    let first = r.create(cluster_report("b", "1")).await.unwrap();
    r.create(cluster_report("a", "1")).await.unwrap();
    let exists = r.create(cluster_report("b", "2")).await;
    assert!(matches!(exists, Err(RepoError::AlreadyExists { .. })));
    r.update(cluster_report("b", "2"), Some(first.version)).await.unwrap();
    assert_eq!(r.get(&own("b")).await.unwrap().object.text, "2");
    assert_eq!(texts(&r, &Filter::all()).await, ["a 1", "b 2"]);
    assert_eq!(texts(&r, &Filter::name("b")).await, ["b 2"]);
    assert_eq!(r.delete(&own("b"), None).await.unwrap().last.object.text, "2");
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 1);
}

pub(crate) async fn rs20_count_counts<B: Backend>(backend: &B) {
    let r = backend.repository("count", Scope::Namespaced);
    for n in 0..5_u64 {
        assert_eq!(r.count(&Filter::all()).await.unwrap(), n);
        r.create(report("n", &n.to_string(), "1")).await.unwrap();
    }
    r.update(report("n", "0", "2"), None).await.unwrap();
    r.delete(&key("n", "1"), None).await.unwrap();
    assert_eq!(r.count(&Filter::all()).await.unwrap(), 4);
}

pub(crate) async fn rs20_count_counts_what_a_filter_wants<B: Backend>(backend: &B) {
    let r = backend.repository("count-filter", Scope::Namespaced);
    for (namespace, name) in [("n", "a"), ("n", "b"), ("m", "a")] {
        r.create(report(namespace, name, "1")).await.unwrap();
    }
    let cases = [(Filter::namespace("n"), 2), (Filter::named("m", "a"), 1), (Filter::named("m", "b"), 0)];
    for (filter, wanted) in cases {
        assert_eq!(r.count(&filter).await.unwrap(), wanted, "{filter:?}");
    }
}

pub(crate) async fn rs20_a_repository_that_answers_is_ready<B: Backend>(backend: &B) {
    for r in backend.repositories("ready", Scope::Namespaced) {
        r.ready().await.unwrap();
    }
}

pub(crate) async fn rs20_versions_grow_over_all_objects<B: Backend>(backend: &B) {
    let r = backend.repository("versions", Scope::Namespaced);
    let mut last = r.list(&Filter::all()).await.unwrap().version;
    for round in 0..3 {
        for name in ["b", "a", "c"] {
            let stored = r.apply(report("n", name, &round.to_string())).await.unwrap().into_stored();
            assert!(stored.version > last);
            last = stored.version;
        }
    }
    assert!(r.list(&Filter::all()).await.unwrap().version >= last);
}

pub(crate) async fn apply_creates_and_then_updates<B: Backend>(backend: &B) {
    let r = backend.repository("apply", Scope::Namespaced);
    let Applied::Created(first) = r.apply(report("n", "a", "1")).await.unwrap() else { panic!("it is new") };
    let Applied::Updated(second) = r.apply(report("n", "a", "2")).await.unwrap() else { panic!("it is not") };
    assert!(second.version > first.version);
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), second);
}

pub(crate) async fn apply_of_many_at_once_creates_once<B: Backend>(backend: &B) {
    let all = backend.repositories("apply-race", Scope::Namespaced);
    let applies = (0..30).map(|n| {
        let r = all[n % all.len()].clone();
        tokio::spawn(async move { r.apply(report("n", "a", &n.to_string())).await.unwrap() })
    });
    let applied: Vec<_> = join_all(applies).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(applied.iter().filter(|one| matches!(one, Applied::Created(_))).count(), 1);
    let mut stored: Vec<_> = applied.into_iter().map(Applied::into_stored).collect();
    stored.sort_by_key(|stored| stored.version);
    assert_eq!(&all[0].get(&key("n", "a")).await.unwrap(), stored.last().unwrap());
    stored.dedup_by_key(|stored| stored.version);
    assert_eq!(stored.len(), 30, "each has a version of its own");
}

pub(crate) async fn rs3_what_cannot_be_encoded_is_invalid_and_nothing_is_written<B: Backend>(backend: &B) {
    let r = backend.repository("unencodable", Scope::Namespaced);
    let bad = || report("n", "a", FORBIDDEN);
    let is_encode = |result: Result<(), RepoError<Report>>| {
        matches!(result, Err(RepoError::Invalid(Invalid::Encode { .. })))
    };
    assert!(is_encode(r.create(bad()).await.map(drop)));
    assert!(is_encode(r.apply(bad()).await.map(drop)));
    let first = r.create(report("n", "a", "1")).await.unwrap();
    assert!(is_encode(r.update(bad(), None).await.map(drop)));
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), first);
}

pub(crate) async fn rs3_what_is_too_large_is_too_large_and_nothing_is_written<B: Backend>(backend: &B) {
    let r = backend.repository("too-large", Scope::Namespaced);
    let large = || report("n", "a", &"x".repeat(1_700_000));
    let is_large = |result: Result<(), RepoError<Report>>| matches!(result, Err(RepoError::TooLarge(_)));
    assert!(is_large(r.create(large()).await.map(drop)));
    assert!(is_large(r.apply(large()).await.map(drop)));
    let first = r.create(report("n", "a", "1")).await.unwrap();
    assert!(is_large(r.update(large(), None).await.map(drop)));
    assert_eq!(r.get(&key("n", "a")).await.unwrap(), first);
}

pub(crate) async fn a_large_object_is_kept_as_it_is<B: Backend>(backend: &B) {
    let r = backend.repository("large", Scope::Namespaced);
    let object = report("n", "a", &"0123456789".repeat(100_000)).with_result("\"ü\u{1}\\");
    r.create(object.clone()).await.unwrap();
    assert_eq!(*r.get(&key("n", "a")).await.unwrap().object, object);
    assert_eq!(*r.list(&Filter::all()).await.unwrap().items[0].object, object);
}

pub(crate) async fn rs18_cluster_ids_do_not_see_each_other<B: Backend>(backend: &B) {
    let whole = backend.repository("ids", Scope::Namespaced);
    let (one, two) = (whole.for_cluster("one").unwrap(), whole.for_cluster("two").unwrap());
    for (r, text) in [(&whole, "whole"), (&one, "one"), (&two, "two")] {
        assert_eq!(r.count(&Filter::all()).await.unwrap(), 0);
        assert!(is_not_found(r.get(&key("n", "a")).await, &key("n", "a")));
        r.create(report("n", "a", text)).await.unwrap();
    }
    for (r, text) in [(&whole, "whole"), (&one, "one"), (&two, "two")] {
        assert_eq!(texts(r, &Filter::all()).await, [format!("n/a {text}")]);
        assert_eq!(r.get(&key("n", "a")).await.unwrap().object.text, text);
    }
    one.delete(&key("n", "a"), None).await.unwrap();
    assert!(is_not_found(one.get(&key("n", "a")).await, &key("n", "a")));
    assert_eq!(whole.count(&Filter::all()).await.unwrap(), 1);
    assert_eq!(whole.for_cluster("two").unwrap().count(&Filter::all()).await.unwrap(), 1);
}

pub(crate) async fn rs18_a_cluster_id_is_a_name<B: Backend>(backend: &B) {
    let whole = backend.repository("bad-ids", Scope::Namespaced);
    for bad in ["", "a/b", "a\0"] {
        assert!(is_invalid(&whole.for_cluster(bad)), "{bad:?}");
    }
    assert!(is_invalid(&whole.for_cluster("a").unwrap().for_cluster("b")), "ids do not nest");
}
