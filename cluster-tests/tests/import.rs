//! `holdfastctl import`: a live cluster moves to holdfast while clients go on writing; after the switch nothing is missing,
//! and who resumes at a revision of the source is told to begin anew.
//!
//! `HOLDFAST_IMPORT_KEYS` and `HOLDFAST_IMPORT_RATE` (writes in a second) make the first test as large as a measurement:
//!
//! ```sh
//! HOLDFAST_IMPORT_KEYS=200000 HOLDFAST_IMPORT_RATE=500 \
//!   cargo test --release --workspace --test import a_live_etcd -- --nocapture
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::{Cluster, System};
use cluster_tests::harness::process::Process;
use cluster_tests::skip::skipped;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::lease_client::LeaseClient;
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Longer than anything takes on a busy machine, the measurement left out.
const PATIENCE: Duration = Duration::from_secs(120);

/// Accounts, each with so much at the beginning: transfers never change the sum.
const ACCOUNTS: usize = 20;
const BALANCE: i64 = 100;

/// A lease that is kept alive, and is shorter than the longest pause between two imports.
const SHORT_LEASE: i64 = 77;
const SHORT_SECONDS: i64 = 3;
/// Leases that live long, and one that nobody keeps alive.
const LONG_LEASES: std::ops::Range<i64> = 1000..1020;
const ENDING_LEASE: i64 = 99;

fn channel(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).expect("a URL").timeout(Duration::from_secs(30)).connect_lazy()
}

fn kv(url: &str) -> KvClient<Channel> {
    KvClient::new(channel(url)).max_decoding_message_size(256 << 20)
}

fn put(key: String, value: String, lease: i64) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), lease, ..PutRequest::default() }
}

fn put_op(key: String, value: String, lease: i64) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestPut(put(key, value, lease))) }
}

fn range(key: &'static str, end: &'static str, revision: i64) -> RangeRequest {
    RangeRequest { key: key.into(), range_end: end.into(), revision, ..RangeRequest::default() }
}

/// Value and lease of each key.
type Contents = BTreeMap<Bytes, (Bytes, i64)>;

/// Everything but the import's own keys, page by page at one revision, which comes with it.
async fn contents(url: &str) -> Result<(i64, Contents)> {
    let (mut kv, mut all, mut revision) = (kv(url), Contents::new(), 0);
    let mut key = Bytes::from_static(b"\0");
    loop {
        let request = RangeRequest { key, limit: 5000, ..range("\0", "\0", revision) };
        let page = kv.range(request).await?.into_inner();
        if revision == 0 {
            revision = page.header.context("a header")?.revision;
        }
        let last = page.kvs.last().map(|kv| [&kv.key[..], b"\0"].concat());
        let kvs = page.kvs.into_iter().filter(|kv| !kv.key.starts_with(b"_holdfast/import/"));
        all.extend(kvs.map(|kv| (kv.key, (kv.value, kv.lease))));
        match last.filter(|_| page.more) {
            Some(next) => key = next.into(),
            None => return Ok((revision, all)),
        }
    }
}

/// Ids and granted times of all leases.
async fn leases(url: &str) -> Result<BTreeMap<i64, i64>> {
    let mut client = LeaseClient::new(channel(url));
    let mut all = BTreeMap::new();
    for lease in client.lease_leases(LeaseLeasesRequest {}).await?.into_inner().leases {
        let request = LeaseTimeToLiveRequest { id: lease.id, keys: false };
        let told = client.lease_time_to_live(request).await?.into_inner();
        if told.ttl >= 0 {
            all.insert(lease.id, told.granted_ttl);
        }
    }
    Ok(all)
}

async fn keep_alive(url: &str, id: i64) -> Result<i64> {
    let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
    let mut answers = LeaseClient::new(channel(url)).lease_keep_alive(requests).await?.into_inner();
    Ok(answers.message().await?.context("an answer")?.ttl)
}

/// The compact revision that a watch from a revision on is cancelled with; an error when it is not.
async fn cancelled_at(url: &str, start_revision: i64) -> Result<i64> {
    let create = WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([create]), tokio_stream::pending());
    let mut answers = WatchClient::new(channel(url)).watch(requests).await?.into_inner();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), answers.message()).await;
        let answer = next.context("it waits, and is told nothing")??.context("the stream ended")?;
        if answer.canceled {
            return Ok(answer.compact_revision);
        }
        ensure!(answer.events.is_empty(), "it is sent events: {:?}", answer.events[0]);
    }
}

/// Puts so many keys, a hundred at a time, and what the writers need.
async fn fill(url: &str, keys: u64) -> Result<()> {
    let mut client = LeaseClient::new(channel(url));
    for id in LONG_LEASES.chain([ENDING_LEASE]) {
        client.lease_grant(LeaseGrantRequest { ttl: 600, id }).await?;
    }
    let mut kv = kv(url);
    let key = |n: u64| match n % 50 {
        0 => put_op(format!("keys/{n:08}"), value(n), LONG_LEASES.start + i64::try_from(n % 20).unwrap_or(0)),
        _ => put_op(format!("keys/{n:08}"), value(n), 0),
    };
    for first in (0..keys).step_by(100) {
        let success = (first..keys.min(first + 100)).map(key).collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
    }
    let accounts = (0..ACCOUNTS).map(|n| put_op(account(n), BALANCE.to_string(), 0));
    let success = accounts.chain([
        put_op("ending/0".into(), "not for long".into(), ENDING_LEASE),
        put_op("large".into(), "x".repeat(1_400_000), 0),
    ]);
    kv.txn(TxnRequest { success: success.collect(), ..TxnRequest::default() }).await?;
    Ok(())
}

fn value(n: u64) -> String {
    format!("{n}:{}", "v".repeat(200 + usize::try_from(n % 100).unwrap_or(0)))
}

fn account(n: usize) -> String {
    format!("accounts/{n:02}")
}

/// Clients of the source that write until they are told to stop.
struct Writers {
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    /// The last revision that one of them was answered.
    seen: Arc<AtomicI64>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Writers {
    /// So many writes in a second, over these keys; and a lease that is kept alive.
    fn start(url: &str, keys: u64, rate: u64) -> Self {
        let mut writers =
            Self { stop: Arc::default(), writes: Arc::default(), seen: Arc::default(), tasks: Vec::new() };
        const TASKS: u64 = 4;
        for task in 0..TASKS {
            let (url, stop) = (url.to_owned(), Arc::clone(&writers.stop));
            let (writes, seen) = (Arc::clone(&writers.writes), Arc::clone(&writers.seen));
            writers.tasks.push(tokio::spawn(async move {
                let (mut kv, mut rng) = (kv(&url), StdRng::seed_from_u64(task));
                let mut ticks =
                    tokio::time::interval(Duration::from_secs_f64(TASKS as f64 / rate.max(1) as f64));
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let revision = write(&mut kv, &mut rng, keys).await?;
                    seen.fetch_max(revision, Ordering::Relaxed);
                    writes.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        let (url, stop) = (url.to_owned(), Arc::clone(&writers.stop));
        writers.tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if keep_alive(&url, SHORT_LEASE).await? <= 0 {
                    // There was none yet, or this machine was too busy.
                    let request = LeaseGrantRequest { ttl: SHORT_SECONDS, id: SHORT_LEASE };
                    LeaseClient::new(channel(&url)).lease_grant(request).await?;
                    kv(&url).put(put("short/0".into(), "kept alive".into(), SHORT_LEASE)).await?;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok(())
        }));
        writers
    }

    async fn stop(self) -> Result<(u64, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok((self.writes.load(Ordering::Relaxed), self.seen.load(Ordering::Relaxed)))
    }
}

/// One write of some kind; the revision that it was answered.
async fn write(kv: &mut KvClient<Channel>, rng: &mut StdRng, keys: u64) -> Result<i64> {
    let n = rng.random_range(0..keys);
    let key = format!("keys/{n:08}");
    let header = match rng.random_range(0..10) {
        0..5 => {
            kv.put(put(key, format!("{}:{}", rng.random::<u32>(), value(n)), 0)).await?.into_inner().header
        }
        5 => {
            kv.put(put(key, "leased".into(), LONG_LEASES.start + i64::try_from(n % 20)?))
                .await?
                .into_inner()
                .header
        }
        6 => {
            let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
            kv.delete_range(request).await?.into_inner().header
        }
        7 => {
            let new = format!("new/{:08}", rng.random_range(0..1_000_000));
            let delete = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
            let delete = RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) };
            let success = vec![delete, put_op(new, "n".into(), 0)];
            kv.txn(TxnRequest { success, ..TxnRequest::default() }).await?.into_inner().header
        }
        _ => return transfer(kv, rng).await,
    };
    Ok(header.context("a header")?.revision)
}

/// Moves something from one account to another, in one transaction.
async fn transfer(kv: &mut KvClient<Channel>, rng: &mut StdRng) -> Result<i64> {
    let from = rng.random_range(0..ACCOUNTS);
    let to = (from + rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
    let (mut compare, mut success) = (Vec::new(), Vec::new());
    for (name, change) in [(account(from), -1), (account(to), 1)] {
        let request = RangeRequest { key: name.clone().into(), ..RangeRequest::default() };
        let answer = kv.range(request).await?.into_inner();
        let found = answer.kvs.first().context("an account")?;
        let balance: i64 = std::str::from_utf8(&found.value)?.parse()?;
        compare.push(Compare {
            target: compare::CompareTarget::Mod.into(),
            key: name.clone().into(),
            target_union: Some(compare::TargetUnion::ModRevision(found.mod_revision)),
            ..Compare::default()
        });
        success.push(put_op(name, (balance + change).to_string(), 0));
    }
    let answer = kv.txn(TxnRequest { compare, success, ..TxnRequest::default() }).await?.into_inner();
    Ok(answer.header.context("a header")?.revision)
}

/// The sum of all accounts, in one read.
async fn sum(kv: &mut KvClient<Channel>) -> Result<i64> {
    let answer = kv.range(range("accounts/", "accounts0", 0)).await?.into_inner();
    ensure!(answer.kvs.len() == ACCOUNTS, "{} accounts", answer.kvs.len());
    answer.kvs.iter().map(|kv| Ok(std::str::from_utf8(&kv.value)?.parse::<i64>()?)).sum()
}

/// A running import.
struct Import {
    process: Process,
    peak_kib: u64,
}

impl Import {
    fn start(dir: &Path, name: &str, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary::holdfastctl()?);
        command.args(args).args(["--progress-interval", "0.2"]);
        Ok(Self { process: Process::spawn(command, &dir.join(name))?, peak_kib: 0 })
    }

    /// Waits until it has said something.
    async fn said(&mut self, text: &str, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !self.process.log_text().contains(text) {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended ({status}) without saying {text:?}:\n{}", self.process.log_tail(20));
            }
            ensure!(Instant::now() < deadline, "it does not say {text:?}:\n{}", self.process.log_tail(20));
            self.look();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits for its end; the exit code and all that it said.
    async fn end(&mut self, patience: Duration) -> Result<(Option<i32>, String)> {
        let deadline = Instant::now() + patience;
        loop {
            self.look();
            if let Some(status) = self.process.try_wait()? {
                return Ok((status.code(), self.process.log_text()));
            }
            ensure!(Instant::now() < deadline, "it does not end:\n{}", self.process.log_tail(20));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Notes the most memory of its own that it has had.
    fn look(&mut self) {
        self.peak_kib = self.peak_kib.max(self.process.memory_bytes("VmHWM").unwrap_or(0) >> 10);
    }
}

async fn compact(url: &str) -> Result<i64> {
    let (revision, _) = head(url).await?;
    match kv(url).compact(CompactionRequest { revision, physical: false }).await {
        // Nothing was written since the last time.
        Err(refused) if refused.message().contains("has been compacted") => Ok(revision),
        answer => answer.map(|_| revision).context("compacting"),
    }
}

/// Revision and number of keys.
async fn head(url: &str) -> Result<(i64, i64)> {
    let answer = kv(url).range(RangeRequest { count_only: true, ..range("\0", "\0", 0) }).await?.into_inner();
    Ok((answer.header.context("a header")?.revision, answer.count))
}

/// What differs, and how many.
fn differences(source: &Contents, target: &Contents) -> (usize, Vec<String>) {
    let keys: std::collections::BTreeSet<&Bytes> = source.keys().chain(target.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| source.get(*key) != target.get(*key))
        .map(|key| {
            format!("{key:?}: {:?} / {:?}", source.get(key).map(|kv| kv.1), target.get(key).map(|kv| kv.1))
        })
        .collect();
    (differing.len(), differing.into_iter().take(5).collect())
}

fn env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn one(system: System) -> (Cluster, String) {
    let cluster = Cluster::start(system, 1).await.expect("it starts");
    let url = cluster.endpoints().remove(0);
    (cluster, url)
}

fn ours() -> System {
    System::holdfast(&[]).expect("holdfast is built")
}

/// Two clusters of holdfast, and a directory for what imports from one into the other say.
struct Pair {
    from: String,
    to: String,
    dir: tempfile::TempDir,
    _clusters: [Cluster; 2],
}

impl Pair {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ((source, from), (target, to)) = tokio::join!(one(ours()), one(ours()));
        Self { from, to, dir, _clusters: [source, target] }
    }
}

async fn put_fifty(kv: &mut KvClient<Channel>, prefix: &str) {
    for n in 0..50 {
        kv.put(put(format!("{prefix}{n}"), "1".into(), 0)).await.expect("a write");
    }
}

/// The sum of the accounts on the target, again and again for a while.
async fn watch_the_sum(url: &str, duration: Duration) -> Result<u64> {
    let (mut kv, until, mut reads) = (kv(url), Instant::now() + duration, 0);
    while Instant::now() < until {
        let sum = sum(&mut kv).await?;
        ensure!(sum == BALANCE * i64::try_from(ACCOUNTS)?, "half of a transfer is seen: {sum}");
        reads += 1;
    }
    Ok(reads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_etcd_moves_with_its_writers() {
    let Some(etcd) = binary::etcd() else {
        return skipped(
            "the import of a live etcd",
            "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN",
        );
    };
    let _turn = ONE_AT_A_TIME.lock().await;
    let (keys, rate) = (env("HOLDFAST_IMPORT_KEYS", 3_000), env("HOLDFAST_IMPORT_RATE", 200));
    let patience = PATIENCE + Duration::from_millis(keys * 2);
    let dir = tempfile::tempdir().expect("a directory");
    let ((_etcd, from), (_holdfast, to)) = tokio::join!(one(System::etcd(etcd, &[])), one(ours()));
    fill(&from, keys).await.expect("the source is filled");
    let writers = Writers::start(&from, keys, rate);
    let args = ["--endpoints", &to, "import", "--from", &from];
    let import = |name: &str, more: &[&str]| {
        Import::start(dir.path(), name, &[&args[..], more].concat()).expect("it starts")
    };

    // Killed while it copies, and once more while it follows.
    let mut first = import("first", &[]);
    first.said("copying", patience).await.expect("it copies");
    first.process.kill().expect("it runs");
    let begun = Instant::now();
    let mut second = import("second", &[]);
    second.said("in step", patience).await.expect("it catches up");
    let copied = begun.elapsed();
    let mut client = LeaseClient::new(channel(&from));
    client.lease_revoke(LeaseRevokeRequest { id: ENDING_LEASE }).await.expect("it is revoked");
    let reads = watch_the_sum(&to, Duration::from_secs(2)).await.expect("transfers are whole");
    second.process.kill().expect("it runs");
    // It goes on where it was.
    let mut third = import("third", &[]);
    third.said("in step", patience).await.expect("it catches up");
    assert!(third.process.log_text().contains("going on behind"), "{}", third.process.log_text());
    // Compacted while it follows: nothing to it.
    compact(&from).await.expect("the source is compacted");
    watch_the_sum(&to, Duration::from_secs(1)).await.expect("transfers are whole");
    assert!(third.process.try_wait().expect("it is asked").is_none(), "{}", third.process.log_text());
    third.process.kill().expect("it runs");
    // Compacted while it is away: it compares everything.
    let seen = writers.seen.load(Ordering::Relaxed);
    while compact(&from).await.expect("the source is compacted") <= seen + 10 {}
    let mut fourth = import("fourth", &[]);
    fourth.said("everything is compared", patience).await.expect("it says so");
    fourth.said("in step", patience).await.expect("it catches up");
    fourth.process.kill().expect("it runs");
    // Away for so long that a lease ends on the target, with its keys.
    tokio::time::sleep(Duration::from_secs(3 + u64::try_from(SHORT_SECONDS).expect("seconds"))).await;
    let mut fifth = import("fifth", &[]);
    fifth.said("a lease may have ended", patience).await.expect("it says so");
    fifth.said("in step", patience).await.expect("it catches up");
    watch_the_sum(&to, Duration::from_secs(1)).await.expect("transfers are whole");

    // A switch with writers is refused; the second import takes over from the first.
    let (code, said) = import("busy", &["--finish"]).end(patience).await.expect("it ends");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("still takes writes"), "{said}");
    let (code, said) = fifth.end(patience).await.expect("it ends");
    assert!(code == Some(1) && said.contains("another import has taken over"), "{said}");

    let (writes, seen) = writers.stop().await.expect("all writes were answered");
    let begun = Instant::now();
    let mut last = import("last", &["--finish"]);
    let (code, said) = last.end(patience).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    let finished = begun.elapsed();

    judge(&from, &to, seen).await;
    let peak = [&second, &third, &fourth, &fifth, &last].iter().map(|import| import.peak_kib).max();
    println!(
        "{keys} keys, {writes} writes at {rate}/s: in step after {copied:.1?}, the switch took {finished:.1?}; most \
         memory of an import {} MiB; {reads} reads of the accounts; missing 0\n{said}",
        peak.unwrap_or(0) / 1024
    );
}

/// After the switch: contents and leases are equal, and revisions of the source are told to be compacted.
async fn judge(from: &str, to: &str, seen: i64) {
    let (_, mut source) = contents(from).await.expect("the source is read");
    let (revision, mut target) = contents(to).await.expect("the target is read");
    let (mut had, mut have) = (leases(from).await.expect("leases"), leases(to).await.expect("leases"));
    // Nobody keeps the short one alive any more.
    for all in [&mut source, &mut target] {
        all.remove(&Bytes::from_static(b"short/0"));
    }
    had.remove(&SHORT_LEASE);
    have.remove(&SHORT_LEASE);
    let (count, first) = differences(&source, &target);
    assert_eq!(count, 0, "{first:?}");
    assert!(had.iter().all(|(id, ttl)| have.get(id) == Some(ttl)), "{had:?} {have:?}");
    assert!(have.keys().all(|id| had.contains_key(id)) && !source.is_empty());
    assert!(keep_alive(to, LONG_LEASES.start).await.expect("an answer") > 0);
    assert!(revision > seen, "{revision} {seen}");
    for resumed in [1, 2, seen / 2, seen, seen + 1, seen + 100] {
        let compacted = cancelled_at(to, resumed).await.expect("it is cancelled");
        assert!(compacted > seen + 100, "{resumed}: {compacted}");
    }
    let refused = kv(to).range(range("\0", "\0", seen)).await.expect_err("it is compacted");
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
    // From there on it is an ordinary cluster.
    let header = kv(to).put(put("after".into(), "1".into(), 0)).await.expect("a write").into_inner().header;
    let written = header.expect("a header").revision;
    assert_eq!(contents(to).await.expect("the target is read").0, written);
}

/// The way with a snapshot: revisions are kept where nothing has changed since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_restored_from_a_snapshot_is_brought_up_to_date() {
    let Some(etcd) = binary::etcd() else {
        return skipped(
            "the import of a live etcd into what was restored",
            "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN",
        );
    };
    let _turn = ONE_AT_A_TIME.lock().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (_etcd, from) = one(System::etcd(etcd, &[])).await;
    fill(&from, 500).await.expect("the source is filled");
    let file = dir.path().join("etcd.db");
    let file = file.to_str().expect("a path");
    let run = |args: &[&str]| {
        let output = Command::new(binary::holdfastctl().expect("holdfastctl is built")).args(args).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["--endpoints", &from, "snapshot", "save", file]);
    let mut cluster = Cluster::prepare(ours(), 1).expect("a cluster");
    let flags: Vec<String> =
        cluster.command(0).get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let value = |flag: &str| flags[flags.iter().rposition(|arg| arg == flag).expect("the flag") + 1].clone();
    let mut args = vec!["snapshot".to_owned(), "restore".into(), file.to_owned()];
    for flag in [
        "--name",
        "--data-dir",
        "--initial-cluster",
        "--initial-advertise-peer-urls",
        "--initial-cluster-token",
    ] {
        args.extend([flag.to_owned(), value(flag)]);
    }
    args.extend(["--bump-revision=1000000000", "--mark-compacted"].map(str::to_owned));
    run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.spawn(0).expect("it starts");
    cluster.wait_ready(PATIENCE).await.expect("it serves");
    let to = cluster.endpoints().remove(0);

    let writers = Writers::start(&from, 500, 100);
    let args = ["--endpoints", &to, "import", "--from", &from];
    let mut import = Import::start(dir.path(), "refused", &args).expect("it starts");
    let (code, said) = import.end(PATIENCE).await.expect("it ends");
    assert!(code == Some(1) && said.contains("keys there that no import wrote"), "{said}");
    let mut import =
        Import::start(dir.path(), "import", &[&args[..], &["--overwrite"]].concat()).expect("it starts");
    import.said("in step", PATIENCE).await.expect("it catches up");
    let (_, seen) = writers.stop().await.expect("all writes were answered");
    let mut last =
        Import::start(dir.path(), "last", &[&args[..], &["--finish"]].concat()).expect("it starts");
    let (code, said) = last.end(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    let large = |url: String| async move { kv(&url).range(range("large", "", 0)).await };
    let (before, after) = tokio::join!(large(from.clone()), large(to.clone()));
    let (before, after) = (before.expect("a read").into_inner(), after.expect("a read").into_inner());
    assert_eq!(before.kvs, after.kvs, "nothing has touched it");
    judge(&from, &to, seen).await;
}

/// Needs no etcd: values and transactions as large as the source takes them, larger than the target does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_arrives() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let dir = tempfile::tempdir().expect("a directory");
    let generous = System::holdfast(&["--max-txn-ops=1000".to_owned()]).expect("holdfast is built");
    let ((_one, from), (_two, to)) = tokio::join!(one(generous), one(ours()));
    let args = ["--endpoints", &to, "import", "--from", &from];
    let mut source = kv(&from);
    largest(&mut source, "copied").await;
    let mut import = Import::start(dir.path(), "import", &args).expect("it starts");
    import.said("in step", PATIENCE).await.expect("it catches up");
    largest(&mut source, "followed").await;
    let success = (0..600).map(|n| put_op(format!("many/{n}"), "1".into(), 0)).collect();
    source.txn(TxnRequest { success, ..TxnRequest::default() }).await.expect("a transaction");
    let many = DeleteRangeRequest { key: "many/1".into(), range_end: "many/2".into(), prev_kv: false };
    source.delete_range(many).await.expect("a delete of 111 keys");
    for n in 0..5 {
        source.put(put(format!("large/{n}"), "x".repeat(700_000), 0)).await.expect("a write");
    }
    let (seen, _) = head(&from).await.expect("a read");
    import.said(&format!("following: revision {seen}"), PATIENCE).await.expect("it catches up");
    import.process.terminate(PATIENCE).expect("it ends");
    let mut last =
        Import::start(dir.path(), "last", &[&args[..], &["--finish"]].concat()).expect("it starts");
    let (code, said) = last.end(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    let (_, source) = contents(&from).await.expect("the source is read");
    let (_, target) = contents(&to).await.expect("the target is read");
    assert_eq!(differences(&source, &target), (0, Vec::new()));
    assert_eq!(source.len(), 2 + 600 - 111 + 5);
}

/// Puts the largest value that is taken.
async fn largest(kv: &mut KvClient<Channel>, key: &str) {
    for bytes in (1_572_000..1_572_864).rev().step_by(8) {
        match kv.put(put(key.into(), "x".repeat(bytes), 0)).await {
            Ok(_) => return,
            Err(refused) => assert_eq!(refused.message(), "etcdserver: request is too large"),
        }
    }
    panic!("none is taken");
}

/// Needs no etcd: members of the target that go away, and come back, while it is followed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_takes_the_place_of_one_that_goes_away() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (_one, from) = one(ours()).await;
    let mut three = Cluster::start(ours(), 3).await.expect("it starts");
    let endpoints = three.endpoints().join(",");
    let args = ["--endpoints", &endpoints, "import", "--from", &from];
    fill(&from, 500).await.expect("the source is filled");
    let writers = Writers::start(&from, 500, 100);
    let mut import = Import::start(dir.path(), "import", &args).expect("it starts");
    import.said("in step", PATIENCE).await.expect("it catches up");
    for member in 0..2 {
        three.kill(member).expect("it runs");
        tokio::time::sleep(Duration::from_secs(2)).await;
        three.spawn(member).expect("it starts again");
        three.wait_ready(PATIENCE).await.expect("all serve");
    }
    assert!(import.process.log_text().contains("trying again"), "{}", import.process.log_text());
    let (_, seen) = writers.stop().await.expect("all writes were answered");
    let mut last =
        Import::start(dir.path(), "last", &[&args[..], &["--finish"]].concat()).expect("it starts");
    let (code, said) = last.end(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    judge(&from, &three.endpoints()[2], seen).await;
}

/// Needs no etcd: from holdfast to holdfast, a prefix, and what is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_mix_or_lose_is_refused() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Pair { from, to, dir, _clusters } = Pair::start().await;
    let (mut source, mut target) = (kv(&from), kv(&to));
    put_fifty(&mut source, "a/").await;
    put_fifty(&mut source, "b/").await;
    target.put(put("a/stray".into(), "2".into(), 0)).await.expect("a write");
    target.put(put("c/other".into(), "2".into(), 0)).await.expect("a write");
    let mut number = 0;
    let mut run = async |args: &[&str]| {
        number += 1;
        let all = [&["--endpoints", &to, "import"], args].concat();
        let mut import = Import::start(dir.path(), &number.to_string(), &all).expect("it starts");
        import.end(PATIENCE).await.expect("it ends")
    };
    let from_prefix = ["--from", &from, "--prefix", "a/"];
    let with = |more: &[&'static str]| [&from_prefix[..], more].concat();

    let (code, said) = run(&["--from", &to]).await;
    assert!(code == Some(1) && said.contains("of the same cluster"), "{said}");
    let (code, said) = run(&["--from", "127.0.0.1:1"]).await;
    assert!(code == Some(2) && said.contains("the source at 127.0.0.1:1"), "{said}");
    let (code, said) = run(&with(&["--finish"])).await;
    assert!(code == Some(1) && said.contains("1 keys there that no import wrote"), "{said}");
    let (code, said) = run(&with(&["--finish", "--overwrite", "--raise-max", "10"])).await;
    assert!(code == Some(1) && said.contains("snapshot restore --bump-revision"), "{said}");

    // Stopped on the way: the position stays, and is of these keys.
    let args = with(&["--overwrite"]);
    let mut import =
        Import::start(dir.path(), "stopped", &[&["--endpoints", &to, "import"], &args[..]].concat())
            .expect("it starts");
    import.said("in step", PATIENCE).await.expect("it catches up");
    let status = import.process.terminate(PATIENCE).expect("it ends");
    assert!(status.code() == Some(130) && import.process.log_text().contains("run it again to go on"));
    let (code, said) = run(&["--from", &from, "--finish"]).await;
    assert!(code == Some(1) && said.contains("belongs to an import of a/"), "{said}");

    // Somebody writes to the target: the switch finds it, and the next run makes it good.
    target.put(put("a/1".into(), "wrong".into(), 0)).await.expect("a write");
    let (code, said) = run(&with(&["--finish"])).await;
    assert!(code == Some(1) && said.contains("a/1: another value on the target"), "{said}");
    let (code, said) = run(&with(&["--finish"])).await;
    assert!(code == Some(0) && said.contains("50 keys"), "{said}");
    let (seen, source) = contents(&from).await.expect("the source is read");
    let (_, target) = contents(&to).await.expect("the target is read");
    let expected: Vec<&[u8]> =
        source.keys().map(|key| &key[..]).filter(|key| key.starts_with(b"a/")).collect();
    let found: Vec<&[u8]> = target.keys().map(|key| &key[..]).collect();
    assert_eq!(found, [&expected[..], &[b"c/other"]].concat());
    assert!(cancelled_at(&to, seen).await.expect("it is cancelled") > seen);
}

/// Needs no etcd: what runs beside the switch, or is started again behind it, does not undo what clients write to the target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_finished_stays_finished() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Pair { from, to, dir, _clusters } = Pair::start().await;
    let (mut source, mut target) = (kv(&from), kv(&to));
    put_fifty(&mut source, "a/").await;
    let args = ["--endpoints", &to, "import", "--from", &from];
    let start = |name: &str, more: &[&str]| {
        Import::start(dir.path(), name, &[&args[..], more].concat()).expect("it starts")
    };
    let mut idle = start("idle", &["--overwrite"]);
    idle.said("in step", PATIENCE).await.expect("it catches up");
    let (code, said) = start("last", &["--finish"]).end(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");

    // Nothing is written on the source: the first one has to look by itself.
    let (code, said) = idle.end(PATIENCE).await.expect("it ends");
    assert!(code == Some(1) && said.contains("another import has taken over"), "{said}");
    target.put(put("a/1".into(), "of a client".into(), 0)).await.expect("a write");
    let (code, said) = start("again", &["--overwrite"]).end(PATIENCE).await.expect("it ends");
    assert!(code == Some(1) && said.contains("was finished before"), "{said}");
    let (code, said) = start("finish again", &["--finish"]).end(PATIENCE).await.expect("it ends");
    assert!(code == Some(0) && said.contains("nothing was done"), "{said}");
    let found = target.range(range("a/1", "", 0)).await.expect("a read").into_inner();
    assert_eq!(&found.kvs[0].value[..], b"of a client");

    // Its word is taken back.
    let marker =
        DeleteRangeRequest { key: "_holdfast/import/finished".into(), ..DeleteRangeRequest::default() };
    assert_eq!(target.delete_range(marker).await.expect("a delete").into_inner().deleted, 1);
    let (code, said) = start("anew", &["--overwrite", "--finish"]).end(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    let found = target.range(range("a/1", "", 0)).await.expect("a read").into_inner();
    assert_eq!(&found.kvs[0].value[..], b"1");
}

/// Needs no etcd: a writer that writes every two seconds is found at the switch, and one that stopped is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_writer_is_found_at_the_switch() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Pair { from, to, dir, _clusters } = Pair::start().await;
    let mut source = kv(&from);
    source.put(put("a".into(), "0".into(), 0)).await.expect("a write");
    let args = ["--endpoints", &to, "import", "--from", &from, "--finish"];
    let mut busy = Import::start(dir.path(), "busy", &args).expect("it starts");
    let writer = tokio::spawn(async move {
        loop {
            source.put(put("a".into(), "1".into(), 0)).await.expect("a write");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    });
    let (code, said) = busy.end(PATIENCE).await.expect("it ends");
    assert!(code == Some(1) && said.contains("still takes writes"), "{said}");
    writer.abort();
    let (code, said) =
        Import::start(dir.path(), "last", &args).expect("it starts").end(PATIENCE).await.expect("it ends");
    assert_eq!(code, Some(0), "{said}");
    let (_, source) = contents(&from).await.expect("the source is read");
    let (_, target) = contents(&to).await.expect("the target is read");
    assert_eq!(differences(&source, &target), (0, Vec::new()));
}
