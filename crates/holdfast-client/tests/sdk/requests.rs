//! Reads with their levels, writes, transactions, namespaces.

use holdfast_client::{
    Client, Compare, Delete, Error, KeyRange, ListOptions, Op, OpAnswer, Order, Put, Read, ReadLevel, SortBy,
    Txn,
};

use crate::backend::Backend;

const NOW: ReadLevel = ReadLevel::Linearizable;

async fn value(client: &Client, key: &'static str, level: ReadLevel) -> Option<String> {
    let read = client.get(key, level).await.unwrap();
    read.value.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}

/// NS5, NS20: each level shows what it promises, for single keys, lists and counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_shows_what_its_level_promises() {
    Backend::each("read levels", async |backend| {
        let client = backend.client();
        let first = client.put("k", "1").await.unwrap();
        let second = client.put("k", "2").await.unwrap();
        assert_eq!(value(&client, "k", NOW).await.unwrap(), "2");
        assert_eq!(value(&client, "k", ReadLevel::Exact(first)).await.unwrap(), "1");
        assert_eq!(value(&client, "k", ReadLevel::Exact(first - 1)).await, None);
        // Whichever member is asked, and however far it is behind.
        for endpoint in backend.endpoints() {
            let client = Client::new([endpoint]).unwrap();
            let at_least = client.get("k", ReadLevel::AtLeast(second)).await.unwrap();
            assert!(at_least.revision >= second);
            assert_eq!(at_least.value.unwrap().mod_revision, second);
            let exact = client.list_all(KeyRange::all(), ReadLevel::Exact(second)).await.unwrap();
            assert_eq!((exact.value.len(), exact.revision), (1, second));
            assert!(client.get("k", ReadLevel::Any).await.unwrap().revision <= second);
        }
        let later = client.put("other", "1").await.unwrap();
        assert_eq!(client.count(KeyRange::all(), NOW).await.unwrap(), Read { value: 2, revision: later });
        let count = client.count(KeyRange::all(), ReadLevel::Exact(second)).await.unwrap();
        assert_eq!(count, Read { value: 1, revision: second }, "a read at a revision says which it shows");
    })
    .await;
}

/// NS5, NS20: what is not there yet and what is not there any more are told apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_cannot_be_read_is_to_come_or_compacted() {
    Backend::each("revisions that cannot be read", async |backend| {
        let client = backend.client();
        let first = client.put("k", "1").await.unwrap();
        let second = client.put("k", "2").await.unwrap();
        for level in [ReadLevel::Exact(second + 9), ReadLevel::AtLeast(second + 9)] {
            let error = client.get("k", level).await.unwrap_err();
            assert!(matches!(error, Error::FutureRevision { .. }), "{level:?}: {error}");
        }
        backend.compact(second).await;
        for revision in [0, first] {
            let error = client.get("k", ReadLevel::Exact(revision)).await.unwrap_err();
            assert!(matches!(error, Error::Compacted { .. }), "{revision}: {error}");
        }
        assert_eq!(value(&client, "k", ReadLevel::Exact(second)).await.unwrap(), "2", "inclusive");
    })
    .await;
}

/// RS8, NS6: a list has keys in order, a revision also when it is empty, and pages of one state.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_pages_is_of_one_revision() {
    Backend::each("lists", async |backend| {
        const KEYS: usize = 700;
        let client = backend.client();
        let empty = client.list_all(KeyRange::prefix("f/"), NOW).await.unwrap();
        assert!(empty.value.is_empty() && empty.revision > 0);
        let puts = (0..KEYS).map(|n| client.put(format!("f/{n:04}"), vec![b'v'; 64]));
        let last = futures::future::join_all(puts).await.into_iter().map(Result::unwrap).max().unwrap();
        client.put("g", "beside").await.unwrap();
        let mut pages = client.pages(KeyRange::prefix("f/"), NOW);
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await.unwrap() {
            assert!(page.len() < KEYS, "it takes more than one page");
            keys.extend(page.into_iter().map(|kv| kv.key));
            // Between pages: neither is seen.
            client.delete("f/0699").await.unwrap();
            client.put("f/0700", "late").await.unwrap();
        }
        assert_eq!(keys, (0..KEYS).map(|n| format!("f/{n:04}")).collect::<Vec<_>>());
        assert_eq!(pages.revision(), Some(last + 1));
        let options = ListOptions::new().limit(2).keys_only().sorted(SortBy::Key, Order::Descending);
        let page = client.list(KeyRange::prefix("f/"), options, NOW).await.unwrap().value;
        let keys: Vec<_> = page.items.iter().map(|kv| (kv.key.clone(), kv.value.len())).collect();
        assert_eq!(keys, [("f/0700".into(), 0), ("f/0698".into(), 0)]);
        assert!(page.more && page.count == 700);
        let changed = ListOptions::new().changed_in(last + 1..=u64::MAX);
        let page = client.list(KeyRange::all(), changed, NOW).await.unwrap().value;
        assert_eq!(page.items.len(), 2, "{page:?}");
    })
    .await;
}

/// A list that is compacted under way says so; the whole list begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_compacted_under_way_says_so() {
    Backend::each("lists and compaction", async |backend| {
        let client = backend.client();
        let puts = (0..300).map(|n| client.put(format!("f/{n:04}"), "v"));
        assert!(futures::future::join_all(puts).await.iter().all(Result::is_ok));
        let mut pages = client.pages(KeyRange::prefix("f/"), NOW);
        assert_eq!(pages.next().await.unwrap().unwrap().len(), 128);
        let revision = client.put("f/0000", "2").await.unwrap();
        backend.compact(revision).await;
        let error = pages.next().await.unwrap_err();
        assert!(matches!(error, Error::Compacted { .. }), "{error}");
        let all = client.list_all(KeyRange::prefix("f/"), NOW).await.unwrap();
        assert_eq!((all.value.len(), all.revision), (300, revision));
    })
    .await;
}

/// Writes say what they did, and what was there before when they are asked.
#[tokio::test(flavor = "multi_thread")]
async fn writes_tell_what_was_there_before() {
    Backend::each("writes", async |backend| {
        let client = backend.client();
        let created = client.put_with(Put::new("a", "1").previous()).await.unwrap();
        assert_eq!(created.previous, None);
        let changed = client.put_with(Put::new("a", "2").previous()).await.unwrap();
        assert_eq!(changed.previous.unwrap().mod_revision, created.revision);
        let error = client.put_with(Put::keep_value("missing")).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        let kept = client.put_with(Put::keep_value("a").keep_lease()).await.unwrap();
        assert_eq!(client.get("a", NOW).await.unwrap().value.unwrap().mod_revision, kept.revision);
        assert_eq!(value(&client, "a", NOW).await.unwrap(), "2");
        client.put("b", "1").await.unwrap();
        let deleted =
            client.delete_with(Delete::range(KeyRange::between("a", "c")).previous()).await.unwrap();
        assert_eq!(deleted.deleted, 2);
        assert_eq!(deleted.previous.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), ["a", "b"]);
        let nothing = client.delete_range(KeyRange::prefix("a")).await.unwrap();
        assert_eq!((nothing.deleted, nothing.revision), (0, deleted.revision), "no change, no revision");
        let empty = client.delete_range(KeyRange::between("c", "a")).await.unwrap();
        assert_eq!(empty.deleted, 0, "a range without keys is not another one");
        assert!(!client.delete("a").await.unwrap().existed);
    })
    .await;
}

/// NS2, RS5: a change on condition is one round trip, which also tells what there is otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_runs_the_branch_that_its_compares_choose() {
    Backend::each("transactions", async |backend| {
        let client = backend.client();
        let first = client.put("k", "1").await.unwrap();
        let swap = |revision, value: &'static str| {
            Txn::new()
                .when(Compare::mod_revision("k").equals(revision))
                .then(Op::put("k", value))
                .or_else(Op::get("k"))
        };
        let swapped = client.txn(swap(first, "2")).await.unwrap();
        assert!(swapped.succeeded && swapped.revision > first);
        let refused = client.txn(swap(first, "3")).await.unwrap();
        assert!(!refused.succeeded);
        let now = refused.answers.into_iter().next().unwrap().into_kv().unwrap();
        assert_eq!((now.value.as_ref(), now.mod_revision), (b"2".as_ref(), swapped.revision));
        let holds = async |compare| client.txn(Txn::new().when(compare)).await.unwrap().succeeded;
        for (compare, expected) in [
            (Compare::missing("no"), true),
            (Compare::missing("k"), false),
            (Compare::exists("k"), true),
            (Compare::exists("no"), false),
            (Compare::exists(KeyRange::prefix("no")), false),
            (Compare::missing(KeyRange::prefix("k")), false),
            (Compare::value("k").equals("2"), true),
            (Compare::value("k").differs_from("2"), false),
            (Compare::value("no").differs_from("2"), false),
            (Compare::value("k").less_than("3"), true),
            (Compare::version("k").greater_than(1), true),
            (Compare::create_revision("k").less_than(first), false),
            (Compare::mod_revision(KeyRange::all()).less_than(swapped.revision + 1), true),
            (Compare::lease("k", None), true),
        ] {
            assert_eq!(holds(compare.clone()).await, expected, "{compare:?}");
        }
        let nested = Txn::new().when(Compare::missing("n")).then(Op::put("n", "1")).or_else(Op::get("n"));
        let outer = Txn::new().then(nested).then(Delete::key("k").previous()).then(Op::get("n"));
        let answer = client.txn(outer).await.unwrap();
        let [OpAnswer::Txn(inner), OpAnswer::Delete { deleted: 1, previous }, OpAnswer::Read(page)] =
            answer.answers.as_slice()
        else {
            panic!("{answer:?}")
        };
        assert!(inner.succeeded && previous.len() == 1 && page.items.len() == 1);
        let twice = Txn::new().then(Op::put("x", "1")).then(Op::put("x", "2"));
        assert!(matches!(client.txn(twice).await, Err(Error::Refused { .. })));
    })
    .await;
}

/// RS18: a namespace is all that its client sees, in every kind of request.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_all_that_its_client_sees() {
    Backend::each("namespaces", async |backend| {
        let client = backend.client();
        let (one, two) = (client.namespaced("n/1/"), client.namespaced("n/").namespaced("2/"));
        one.put("a", "one").await.unwrap();
        two.put("a", "two").await.unwrap();
        client.put("n/1/", "the namespace itself").await.unwrap();
        client.put("n/10", "beside").await.unwrap();
        assert_eq!(value(&client, "n/1/a", NOW).await.unwrap(), "one");
        assert_eq!(value(&client, "n/2/a", NOW).await.unwrap(), "two");
        for range in [KeyRange::all(), KeyRange::prefix(""), KeyRange::from("a"), KeyRange::between("", "b")]
        {
            let read = one.list_all(range.clone(), NOW).await.unwrap().value;
            assert_eq!(read.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), ["a"], "{range:?}");
        }
        let txn = Txn::new()
            .when(Compare::value("a").equals("one"))
            .then(Put::new("b", "1").previous())
            .then(Op::list(KeyRange::all(), ListOptions::new()));
        let answer = one.txn(txn).await.unwrap();
        let OpAnswer::Read(page) = &answer.answers[1] else { panic!("{answer:?}") };
        assert_eq!(page.items.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), ["a", "b"]);
        let deleted = one.delete_with(Delete::range(KeyRange::all()).previous()).await.unwrap();
        assert_eq!(deleted.previous.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(client.count(KeyRange::prefix("n/"), NOW).await.unwrap().value, 3, "and nothing else");
        let error = one.put("", "x").await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "no key is empty: {error}");
    })
    .await;
}
