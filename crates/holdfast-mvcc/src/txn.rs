//! What transactions do before they write: choose their branches, check their reads; and those that only read.

use crate::command::{
    Compare, Op, OpResponse, OpResult, Operand, ReadAt, Refusal, Relation, Txn, TxnResponse,
};
use crate::range::{CHUNK_KEYS, RangeSource, range};
use crate::state::{IndexedKey, IndexedLease};
use crate::types::{LeaseId, Revision};

/// The revisions that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadWindow {
    /// The newest revision.
    pub newest: Revision,
    /// The lowest readable revision; `None` when nothing was ever compacted.
    pub compact_revision: Option<Revision>,
}

impl ReadWindow {
    /// The revision that a read at `at` sees, or why it cannot be read. A revision of 0 means the newest.
    pub fn resolve(self, at: ReadAt) -> Result<Revision, Refusal> {
        let revision = match at {
            ReadAt::Latest | ReadAt::Revision(Revision::NONE) => return Ok(self.newest),
            ReadAt::Revision(revision) => revision,
        };
        if revision > self.newest {
            let requested = i64::try_from(revision.get()).unwrap_or(i64::MAX);
            return Err(Refusal::FutureRevision { requested, current: self.newest });
        }
        match self.compact_revision {
            Some(compact_revision) if revision < compact_revision => {
                let requested = i64::try_from(revision.get()).unwrap_or(i64::MAX);
                Err(Refusal::Compacted { requested, compact_revision })
            }
            _ => Ok(revision),
        }
    }
}

impl Txn {
    /// True when both branches hold nothing but ranges: the transaction needs no log entry and is answered by
    /// [`read_txn`]. A nested transaction makes it a write, even one that only reads.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }

    /// The operations that run.
    pub(crate) fn branch(&self, succeeded: bool) -> &[Op] {
        if succeeded { &self.success } else { &self.failure }
    }
}

/// Answers a read-only transaction from a view pinned at `window.newest`, without a log entry. The outer error is a
/// local failure of the source, the inner one an answer.
///
/// Panics when the transaction is not read-only.
pub fn read_txn<S: RangeSource>(
    source: &mut S,
    txn: &Txn,
    window: ReadWindow,
) -> Result<Result<TxnResponse, Refusal>, S::Error> {
    assert!(txn.is_read_only(), "a transaction that may write goes through the log");
    let succeeded = all_hold(source, &txn.compares, window.newest)?;
    let mut reads = Vec::new();
    for op in txn.branch(succeeded) {
        let Op::Range(read) = op else { unreachable!("checked above") };
        match window.resolve(read.at) {
            Ok(at) => reads.push((read, at)),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
    let mut responses = Vec::with_capacity(reads.len());
    for (read, at) in reads {
        let result = OpResult::Range(range(source, read, at)?);
        responses.push(OpResponse { revision: window.newest, result });
    }
    Ok(Ok(TxnResponse { succeeded, responses }))
}

/// Which branch each transaction takes, outermost first, then nested ones in order of execution. All compares see the
/// state at `at`, before anything runs.
pub(crate) fn choose_branches<S: RangeSource>(
    source: &mut S,
    txn: &Txn,
    at: Revision,
    choices: &mut Vec<bool>,
) -> Result<(), S::Error> {
    let succeeded = all_hold(source, &txn.compares, at)?;
    choices.push(succeeded);
    for op in txn.branch(succeeded) {
        if let Op::Txn(nested) = op {
            choose_branches(source, nested, at, choices)?;
        }
    }
    Ok(())
}

/// Calls `visit` for each operation that will run, in order of execution, but for the nested transactions themselves.
/// Ends at the first error.
pub(crate) fn for_each_op<'a, E>(
    txn: &'a Txn,
    choices: &mut impl Iterator<Item = bool>,
    visit: &mut impl FnMut(&'a Op) -> Result<(), E>,
) -> Result<(), E> {
    let succeeded = choices.next().expect("a branch was chosen for each transaction that runs");
    for op in txn.branch(succeeded) {
        match op {
            Op::Txn(nested) => for_each_op(nested, choices, visit)?,
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) | Op::Unset => visit(op)?,
        }
    }
    Ok(())
}

/// True when every compare holds for the state at `at`.
pub(crate) fn all_hold<S: RangeSource>(
    source: &mut S,
    compares: &[Compare],
    at: Revision,
) -> Result<bool, S::Error> {
    for compare in compares {
        if !holds(source, compare, at)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// True when the relation holds for every key of the range. A range without keys counts as one missing key.
fn holds<S: RangeSource>(source: &mut S, compare: &Compare, at: Revision) -> Result<bool, S::Error> {
    let mut is_missing = true;
    let mut after = None;
    loop {
        let chunk = source.chunk(&compare.range, after.as_ref(), at, CHUNK_KEYS)?;
        for key in &chunk.keys {
            is_missing = false;
            if !holds_for(source, compare, key)? {
                return Ok(false);
            }
        }
        match chunk.next {
            Some(next) => after = Some(next),
            None => return Ok(!is_missing || holds_for_missing(compare)),
        }
    }
}

fn holds_for<S: RangeSource>(source: &mut S, compare: &Compare, key: &IndexedKey) -> Result<bool, S::Error> {
    let relation = compare.relation;
    Ok(match &compare.operand {
        Operand::Version(given) => relation.holds(&signed(key.version), given),
        Operand::Create(given) => relation.holds(&signed(key.create_revision.get()), given),
        Operand::Mod(given) => relation.holds(&signed(key.id.revision.get()), given),
        Operand::Value(given) => relation.holds(&source.record(&key.key, key.id)?.value, given),
        Operand::Lease(given) => {
            let lease: Option<LeaseId> = match key.lease {
                IndexedLease::Known(lease) => lease,
                IndexedLease::InRecord => source.record(&key.key, key.id)?.lease,
            };
            relation.holds(&lease.map_or(0, |lease| lease.0), given)
        }
    })
}

fn holds_for_missing(compare: &Compare) -> bool {
    match compare.operand {
        Operand::Version(given) | Operand::Create(given) | Operand::Mod(given) | Operand::Lease(given) => {
            compare.relation.holds(&0, &given)
        }
        Operand::Value(_) => false,
    }
}

impl Relation {
    fn holds<T: Ord>(self, actual: &T, given: &T) -> bool {
        match self {
            Self::Equal => actual == given,
            Self::Greater => actual > given,
            Self::Less => actual < given,
            Self::NotEqual => actual != given,
        }
    }
}

/// As on the wire, where these numbers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("revisions and versions stay below 2^63")
}
