//! Proposals of this member that wait for an answer.
//!
//! A proposal has a *sequence*, this member's number for it. It starts in the queue, is handed to the log of the leader
//! once, and is answered by this member's own apply when the entry with its sequence comes by. What was certainly not
//! appended goes back to the queue; what may have been appended is never proposed again and waits until its entry is
//! applied here or its asker gives up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::Answer;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::error::NodeError;

/// The waiting proposals.
#[derive(Debug)]
pub(crate) struct Proposals {
    bytes_max: usize,
    state: Mutex<State>,
    /// Told when the queue is no longer empty. One task waits on it: the proposer.
    pub(crate) queued: Notify,
}

#[derive(Debug)]
struct State {
    next_sequence: u64,
    /// Everything that waits, by sequence.
    waiting: BTreeMap<u64, Waiting>,
    /// Sequences in stage `Queued`, and some that are gone.
    queue: VecDeque<u64>,
    /// Payload bytes of everything that waits.
    bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    payload: Bytes,
    stage: Stage,
    /// `None` once the entry is applied here, or when the outcome is decided otherwise.
    answer: Option<oneshot::Sender<Answer>>,
    /// Why nothing happened.
    verdict: Option<NodeError>,
}

/// How far a proposal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not handed to any log: nothing happened.
    Queued,
    /// Handed to a log: it may happen.
    Sent,
}

/// What is left of a proposal whose asker gets no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// How far it had come.
    pub(crate) stage: Stage,
    /// Why it was refused, if it was.
    pub(crate) verdict: Option<NodeError>,
}

/// The asker's hold on its proposal; forgets it on drop.
pub(crate) struct Ticket {
    proposals: Arc<Proposals>,
    sequence: u64,
}

impl Proposals {
    /// No proposals; the first gets `first_sequence`, a random number, so that entries of an earlier life of this
    /// member are not taken for new ones.
    pub(crate) fn new(first_sequence: u64, bytes_max: usize) -> Self {
        let state = State {
            next_sequence: first_sequence,
            waiting: BTreeMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            closed: false,
        };
        Self { bytes_max, state: Mutex::new(state), queued: Notify::new() }
    }

    /// Queues what `encode` makes of the proposal's sequence. The receiver ends without a value when the outcome is
    /// in the ticket's leftover.
    pub(crate) fn submit(
        self: &Arc<Self>,
        encode: impl FnOnce(u64) -> Result<Bytes, NodeError>,
    ) -> Result<(Ticket, oneshot::Receiver<Answer>), NodeError> {
        let sequence = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(NodeError::Stopped);
            }
            let sequence = state.next_sequence;
            state.next_sequence = sequence.wrapping_add(1);
            sequence
        };
        // Encoding takes time; others may submit meanwhile.
        let payload = encode(sequence)?;
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(NodeError::Stopped);
            }
            if state.bytes + payload.len() > self.bytes_max {
                return Err(NodeError::TooManyRequests);
            }
            state.bytes += payload.len();
            state.queue.push_back(sequence);
            let waiting = Waiting { payload, stage: Stage::Queued, answer: Some(answer), verdict: None };
            state.waiting.insert(sequence, waiting);
        }
        self.queued.notify_one();
        Ok((Ticket { proposals: Arc::clone(self), sequence }, answered))
    }

    /// A sequence under which nobody waits, for an entry that has no asker.
    pub(crate) fn skip(&self) -> u64 {
        let mut state = self.state.lock();
        let sequence = state.next_sequence;
        state.next_sequence = sequence.wrapping_add(1);
        sequence
    }

    /// Takes proposals from the front of the queue, at least one if there is one, until a bound would be passed. They
    /// count as sent from here on.
    pub(crate) fn take_batch(&self, entries_max: usize, bytes_max: usize) -> Vec<(u64, Bytes)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < entries_max {
            let Some(&sequence) = state.queue.front() else { break };
            let Some(waiting) =
                state.waiting.get_mut(&sequence).filter(|waiting| waiting.stage == Stage::Queued)
            else {
                state.queue.pop_front();
                continue;
            };
            if !batch.is_empty() && bytes + waiting.payload.len() > bytes_max {
                break;
            }
            state.queue.pop_front();
            waiting.stage = Stage::Sent;
            bytes += waiting.payload.len();
            batch.push((sequence, waiting.payload.clone()));
        }
        batch
    }

    /// Puts proposals that were certainly not appended back to the front of the queue.
    pub(crate) fn requeue(&self, sequences: &[u64]) {
        let mut state = self.state.lock();
        for &sequence in sequences.iter().rev() {
            if let Some(waiting) = state.waiting.get_mut(&sequence) {
                assert_eq!(waiting.stage, Stage::Sent, "only what was taken can come back");
                waiting.stage = Stage::Queued;
                state.queue.push_front(sequence);
            }
        }
        drop(state);
        self.queued.notify_one();
    }

    /// Answers proposals that were certainly not appended with `error`.
    pub(crate) fn refuse(&self, sequences: &[u64], error: &NodeError) {
        let mut state = self.state.lock();
        for sequence in sequences {
            if let Some(waiting) = state.waiting.get_mut(sequence) {
                waiting.verdict = Some(error.clone());
                waiting.answer = None;
            }
        }
    }

    /// Who waits for the entry with this sequence, when it is applied here.
    pub(crate) fn claim(&self, sequence: u64) -> Option<oneshot::Sender<Answer>> {
        self.state.lock().waiting.get_mut(&sequence)?.answer.take()
    }

    /// Refuses new proposals and ends the waiting ones; what was sent may have happened.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for waiting in state.waiting.values_mut() {
            waiting.verdict.get_or_insert(NodeError::Stopped);
            waiting.answer = None;
        }
        state.queue.clear();
    }

    /// True when there is something to take.
    pub(crate) fn has_queued(&self) -> bool {
        !self.state.lock().queue.is_empty()
    }

    /// How many wait.
    pub(crate) fn pending(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl Ticket {
    /// Gives up. What is left tells if it may have happened.
    pub(crate) fn give_up(self) -> Leftover {
        let removed = self.proposals.remove(self.sequence);
        // A ticket's entry is removed by its ticket alone.
        removed.map_or(Leftover { stage: Stage::Sent, verdict: None }, |waiting| Leftover {
            stage: waiting.stage,
            verdict: waiting.verdict,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        drop(self.proposals.remove(self.sequence));
    }
}

impl Proposals {
    fn remove(&self, sequence: u64) -> Option<Waiting> {
        let mut state = self.state.lock();
        let waiting = state.waiting.remove(&sequence)?;
        state.bytes -= waiting.payload.len();
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(proposals: &Arc<Proposals>, bytes: usize) -> (Ticket, oneshot::Receiver<Answer>) {
        proposals.submit(|_| Ok(Bytes::from(vec![0; bytes]))).unwrap()
    }

    #[test]
    fn what_was_not_taken_did_not_happen() {
        let proposals = Arc::new(Proposals::new(5, 100));
        let (ticket, _answer) = submit(&proposals, 10);
        assert_eq!(ticket.give_up(), Leftover { stage: Stage::Queued, verdict: None });
        assert!(proposals.take_batch(10, 100).is_empty());
    }

    #[test]
    fn what_was_taken_may_have_happened_until_it_comes_back() {
        let proposals = Arc::new(Proposals::new(u64::MAX, 100));
        let (first, _answer) = submit(&proposals, 10);
        let (second, _answer) = submit(&proposals, 10);
        let taken: Vec<u64> =
            proposals.take_batch(10, 100).into_iter().map(|(sequence, _)| sequence).collect();
        assert_eq!(taken, [u64::MAX, 0]);
        proposals.requeue(&taken[1..]);
        assert_eq!(first.give_up().stage, Stage::Sent);
        assert_eq!(second.give_up().stage, Stage::Queued);
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let proposals = Arc::new(Proposals::new(0, 25));
        let (first, _answer) = submit(&proposals, 20);
        assert_eq!(
            proposals.submit(|_| Ok(Bytes::from_static(&[0; 6]))).err(),
            Some(NodeError::TooManyRequests)
        );
        drop(first);
        submit(&proposals, 25);
    }

    #[test]
    fn a_batch_has_at_least_one_and_keeps_to_its_bounds() {
        let proposals = Arc::new(Proposals::new(0, 1000));
        let _tickets: Vec<_> = [50, 5, 5, 5].map(|bytes| submit(&proposals, bytes)).into();
        assert_eq!(proposals.take_batch(10, 10).len(), 1);
        assert_eq!(proposals.take_batch(10, 10).len(), 2);
        assert_eq!(proposals.take_batch(10, 10).len(), 1);
        assert!(!proposals.has_queued());
    }

    #[test]
    fn an_applied_entry_is_claimed_once() {
        let proposals = Arc::new(Proposals::new(0, 100));
        let (_ticket, _answer) = submit(&proposals, 1);
        assert!(proposals.claim(0).is_some());
        assert!(proposals.claim(0).is_none());
        assert!(proposals.claim(1).is_none());
    }

    #[test]
    fn refusals_and_closing_end_the_wait() {
        let proposals = Arc::new(Proposals::new(0, 100));
        let (first, mut answer) = submit(&proposals, 1);
        proposals.refuse(&[0], &NodeError::TooManyRequests);
        assert!(answer.try_recv().is_err());
        assert_eq!(first.give_up().verdict, Some(NodeError::TooManyRequests));
        let (second, _answer) = submit(&proposals, 1);
        proposals.close();
        assert_eq!(second.give_up().verdict, Some(NodeError::Stopped));
        assert_eq!(proposals.submit(|_| Ok(Bytes::new())).err(), Some(NodeError::Stopped));
    }
}
