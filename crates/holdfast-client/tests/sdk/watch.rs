//! Watches: in order, each change once, also over cuts, slow readers and compactions.

use futures::StreamExt;
use holdfast_client::{Client, Delete, Event, KeyRange, Op, ReadLevel, Txn, Watch, WatchEvent, WatchOptions};

use crate::backend::{Backend, soon};
use crate::relay::Relay;

fn all() -> KeyRange {
    KeyRange::prefix("f/")
}

async fn next(watch: &mut Watch) -> WatchEvent {
    soon(watch.next()).await.unwrap()
}

/// The changes of one revision.
async fn changes(watch: &mut Watch) -> (u64, Vec<Event>) {
    match next(watch).await {
        WatchEvent::Changes { revision, events } => (revision, events),
        other => panic!("{other:?}"),
    }
}

fn keys(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| String::from_utf8(event.key().to_vec()).unwrap()).collect()
}

/// Puts as many keys as wanted, `f/0` first, some at a time. Gives the last revision.
async fn put(client: &Client, count: usize, bytes: usize) -> u64 {
    let mut last = 0;
    for chunk in (0..count).collect::<Vec<_>>().chunks(64) {
        let puts = chunk.iter().map(|n| client.put(format!("f/{n}"), vec![b'v'; bytes]));
        for put in futures::future::join_all(puts).await {
            last = last.max(put.unwrap());
        }
    }
    last
}

/// Reads changes up to a revision; checks that they ascend; gives how many keys they had.
async fn count_until(watch: &mut Watch, last: u64) -> usize {
    let (mut count, mut before) = (0, 0);
    loop {
        let (revision, events) = changes(watch).await;
        assert!(revision > before, "{revision} behind {before}");
        before = revision;
        count += events.len();
        if revision >= last {
            return count;
        }
    }
}

/// NS7, NS9: what a watch tells: whole revisions in order, what was there before, only the kinds that are wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_whole_revisions_in_order() {
    Backend::each("watches", async |backend| {
        let client = backend.client();
        let mut from_now = client.watch(all(), WatchOptions::new());
        let started = soon(from_now.started()).await.unwrap();
        let txn = Txn::new().then(Op::put("f/a", "1")).then(Op::put("f/b", "1")).then(Op::put("g", "1"));
        let first = client.txn(txn).await.unwrap().revision;
        assert_eq!(started, first);
        let second = client.put("f/a", "2").await.unwrap();
        let third = client.delete("f/a").await.unwrap().revision;
        for options in [WatchOptions::new().from(first), WatchOptions::new().from(first).previous()] {
            let has_previous = options == WatchOptions::new().from(first).previous();
            let mut watch = client.watch(all(), options);
            let (revision, events) = changes(&mut watch).await;
            assert_eq!((revision, keys(&events)), (first, vec!["f/a".to_owned(), "f/b".to_owned()]));
            assert!(events.iter().all(Event::is_create));
            let (revision, events) = changes(&mut watch).await;
            let [Event::Put { kv, previous }] = events.as_slice() else { panic!("{events:?}") };
            assert_eq!((revision, kv.value.as_ref(), kv.version), (second, b"2".as_ref(), 2));
            assert_eq!(previous.as_ref().map(|kv| kv.mod_revision), has_previous.then_some(first));
            let (revision, events) = changes(&mut watch).await;
            let [Event::Delete { key, previous, .. }] = events.as_slice() else { panic!("{events:?}") };
            assert_eq!((revision, key.as_ref()), (third, b"f/a".as_ref()));
            assert_eq!(previous.as_ref().map(|kv| kv.mod_revision), has_previous.then_some(second));
            assert_eq!(watch.next_revision(), Some(third + 1));
        }
        let mut puts = client.watch(all(), WatchOptions::new().from(second).only_puts());
        let mut deletes = client.watch(all(), WatchOptions::new().from(first).only_deletes());
        let fourth = client.put("f/c", "1").await.unwrap();
        assert_eq!(changes(&mut puts).await.0, second);
        assert_eq!(changes(&mut puts).await.0, fourth);
        assert_eq!(changes(&mut deletes).await.0, third);
        assert_eq!(count_until(&mut from_now, fourth).await, 5);
        // The same as a stream.
        let mut stream = client.watch(all(), WatchOptions::new().from(fourth));
        let last = soon(StreamExt::next(&mut stream)).await;
        assert!(matches!(last, Some(Ok(WatchEvent::Changes { revision, .. })) if revision == fourth));
    })
    .await;
}

/// RS18: a watch of a namespace tells its keys, under their names there.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_in_a_namespace_tells_its_keys() {
    Backend::each("watches in namespaces", async |backend| {
        let client = backend.client();
        let mut watch = client.namespaced("n/").watch(KeyRange::all(), WatchOptions::new());
        soon(watch.started()).await.unwrap();
        client.put("n0", "beside").await.unwrap();
        client.put("n/a", "1").await.unwrap();
        assert_eq!(keys(&changes(&mut watch).await.1), ["a"]);
    })
    .await;
}

/// All watches of a client share a connection; each has its own changes, also when it is cut again and again.
#[tokio::test(flavor = "multi_thread")]
async fn many_watches_share_a_connection_and_go_on_when_it_is_cut() {
    Backend::each("watches over cuts", async |backend| {
        const WATCHES: usize = 100;
        let relay = Relay::to(&backend.endpoints()[0]).await;
        let (client, direct) = (Client::new([relay.endpoint.clone()]).unwrap(), backend.client());
        let mut watches = Vec::new();
        for n in 0..WATCHES {
            let mut watch = client.watch(KeyRange::key(format!("f/{n}")), WatchOptions::new());
            soon(watch.started()).await.unwrap();
            watches.push(watch);
        }
        assert_eq!(relay.connections(), 1);
        for round in 0..3 {
            let reads = watches.iter_mut().map(async |watch| changes(watch).await.1.len());
            // While some of them wait, and with changes that come while there is no connection.
            let write = async {
                let before = direct.put("f/0", "early").await.unwrap();
                relay.cut();
                let revision = put(&direct, WATCHES, 8).await;
                (before, revision)
            };
            let (counts, _) = futures::future::join(futures::future::join_all(reads), write).await;
            assert_eq!(counts, [1; WATCHES], "round {round}");
            // The first one has had one change more.
            assert_eq!(changes(&mut watches[0]).await.1.len(), 1);
        }
        assert!(relay.connections() > 1);
        let none = tokio::time::timeout(std::time::Duration::from_millis(200), watches[1].next()).await;
        assert!(none.is_err(), "nothing twice: {none:?}");
    })
    .await;
}

/// A watch that is not read is taken off the stream; it misses nothing, and the others do not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_not_read_holds_up_nobody_and_misses_nothing() {
    Backend::each("slow watches", async |backend| {
        // Several times what its buffer holds.
        const KEYS: usize = 2_000;
        let client = backend.client();
        let mut slow = client.watch(all(), WatchOptions::new());
        let mut quick = client.watch(all(), WatchOptions::new());
        soon(slow.started()).await.unwrap();
        soon(quick.started()).await.unwrap();
        let writer = client.clone();
        let writes = tokio::spawn(async move { put(&writer, KEYS, 2_048).await });
        let mut count = 0;
        while count < KEYS {
            count += changes(&mut quick).await.1.len();
        }
        let last = writes.await.unwrap();
        assert_eq!(count_until(&mut slow, last).await, KEYS);
        let next = client.put("f/next", "1").await.unwrap();
        assert_eq!(changes(&mut slow).await.0, next);
        assert_eq!(changes(&mut quick).await.0, next);
    })
    .await;
}

/// A revision that is larger than what a server sends at once is told as one.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_comes_in_pieces_is_told_whole() {
    Backend::each("watches of large revisions", async |backend| {
        const KEYS: usize = 1_500;
        let client = backend.client();
        let revision = put(&client, KEYS, 4_096).await;
        let mut watch = client.watch(all(), WatchOptions::new().from(revision + 1).previous());
        let deleted = client.delete_with(Delete::range(all())).await.unwrap();
        let next = client.put("f/next", "1").await.unwrap();
        let (revision, events) = changes(&mut watch).await;
        assert_eq!((revision, events.len()), (deleted.revision, KEYS));
        assert!(events.iter().all(|event| matches!(event, Event::Delete { previous: Some(_), .. })));
        assert_eq!(changes(&mut watch).await.0, next);
    })
    .await;
}

/// AW17: what was compacted before it was told is said to be lost, with where it begins and where the watch goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_says_what_it_lost_to_a_compaction_and_goes_on() {
    Backend::each("watches and compaction", async |backend| {
        let client = backend.client();
        let first = client.put("f/a", "1").await.unwrap();
        for value in ["2", "3"] {
            client.put("f/a", value).await.unwrap();
        }
        let fourth = client.put("f/b", "1").await.unwrap();
        let mut watch = client.watch(all(), WatchOptions::new().from(first));
        backend.compact(fourth).await;
        assert_eq!(watch.next_revision(), Some(first));
        assert_eq!(next(&mut watch).await, WatchEvent::Lost { from: first, resumes_at: fourth });
        assert_eq!(changes(&mut watch).await.0, fourth, "from the bound on, inclusive");
        let fifth = client.put("f/a", "4").await.unwrap();
        assert_eq!(changes(&mut watch).await.0, fifth);
        let now = client.get("f/a", ReadLevel::AtLeast(fifth)).await.unwrap();
        assert_eq!(now.value.unwrap().mod_revision, fifth);
    })
    .await;
}

/// A watch that the server will not have says so, and the others on its stream go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_refused_says_so() {
    Backend::each("watches that are refused", async |backend| {
        let client = backend.client();
        let mut good = client.watch(all(), WatchOptions::new());
        let mut bad = client.watch(KeyRange::between("b", "a"), WatchOptions::new());
        soon(good.started()).await.unwrap();
        let error = soon(bad.next()).await.unwrap_err();
        assert!(matches!(error, holdfast_client::Error::Refused { .. }), "{error}");
        drop(bad);
        let revision = client.put("f/a", "1").await.unwrap();
        assert_eq!(changes(&mut good).await.0, revision);
    })
    .await;
}
