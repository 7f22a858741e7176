//! The way to etcd and back: what holdfast saves is a database that etcd's own tools accept and restore, and what etcd
//! saves becomes a holdfast cluster; with the same keys, revisions, history and leases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::conformance::etcdctl::version;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::{Cluster, System};
use cluster_tests::skip::skipped;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::lease_client::LeaseClient;
use holdfast_proto::etcdserverpb::*;
use holdfast_proto::mvccpb::KeyValue;
use tokio::sync::Mutex;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const READY: Duration = Duration::from_secs(30);

/// Compacted while the state is made, with changes before and behind it.
const COMPACTED: i64 = 120;
const LEASES: [i64; 2] = [77, 1 << 40];

fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).expect("a URL").timeout(Duration::from_secs(20)).connect_lazy()
}

fn put(key: &str, value: &str, lease: i64) -> PutRequest {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    PutRequest { key, value, lease, ..PutRequest::default() }
}

/// A state with history: keys put again, deleted, made anew, attached, of several lengths, and a compaction.
async fn fill(url: &str) -> Result<()> {
    let mut kv = KvClient::new(channel(url));
    let mut leases = LeaseClient::new(channel(url));
    for id in LEASES {
        leases.lease_grant(LeaseGrantRequest { ttl: 900, id }).await?;
    }
    for n in 0..200_usize {
        kv.put(put(&format!("k{:02}", n % 70), &format!("{n}-{}", "x".repeat(n * n % 5000)), 0)).await?;
        if n % 9 == 0 {
            let key = Bytes::from(format!("k{:02}", n % 35));
            kv.delete_range(DeleteRangeRequest { key, ..DeleteRangeRequest::default() }).await?;
        }
    }
    kv.compact(CompactionRequest { revision: COMPACTED, physical: true }).await?;
    for (n, id) in LEASES.iter().cycle().take(5).enumerate() {
        kv.put(put(&format!("leased{n}"), "l", *id)).await?;
    }
    kv.put(put("leased0", "free again", 0)).await?;
    let op = |key: &str| RequestOp { request: Some(request_op::Request::RequestPut(put(key, "t", 0))) };
    let txn = TxnRequest { success: vec![op("a"), op("b"), op("c")], ..TxnRequest::default() };
    kv.txn(txn).await?;
    Ok(())
}

/// What a client can see of a state.
#[derive(Debug, PartialEq)]
struct Seen {
    revision: i64,
    /// All keys, at some revisions from the compacted one on.
    at: BTreeMap<i64, Vec<KeyValue>>,
    /// The granted time of each lease, and its keys.
    leases: BTreeMap<i64, (i64, Vec<Bytes>)>,
    /// Below the compacted revision.
    refused: (Code, String),
}

async fn see(url: &str) -> Result<Seen> {
    let mut kv = KvClient::new(channel(url)).max_decoding_message_size(64 << 20);
    let all = |revision| RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..RangeRequest::default()
    };
    let newest = kv.range(all(0)).await?.into_inner();
    let revision = newest.header.context("a header")?.revision;
    let mut at = BTreeMap::from([(0, newest.kvs)]);
    for wanted in (COMPACTED..=revision).step_by(7) {
        at.insert(wanted, kv.range(all(wanted)).await?.into_inner().kvs);
    }
    let mut client = LeaseClient::new(channel(url));
    let mut leases = BTreeMap::new();
    for lease in client.lease_leases(LeaseLeasesRequest {}).await?.into_inner().leases {
        let request = LeaseTimeToLiveRequest { id: lease.id, keys: true };
        let mut told = client.lease_time_to_live(request).await?.into_inner();
        // etcd's come out of a map.
        told.keys.sort();
        leases.insert(lease.id, (told.granted_ttl, told.keys));
    }
    let refused = kv.range(all(COMPACTED - 1)).await.expect_err("compacted");
    Ok(Seen { revision, at, leases, refused: (refused.code(), refused.message().to_owned()) })
}

/// Runs a program to its end; its standard output.
fn run(program: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program).env("ETCDCTL_API", "3").args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{} {args:?}: {said}", program.display());
    Ok(String::from_utf8(output.stdout)?)
}

fn bare(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, bare)| bare)
}

/// The last value behind each of these flags on the command line that starts a member, with the flags.
fn flags_of(cluster: &Cluster, index: usize, wanted: &[&str]) -> Vec<String> {
    let command = cluster.command(index);
    let args: Vec<String> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let value = |flag: &&str| {
        let at = args.iter().rposition(|arg| arg == *flag).expect("the member has the flag");
        [(*flag).to_owned(), args[at + 1].clone()]
    };
    wanted.iter().flat_map(value).collect()
}

const MEMBER_FLAGS: [&str; 5] =
    ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls", "--initial-cluster-token"];

/// Restores a file into all members of a cluster that was never started, with `snapshot restore` of a program that takes
/// etcdctl's flags, and starts it.
async fn restored(
    program: &Path,
    file: &Path,
    system: System,
    size: usize,
    extra: &[&str],
) -> Result<Cluster> {
    let mut cluster = Cluster::prepare(system, size)?;
    for index in 0..size {
        let flags = flags_of(&cluster, index, &MEMBER_FLAGS);
        let mut args = vec!["snapshot", "restore", file.to_str().context("a path")?];
        args.extend(flags.iter().map(String::as_str));
        args.extend(extra);
        run(program, &args)?;
        cluster.spawn(index)?;
    }
    cluster.wait_ready(READY).await?;
    Ok(cluster)
}

/// What the tests need beside holdfast, or what is missing.
struct Tools {
    etcd: PathBuf,
    etcdctl_3_5: PathBuf,
    holdfastctl: PathBuf,
}

fn tools(what: &str) -> Option<Tools> {
    let found = binary::etcd().zip(binary::etcdctl());
    let Some((etcd, etcdctl_3_5)) = found else {
        skipped(what, "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN and ETCDCTL_BIN");
        return None;
    };
    Some(Tools { etcd, etcdctl_3_5, holdfastctl: binary::holdfastctl().expect("holdfastctl is built") })
}

/// Both etcdctls, as far as they are there.
fn etcdctls(tools: &Tools) -> Vec<PathBuf> {
    let installed = PathBuf::from("/usr/bin/etcdctl");
    let mut all = vec![tools.etcdctl_3_5.clone()];
    match version(&installed) {
        Ok(found) if found.starts_with("3.4") => all.push(installed),
        _ => skipped("snapshots with etcdctl 3.4", "it is not installed (package etcd-client)"),
    }
    all
}

/// All that the tools say of a file, which must be the same.
fn statuses(tools: &Tools, file: &str) -> Vec<String> {
    let mut said = Vec::new();
    for form in ["simple", "table", "json"] {
        let args = ["snapshot", "status", file, "-w", form];
        let ours = run(&tools.holdfastctl, &args).expect("ours");
        let of_3_5 = run(&tools.etcdctl_3_5, &args).expect("etcdctl 3.5");
        // It says that it is deprecated on its standard output, too.
        assert!(of_3_5.ends_with(&ours), "{form} of {file}: {of_3_5:?} and {ours:?}");
        said.push(ours);
    }
    said
}

#[tokio::test]
async fn what_holdfast_saves_is_a_database_for_etcd() {
    let Some(tools) = tools("snapshots of holdfast in etcd") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (_cluster, url, seen) = filled().await;
    let endpoint = format!("--endpoints={}", bare(&url));
    let mut statements = Vec::new();
    let savers = etcdctls(&tools).into_iter().chain([tools.holdfastctl.clone()]);
    for (number, saver) in savers.enumerate() {
        let file = dir.path().join(format!("{number}.db"));
        let file = file.to_str().expect("a path");
        run(&saver, &[&endpoint, "snapshot", "save", file]).expect("it saves");
        statements.push(statuses(&tools, file));
    }
    assert!(statements.windows(2).all(|pair| pair[0] == pair[1]), "nothing was written: {statements:?}");

    let file = dir.path().join("0.db");
    for etcdctl in etcdctls(&tools) {
        let system = System::etcd(tools.etcd.clone(), &[]);
        let etcd = restored(&etcdctl, &file, system, 1, &[]).await.expect("etcd restores and starts");
        let url = etcd.endpoints().remove(0);
        assert_eq!(see(&url).await.expect("reads"), seen, "restored by {}", etcdctl.display());
        let mut kv = KvClient::new(channel(&url));
        let answer = kv.put(put("new", "1", 0)).await.expect("a write").into_inner();
        assert_eq!(answer.header.expect("a header").revision, seen.revision + 1);
    }
}

#[tokio::test]
async fn what_etcd_saves_becomes_a_holdfast_cluster() {
    let Some(tools) = tools("snapshots of etcd in holdfast") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let dir = tempfile::tempdir().expect("a directory");
    let etcd = Cluster::start(System::etcd(tools.etcd.clone(), &[]), 1).await.expect("etcd");
    let url = etcd.endpoints().remove(0);
    fill(&url).await.expect("writes");
    let seen = see(&url).await.expect("reads");
    let endpoint = format!("--endpoints={}", bare(&url));
    let file = dir.path().join("etcd.db");
    // Ours can save from etcd, too.
    run(&tools.holdfastctl, &[&endpoint, "snapshot", "save", file.to_str().expect("a path")])
        .expect("it saves");
    statuses(&tools, file.to_str().expect("a path"));
    drop(etcd);
    for size in [1, 3] {
        let mut cluster = holdfast_from(&tools, &file, size, &[]).await;
        for url in cluster.endpoints() {
            assert_eq!(see(&url).await.expect("reads"), seen, "{size} members");
        }
        let mut kv = KvClient::new(channel(&cluster.endpoints()[0]));
        let answer = kv.put(put("new", "1", 0)).await.expect("a write").into_inner();
        assert_eq!(answer.header.expect("a header").revision, seen.revision + 1);
        // And once more from what it has on disk by now.
        cluster.kill_all().expect("they run");
        for index in 0..size {
            cluster.spawn(index).expect("it starts again");
        }
        cluster.wait_ready(READY).await.expect("they serve again");
        let again = see(&cluster.endpoints()[0]).await.expect("reads");
        assert_eq!((again.revision, &again.leases), (seen.revision + 1, &seen.leases));
        let mut leases = LeaseClient::new(channel(&cluster.endpoints()[0]));
        leases.lease_revoke(LeaseRevokeRequest { id: LEASES[0] }).await.expect("a lease that can be revoked");
        assert_eq!(see(&cluster.endpoints()[0]).await.expect("reads").revision, seen.revision + 2);
    }
}

async fn holdfast_from(tools: &Tools, file: &Path, size: usize, extra: &[&str]) -> Cluster {
    let system = System::holdfast(&[]).expect("holdfast is built");
    restored(&tools.holdfastctl, file, system, size, extra).await.expect("holdfast restores and starts")
}

/// One member of ours with something of everything in it, its URL, and what is seen there.
async fn filled() -> (Cluster, String, Seen) {
    let system = System::holdfast(&[]).expect("holdfast is built");
    let cluster = Cluster::start(system, 1).await.expect("holdfast");
    let url = cluster.endpoints().remove(0);
    fill(&url).await.expect("writes");
    let seen = see(&url).await.expect("reads");
    (cluster, url, seen)
}

/// Needs no etcd: a backup of ours, and a raised revision.
#[tokio::test]
async fn a_raised_revision_is_above_all_that_was_seen() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (cluster, url, seen) = filled().await;
    let file = dir.path().join("backup.db");
    let path = file.to_str().expect("a path");
    let holdfastctl = binary::holdfastctl().expect("holdfastctl is built");
    run(&holdfastctl, &["--endpoints", bare(&url), "snapshot", "save", path]).expect("it saves");
    drop(cluster);
    let system = System::holdfast(&[]).expect("holdfast is built");
    let raised =
        restored(&holdfastctl, &file, system, 1, &["--bump-revision", "1000000", "--mark-compacted"]);
    let raised = raised.await.expect("it restores and starts");
    let mut kv = KvClient::new(channel(&raised.endpoints()[0])).max_decoding_message_size(64 << 20);
    let all = |revision| RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        revision,
        ..RangeRequest::default()
    };
    let newest = kv.range(all(0)).await.expect("a read").into_inner();
    assert_eq!(newest.header.expect("a header").revision, seen.revision + 1_000_000);
    assert_eq!(newest.kvs, seen.at[&0]);
    let old = kv.range(all(seen.revision)).await.expect_err("it is marked as compacted");
    assert_eq!((old.code(), old.message()), (seen.refused.0, &*seen.refused.1));
    let answer = kv.put(put("new", "1", 0)).await.expect("a write").into_inner();
    assert_eq!(answer.header.expect("a header").revision, seen.revision + 1_000_001);
}
