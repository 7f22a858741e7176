//! The store's history, put together from what the writers know: the measure of every watcher, made without one.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::record::{KeyId, KeyTable, Kind, Pair, Print};
use crate::client::{Contents, Stored};

/// What one command does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Puts one key.
    Put {
        /// The key.
        key: Bytes,
        /// A value that is put once in the whole run.
        value: Bytes,
        /// The lease that the key hangs on; 0 for none.
        lease: i64,
    },
    /// Deletes a range; no end is that key alone.
    Delete {
        /// The key, or the first one.
        key: Bytes,
        /// The first key behind the range.
        range_end: Bytes,
    },
}

/// A command that certainly took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its revision.
    pub revision: i64,
    /// What it did.
    pub steps: Vec<Step>,
}

/// One change of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Its revision.
    pub revision: i64,
    /// The key.
    pub key: KeyId,
    /// Put or delete.
    pub kind: Kind,
    /// What the key was then.
    pub state: Print,
    /// What it was before; `None` if it did not exist.
    pub previous: Option<Print>,
}

/// Why there is no history to judge by.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// No command is known to have made this revision.
    Unexplained { revision: i64 },
    /// Two commands claim one revision.
    Shared { revision: i64 },
    /// A command claims a revision that the store has not reached.
    Beyond { revision: i64, newest: i64 },
    /// The command that claims this revision would have changed nothing.
    Idle { revision: i64 },
    /// A key is not, at the end, what the commands make of it.
    Differs { key: Bytes, expected: Option<Stored>, found: Option<Stored> },
}

/// All changes, ascending by revision, within one in the order they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    changes: Vec<Change>,
    newest: i64,
}

impl History {
    /// Carries out the commands of a run that began on an empty store, whose first revision is 1, and holds the result
    /// against what the store contains at the end.
    ///
    /// Errors: all flaws. Revisions have to be explained completely, or the history is no measure.
    pub fn replay(applied: &[Applied], end: &Contents, keys: &mut KeyTable) -> Result<Self, Vec<Flaw>> {
        let mut flaws = Vec::new();
        let mut replay = Replay { state: BTreeMap::new(), changes: Vec::new(), keys };
        let mut order: Vec<&Applied> = applied.iter().collect();
        order.sort_by_key(|command| command.revision);
        let mut reached = 1;
        for command in order {
            let revision = command.revision;
            if revision > end.revision {
                flaws.push(Flaw::Beyond { revision, newest: end.revision });
                continue;
            }
            if revision <= reached {
                flaws.push(Flaw::Shared { revision });
                continue;
            }
            flaws.extend((reached + 1..revision).map(|revision| Flaw::Unexplained { revision }));
            if !replay.carry_out(command) {
                flaws.push(Flaw::Idle { revision });
            }
            reached = revision;
        }
        flaws.extend((reached + 1..=end.revision).map(|revision| Flaw::Unexplained { revision }));
        flaws.extend(replay.differences(end));
        let history = Self { changes: replay.changes, newest: end.revision };
        if flaws.is_empty() { Ok(history) } else { Err(flaws) }
    }

    /// All changes.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The revision up to which it goes.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// The place of this key's change at this revision.
    pub fn place(&self, revision: i64, key: KeyId) -> Option<usize> {
        let first = self.changes.partition_point(|change| change.revision < revision);
        let same = self.changes[first..].iter().take_while(|change| change.revision == revision);
        same.enumerate().find(|(_, change)| change.key == key).map(|(offset, _)| first + offset)
    }
}

struct Replay<'a> {
    /// Each key with the lease it hangs on.
    state: BTreeMap<Bytes, (Stored, i64)>,
    changes: Vec<Change>,
    keys: &'a mut KeyTable,
}

impl Replay<'_> {
    /// Whether anything changed.
    fn carry_out(&mut self, command: &Applied) -> bool {
        let before = self.changes.len();
        for step in &command.steps {
            match step {
                Step::Put { key, value, lease } => self.put(command.revision, key, value, *lease),
                Step::Delete { key, range_end } => {
                    for key in self.existing(key, range_end) {
                        self.delete(command.revision, &key);
                    }
                }
            }
        }
        self.changes.len() > before
    }

    fn existing(&self, key: &Bytes, range_end: &Bytes) -> Vec<Bytes> {
        if range_end.is_empty() {
            return self.state.contains_key(key).then(|| key.clone()).into_iter().collect();
        }
        self.state.range(key.clone()..range_end.clone()).map(|(key, _)| key.clone()).collect()
    }

    fn put(&mut self, revision: i64, key: &Bytes, value: &Bytes, lease: i64) {
        let before = self.state.get(key).cloned();
        let (create_revision, version) =
            before.as_ref().map_or((revision, 1), |(stored, _)| (stored.create_revision, stored.version + 1));
        let stored = Stored { value: value.clone(), create_revision, mod_revision: revision, version };
        let held = (stored, lease);
        self.record(revision, key, Kind::Put, print(&held), before.as_ref());
        self.state.insert(key.clone(), held);
    }

    fn delete(&mut self, revision: i64, key: &Bytes) {
        if let Some(before) = self.state.remove(key) {
            self.record(revision, key, Kind::Delete, Pair::deleted(revision).print(), Some(&before));
        }
    }

    fn record(
        &mut self,
        revision: i64,
        key: &Bytes,
        kind: Kind,
        state: Print,
        before: Option<&(Stored, i64)>,
    ) {
        let key = self.keys.id(key);
        self.changes.push(Change { revision, key, kind, state, previous: before.map(print) });
    }

    fn differences(&self, end: &Contents) -> Vec<Flaw> {
        let mut all: HashMap<&Bytes, (Option<&Stored>, Option<&Stored>)> = HashMap::new();
        for (key, (stored, _)) in &self.state {
            all.entry(key).or_default().0 = Some(stored);
        }
        for (key, stored) in &end.pairs {
            all.entry(key).or_default().1 = Some(stored);
        }
        let differing = all.into_iter().filter(|(_, (expected, found))| expected != found);
        let mut flaws: Vec<_> = differing
            .map(|(key, (expected, found))| (key.clone(), expected.cloned(), found.cloned()))
            .collect();
        flaws.sort_by(|a, b| a.0.cmp(&b.0));
        flaws.into_iter().map(|(key, expected, found)| Flaw::Differs { key, expected, found }).collect()
    }
}

fn print((stored, lease): &(Stored, i64)) -> Print {
    let Stored { value, create_revision, mod_revision, version } = stored;
    let (create_revision, mod_revision, version) = (*create_revision, *mod_revision, *version);
    Pair { value, create_revision, mod_revision, version, lease: *lease }.print()
}
