//! What etcd 3.5 keeps in its database file, and how.
//!
//! ```text
//! alarm            an AlarmMember message, nothing
//! auth             authEnabled: 0 or 1; authRevision: u64
//! authRoles        name: a Role message
//! authUsers        name: a User message
//! cluster          clusterVersion: text
//! key              revision [| 't' for a delete]: a KeyValue message (of a delete: with the key alone)
//! lease            id u64: a Lease message
//! members          id in hexadecimal: JSON
//! members_removed  id in hexadecimal: "removed"
//! meta             confState: JSON; consistent_index, term: u64; finishedCompactRev, scheduledCompactRev: revision
//! revision         main u64 | '_' | sub u64
//! ```
//! Numbers are big-endian, so that keys ascend as they do. The attachments of leases are in the KeyValue messages. There is
//! no storageVersion before etcd 3.6, which takes a file without one for a file of 3.5 and brings it up by itself.

use bytes::Bytes;
use holdfast_mvcc::command::{Alarm, AlarmKind};
use holdfast_mvcc::types::{Change, Lease, LeaseId, LogIndex, MemberId, Record, RecordId, Revision};
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use prost::Message;
use serde::{Deserialize, Serialize};

/// The names of the buckets.
#[expect(missing_docs, reason = "the module says what is in each")]
pub mod bucket {
    pub const ALARM: &[u8] = b"alarm";
    pub const AUTH: &[u8] = b"auth";
    pub const AUTH_ROLES: &[u8] = b"authRoles";
    pub const AUTH_USERS: &[u8] = b"authUsers";
    pub const CLUSTER: &[u8] = b"cluster";
    pub const KEY: &[u8] = b"key";
    pub const LEASE: &[u8] = b"lease";
    pub const MEMBERS: &[u8] = b"members";
    pub const MEMBERS_REMOVED: &[u8] = b"members_removed";
    pub const META: &[u8] = b"meta";
}

/// The keys of single values.
#[expect(missing_docs, reason = "the module says what is under each")]
pub mod name {
    pub const AUTH_ENABLED: &[u8] = b"authEnabled";
    pub const AUTH_REVISION: &[u8] = b"authRevision";
    pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
    pub const CONF_STATE: &[u8] = b"confState";
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    pub const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
    pub const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
    pub const TERM: &[u8] = b"term";
}

/// The version of etcd that keeps its file like this: what a client is told to restore it with.
pub const VERSION: &str = "3.5.0";

const TOMBSTONE: u8 = b't';
const REVISION_BYTES: usize = 17;
/// So many records in one revision are too many: the index counts them in 30 bits.
const SUB_END: u32 = 1 << 30;

/// A key of the bucket of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordKey {
    /// Which record.
    pub id: RecordId,
    /// True for a delete.
    pub is_delete: bool,
}

/// A revision alone, as compactions are written.
pub fn revision(revision: Revision) -> Vec<u8> {
    RecordKey { id: RecordId::new(revision, 0), is_delete: false }.encode()
}

impl RecordKey {
    /// As it is written.
    pub fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(REVISION_BYTES + 1);
        key.extend_from_slice(&self.id.revision.get().to_be_bytes());
        key.push(b'_');
        key.extend_from_slice(&u64::from(self.id.sub).to_be_bytes());
        key.extend(self.is_delete.then_some(TOMBSTONE));
        key
    }

    /// `None` when these bytes are no revision, or one that no store can hold.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (main, rest) = key.split_first_chunk()?;
        let (sub, mark) = rest.strip_prefix(b"_")?.split_first_chunk()?;
        let is_delete = match mark {
            [] => false,
            [TOMBSTONE] => true,
            _ => return None,
        };
        let sub = u32::try_from(u64::from_be_bytes(*sub)).ok().filter(|sub| *sub < SUB_END)?;
        let revision = Revision::new(u64::from_be_bytes(*main));
        (revision < Revision::END).then_some(Self { id: RecordId::new(revision, sub), is_delete })
    }
}

/// A record as a pair of the bucket of keys.
pub fn record(record: Record) -> (Vec<u8>, Vec<u8>) {
    let is_delete = record.change == Change::Delete;
    let key = RecordKey { id: record.id, is_delete }.encode();
    let signed = crate::codec::response::signed;
    let message = match record.change {
        Change::Delete => mvccpb::KeyValue { key: record.key, ..Default::default() },
        Change::Put(put) => mvccpb::KeyValue {
            key: record.key,
            create_revision: signed(put.create_revision.get()),
            mod_revision: signed(record.id.revision.get()),
            version: signed(put.version),
            value: put.value,
            lease: put.lease.map_or(0, |lease| lease.0),
        },
    };
    (key, message.encode_to_vec())
}

/// What is under a revision.
///
/// # Errors
/// It is no such message.
pub fn key_value(value: &[u8]) -> Result<mvccpb::KeyValue, prost::DecodeError> {
    mvccpb::KeyValue::decode(Bytes::copy_from_slice(value))
}

/// etcd's Lease message.
#[derive(Clone, Copy, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    granted_seconds: i64,
    /// What a leader had left of it at the last checkpoint; 0 for all.
    #[prost(int64, tag = "3")]
    remaining_seconds: i64,
}

/// A lease as a pair of its bucket.
pub fn lease(id: LeaseId, lease: &Lease) -> (Vec<u8>, Vec<u8>) {
    let signed = crate::codec::response::signed;
    let message = StoredLease {
        id: id.0,
        granted_seconds: signed(lease.granted_seconds),
        // 0 would be all of it.
        remaining_seconds: lease.remaining_seconds.map_or(0, |seconds| signed(seconds.max(1))),
    };
    (lease_key(id).to_vec(), message.encode_to_vec())
}

/// Ids ascend as unsigned numbers here.
pub fn lease_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The lease of a pair, as one that the log's first entry granted. `None` when it is none.
pub fn decode_lease(key: &[u8], value: &[u8]) -> Option<(LeaseId, Lease)> {
    let message = StoredLease::decode(value).ok()?;
    let id = i64::from_be_bytes(key.try_into().ok()?);
    let granted_seconds = u64::try_from(message.granted_seconds).ok()?;
    let remaining = u64::try_from(message.remaining_seconds).ok()?;
    let remaining_seconds = (remaining > 0 && remaining < granted_seconds).then_some(remaining);
    let lease = Lease { granted_at: LogIndex(1), granted_seconds, remaining_seconds };
    (id != 0 && id == message.id).then_some((LeaseId(id), lease))
}

/// A member, as etcd writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMember {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// True when it does not vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name, once it has told it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it, once it has told it.
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// A member's id as a key.
pub fn member_key(id: u64) -> Vec<u8> {
    format!("{id:x}").into_bytes()
}

/// Who votes, as etcd's Raft writes it.
#[derive(Debug, Serialize)]
pub struct ConfState {
    /// The voters' ids.
    pub voters: Vec<u64>,
    /// The learners' ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    /// Always false outside of a change of several members at once.
    pub auto_leave: bool,
}

/// An alarm as the key of a pair without a value.
pub fn alarm(alarm: &Alarm) -> Vec<u8> {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member.0, alarm: kind.into() }.encode_to_vec()
}

/// The alarm of a key; `None` when it is none that we know.
pub fn decode_alarm(key: &[u8]) -> Option<Alarm> {
    let message = pb::AlarmMember::decode(key).ok()?;
    let kind = match message.alarm() {
        pb::AlarmType::None => return None,
        pb::AlarmType::Nospace => AlarmKind::NoSpace,
        pb::AlarmType::Corrupt => AlarmKind::Corrupt,
    };
    Some(Alarm { member: MemberId(message.member_id), kind })
}

/// A number of eight bytes.
pub fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::types::PutRecord;

    use super::*;

    /// Bytes that etcd 3.5.1 has written.
    #[test]
    fn records_are_written_as_etcd_writes_them() {
        let id = |revision| RecordId::new(Revision::new(revision), 0);
        let put = PutRecord {
            create_revision: Revision::new(6),
            version: 1,
            lease: Some(LeaseId(0x1eee_a21f_eb10_5f0b)),
            value: "v".into(),
        };
        let (key, value) = record(Record { id: id(6), key: "c".into(), change: Change::Put(put) });
        assert_eq!(key, b"\0\0\0\0\0\0\0\x06_\0\0\0\0\0\0\0\0");
        assert_eq!(value, b"\n\x01c\x10\x06\x18\x06 \x01*\x01v0\x8b\xbe\xc1\xd8\xfe\xc3\xa8\xf7\x1e");
        let (key, value) = record(Record { id: id(7), key: "b".into(), change: Change::Delete });
        assert_eq!((&key[..], &value[..]), (&b"\0\0\0\0\0\0\0\x07_\0\0\0\0\0\0\0\0t"[..], &b"\n\x01b"[..]));
        let back = RecordKey::decode(&key).unwrap();
        assert_eq!(back, RecordKey { id: id(7), is_delete: true });
        assert_eq!(back.encode(), key);
        assert_eq!(RecordKey::decode(&key[..16]), None);
        assert_eq!(RecordKey::decode(&[&key[..], b"t"].concat()), None);
        assert_eq!(RecordKey::decode(&[0xff; 17]), None);
    }

    #[test]
    fn leases_members_and_alarms_are_written_as_etcd_writes_them() {
        let id = LeaseId(0x1eee_a21f_eb10_5f09);
        let full = Lease { granted_at: LogIndex(1), granted_seconds: 100, remaining_seconds: None };
        let (key, value) = lease(id, &full);
        assert_eq!(key, b"\x1e\xee\xa2\x1f\xeb\x10_\t");
        assert_eq!(value, b"\x08\x89\xbe\xc1\xd8\xfe\xc3\xa8\xf7\x1e\x10d");
        assert_eq!(decode_lease(&key, &value), Some((id, full)));
        let part = Lease { remaining_seconds: Some(40), ..full };
        let (key, value) = lease(id, &part);
        assert_eq!(decode_lease(&key, &value), Some((id, part)));
        assert_eq!(decode_lease(&key[1..], &value), None);

        let member = StoredMember {
            id: 0x9e73_7feb_b6b9_9eee,
            peer_urls: vec!["http://127.0.0.1:22380".into()],
            is_learner: false,
            name: "default".into(),
            client_urls: Vec::new(),
        };
        let text = serde_json::to_string(&member).unwrap();
        assert_eq!(
            text,
            r#"{"id":11417610130673999598,"peerURLs":["http://127.0.0.1:22380"],"name":"default"}"#
        );
        assert_eq!(serde_json::from_str::<StoredMember>(&text).unwrap(), member);
        assert_eq!(member_key(member.id), b"9e737febb6b99eee");
        let state = ConfState { voters: vec![member.id], learners: Vec::new(), auto_leave: false };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, r#"{"voters":[11417610130673999598],"auto_leave":false}"#);

        let corrupt = Alarm { member: MemberId(9), kind: AlarmKind::Corrupt };
        assert_eq!(alarm(&corrupt), b"\x08\x09\x10\x02");
        assert_eq!(decode_alarm(&alarm(&corrupt)), Some(corrupt));
        assert_eq!(decode_alarm(b"\x08\x09"), None);
    }
}
