//! Sizes and the order of the checks; overlaps are in `testscripts/txn/validation` and against the model.

use super::*;
use crate::command::{Compare, DeleteRange, Operand, Relation};

const MAX: usize = 128;

fn range_of(key: &str) -> KeyRange {
    KeyRange { start: Bytes::copy_from_slice(key.as_bytes()), end: RangeEnd::Single }
}

fn put(key: &str) -> Op {
    Op::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::new(),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

fn get(key: &str) -> Op {
    Op::Range(Range::of(range_of(key)))
}

fn compare(key: &str) -> Compare {
    Compare { range: range_of(key), relation: Relation::Equal, operand: Operand::Version(0) }
}

fn txn(compares: usize, success: usize, failure: usize) -> Txn {
    Txn {
        compares: vec![compare("k"); compares],
        success: vec![get("k"); success],
        failure: vec![get("k"); failure],
    }
}

fn too_many(operations: usize, operations_max: usize) -> Result<(), Invalid> {
    Err(Invalid::TooManyOperations { operations, operations_max })
}

#[test]
fn the_longest_list_counts_not_the_sum() {
    assert_eq!(validate_txn(&txn(128, 128, 128), MAX), Ok(()));
    assert_eq!(validate_txn(&txn(129, 0, 0), MAX), too_many(129, MAX));
    assert_eq!(validate_txn(&txn(0, 129, 0), MAX), too_many(129, MAX));
    assert_eq!(validate_txn(&txn(0, 0, 129), MAX), too_many(129, MAX));
}

#[test]
fn a_nested_transaction_has_what_is_left() {
    let nested = |inner: Txn, beside: usize| {
        let mut outer = txn(0, beside, 0);
        outer.success.push(Op::Txn(inner));
        outer
    };
    assert_eq!(validate_txn(&nested(txn(0, 27, 0), 100), MAX), Ok(()));
    assert_eq!(validate_txn(&nested(txn(0, 28, 0), 100), MAX), too_many(28, 27));
    assert_eq!(validate_txn(&nested(txn(0, 0, 0), 127), MAX), Ok(()));
    assert_eq!(validate_txn(&nested(nested(txn(0, 100, 0), 10), 16), MAX), Ok(()));
    assert_eq!(validate_txn(&nested(nested(txn(0, 101, 0), 10), 16), MAX), too_many(101, 100));
    let mut in_failure = txn(0, 0, 0);
    in_failure.failure.push(Op::Txn(txn(128, 0, 0)));
    assert_eq!(validate_txn(&in_failure, MAX), too_many(128, 127));
}

/// `innermost` as the last of so many transactions, one in the other.
fn chain(depth: usize, innermost: Txn) -> Txn {
    (1..depth).fold(innermost, |inner, level| {
        let mut outer = txn(0, 0, 0);
        let branch = if level % 2 == 0 { &mut outer.success } else { &mut outer.failure };
        branch.push(Op::Txn(inner));
        outer
    })
}

#[test]
fn transactions_are_nested_to_a_bound_whatever_the_number_of_operations() {
    let too_deep = Err(Invalid::TooDeep { depth_max: TXN_DEPTH_MAX });
    for (depth, expected) in
        [(1, Ok(())), (TXN_DEPTH_MAX, Ok(())), (TXN_DEPTH_MAX + 1, too_deep), (2000, too_deep)]
    {
        let command = Command::Txn(chain(depth, txn(1, 1, 1)));
        assert_eq!(validate(&command, usize::MAX), expected, "{depth} deep");
        assert_eq!(is_too_deep(&command), expected.is_err(), "{depth} deep");
    }
}

#[test]
fn what_stands_before_the_nested_transaction_is_reported_first() {
    let mut request = chain(TXN_DEPTH_MAX + 1, txn(0, 0, 0));
    request.compares = vec![compare("")];
    assert_eq!(validate_txn(&request, MAX), Err(Invalid::EmptyKey));
    request.compares.clear();
    assert_eq!(validate_txn(&request, TXN_DEPTH_MAX - 2), too_many(1, 0), "the operations ran out first");
    assert_eq!(validate_txn(&request, MAX), Err(Invalid::TooDeep { depth_max: TXN_DEPTH_MAX }));
}

#[test]
fn size_comes_before_keys_and_keys_before_overlaps() {
    let mut request = txn(129, 0, 0);
    request.compares[0] = compare("");
    request.success = vec![put("x"), put("x"), get("")];
    assert_eq!(validate_txn(&request, MAX), too_many(129, MAX));
    request.compares.truncate(2);
    assert_eq!(validate_txn(&request, MAX), Err(Invalid::EmptyKey));
    request.compares.clear();
    assert_eq!(validate_txn(&request, MAX), Err(Invalid::EmptyKey), "an operation's key, before overlaps");
    request.success.pop();
    request.failure = vec![Op::Unset];
    assert_eq!(
        validate_txn(&request, MAX),
        Err(Invalid::EmptyOperation),
        "the other branch, before overlaps"
    );
    request.failure.clear();
    assert_eq!(validate_txn(&request, MAX), Err(Invalid::DuplicateKey));
    request.success.pop();
    assert_eq!(validate_txn(&request, MAX), Ok(()));
}

#[test]
fn commands_without_keys_are_always_valid() {
    let compact = Command::Compact(crate::command::Compact { revision: -3 });
    assert_eq!(validate(&compact, MAX), Ok(()));
}

/// A request of a few hundred kilobytes must not cost minutes: pairs of writes are never compared one by one.
#[test]
fn many_writes_are_checked_in_one_sweep() {
    let width = 60;
    let nested = |name: String| {
        let mut inner = txn(0, 0, 0);
        for n in 0..width {
            inner.success.push(put(&format!("{name}-{n:03}")));
            let delete = DeleteRange {
                range: KeyRange {
                    start: Bytes::from(format!("{name}-{n:03}a")),
                    end: RangeEnd::Before(Bytes::from(format!("{name}-{n:03}b"))),
                },
                prev_kv: false,
            };
            inner.failure.push(Op::DeleteRange(delete));
        }
        Op::Txn(inner)
    };
    let middle = |name: usize| {
        let mut middle = txn(0, 0, 0);
        middle.success = (0..30).map(|n| nested(format!("{name:03}-{n:03}"))).collect();
        Op::Txn(middle)
    };
    let mut outer = txn(0, 0, 0);
    outer.success = (0..30).map(middle).collect();
    assert_eq!(validate_txn(&outer, MAX), Ok(()), "54,000 puts and as many deletes, none of which meet");
    outer.success.push(put("015-015-030"));
    assert_eq!(validate_txn(&outer, MAX), Err(Invalid::DuplicateKey));
    outer.success.pop();
    outer.success.push(put("015-015-030ab"));
    assert_eq!(validate_txn(&outer, MAX), Err(Invalid::DuplicateKey), "inside one of the deletes");
}
