//! New revisions: to the synced watchers that want them, and to nobody else.

use holdfast_mvcc::types::{Change, Record, Revision};

use super::{Hub, Watcher};
use crate::streams::Streams;
use crate::types::{Delivery, Filter, Taken, WatcherId, WatcherSpec};

/// The records that are handed to watchers in one call, and room to choose among them.
pub(super) struct Batch<'a> {
    records: &'a [Record],
    chosen: Vec<usize>,
}

/// A watcher with the records of its keys.
pub(super) struct Candidate<'a> {
    pub(super) id: WatcherId,
    pub(super) watcher: &'a Watcher,
    /// Indices of the records, ascending.
    pub(super) matched: &'a [usize],
}

/// What became of an offer.
pub(super) enum Offered {
    /// There was nothing to offer.
    Nothing,
    /// It was taken.
    Taken,
    /// The stream is full; the first revision that was not handed out.
    Refused(Revision),
}

impl Hub {
    /// Hands out the whole revisions behind the head up to `revision`, each watcher's in one delivery. Who finds its
    /// stream full becomes a cursor at the first revision it did not get. No records is fine, and moves the head.
    ///
    /// Panics when the revisions do not follow the head, or the records do not ascend: who is told of changes twice, or
    /// in the wrong order, has lost track of them.
    pub fn publish(
        &mut self,
        records: &[Record],
        revision: Revision,
        deliver: &mut impl FnMut(Delivery<'_>) -> Taken,
    ) {
        assert!(revision >= self.head, "the head never regresses");
        let mut batch = Batch::new(records, self.head.next(), revision);
        self.wake(revision);
        self.work.index_nodes += self.interests.match_records(records);
        let mut refused = Vec::new();
        for interest in self.interests.matched() {
            let matched = self.interests.records_of(*interest);
            for &id in self.interests.watchers_of(*interest) {
                self.work.matched_watchers += 1;
                let watcher = self.watchers.get(&id).expect("the index holds watchers");
                match batch.offer(&Candidate { id, watcher, matched }, &mut self.streams, deliver) {
                    Offered::Nothing | Offered::Taken => {}
                    Offered::Refused(next) => refused.push((id, next)),
                }
            }
        }
        self.interests.clear();
        self.head = revision;
        for (id, next) in refused {
            self.fall_behind(id, next);
        }
    }

    /// The revisions up to `head` will not be published, because there were too many of them or the state was
    /// replaced: every synced watcher reads them from history.
    pub fn skip_to(&mut self, head: Revision) {
        assert!(head >= self.head, "the head never regresses");
        let first_skipped = self.head.next();
        self.head = head;
        if head >= first_skipped {
            for id in self.interests.all_watchers() {
                self.fall_behind(id, first_skipped);
            }
        }
        while let Some(&(next, id)) = self.waiting.first().filter(|(next, _)| *next <= head.next()) {
            self.fall_behind(id, next);
        }
    }

    /// Moves who waits for one of the revisions that are about to be published, or for the one behind them, into the
    /// index.
    fn wake(&mut self, revision: Revision) {
        while let Some(&(_, id)) = self.waiting.first().filter(|(next, _)| *next <= revision.next()) {
            self.uproot(id);
            self.enter_index(id);
        }
    }

    /// Settles a watcher whose next revision is no longer behind the head.
    fn fall_behind(&mut self, id: WatcherId, next: Revision) {
        self.uproot(id);
        self.watcher_mut(id).next = next;
        let turn = self.streams.new_turn();
        self.settle(id, turn);
    }
}

impl<'a> Batch<'a> {
    /// Records of the revisions `from..=through`.
    pub(super) fn new(records: &'a [Record], from: Revision, through: Revision) -> Self {
        assert!(records.is_sorted_by(|a, b| a.id < b.id), "events ascend");
        assert!(records.first().is_none_or(|first| first.id.revision >= from), "no event comes twice");
        assert!(records.last().is_none_or(|last| last.id.revision <= through), "no event comes early");
        Self { records, chosen: Vec::new() }
    }

    /// Offers a watcher what it wants of the records of its keys. A blocked stream is not asked; one that has no room
    /// is blocked.
    pub(super) fn offer(
        &mut self,
        candidate: &Candidate<'_>,
        streams: &mut Streams,
        deliver: &mut impl FnMut(Delivery<'_>) -> Taken,
    ) -> Offered {
        let Candidate { id, watcher, matched } = *candidate;
        let wanted = self.choose(watcher, matched);
        let Some(&first) = wanted.first() else { return Offered::Nothing };
        let WatcherSpec { stream, prev_kv, .. } = watcher.spec;
        let delivery = Delivery { watcher: id, stream, prev_kv, records: wanted };
        if !streams.is_blocked(stream) {
            match deliver(delivery) {
                Taken::Taken => return Offered::Taken,
                Taken::Full => streams.block(stream),
            }
        }
        Offered::Refused(self.records[first].id.revision)
    }

    /// What a watcher wants of the records of its keys. Usually that is all of them.
    fn choose<'b>(&'b mut self, watcher: &Watcher, matched: &'b [usize]) -> &'b [usize] {
        let records = self.records;
        let is_due = |at: &usize| records[*at].id.revision >= watcher.next;
        if watcher.spec.filter == Filter::ALL && matched.first().is_none_or(is_due) {
            return matched;
        }
        let wanted = matched.iter().copied().filter(|at| match records[*at].change {
            Change::Put(_) => watcher.spec.filter.puts && is_due(at),
            Change::Delete => watcher.spec.filter.deletes && is_due(at),
        });
        self.chosen.clear();
        self.chosen.extend(wanted);
        &self.chosen
    }
}
