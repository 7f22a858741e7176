//! Judges what was read against the history of all revisions: a read shows exactly what the keys were at its revision, a
//! linearizable one is not older than what any client had been told before it was called, and only a compaction refuses
//! the past.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::watch::history::History;
use super::watch::record::{Compaction, KeyId, KeyTable, Kind, Print};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What is, confirmed by a quorum.
    Linearizable,
    /// What one member has.
    Serializable,
    /// What was at a revision.
    Past(i64),
}

/// What it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// These keys, by their names.
    Keys(Vec<(KeyId, Print)>),
    /// That the revision is compacted.
    Compacted,
}

/// A read of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The member that was asked.
    pub member: usize,
    /// What for.
    pub mode: Mode,
    /// The first key.
    pub from: Bytes,
    /// The first key behind the range.
    pub to: Bytes,
    /// The highest revision that any client had been told when it was called.
    pub floor: i64,
    /// The revision of the answer's header.
    pub header: i64,
    /// When it was answered, since the run began.
    pub ended: Duration,
    /// The answer.
    pub shown: Shown,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A linearizable read is older than what somebody knew.
    Stale { member: usize, header: i64, floor: i64 },
    /// A header beyond the end of history.
    Beyond { member: usize, header: i64, newest: i64 },
    /// A key is not shown as it was.
    Differs { member: usize, mode: Mode, revision: i64, key: String },
    /// The past was refused, and no compaction had been asked for that would reach it.
    NeedlesslyCompacted { member: usize, revision: i64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { member, header, floor } => {
                write!(f, "stale: n{} read at {header}, and {floor} had been told", member + 1)
            }
            Self::Beyond { member, header, newest } => {
                write!(f, "n{} read at {header}, and history ends at {newest}", member + 1)
            }
            Self::Differs { member, mode, revision, key } => {
                write!(f, "n{}, {mode:?}: at {revision} {key} is not shown as it was", member + 1)
            }
            Self::NeedlesslyCompacted { member, revision } => {
                write!(f, "n{} refused revision {revision} as compacted, which nobody asked for", member + 1)
            }
        }
    }
}

/// What a key was from which revision on; `None`: it did not exist.
type States = Vec<(i64, Option<Print>)>;

/// What each key was.
struct Past {
    keys: BTreeMap<Bytes, (KeyId, States)>,
}

impl Past {
    fn of(history: &History, table: &KeyTable) -> Self {
        let mut keys: BTreeMap<Bytes, (KeyId, States)> = BTreeMap::new();
        for change in history.changes() {
            let name = table.keys()[change.key.place()].clone();
            let state = (change.kind == Kind::Put).then_some(change.state);
            keys.entry(name).or_insert_with(|| (change.key, Vec::new())).1.push((change.revision, state));
        }
        Self { keys }
    }

    fn at(&self, revision: i64, from: &Bytes, to: &Bytes) -> Vec<(KeyId, Print)> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        let there = self.keys.range::<Bytes, _>(range).filter_map(|(_, (key, states))| {
            let behind = states.partition_point(|(changed, _)| *changed <= revision);
            let state = states[..behind].last().and_then(|(_, state)| *state);
            state.map(|state| (*key, state))
        });
        there.collect()
    }
}

/// Judges all reads of a run.
pub fn judge(history: &History, keys: &KeyTable, reads: &[Read], compactions: &[Compaction]) -> Vec<Finding> {
    let past = Past::of(history, keys);
    let one = |read: &Read| judge_one(read, history, &past, keys, compactions);
    reads.iter().filter_map(one).collect()
}

fn judge_one(
    read: &Read,
    history: &History,
    past: &Past,
    keys: &KeyTable,
    compactions: &[Compaction],
) -> Option<Finding> {
    let Read { member, mode, header, floor, .. } = *read;
    let shown = match &read.shown {
        Shown::Keys(shown) => shown,
        Shown::Compacted => {
            let Mode::Past(revision) = mode else {
                return Some(Finding::NeedlesslyCompacted { member, revision: 0 });
            };
            let reaches = |asked: &Compaction| asked.revision > revision && asked.asked_at < read.ended;
            let is_excused = compactions.iter().any(reaches);
            return (!is_excused).then_some(Finding::NeedlesslyCompacted { member, revision });
        }
    };
    if header > history.newest() {
        return Some(Finding::Beyond { member, header, newest: history.newest() });
    }
    if mode != Mode::Serializable && header < floor {
        return Some(Finding::Stale { member, header, floor });
    }
    let revision = if let Mode::Past(revision) = mode { revision } else { header };
    let expected = past.at(revision, &read.from, &read.to);
    if expected == *shown {
        return None;
    }
    let wrong = shown.iter().find(|pair| !expected.contains(pair));
    let wrong = wrong.or_else(|| expected.iter().find(|pair| !shown.contains(pair)));
    let key = wrong.map_or_else(|| "(the order)".to_owned(), |(key, _)| keys.name(*key));
    Some(Finding::Differs { member, mode, revision, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Contents, Stored};
    use crate::judge::watch::history::{Applied, Step};
    use crate::judge::watch::record::Pair;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// `a` is put at 2, `b` at 3, `a` is deleted at 4.
    fn scene() -> (History, KeyTable) {
        let put = |key, value| Step::Put { key: bytes(key), value: bytes(value), lease: 0 };
        let delete = Step::Delete { key: bytes("a"), range_end: Bytes::new() };
        let steps = [vec![put("a", "1")], vec![put("b", "2")], vec![delete]];
        let applied: Vec<Applied> =
            (2..).zip(steps).map(|(revision, steps)| Applied { revision, steps }).collect();
        let b = Stored { value: bytes("2"), create_revision: 3, mod_revision: 3, version: 1 };
        let end = Contents { revision: 4, pairs: BTreeMap::from([(bytes("b"), b)]) };
        let mut keys = KeyTable::default();
        (History::replay(&applied, &end, &mut keys).unwrap(), keys)
    }

    fn shown(keys: &mut KeyTable, names: &[&str]) -> Shown {
        let pair = |name: &&str| {
            let (value, revision) = if *name == "a" { ("1", 2) } else { ("2", 3) };
            let (create_revision, mod_revision) = (revision, revision);
            let value = value.as_bytes();
            (
                keys.id(name.as_bytes()),
                Pair { value, create_revision, mod_revision, version: 1, lease: 0 }.print(),
            )
        };
        Shown::Keys(names.iter().map(pair).collect())
    }

    fn read(mode: Mode, header: i64, shown: Shown) -> Read {
        let (from, to, ended) = (bytes("a"), bytes("z"), Duration::from_secs(5));
        Read { member: 0, mode, from, to, floor: 3, header, ended, shown }
    }

    #[test]
    fn reads_show_what_was_and_anything_else_is_found() {
        let (history, mut keys) = scene();
        let both = shown(&mut keys, &["a", "b"]);
        let b = shown(&mut keys, &["b"]);
        let find = |read: Read| judge(&history, &keys, &[read], &[]);
        for (mode, header) in [(Mode::Linearizable, 3), (Mode::Serializable, 3), (Mode::Past(3), 4)] {
            assert_eq!(find(read(mode, header, both.clone())), []);
            assert!(matches!(find(read(mode, header, b.clone()))[..], [Finding::Differs { .. }]));
        }
        assert_eq!(find(read(Mode::Linearizable, 4, b.clone())), []);
        // A serializable read may be old, and is then what was.
        assert_eq!(find(read(Mode::Serializable, 1, Shown::Keys(Vec::new()))), []);
        assert!(matches!(find(read(Mode::Serializable, 4, both))[..], [Finding::Differs { .. }]));
    }

    #[test]
    fn stale_reads_and_revisions_from_nowhere_are_found() {
        let (history, mut keys) = scene();
        let a = shown(&mut keys, &["a"]);
        let find = |header| judge(&history, &keys, &[read(Mode::Linearizable, header, a.clone())], &[]);
        assert_eq!(find(2), [Finding::Stale { member: 0, header: 2, floor: 3 }]);
        assert_eq!(find(5), [Finding::Beyond { member: 0, header: 5, newest: 4 }]);
    }

    #[test]
    fn the_past_is_refused_by_a_compaction_alone() {
        let (history, keys) = scene();
        let refused = [read(Mode::Past(2), 4, Shown::Compacted)];
        let asked = |revision, at| [Compaction { revision, asked_at: Duration::from_secs(at) }];
        assert_eq!(judge(&history, &keys, &refused, &asked(3, 4)), []);
        for compactions in [&asked(2, 4)[..], &asked(3, 6), &[]] {
            let found = judge(&history, &keys, &refused, compactions);
            assert_eq!(found, [Finding::NeedlesslyCompacted { member: 0, revision: 2 }]);
        }
    }
}
