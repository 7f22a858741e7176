//! Locks and their sessions: who believed to hold the lock, when, and what was written under it.
//!
//! Times are nanoseconds of the monotonic clock that all processes of a machine share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;

use super::world::{Change, World};

/// From when until when somebody was told to hold the lock: it was at `from`, and each time it asked up to `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the line above says it")]
pub struct Belief {
    pub token: i64,
    pub from: u64,
    pub until: u64,
}

/// A write under the lock that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the line above says it")]
pub struct Fact {
    pub revision: i64,
    pub value: String,
}

/// One of those who took the lock in turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Contender {
    /// Its place among them.
    pub session: u64,
    /// Sessions that it opened.
    pub opened: u64,
    /// Those that were lost.
    pub lost: u64,
    /// When it held the lock.
    pub beliefs: Vec<Belief>,
    /// What it wrote.
    pub facts: Vec<Fact>,
    /// What it was told not to have written.
    pub refused: Vec<String>,
    /// How often it was told nothing.
    pub unknown: u64,
}

/// What a member has shown: these places in the queue were there at a revision, and no others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When its answer was here.
    pub at: u64,
    /// The member's revision.
    pub revision: i64,
    /// The tokens: create revisions.
    pub tokens: BTreeSet<i64>,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
pub enum Finding {
    /// Somebody believed to hold the lock when somebody with a higher token had been told to.
    Overlap { token: i64, next: i64, nanoseconds: u64 },
    /// Two held the lock with one token.
    Shared { token: i64 },
    /// A lock taken later has a lower token.
    Falls { token: i64, after: i64 },
    /// Somebody believed to hold the lock when a member had shown that its place was gone.
    Outlived { token: i64, nanoseconds: u64 },
    /// There never was such a place.
    NoPlace { token: i64 },
    /// A write under the lock with a token that did not hold it; 0: nobody did.
    Unfenced { revision: i64, token: i64, held: i64 },
    /// A write that was acknowledged is not there.
    LostFact { revision: i64, value: String },
    /// A write that was refused is there.
    RefusedFact { revision: i64, value: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock: {self:?}")
    }
}

/// Where the lock is, and what is written under it.
#[derive(Debug, Clone)]
pub struct Names {
    /// What the keys of all places begin with.
    pub queue: String,
    /// The key that is written under the lock; its values begin with the token and a stroke.
    pub fact: String,
}

/// Judges one lock.
pub fn judge(world: &World, names: &Names, contenders: &[Contender], looks: &[Look]) -> Vec<Finding> {
    let mut beliefs: Vec<Belief> = contenders.iter().flat_map(|one| one.beliefs.iter().copied()).collect();
    beliefs.sort_by_key(|belief| (belief.token, belief.from));
    let mut findings = turns(&beliefs);
    findings.extend(outlived(&beliefs, looks));
    findings.extend(fenced(world, names, &beliefs));
    findings.extend(facts(world, names, contenders));
    findings
}

/// Beliefs by token: each begins behind the end of all before it.
fn turns(beliefs: &[Belief]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pair in beliefs.windows(2) {
        let ([before, next], nanoseconds) = ([pair[0], pair[1]], pair[0].until.saturating_sub(pair[1].from));
        if before.token == next.token {
            findings.push(Finding::Shared { token: next.token });
        } else if next.from < before.from {
            findings.push(Finding::Falls { token: before.token, after: next.token });
        } else if nanoseconds > 0 {
            findings.push(Finding::Overlap { token: before.token, next: next.token, nanoseconds });
        }
    }
    findings
}

fn outlived(beliefs: &[Belief], looks: &[Look]) -> Vec<Finding> {
    let mut order: Vec<&Look> = looks.iter().collect();
    order.sort_by_key(|look| look.at);
    let gone_at = |token: i64| {
        let gone = order.iter().find(|look| look.revision >= token && !look.tokens.contains(&token));
        gone.map(|look| look.at)
    };
    let outlived = |belief: &Belief| {
        let nanoseconds = belief.until.saturating_sub(gone_at(belief.token)?);
        (nanoseconds > 0).then_some(Finding::Outlived { token: belief.token, nanoseconds })
    };
    beliefs.iter().filter_map(outlived).collect()
}

/// Who is first in the queue holds the lock.
fn fenced(world: &World, names: &Names, beliefs: &[Belief]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut queue: BTreeMap<i64, &Bytes> = BTreeMap::new();
    let mut places: BTreeSet<i64> = BTreeSet::new();
    for Change { revision, key, value } in world.changes() {
        if key.starts_with(names.queue.as_bytes()) {
            if value.is_none() {
                queue.retain(|_, place| *place != key);
            } else if !queue.values().any(|place| *place == key) {
                queue.insert(*revision, key);
                places.insert(*revision);
            }
        } else if let Some(value) = value.as_ref().filter(|_| key == names.fact.as_bytes()) {
            let (token, held) = (token(value), queue.keys().next().copied().unwrap_or(0));
            if token != held {
                findings.push(Finding::Unfenced { revision: *revision, token, held });
            }
        }
    }
    let unknown = beliefs.iter().filter(|belief| !places.contains(&belief.token));
    findings.extend(unknown.map(|belief| Finding::NoPlace { token: belief.token }));
    findings
}

fn token(value: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(value);
    text.split('/').next().and_then(|token| token.parse().ok()).unwrap_or(-1)
}

fn facts(world: &World, names: &Names, contenders: &[Contender]) -> Vec<Finding> {
    let written = world.changes().iter().filter(|change| change.key == names.fact.as_bytes());
    let written = written.filter_map(|change| {
        let value = String::from_utf8_lossy(change.value.as_ref()?).into_owned();
        Some((value, change.revision))
    });
    let written: HashMap<String, i64> = written.collect();
    let mut findings = Vec::new();
    for Contender { facts, refused, .. } in contenders {
        let lost = facts.iter().filter(|fact| written.get(&fact.value) != Some(&fact.revision));
        findings.extend(lost.map(|fact| {
            let Fact { revision, value } = fact.clone();
            Finding::LostFact { revision, value }
        }));
        findings.extend(refused.iter().filter_map(|value| {
            let revision = *written.get(value)?;
            Some(Finding::RefusedFact { revision, value: value.clone() })
        }));
    }
    findings
}
