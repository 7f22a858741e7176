//! What transactions expect of a key.

use bytes::Bytes;
use holdfast_proto::etcdserverpb::Compare;
use holdfast_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

/// The key was last changed at this revision; 0: it does not exist.
pub fn changed_at(key: &Bytes, revision: i64) -> Compare {
    compare(key, CompareTarget::Mod, TargetUnion::ModRevision(revision))
}

/// The key was created at this revision; 0: it does not exist.
pub fn created_at(key: &Bytes, revision: i64) -> Compare {
    compare(key, CompareTarget::Create, TargetUnion::CreateRevision(revision))
}

/// The key has this version; 0: it does not exist.
pub fn has_version(key: &Bytes, version: i64) -> Compare {
    compare(key, CompareTarget::Version, TargetUnion::Version(version))
}

/// The key holds this value.
pub fn holds(key: &Bytes, value: Bytes) -> Compare {
    compare(key, CompareTarget::Value, TargetUnion::Value(value))
}

/// The key exists.
pub fn exists(key: &Bytes) -> Compare {
    Compare { result: CompareResult::Greater.into(), ..created_at(key, 0) }
}

fn compare(key: &Bytes, target: CompareTarget, union: TargetUnion) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.clone(),
        target_union: Some(union),
        ..Compare::default()
    }
}
