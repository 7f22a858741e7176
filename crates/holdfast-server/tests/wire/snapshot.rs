//! Maintenance.Snapshot: a database with everything in it, sent as etcd sends its own, and no file stays behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Disk, RealDisk};
use holdfast_proto::etcdserverpb as pb;
use holdfast_server::backup::file::{Checksum, Database, FileError};
use holdfast_server::backup::look;
use holdfast_testserver::TestCluster;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::common::*;

const PATIENCE: Duration = Duration::from_secs(20);

const TOO_MANY: &str = "etcdserver: too many snapshots at a time on this member (--max-snapshot-streams)";

async fn snapshot(url: &str) -> Result<Streaming<pb::SnapshotResponse>, tonic::Status> {
    let mut maintenance: MaintenanceClient<Channel> = MaintenanceClient::new(channel(url));
    Ok(maintenance.snapshot(pb::SnapshotRequest {}).await?.into_inner())
}

async fn all(mut stream: Streaming<pb::SnapshotResponse>) -> Vec<pb::SnapshotResponse> {
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        messages.push(message);
    }
    messages
}

/// The file that a client makes of the messages.
fn written(dir: &TempDir, messages: &[pb::SnapshotResponse]) -> PathBuf {
    let path = dir.path().join("backup.db");
    let content: Vec<u8> = messages.iter().flat_map(|message| message.blob.iter().copied()).collect();
    std::fs::write(&path, content).unwrap();
    path
}

fn open(path: &Path) -> Result<Database, FileError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Database::open(&disk, path, Checksum::Required)
}

/// Nothing is left of streams that have ended.
async fn until_empty(dir: &Path) {
    let empty = async {
        while RealDisk.exists(dir).unwrap() && !RealDisk.read_dir(dir).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, empty).await;
    assert!(ended.is_ok(), "{:?}", RealDisk.read_dir(dir));
}

// covers: Maintenance.Snapshot SnapshotResponse.header SnapshotResponse.remaining_bytes SnapshotResponse.blob
// covers: Maintenance.Snapshot SnapshotResponse.version
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_a_database_with_everything_in_it() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    let mut leases = LeaseClient::new(channel(&url));
    for (id, ttl) in [(7, 500), (-3, 600)] {
        leases.lease_grant(pb::LeaseGrantRequest { ttl, id }).await.unwrap();
    }
    for n in 0..300 {
        put(&mut kv, &format!("k{:03}", n % 200), &"v".repeat(n * 20)).await;
    }
    kv.put(pb::PutRequest { lease: -3, ..put_request("leased", "x") }).await.unwrap();
    kv.delete_range(delete_request("k001", "")).await.unwrap();
    kv.compact(pb::CompactionRequest { revision: 100, physical: false }).await.unwrap();
    kv.txn(txn(vec![op_put("t1", "1"), op_put("t2", "2"), op_delete("k002", "")])).await.unwrap();
    let last = put(&mut kv, "last", "1").await;

    let messages = all(snapshot(&url).await.unwrap()).await;
    let (sum, data) = messages.split_last().unwrap();
    let bytes: u64 = data.iter().map(|message| message.blob.len() as u64).sum();
    let mut left = bytes;
    let mut sha = Sha256::new();
    for message in data {
        left -= message.blob.len() as u64;
        assert_eq!((message.remaining_bytes, &message.header, &*message.version), (left, &None, "3.5.0"));
        assert!(!message.blob.is_empty() && message.blob.len() <= 32 * 1024);
        sha.update(&message.blob);
    }
    assert_eq!((left, sum.remaining_bytes, &sum.blob[..]), (0, 0, &sha.finalize()[..]));

    let dir = TempDir::new().unwrap();
    let path = written(&dir, &messages);
    let database = open(&path).unwrap();
    let contents = look::contents(&database).unwrap();
    let pairs = |name: &str| contents.buckets.iter().find(|bucket| bucket.name == name).unwrap().pairs;
    // Up to the compact revision one record per key; behind it all of them.
    let last = u64::try_from(last).unwrap();
    assert_eq!((contents.compact_revision, contents.compacted_through), (Some(100), Some(100)));
    assert_eq!((contents.first_revision, contents.last_revision, contents.deletes), (2, last, 2));
    assert_eq!(pairs("key"), 300 + 1 + 1 + 3 + 1);
    assert_eq!((contents.leases, contents.leased_records, pairs("lease")), (2, 1, 2));
    let [member] = &contents.members[..] else { panic!("{:?}", contents.members) };
    assert_eq!((member.id, &*member.name), (cluster.member_id(0), "n0"));
    assert_eq!(
        (pairs("alarm"), pairs("authUsers"), pairs("authRoles"), contents.auth_enabled),
        (0, 0, 0, false)
    );
    let status = look::status(&database).unwrap();
    assert_eq!((status.revision, status.bytes), (last, bytes));
    assert_eq!(status.pairs, contents.buckets.iter().map(|bucket| bucket.pairs).sum::<u64>());

    // A changed byte, or a missing one, is no backup.
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[5000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert!(matches!(open(&path), Err(FileError::WrongChecksum { .. })));
    std::fs::write(&path, &damaged[1..]).unwrap();
    assert!(matches!(open(&path), Err(FileError::NoChecksum { .. })));
    until_empty(&cluster.data_dir(0).join("backup")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_more_than_may_be_is_refused_and_who_goes_away_leaves_nothing() {
    let mut cluster = TestCluster::start(1, &["--max-snapshot-streams=1"]).await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    for n in 0..40 {
        put(&mut kv, &format!("k{n}"), &"v".repeat(100_000)).await;
    }
    let mut first = snapshot(&url).await.unwrap();
    first.message().await.unwrap().unwrap();
    assert_eq!(refusal(snapshot(&url).await), refused(Code::ResourceExhausted, TOO_MANY));
    // Writes go on while a client does not read.
    put(&mut kv, "k", "v").await;
    let dir = cluster.data_dir(0).join("backup");
    assert_eq!(RealDisk.read_dir(&dir).unwrap().len(), 1);
    drop(first);
    let second = async {
        loop {
            if let Ok(stream) = snapshot(&url).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let second = tokio::time::timeout(PATIENCE, second).await.expect("the place is free again");
    assert!(all(second).await.len() > 100);
    until_empty(&dir).await;
    // What a process leaves behind that was killed is gone with the next start.
    cluster.stop_member(0).await;
    std::fs::write(dir.join("snapshot-0.tmp"), "left").unwrap();
    cluster.start_member(0).await.unwrap();
    until_empty(&dir).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    for n in 0..40 {
        put(&mut kv, &format!("k{n}"), &"v".repeat(100_000)).await;
    }
    let dir = cluster.data_dir(0).join("backup");
    let mut stream = snapshot(&url).await.unwrap();
    stream.message().await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(10), cluster.stop()).await.expect("the stop does not wait");
    assert!(!RealDisk.exists(&dir).unwrap(), "the test's directory is gone, and nothing was made anew");
}
