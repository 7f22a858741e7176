//! etcdctl, in two versions, changes a holdfast cluster: members that come and go, leadership that moves, alarms, defrag.
//! What it prints beside real etcd is in `etcdctl.rs` and `holdfastctl.rs`; ids and leaders are each cluster's own.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use cluster_tests::conformance::etcdctl::programs;
use cluster_tests::conformance::members::Members;
use cluster_tests::harness::cluster::System;
use holdfast_proto::etcdserverpb::StatusRequest;
use holdfast_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long a new leader may take to be one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs it against all members.
async fn run(program: &Path, members: &Members, words: &str) -> Output {
    // 3.4 takes no URL here.
    let endpoints: Vec<String> =
        members.endpoints().iter().map(|url| url.trim_start_matches("http://").to_owned()).collect();
    let output = tokio::process::Command::new(program)
        .args(["--endpoints", &endpoints.join(",")])
        .args(words.split(' '))
        .env("ETCDCTL_API", "3")
        .output();
    output.await.unwrap_or_else(|error| panic!("{words}: {error}"))
}

/// What it prints when all is well.
async fn done(program: &Path, members: &Members, words: &str) -> String {
    let output = run(program, members, words).await;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words}: {said}{told}");
    said.into_owned()
}

/// What it prints when it is refused.
async fn refused(program: &Path, members: &Members, words: &str) -> String {
    let output = run(program, members, words).await;
    assert_eq!(output.status.code(), Some(1), "{words}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Each member's id, and who leads.
async fn look(members: &Members) -> (Vec<u64>, u64) {
    let (mut ids, mut leader) = (Vec::new(), 0);
    for number in 0..members.count() {
        let mut client = MaintenanceClient::new(members.channel(number).clone());
        let status = client.status(StatusRequest {}).await.expect("it answers").into_inner();
        ids.push(status.header.expect("a header").member_id);
        leader = status.leader;
    }
    (ids, leader)
}

async fn changes_of_members(line: &str) {
    let Some((program, _)) = programs(line, "members and leadership") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let ours = System::holdfast(&[]).expect("holdfast is built");
    let members = Members::start(ours, 3).await.expect("the members start");
    let program = &*program;

    let (ids, leader) = look(&members).await;
    let target = *ids.iter().find(|id| **id != leader).expect("there are others");
    let moved = done(program, &members, &format!("move-leader {target:x}")).await;
    assert_eq!(moved, format!("Leadership transferred from {leader:x} to {target:x}\n"));
    let begun = Instant::now();
    while look(&members).await.1 != target {
        assert!(begun.elapsed() < PATIENCE, "{target:x} does not lead");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let added = done(program, &members, "member add late --learner --peer-urls=http://127.0.0.1:1").await;
    assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    let id = added.split_whitespace().nth(1).expect("Member ID added").to_owned();
    assert_eq!(done(program, &members, "member list").await.lines().count(), 4);
    done(program, &members, &format!("member update {id} --peer-urls=http://127.0.0.1:2")).await;
    let listed = done(program, &members, "member list").await;
    assert!(listed.contains("http://127.0.0.1:2") && !listed.contains("http://127.0.0.1:1,"), "{listed}");
    let early = refused(program, &members, &format!("member promote {id}")).await;
    assert!(early.contains("can only promote a learner member which is in sync with leader"), "{early}");
    done(program, &members, &format!("member remove {id}")).await;
    assert_eq!(done(program, &members, "member list").await.lines().count(), 3);
    let gone = refused(program, &members, &format!("member remove {id}")).await;
    assert!(gone.contains("etcdserver: member not found"), "{gone}");

    done(program, &members, "put key value").await;
    for words in ["alarm list", "alarm disarm", "defrag", "endpoint health", "endpoint hashkv", "get key"] {
        done(program, &members, words).await;
    }
}

#[tokio::test]
async fn etcdctl_3_4_changes_members_and_leaders() {
    changes_of_members("3.4").await;
}

#[tokio::test]
async fn etcdctl_3_5_changes_members_and_leaders() {
    changes_of_members("3.5").await;
}
