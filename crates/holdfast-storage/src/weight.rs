//! What an entry weighs: how much of the queue it takes, and whether it is so light that whoever brings it evaluates it.

use holdfast_mvcc::command::{Command, Op, Txn};
use holdfast_mvcc::types::RangeEnd;

use crate::limits::{ENTRY_BYTES, HELPED_BYTES_MAX, HELPED_ENTRIES_MAX};
use crate::types::{DispatchBody, DispatchItem};

/// True for entries, `bytes` by their [`cost`] together, that are evaluated in less time than a thread takes to wake up, and
/// that certainly need no value of the stable store: they never block.
pub(crate) fn are_light(items: &[DispatchItem], bytes: usize) -> bool {
    items.len() <= HELPED_ENTRIES_MAX
        && bytes <= HELPED_BYTES_MAX
        && items.iter().all(|item| match &item.body {
            DispatchBody::Blank | DispatchBody::Membership(_) => true,
            DispatchBody::Command { command, .. } => is_short(command) && !may_need_values(command),
        })
}

/// True when a command changes one key or one lease, and no more.
fn is_short(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::LeaseGrant(_) => true,
        Command::DeleteRange(delete) => delete.range.end == RangeEnd::Single,
        _ => false,
    }
}

/// False when it certainly does not: most writes are plain puts, for which the index need not be asked.
pub(crate) fn may_need_values(command: &Command) -> bool {
    match command {
        Command::Put(put) => put.prev_kv || put.ignore_value,
        Command::DeleteRange(delete) => delete.prev_kv,
        Command::Txn(_) => true,
        Command::Compact(_)
        | Command::PublishMember(_)
        | Command::RaiseAlarm(_)
        | Command::ClearAlarm(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseExpire(_)
        | Command::LeaseCheckpoint(_)
        | Command::Auth(_) => false,
    }
}

/// What an entry costs in the queue, about.
pub(crate) fn cost(item: &DispatchItem) -> usize {
    ENTRY_BYTES
        + match &item.body {
            DispatchBody::Blank => 0,
            DispatchBody::Membership(content) => content.len(),
            DispatchBody::Command { command, .. } => command_cost(command),
        }
}

fn command_cost(command: &Command) -> usize {
    match command {
        Command::Put(put) => put.key.len() + put.value.len(),
        Command::Txn(txn) => txn_cost(txn),
        Command::DeleteRange(_)
        | Command::Compact(_)
        | Command::PublishMember(_)
        | Command::RaiseAlarm(_)
        | Command::ClearAlarm(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_) => 256,
        Command::LeaseExpire(expire) => 256 + 16 * expire.leases.len(),
        Command::LeaseCheckpoint(checkpoint) => 256 + 32 * checkpoint.remaining.len(),
        // Names, a hash or a range: what they may be is bounded by the size of a request, and most are short.
        Command::Auth(_) => 1024,
    }
}

fn txn_cost(txn: &Txn) -> usize {
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Put(put) => 64 + put.key.len() + put.value.len(),
        Op::Txn(inner) => txn_cost(inner),
        Op::Range(_) | Op::DeleteRange(_) | Op::Unset => 128,
    });
    128 * (1 + txn.compares.len()) + ops.sum::<usize>()
}
