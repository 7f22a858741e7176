//! etcdctl, in two versions, prints the same against holdfast as against real etcd.

use std::path::Path;

use cluster_tests::conformance::etcdctl::{CommandLine, Printed, parse, play, programs};
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::harness::cluster::System;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn commands() -> Vec<CommandLine> {
    let text = std::fs::read_to_string(data_dir().join("etcdctl.commands")).expect("the list is checked in");
    parse(&text).expect("the list is well formed")
}

async fn play_fresh(program: &Path, system: System, count: usize) -> (String, Vec<Printed>) {
    let members = Members::start(system, count).await.expect("the members start");
    let printed = play(program, &commands(), &members).await.expect("every command ends");
    (members.name.clone(), printed)
}

/// Paragraphs, one for each command that printed something else.
fn differences(subject: &str, etcd: &[Printed], ours: &[Printed]) -> Vec<String> {
    let pairs = commands().into_iter().zip(etcd.iter().zip(ours));
    pairs
        .filter(|(_, (etcd, ours))| etcd != ours)
        .map(|(command, (etcd, ours))| {
            format!("{:?} on {subject}\n  etcd {etcd:?}\n  ours {ours:?}", command.args)
        })
        .collect()
}

async fn compare(line: &str, subjects: impl FnOnce(&Path) -> Vec<(System, usize)>) {
    let Some((program, reference)) = programs(line, "compared with etcd") else { return };
    let subjects = subjects(&reference);
    let _turn = ONE_AT_A_TIME.lock().await;
    let (_, etcd) = play_fresh(&program, System::etcd(reference, &[]), 1).await;
    let mut found = Vec::new();
    for (system, count) in subjects {
        let (subject, ours) = play_fresh(&program, system, count).await;
        found.extend(differences(&subject, &etcd, &ours));
    }
    assert!(found.is_empty(), "{} outputs differ\n{}", found.len(), found.join("\n"));
}

fn holdfast(_: &Path) -> Vec<(System, usize)> {
    [1, 3].map(|count| (System::holdfast(&[]).expect("holdfast is built"), count)).into()
}

/// What differs between one etcd and three is not a difference of ours.
fn control(etcd: &Path) -> Vec<(System, usize)> {
    vec![(System::etcd(etcd.to_owned(), &[]), 3)]
}

#[tokio::test]
async fn etcdctl_3_4_prints_the_same() {
    compare("3.4", holdfast).await;
}

#[tokio::test]
async fn etcdctl_3_5_prints_the_same() {
    compare("3.5", holdfast).await;
}

#[tokio::test]
async fn etcdctl_3_5_prints_the_same_on_three_etcds() {
    compare("3.5", control).await;
}

#[tokio::test]
async fn etcdctl_3_4_prints_the_same_on_three_etcds() {
    compare("3.4", control).await;
}

#[test]
fn a_changed_output_is_reported() {
    let printed = |stdout: &str| Printed { stdout: stdout.to_owned(), stderr: String::new(), code: Some(0) };
    let etcd = vec![printed("OK"); commands().len()];
    let mut ours = etcd.clone();
    assert!(differences("ours", &etcd, &ours).is_empty());
    ours[3].stdout = "Ok".to_owned();
    ours[5].code = Some(1);
    assert_eq!(differences("ours", &etcd, &ours).len(), 2);
}
