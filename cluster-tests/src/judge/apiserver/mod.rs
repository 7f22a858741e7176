//! Judges what API servers saw through their calls against the store's history. The laws, each with doctored records that
//! it has to refuse in `tests.rs`:
//!
//! | law | what it says |
//! | --- | --- |
//! | list | the pages or pieces of a list together are the store at one revision, in order; `count`, `more`, headers are right |
//! | fresh | neither a list nor a consistent read shows less than was acknowledged before it began |
//! | cache | what a watch cache holds once it has seen progress at R is what the store held then |
//! | swap | a transaction on a key's revision takes effect exactly when the key is as expected, and else shows how it is |
//! | turn | each version of the compactor's key is taken by one API server, and losers are shown the version there is |
//! | compacted | a read is refused as compacted only behind a compaction beyond its revision |
//!
//! What watches deliver is judged by [`crate::judge::watch`], with the same history.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::watch::history::History;
use super::watch::record::{Compaction, KeyId, KeyTable, Kind, Print};

/// A law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table of the module says what each of them is")]
pub enum Law {
    List,
    Fresh,
    Cache,
    Swap,
    Turn,
    Compacted,
}

/// A key as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The key.
    pub key: KeyId,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// All that was stored under it.
    pub print: Print,
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first key.
    pub from: Bytes,
    /// The first key behind it.
    pub end: Bytes,
}

/// A page, or a piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The header's revision, if there was a header.
    pub header: Option<i64>,
    /// The pairs, in their order.
    pub pairs: Vec<Held>,
    /// What it says of what is behind.
    pub more: bool,
    /// How many keys it counts.
    pub count: i64,
}

/// How a list was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In pages of at most so many keys, all at the revision of the first.
    Pages(usize),
    /// As a stream.
    Stream,
}

/// A list that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What was listed.
    pub span: Span,
    /// How.
    pub way: Way,
    /// A revision that was acknowledged to somebody before the list began.
    pub floor: i64,
    /// What came, in order.
    pub parts: Vec<Part>,
}

impl Listed {
    /// The one revision of the list.
    pub fn revision(&self) -> i64 {
        self.parts.iter().find_map(|part| part.header).unwrap_or(0)
    }
}

/// A consistent read from a watch cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRead {
    /// What the cache holds.
    pub span: Span,
    /// A revision that was acknowledged to somebody before the read began.
    pub floor: i64,
    /// The store's revision, which the read asked for first.
    pub wanted: i64,
    /// The revision that the cache had reached when it answered.
    pub at: i64,
    /// What it held, ascending by key.
    pub pairs: Vec<Held>,
}

/// What a transaction on a key's revision came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swapped {
    /// It took effect at this revision.
    Won(i64),
    /// It did not.
    Lost {
        /// The header's revision.
        header: i64,
        /// What the read in the other branch showed, if there was one; the inner `None` is "no such key".
        shown: Option<Option<Held>>,
    },
}

/// A transaction on a key's revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swap {
    /// The key.
    pub key: KeyId,
    /// The revision that it had to have; 0 for "does not exist".
    pub expected: i64,
    /// What came of it.
    pub outcome: Swapped,
}

/// An attempt of a compactor to take the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The version of its key that it expected.
    pub expected: i64,
    /// The revision at which it took the turn; else the header's revision and the version it was shown.
    pub outcome: Result<i64, (i64, i64)>,
}

/// A read that was refused as compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The revision it wanted.
    pub revision: i64,
    /// When it was refused.
    pub at: Duration,
}

/// All that is recorded of a run, beside its watches.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Lists.
    pub lists: Vec<Listed>,
    /// Consistent reads.
    pub reads: Vec<CacheRead>,
    /// Transactions.
    pub swaps: Vec<Swap>,
    /// The compactors' turns.
    pub turns: Vec<Turn>,
    /// Reads that were refused as compacted.
    pub refused: Vec<Refused>,
}

/// What it is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Measure<'a> {
    /// The history.
    pub history: &'a History,
    /// The names of keys.
    pub keys: &'a KeyTable,
    /// The compactors' key, if they have one.
    pub turn_key: Option<KeyId>,
    /// All compactions that were asked for.
    pub compactions: &'a [Compaction],
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The law that is broken.
    pub law: Law,
    /// How, in words.
    pub how: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.law, self.how)
    }
}

fn finding(law: Law, how: impl Into<String>) -> Finding {
    Finding { law, how: how.into() }
}

/// Something to look at once the replay has come to its revision.
enum Check<'a> {
    List(&'a Listed),
    Read(&'a CacheRead),
    /// The key must be as expected.
    Won(&'a Swap),
    /// The key must be as shown, and not as expected.
    Lost(&'a Swap, Option<Option<Held>>),
    /// The version must be this, and not the expected one.
    Turn(&'a Turn, i64),
}

/// Everything that is wrong with a run.
pub fn judge(measure: &Measure<'_>, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut checks: Vec<(i64, Check<'_>)> = Vec::new();
    for list in &seen.lists {
        let revision = list.revision();
        findings.extend(fresh("a list", list.floor, revision));
        checks.push((revision, Check::List(list)));
    }
    for read in &seen.reads {
        findings.extend(fresh("a consistent read", read.floor, read.wanted));
        findings.extend(fresh("a cache", read.wanted, read.at));
        checks.push((read.at, Check::Read(read)));
    }
    for swap in &seen.swaps {
        checks.push(match swap.outcome {
            Swapped::Won(revision) => (revision - 1, Check::Won(swap)),
            Swapped::Lost { header, shown } => (header, Check::Lost(swap, shown)),
        });
    }
    let mut winners = BTreeSet::new();
    for turn in &seen.turns {
        match turn.outcome {
            Ok(_) if !winners.insert(turn.expected) => {
                findings.push(finding(Law::Turn, format!("version {} was taken twice", turn.expected)));
            }
            Ok(revision) => checks.push((revision - 1, Check::Turn(turn, turn.expected))),
            Err((header, version)) => checks.push((header, Check::Turn(turn, version))),
        }
    }
    findings.extend(seen.refused.iter().filter_map(|refused| needless(measure, refused)));
    checks.sort_by_key(|(revision, _)| *revision);
    let mut store = Replay::new(measure);
    for (revision, check) in checks {
        store.go_to(revision);
        findings.extend(store.check(&check));
    }
    findings
}

fn fresh(what: &str, floor: i64, revision: i64) -> Option<Finding> {
    (revision < floor)
        .then(|| finding(Law::Fresh, format!("{what} at {revision} began when {floor} was acknowledged")))
}

fn needless(measure: &Measure<'_>, refused: &Refused) -> Option<Finding> {
    let mut before = measure.compactions.iter().filter(|asked| asked.asked_at <= refused.at);
    let is_needless = !before.any(|asked| asked.revision > refused.revision);
    is_needless.then(|| {
        finding(Law::Compacted, format!("{} is compacted, and nobody has asked for it", refused.revision))
    })
}

/// The store, as history makes it.
struct Replay<'a> {
    measure: &'a Measure<'a>,
    place: usize,
    held: BTreeMap<&'a Bytes, Held>,
    /// How often the compactors' key was put.
    version: i64,
}

impl<'a> Replay<'a> {
    fn new(measure: &'a Measure<'a>) -> Self {
        Self { measure, place: 0, held: BTreeMap::new(), version: 0 }
    }

    /// Carries out what happened up to a revision; never goes back.
    fn go_to(&mut self, revision: i64) {
        let behind = &self.measure.history.changes()[self.place..];
        let now = behind.iter().take_while(|change| change.revision <= revision);
        for change in now {
            let name = &self.measure.keys.keys()[change.key.place()];
            match change.kind {
                Kind::Put => {
                    let held = Held { key: change.key, mod_revision: change.revision, print: change.state };
                    self.held.insert(name, held);
                    self.version += i64::from(Some(change.key) == self.measure.turn_key);
                }
                Kind::Delete => {
                    self.held.remove(name);
                }
            }
            self.place += 1;
        }
    }

    fn within(&self, span: &Span) -> Vec<Held> {
        if span.from >= span.end {
            return Vec::new();
        }
        self.held.range::<Bytes, _>(&span.from..&span.end).map(|(_, held)| *held).collect()
    }

    fn key(&self, key: KeyId) -> Option<Held> {
        self.held.get(&self.measure.keys.keys()[key.place()]).copied()
    }

    fn check(&self, check: &Check<'_>) -> Vec<Finding> {
        match check {
            Check::List(list) => match list.way {
                Way::Pages(limit) => self.pages(list, limit),
                Way::Stream => self.stream(list),
            },
            Check::Read(read) => self.cache(read).into_iter().collect(),
            Check::Won(swap) => self.won(swap).into_iter().collect(),
            Check::Lost(swap, shown) => self.lost(swap, *shown),
            Check::Turn(turn, version) => self.turn(turn, *version),
        }
    }

    fn pages(&self, list: &Listed, limit: usize) -> Vec<Finding> {
        let revision = list.revision();
        let wrong = |how: String| finding(Law::List, format!("at {revision}: {how}"));
        let mut findings = Vec::new();
        let mut rest = &self.within(&list.span)[..];
        for (number, part) in list.parts.iter().enumerate() {
            let expected = &rest[..limit.min(rest.len())];
            if part.pairs != expected {
                findings.push(wrong(self.difference(&part.pairs, expected)));
                return findings;
            }
            let (count, more) = (i64::try_from(rest.len()).unwrap_or(i64::MAX), rest.len() > limit);
            if (part.count, part.more) != (count, more) {
                let (found, said) = (part.count, part.more);
                findings.push(wrong(format!(
                    "page {number} counts {found} and says more: {said}; there are {count}"
                )));
            }
            if part.header.is_none_or(|header| header < revision) {
                findings.push(wrong(format!("page {number} has the header {:?}", part.header)));
            }
            rest = &rest[expected.len()..];
        }
        if !rest.is_empty() {
            findings.push(wrong(format!("{} keys are in no page", rest.len())));
        }
        findings
    }

    fn stream(&self, list: &Listed) -> Vec<Finding> {
        let revision = list.revision();
        let wrong = |how: String| finding(Law::List, format!("stream at {revision}: {how}"));
        let expected = self.within(&list.span);
        let pairs: Vec<Held> = list.parts.iter().flat_map(|part| part.pairs.iter().copied()).collect();
        let mut findings = Vec::new();
        if pairs != expected {
            findings.push(wrong(self.difference(&pairs, &expected)));
        }
        let Some((last, others)) = list.parts.split_last() else {
            return vec![wrong("no piece came".to_owned())];
        };
        if others.iter().any(|part| part.header.is_some() || part.more || part.count != 0) {
            findings.push(wrong("a piece before the last one has a header, a count or more".to_owned()));
        }
        let count = i64::try_from(expected.len()).unwrap_or(i64::MAX);
        if last.header.is_none() || last.more || last.count != count {
            findings.push(wrong(format!("the last piece counts {} of {count}", last.count)));
        }
        findings
    }

    fn cache(&self, read: &CacheRead) -> Option<Finding> {
        let expected = self.within(&read.span);
        (read.pairs != expected).then(|| {
            finding(Law::Cache, format!("at {}: {}", read.at, self.difference(&read.pairs, &expected)))
        })
    }

    fn won(&self, swap: &Swap) -> Option<Finding> {
        let found = self.key(swap.key).map_or(0, |held| held.mod_revision);
        (found != swap.expected).then(|| {
            let (key, expected) = (self.measure.keys.name(swap.key), swap.expected);
            finding(Law::Swap, format!("{key} was at {found}, and one that expected {expected} took effect"))
        })
    }

    fn lost(&self, swap: &Swap, shown: Option<Option<Held>>) -> Vec<Finding> {
        let found = self.key(swap.key);
        let name = || self.measure.keys.name(swap.key);
        let mut findings = Vec::new();
        if found.map_or(0, |held| held.mod_revision) == swap.expected {
            findings.push(finding(
                Law::Swap,
                format!("{} was at {}, as expected, and it did not take effect", name(), swap.expected),
            ));
        }
        if let Some(shown) = shown.filter(|shown| *shown != found) {
            findings.push(finding(
                Law::Swap,
                format!("{} was {found:?}, and who lost was shown {shown:?}", name()),
            ));
        }
        findings
    }

    fn turn(&self, turn: &Turn, version: i64) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.version != version {
            findings.push(finding(
                Law::Turn,
                format!(
                    "the version was {}, and a compactor that expected {} saw {version}",
                    self.version, turn.expected
                ),
            ));
        }
        if turn.outcome.is_err() && version == turn.expected {
            findings.push(finding(Law::Turn, format!("version {version} was there, and was refused")));
        }
        findings
    }

    /// The first place where two lists differ, in words.
    fn difference(&self, found: &[Held], expected: &[Held]) -> String {
        let place = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
        let name = |held: Option<&Held>| {
            held.map_or("nothing".to_owned(), |held| {
                format!("{} of {}", self.measure.keys.name(held.key), held.mod_revision)
            })
        };
        let (saw, is) = (name(found.get(place)), name(expected.get(place)));
        format!(
            "{} pairs of {}; the first that differs, number {place}, is {is}, and {saw} was seen",
            found.len(),
            expected.len()
        )
    }
}

#[cfg(test)]
mod tests;
