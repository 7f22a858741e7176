//! An honest record passes; each doctored one is caught.

use super::*;

/// Revisions 2 to 6: a fresh key, three puts of a hot key of which the middle one is unknown but applied, another fresh
/// key of unknown outcome that was applied, one that was not, and one refused.
struct Run {
    attempts: Vec<Attempt>,
    past: Vec<PastRead>,
    contents: Contents,
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str, outcome: Outcome, floor: i64) -> Attempt {
    Attempt { key: bytes(key), value: bytes(value), outcome, floor }
}

fn stored(value: &str, create_revision: i64, mod_revision: i64, version: i64) -> Stored {
    Stored { value: bytes(value), create_revision, mod_revision, version }
}

fn honest() -> Run {
    let unknown = || Outcome::Unknown("no answer".to_owned());
    let attempts = vec![
        put("fresh/1", "a", Outcome::Acked(2), 0),
        put("hot/1", "b", Outcome::Acked(3), 2),
        put("hot/1", "c", unknown(), 3),
        put("hot/1", "d", Outcome::Acked(5), 3),
        put("fresh/2", "e", unknown(), 5),
        put("fresh/3", "f", unknown(), 5),
        put("fresh/4", "g", Outcome::Refused("no".to_owned()), 5),
    ];
    let past = vec![
        PastRead { key: bytes("hot/1"), revision: 3, found: Some(stored("b", 3, 3, 1)) },
        PastRead { key: bytes("hot/1"), revision: 5, found: Some(stored("d", 3, 5, 3)) },
    ];
    let pairs = BTreeMap::from([
        (bytes("fresh/1"), stored("a", 2, 2, 1)),
        (bytes("fresh/2"), stored("e", 6, 6, 1)),
        (bytes("hot/1"), stored("d", 3, 5, 3)),
    ]);
    Run { attempts, past, contents: Contents { revision: 6, pairs } }
}

/// What the judge says after `change` was done to an honest run.
fn doctored(change: impl FnOnce(&mut Run)) -> Vec<Finding> {
    let mut run = honest();
    change(&mut run);
    judge(&run.attempts, &run.past, &run.contents)
}

#[test]
fn an_honest_run_has_no_findings() {
    assert_eq!(doctored(|_| {}), vec![]);
}

#[test]
fn a_lost_put_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.remove(&bytes("fresh/1"));
    });
    assert!(findings.contains(&Finding::Lost { key: bytes("fresh/1"), revision: 2 }), "{findings:?}");
}

#[test]
fn a_lost_newest_put_of_a_hot_key_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.insert(bytes("hot/1"), stored("c", 3, 4, 2));
        run.contents.revision = 5;
    });
    assert!(matches!(findings[..], [Finding::Altered { revision: 5, .. }]), "{findings:?}");
}

#[test]
fn a_put_missing_from_history_is_found() {
    let findings = doctored(|run| run.past[0].found = None);
    assert_eq!(findings, vec![Finding::Lost { key: bytes("hot/1"), revision: 3 }]);
}

#[test]
fn another_value_in_history_is_found() {
    let findings = doctored(|run| run.past[1].found = Some(stored("c", 3, 5, 3)));
    assert!(matches!(findings[..], [Finding::Altered { revision: 5, .. }]), "{findings:?}");
}

#[test]
fn a_changed_value_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.insert(bytes("fresh/1"), stored("x", 2, 2, 1));
    });
    assert!(matches!(findings[..], [Finding::Altered { revision: 2, .. }]), "{findings:?}");
}

#[test]
fn a_put_at_another_revision_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.insert(bytes("fresh/1"), stored("a", 4, 4, 1));
    });
    assert!(matches!(findings[..], [Finding::Altered { revision: 2, .. }]), "{findings:?}");
}

#[test]
fn a_refused_put_that_is_there_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.insert(bytes("fresh/4"), stored("g", 7, 7, 1));
        run.contents.revision = 7;
    });
    assert!(matches!(findings[..], [Finding::Phantom { .. }]), "{findings:?}");
}

#[test]
fn a_key_that_nobody_put_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.insert(bytes("stranger"), stored("z", 7, 7, 1));
        run.contents.revision = 7;
    });
    assert!(matches!(findings[..], [Finding::Phantom { .. }]), "{findings:?}");
}

#[test]
fn a_put_applied_twice_is_found() {
    let findings = doctored(|run| {
        run.contents.pairs.insert(bytes("fresh/2"), stored("e", 6, 7, 2));
        run.contents.revision = 7;
    });
    let expected = Finding::Version { key: bytes("fresh/2"), version: 2, acked: 0, unknown: 1 };
    assert_eq!(findings, vec![expected]);
}

#[test]
fn a_change_that_left_no_key_is_found() {
    let findings = doctored(|run| run.contents.revision = 7);
    assert_eq!(findings, vec![Finding::Count { revision: 7, expected: 6 }]);
}

#[test]
fn a_revision_given_twice_is_found() {
    let findings = doctored(|run| run.attempts[1].outcome = Outcome::Acked(2));
    assert!(findings.iter().any(|finding| matches!(finding, Finding::SharedRevision { revision: 2, .. })));
    assert!(
        findings.iter().any(|finding| matches!(finding, Finding::BackInTime { revision: 2, floor: 2, .. }))
    );
}

#[test]
fn a_history_that_was_not_read_does_not_pass() {
    let findings = doctored(|run| {
        run.past.pop();
    });
    assert_eq!(findings, vec![Finding::NotRead { key: bytes("hot/1"), revision: 5 }]);
}
