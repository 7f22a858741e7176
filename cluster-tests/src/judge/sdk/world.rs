//! What the store went through: each change with its value, and what any range held at any revision.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;

use crate::judge::watch::history::{Applied, Step};

/// Some keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// This one.
    Key(String),
    /// Those that begin so; all when it is empty.
    Prefix(String),
    /// Those from the first, inclusive, to the second, exclusive.
    Between(String, String),
}

impl Range {
    /// Whether a key is one of them.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(only) => key == only.as_bytes(),
            Self::Prefix(prefix) => key.starts_with(prefix.as_bytes()),
            Self::Between(start, end) => start.as_bytes() <= key && key < end.as_bytes(),
        }
    }
}

/// FNV-1a of 64 bits.
pub fn hash(bytes: &[u8]) -> u64 {
    more(0xcbf2_9ce4_8422_2325, bytes)
}

fn more(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A state of a range in short: how many objects there are, and the hash of, for each of them in the order of the keys, the
/// length of the key, the key, the mod revision, the length of the value, the value; numbers as 8 bytes, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Objects.
    pub objects: u64,
    /// Hash.
    pub hash: u64,
}

impl Digest {
    /// Of these: key, mod revision, value, in the order of their keys.
    pub fn of<'a>(objects: impl Iterator<Item = (&'a Bytes, i64, &'a Bytes)>) -> Self {
        let mut digest = Self { objects: 0, hash: hash(b"") };
        for (key, mod_revision, value) in objects {
            digest.objects += 1;
            let parts: [&[u8]; 5] = [
                &(key.len() as u64).to_le_bytes(),
                key,
                &mod_revision.to_le_bytes(),
                &(value.len() as u64).to_le_bytes(),
                value,
            ];
            digest.hash = parts.iter().fold(digest.hash, |hash, part| more(hash, part));
        }
        digest
    }
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub revision: i64,
    /// Which.
    pub key: Bytes,
    /// What it was set to; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// All changes of a store that was empty at revision 1, in order.
#[derive(Debug, Clone, Default)]
pub struct World {
    changes: Vec<Change>,
}

impl World {
    /// Carries out the commands up to a revision, inclusive. They must explain it completely, as
    /// [`crate::judge::watch::history::History::replay`] finds out.
    pub fn replay(applied: &[Applied], last: i64) -> Self {
        let mut order: Vec<&Applied> = applied.iter().filter(|command| command.revision <= last).collect();
        order.sort_by_key(|command| command.revision);
        let (mut changes, mut there) = (Vec::new(), BTreeSet::new());
        for Applied { revision, steps } in order {
            for step in steps {
                match step {
                    Step::Put { key, value, .. } => {
                        there.insert(key.clone());
                        let (key, value) = (key.clone(), Some(value.clone()));
                        changes.push(Change { revision: *revision, key, value });
                    }
                    Step::Delete { key, range_end } => {
                        let gone: Vec<Bytes> = if range_end.is_empty() {
                            there.get(key).into_iter().cloned().collect()
                        } else {
                            there.range(key.clone()..range_end.clone()).cloned().collect()
                        };
                        for key in gone {
                            there.remove(&key);
                            changes.push(Change { revision: *revision, key, value: None });
                        }
                    }
                }
            }
        }
        Self { changes }
    }

    /// All changes.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What ranges held: each is asked for by its place, at some revisions.
    pub fn digests(
        &self,
        ranges: &[Range],
        wanted: &BTreeSet<(i64, usize)>,
    ) -> BTreeMap<(i64, usize), Digest> {
        let mut state: BTreeMap<&Bytes, (i64, &Bytes)> = BTreeMap::new();
        let mut changes = self.changes.iter().peekable();
        let mut digests = BTreeMap::new();
        for (revision, place) in wanted {
            while let Some(change) = changes.next_if(|change| change.revision <= *revision) {
                match &change.value {
                    Some(value) => drop(state.insert(&change.key, (change.revision, value))),
                    None => drop(state.remove(&change.key)),
                }
            }
            let within = state.iter().filter(|(key, _)| ranges[*place].contains(key));
            let digest = Digest::of(within.map(|(key, (revision, value))| (*key, *revision, *value)));
            digests.insert((*revision, *place), digest);
        }
        digests
    }
}
