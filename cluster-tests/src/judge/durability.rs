//! Judges the puts of a run against what the cluster holds afterwards.
//!
//! Two kinds of keys carry the proof. A *fresh* key is put once, so it must be there exactly as acknowledged. A *hot*
//! key is put many times with values that are never repeated; a read at each acknowledged revision must show that
//! put's value. Rules:
//!
//! - an acknowledged put is there, at its revision, with its value;
//! - a refused put is not there; an unknown one may be, once;
//! - nothing is there that nobody put;
//! - every acknowledged put has a revision of its own, above every revision acknowledged before it began;
//! - each applied put moved the revision by one: the final revision counts them exactly.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;

use crate::client::{Contents, Outcome, Stored};

/// One put as its writer saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The key.
    pub key: Bytes,
    /// Its value, unlike every other value of this key.
    pub value: Bytes,
    /// What the call came to.
    pub outcome: Outcome,
    /// The highest revision that any client had been told when this call began; 0 for none.
    pub floor: i64,
}

/// A read of a hot key at the revision of an acknowledged put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRead {
    /// The key.
    pub key: Bytes,
    /// The revision read at.
    pub revision: i64,
    /// What was there.
    pub found: Option<Stored>,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An acknowledged put is not there.
    Lost { key: Bytes, revision: i64 },
    /// The key is there, but not as one of its puts would have left it.
    Altered { key: Bytes, revision: i64, found: Stored },
    /// A key or a value that nobody put, or whose put was refused.
    Phantom { key: Bytes, found: Stored },
    /// Two acknowledged puts share a revision.
    SharedRevision { key: Bytes, other: Bytes, revision: i64 },
    /// An acknowledged put got a revision that others had seen before it began.
    BackInTime { key: Bytes, revision: i64, floor: i64 },
    /// More or fewer changes of a key than its puts can explain.
    Version { key: Bytes, version: i64, acked: i64, unknown: i64 },
    /// The final revision does not count the changes that are there.
    Count { revision: i64, expected: i64 },
    /// No read at this acknowledged revision of a hot key was made: the judge has not seen enough.
    NotRead { key: Bytes, revision: i64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        match self {
            Self::Lost { key, revision } => {
                write!(f, "lost: {} acknowledged at revision {revision}", name(key))
            }
            Self::Altered { key, revision, found } => {
                write!(f, "altered: {} acknowledged at {revision} is now {}", name(key), shape(found))
            }
            Self::Phantom { key, found } => write!(f, "phantom: {} is {}", name(key), shape(found)),
            Self::SharedRevision { key, other, revision } => {
                write!(f, "shared revision {revision}: {} and {}", name(key), name(other))
            }
            Self::BackInTime { key, revision, floor } => {
                write!(f, "back in time: {} got {revision} after {floor} had been seen", name(key))
            }
            Self::Version { key, version, acked, unknown } => {
                write!(
                    f,
                    "version of {} is {version} after {acked} acknowledged and {unknown} unknown puts",
                    name(key)
                )
            }
            Self::Count { revision, expected } => {
                write!(f, "the revision is {revision}; the changes that are there make it {expected}")
            }
            Self::NotRead { key, revision } => write!(f, "{} was not read at {revision}", name(key)),
        }
    }
}

fn shape(stored: &Stored) -> String {
    let Stored { value, create_revision, mod_revision, version } = stored;
    let start = String::from_utf8_lossy(&value[..value.len().min(24)]).into_owned();
    format!("{start:?}.. (created {create_revision}, modified {mod_revision}, version {version})")
}

/// Everything that is wrong with a run that began on an empty store, whose first revision is 1.
pub fn judge(attempts: &[Attempt], past: &[PastRead], contents: &Contents) -> Vec<Finding> {
    let mut findings = revisions(attempts);
    let mut by_key: BTreeMap<&Bytes, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        by_key.entry(&attempt.key).or_default().push(attempt);
    }
    let read: HashMap<(&Bytes, i64), Option<&Stored>> =
        past.iter().map(|read| ((&read.key, read.revision), read.found.as_ref())).collect();
    for (key, puts) in &by_key {
        findings.extend(judge_key(key, puts, contents.pairs.get(*key), &read));
    }
    for (key, found) in contents.pairs.iter().filter(|(key, _)| !by_key.contains_key(*key)) {
        findings.push(Finding::Phantom { key: key.clone(), found: found.clone() });
    }
    let expected = 1 + contents.pairs.values().map(|stored| stored.version).sum::<i64>();
    if expected != contents.revision {
        findings.push(Finding::Count { revision: contents.revision, expected });
    }
    findings
}

/// Revisions are unique and agree with real time.
fn revisions(attempts: &[Attempt]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut owners: HashMap<i64, &Bytes> = HashMap::new();
    for attempt in attempts {
        let Outcome::Acked(revision) = attempt.outcome else { continue };
        let key = attempt.key.clone();
        if let Some(other) = owners.insert(revision, &attempt.key) {
            findings.push(Finding::SharedRevision { key: key.clone(), other: other.clone(), revision });
        }
        if revision <= attempt.floor {
            findings.push(Finding::BackInTime { key, revision, floor: attempt.floor });
        }
    }
    findings
}

fn judge_key(
    key: &Bytes,
    puts: &[&Attempt],
    found: Option<&Stored>,
    read: &HashMap<(&Bytes, i64), Option<&Stored>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let last_acked = puts.iter().filter_map(|put| acked(put)).max();
    let Some(found) = found else {
        if let Some(revision) = last_acked {
            findings.push(Finding::Lost { key: key.clone(), revision });
        }
        return findings;
    };
    findings.extend(judge_newest(key, puts, found, last_acked));
    if puts.len() > 1 {
        for put in puts {
            if let Some(revision) = acked(put) {
                findings.extend(judge_past(put, revision, read.get(&(key, revision)).copied()));
            }
        }
    }
    findings
}

/// The newest state of a key comes from one of its puts, and from none that a later acknowledged one covers.
fn judge_newest(key: &Bytes, puts: &[&Attempt], found: &Stored, last_acked: Option<i64>) -> Option<Finding> {
    let altered = |revision| Some(Finding::Altered { key: key.clone(), revision, found: found.clone() });
    let acked_count = puts.iter().filter(|put| acked(put).is_some()).count();
    let unknown_count = puts.iter().filter(|put| matches!(put.outcome, Outcome::Unknown(_))).count();
    let (acked_count, unknown_count) = (to_i64(acked_count), to_i64(unknown_count));
    let source = puts.iter().find(|put| put.value == found.value);
    match source.map(|put| &put.outcome) {
        None if last_acked == Some(found.mod_revision) => return altered(found.mod_revision),
        None | Some(Outcome::Refused(_)) => {
            return Some(Finding::Phantom { key: key.clone(), found: found.clone() });
        }
        Some(Outcome::Acked(revision)) if *revision != found.mod_revision => return altered(*revision),
        Some(Outcome::Acked(_) | Outcome::Unknown(_)) => {}
    }
    if let Some(revision) = last_acked.filter(|revision| *revision > found.mod_revision) {
        return altered(revision);
    }
    let explained = acked_count.max(1)..=acked_count + unknown_count;
    if !explained.contains(&found.version) {
        let (key, version) = (key.clone(), found.version);
        return Some(Finding::Version { key, version, acked: acked_count, unknown: unknown_count });
    }
    None
}

/// At the revision of an acknowledged put, its value is what a read shows.
fn judge_past(put: &Attempt, revision: i64, read: Option<Option<&Stored>>) -> Option<Finding> {
    let key = put.key.clone();
    match read {
        None => Some(Finding::NotRead { key, revision }),
        Some(None) => Some(Finding::Lost { key, revision }),
        Some(Some(found)) if found.value != put.value || found.mod_revision != revision => {
            Some(Finding::Altered { key, revision, found: found.clone() })
        }
        Some(Some(_)) => None,
    }
}

fn acked(attempt: &Attempt) -> Option<i64> {
    match attempt.outcome {
        Outcome::Acked(revision) => Some(revision),
        Outcome::Refused(_) | Outcome::Unknown(_) => None,
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).expect("no run makes 2^63 puts")
}

#[cfg(test)]
mod tests;
