//! Random requests, each from one seed. Few keys, so that requests meet; revisions around the readable ones, so that
//! refusals are met too.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::*;

/// A small generator (splitmix64): equal seeds give equal requests on every machine.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
    fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

/// Where requests aim.
#[derive(Clone, Copy)]
pub(crate) struct Aim<'a> {
    pub(crate) revision: u64,
    pub(crate) compact_revision: u64,
    pub(crate) leases: &'a BTreeMap<LeaseId, Lease>,
}

pub(crate) fn command(dice: &mut Dice, aim: Aim) -> Command {
    match dice.below(100) {
        0..40 => Command::Put(put(dice)),
        40..45 => lease_command(dice, aim.leases),
        45..60 => Command::DeleteRange(delete(dice)),
        60..98 => Command::Txn(txn(dice, aim, 0)),
        98 => Command::Compact(compact(dice, aim)),
        _ => Command::PublishMember(MemberAttributes {
            id: MemberId(dice.below(4) + 1),
            name: format!("m{}", dice.below(3)),
            client_urls: vec![format!("http://h{}", dice.below(9))],
        }),
    }
}

fn lease(dice: &mut Dice) -> LeaseId {
    // Negative ids are ids like others.
    LeaseId(dice.below(6) as i64 - 2)
}

/// One in four is of another lease that has, had or will have its id.
fn lease_ref(dice: &mut Dice, leases: &BTreeMap<LeaseId, Lease>) -> LeaseRef {
    let id = lease(dice);
    let granted_at = leases.get(&id).map_or(LogIndex(0), |lease| lease.granted_at);
    let granted_at = if dice.once_in(4) { LogIndex(granted_at.0 + dice.below(3)) } else { granted_at };
    LeaseRef { id, granted_at }
}

fn lease_command(dice: &mut Dice, leases: &BTreeMap<LeaseId, Lease>) -> Command {
    let term = if dice.once_in(10) { Term(dice.below(9)) } else { crate::naive::TERM };
    let some = |dice: &mut Dice| dice.below(4);
    match dice.below(10) {
        0..5 => Command::LeaseGrant(LeaseGrant { id: lease(dice), ttl_seconds: dice.below(9) + 1 }),
        5..7 => Command::LeaseRevoke(lease(dice)),
        7..9 => {
            let leases = (0..some(dice)).map(|_| lease_ref(dice, leases)).collect();
            Command::LeaseExpire(LeaseExpire { term, leases })
        }
        _ => Command::LeaseCheckpoint(LeaseCheckpoint {
            term,
            remaining: (0..some(dice))
                .map(|_| LeaseRemaining {
                    lease: lease_ref(dice, leases),
                    seconds: dice.once_in(2).then(|| dice.below(9)),
                })
                .collect(),
        }),
    }
}

fn compact(dice: &mut Dice, aim: Aim) -> Compact {
    let revision = match dice.below(10) {
        0 => dice.below(4) as i64 - 2,
        1 => aim.revision as i64 + dice.below(3) as i64,
        2 => aim.compact_revision as i64 + dice.below(3) as i64 - 1,
        _ => (aim.compact_revision + dice.below(aim.revision - aim.compact_revision + 1)) as i64,
    };
    Compact { revision }
}

fn key(dice: &mut Dice) -> Bytes {
    if dice.once_in(200) {
        return Bytes::new();
    }
    let first = dice.pick(b"\0abcd\xff");
    let rest: &[u8] = dice.pick(&[&b""[..], b"", b"\0", b"a", b"b", b"\xff"]);
    Bytes::from([&[first], rest].concat())
}

pub(crate) fn key_range(dice: &mut Dice) -> KeyRange {
    let start = key(dice);
    let end = match dice.below(8) {
        0..3 => RangeEnd::Single,
        3..7 => RangeEnd::Before(key(dice)),
        _ => RangeEnd::Unbounded,
    };
    KeyRange { start, end }
}

fn value(dice: &mut Dice) -> Bytes {
    let length = dice.pick(&[0, 1, 1, 2, 9, 200]);
    Bytes::from(vec![b'0' + dice.below(4) as u8; length])
}

fn put(dice: &mut Dice) -> Put {
    let ignore_value = dice.once_in(8);
    Put {
        key: key(dice),
        value: if ignore_value && !dice.once_in(20) { Bytes::new() } else { value(dice) },
        lease: dice.once_in(8).then(|| lease(dice)),
        prev_kv: dice.once_in(3),
        ignore_value,
        ignore_lease: dice.once_in(8),
    }
}

fn delete(dice: &mut Dice) -> DeleteRange {
    DeleteRange { range: key_range(dice), prev_kv: dice.once_in(2) }
}

pub(crate) fn range(dice: &mut Dice, aim: Aim) -> Range {
    let around = |dice: &mut Dice| Revision::new((aim.revision + 1).saturating_sub(dice.below(40)));
    let bound = |dice: &mut Dice| if dice.once_in(6) { around(dice) } else { Revision::NONE };
    Range {
        min_mod_revision: bound(dice),
        max_mod_revision: bound(dice),
        min_create_revision: bound(dice),
        max_create_revision: bound(dice),
        range: key_range(dice),
        limit: dice.once_in(2).then(|| dice.below(9) + 1),
        at: match dice.below(4) {
            0 => ReadAt::Revision(around(dice)),
            1 => ReadAt::Revision(Revision::new(aim.compact_revision + dice.below(3))),
            _ => ReadAt::Latest,
        },
        order: dice.pick(&[SortOrder::None, SortOrder::Ascend, SortOrder::Descend]),
        target: dice.pick(&[
            SortTarget::Key,
            SortTarget::Key,
            SortTarget::Version,
            SortTarget::Create,
            SortTarget::Mod,
            SortTarget::Value,
        ]),
        keys_only: dice.once_in(4),
        count_only: dice.once_in(10),
    }
}

pub(crate) fn read_only_txn(dice: &mut Dice, aim: Aim) -> Txn {
    let ranges = |dice: &mut Dice| {
        (0..dice.below(3)).map(|_| Op::Range(Range { at: ReadAt::Latest, ..range(dice, aim) })).collect()
    };
    Txn { compares: compares(dice, aim), success: ranges(dice), failure: ranges(dice) }
}

fn txn(dice: &mut Dice, aim: Aim, depth: u64) -> Txn {
    Txn { compares: compares(dice, aim), success: ops(dice, aim, depth), failure: ops(dice, aim, depth) }
}

fn ops(dice: &mut Dice, aim: Aim, depth: u64) -> Vec<Op> {
    let op = |dice: &mut Dice| match dice.below(20 - 2 * depth) {
        0..6 => Op::Put(put(dice)),
        6..9 => Op::DeleteRange(delete(dice)),
        9..14 => Op::Range(Range {
            // Mostly readable: one refused range ends a whole transaction.
            at: if dice.once_in(4) { range(dice, aim).at } else { ReadAt::Latest },
            ..range(dice, aim)
        }),
        14 if dice.once_in(30) => Op::Unset,
        15.. if depth < 3 => Op::Txn(txn(dice, aim, depth + 1)),
        _ => Op::Range(Range { at: ReadAt::Latest, ..range(dice, aim) }),
    };
    (0..dice.below(4)).map(|_| op(dice)).collect()
}

fn compares(dice: &mut Dice, aim: Aim) -> Vec<Compare> {
    let compare = |dice: &mut Dice| {
        let revision = aim.revision.saturating_sub(dice.below(30)) as i64;
        Compare {
            range: key_range(dice),
            relation: dice.pick(&[Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual]),
            operand: match dice.below(6) {
                0 => Operand::Version(dice.below(4) as i64),
                1 => Operand::Create(dice.pick(&[revision, 0])),
                2 => Operand::Mod(dice.pick(&[revision, 0])),
                3 => Operand::Lease(dice.below(6) as i64 - 2),
                _ => Operand::Value(value(dice)),
            },
        }
    };
    let count = dice.pick(&[0, 0, 1, 1, 2]);
    (0..count).map(|_| compare(dice)).collect()
}
