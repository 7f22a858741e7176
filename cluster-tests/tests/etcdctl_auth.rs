//! etcdctl, in two versions, prints the same about users, roles and permissions against holdfast as against real etcd.

use std::path::Path;

use cluster_tests::conformance::etcdctl::{CommandLine, Printed, parse, play, programs};
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::harness::cluster::System;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine elect new leaders and time out: no more than those of one comparison.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Passwords are not what is tested: the cheapest that there is.
const CHEAP: &str = "--bcrypt-cost=4";

fn commands() -> Vec<CommandLine> {
    let text = std::fs::read_to_string(data_dir().join("etcdctl-auth.commands")).expect("it is checked in");
    parse(&text).expect("the list is well formed")
}

async fn play_fresh(program: &Path, system: System, count: usize) -> Vec<Printed> {
    let members = Members::start(system, count).await.expect("the members start");
    play(program, &commands(), &members).await.expect("every command ends")
}

async fn compare(line: &str) {
    let Some((program, etcd)) = programs(line, "compared about auth") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let cheap = [CHEAP.to_owned()];
    let ours = || System::holdfast(&cheap).expect("holdfast is built");
    let (etcd, one, three) = tokio::join!(
        play_fresh(&program, System::etcd(etcd, &cheap), 1),
        play_fresh(&program, ours(), 1),
        play_fresh(&program, ours(), 3),
    );
    for (count, ours) in [(1, one), (3, three)] {
        for ((command, etcd), ours) in commands().iter().zip(&etcd).zip(&ours) {
            assert_eq!(ours, etcd, "{:?} on {count} members", command.args);
        }
    }
}

#[tokio::test]
async fn etcdctl_3_4_prints_the_same() {
    compare("3.4").await;
}

#[tokio::test]
async fn etcdctl_3_5_prints_the_same() {
    compare("3.5").await;
}
