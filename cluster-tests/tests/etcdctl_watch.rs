//! etcdctl, in two versions: `watch` prints the same against holdfast as against real etcd, `make-mirror` works both
//! ways between them.

use std::path::Path;

use bytes::Bytes;
use cluster_tests::client::{Client, TIMEOUT};
use cluster_tests::conformance::etcdctl::programs;
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use cluster_tests::watch::console::Ended;
use cluster_tests::watch::mirror::{End, Pairs, start};
use cluster_tests::watch::printed::normalise;
use cluster_tests::watch::script::{Script, parse, play};
use tokio::sync::Mutex;

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn scripts(line: &str) -> Vec<Script> {
    let text = std::fs::read_to_string(data_dir().join("etcdctl-watch.commands")).expect("it is checked in");
    let mut scripts = parse(&text).expect("the scripts are well formed");
    if line == "3.5" {
        let more = "watch -i\n> watch %a\n@ 1\n$ put %a one\n? one\n> progress\n? progress notify\n";
        scripts.extend(parse(more).expect("well formed"));
        let more = "watch %a --progress-notify\n@ 1\n$ put %a the-end\n? the-end\n";
        scripts.extend(parse(more).expect("well formed"));
    }
    scripts
}

fn bare(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, bare)| bare)
}

fn format_of(script: &Script) -> &str {
    let mut words = script.args.iter();
    words.find(|word| *word == "-w").and_then(|_| words.next()).map_or("simple", String::as_str)
}

async fn play_all(program: &Path, line: &str, system: System, count: usize) -> Vec<Ended> {
    let members = Members::start(system, count).await.expect("the members start");
    let endpoints = members.endpoints();
    let mut all = Vec::new();
    for (number, script) in scripts(line).into_iter().enumerate() {
        let script = script.under(&format!("s{number:02}/"));
        let endpoint = bare(&endpoints[number % endpoints.len()]);
        let ended = play(program, &script, endpoint).await;
        let ended =
            ended.unwrap_or_else(|error| panic!("{} on {}: {error:#}", script.args.join(" "), members.name));
        all.push(normalise(&ended, format_of(&script), script.last_text()));
    }
    all
}

/// Members of different clusters have different histories where a script depends on `--rev=1`: each plays all scripts.
async fn compare(line: &str, subject: System, count: usize) {
    let Some((program, etcd)) = programs(line, "watch compared with etcd") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let etcd = play_all(&program, line, System::etcd(etcd, &[]), 1).await;
    let ours = play_all(&program, line, subject, count).await;
    let pairs = scripts(line).into_iter().zip(etcd.iter().zip(&ours));
    let different: Vec<String> = pairs
        .filter(|(_, (etcd, ours))| etcd != ours)
        .map(|(script, (etcd, ours))| {
            let text = |ended: &Ended| {
                format!("{:?} {:?}, {:?}", ended.code, String::from_utf8_lossy(&ended.stdout), ended.stderr)
            };
            format!("{}\n  etcd {}\n  ours {}", script.args.join(" "), text(etcd), text(ours))
        })
        .collect();
    assert!(different.is_empty(), "{} outputs differ\n{}", different.len(), different.join("\n"));
}

fn holdfast() -> System {
    System::holdfast(&[]).expect("holdfast is built")
}

#[tokio::test]
async fn etcdctl_3_4_watches_the_same() {
    compare("3.4", holdfast(), 1).await;
}

#[tokio::test]
async fn etcdctl_3_5_watches_the_same() {
    compare("3.5", holdfast(), 1).await;
}

#[tokio::test]
async fn etcdctl_3_5_watches_the_same_on_three_members() {
    compare("3.5", holdfast(), 3).await;
}

/// The control: what differs between one etcd and another is not a difference of ours.
#[tokio::test]
async fn etcdctl_3_5_watches_the_same_on_another_etcd() {
    let Some(etcd) = binary::etcd() else {
        return skipped("etcdctl watch on etcd twice", "real etcd is missing; run scripts/fetch-peers");
    };
    compare("3.5", System::etcd(etcd, &[]), 1).await;
}

/// A way to mirror: flags, what of the source is mirrored, and what its prefix becomes.
struct Way {
    flags: &'static [&'static str],
    prefix: &'static str,
    becomes: &'static str,
}

/// `{}` stands for the name of the way, which keeps one apart from the other on the same stores.
const WAYS: [Way; 3] = [
    Way { flags: &["--prefix=same/"], prefix: "same/", becomes: "same/" },
    Way { flags: &["--prefix=from/", "--dest-prefix=to/"], prefix: "from/", becomes: "to/" },
    Way { flags: &["--prefix=root/", "--no-dest-prefix"], prefix: "root/", becomes: "" },
];

async fn put(end: End<'_>, key: &str, value: &str) {
    let (key, value) = (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()));
    let outcome = end.client.put(end.member, key, value, TIMEOUT).await;
    assert!(matches!(outcome, cluster_tests::client::Outcome::Acked(_)), "{outcome:?}");
}

/// What the destination must hold: all pairs of the source under the new prefix.
async fn mirrored(source: End<'_>, way: &Way) -> Pairs {
    let pairs = source.pairs(way.prefix).await.expect("the source is read");
    let renamed = pairs.into_iter().map(|(key, value)| {
        let rest = &key[way.prefix.len()..];
        (Bytes::from([way.becomes.as_bytes(), rest].concat()), value)
    });
    renamed.collect()
}

async fn mirror(program: &Path, source: End<'_>, destination: End<'_>) {
    for way in &WAYS {
        for number in 0..20 {
            put(source, &format!("{}old/{number:02}", way.prefix), "before").await;
        }
        put(source, "elsewhere", "not mirrored").await;
        let console = start(program, source, destination, way.flags).expect("etcdctl starts");
        let wanted = mirrored(source, way).await;
        // With the root as its destination the mirror is told by its keys.
        let below = if way.becomes.is_empty() { "old/" } else { way.becomes };
        destination.wait_for(below, &wanted).await.expect("what was there is mirrored");
        for number in 0..20 {
            put(source, &format!("{}old/{number:02}", way.prefix), "after").await;
        }
        let gone = Bytes::from(format!("{}old/07", way.prefix));
        let change = ["del".to_owned(), String::from_utf8_lossy(&gone).into_owned()];
        let delete = cluster_tests::watch::console::Console::start(program, source.address, &change);
        let ended = delete.expect("etcdctl starts").end(TIMEOUT * 4).await.expect("the delete ends");
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let wanted = mirrored(source, way).await;
        assert_eq!(wanted.len(), 19);
        destination.wait_for(below, &wanted).await.expect("what changes is mirrored");
        console.stop().await.expect("the mirror is stopped");
    }
}

async fn mirror_both_ways(line: &str) {
    let Some((program, etcd)) = programs(line, "make-mirror between holdfast and etcd") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let pair = [System::etcd(etcd, &[]), holdfast()];
    for turned in [false, true] {
        // Fresh stores for each direction: what was mirrored must not be there already.
        let [etcd, ours] = pair.clone();
        let (source, destination) = if turned { (ours, etcd) } else { (etcd, ours) };
        let source = Members::start(source, 1).await.expect("the source starts");
        let destination = Members::start(destination, 1).await.expect("the destination starts");
        let (from, to) = (source.endpoints(), destination.endpoints());
        let clients = (Client::new(&from).expect("a client"), Client::new(&to).expect("a client"));
        let from = End { address: bare(&from[0]), client: &clients.0, member: 0 };
        let to = End { address: bare(&to[0]), client: &clients.1, member: 0 };
        mirror(&program, from, to).await;
    }
}

#[tokio::test]
async fn etcdctl_3_4_mirrors_both_ways() {
    mirror_both_ways("3.4").await;
}

#[tokio::test]
async fn etcdctl_3_5_mirrors_both_ways() {
    mirror_both_ways("3.5").await;
}

#[test]
fn check_perf_is_left_out() {
    skipped(
        "etcdctl check perf on etcd and holdfast",
        "takes a minute each; run: cargo run --release -p cluster-tests -- check-perf",
    );
}
