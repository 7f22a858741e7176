//! A disk that fills up under a running member: writes are refused with etcd's NOSPACE, reads go on, nothing that was
//! acknowledged is lost, also over SIGKILL, and writes come back by themselves once there is space.
#![expect(clippy::unwrap_used, reason = "in a test a failure to set the scene is a panic")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_tests::client::{Client, Outcome, TIMEOUT};
use cluster_tests::harness::cluster::{Cluster, System};
use cluster_tests::harness::disk::SmallDisk;
use cluster_tests::skip::skipped;

const PATIENCE: Duration = Duration::from_secs(30);

/// Puts new keys until one is not acknowledged; records those that were.
async fn put_until_refused(client: &Client, acked: &mut BTreeMap<Bytes, i64>) -> Outcome {
    for _ in 0..10_000 {
        let key = Bytes::from(format!("k{:06}", acked.len()));
        match client.put(0, key.clone(), Bytes::from(vec![b'v'; 16 * 1024]), TIMEOUT).await {
            Outcome::Acked(revision) => drop(acked.insert(key, revision)),
            other => return other,
        }
    }
    panic!("a full disk took 10,000 puts of 16 KiB");
}

async fn assert_all_there(client: &Client, acked: &BTreeMap<Bytes, i64>) {
    for (key, revision) in acked {
        let found = client.past(0, key, 0).await.unwrap().expect("an acknowledged key is there");
        assert_eq!(found.mod_revision, *revision);
    }
}

async fn wait_for_a_write(client: &Client) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = client.put(0, Bytes::from_static(b"again"), Bytes::from_static(b"v"), TIMEOUT).await;
        if matches!(outcome, Outcome::Acked(_)) {
            return;
        }
        assert!(Instant::now() < deadline, "there is space again, and a write comes to {outcome:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A member on a small disk of its own, and the keys it has acknowledged.
struct Scene {
    cluster: Cluster,
    client: Client,
    disk: SmallDisk,
    acked: BTreeMap<Bytes, i64>,
}

/// A member with one key on a disk that is now full; `None`, said aloud, where no disk can be mounted.
async fn full_disk(engine: &str) -> Option<Scene> {
    let flags =
        ["--segment-bytes=4MiB", "--dump-log-bytes=1GiB", &format!("--engine={engine}")].map(str::to_owned);
    let mut cluster = Cluster::prepare(System::holdfast(&flags).expect("a binary to test"), 1).unwrap();
    let disk = match SmallDisk::mount(64, cluster.path(), &cluster.path().join("mount.log")) {
        Ok(disk) => disk,
        Err(why) => {
            skipped("a disk that fills up", &format!("{why:#}"));
            return None;
        }
    };
    cluster.set_wrapper(0, disk.wrapper());
    cluster.spawn(0).unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = Client::new(&cluster.endpoints()).unwrap();
    let key = Bytes::from_static(b"k000000");
    let Outcome::Acked(revision) = client.put(0, key.clone(), key.clone(), TIMEOUT).await else {
        panic!("an empty disk takes a write")
    };
    disk.fill().unwrap();
    Some(Scene { cluster, client, disk, acked: BTreeMap::from([(key, revision)]) })
}

/// With the memory engine the log alone needs the disk: the member lives through it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let Some(Scene { mut cluster, client, disk, mut acked }) = full_disk("memory").await else { return };
    let refusal = put_until_refused(&client, &mut acked).await;
    let said =
        format!("{refusal:?}; the member said:\n{}", cluster.member(0).process().unwrap().log_tail(10));
    assert!(said.contains("ResourceExhausted: etcdserver: mvcc: database space exceeded"), "{said}");
    assert_all_there(&client, &acked).await;

    cluster.kill(0).unwrap();
    cluster.spawn(0).unwrap();
    cluster.wait_ready(PATIENCE).await.expect("a member starts on a full disk, for its reads");
    assert_all_there(&client, &acked).await;

    disk.free().unwrap();
    wait_for_a_write(&client).await;
    assert_all_there(&client, &acked).await;
}

/// The other engines need the disk too, and may not serve until they are started again: then a message says where and what
/// to do.
/// In any case nothing that was acknowledged is lost once there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_with_any_engine() {
    for engine in ["sled", "redb"] {
        let Some(Scene { mut cluster, client, disk, mut acked }) = full_disk(engine).await else { return };
        let refusal = put_until_refused(&client, &mut acked).await;
        if client.revision(0, TIMEOUT).await.is_err() {
            let place = cluster.path().display().to_string();
            let said = cluster.member(0).process().unwrap().log_tail(20);
            let advises = |line: &str| line.contains(&place) && line.contains("free space");
            assert!(said.lines().any(advises), "{engine}, {refusal:?}: {said}");
        }
        cluster.kill(0).unwrap();
        disk.free().unwrap();
        cluster.spawn(0).unwrap();
        cluster.wait_ready(PATIENCE).await.expect("there is space again");
        assert_all_there(&client, &acked).await;
        wait_for_a_write(&client).await;
    }
}
