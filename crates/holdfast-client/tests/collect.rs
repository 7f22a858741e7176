//! Collecting against real members: CP1 to CP20, as far as they live in the client.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "collect/defects.rs"]
mod defects;
#[path = "collect/fake.rs"]
mod fake;
#[path = "collect/resume.rs"]
mod resume;
#[path = "collect/troubles.rs"]
mod troubles;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fake::{Fake, name, origin};
use holdfast_client::collect::{
    CollectError, CollectEvent, Collected, Collection, CollectionWatch, Collector, ListVersion, ObjectName,
    OriginVersion, Removal, Resource, ResumePoint, Scope, Source, SourceId, Version, Written,
};
use holdfast_client::{Client, ReadLevel};
use holdfast_testserver::TestCluster;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// More than anything takes, on a machine that stands still for a while.
const PATIENCE: Duration = Duration::from_secs(60);

async fn pods(client: Client) -> Collection {
    Collector::open(client).await.unwrap().collection(Resource::new("pods").unwrap())
}

async fn pods_of(cluster: &TestCluster) -> Collection {
    pods(Client::new(cluster.endpoints()).unwrap()).await
}

fn numbers(_: &SourceId, a: &OriginVersion, b: &OriginVersion) -> Option<std::cmp::Ordering> {
    a.compare_numbers(b)
}

async fn watch(pods: &Collection, scope: &Scope, from: Option<ListVersion>) -> CollectionWatch {
    let from = from.map(ResumePoint::Version);
    pods.watch(scope, from.as_ref(), numbers).await.unwrap()
}

/// The next event that is not progress.
async fn next(watch: &mut CollectionWatch) -> CollectEvent {
    loop {
        let event = timeout(PATIENCE, watch.next()).await.expect("an event in time").unwrap();
        if !matches!(event, CollectEvent::Progress(_)) {
            return event;
        }
    }
}

/// An event in short.
async fn told(watch: &mut CollectionWatch) -> String {
    match next(watch).await {
        CollectEvent::Put(Collected { source, name, version, .. }) => {
            format!("{source} {name} {}", version.origin)
        }
        CollectEvent::Deleted { source, name, .. } => format!("{source} {name} gone"),
        CollectEvent::Resync { source } => format!("{source} anew"),
        CollectEvent::SourceRemoved { source, .. } => format!("{source} removed"),
        other => panic!("{other:?}"),
    }
}

/// A collecting task, which ends when it is dropped.
struct Following(JoinHandle<CollectError>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn follow(pods: &Collection, source: &Fake) -> Following {
    let (pods, source) = (pods.clone(), source.clone());
    Following(tokio::spawn(async move { pods.follow(&source).await }))
}

/// Waits until a source is collected up to what it has.
async fn collected(pods: &Collection, source: &Fake) {
    let all = async {
        while pods.origin(source.id()).await.unwrap() != Some(source.version()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all).await.expect("collected in time");
}

/// What is stored of a source.
async fn stored(pods: &Collection, source: &Fake) -> Vec<Collected> {
    let scope = Scope::all().source(source.id().clone());
    pods.list(&scope, ReadLevel::Linearizable).await.unwrap().objects
}

/// That what is stored of a source is what it has.
async fn assert_same(pods: &Collection, source: &Fake) {
    let stored = stored(pods, source).await;
    let stored: Vec<_> =
        stored.into_iter().map(|found| (found.name, found.version.origin, found.bytes)).collect();
    assert_eq!(stored, source.all());
}

fn assert_newer(version: &Version, before: Option<&Version>) {
    let order = before.and_then(|before| version.origin.compare_numbers(&before.origin));
    let is_newer = before.is_none() || order == Some(std::cmp::Ordering::Greater);
    assert!(is_newer, "never an older one behind a newer one: {version}, then {before:?}");
}

/// A generator of numbers, the same always.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// CP3, CP4, CP9: three sources, collected by runs that are stopped and begun again at any point, sometimes with a history
/// that is gone. A watch from a list tells each change behind it once, in order; in the end all is as the sources have it.
#[tokio::test(flavor = "multi_thread")]
async fn cp3_a_watch_from_a_list_tells_each_change_behind_it_once() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let sources: Vec<_> = ["a", "a-b", "b"].into_iter().map(Fake::new).collect();
    let mut random = Lcg(11);
    let object = |random: &mut Lcg| {
        name(["", "x", "y"][usize::try_from(random.below(3)).unwrap()], &random.below(40).to_string())
    };
    for source in &sources {
        for _ in 0..150 {
            source.put(&object(&mut random), "first");
        }
    }
    let mut following: Vec<_> = sources.iter().map(|source| follow(&pods, source)).collect();
    for source in &sources {
        collected(&pods, source).await;
    }
    let listed = pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    let mut known: BTreeMap<(SourceId, ObjectName), Version> =
        listed.objects.into_iter().map(|found| ((found.source, found.name), found.version)).collect();
    let mut events = watch(&pods, &Scope::all(), Some(listed.version)).await;
    for n in 0..600 {
        let at = usize::try_from(random.below(3)).unwrap();
        let object = object(&mut random);
        if random.below(4) == 0 {
            sources[at].delete(&object);
        } else {
            sources[at].put(&object, &n.to_string());
        }
        if random.below(20) == 0 {
            // Stopped in the middle of whatever it does.
            following[at] = follow(&pods, &sources[at]);
        }
        if random.below(100) == 0 {
            sources[at].expire();
        }
        if random.below(5) == 0 {
            tokio::time::sleep(Duration::from_millis(random.below(5))).await;
        }
    }
    for (source, following) in sources.iter().zip(&mut following) {
        *following = follow(&pods, source);
        collected(&pods, source).await;
        assert_same(&pods, source).await;
    }
    let end = pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    let mut last = listed.version.revision;
    let mut applied = BTreeSet::new();
    let expected: BTreeMap<_, _> =
        end.objects.into_iter().map(|found| ((found.source, found.name), found.version)).collect();
    while known != expected {
        match next(&mut events).await {
            CollectEvent::Put(found) => {
                assert!(found.version.revision >= last, "in order");
                last = found.version.revision;
                let version = (found.source.clone(), found.version.origin.clone());
                assert!(applied.insert(version), "each version of a source is told once: {found:?}");
                let key = (found.source, found.name);
                assert_newer(&found.version, known.insert(key, found.version.clone()).as_ref());
            }
            CollectEvent::Deleted { source, name, version, .. } => {
                assert!(version.revision >= last, "in order");
                last = version.revision;
                assert!(known.remove(&(source, name)).is_some(), "what is told to be gone was there");
            }
            other => panic!("{other:?}"),
        }
    }
    cluster.stop().await;
}

/// CP10, CP15: a run that begins again, and a list, write nothing that is stored already.
#[tokio::test(flavor = "multi_thread")]
async fn cp15_a_run_goes_on_where_the_last_one_was_and_writes_nothing_twice() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let source = Fake::new("a");
    for n in 0..300 {
        source.put(&name("x", &format!("{n:03}")), "first");
    }
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    let before = stored(&pods, &source).await;
    assert_eq!((before.len(), source.lists()), (300, 1));
    drop(following);
    source.put(&name("x", "007"), "second");
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    assert_eq!(source.lists(), 1, "it goes on from the cursor");
    let after = stored(&pods, &source).await;
    let changed = |before: &[Collected], after: &[Collected]| {
        before.iter().zip(after).filter(|(a, b)| a.version.revision != b.version.revision).count()
    };
    assert_eq!(changed(&before, &after), 1);
    drop(following);
    // The source does not know any more what has happened.
    let mut events = watch(&pods, &Scope::all(), Some(ListVersion::from(&after[7].version))).await;
    source.put(&name("x", "008"), "second");
    source.delete(&name("x", "009"));
    source.put(&name("y", "new"), "first");
    source.expire();
    let _following = follow(&pods, &source);
    collected(&pods, &source).await;
    assert_eq!(source.lists(), 2);
    let mut found: Vec<_> = Vec::new();
    for _ in 0..3 {
        found.push(told(&mut events).await);
    }
    found.sort();
    assert_eq!(found, ["a x/008 402", "a x/009 gone", "a y/new 404"], "only what is different is told");
    assert_same(&pods, &source).await;
    cluster.stop().await;
}

/// CP11: the collector and two direct writers race on a few keys. In the end each object is the newest; each version of
/// the source is at most one change, and never an older one behind a newer one.
#[tokio::test(flavor = "multi_thread")]
async fn cp11_dual_writes_converge_to_the_newest() {
    let cluster = TestCluster::three().await.unwrap();
    let pods = pods_of(&cluster).await;
    let source = Fake::new("a");
    let names = [name("x", "0"), name("x", "1")];
    let mut events = watch(&pods, &Scope::all(), None).await;
    let _following = follow(&pods, &source);
    let writers = (0..2_u64).map(|writer| {
        let (source, names) = (source.clone(), names.clone());
        let client = Client::new([cluster.endpoint(usize::try_from(writer).unwrap())]).unwrap();
        async move {
            let pods = self::pods(client).await;
            let mut random = Lcg(writer);
            for n in 0..60 {
                let name = &names[usize::try_from(random.below(2)).unwrap()];
                if random.below(5) == 0 {
                    let deleted = source.delete(name);
                    pods.delete(&source, name, &deleted).await.unwrap();
                } else {
                    let object = source.put(name, &format!("{writer} {n}"));
                    pods.write(&source, &object).await.unwrap();
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    source.put(&name("z", "last"), "");
    collected(&pods, &source).await;
    assert_same(&pods, &source).await;
    let mut newest = BTreeMap::new();
    loop {
        match next(&mut events).await {
            CollectEvent::Put(found) if found.name.name() == "last" => break,
            CollectEvent::Put(found) => {
                let version: u64 = found.version.origin.as_str().parse().unwrap();
                let before = newest.insert(found.name.clone(), version);
                assert!(before < Some(version), "{before:?}, then {found:?}");
            }
            CollectEvent::Deleted { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    cluster.stop().await;
}

/// CP11, CP12: what a direct write has written is seen by who reads at its version, on each member; the source's own word
/// of it changes nothing, and an older one that is late neither, also when the object is gone.
#[tokio::test(flavor = "multi_thread")]
async fn cp12_a_direct_write_is_seen_at_its_version_on_each_member() {
    let cluster = TestCluster::three().await.unwrap();
    let pods = pods_of(&cluster).await;
    let (source, key) = (Fake::new("a"), name("x", "o"));
    let first = source.put(&key, "1");
    let second = source.put(&key, "2");
    let Written::Applied(version) = pods.write(&source, &second).await.unwrap() else { panic!("it is new") };
    for endpoint in cluster.endpoints() {
        let member = self::pods(Client::new([endpoint]).unwrap()).await;
        let found =
            member.get(source.id(), &key, ReadLevel::AtLeast(version.revision)).await.unwrap().unwrap();
        assert_eq!((found.version, found.bytes.as_ref()), (version.clone(), b"2".as_ref()));
    }
    assert_eq!(pods.write(&source, &second).await.unwrap(), Written::Same(version.clone()));
    assert_eq!(pods.write(&source, &first).await.unwrap(), Written::Older(Some(version.clone())));
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    let found = pods.get(source.id(), &key, ReadLevel::Linearizable).await.unwrap().unwrap();
    assert_eq!(found.version, version, "the source's word of it is no change");
    let deleted = source.delete(&key);
    collected(&pods, &source).await;
    drop(following);
    assert_eq!(
        pods.write(&source, &second).await.unwrap(),
        Written::Older(None),
        "it does not come back to life"
    );
    assert!(matches!(pods.delete(&source, &key, &deleted).await.unwrap(), Written::Same(_)));
    assert!(matches!(pods.write(&source, &source.put(&key, "3")).await.unwrap(), Written::Applied(_)));
    // Deleted before anybody here knew of it: an older one that is late is not made.
    let (other, late) = (name("x", "p"), source.put(&name("x", "p"), "1"));
    pods.delete(&source, &other, &source.delete(&other)).await.unwrap();
    assert_eq!(pods.write(&source, &late).await.unwrap(), Written::Older(None));
    cluster.stop().await;
}

/// CP13, CP19: lists and watches of a source, a namespace, a name, and of all.
#[tokio::test(flavor = "multi_thread")]
async fn cp13_lists_and_watches_of_each_scope() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let sources = [Fake::new("a"), Fake::new("a-b")];
    let id = |n: usize| sources[n].id().clone();
    let scopes = [
        (Scope::all(), vec!["a /n", "a x/n", "a x/o", "a-b x/n"]),
        (Scope::all().source(id(0)), vec!["a /n", "a x/n", "a x/o"]),
        (Scope::all().source(id(0)).namespace("x"), vec!["a x/n", "a x/o"]),
        (Scope::all().source(id(0)).namespace(""), vec!["a /n"]),
        (Scope::all().source(id(0)).namespace("x").name("n"), vec!["a x/n"]),
        (Scope::all().namespace("x").name("n"), vec!["a x/n", "a-b x/n"]),
        (Scope::all().source(id(1)), vec!["a-b x/n"]),
    ];
    let mut watches = Vec::new();
    for (scope, _) in &scopes {
        watches.push(watch(&pods, scope, None).await);
    }
    let order =
        [(0, "", "n"), (0, "x", "n"), (0, "x", "o"), (1, "x", "n"), (0, "last", "last"), (1, "last", "last")];
    for (at, namespace, object) in order {
        let object = sources[at].put(&name(namespace, object), "1");
        pods.write(&sources[at], &object).await.unwrap();
    }
    for ((scope, expected), events) in scopes.iter().zip(&mut watches) {
        let listed = pods.list(scope, ReadLevel::Linearizable).await.unwrap();
        assert!(listed.version.revision > 0);
        let found: Vec<_> = listed
            .objects
            .iter()
            .filter(|found| found.name.name() != "last")
            .map(|found| format!("{} {}", found.source, found.name))
            .collect();
        // In the order of keys, where `a-b/` is before `a/`.
        let found: BTreeSet<_> = found.into_iter().collect();
        assert_eq!(found, expected.iter().map(|found| (*found).to_owned()).collect(), "{scope:?}");
        for expected in expected {
            let event = told(events).await;
            assert!(event.starts_with(expected), "{scope:?}: {event}");
        }
    }
    cluster.stop().await;
}

/// CP14: a source is removed page by page; each object is told to be deleted, or the source alone; nothing of it is written
/// meanwhile, nothing is left, and other sources are not touched.
#[tokio::test(flavor = "multi_thread")]
async fn cp14_a_source_is_removed_with_all_it_has() {
    const OBJECTS: usize = 1_200;
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    for (removal, is_each) in [(Removal::Each, true), (Removal::Whole, false)] {
        let (source, other) = (Fake::new("a"), Fake::new("a-b"));
        for n in 0..OBJECTS {
            source.put(&name("x", &format!("{n:05}")), "1");
        }
        source.delete(&name("x", "00000"));
        other.put(&name("x", "stays"), "1");
        let (following, _other) = (follow(&pods, &source), follow(&pods, &other));
        collected(&pods, &source).await;
        collected(&pods, &other).await;
        let listed = pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
        assert_eq!(listed.objects.len(), OBJECTS);
        let mut events = watch(&pods, &Scope::all(), Some(listed.version)).await;
        pods.remove_source(source.id(), removal).await.unwrap();
        let stopped = following.0.is_finished();
        let mut gone = 0;
        loop {
            match next(&mut events).await {
                CollectEvent::Deleted { source, .. } => {
                    assert_eq!(source.as_str(), "a");
                    gone += 1;
                }
                CollectEvent::SourceRemoved { source, .. } => {
                    assert_eq!(source.as_str(), "a");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(gone, if is_each { OBJECTS - 1 } else { 0 }, "{stopped}");
        assert!(stored(&pods, &source).await.is_empty());
        assert_same(&pods, &other).await;
        drop(following);
        for prefix in ["/c.gone/", "/c.removing/", "/c.since/"] {
            let range = holdfast_client::KeyRange::prefix(prefix);
            assert_eq!(client.count(range, ReadLevel::Linearizable).await.unwrap().value, 0, "{prefix}");
        }
        pods.remove_source(other.id(), Removal::Whole).await.unwrap();
    }
    cluster.stop().await;
}

/// One run collects from a source: who begins stops who did before.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_collect_from_a_source_the_first_is_stopped() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let source = Fake::new("a");
    source.put(&name("x", "o"), "1");
    let mut first = follow(&pods, &source);
    collected(&pods, &source).await;
    let second = follow(&pods, &source);
    source.put(&name("x", "o"), "2");
    // It is told when it writes next.
    let stopped = async {
        while !first.0.is_finished() {
            source.put(&name("x", "o"), "again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, stopped).await.expect("stopped in time");
    let reason = (&mut first.0).await.unwrap();
    assert!(matches!(reason, CollectError::Superseded { .. }), "{reason}");
    collected(&pods, &source).await;
    assert!(!second.0.is_finished());
    assert_same(&pods, &source).await;
    cluster.stop().await;
}
