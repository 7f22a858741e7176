//! openraft's log storage on [`holdfast_log::Log`].
//!
//! openraft awaits these calls inside its core, so only `save_vote` waits for the disk; `append` queues and reports
//! through its callback. Reads come from the log's cache and are bounded in bytes when they are not.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures::Stream;
use holdfast_env::{Fault, LogId, LogIndex};
use holdfast_log::{Entry, Log};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use crate::codec;
use crate::limits::FRAME_PAYLOAD_BYTES;
use crate::shared::Shared;
use crate::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig, from_raft, to_raft};

/// The log, as openraft wants it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
}

impl LogStore {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn log(&self) -> &Log {
        &self.shared.log
    }

    /// The entries of `from..to`, from the front, until [`FRAME_PAYLOAD_BYTES`] is passed.
    fn read(&self, from: u64, to: u64) -> Result<Vec<RaftEntry>, io::Error> {
        let entries = self
            .log()
            .read(LogIndex::new(from), LogIndex::new(to), FRAME_PAYLOAD_BYTES)
            .map_err(io::Error::other)?;
        entries
            .into_iter()
            .map(|entry| {
                codec::decode_entry(to_raft(entry.id), entry.payload).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("log entry {}: {error}", entry.id))
                })
            })
            .collect()
    }

    /// A part of a longer read, which begins at `from` even when entries are purged meanwhile. A log that was never
    /// purged may begin anywhere.
    fn read_part(&self, from: u64, to: u64) -> Result<Vec<RaftEntry>, io::Error> {
        let entries = self.read(from, to)?;
        if self.log().state().purged.is_some() { beginning_at(from, entries) } else { Ok(entries) }
    }

    /// `range` as the half-open range of entries that the log holds.
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let state = self.log().state();
        let first = state.purged.map_or(0, |purged| purged.index().get() + 1);
        let end = state.last.map_or(0, |last| last.index().get() + 1);
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&to) => to,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(first), to.min(end))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let (mut from, to) = self.bounds(&range);
        let mut entries = Vec::new();
        while from < to {
            let part = self.read_part(from, to)?;
            let last = part.last().ok_or_else(|| missing(from))?;
            from = last.log_id.index + 1;
            entries.extend(part);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<RaftEntry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        beginning_at(start, self.read(start, end)?)
    }

    /// Entries in order, read in parts, so that a long backlog is never in memory as a whole.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (from, to) = self.bounds(&range);
        let start = (self.clone(), from, to, Vec::new().into_iter());
        futures::stream::unfold(Some(start), |state| async move {
            let (store, from, to, mut part) = state?;
            if let Some(entry) = part.next() {
                return Some((Ok(entry), Some((store, from, to, part))));
            }
            if from >= to {
                return None;
            }
            let read = store.read_part(from, to).and_then(|entries| match entries.last() {
                Some(last) => Ok((last.log_id.index + 1, entries)),
                None => Err(missing(from)),
            });
            match read {
                Ok((next, entries)) => {
                    let mut part: std::vec::IntoIter<RaftEntry> = entries.into_iter();
                    part.next().map(|entry| (Ok(entry), Some((store, next, to, part))))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        let vote = self.log().state().vote.map(codec::decode_vote).transpose().map_err(io::Error::other)?;
        // openraft asks for it at its start: from then on, the newest one is what it gives us to save.
        let mut given = self.shared.vote_given.lock();
        *given = given.or(vote);
        Ok(vote)
    }
}

fn missing(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("log entry {index} is not in the log"))
}

/// The entries as read, when they do begin where they were asked for: a purge may have taken the first ones.
fn beginning_at(start: u64, entries: Vec<RaftEntry>) -> Result<Vec<RaftEntry>, io::Error> {
    match entries.first() {
        Some(first) if first.log_id.index == start => Ok(entries),
        _ => Err(missing(start)),
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log().state();
        Ok(LogState { last_purged_log_id: state.purged.map(to_raft), last_log_id: state.last.map(to_raft) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        *self.shared.vote_given.lock() = Some(*vote);
        let (done, durable) = oneshot::channel();
        let notify = Box::new(move || {
            // A dropped receiver means that openraft has stopped; nobody waits any more.
            done.send(()).ok();
        });
        self.log().save_vote(codec::encode_vote(vote), notify).map_err(io::Error::other)?;
        durable.await.map_err(|_| io::Error::other("the log stopped before the vote was durable"))
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        match committed {
            Some(committed) => {
                let committed = from_raft(&committed);
                self.shared.counters.committed(committed.index());
                self.log().save_committed(committed).map_err(io::Error::other)
            }
            None => Ok(()),
        }
    }

    /// What was saved, but only when the log holds that very entry: openraft applies all up to it at once. Without it,
    /// openraft learns from the leader how far to apply.
    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.log().committed_and_held().map_err(io::Error::other)?.map(to_raft))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + Send,
        I::IntoIter: Send,
    {
        let entries = entries
            .into_iter()
            .map(|entry| Entry {
                id: from_raft(&entry.log_id),
                payload: codec::encode_payload(entry.payload),
            })
            .collect();
        self.log().append(entries, Box::new(move || callback.io_completed(Ok(())))).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> Result<(), io::Error> {
        let last = last_log_id.as_ref().map(from_raft);
        // Nothing to drop: it must not move the log's end forward.
        if last.map(LogId::index) >= self.log().state().last.map(LogId::index) {
            return Ok(());
        }
        self.log().truncate_after(last).map_err(io::Error::other)
    }

    async fn purge(&mut self, log_id: RaftLogId) -> Result<(), io::Error> {
        let mut through = from_raft(&log_id);
        if self.shared.env.faults.is_planted(Fault::PurgeBeyondSnapshot) {
            through = self.shared.visible.borrow().log_id.unwrap_or(through).max(through);
        }
        self.log().purge(through).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_env::Term;
    use openraft::entry::RaftEntry as _;

    use super::*;

    #[test]
    fn entries_that_begin_behind_a_purge_are_not_passed_on() {
        let entry = |index| RaftEntry::new_blank(to_raft(LogId::new(Term::new(1), LogIndex::new(index))));
        assert_eq!(beginning_at(5, vec![entry(5), entry(6)]).unwrap().len(), 2);
        for entries in [vec![entry(6)], Vec::new()] {
            let error = beginning_at(5, entries).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
