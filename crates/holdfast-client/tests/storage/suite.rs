//! The rules. Versions are only compared: other rules write to the same store.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use holdfast_client::store::{
    ChangeKind, Conditions, Expect, Identity, Item, Json, Lifetime, Operator, Selection, Selector, Storage,
    StorageWatch, StoreError, TypedStore,
};
use holdfast_client::{LeaseId, ReadLevel};
use tokio::time::timeout;

use crate::{Backend, PATIENCE};

const NOW: ReadLevel = ReadLevel::Linearizable;

/// Runs each rule, one after the other, and says which.
pub(crate) async fn all<B: Backend>(backend: &B) {
    macro_rules! run {
        ($($rule:ident)*) => {$(
            eprintln!("{}", stringify!($rule));
            $rule(backend).await;
        )*};
    }
    run! {
        ns1_wait_returns_when_the_version_is_there
        ns1_wait_for_a_version_that_does_not_come_ends
        ns2_put_with_version_zero_is_for_what_is_not_there
        ns2_a_conflict_brings_what_is_there_along
        ns2_put_of_what_has_to_be_there
        ns2_put_without_conditions
        ns2_of_many_who_put_at_one_version_one_succeeds
        ns3_delete_gives_what_was_there
        ns3_delete_on_conditions
        ns5_the_past_is_as_it_was
        ns5_what_is_compacted_is_said_to_be
        ns6_a_list_has_the_version_of_the_store
        ns6_a_list_selects_and_says_where
        pages_are_the_list_in_parts
        ns7_a_watch_tells_what_matches_before_or_after
        ns7_a_watch_without_a_version_begins_now
        ns8_a_watch_of_the_compacted_past_is_not_established
        ns9_events_have_what_was_before
        ns16_updates_at_once_lose_nothing
        ns17_wait_and_list_sees_what_was_waited_for
        ns18_the_version_of_a_key_made_again_is_another
        ns20_each_level_sees_what_it_promises
        what_makes_no_sense_is_invalid
    }
}

async fn put(storage: &impl Storage, key: &'static str, value: &'static str) -> Item<Bytes> {
    storage.put(key.into(), value.into(), Conditions::none()).await.unwrap()
}

fn is_not_found<V>(result: &Result<V, StoreError<Bytes>>) -> bool {
    matches!(result, Err(StoreError::NotFound { .. }))
}

async fn ns1_wait_returns_when_the_version_is_there<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let item = put(&storage, "ns1/a", "1").await;
    assert!(storage.wait(item.version, PATIENCE).await.unwrap() >= item.version);
    assert!(storage.wait(0, PATIENCE).await.unwrap() >= item.version.min(1));
    assert!(storage.wait(item.version, Duration::MAX).await.unwrap() >= item.version);
    let waiting = backend.storage();
    let later = item.version + 3;
    let waiting = tokio::spawn(async move { waiting.wait(later, PATIENCE).await });
    while !waiting.is_finished() {
        put(&storage, "ns1/a", "2").await;
        tokio::task::yield_now().await;
    }
    assert!(waiting.await.unwrap().unwrap() >= later);
}

async fn ns1_wait_for_a_version_that_does_not_come_ends<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let item = put(&storage, "ns1/b", "1").await;
    let wanted = item.version + 1_000_000;
    let waited = storage.wait(wanted, Duration::from_millis(200)).await;
    match waited {
        Err(StoreError::FutureRevision { wanted: of, current }) => {
            assert!(of == wanted && (current == 0 || current >= item.version));
        }
        other => panic!("{other:?}"),
    }
}

async fn ns2_put_with_version_zero_is_for_what_is_not_there<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let new = Conditions::prev_version(0);
    let first = storage.put("ns2/a".into(), "1".into(), new).await.unwrap();
    assert_eq!((first.value.as_ref(), first.created), (b"1".as_ref(), first.version));
    let again = storage.put("ns2/a".into(), "2".into(), new).await;
    assert!(matches!(again, Err(StoreError::Conflict { current: Some(item), .. }) if *item == first));
    assert_eq!(storage.get("ns2/a".into(), NOW).await.unwrap(), first);
}

async fn ns2_a_conflict_brings_what_is_there_along<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns2/b", "1").await;
    let at = |item: &Item<Bytes>| Conditions::prev_version(item.version);
    let second = storage.put("ns2/b".into(), "2".into(), at(&first)).await.unwrap();
    assert!(second.version > first.version && second.created == first.created);
    let late = storage.put("ns2/b".into(), "3".into(), at(&first)).await;
    assert!(matches!(late, Err(StoreError::Conflict { current: Some(item), .. }) if *item == second));
    storage.delete("ns2/b".into(), at(&second)).await.unwrap();
    let gone = storage.put("ns2/b".into(), "3".into(), at(&second)).await;
    assert!(matches!(gone, Err(StoreError::Conflict { current: None, .. })));
    assert!(is_not_found(&storage.get("ns2/b".into(), NOW).await));
}

async fn ns2_put_of_what_has_to_be_there<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let present = Conditions::expect(Expect::Present);
    let missing = storage.put("ns2/c".into(), "1".into(), present).await;
    assert!(matches!(missing, Err(StoreError::Conflict { current: None, .. })));
    assert!(is_not_found(&storage.get("ns2/c".into(), NOW).await), "and it is not made");
    let first = put(&storage, "ns2/c", "1").await;
    let second = storage.put("ns2/c".into(), "2".into(), present).await.unwrap();
    assert_eq!((second.created, second.value.as_ref()), (first.created, b"2".as_ref()));
    let kept = present.with_lifetime(Lifetime::Kept);
    storage.put("ns2/c".into(), "3".into(), kept).await.unwrap();
}

async fn ns2_put_without_conditions<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns2/d", "1").await;
    let second = put(&storage, "ns2/d", "").await;
    assert_eq!((first.created, second.created), (first.version, first.version));
    assert_eq!(storage.get("ns2/d".into(), NOW).await.unwrap(), second);
    assert!(second.value.is_empty());
}

async fn ns2_of_many_who_put_at_one_version_one_succeeds<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns2/e", "0").await;
    let at = Conditions::prev_version(first.version);
    let puts = (0..20).map(|n| storage.put("ns2/e".into(), format!("{n}").into(), at));
    let outcomes = join_all(puts).await;
    let winner = storage.get("ns2/e".into(), NOW).await.unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for outcome in outcomes {
        match outcome {
            Ok(item) => assert_eq!(item, winner),
            Err(StoreError::Conflict { current: Some(item), .. }) => assert_eq!(*item, winner),
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn ns3_delete_gives_what_was_there<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns3/a", "1").await;
    let removed = storage.delete("ns3/a".into(), Conditions::none()).await.unwrap();
    assert_eq!(removed.item, first);
    assert!(removed.at > first.version);
    assert!(is_not_found(&storage.delete("ns3/a".into(), Conditions::none()).await));
    assert!(is_not_found(&storage.delete("ns3/a".into(), Conditions::expect(Expect::Present)).await));
}

async fn ns3_delete_on_conditions<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns3/b", "1").await;
    let second = put(&storage, "ns3/b", "2").await;
    for conditions in [Conditions::prev_version(first.version), Conditions::prev_version(0)] {
        let late = storage.delete("ns3/b".into(), conditions).await;
        assert!(matches!(late, Err(StoreError::Conflict { current: Some(item), .. }) if *item == second));
    }
    let at = Conditions::prev_version(second.version);
    assert_eq!(storage.delete("ns3/b".into(), at).await.unwrap().item, second);
    let gone = storage.delete("ns3/b".into(), at).await;
    assert!(matches!(gone, Err(StoreError::Conflict { current: None, .. })));
    assert!(is_not_found(&storage.delete("ns3/b".into(), Conditions::prev_version(0)).await));
}

async fn ns5_the_past_is_as_it_was<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns5/a", "1").await;
    let second = put(&storage, "ns5/a", "2").await;
    put(&storage, "ns5/b", "1").await;
    let removed = storage.delete("ns5/a".into(), Conditions::none()).await.unwrap();
    let get = async |version| storage.get("ns5/a".into(), ReadLevel::Exact(version)).await;
    assert_eq!(get(first.version).await.unwrap(), first);
    assert_eq!(get(second.version).await.unwrap(), second);
    assert_eq!(get(removed.at - 1).await.unwrap(), second);
    assert!(is_not_found(&get(removed.at).await));
    assert!(is_not_found(&get(first.version - 1).await));
    let future = get(removed.at + 1_000_000).await;
    assert!(matches!(future, Err(StoreError::FutureRevision { .. })), "{future:?}");
    let list = async |version| {
        let listed = storage.list("ns5/".into(), ReadLevel::Exact(version), Selection::all()).await.unwrap();
        assert_eq!(listed.version, version);
        listed.items.into_iter().map(|item| item.value).collect::<Vec<_>>()
    };
    assert_eq!(list(second.version).await, ["2"]);
    assert_eq!(list(removed.at - 1).await, ["2", "1"]);
    assert_eq!(list(removed.at).await, ["1"]);
    assert_eq!(storage.count("ns5/".into(), ReadLevel::Exact(first.version)).await.unwrap(), 1);
}

async fn ns5_what_is_compacted_is_said_to_be<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns5/c", "1").await;
    put(&storage, "ns5/c", "2").await;
    backend.compact().await;
    let exact = ReadLevel::Exact(first.version);
    let compacted = storage.get("ns5/c".into(), exact).await;
    assert!(matches!(compacted, Err(StoreError::Compacted { wanted, .. }) if wanted == first.version));
    let compacted = storage.list("ns5/".into(), exact, Selection::all()).await;
    assert!(matches!(compacted, Err(StoreError::Compacted { .. })));
    assert_eq!(storage.get("ns5/c".into(), NOW).await.unwrap().value, "2");
}

async fn ns6_a_list_has_the_version_of_the_store<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let other = put(&storage, "ns6-other", "1").await;
    let empty = storage.list("ns6/none/".into(), NOW, Selection::all()).await.unwrap();
    assert!(empty.items.is_empty() && empty.version >= other.version);
    for key in ["ns6/b", "ns6/a", "ns6/c"] {
        put(&storage, key, key).await;
    }
    let listed = storage.list("ns6/".into(), NOW, Selection::all()).await.unwrap();
    let keys: Vec<_> = listed.items.iter().map(|item| item.key.as_ref()).collect();
    assert_eq!(keys, [b"ns6/a", b"ns6/b", b"ns6/c"]);
    assert!(listed.items.iter().all(|item| item.version <= listed.version));
    assert!(listed.server_side, "there was nothing to select");
}

/// The first byte of the value is the field `kind`; an empty value has none.
fn of_kind(kind: &'static str) -> Selection<Bytes> {
    Selection::new([Selector::equals("kind", kind)], |field, item: &Item<Bytes>| {
        assert_eq!(field, "kind");
        let first = item.value.first()?;
        Some(char::from(*first).to_string().into())
    })
}

async fn ns6_a_list_selects_and_says_where<B: Backend>(backend: &B) {
    let storage = backend.storage();
    for (key, value) in [("ns6s/a", "x1"), ("ns6s/b", "y1"), ("ns6s/c", "x2"), ("ns6s/d", "")] {
        put(&storage, key, value).await;
    }
    let listed = storage.list("ns6s/".into(), NOW, of_kind("x")).await.unwrap();
    let values: Vec<_> = listed.items.iter().map(|item| item.value.as_ref()).collect();
    assert_eq!(values, [b"x1", b"x2"]);
    assert_eq!(listed.server_side, storage.backend() == "memory", "on plain etcd all came here first");
    let watch = storage.watch_prefix("ns6s/".into(), None, of_kind("x")).await.unwrap();
    assert_eq!(watch.server_side(), storage.backend() == "memory");
}

async fn pages_are_the_list_in_parts<B: Backend>(backend: &B) {
    let storage = backend.storage();
    for n in 0..25 {
        storage.put(format!("page/{n:02}").into(), Bytes::new(), Conditions::none()).await.unwrap();
    }
    put(&storage, "page0", "beside").await;
    let whole = storage.list("page/".into(), NOW, Selection::all()).await.unwrap();
    let (mut items, mut behind, mut sizes) = (Vec::new(), None, Vec::new());
    loop {
        let page = storage.page("page/".into(), behind, 10, NOW).await.unwrap();
        sizes.push(page.items.len());
        behind = page.items.last().map(|item| item.key.clone());
        items.extend(page.items);
        if !page.more {
            break;
        }
    }
    assert_eq!((sizes, items), (vec![10, 10, 5], whole.items));
    // A key that is not there any more is a place as good as any.
    let page = storage.page("page/".into(), Some("page/235".into()), 10, NOW).await.unwrap();
    assert_eq!((page.items.len(), page.more), (1, false));
    let none = storage.page("page/".into(), Some("page/99".into()), 10, NOW).await.unwrap();
    assert_eq!((none.items.len(), none.more), (0, false));
}

/// What a watch tells next: kind, value before, value now.
async fn told(watch: &mut impl StorageWatch<Bytes>) -> (ChangeKind, String, String) {
    let change = timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on").unwrap();
    let text = |item: Option<Item<Bytes>>| {
        item.map_or("-".to_owned(), |item| String::from_utf8(item.value.to_vec()).unwrap())
    };
    (change.kind, text(change.previous), text(change.current))
}

fn tells(kind: ChangeKind, before: &str, now: &str) -> (ChangeKind, String, String) {
    (kind, before.to_owned(), now.to_owned())
}

async fn ns7_a_watch_tells_what_matches_before_or_after<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let start = put(&storage, "ns7/a", "y0").await;
    let mut watch = storage.watch_prefix("ns7/".into(), Some(start.version), of_kind("x")).await.unwrap();
    for value in ["y1", "x2", "x3", "y4", "y5", "x6"] {
        put(&storage, "ns7/a", value).await;
    }
    put(&storage, "ns7-beside", "x").await;
    storage.delete("ns7/a".into(), Conditions::none()).await.unwrap();
    put(&storage, "ns7/a", "x7").await;
    let events = [
        tells(ChangeKind::Entered, "y1", "x2"),
        tells(ChangeKind::Modified, "x2", "x3"),
        tells(ChangeKind::Left, "x3", "y4"),
        tells(ChangeKind::Entered, "y5", "x6"),
        tells(ChangeKind::Deleted, "x6", "-"),
        tells(ChangeKind::Created, "-", "x7"),
    ];
    for event in events {
        assert_eq!(told(&mut watch).await, event);
    }
}

async fn ns7_a_watch_without_a_version_begins_now<B: Backend>(backend: &B) {
    let storage = backend.storage();
    put(&storage, "ns7n/a", "1").await;
    let mut watch = storage.watch_prefix("ns7n/".into(), None, Selection::all()).await.unwrap();
    put(&storage, "ns7n/a", "2").await;
    assert_eq!(told(&mut watch).await, tells(ChangeKind::Modified, "1", "2"));
}

/// NS8: an error before it is established is that of the call.
async fn ns8_a_watch_of_the_compacted_past_is_not_established<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns8/a", "1").await;
    put(&storage, "ns8/a", "2").await;
    backend.compact().await;
    let refused = storage.watch_prefix("ns8/".into(), Some(first.version), Selection::all()).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Compacted { wanted, .. }) if wanted == first.version));
    let listed = storage.list("ns8/".into(), NOW, Selection::all()).await.unwrap();
    let mut watch =
        storage.watch_prefix("ns8/".into(), Some(listed.version), Selection::all()).await.unwrap();
    // NS8: what goes wrong later is the last thing that it tells.
    put(&storage, "ns8/a", "3").await;
    put(&storage, "ns8/a", "4").await;
    backend.compact().await;
    let lost = timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert!(matches!(lost, Err(StoreError::Compacted { .. })), "{lost:?}");
    assert!(watch.next().await.is_none());
}

async fn ns9_events_have_what_was_before<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let mut watch = storage.watch_prefix("ns9/".into(), None, Selection::all()).await.unwrap();
    let first = put(&storage, "ns9/a", "1").await;
    let second = put(&storage, "ns9/a", "2").await;
    let removed = storage.delete("ns9/a".into(), Conditions::none()).await.unwrap();
    let mut next = async || timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
    let created = next().await;
    assert_eq!(
        (created.version, created.current, created.previous),
        (first.version, Some(first.clone()), None)
    );
    let modified = next().await;
    assert_eq!((modified.current, modified.previous), (Some(second.clone()), Some(first)));
    let deleted = next().await;
    assert_eq!((deleted.version, deleted.current, deleted.previous), (removed.at, None, Some(second)));
}

async fn ns16_updates_at_once_lose_nothing<B: Backend>(backend: &B) {
    let store = TypedStore::<u64, _, _, _>::new(backend.storage(), Json, Identity);
    let adders = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let add = |sum: Option<&u64>| Ok::<_, Infallible>(sum.copied().unwrap_or(0) + 1);
                store.guaranteed_update("ns16".into(), None, add).await.unwrap();
            }
        })
    });
    for adder in join_all(adders).await {
        adder.unwrap();
    }
    assert_eq!(*store.get("ns16".into(), NOW).await.unwrap().value, 80);
}

async fn ns17_wait_and_list_sees_what_was_waited_for<B: Backend>(backend: &B) {
    let store = TypedStore::<u64, _, _, _>::new(backend.storage(), Json, Identity);
    for n in 0..10 {
        let item = store.put(format!("ns17/{n}").into(), n, Conditions::none()).await.unwrap();
        let listed =
            store.wait_and_list(item.version, PATIENCE, "ns17/".into(), Selection::all()).await.unwrap();
        assert!(listed.version >= item.version);
        assert_eq!(listed.items.last().unwrap().version, item.version);
    }
    let future = store
        .wait_and_list(u64::MAX >> 1, Duration::from_millis(100), "ns17/".into(), Selection::all())
        .await;
    assert!(matches!(future, Err(StoreError::FutureRevision { .. })));
}

async fn ns18_the_version_of_a_key_made_again_is_another<B: Backend>(backend: &B) {
    let storage = backend.storage();
    let first = put(&storage, "ns18/a", "1").await;
    storage.delete("ns18/a".into(), Conditions::none()).await.unwrap();
    let second = put(&storage, "ns18/a", "1").await;
    assert!(second.created > first.created);
    let late = storage.put("ns18/a".into(), "2".into(), Conditions::prev_version(first.version)).await;
    assert!(matches!(late, Err(StoreError::Conflict { current: Some(item), .. }) if *item == second));
}

async fn ns20_each_level_sees_what_it_promises<B: Backend>(backend: &B) {
    let storage = backend.storage();
    for n in 0..20 {
        let item = storage.put("ns20/a".into(), n.to_string().into(), Conditions::none()).await.unwrap();
        for level in [NOW, ReadLevel::AtLeast(item.version), ReadLevel::Exact(item.version)] {
            assert_eq!(storage.get("ns20/a".into(), level).await.unwrap(), item, "{level:?}");
            let listed = storage.list("ns20/".into(), level, Selection::all()).await.unwrap();
            assert_eq!(listed.items, std::slice::from_ref(&item), "{level:?}");
            assert!(listed.version >= item.version);
            assert_eq!(storage.count("ns20/".into(), level).await.unwrap(), 1);
        }
        let listed = storage.list("ns20/".into(), ReadLevel::Any, Selection::all()).await.unwrap();
        assert!(listed.items.iter().all(|item| item.version <= listed.version));
    }
    let future = storage.get("ns20/a".into(), ReadLevel::AtLeast(u64::MAX >> 1)).await;
    assert!(matches!(future, Err(StoreError::FutureRevision { .. })), "{future:?}");
}

async fn what_makes_no_sense_is_invalid<B: Backend>(backend: &B) {
    fn is_invalid<V>(result: &Result<V, StoreError<Bytes>>) -> bool {
        matches!(result, Err(StoreError::Invalid { .. }))
    }
    let storage = backend.storage();
    assert!(is_invalid(&storage.put(Bytes::new(), "1".into(), Conditions::none()).await));
    let values = Selector::new(Operator::Exists, "f", ["x"]);
    let bad = || Selection::new([values.clone()], |_, _: &Item<Bytes>| None);
    assert!(is_invalid(&storage.list("x".into(), NOW, bad()).await));
    assert!(is_invalid(&storage.watch_prefix("x".into(), None, bad()).await.map(drop)));
    let kept = Conditions::none().with_lifetime(Lifetime::Kept);
    assert!(is_invalid(&storage.put("x".into(), "1".into(), kept).await));
    // No key is empty.
    assert!(is_invalid(&storage.get(Bytes::new(), NOW).await));
    for expect in [Expect::Anything, Expect::Missing, Expect::Present, Expect::Version(1)] {
        assert!(is_invalid(&storage.delete(Bytes::new(), Conditions::expect(expect)).await), "{expect:?}");
    }
    // A page behind all that begins so; one of nothing has one.
    put(&storage, "none/a", "1").await;
    put(&storage, "none/b", "1").await;
    assert!(is_invalid(&storage.page("none/".into(), Some("none0".into()), 10, NOW).await));
    let whole = storage.page("none/".into(), Some("before".into()), 0, NOW).await.unwrap();
    assert_eq!((whole.items.len(), whole.more), (1, true));
    // How long an object lives is of no meaning to a deletion.
    for lifetime in [Lifetime::Kept, Lifetime::Lease(LeaseId(1)), Lifetime::Ttl(PATIENCE)] {
        let item = put(&storage, "none/a", "1").await;
        let conditions = Conditions::none().with_lifetime(lifetime);
        assert_eq!(storage.delete("none/a".into(), conditions).await.unwrap().item, item, "{lifetime:?}");
    }
}
