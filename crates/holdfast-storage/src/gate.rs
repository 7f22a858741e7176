//! What readers may see: the visible revision, the compact revision there, and who reads below.
//!
//! A reader enters at a revision and pins it. The scrub removes what a compaction made unreadable only when no reader
//! is pinned below that compact revision; readers that come later are refused there. So a read that was let in never
//! finds its revision gone, and never needs a lock for longer than a chunk.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_mvcc::ReadWindow;
use holdfast_mvcc::command::{Alarm, MemberAttributes, ReadAt, Refusal};
use holdfast_mvcc::types::Revision;
use parking_lot::Mutex;

/// The entrance for readers. Opened further by the sequencer only (and by an install).
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    revision: Revision,
    compact_revision: Option<Revision>,
    members: Arc<[MemberAttributes]>,
    alarms: Arc<[Alarm]>,
    pins: BTreeMap<Revision, usize>,
}

/// A reader inside; leaves on drop.
#[derive(Debug)]
pub(crate) struct Pin {
    gate: Arc<Gate>,
    /// The revision it reads at; nothing at or above it is scrubbed away.
    pub(crate) at: Revision,
    /// What was readable when it entered.
    pub(crate) window: ReadWindow,
}

impl Gate {
    /// Open up to this state.
    pub(crate) fn new(head: &holdfast_mvcc::Head) -> Arc<Self> {
        let inner = Inner {
            revision: head.revision,
            compact_revision: head.compact_revision,
            members: head.members.as_slice().into(),
            alarms: head.alarms.as_slice().into(),
            pins: BTreeMap::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Opens up to this state.
    pub(crate) fn advance(&self, head: &holdfast_mvcc::Head) {
        let mut inner = self.inner.lock();
        assert!(inner.revision <= head.revision, "the visible revision never steps back");
        inner.revision = head.revision;
        inner.compact_revision = head.compact_revision;
        if inner.members[..] != head.members[..] {
            inner.members = head.members.as_slice().into();
        }
        if inner.alarms[..] != head.alarms[..] {
            inner.alarms = head.alarms.as_slice().into();
        }
    }

    /// Lets a reader in.
    pub(crate) fn enter(self: &Arc<Self>, at: ReadAt) -> Result<Pin, Refusal> {
        let mut inner = self.inner.lock();
        let at = inner.window().resolve(at)?;
        Ok(inner.pin(self, at))
    }

    /// Lets a reader in that may go to any readable revision.
    pub(crate) fn enter_window(self: &Arc<Self>) -> Pin {
        let mut inner = self.inner.lock();
        let lowest = inner.compact_revision.unwrap_or(Revision::NONE);
        inner.pin(self, lowest)
    }

    /// Lets a reader in that reads all changes from this revision on. It may lie in the future: then there are none.
    pub(crate) fn enter_from(self: &Arc<Self>, from: Revision) -> Result<Pin, Refusal> {
        let mut inner = self.inner.lock();
        match inner.compact_revision {
            Some(compact_revision) if from < compact_revision => {
                let requested = i64::try_from(from.get()).unwrap_or(i64::MAX);
                Err(Refusal::Compacted { requested, compact_revision })
            }
            _ => Ok(inner.pin(self, from)),
        }
    }

    /// The visible revision.
    pub(crate) fn revision(&self) -> Revision {
        self.inner.lock().revision
    }

    /// The members' attributes at the visible revision.
    pub(crate) fn members(&self) -> Vec<MemberAttributes> {
        self.inner.lock().members.to_vec()
    }

    /// The alarms that are active at the visible revision.
    pub(crate) fn alarms(&self) -> Arc<[Alarm]> {
        Arc::clone(&self.inner.lock().alarms)
    }

    /// True when a compaction to this revision is visible and nobody reads below it: then what it made unreadable may go.
    pub(crate) fn may_scrub(&self, compact_revision: Revision) -> bool {
        let inner = self.inner.lock();
        let lowest = inner.pins.keys().next();
        inner.compact_revision >= Some(compact_revision)
            && lowest.is_none_or(|&lowest| lowest >= compact_revision)
    }

    /// The visible compact revision.
    pub(crate) fn compact_revision(&self) -> Option<Revision> {
        self.inner.lock().compact_revision
    }
}

impl Inner {
    fn window(&self) -> ReadWindow {
        ReadWindow { newest: self.revision, compact_revision: self.compact_revision }
    }

    fn pin(&mut self, gate: &Arc<Gate>, at: Revision) -> Pin {
        *self.pins.entry(at).or_default() += 1;
        Pin { gate: Arc::clone(gate), at, window: self.window() }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut inner = self.gate.inner.lock();
        let readers = inner.pins.get_mut(&self.at).expect("a pin is registered until it drops");
        *readers -= 1;
        if *readers == 0 {
            inner.pins.remove(&self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::Head;

    use super::*;

    fn head(revision: u64, compact: Option<u64>) -> Head {
        Head {
            revision: Revision::new(revision),
            compact_revision: compact.map(Revision::new),
            members: Vec::new(),
            alarms: Vec::new(),
            auth: Arc::default(),
        }
    }

    fn at(revision: u64) -> ReadAt {
        ReadAt::Revision(Revision::new(revision))
    }

    #[test]
    fn the_bounds_are_inclusive() {
        let gate = Gate::new(&head(9, Some(4)));
        assert!(matches!(gate.enter(at(10)), Err(Refusal::FutureRevision { requested: 10, .. })));
        assert!(matches!(gate.enter(at(3)), Err(Refusal::Compacted { requested: 3, .. })));
        assert_eq!(gate.enter(at(4)).unwrap().at, Revision::new(4));
        assert_eq!(gate.enter(ReadAt::Latest).unwrap().at, Revision::new(9));
    }

    #[test]
    fn a_reader_below_holds_the_scrub_back() {
        let gate = Gate::new(&head(9, None));
        let old = gate.enter(at(5)).unwrap();
        let same = gate.enter(at(5)).unwrap();
        gate.advance(&head(9, Some(7)));
        let seven = Revision::new(7);
        assert!(!gate.may_scrub(seven));
        assert!(gate.may_scrub(Revision::new(5)), "an older compaction is not in anybody's way");
        drop(old);
        assert!(!gate.may_scrub(seven));
        drop(same);
        assert!(gate.may_scrub(seven));
        assert!(!gate.may_scrub(Revision::new(8)), "that is not compacted");
        let exact = gate.enter(at(7)).unwrap();
        assert!(gate.may_scrub(seven), "the compact revision itself stays readable");
        drop(exact);
    }
}
