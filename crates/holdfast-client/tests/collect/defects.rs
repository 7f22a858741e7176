//! What Clusterpedia's memory storage, version 2, got wrong when this was written: each is a test here.

use super::*;

/// Its `NewResourceStorage` gives nothing, without an error. Here what is opened can be used, also when it is new.
#[tokio::test(flavor = "multi_thread")]
async fn defect_new_resource_storage_gives_nothing() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    assert!(pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap().objects.is_empty());
    let a = SourceId::new("a").unwrap();
    assert_eq!(pods.get(&a, &name("x", "o"), ReadLevel::Linearizable).await.unwrap(), None);
    assert_eq!(pods.origin(&a).await.unwrap(), None);
    cluster.stop().await;
}

/// Its `Create`, `Update` and `Delete` hand on the store instead of the element. Here the object that was given is the one
/// that is stored and told; and its `Delete` tells that the object was added: here it is told to be deleted.
#[tokio::test(flavor = "multi_thread")]
async fn defect_another_object_is_stored_and_a_deletion_is_told_as_added() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let (source, key) = (Fake::new("a"), name("x", "o"));
    let mut events = watch(&pods, &Scope::all(), None).await;
    for bytes in ["created", "updated"] {
        let object = source.put(&key, bytes);
        pods.write(&source, &object).await.unwrap();
        let CollectEvent::Put(found) = next(&mut events).await else { panic!("it was put") };
        assert_eq!((&found.name, &found.version.origin, &found.bytes), (&key, &object.origin, &object.bytes));
        let read = pods.get(source.id(), &key, ReadLevel::Linearizable).await.unwrap();
        assert_eq!(read, Some(found));
    }
    let last = pods.get(source.id(), &key, ReadLevel::Linearizable).await.unwrap().unwrap().version.origin;
    pods.delete(&source, &key, &source.delete(&key)).await.unwrap();
    match next(&mut events).await {
        CollectEvent::Deleted { source, name, origin, version } => {
            assert_eq!((source.as_str(), &name, origin), ("a", &key, Some(last)));
            assert!(version.revision > 0);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pods.get(source.id(), &key, ReadLevel::Linearizable).await.unwrap(), None);
    cluster.stop().await;
}

/// CP2: it never sets the revision of its index, so that lists have version 0. Here a list has the revision that it
/// shows, not that of its newest object, also when it is empty.
#[tokio::test(flavor = "multi_thread")]
async fn defect_cp2_lists_have_version_zero() {
    let cluster = TestCluster::single().await.unwrap();
    let client = Client::new(cluster.endpoints()).unwrap();
    let pods = pods(client.clone()).await;
    let source = Fake::new("a");
    let empty = pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    assert!(empty.objects.is_empty() && empty.version.revision > 0);
    pods.write(&source, &source.put(&name("x", "o"), "1")).await.unwrap();
    let later = client.put("elsewhere", "1").await.unwrap();
    let listed = pods.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    assert_eq!(listed.version.revision, later);
    assert!(listed.objects[0].version.revision < later);
    let text = listed.version.to_string();
    assert_eq!((text.split('.').count(), text.parse()), (2, Ok(listed.version)));
    cluster.stop().await;
}

/// CP1, CP3: it counts versions outside of its lock, so that its cache can be out of order. Here of many writers at once
/// each has a version of its own, and a watch tells them in order.
#[tokio::test(flavor = "multi_thread")]
async fn defect_cp3_versions_are_out_of_order() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let mut events = watch(&pods, &Scope::all(), None).await;
    let writes = (0..40).map(|n| {
        let (pods, source) = (pods.clone(), Fake::new(&format!("s{}", n % 4)));
        async move {
            let object = source.put(&name("x", &n.to_string()), "1");
            match pods.write(&source, &object).await.unwrap() {
                Written::Applied(version) => version.revision,
                other => panic!("{other:?}"),
            }
        }
    });
    let versions: BTreeSet<_> = futures::future::join_all(writes).await.into_iter().collect();
    assert_eq!(versions.len(), 40, "each has its own");
    let mut told = Vec::new();
    while told.len() < 40 {
        let CollectEvent::Put(found) = next(&mut events).await else { panic!("it was put") };
        told.push(found.version.revision);
    }
    assert_eq!(told, versions.into_iter().collect::<Vec<_>>(), "in order, none missing");
    cluster.stop().await;
}

/// CP12: its wait for a fresh state gives up after 3 s without an error, and old state is read. Here who asks for more
/// than there is gets an error.
#[tokio::test(flavor = "multi_thread")]
async fn defect_cp12_a_wait_that_is_over_reads_old_state() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let ahead = ReadLevel::AtLeast(1_000_000);
    let error = pods.list(&Scope::all(), ahead).await.unwrap_err();
    let is_future = |error: &CollectError| {
        matches!(error, CollectError::Cluster(holdfast_client::Error::FutureRevision { .. }))
    };
    assert!(is_future(&error), "{error}");
    let a = SourceId::new("a").unwrap();
    assert!(is_future(&pods.get(&a, &name("x", "o"), ahead).await.unwrap_err()));
    cluster.stop().await;
}

/// Its watches ignore what was selected. Here a watch tells of its scope, and of nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn defect_cp13_watches_ignore_what_was_selected() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let (a, b) = (Fake::new("a"), Fake::new("b"));
    let scope = Scope::all().source(a.id().clone()).namespace("x");
    let mut events = watch(&pods, &scope, None).await;
    for (source, namespace, object) in
        [(&b, "x", "1"), (&a, "y", "1"), (&a, "x", "1"), (&b, "x", "2"), (&a, "x", "2")]
    {
        pods.write(source, &source.put(&name(namespace, object), "1")).await.unwrap();
    }
    for expected in ["a x/1 102", "a x/2 103"] {
        assert_eq!(told(&mut events).await, expected);
    }
    cluster.stop().await;
}

/// CP5: its prefix is random in each process, so that a restart ends all versions that clients have. Here it is the
/// cluster's: another process has the same.
#[tokio::test(flavor = "multi_thread")]
async fn defect_cp5_a_restart_ends_all_versions() {
    let mut cluster = TestCluster::single().await.unwrap();
    let first = pods_of(&cluster).await;
    let source = Fake::new("a");
    let listed = first.list(&Scope::all(), ReadLevel::Linearizable).await.unwrap();
    first.write(&source, &source.put(&name("x", "o"), "1")).await.unwrap();
    drop(first);
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    let second = pods_of(&cluster).await;
    let mut events = watch(&second, &Scope::all(), Some(listed.version)).await;
    assert_eq!(told(&mut events).await, "a x/o 101");
    cluster.stop().await;
}

/// CP14: its `CleanCluster` does nothing. Here nothing of a removed source is left, and it can be collected anew.
#[tokio::test(flavor = "multi_thread")]
async fn defect_cp14_a_removed_source_stays() {
    let cluster = TestCluster::single().await.unwrap();
    let pods = pods_of(&cluster).await;
    let source = Fake::new("a");
    source.put(&name("x", "o"), "1");
    let following = follow(&pods, &source);
    collected(&pods, &source).await;
    drop(following);
    pods.remove_source(source.id(), Removal::Each).await.unwrap();
    assert!(stored(&pods, &source).await.is_empty());
    assert_eq!(pods.origin(source.id()).await.unwrap(), None);
    let _following = follow(&pods, &source);
    collected(&pods, &source).await;
    assert_same(&pods, &source).await;
    cluster.stop().await;
}
