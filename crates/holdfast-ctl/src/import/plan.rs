//! From events to transactions: pure, so that what must not go wrong can be tested by itself.
//!
//! What a transaction of the source changed together, the target changes together: a revision of the source is applied
//! whole, with others before and behind it or alone. Where several are applied at once, each key has the last of its
//! values. A revision that is larger than what the target takes in one transaction is the exception: it is applied in
//! parts, and counted.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use holdfast_proto::mvccpb::{Event, event::EventType};

use super::flags::OP_OVERHEAD_BYTES;
use super::ranges::Ranges;

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A value, and a lease or 0.
    Put {
        /// The value.
        value: Bytes,
        /// The lease; 0 for none.
        lease: i64,
    },
    /// It is no more.
    Delete,
}

/// A key and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyChange {
    pub(crate) key: Bytes,
    pub(crate) change: Change,
}

impl KeyChange {
    /// Bytes of a transaction that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        cost(&self.key, &self.change)
    }

    /// The same with bytes of its own. What was read is a part of its message, and would keep all of that in memory: a few
    /// changes that wait for others, of a page each, would hold as many pages.
    pub(crate) fn detached(&self) -> Self {
        let change = match &self.change {
            Change::Put { value, lease } => {
                Change::Put { value: Bytes::copy_from_slice(value), lease: *lease }
            }
            Change::Delete => Change::Delete,
        };
        Self { key: Bytes::copy_from_slice(&self.key), change }
    }
}

/// All that one revision of the source changed, as far as it is imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) at: i64,
    pub(crate) changes: Vec<KeyChange>,
}

impl Revision {
    fn bytes(&self) -> usize {
        self.changes.iter().map(KeyChange::bytes).sum::<usize>() + OP_OVERHEAD_BYTES
    }
}

/// Puts the messages of a watch together to whole revisions.
#[derive(Debug)]
pub(crate) struct Assembler {
    /// The last revision that is whole.
    seen: i64,
    /// The last one of a message that goes on in the next one.
    open: Revision,
}

impl Assembler {
    /// For a watch that begins behind `seen`.
    pub(crate) fn behind(seen: i64) -> Self {
        Self { seen, open: Revision::default() }
    }

    /// The revisions that are whole with this message. All events of a revision are in one message, or in the fragments of
    /// one: `goes_on` says that more of them come. What was seen before is left out.
    pub(crate) fn add(&mut self, events: Vec<Event>, goes_on: bool, ranges: &Ranges) -> Vec<Revision> {
        let mut whole = Vec::new();
        for event in events {
            let kind = event.r#type();
            let Some(kv) = event.kv else { continue };
            if kv.mod_revision <= self.seen {
                continue;
            }
            if kv.mod_revision != self.open.at {
                self.close(&mut whole);
                self.open.at = kv.mod_revision;
            }
            if ranges.cover(&kv.key) {
                let change = match kind {
                    EventType::Put => Change::Put { value: kv.value, lease: kv.lease },
                    EventType::Delete => Change::Delete,
                };
                self.open.changes.push(KeyChange { key: kv.key, change }.detached());
            }
        }
        if !goes_on {
            self.close(&mut whole);
        }
        whole
    }

    fn close(&mut self, whole: &mut Vec<Revision>) {
        if self.open.at != 0 {
            assert!(self.open.at > self.seen, "revisions of a watch ascend");
            self.seen = self.open.at;
            whole.push(std::mem::take(&mut self.open));
        }
    }
}

/// What one transaction may contain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TxnLimits {
    /// Changes of keys.
    pub(crate) changes: usize,
    /// Bytes, see [`KeyChange::bytes`].
    pub(crate) bytes: usize,
}

/// What is applied next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The source's revision that the target has then.
    pub(crate) at: i64,
    /// One for each transaction, at least one; several only for a revision that is too large for one.
    pub(crate) parts: Vec<Vec<KeyChange>>,
    /// Events of the source that are in it.
    pub(crate) events: usize,
}

impl Batch {
    /// Whether the import has to change anything for it.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(Vec::is_empty)
    }
}

/// Revisions that are not applied yet, ascending.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    revisions: VecDeque<Revision>,
    bytes: usize,
}

impl Backlog {
    /// Adds the next ones.
    pub(crate) fn extend(&mut self, revisions: Vec<Revision>) {
        for revision in revisions {
            self.bytes += revision.bytes();
            self.revisions.push_back(revision);
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is applied next, of the revisions up to `end`, inclusive; as many of them together as fit.
    pub(crate) fn take(&mut self, limits: TxnLimits, end: i64) -> Option<Batch> {
        let first = self.next_up_to(end)?;
        let (mut at, mut events) = (first.at, first.changes.len());
        let mut together = Together::default();
        if !together.add_if_fits(&first, limits) {
            return Some(Batch { at, parts: split(first.changes, limits), events });
        }
        while let Some(next) = self.revisions.front().filter(|next| next.at <= end) {
            if !together.add_if_fits(next, limits) {
                break;
            }
            (at, events) = (next.at, events + next.changes.len());
            self.bytes -= next.bytes();
            self.revisions.pop_front();
        }
        Some(Batch { at, parts: vec![together.into_changes()], events })
    }

    fn next_up_to(&mut self, end: i64) -> Option<Revision> {
        let next = self.revisions.pop_front_if(|next| next.at <= end)?;
        self.bytes -= next.bytes();
        Some(next)
    }
}

/// The last change of each key, of several revisions.
#[derive(Debug, Default)]
struct Together {
    changes: BTreeMap<Bytes, Change>,
    bytes: usize,
}

impl Together {
    /// Adds a whole revision, or nothing of it.
    fn add_if_fits(&mut self, revision: &Revision, limits: TxnLimits) -> bool {
        let (mut keys, mut bytes) = (self.changes.len(), self.bytes);
        for KeyChange { key, change } in &revision.changes {
            bytes += cost(key, change);
            match self.changes.get(key) {
                Some(before) => bytes -= cost(key, before),
                None => keys += 1,
            }
        }
        if keys > limits.changes || bytes > limits.bytes {
            return false;
        }
        for KeyChange { key, change } in &revision.changes {
            self.bytes += cost(key, change);
            if let Some(before) = self.changes.insert(key.clone(), change.clone()) {
                self.bytes -= cost(key, &before);
            }
        }
        true
    }

    fn into_changes(self) -> Vec<KeyChange> {
        self.changes.into_iter().map(|(key, change)| KeyChange { key, change }).collect()
    }
}

/// Changes in order, as few transactions as possible. One change alone may be larger than the limit.
pub(crate) fn split(changes: Vec<KeyChange>, limits: TxnLimits) -> Vec<Vec<KeyChange>> {
    let mut parts: Vec<Vec<KeyChange>> = vec![Vec::new()];
    let mut bytes = 0;
    for change in changes {
        let more = change.bytes();
        let last = parts.last_mut().expect("there is always a last part");
        let is_full = last.len() >= limits.changes || bytes + more > limits.bytes;
        if is_full && !last.is_empty() {
            parts.push(vec![change]);
            bytes = more;
        } else {
            last.push(change);
            bytes += more;
        }
    }
    parts
}

fn cost(key: &Bytes, change: &Change) -> usize {
    let value = match change {
        Change::Put { value, .. } => value.len(),
        Change::Delete => 0,
    };
    key.len() + value + OP_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
