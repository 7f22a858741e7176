//! etcdctl, in two versions, prints the same about users, roles and permissions against holdfast as against real etcd.

use std::path::{Path, PathBuf};

use cluster_tests::conformance::etcdctl::{CommandLine, Printed, parse, play, version};
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
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

async fn compare(line: &str, program: Option<PathBuf>) {
    let what = format!("etcdctl {line} compared about auth");
    let Some(program) = program else { return skipped(&what, "it is missing; run scripts/fetch-peers") };
    let Some(reference) = binary::etcd() else {
        return skipped(&what, "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN");
    };
    match version(&program) {
        Ok(found) if found.starts_with(line) => {}
        Ok(found) => return skipped(&what, &format!("{} is version {found}", program.display())),
        Err(why) => return skipped(&what, &why),
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let cheap = [CHEAP.to_owned()];
    let ours = || System::holdfast(&cheap).expect("holdfast is built");
    let (etcd, one, three) = tokio::join!(
        play_fresh(&program, System::etcd(reference, &cheap), 1),
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
    compare("3.4", Some(PathBuf::from("/usr/bin/etcdctl")).filter(|program| program.is_file())).await;
}

#[tokio::test]
async fn etcdctl_3_5_prints_the_same() {
    compare("3.5", binary::etcdctl()).await;
}
