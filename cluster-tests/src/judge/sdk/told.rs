//! What a watch or an informer has told, line by line, against what has happened.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::world::{Change, Digest, Range, World, hash};

/// Which changes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kinds {
    All,
    Puts,
    Deletes,
}

/// What was told. All revisions are inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
pub enum Line {
    /// All changes from this revision on will be told.
    Starts(i64),
    /// A key was set to a value of this hash, or deleted.
    Change { revision: i64, key: String, hash: Option<u64> },
    /// All changes up to this revision were told.
    CameTo(i64),
    /// A watch: changes from `from` up to, and without, `to` may be missing.
    Lost { from: i64, to: i64 },
    /// An informer: all was listed again.
    Relisted { reason: String, at: i64 },
    /// An informer: its subscriber was too slow, and was not told what was between.
    Skipped { from: i64, at: i64 },
    /// An informer: it has come to this revision, and has not listed again since it said so.
    Known(i64),
    /// An informer: what it held at this revision.
    Held { revision: i64, digest: Digest },
    /// It was refused.
    Refused(String),
}

impl Line {
    /// Reads a line. Errors: it makes no sense.
    pub fn parse(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(' ').context("a line without fields")?;
        if kind == "E" {
            return Ok(Self::Refused(rest.to_owned()));
        }
        let mut fields = rest.split(' ');
        let mut field = || fields.next().context("a line that is too short");
        let hex = |text: &str| u64::from_str_radix(text, 16).with_context(|| format!("{text} is no hash"));
        Ok(match kind {
            "S" => Self::Starts(field()?.parse()?),
            "P" => {
                let (revision, hash) = (field()?.parse()?, Some(hex(field()?)?));
                Self::Change { revision, hash, key: field()?.to_owned() }
            }
            "D" => Self::Change { revision: field()?.parse()?, hash: None, key: field()?.to_owned() },
            "C" => Self::CameTo(field()?.parse()?),
            "L" => Self::Lost { from: field()?.parse()?, to: field()?.parse()? },
            "R" => Self::Relisted { reason: field()?.to_owned(), at: field()?.parse()? },
            "G" => Self::Skipped { from: field()?.parse()?, at: field()?.parse()? },
            "N" => Self::Known(field()?.parse()?),
            "K" => {
                let (revision, objects) = (field()?.parse()?, field()?.parse()?);
                Self::Held { revision, digest: Digest { objects, hash: hex(field()?)? } }
            }
            _ => bail!("a line of no known kind"),
        })
    }

    /// Whether two changes were made together.
    fn is_of_one_revision(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Change { revision, .. }, Self::Change { revision: other, .. }) => revision == other,
            _ => false,
        }
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
pub enum Breach {
    /// It did not say from where on it tells, or not what it was asked for.
    Start { told: Option<i64>, wanted: i64 },
    /// A change was told again, or behind a later one.
    Twice { revision: i64, key: String },
    /// A change was told that nobody made.
    Invented { revision: i64, key: String },
    /// A change was not told, and what came behind it was, or the end.
    Missing { revision: i64, key: String },
    /// It said to have told less than it had, or to begin anew.
    Backwards { told: i64, before: i64 },
    /// Changes were given up that no compaction has taken.
    Unforced { from: i64, to: i64, reason: String },
    /// It was refused.
    Refused { said: String },
    /// An informer held something else than the store.
    Differs { revision: i64, held: Digest, stored: Digest },
    /// It did not come to the last revision.
    Short { reached: i64, last: i64 },
    /// It listed again so often by its own count, and told its subscriber another number.
    Relists { counted: u64, told: u64 },
    /// Nothing is known of it.
    Silent,
}

/// A breach, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which watch or informer.
    pub who: String,
    /// What.
    pub breach: Breach,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.who, self.breach)
    }
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Of which keys.
    pub range: Range,
    /// Which changes.
    pub kinds: Kinds,
    /// The first revision, inclusive; `None` when any will do.
    pub from: Option<i64>,
}

/// How much was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Changes.
    pub changes: u64,
    /// How often a watch lost something to a compaction, and how many changes these were.
    pub losses: u64,
    /// See there.
    pub lost: u64,
    /// How often an informer listed again.
    pub relists: u64,
    /// How often its subscriber was too slow.
    pub skips: u64,
}

impl Tally {
    /// Counts also these.
    pub fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.losses += other.losses;
        self.lost += other.lost;
        self.relists += other.relists;
        self.skips += other.skips;
    }
}

/// Reads what was told up to `last`, the last revision.
///
/// Revisions at which somebody has asked for a compaction are `compactions`, whether it was carried out or not.
pub fn judge(
    world: &World,
    wish: &Wish,
    lines: &[Line],
    compactions: &BTreeSet<i64>,
    last: i64,
) -> (Tally, Vec<Breach>) {
    let is_wanted = |change: &&Change| {
        let kind = match wish.kinds {
            Kinds::All => true,
            Kinds::Puts => change.value.is_some(),
            Kinds::Deletes => change.value.is_none(),
        };
        kind && change.revision <= last && wish.range.contains(&change.key)
    };
    let wanted: Vec<Wanted> = world.changes().iter().filter(is_wanted).map(Wanted::of).collect();
    let mut reading = Reading {
        wanted: &wanted,
        at: 0,
        next: None,
        known: 0,
        last,
        compactions,
        tally: Tally::default(),
        breaches: Vec::new(),
    };
    lines.chunk_by(Line::is_of_one_revision).for_each(|group| reading.read(wish, group));
    if reading.next.is_none() {
        reading.breaches.push(Breach::Silent);
    }
    reading.must_have_told(last);
    (reading.tally, reading.breaches)
}

/// A change that has to be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    revision: i64,
    key: String,
    hash: Option<u64>,
}

impl Wanted {
    fn of(change: &Change) -> Self {
        let key = change.key.escape_ascii().to_string();
        Self { revision: change.revision, key, hash: change.value.as_ref().map(|value| hash(value)) }
    }
}

struct Reading<'a> {
    wanted: &'a [Wanted],
    /// Those before were told, or need not be.
    at: usize,
    /// The first revision that was not told; `None` before anything was said.
    next: Option<i64>,
    /// An informer has come to this revision, told or not.
    known: i64,
    last: i64,
    compactions: &'a BTreeSet<i64>,
    tally: Tally,
    breaches: Vec<Breach>,
}

impl Reading<'_> {
    fn read(&mut self, wish: &Wish, group: &[Line]) {
        let next = self.next.unwrap_or(0);
        match &group[0] {
            Line::Starts(first) => {
                if let Some(wanted) = wish.from.filter(|wanted| wanted != first) {
                    self.breaches.push(Breach::Start { told: Some(*first), wanted });
                }
                if self.next.is_some() {
                    self.breaches.push(Breach::Backwards { told: *first, before: next });
                }
                self.skip_to(*first);
            }
            Line::Change { revision, .. } if *revision < next => {
                for line in group {
                    if let Line::Change { revision, key, .. } = line {
                        self.breaches.push(Breach::Twice { revision: *revision, key: key.clone() });
                    }
                }
            }
            // What has happened behind the end may be told, too, and is not judged.
            Line::Change { revision, .. } if *revision > self.last => self.must_have_told(self.last),
            Line::Change { revision, .. } => {
                self.must_have_told(revision - 1);
                self.changes(*revision, group);
                self.next = Some(revision + 1);
            }
            Line::CameTo(revision) => {
                if revision + 1 < next {
                    self.breaches.push(Breach::Backwards { told: *revision, before: next - 1 });
                }
                self.must_have_told(*revision);
                self.next = Some(next.max(revision + 1));
            }
            Line::Lost { from, to } => self.lost(*from, *to),
            Line::Relisted { reason, at } => {
                let known = self.known.max(next - 1);
                // It asked for changes from the next revision on, which a compaction there leaves.
                let is_between = |compaction: &i64| *compaction > known + 1 && *compaction <= *at;
                let is_forced = reason == "compacted" && self.compactions.iter().any(is_between);
                if !is_forced {
                    let (from, to, reason) = (known + 1, *at, reason.clone());
                    self.breaches.push(Breach::Unforced { from, to, reason });
                }
                self.tally.relists += 1;
                self.skip_to(at + 1);
            }
            Line::Skipped { from, at } => {
                if from + 1 != next {
                    self.breaches.push(Breach::Backwards { told: *from, before: next - 1 });
                }
                self.tally.skips += 1;
                self.skip_to(at + 1);
            }
            Line::Known(revision) => {
                self.backwards(*revision);
                self.known = *revision;
            }
            Line::Held { revision, .. } => self.backwards(*revision),
            Line::Refused(said) => self.breaches.push(Breach::Refused { said: said.clone() }),
        }
    }

    /// An informer never goes back.
    fn backwards(&mut self, revision: i64) {
        if revision < self.known {
            self.breaches.push(Breach::Backwards { told: revision, before: self.known });
        }
    }

    fn lost(&mut self, from: i64, to: i64) {
        let next = self.next.unwrap_or(0);
        self.must_have_told(from - 1);
        if from < next {
            self.breaches.push(Breach::Backwards { told: from, before: next });
        }
        if from >= to || !self.compactions.contains(&to) {
            let reason = "no compaction there".to_owned();
            self.breaches.push(Breach::Unforced { from, to, reason });
        }
        let before = self.at;
        self.skip_to(to);
        self.tally.losses += 1;
        self.tally.lost += (self.at - before) as u64;
    }

    /// All changes of one revision, in any order among themselves.
    fn changes(&mut self, revision: i64, group: &[Line]) {
        let behind = self.wanted[self.at..].partition_point(|wanted| wanted.revision <= revision);
        let mut wanted: Vec<&Wanted> = self.wanted[self.at..self.at + behind].iter().collect();
        self.at += behind;
        let mut told: BTreeSet<Wanted> = BTreeSet::new();
        for line in group {
            let Line::Change { revision, key, hash } = line else { continue };
            let (revision, key, hash) = (*revision, key.clone(), *hash);
            self.tally.changes += 1;
            let told_now = Wanted { revision, key: key.clone(), hash };
            if let Some(place) = wanted.iter().position(|wanted| **wanted == told_now) {
                wanted.swap_remove(place);
                told.insert(told_now);
            } else if told.contains(&told_now) {
                self.breaches.push(Breach::Twice { revision, key });
            } else {
                self.breaches.push(Breach::Invented { revision, key });
            }
        }
        let missing = wanted.into_iter().map(|wanted| (wanted.revision, wanted.key.clone()));
        self.breaches.extend(missing.map(|(revision, key)| Breach::Missing { revision, key }));
    }

    /// All that is wanted up to a revision, and was not told by now, is missing.
    fn must_have_told(&mut self, revision: i64) {
        let behind = self.wanted[self.at..].partition_point(|wanted| wanted.revision <= revision);
        let missing = self.wanted[self.at..self.at + behind].iter();
        let missing = missing.map(|wanted| (wanted.revision, wanted.key.clone()));
        self.breaches.extend(missing.map(|(revision, key)| Breach::Missing { revision, key }));
        self.at += behind;
    }

    /// What is before a revision need not be told.
    fn skip_to(&mut self, revision: i64) {
        self.at += self.wanted[self.at..].partition_point(|wanted| wanted.revision < revision);
        self.next = Some(revision.max(self.next.unwrap_or(0)));
    }
}
