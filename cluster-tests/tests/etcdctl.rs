//! etcdctl, in two versions, prints the same against holdfast as against real etcd.

use std::path::{Path, PathBuf};

use cluster_tests::conformance::etcdctl::{CommandLine, Printed, parse, play, version};
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use tokio::sync::Mutex;

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The etcdctl of real etcd 3.5.1, or why there is none.
fn fetched() -> Result<PathBuf, String> {
    binary::etcdctl()
        .ok_or_else(|| "etcdctl 3.5 is missing; run scripts/fetch-peers, or set ETCDCTL_BIN".to_owned())
}

/// The distribution's etcdctl, of the 3.4 line.
fn installed() -> Result<PathBuf, String> {
    let program = PathBuf::from("/usr/bin/etcdctl");
    if program.is_file() {
        Ok(program)
    } else {
        Err("etcdctl 3.4 is not installed (package etcd-client)".to_owned())
    }
}

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

async fn compare(line: &str, program: Result<PathBuf, String>, subjects: Vec<(System, usize)>) {
    let what = format!("etcdctl {line} compared on etcd and {}", subjects[0].0.label);
    let program = match program {
        Ok(program) => program,
        Err(why) => return skipped(&what, &why),
    };
    let Some(reference) = binary::etcd() else {
        return skipped(&what, "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN");
    };
    match version(&program) {
        Ok(found) if found.starts_with(line) => {}
        Ok(found) => return skipped(&what, &format!("{} is version {found}", program.display())),
        Err(why) => return skipped(&what, &why),
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let (_, etcd) = play_fresh(&program, System::etcd(reference, &[]), 1).await;
    let mut found = Vec::new();
    for (system, count) in subjects {
        let (subject, ours) = play_fresh(&program, system, count).await;
        found.extend(differences(&subject, &etcd, &ours));
    }
    assert!(found.is_empty(), "{} outputs differ\n{}", found.len(), found.join("\n"));
}

fn holdfast() -> Vec<(System, usize)> {
    [1, 3].map(|count| (System::holdfast(&[]).expect("holdfast is built"), count)).into()
}

fn control() -> Vec<(System, usize)> {
    binary::etcd().map_or_else(
        || vec![(System::etcd(PathBuf::new(), &[]), 3)],
        |program| vec![(System::etcd(program, &[]), 3)],
    )
}

#[tokio::test]
async fn etcdctl_3_4_prints_the_same() {
    compare("3.4", installed(), holdfast()).await;
}

#[tokio::test]
async fn etcdctl_3_5_prints_the_same() {
    compare("3.5", fetched(), holdfast()).await;
}

/// The control: what differs between one etcd and three is not a difference of ours.
#[tokio::test]
async fn etcdctl_3_5_prints_the_same_on_three_etcds() {
    compare("3.5", fetched(), control()).await;
}

#[tokio::test]
async fn etcdctl_3_4_prints_the_same_on_three_etcds() {
    compare("3.4", installed(), control()).await;
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
