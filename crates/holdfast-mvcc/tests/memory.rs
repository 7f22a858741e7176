//! What the index costs per key and per further revision: the budget of 120 bytes per key beside the key, and 16 per
//! further retained revision.
//!
//! Measured as the growth of the process's resident memory, so that the allocator's own overhead and its rounding
//! count too. One test, so that nothing else runs in this process; every state stays alive to the end, so that no
//! measurement is served from memory that an earlier one gave back.

use std::io::Write;

use std::sync::Arc;

use bytes::Bytes;
use holdfast_mvcc::types::{RecordId, Revision};
use holdfast_mvcc::{Head, PutMeta, RecordMeta, State};

const KEYS: u64 = 50_000;
const KEY_BYTES_MAX: u64 = 120;
const REVISION_BYTES_MAX: u64 = 16;

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// What happens to a key in one round.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Put,
    Delete,
}

/// One way in which an index grows: each round touches every key once.
struct Growth {
    name: &'static str,
    rounds: Vec<Step>,
    shuffled: bool,
}

/// The place of the `n`-th key to be touched: ascending, or all over the place.
fn place(n: u64, shuffled: bool) -> u64 {
    // 48,271 and 50,000 have no common divisor, so that each place comes once.
    if shuffled { n * 48_271 % KEYS } else { n }
}

fn grow(growth: &Growth) -> State {
    let revisions = 1 + KEYS * growth.rounds.len() as u64;
    let head = Head {
        revision: Revision::new(revisions),
        compact_revision: None,
        members: Vec::new(),
        alarms: Vec::new(),
        auth: Arc::default(),
    };
    let mut state = State::with_head(head);
    let mut revision = 1;
    for (round, step) in growth.rounds.iter().enumerate() {
        let generation =
            growth.rounds[..round].iter().rposition(|step| *step == Step::Delete).map_or(0, |at| at + 1);
        for n in 0..KEYS {
            revision += 1;
            let put = PutMeta {
                create_revision: Revision::new(revision - KEYS * (round - generation) as u64),
                version: (round - generation) as u64 + 1,
                lease: None,
                value_bytes: 500,
            };
            state.restore(&RecordMeta {
                id: RecordId::new(Revision::new(revision), 0),
                key: Bytes::from(format!("/registry/pods/default/pod-{:06}", place(n, growth.shuffled))),
                put: (*step == Step::Put).then_some(put),
            });
        }
    }
    state
}

#[test]
fn the_index_stays_within_its_budget() {
    let mut out = std::io::stderr();
    if resident_bytes().is_none() {
        writeln!(out, "skipped: memory of the key index: no /proc/self/status here").expect("stderr");
        return;
    }
    let puts = |count| vec![Step::Put; count];
    let growths = [
        Growth { name: "1 revision, ascending keys", rounds: puts(1), shuffled: false },
        Growth { name: "1 revision, keys in any order", rounds: puts(1), shuffled: true },
        Growth { name: "2 revisions, ascending keys", rounds: puts(2), shuffled: false },
        Growth { name: "5 revisions, keys in any order", rounds: puts(5), shuffled: true },
        Growth { name: "20 revisions, ascending keys", rounds: puts(20), shuffled: false },
        Growth { name: "created, deleted", rounds: vec![Step::Put, Step::Delete], shuffled: false },
        Growth {
            name: "created, deleted, created",
            rounds: vec![Step::Put, Step::Delete, Step::Put],
            shuffled: true,
        },
    ];
    let key_bytes = "/registry/pods/default/pod-000000".len() as u64;
    let mut alive = Vec::new();
    for growth in &growths {
        let before = resident_bytes().expect("seen before");
        alive.push(grow(growth));
        // Memory that an earlier growth gave back may be used again: then there is less to see, not less than nothing.
        let grown = resident_bytes().expect("seen before").saturating_sub(before);
        let bytes = (grown / KEYS).saturating_sub(key_bytes);
        let budget = KEY_BYTES_MAX + REVISION_BYTES_MAX * (growth.rounds.len() as u64 - 1);
        writeln!(out, "{:31} {bytes:4} of {budget} bytes per key", growth.name).expect("stderr");
        assert!(bytes <= budget, "{}: {bytes} bytes per key beside the key, budget {budget}", growth.name);
    }
    assert_eq!(alive.len(), growths.len());
}
