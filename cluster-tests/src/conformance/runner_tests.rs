//! Doctored transcripts: an event that is missing, changed, added or moved must be reported, and so must a fault.

use std::collections::BTreeSet;

use holdfast_proto::etcdserverpb::WatchCreateRequest;
use prost::Message;
use prost_reflect::DynamicMessage;

use super::super::call::Answer;
use super::super::coverage::Seen;
use super::super::inbox::Inbox;
use super::super::placeholder::Revisions;
use super::super::player::Fault;
use super::super::watcher::Watcher;
use super::*;

const HONEST: [&str; 3] = [
    "kv {key: \"a\" mod_revision: 3 value: \"1\"}",
    "kv {key: \"a\" mod_revision: 4 value: \"2\"} prev_kv {key: \"a\" mod_revision: 3 value: \"1\"}",
    "type: DELETE kv {key: \"a\" mod_revision: 5}",
];

fn script() -> Script {
    Script::parse("s", "Watch@w create_request {key: \"a\" start_revision: @compacted}", &descriptors())
        .unwrap()
}

/// A watcher that starts at revision `compacted` and was sent these events, one response each.
fn watcher(compacted: i64, events: &[&str]) -> Watcher {
    let descriptor = descriptors().get_message_by_name("etcdserverpb.WatchResponse").unwrap();
    let mut inbox = Inbox::new(descriptor.clone());
    let request =
        WatchCreateRequest { key: "a".into(), start_revision: compacted, ..WatchCreateRequest::default() };
    inbox.expect(0, &request, Revisions { head: 5, compacted });
    let responses = events.iter().map(|event| format!("header {{revision: 9}} events {{{event}}}"));
    for text in std::iter::once("header {revision: 5} created: true".to_owned()).chain(responses) {
        let message = DynamicMessage::parse_text_format(descriptor.clone(), &text).unwrap();
        inbox.accept(Ok(message.encode_to_vec().as_slice()));
    }
    inbox.live.into_values().next().unwrap()
}

fn transcript(name: &str, watchers: Vec<Watcher>) -> Transcript {
    Transcript {
        name: name.to_owned(),
        answers: vec![Answer::Stream(Vec::new(), None)],
        history: watchers.iter().flat_map(|watcher| watcher.received.clone()).collect(),
        watchers,
        faults: Vec::new(),
        outage: None,
        before_start: BTreeSet::new(),
        seen: Seen::default(),
    }
}

fn compare(etcd: &Transcript, ours: &Transcript) -> Report {
    let mut report = Report::default();
    report.add(&table().unwrap(), &script(), etcd, ours);
    report
}

#[test]
fn a_doctored_event_is_reported() {
    let etcd = transcript("etcd", vec![watcher(2, &HONEST)]);
    assert_eq!(compare(&etcd, &transcript("ours", vec![watcher(2, &HONEST)])).differences, [""; 0]);
    let [first, second, third] = HONEST;
    let doctored: [&[&str]; 8] = [
        &[first, second],
        &[second, third],
        &[first, third],
        &[first, second, third, third],
        &[first, third, second],
        &[first, "kv {key: \"a\" mod_revision: 4 value: \"2\"}", third],
        &[first, &second.replace("value: \"2\"", "value: \"3\""), third],
        &[first, second, "type: DELETE kv {key: \"a\" mod_revision: 5 create_revision: 3}"],
    ];
    for events in doctored {
        let ours = transcript("ours", vec![watcher(2, events)]);
        assert!(!compare(&etcd, &ours).differences.is_empty(), "{events:?} passed");
    }
    assert!(!compare(&etcd, &transcript("ours", Vec::new())).differences.is_empty(), "a watcher is missing");
}

#[test]
fn a_fault_is_reported_whatever_the_other_side_says() {
    let honest = transcript("etcd", vec![watcher(2, &HONEST)]);
    for watcher_of in [None, Some(0)] {
        let mut faulty = transcript("ours", vec![watcher(2, &HONEST)]);
        faulty.faults.push(Fault { watcher: watcher_of, text: "something is wrong".to_owned() });
        assert_eq!(compare(&honest, &faulty).differences.len(), 1);
        assert_eq!(compare(&faulty, &honest).differences.len(), 1);
    }
}

#[test]
fn only_etcd_may_lose_a_delete_and_only_at_the_compacted_revision() {
    let all = || vec![watcher(5, &[HONEST[2]])];
    let (full, lost) = (transcript("a", all()), |name| Transcript {
        history: full_history(),
        ..transcript(name, vec![watcher(5, &[])])
    });
    let report = compare(&lost("etcd"), &full);
    assert_eq!(report.differences, [""; 0]);
    assert_eq!(report.used, BTreeSet::from(["delete-at-compaction".to_owned()]));
    assert_eq!(compare(&full, &lost("ours")).differences.len(), 1);
    let elsewhere = |name, events: &[&str]| Transcript {
        history: full_history(),
        ..transcript(name, vec![watcher(4, events)])
    };
    assert_eq!(compare(&elsewhere("etcd", &[]), &elsewhere("ours", &[HONEST[2]])).differences.len(), 1);
}

fn full_history() -> Vec<super::super::watcher::Occurrence> {
    watcher(5, &[HONEST[2]]).received
}
