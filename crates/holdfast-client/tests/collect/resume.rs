//! Watches that go on from versions of the sources, on another cluster.

use super::*;

/// The versions that a cluster has collected up to, as a client would keep them.
async fn versions(pods: &Collection, sources: &[&Fake]) -> ResumePoint {
    let mut map = BTreeMap::new();
    for source in sources {
        map.insert(source.id().clone(), pods.origin(source.id()).await.unwrap().unwrap());
    }
    // By way of the text that is sent.
    ResumePoint::parse(&ResumePoint::Sources(map).to_text()).unwrap()
}

/// CP6, CP8: on another cluster that collects the same sources a watch goes on from the versions of the sources: nothing
/// that was told, nothing missing, deletions among it; a source that is not named begins with all its objects.
#[tokio::test(flavor = "multi_thread")]
async fn cp6_a_watch_goes_on_from_versions_of_the_sources() {
    let (one, two) = (TestCluster::single().await.unwrap(), TestCluster::single().await.unwrap());
    let (here, there) = (pods_of(&one).await, pods_of(&two).await);
    let (a, b) = (Fake::new("a"), Fake::new("b"));
    for object in ["1", "2", "3"] {
        a.put(&name("x", object), "first");
        b.put(&name("x", object), "first");
    }
    let _following = [follow(&here, &a), follow(&here, &b), follow(&there, &a), follow(&there, &b)];
    for (pods, source) in [(&here, &a), (&here, &b), (&there, &a), (&there, &b)] {
        collected(pods, source).await;
    }
    // Something is deleted before, so that it is known since when what is gone is known.
    a.put(&name("x", "0"), "first");
    a.delete(&name("x", "0"));
    collected(&here, &a).await;
    collected(&there, &a).await;
    let known = versions(&here, &[&a]).await;
    a.put(&name("x", "2"), "second");
    a.delete(&name("x", "3"));
    a.put(&name("x", "4"), "first");
    collected(&there, &a).await;
    let mut events = there.watch(&Scope::all(), Some(&known), numbers).await.unwrap();
    for expected in ["a x/3 gone", "a x/2 106", "a x/4 108", "b x/1 101", "b x/2 102", "b x/3 103"] {
        let event = told(&mut events).await;
        let (event, expected) =
            if expected.starts_with('b') { (&event[..5], &expected[..5]) } else { (&event[..], expected) };
        assert_eq!(event, expected);
    }
    a.put(&name("x", "1"), "second");
    assert_eq!(told(&mut events).await, "a x/1 109", "then what happens");
    one.stop().await;
    two.stop().await;
}

/// CP6: a source whose version is too old to know what was deleted since is told anew, alone; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn cp6_a_source_that_is_too_old_is_told_anew_alone() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let (a, b) = (Fake::new("a"), Fake::new("b"));
    a.put(&name("x", "1"), "first");
    b.put(&name("x", "1"), "first");
    let _following = [follow(&pods, &a), follow(&pods, &b)];
    collected(&pods, &a).await;
    collected(&pods, &b).await;
    let ResumePoint::Sources(mut known) = versions(&pods, &[&a, &b]).await else {
        panic!("versions of sources")
    };
    // From before anything was collected: what was deleted then nobody knows.
    known.insert(a.id().clone(), origin(50));
    let mut events = pods.watch(&Scope::all(), Some(&ResumePoint::Sources(known)), numbers).await.unwrap();
    for expected in ["a anew", "a x/1 101"] {
        assert_eq!(told(&mut events).await, expected);
    }
    b.put(&name("x", "1"), "second");
    assert_eq!(told(&mut events).await, "b x/1 102", "nothing of the other one is told again");
    cluster.stop().await;
}

/// CP5: a version of one member is one of each member, and after a restart; one of another cluster, or from before a
/// restore, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn cp5_a_version_is_one_of_the_whole_cluster_and_of_no_other() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let mut prefixes = BTreeSet::new();
    for member in 0..3 {
        let client = Client::new([cluster.endpoint(member)]).unwrap();
        prefixes.insert(Collector::open(client).await.unwrap().prefix());
    }
    assert_eq!(prefixes.len(), 1);
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    let source = Fake::new("a");
    let Written::Applied(version) = pods.write(&source, &source.put(&name("x", "o"), "1")).await.unwrap()
    else {
        panic!("it is new")
    };
    let from = ResumePoint::parse(&version.to_string()).unwrap();
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    let elsewhere = self::pods(Client::new([cluster.endpoint(0)]).unwrap()).await;
    let mut events = elsewhere.watch(&Scope::all(), Some(&from), numbers).await.unwrap();
    pods.write(&source, &source.put(&name("x", "o"), "2")).await.unwrap();
    assert_eq!(told(&mut events).await, "a x/o 102");
    let renewed = Collector::renew_prefix(client).await.unwrap().collection(Resource::new("pods").unwrap());
    let refused = renewed.watch(&Scope::all(), Some(&from), numbers).await.unwrap_err();
    assert!(matches!(refused, CollectError::Version(_)), "{refused}");
    cluster.stop().await;
}

/// CP6: a deletion that has the version of what is deleted is told also to who has a later version.
#[tokio::test(flavor = "multi_thread")]
async fn cp6_a_deletion_at_the_version_of_what_is_deleted_is_told() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let source = Fake::new("a");
    let object = source.put(&name("x", "o"), "1");
    source.put(&name("x", "p"), "1");
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    drop(following);
    let known = versions(&pods, &[&source]).await;
    pods.delete(&source, &object.name, &object.origin).await.unwrap();
    let mut events = pods.watch(&Scope::all(), Some(&known), numbers).await.unwrap();
    assert_eq!(told(&mut events).await, "a x/o gone");
    cluster.stop().await;
}
