//! The quota on data, `--quota-backend-bytes`.
//!
//! What counts is the logical size of the data, which is the same on all members and falls as soon as a compaction is
//! evaluated, whatever the files do. A request that needs space and would reach the quota is refused on the member that it came
//! to, which also raises the alarm NOSPACE in its own name: until that is cleared, every member refuses whatever needs space.
//! Deletes, compactions and reads go on. What a request needs is counted as etcd does.
//!
//! The leader clears such alarms by itself once the data is well below the quota. One that an operator raised in no member's
//! name stays until an operator clears it.

use std::sync::Arc;

use holdfast_env::Clock;
use holdfast_mvcc::command::{Alarm, AlarmKind, Command, Op, Put, Txn};
use tokio_util::sync::CancellationToken;

use crate::frontend::Frontend;
use crate::limits;

/// What a put costs beside its key and its value, in bytes; what a lease costs. etcd's numbers.
const PUT_BYTES: u64 = 256;
const LEASE_BYTES: u64 = 64;

/// The bytes that a command may add, more or less; 0 for what needs no space.
pub fn cost(command: &Command) -> u64 {
    match command {
        Command::Put(put) => put_cost(put),
        Command::Txn(txn) => txn_cost(txn),
        Command::LeaseGrant(_) => LEASE_BYTES,
        Command::DeleteRange(_)
        | Command::Compact(_)
        | Command::PublishMember(_)
        | Command::RaiseAlarm(_)
        | Command::ClearAlarm(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseExpire(_)
        | Command::LeaseCheckpoint(_)
        | Command::Auth(_) => 0,
    }
}

fn put_cost(put: &Put) -> u64 {
    PUT_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// That of its dearer branch.
fn txn_cost(txn: &Txn) -> u64 {
    let branch = |ops: &[Op]| -> u64 {
        let costs = ops.iter().map(|op| match op {
            Op::Put(put) => put_cost(put),
            Op::Txn(nested) => txn_cost(nested),
            Op::Range(_) | Op::DeleteRange(_) | Op::Unset => 0,
        });
        costs.sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

/// The size below which alarms are cleared: not right below the quota, or they would come and go with each request.
fn is_well_below(bytes: u64, quota: u64) -> bool {
    u128::from(bytes) * 100 < u128::from(quota) * u128::from(limits::QUOTA_CLEAR_PERCENT)
}

/// Clears, on the leader, what members have raised. Runs until `stop`.
pub async fn run(frontend: Arc<Frontend>, clock: Arc<dyn Clock>, quota: u64, stop: CancellationToken) {
    loop {
        tokio::select! {
            // Neither holds anything.
            () = stop.cancelled() => return,
            () = clock.sleep(limits::QUOTA_LOOK_EVERY) => {}
        }
        let bytes = frontend.storage.logical_bytes();
        if !is_well_below(bytes, quota) || !frontend.node.health().is_leader {
            continue;
        }
        for alarm in raised_by_members(&frontend) {
            let clear = frontend.propose(Command::ClearAlarm(alarm), frontend.internal_call());
            tokio::select! {
                // One that was proposed may still be cleared, which does no harm.
                () = stop.cancelled() => return,
                cleared = clear => match cleared {
                    Ok(_) => tracing::info!(bytes, quota, "there is space again: the alarm NOSPACE is cleared"),
                    Err(failure) => tracing::warn!(?failure, "the alarm NOSPACE cannot be cleared yet"),
                },
            }
        }
    }
}

fn raised_by_members(frontend: &Frontend) -> Vec<Alarm> {
    let is_or_was_member = |alarm: &&Alarm| {
        frontend.node.members().iter().any(|member| member.id == alarm.member)
            || frontend.node.removed_members().contains(&alarm.member)
    };
    let alarms = frontend.storage.alarms();
    alarms.iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace).filter(is_or_was_member).copied().collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_mvcc::types::{KeyRange, RangeEnd};

    use super::*;

    fn put(key: &'static str, value: &'static str) -> Put {
        let (key, value) = (Bytes::from(key), Bytes::from(value));
        Put { key, value, lease: None, prev_kv: false, ignore_value: false, ignore_lease: false }
    }

    fn txn(success: Vec<Op>, failure: Vec<Op>) -> Txn {
        Txn { compares: Vec::new(), success, failure }
    }

    #[test]
    fn a_transaction_costs_what_its_dearer_branch_costs() {
        let range = KeyRange { start: Bytes::from_static(b"k"), end: RangeEnd::Single };
        let delete = holdfast_mvcc::command::DeleteRange { range, prev_kv: false };
        assert_eq!(cost(&Command::Put(put("k", "four"))), 261);
        assert_eq!(cost(&Command::DeleteRange(delete.clone())), 0);
        let nested = txn(vec![Op::Put(put("k", "")), Op::Put(put("l", ""))], Vec::new());
        let outer = txn(vec![Op::Put(put("k", "v"))], vec![Op::Txn(nested), Op::DeleteRange(delete)]);
        assert_eq!(cost(&Command::Txn(outer)), 514);
    }

    #[test]
    fn alarms_are_cleared_well_below_the_quota() {
        for (bytes, quota, cleared) in [(899, 1000, true), (900, 1000, false), (u64::MAX, u64::MAX, false)] {
            assert_eq!(is_well_below(bytes, quota), cleared, "{bytes} of {quota}");
        }
    }
}
