//! What happens in the middle of something else: a compaction, a second removal, a source that forgets at once.

use std::cmp::Ordering;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};

use futures::poll;
use holdfast_client::collect::{PageToken, SourceError, SourcePage};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::*;

/// A source that does something before two of its versions are compared, and perhaps never tells what happens.
struct Odd<F> {
    inner: Fake,
    before_compare: F,
    is_forgetful: bool,
}

impl<F: Fn() + Send + Sync> Source for Odd<F> {
    type Watch = <Fake as Source>::Watch;

    fn id(&self) -> &SourceId {
        self.inner.id()
    }

    async fn list(&self, page: Option<PageToken>) -> Result<SourcePage, SourceError> {
        self.inner.list(page).await
    }

    async fn watch(&self, from: &OriginVersion) -> Result<Self::Watch, SourceError> {
        if self.is_forgetful { Err(SourceError::Expired) } else { self.inner.watch(from).await }
    }

    fn compare(&self, a: &OriginVersion, b: &OriginVersion) -> Option<Ordering> {
        (self.before_compare)();
        self.inner.compare(a, b)
    }
}

/// Lets a removal go on until its mark is stored, and no further; gives the revision of the mark.
async fn marked(
    client: &Client,
    mut removal: Pin<&mut impl Future<Output = Result<(), CollectError>>>,
    before: u64,
) -> u64 {
    let found = async {
        loop {
            assert!(poll!(removal.as_mut()).is_pending(), "it is not done before it has marked");
            // It makes no step while this is read.
            let mark = client.get("/c.removing/pods/a", ReadLevel::Linearizable).await.unwrap().value;
            if let Some(mark) = mark.filter(|mark| mark.mod_revision > before) {
                return mark.mod_revision;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("marked in time")
}

/// CP14: a removal that stood still while another one came to the end deletes nothing of what is collected anew; and one
/// that another has taken over from says so.
#[tokio::test(flavor = "multi_thread")]
async fn cp14_a_removal_that_is_late_deletes_nothing_of_what_is_collected_anew() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    let source = Fake::new("a");
    source.put(&name("x", "o"), "1");
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    drop(following);
    let mut late = Box::pin(pods.remove_source(source.id(), Removal::Each));
    let mut later = Box::pin(pods.remove_source(source.id(), Removal::Each));
    let first = marked(&client, late.as_mut(), 0).await;
    marked(&client, later.as_mut(), first).await;
    let refused = late.await;
    assert!(matches!(refused, Err(CollectError::Removing { .. })), "{refused:?}");
    pods.remove_source(source.id(), Removal::Each).await.unwrap();
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    later.await.unwrap();
    assert_same(&pods, &source).await;
    assert_eq!(pods.origin(source.id()).await.unwrap(), Some(source.version()));
    drop(following);
    cluster.stop().await;
}

/// Marks a source as being removed as a whole, as a removal does that stands still then.
async fn mark_whole(client: &Client) {
    client.put("/c/pods/a", r#"{"origin":null,"run":1,"batch":0,"removing":"whole"}"#).await.unwrap();
    client.put("/c.removing/pods/a", "").await.unwrap();
}

/// CP14: a watch of one object that begins while its source is removed as a whole tells the object's deletion, and later
/// ones too.
#[tokio::test(flavor = "multi_thread")]
async fn cp14_a_watch_of_one_object_tells_deletions_during_a_removal_and_behind_it() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    let (source, key) = (Fake::new("a"), name("x", "o"));
    pods.write(&source, &source.put(&key, "1")).await.unwrap();
    mark_whole(&client).await;
    let one = Scope::all().source(source.id().clone()).namespace("x").name("o");
    let listed = pods.list(&one, ReadLevel::Linearizable).await.unwrap();
    let mut events = watch(&pods, &one, Some(listed.version)).await;
    pods.remove_source(source.id(), Removal::Whole).await.unwrap();
    assert_eq!(told(&mut events).await, "a x/o gone");
    pods.write(&source, &source.put(&key, "2")).await.unwrap();
    assert_eq!(told(&mut events).await, "a x/o 102");
    pods.delete(&source, &key, &source.delete(&key)).await.unwrap();
    assert_eq!(told(&mut events).await, "a x/o gone");
    cluster.stop().await;
}

/// CP14: what was deleted by itself before its source's removal began is told also by a watch that is opened later, from
/// before the deletion.
#[tokio::test(flavor = "multi_thread")]
async fn cp14_a_deletion_before_a_removal_is_told_by_itself() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    let (source, key) = (Fake::new("a"), name("x", "o"));
    pods.write(&source, &source.put(&key, "1")).await.unwrap();
    let listed = pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    pods.delete(&source, &key, &source.delete(&key)).await.unwrap();
    pods.write(&source, &source.put(&name("x", "p"), "1")).await.unwrap();
    mark_whole(&client).await;
    let mut events = watch(&pods, &Scope::all(), Some(listed.version)).await;
    pods.remove_source(source.id(), Removal::Whole).await.unwrap();
    for expected in ["a x/o gone", "a x/p 103", "a removed"] {
        assert_eq!(told(&mut events).await, expected);
    }
    cluster.stop().await;
}

/// CP10: a compaction while what a list does not have is deleted does not end the collecting.
#[tokio::test(flavor = "multi_thread")]
async fn cp10_a_compaction_in_the_middle_of_a_list_does_not_end_collecting() {
    // More than a page of the store.
    const OBJECTS: usize = 300;
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    let inner = Fake::new("a");
    let names: Vec<_> = (0..OBJECTS).map(|n| name("x", &format!("{n:03}"))).collect();
    for name in &names {
        inner.put(name, "1");
    }
    let following = follow(&pods, &inner);
    collected(&pods, &inner).await;
    drop(following);
    for name in &names[1..] {
        inner.delete(name);
    }
    inner.expire();
    let kv = KvClient::new(Channel::from_shared(cluster.endpoint(0)).unwrap().connect_lazy());
    let is_compacted = Arc::new(AtomicBool::new(false));
    let before_compare = {
        let is_compacted = Arc::clone(&is_compacted);
        move || {
            if !is_compacted.swap(true, atomic::Ordering::Relaxed) {
                let (client, mut kv) = (client.clone(), kv.clone());
                let compacted = async move {
                    let revision = i64::try_from(client.put("elsewhere", "").await.unwrap()).unwrap();
                    kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
                };
                block_in_place(|| Handle::current().block_on(compacted));
            }
        }
    };
    let source = Odd { inner: inner.clone(), before_compare, is_forgetful: false };
    let collecting = pods.clone();
    let _following = Following(tokio::spawn(async move { collecting.follow(&source).await }));
    collected(&pods, &inner).await;
    assert!(is_compacted.load(atomic::Ordering::Relaxed));
    assert_same(&pods, &inner).await;
    cluster.stop().await;
}

/// CP15: a source that never goes back to its own list is asked less and less often.
#[tokio::test(flavor = "multi_thread")]
async fn cp15_a_source_that_forgets_at_once_is_asked_less_and_less_often() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let inner = Fake::new("a");
    inner.put(&name("x", "o"), "1");
    let source = Odd { inner: inner.clone(), before_compare: || {}, is_forgetful: true };
    let began = Instant::now();
    let _following = Following(tokio::spawn(async move { pods.follow(&source).await }));
    let listed = async {
        while inner.lists() < 3 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, listed).await.expect("listed in time");
    // Half of the first pause, and of the second one, which is twice as long.
    assert!(began.elapsed() >= Duration::from_millis(1_200), "{:?}", began.elapsed());
    cluster.stop().await;
}
