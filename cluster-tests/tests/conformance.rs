//! Real etcd and holdfast answer the same scripts with the same responses, codes and texts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cluster_tests::conformance::call::{Answer, descriptors};
use cluster_tests::conformance::differences::{self, Verdict};
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::observed::Observed;
use cluster_tests::conformance::player::{Transcript, play};
use cluster_tests::conformance::rules::Situation;
use cluster_tests::conformance::runner::{Report, data_dir, scripts, table};
use cluster_tests::conformance::script::Script;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::skip::skipped;
use prost_reflect::DynamicMessage;
use tokio::sync::{Mutex, OnceCell};
use tonic::Code;

/// What the scripts must at least have of KV calls.
const KV_CALLS_MIN: usize = 200;

/// Clusters that compete for a small machine elect new leaders and time out; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn etcd_or_skip(what: &str) -> Option<PathBuf> {
    let found = binary::etcd();
    if found.is_none() {
        skipped(what, "real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN");
    }
    found
}

fn etcd(program: &Path) -> System {
    System::etcd(program.to_owned(), &[])
}

/// Starts a fresh cluster and plays the script.
async fn play_fresh(system: System, count: usize, script: &Script) -> Transcript {
    let mut members = Members::start(system, count).await.expect("the members start");
    match play(script, &members).await {
        Ok(transcript) => transcript,
        Err(error) => panic!("{error:#}\n{}", members.log_ends()),
    }
}

#[test]
fn the_scripts_are_many_enough() {
    let scripts = scripts().unwrap();
    let calls = scripts.iter().flat_map(|script| &script.calls);
    let kv = calls.filter(|call| call.method.parent_service().name() == "KV").count();
    assert!(kv >= KV_CALLS_MIN, "{kv} KV calls");
}

/// What each system answered to one script.
struct Played {
    script: Script,
    etcd: Transcript,
    /// `None` for the script about which three members of etcd 3.5.1 disagree; it says why.
    etcd_of_three: Option<Transcript>,
    one: Transcript,
    three: Transcript,
}

/// Every script on every system. Played once: most of the time goes into starting clusters.
async fn played(program: &Path) -> &'static [Played] {
    static PLAYED: OnceCell<Vec<Played>> = OnceCell::const_new();
    let play_all = async || {
        let _turn = ONE_AT_A_TIME.lock().await;
        let mut played = Vec::new();
        for script in scripts().expect("the scripts are whole") {
            let etcd_of_three = async {
                if script.name == "diverging" {
                    None
                } else {
                    Some(play_fresh(etcd(program), 3, &script).await)
                }
            };
            let (etcd, etcd_of_three, one, three) = tokio::join!(
                play_fresh(etcd(program), 1, &script),
                etcd_of_three,
                play_fresh(System::holdfast(&[]).expect("holdfast is built"), 1, &script),
                play_fresh(System::holdfast(&[]).expect("holdfast is built"), 3, &script),
            );
            played.push(Played { script, etcd, etcd_of_three, one, three });
        }
        played
    };
    PLAYED.get_or_init(play_all).await
}

#[tokio::test]
async fn holdfast_answers_as_etcd_does() {
    let Some(program) = etcd_or_skip("holdfast compared with etcd, call by call") else { return };
    let (table, scripts) = (table().unwrap(), scripts().unwrap());
    let (mut report, mut observed) = (Report::default(), Observed::default());
    for Played { script, etcd, one, three, .. } in played(&program).await {
        observed.add(script, etcd, one);
        for ours in [one, three] {
            report.add(&table, script, etcd, ours);
        }
    }
    assert!(report.differences.is_empty(), "{}", report.text());
    let _turn = ONE_AT_A_TIME.lock().await;
    observed.probe(&scripts, &Members::start(System::holdfast(&[]).unwrap(), 1).await.unwrap()).await;
    let written = std::fs::read_to_string(data_dir().join("observed.txt")).unwrap();
    assert!(
        Observed::parse(&written).unwrap() == observed,
        "observed.txt is stale; write it with: cargo run -p cluster-tests -- conformance-doc --observe"
    );
    assert_eq!(table.unused(&report.used), [""; 0], "entries of the table that explain nothing");
}

/// What would end the process of etcd 3.5.1, and so cannot be compared: refused, and the member goes on.
// covers: KV.Range RangeRequest.sort_target RangeRequest.sort_order
// covers: KV.Txn RangeRequest.sort_target
#[tokio::test]
async fn what_ends_etcd_is_refused() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let text = "Range key: \"a\" range_end: \"z\" sort_target: 9\n\
        Range key: \"a\" sort_target: -1 sort_order: DESCEND\n\
        Txn success {request_range {key: \"a\" range_end: \"z\" sort_target: 9}}\n\
        Txn failure {request_txn {failure {request_range {key: \"a\" sort_target: 5}}}}\n\
        Range key: \"a\"\n";
    let script = Script::parse("deadly", text, &descriptors()).unwrap();
    let answers = play_fresh(System::holdfast(&[]).unwrap(), 1, &script).await.answers;
    for answer in &answers[..4] {
        assert_eq!(differences::text(answer), "InvalidArgument: etcdserver: invalid sort option");
    }
    assert!(matches!(answers[4], Answer::Ok(_)), "{:?}", answers[4]);
}

/// The control: etcd differs from itself nowhere, so that what differs elsewhere is not the method's fault.
#[tokio::test]
async fn etcd_answers_as_etcd_does() {
    let Some(program) = etcd_or_skip("etcd compared with itself, as the control") else { return };
    let (mut report, table) = (Report::default(), table().unwrap());
    for Played { script, etcd, etcd_of_three, .. } in played(&program).await {
        if let Some(three) = etcd_of_three {
            report.add(&table, script, etcd, three);
        }
    }
    assert!(report.differences.is_empty(), "{}", report.text());
}

/// One field, one text or one code changed anywhere in an answer is found.
#[test]
fn a_doctored_answer_is_reported() {
    let scripts = scripts().unwrap();
    let put =
        scripts.iter().flat_map(|script| &script.calls).find(|call| call.method.name() == "Put").unwrap();
    let answer =
        |text: &str| Answer::Ok(DynamicMessage::parse_text_format(put.method.output(), text).unwrap());
    let honest = [
        answer(
            "header {cluster_id: 9 member_id: 4 revision: 7 raft_term: 2} prev_kv {key: \"a\" version: 2}",
        ),
        Answer::Err(Code::InvalidArgument, "etcdserver: key is not provided".to_owned()),
    ];
    let doctored = [
        (
            0,
            answer(
                "header {cluster_id: 9 member_id: 4 revision: 8 raft_term: 2} prev_kv {key: \"a\" version: 2}",
            ),
        ),
        (
            0,
            answer(
                "header {cluster_id: 9 member_id: 4 revision: 7 raft_term: 2} prev_kv {key: \"a\" version: 3}",
            ),
        ),
        (0, answer("header {cluster_id: 9 member_id: 4 revision: 7 raft_term: 2}")),
        (0, answer("header {cluster_id: 9 revision: 7 raft_term: 2} prev_kv {key: \"a\" version: 2}")),
        (0, Answer::Err(Code::Unavailable, "etcdserver: no leader".to_owned())),
        (1, Answer::Err(Code::InvalidArgument, "key is not provided".to_owned())),
        (1, Answer::Err(Code::OutOfRange, "etcdserver: key is not provided".to_owned())),
        (1, answer("")),
    ];
    for (which, wrong) in doctored {
        let table = table().unwrap();
        let situation = Situation { call: put, is_before_start: false };
        let verdict = table.compare(&situation, &honest[which], &wrong);
        assert!(matches!(verdict, Verdict::Different { .. }), "{wrong:?} passed");
        let verdict = table.compare(&situation, &honest[which], &honest[which]);
        assert_eq!(verdict, Verdict::Same(BTreeSet::new()), "an honest answer did not pass");
    }
}
