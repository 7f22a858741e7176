//! etcdctl, in two versions: `lock`, `elect` and `lease` tell the same story on holdfast as on real etcd, with the locks
//! held and lost when they should be.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_tests::conformance::etcdctl::programs;
use cluster_tests::conformance::members::Members;
use cluster_tests::harness::cluster::System;
use cluster_tests::watch::console::{Console, Ended, PATIENCE};
use holdfast_proto::etcdserverpb::RangeRequest;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine elect new leaders and time out: no more than those of one story.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long what is held is looked at: longer than its time to live, 5 s, so that somebody must have kept it alive; and that
/// time is longer than a busy machine makes its keeper wait.
const LOOK: Duration = Duration::from_secs(8);

/// One cluster, and the etcdctl that talks to it.
struct Scene<'a> {
    program: &'a Path,
    members: &'a Members,
    /// What was printed, with ids that differ by nature replaced.
    told: Vec<String>,
}

impl Scene<'_> {
    fn endpoint(&self, number: usize) -> String {
        let endpoints = self.members.endpoints();
        let url = &endpoints[number % endpoints.len()];
        url.split_once("://").map_or(url.as_str(), |(_, bare)| bare).to_owned()
    }

    fn start(&self, number: usize, line: &str) -> Console {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Console::start(self.program, &self.endpoint(number), &args).expect("etcdctl starts")
    }

    /// Runs a command to its end, and notes what it printed.
    async fn run(&mut self, number: usize, line: &str) -> Ended {
        let ended = self.start(number, line).end(PATIENCE).await.expect("it ends");
        self.tell(line, &ended);
        ended
    }

    fn tell(&mut self, line: &str, ended: &Ended) {
        let out = without_ids(&String::from_utf8_lossy(&ended.stdout));
        let said = without_ids(&without_log_lines(&ended.stderr));
        let text = format!("{}: {out:?} {said:?} {:?}", without_ids(line), ended.code);
        self.told.push(text);
    }

    /// The keys below a prefix, the oldest first, with their create revisions.
    async fn keys(&self, prefix: &str) -> Vec<(String, i64)> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix has a last byte") += 1;
        let request = RangeRequest {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: end.into(),
            sort_target: holdfast_proto::etcdserverpb::range_request::SortTarget::Create.into(),
            sort_order: holdfast_proto::etcdserverpb::range_request::SortOrder::Ascend.into(),
            ..RangeRequest::default()
        };
        let answer = KvClient::new(self.members.channel(0).clone()).range(request).await.expect("a read");
        let kvs = answer.into_inner().kvs.into_iter();
        kvs.map(|kv| (String::from_utf8_lossy(&kv.key).into_owned(), kv.create_revision)).collect()
    }

    async fn until_keys(&self, prefix: &str, count: usize) -> Vec<(String, i64)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let keys = self.keys(prefix).await;
            if keys.len() == count {
                return keys;
            }
            assert!(Instant::now() < deadline, "{}: {keys:?}, not {count}", self.members.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Looks that the key stays as it is.
    async fn stays(&self, prefix: &str, oldest: &(String, i64)) {
        let until = Instant::now() + LOOK;
        while Instant::now() < until {
            assert_eq!(self.keys(prefix).await.first(), Some(oldest), "{}", self.members.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn has(text: &str) -> impl Fn(&[u8]) -> bool + Send + '_ {
    move |out| String::from_utf8_lossy(out).contains(text)
}

/// What etcdctl logs for itself has the time in it, and is not compared.
fn without_log_lines(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with("{\"level\":")).collect()
}

/// Lease ids replaced, and what depends on the time left out.
fn without_ids(text: &str) -> String {
    let text = match text.split_once("remaining(") {
        Some((before, after)) => {
            let (_, after) = after.split_once(')').unwrap_or(("", ""));
            format!("{before}remaining(..){after}")
        }
        None => text.to_owned(),
    };
    let mut out = String::new();
    let mut number = String::new();
    let flush = |number: &mut String, out: &mut String| {
        out.push_str(if number.len() >= 10 { "ID" } else { number.as_str() });
        number.clear();
    };
    for character in text.chars() {
        if character.is_ascii_hexdigit() && !character.is_ascii_uppercase() {
            number.push(character);
        } else {
            flush(&mut number, &mut out);
            out.push(character);
        }
    }
    flush(&mut number, &mut out);
    out
}

/// Held as long as its holder lives, then the next one's; a command that runs under a lock has it to itself.
async fn locks(scene: &mut Scene<'_>) {
    let mut first = scene.start(0, "lock --ttl=5 l");
    first.wait_for(has("l/")).await.expect("it is locked");
    let second = scene.start(1, "lock --ttl=5 l echo mine");
    let line = scene.until_keys("l/", 2).await;
    scene.stays("l/", &line[0]).await;
    let ended = first.stop().await.expect("it is killed");
    assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), line[0].0);
    let ended = second.end(PATIENCE).await.expect("the next one gets it");
    scene.tell("lock l echo mine", &ended);
    assert_eq!((ended.code, String::from_utf8_lossy(&ended.stdout).trim()), (Some(0), "mine"));
    scene.until_keys("l/", 0).await;
    scene.run(2, "lock l false").await;
    scene.run(0, "lock").await;
}

/// The listener hears of each leader; the next one leads when the first is gone.
async fn elections(scene: &mut Scene<'_>) {
    let mut listener = scene.start(1, "elect -l e");
    let mut first = scene.start(0, "elect e one");
    first.wait_for(has("one")).await.expect("it is elected");
    listener.wait_for(has("one")).await.expect("the listener hears of the first");
    let line = scene.until_keys("e/", 1).await;
    let mut second = scene.start(2, "elect e two");
    scene.until_keys("e/", 2).await;
    // etcdctl elects for 60 s: nobody waits so long here. The lease of the first is revoked, as if it had ended.
    let id = line[0].0.strip_prefix("e/").expect("it is below the prefix").to_owned();
    scene.run(1, &format!("lease revoke {id}")).await;
    second.wait_for(has("two")).await.expect("the second is elected");
    listener.wait_for(has("two")).await.expect("the listener hears of the second");
    for console in [first, second, listener] {
        console.stop().await.expect("it is killed");
    }
    scene.run(0, "elect").await;
}

/// Kept alive while somebody does so, gone when nobody does, and said so.
async fn leases(scene: &mut Scene<'_>) {
    let ended = scene.run(0, "lease grant 5").await;
    let id = String::from_utf8_lossy(&ended.stdout).split(' ').nth(1).expect("an id").to_owned();
    let mut keeper = scene.start(1, &format!("lease keep-alive {id}"));
    scene.run(2, &format!("put --lease={id} k/1 v")).await;
    keeper.wait_for(has("keepalived with TTL(5)")).await.expect("it is kept alive");
    scene.run(0, &format!("lease timetolive --keys {id}")).await;
    scene.run(1, "lease list").await;
    let key = scene.until_keys("k/", 1).await;
    scene.stays("k/", &key[0]).await;
    keeper.stop().await.expect("it is killed");
    scene.until_keys("k/", 0).await;
    scene.run(0, &format!("lease timetolive {id}")).await;
    scene.run(1, &format!("lease keep-alive --once {id}")).await;
    scene.run(2, &format!("put --lease={id} k/2 v")).await;
    // Revoked while it is kept alive.
    let ended = scene.run(0, "lease grant 100").await;
    let id = String::from_utf8_lossy(&ended.stdout).split(' ').nth(1).expect("an id").to_owned();
    scene.run(1, &format!("lease keep-alive --once {id}")).await;
    let mut keeper = scene.start(2, &format!("lease keep-alive {id}"));
    keeper.wait_for(has("keepalived")).await.expect("it is kept alive");
    scene.run(0, &format!("lease revoke {id}")).await;
    scene.run(0, &format!("lease revoke {id}")).await;
    scene.run(1, &format!("lease timetolive {id}")).await;
    scene.run(1, "lease list").await;
    keeper.stop().await.expect("it is killed");
}

async fn story(program: &Path, system: System, count: usize) -> Vec<String> {
    let members = Members::start(system, count).await.expect("the members start");
    let mut scene = Scene { program, members: &members, told: Vec::new() };
    locks(&mut scene).await;
    elections(&mut scene).await;
    leases(&mut scene).await;
    scene.told
}

async fn compare(line: &str) {
    let Some((program, etcd)) = programs(line, "lock, elect and lease compared with etcd") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let ours = || System::holdfast(&[]).expect("holdfast is built");
    // Most of a story is waiting.
    let (theirs, one, three) = tokio::join!(
        story(&program, System::etcd(etcd, &[]), 1),
        story(&program, ours(), 1),
        story(&program, ours(), 3),
    );
    assert_eq!(theirs, one, "on one member");
    assert_eq!(theirs, three, "on three members");
}

#[tokio::test]
async fn etcdctl_3_4_holds_and_loses_locks_as_on_etcd() {
    compare("3.4").await;
}

#[tokio::test]
async fn etcdctl_3_5_holds_and_loses_locks_as_on_etcd() {
    compare("3.5").await;
}

#[test]
fn ids_are_not_compared() {
    assert_eq!(without_ids("lease 694d8f3c2a1b5e07 granted with TTL(2s)"), "lease ID granted with TTL(2s)");
    let left = "lease 694d8f3c2a1b5e07 granted with TTL(2s), remaining(1s), attached keys([k])";
    assert_eq!(without_ids(left), "lease ID granted with TTL(2s), remaining(..), attached keys([k])");
    assert_eq!(without_ids("l/abc"), "l/abc");
    let logged = "{\"level\":\"warn\",\"ts\":\"2026-11-27T16:16:54.340Z\"}\nError: not found\n";
    assert_eq!(without_log_lines(logged), "Error: not found\n");
}
