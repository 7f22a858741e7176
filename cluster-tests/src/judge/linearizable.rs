//! Judges one register: is there an order of all calls, each at some moment between its begin and its end, in which every
//! answer is right?
//!
//! The search is Wing and Gong's, just in time: of the calls that could come next it tries one, goes on, and comes back when
//! an answer cannot be. It remembers which sets of calls it has placed with which state (Lowe, "Testing for
//! linearizability", 2017). A call of unknown outcome has no end: it may come at any time, or never.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

/// Sets of placed calls that are remembered; above it the search gives up, which is a finding of its own.
const REMEMBERED_MAX: usize = 4_000_000;

/// What a register holds; `None` if the key does not exist.
pub type State = Option<u64>;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Reads.
    Read,
    /// Writes a value, or deletes.
    Write(State),
    /// Writes a value if the register holds what is expected.
    Swap {
        /// What is expected.
        expected: State,
        /// What is written.
        new: u64,
    },
}

/// What a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The value read.
    Saw(State),
    /// Written.
    Written,
    /// Whether the register held what was expected, and was written.
    Swapped(bool),
    /// No answer: it may have taken effect, or may still.
    Unknown,
}

/// A call with its answer. Times are since the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The call.
    pub call: Call,
    /// Its answer.
    pub answer: Answer,
    /// When it was called.
    pub began: Duration,
    /// When it was answered; without a meaning when it was not.
    pub ended: Duration,
}

/// What the search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none: this many of the answered calls, by their ends, can be put in order, and one more cannot.
    NotLinearizable {
        /// So many can.
        explained: usize,
    },
    /// Too many possibilities.
    GaveUp,
}

/// A register whose answers cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its key.
    pub key: String,
    /// Why.
    pub verdict: Verdict,
    /// The call at which it shows.
    pub at: Option<Operation>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, verdict, at } = self;
        match verdict {
            Verdict::GaveUp => write!(f, "{key}: not judged, too many possibilities"),
            _ => write!(f, "{key}: not linearizable, at the latest at {at:?}"),
        }
    }
}

/// Judges a register that does not exist at first.
pub fn judge(key: &str, operations: &[Operation]) -> Option<Finding> {
    let verdict = search(operations);
    let at = match verdict {
        Verdict::Linearizable => return None,
        Verdict::NotLinearizable { explained } => answered(operations).get(explained).copied(),
        Verdict::GaveUp => None,
    };
    Some(Finding { key: key.to_owned(), verdict, at })
}

/// Searches for an order.
pub fn search(operations: &[Operation]) -> Verdict {
    match Search::new(operations).run(REMEMBERED_MAX) {
        Some(true) => Verdict::Linearizable,
        None => Verdict::GaveUp,
        // What cannot be put in order cannot be with more calls either.
        Some(false) => {
            let ends = answered(operations);
            let (mut good, mut bad) = (0, ends.len());
            while bad - good > 1 {
                let middle = good + (bad - good) / 2;
                let until = ends[middle - 1].ended;
                if Search::new(&cut_off(operations, until)).run(REMEMBERED_MAX) == Some(false) {
                    bad = middle;
                } else {
                    good = middle;
                }
            }
            Verdict::NotLinearizable { explained: good }
        }
    }
}

/// The answered calls by their ends.
fn answered(operations: &[Operation]) -> Vec<Operation> {
    let answered = operations.iter().filter(|operation| operation.answer != Answer::Unknown);
    let mut answered: Vec<Operation> = answered.copied().collect();
    answered.sort_by_key(|operation| operation.ended);
    answered
}

/// What was known at a moment.
fn cut_off(operations: &[Operation], until: Duration) -> Vec<Operation> {
    let begun = operations.iter().filter(|operation| operation.began <= until);
    let open = |operation: &Operation| match operation.ended > until {
        true => Operation { answer: Answer::Unknown, ..*operation },
        false => *operation,
    };
    begun.map(open).collect()
}

/// The state after an operation; `None` if its answer cannot be.
fn step(state: State, operation: &Operation) -> Option<State> {
    match (operation.call, operation.answer) {
        (Call::Read, Answer::Saw(seen)) => (seen == state).then_some(state),
        (Call::Read, _) => Some(state),
        (Call::Write(new), _) => Some(new),
        (Call::Swap { expected, new }, answer) => {
            let holds = expected == state;
            match answer {
                Answer::Swapped(swapped) if swapped != holds => None,
                _ => Some(if holds { Some(new) } else { state }),
            }
        }
    }
}

/// Calls and ends in a ring in the order of time. Place `2 * i` is call `i`, `2 * i + 1` its end, the last one the head.
struct Search<'a> {
    operations: Vec<&'a Operation>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Answered calls that have not been placed.
    left: usize,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        // An unanswered read says nothing.
        let says =
            |operation: &&Operation| operation.call != Call::Read || operation.answer != Answer::Unknown;
        let operations: Vec<&Operation> = operations.iter().filter(says).collect();
        let mut moments: Vec<(Option<Duration>, bool, usize)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            let end = (operation.answer != Answer::Unknown).then_some(operation.ended);
            moments.push((Some(operation.began), false, 2 * number));
            moments.push((end, true, 2 * number + 1));
        }
        // Without an end: behind all others. At one moment calls come before ends: that leaves more possible.
        moments.sort_by_key(|(at, is_end, place)| (at.is_none(), *at, *is_end, *place));
        let head = 2 * operations.len();
        let (mut next, mut previous) = (vec![head; head + 1], vec![head; head + 1]);
        let mut last = head;
        for (_, _, place) in moments {
            (next[last], previous[place]) = (place, last);
            last = place;
        }
        (next[last], previous[head]) = (head, last);
        let left = operations.iter().filter(|operation| operation.answer != Answer::Unknown).count();
        Self { operations, next, previous, left }
    }

    /// Whether there is an order; `None` if it gave up, because there is more to remember.
    fn run(mut self, remembered_max: usize) -> Option<bool> {
        let head = 2 * self.operations.len();
        let mut placed = vec![0_u64; self.operations.len().div_ceil(64)];
        let mut remembered: HashSet<(Box<[u64]>, State)> = HashSet::new();
        let mut path: Vec<(usize, State)> = Vec::new();
        let (mut state, mut at) = (None, self.next[head]);
        while self.left > 0 {
            let number = at / 2;
            if at != head && at % 2 == 0 {
                if let Some(after) = step(state, self.operations[number]) {
                    placed[number / 64] |= 1 << (number % 64);
                    if remembered.insert((placed.clone().into(), after)) {
                        path.push((number, state));
                        state = after;
                        self.take(number);
                        at = self.next[head];
                        continue;
                    }
                    placed[number / 64] &= !(1 << (number % 64));
                }
                at = self.next[at];
                continue;
            }
            // An end that comes before its call: the last choice was wrong.
            let Some((number, before)) = path.pop() else { return Some(false) };
            placed[number / 64] &= !(1 << (number % 64));
            state = before;
            self.put_back(number);
            at = self.next[2 * number];
            if remembered.len() > remembered_max {
                return None;
            }
        }
        Some(true)
    }

    fn is_answered(&self, number: usize) -> bool {
        self.operations[number].answer != Answer::Unknown
    }

    fn take(&mut self, number: usize) {
        for place in [2 * number, 2 * number + 1] {
            let (before, behind) = (self.previous[place], self.next[place]);
            (self.next[before], self.previous[behind]) = (behind, before);
        }
        self.left -= usize::from(self.is_answered(number));
    }

    /// In the opposite order, so that neighbours are as they were.
    fn put_back(&mut self, number: usize) {
        for place in [2 * number + 1, 2 * number] {
            let (before, behind) = (self.previous[place], self.next[place]);
            (self.next[before], self.previous[behind]) = (place, place);
        }
        self.left += usize::from(self.is_answered(number));
    }
}

#[cfg(test)]
mod tests;
