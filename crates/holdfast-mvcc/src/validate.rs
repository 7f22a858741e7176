//! The checks a request must pass before it is replicated or read: what is refused here never reaches the log.
//!
//! The order of the checks is part of the contract, because a request that breaks several rules gets the error of the
//! first: the size of a transaction, then its compares and operations in order, then overlaps per branch.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::{Command, Invalid, Op, Put, Range, Txn};
use crate::types::{KeyRange, RangeEnd};

/// How many transactions may be one in the other, the outermost counted. Everything that descends into transactions
/// is recursive, and protobuf's reader gives up at 100 levels of messages: each transaction takes two of them, and a log
/// entry up to seven more around the outermost and inside the innermost. What cannot be read again must not become an
/// entry. A third of the levels stays free for what entries may become.
pub const TXN_DEPTH_MAX: usize = 32;

/// Checks a command. `txn_ops_max` bounds the longest of a transaction's three lists; a nested transaction has what
/// its parent's longest list left over. [`TXN_DEPTH_MAX`] bounds the nesting.
pub fn validate(command: &Command, txn_ops_max: usize) -> Result<(), Invalid> {
    match command {
        Command::Put(put) => validate_put(put),
        Command::DeleteRange(delete) => validate_key(&delete.range.start),
        Command::Txn(txn) => validate_txn(txn, txn_ops_max),
        Command::Compact(_)
        | Command::PublishMember(_)
        | Command::RaiseAlarm(_)
        | Command::ClearAlarm(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseExpire(_)
        | Command::LeaseCheckpoint(_)
        | Command::Auth(_) => Ok(()),
    }
}

/// True when the command nests transactions deeper than [`TXN_DEPTH_MAX`]. [`validate()`] refuses such a command; this
/// is for those who must not take one even from a caller that did not ask.
pub fn is_too_deep(command: &Command) -> bool {
    matches!(command, Command::Txn(txn) if is_deeper(txn, TXN_DEPTH_MAX))
}

/// Recursive to `depth_max` at most.
fn is_deeper(txn: &Txn, depth_max: usize) -> bool {
    let Some(depth_left) = depth_max.checked_sub(1) else { return true };
    txn.success
        .iter()
        .chain(&txn.failure)
        .any(|op| matches!(op, Op::Txn(nested) if is_deeper(nested, depth_left)))
}

/// Checks a read.
pub fn validate_range(range: &Range) -> Result<(), Invalid> {
    validate_key(&range.range.start)
}

/// Checks a transaction, read-only or not.
pub fn validate_txn(txn: &Txn, txn_ops_max: usize) -> Result<(), Invalid> {
    validate_shape(txn, txn_ops_max, TXN_DEPTH_MAX)?;
    // As deep as the shape, which has been found to be bounded.
    Writes::of_branch(&txn.success)?;
    Writes::of_branch(&txn.failure)?;
    Ok(())
}

fn validate_key(key: &Bytes) -> Result<(), Invalid> {
    if key.is_empty() { Err(Invalid::EmptyKey) } else { Ok(()) }
}

fn validate_put(put: &Put) -> Result<(), Invalid> {
    validate_key(&put.key)?;
    if put.ignore_value && !put.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if put.ignore_lease && put.lease.is_some() {
        return Err(Invalid::LeaseProvided);
    }
    Ok(())
}

/// `depth_left` counts this transaction.
fn validate_shape(txn: &Txn, operations_max: usize, depth_left: usize) -> Result<(), Invalid> {
    let Some(nested_depth_left) = depth_left.checked_sub(1) else {
        return Err(Invalid::TooDeep { depth_max: TXN_DEPTH_MAX });
    };
    let operations = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    let Some(nested_max) = operations_max.checked_sub(operations) else {
        return Err(Invalid::TooManyOperations { operations, operations_max });
    };
    for compare in &txn.compares {
        validate_key(&compare.range.start)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(range) => validate_range(range)?,
            Op::Put(put) => validate_put(put)?,
            Op::DeleteRange(delete) => validate_key(&delete.range.start)?,
            Op::Txn(nested) => validate_shape(nested, nested_max, nested_depth_left)?,
            Op::Unset => return Err(Invalid::EmptyOperation),
        }
    }
    Ok(())
}

/// What the operations of one branch may write, nested transactions included.
#[derive(Default)]
struct Writes<'a> {
    puts: Vec<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Collects the writes of a branch, and refuses it when two of its operations touch the same key and one of them
    /// puts it. The two branches of a nested transaction exclude each other: together they count as one operation.
    fn of_branch(ops: &'a [Op]) -> Result<Self, Invalid> {
        let mut puts = Vec::new();
        let mut deletes = Vec::new();
        for (owner, op) in ops.iter().enumerate() {
            let writes = Self::of_op(op)?;
            puts.extend(writes.puts.into_iter().map(|key| (key, owner)));
            deletes.extend(writes.deletes.into_iter().map(|range| (range, owner)));
        }
        puts.sort_unstable();
        let is_put_twice = puts.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1);
        if is_put_twice || meet_elsewhere(&puts, &deletes) {
            return Err(Invalid::DuplicateKey);
        }
        Ok(Self {
            puts: puts.into_iter().map(|(key, _)| key).collect(),
            deletes: deletes.into_iter().map(|(range, _)| range).collect(),
        })
    }

    fn of_op(op: &'a Op) -> Result<Self, Invalid> {
        match op {
            Op::Put(put) => Ok(Self { puts: vec![&put.key], deletes: Vec::new() }),
            Op::DeleteRange(delete) => Ok(Self { puts: Vec::new(), deletes: vec![&delete.range] }),
            Op::Txn(nested) => {
                let mut writes = Self::of_branch(&nested.success)?;
                let failure = Self::of_branch(&nested.failure)?;
                writes.puts.extend(failure.puts);
                writes.deletes.extend(failure.deletes);
                Ok(writes)
            }
            Op::Range(_) | Op::Unset => Ok(Self::default()),
        }
    }
}

/// Where a delete's range begins or ends to cover keys, on the line of all keys.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    /// Before the put of the same key, so that it is seen inside.
    Begin,
    Put,
    /// Behind the put of the same key: ends a range of one key.
    EndBehind,
}

/// True when a put's key lies in a deleted range of another owner. `puts` ascend. One sweep over all edges: the number
/// of operations in nested transactions multiplies, and comparing all pairs would let one request stop a member.
fn meet_elsewhere(puts: &[(&Bytes, usize)], deletes: &[(&KeyRange, usize)]) -> bool {
    if puts.is_empty() || deletes.is_empty() {
        return false;
    }
    let mut edges: Vec<(&Bytes, Edge, usize, bool)> = Vec::with_capacity(puts.len() + 2 * deletes.len());
    edges.extend(puts.iter().map(|&(key, owner)| (key, Edge::Put, owner, false)));
    for &(range, owner) in deletes {
        match &range.end {
            RangeEnd::Single => edges.push((&range.start, Edge::EndBehind, owner, true)),
            RangeEnd::Before(end) if *end <= range.start => continue,
            RangeEnd::Before(end) => edges.push((end, Edge::Begin, owner, true)),
            RangeEnd::Unbounded => {}
        }
        edges.push((&range.start, Edge::Begin, owner, false));
    }
    edges.sort_unstable();
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    for (_, edge, owner, is_end) in edges {
        if edge == Edge::Put {
            if open.keys().take(2).any(|&other| other != owner) {
                return true;
            }
        } else if is_end {
            close(&mut open, owner);
        } else {
            *open.entry(owner).or_default() += 1;
        }
    }
    false
}

fn close(open: &mut BTreeMap<usize, usize>, owner: usize) {
    let count = open.get_mut(&owner).expect("a range begins before it ends");
    *count -= 1;
    if *count == 0 {
        open.remove(&owner);
    }
}

#[cfg(test)]
mod tests;
