//! Between the wire and what callers see. These modules and the calls themselves are the only ones that name generated
//! types.

pub(crate) mod kv;
pub(crate) mod watch;

use bytes::Bytes;
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use tonic::Status;

use crate::namespace::Namespace;

/// The id of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// A key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; may be empty.
    pub value: Bytes,
    /// The revision at which the key last came into being.
    pub create_revision: u64,
    /// The revision of its latest change.
    pub mod_revision: u64,
    /// Changes since it came into being; 1 then.
    pub version: u64,
    /// The lease that it lives with.
    pub lease: Option<LeaseId>,
}

impl KeyValue {
    /// As the caller sees it.
    ///
    /// Errors: it is not in the namespace.
    pub(crate) fn decode(kv: mvccpb::KeyValue, namespace: &Namespace) -> Result<Self, Status> {
        let key = if namespace.is_none() {
            kv.key
        } else {
            namespace.strip(&kv.key).ok_or_else(|| malformed("a key that nobody asked for"))?
        };
        Ok(Self {
            key,
            value: kv.value,
            create_revision: unsigned(kv.create_revision),
            mod_revision: unsigned(kv.mod_revision),
            version: unsigned(kv.version),
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
        })
    }
}

/// A server's answer makes no sense. Whatever was asked may have happened.
pub(crate) fn malformed(what: &str) -> Status {
    Status::internal(format!("the answer has {what}"))
}

/// A number that the wire carries as signed, though it is never below zero.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The other way. Revisions never come near the sign bit.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The revision of an answer; 0 when it has none.
pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> u64 {
    header.map_or(0, |header| unsigned(header.revision))
}

/// The revision of an answer that is of no use without one.
///
/// Errors: it has none. 0 is none, too.
pub(crate) fn revision_of(header: Option<&pb::ResponseHeader>) -> Result<u64, Status> {
    match revision(header) {
        0 => Err(malformed("no revision")),
        revision => Ok(revision),
    }
}
