//! Doctored streams: each rule has one that breaks it, beside the honest one.

use prost::Message;
use prost_reflect::DynamicMessage;

use super::super::call::descriptors;
use super::*;

const CREATED: &str = "header {revision: 3} created: true";

fn event(key: &str, revision: i64) -> String {
    format!("events {{kv {{key: \"{key}\" mod_revision: {revision}}}}}")
}

/// What is wrong with a stream on which `request` was sent, and its one watcher if there is one.
fn judge(request: &WatchCreateRequest, responses: &[&str]) -> (Vec<String>, Option<Watcher>) {
    let descriptor = descriptors().get_message_by_name("etcdserverpb.WatchResponse").unwrap();
    let mut inbox = Inbox::new(descriptor.clone());
    inbox.expect(0, request, Revisions { head: 3, compacted: 0 });
    for text in responses {
        let message = DynamicMessage::parse_text_format(descriptor.clone(), text).unwrap();
        inbox.accept(Ok(message.encode_to_vec().as_slice()));
    }
    (inbox.faults, inbox.live.into_values().chain(inbox.gone).next())
}

fn everything() -> WatchCreateRequest {
    WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 1,
        fragment: true,
        ..WatchCreateRequest::default()
    }
}

fn faults(responses: &[&str]) -> Vec<String> {
    judge(&everything(), responses).0
}

/// A response with one watcher's events.
fn sent(revision: i64, events: &[String]) -> String {
    format!("header {{revision: {revision}}} {}", events.join(" "))
}

#[test]
fn an_honest_stream_has_no_faults() {
    let first = sent(3, &[event("a", 2), event("b", 2), event("a", 3)]);
    let second = sent(4, &[event("a", 4)]);
    let progress = "header {revision: 4}";
    let canceled = "header {revision: 4} canceled: true";
    let (faults, watcher) = judge(&everything(), &[CREATED, &first, &second, progress, canceled]);
    assert_eq!(faults, [""; 0]);
    assert_eq!(watcher.unwrap().received.len(), 4);
}

#[test]
fn each_rule_has_a_stream_that_breaks_it() {
    let two = sent(2, &[event("a", 2)]);
    let three = sent(3, &[event("a", 3)]);
    let cancel = "header {revision: 3} canceled: true";
    let split = ["header {revision: 3} fragment: true", two.as_str()].join(" ").replacen(
        "header {revision: 2}",
        "",
        1,
    );
    let broken: &[&[&str]] = &[
        &[&two, CREATED],
        &[CREATED, &three, &two],
        &[CREATED, &two, &two],
        &[CREATED, &sent(2, &[event("a", 3)])],
        &[CREATED, &sent(5, &[event("a", 2)]), &three],
        &[CREATED, &sent(3, &[event("a", 3), event("b", 2)])],
        &[CREATED, cancel, &three],
        &[CREATED, cancel, cancel],
        &[CREATED, CREATED],
        &[CREATED, &split, cancel],
        &[CREATED, &split, "watch_id: 5 header {revision: 3}"],
        &["header {revision: 3} created: true canceled: true"],
        &["header {revision: 3} created: true events {kv {key: \"a\" mod_revision: 2}}"],
        &[CREATED, "header {revision: 3} watch_id: 9"],
    ];
    for responses in broken {
        assert!(!faults(responses).is_empty(), "{responses:?} passed");
    }
}

#[test]
fn a_revision_over_two_responses_is_a_fault_unless_they_are_fragments() {
    let halves = [sent(2, &[event("a", 2)]), sent(2, &[event("b", 2)])];
    assert!(!faults(&[CREATED, &halves[0], &halves[1]]).is_empty());
    let joined = [CREATED, &format!("{} fragment: true", halves[0]), &halves[1]];
    let whole = WatchCreateRequest { fragment: false, ..everything() };
    assert!(!judge(&whole, &joined).0.is_empty(), "fragments for someone who asked for none");
    let (faults, watcher) = judge(&everything(), &joined);
    assert_eq!(faults, [""; 0]);
    assert_eq!(watcher.unwrap().received.len(), 2);
}

#[test]
fn what_is_due_is_what_the_request_asks_for() {
    let history: Vec<_> = {
        let all = [event("a", 2), event("b", 2), event("c", 3), event("a", 4)];
        judge(&everything(), &[CREATED, &sent(4, &all)]).1.unwrap().received
    };
    let request = WatchCreateRequest {
        key: "a".into(),
        range_end: "c".into(),
        start_revision: 2,
        ..WatchCreateRequest::default()
    };
    let complete = [CREATED, &sent(2, &[event("a", 2), event("b", 2)]), &sent(4, &[event("a", 4)])];
    for (missing, is_right) in [(&complete[..], true), (&complete[..2], false)] {
        let mut watcher = judge(&request, missing).1.unwrap();
        watcher.read_history(&history);
        assert_eq!(watcher.first_mistake().is_none(), is_right);
        assert_eq!(watcher.is_served(), is_right);
    }
    let early = "watch_id: -1 header {revision: 4}";
    let mut watcher = judge(&request, &[complete[0], complete[1], early, complete[2]]).1.unwrap();
    watcher.read_history(&history);
    assert!(watcher.broken_promise().is_some(), "progress named a revision whose event was still to come");
    let mut watcher = judge(&request, &[complete[0], complete[1], complete[2], early]).1.unwrap();
    watcher.read_history(&history);
    assert_eq!(watcher.broken_promise(), None);
}
