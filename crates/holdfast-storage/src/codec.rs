//! The small, cold structures: serde and bincode, in this module only.
//!
//! ```text
//! magic "HF" (2) | version (1) | kind (1) | bincode: little-endian, variable-length integers
//! ```
//! Every kind has its own version. Adding a field is a new version. Trailing bytes are refused, and so is a length
//! above [`BYTES_MAX`]. What is hot or large (records, packs, blocks) has a layout of its own in `pack` and
//! `snapshot::format`.

use std::sync::Arc;

use bincode::Options;
use bytes::Bytes;
use holdfast_env::{LogId, LogIndex, Term};
use holdfast_mvcc::Head;
use holdfast_mvcc::command::{Alarm, AlarmKind, MemberAttributes};
use holdfast_mvcc::types::{MemberId, Revision};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::StoreError;
use crate::types::Applied;

const MAGIC: [u8; 2] = *b"HF";

/// An empty list of alarms as written.
const NO_ALARMS: u8 = 0;

/// A membership of hundreds of members with long URLs is far below.
const BYTES_MAX: u64 = 16 << 20;

/// What a structure is; guards against reading one as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CodecKind {
    /// [`Cold::head`].
    Head = 1,
    /// [`Cold::applied`].
    Applied = 2,
    /// The first frame of a snapshot's content.
    Preface = 3,
    /// The end of a snapshot file.
    Footer = 4,
    /// How far the scrub has come.
    Scrubbed = 5,
    /// Users and roles.
    Auth = 6,
    /// Which content of users and roles counts.
    AuthAt = 7,
}

/// A structure with a written form.
pub(crate) trait Cold: Serialize + DeserializeOwned {
    /// What it is.
    const KIND: CodecKind;
    /// The version that is written.
    const VERSION: u8 = 1;
    /// What the version before it lacks at its end; `None` when that is not read any more.
    const LACKS: Option<&'static [u8]> = None;
}

/// Encodes with header.
pub(crate) fn encode<T: Cold>(value: &T) -> Vec<u8> {
    let mut bytes = vec![MAGIC[0], MAGIC[1], T::VERSION, T::KIND as u8];
    options().serialize_into(&mut bytes, value).expect("writing into a vector below the limit");
    bytes
}

/// Decodes, checking header, length and that nothing trails.
pub(crate) fn decode<T: Cold>(bytes: &[u8]) -> Result<T, StoreError> {
    let bad = |what: String| StoreError::damaged(format!("{:?}: {what}", T::KIND));
    let (header, body) = bytes.split_at_checked(4).ok_or_else(|| bad("too short".into()))?;
    if header[..2] == MAGIC && header[2] > T::VERSION && header[3] == T::KIND as u8 {
        return Err(StoreError::newer(&format!("{:?}", T::KIND), header[2], T::VERSION));
    }
    let is = |version: u8| header == [MAGIC[0], MAGIC[1], version, T::KIND as u8];
    match T::LACKS {
        _ if is(T::VERSION) => options().deserialize(body).map_err(|e| bad(e.to_string())),
        Some(lacks) if is(T::VERSION - 1) => {
            let whole = [body, lacks].concat();
            options().deserialize(&whole).map_err(|e| bad(e.to_string()))
        }
        _ => Err(bad(format!("unknown header {header:?}"))),
    }
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(BYTES_MAX).with_varint_encoding().reject_trailing_bytes()
}

/// [`Head`] as stored, without users and roles, which have a place of their own. Version 2 added the alarms, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredHead {
    base: StoredBase,
    alarms: Vec<StoredAlarm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredBase {
    revision: u64,
    compact_revision: Option<u64>,
    members: Vec<StoredMember>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredMember {
    id: u64,
    name: String,
    client_urls: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredAlarm {
    member: u64,
    kind: StoredAlarmKind,
}

/// Written as 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StoredAlarmKind {
    NoSpace,
    Corrupt,
}

/// [`Applied`] as stored: pairs of term and index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredApplied {
    log_id: Option<(u64, u64)>,
    membership: Option<((u64, u64), Bytes)>,
}

/// How far the scrub has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredScrubbed {
    /// The compact revision behind which nothing unreadable is left.
    pub(crate) compact_revision: u64,
}

/// The first frame of a snapshot's content. Version 2 added the alarms, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Preface {
    base: StoredBase,
    applied: StoredApplied,
    alarms: Vec<StoredAlarm>,
}

/// The end of a snapshot file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    /// What the snapshot contains, repeated so that it is known without reading all.
    pub(crate) applied: StoredApplied,
    /// Blocks in the file.
    pub(crate) blocks: u64,
    /// Records in the content.
    pub(crate) records: u64,
    /// Bytes of the content before compression.
    pub(crate) content_bytes: u64,
    /// SHA-256 of the content before compression.
    pub(crate) sha256: [u8; 32],
}

impl Cold for StoredHead {
    const KIND: CodecKind = CodecKind::Head;
    const VERSION: u8 = 2;
    const LACKS: Option<&'static [u8]> = Some(&[NO_ALARMS]);
}
impl Cold for StoredApplied {
    const KIND: CodecKind = CodecKind::Applied;
}
impl Cold for StoredScrubbed {
    const KIND: CodecKind = CodecKind::Scrubbed;
}
impl Cold for Preface {
    const KIND: CodecKind = CodecKind::Preface;
    const VERSION: u8 = 2;
    const LACKS: Option<&'static [u8]> = Some(&[NO_ALARMS]);
}
impl Cold for Footer {
    const KIND: CodecKind = CodecKind::Footer;
}

impl Preface {
    /// The preface of a snapshot with this content.
    pub(crate) fn new(head: &Head, applied: &Applied) -> Self {
        let StoredHead { base, alarms } = head.into();
        Self { base, applied: applied.into(), alarms }
    }
    /// The state beside the records, and its place in the log.
    ///
    /// # Errors
    /// No state is like that.
    pub(crate) fn into_parts(self) -> Result<(Head, Applied), StoreError> {
        let head = StoredHead { base: self.base, alarms: self.alarms };
        Ok((head.try_into()?, self.applied.into()))
    }
}

impl From<&Head> for StoredHead {
    fn from(head: &Head) -> Self {
        let member = |m: &MemberAttributes| StoredMember {
            id: m.id.0,
            name: m.name.clone(),
            client_urls: m.client_urls.clone(),
        };
        let alarm = |alarm: &Alarm| StoredAlarm {
            member: alarm.member.0,
            kind: match alarm.kind {
                AlarmKind::NoSpace => StoredAlarmKind::NoSpace,
                AlarmKind::Corrupt => StoredAlarmKind::Corrupt,
            },
        };
        let base = StoredBase {
            revision: head.revision.get(),
            compact_revision: head.compact_revision.map(Revision::get),
            members: head.members.iter().map(member).collect(),
        };
        Self { base, alarms: head.alarms.iter().map(alarm).collect() }
    }
}

impl TryFrom<StoredHead> for Head {
    type Error = StoreError;

    /// Without users and roles. What no state is like is damage: it can be decoded, and nothing can be built on it.
    fn try_from(head: StoredHead) -> Result<Self, StoreError> {
        let StoredHead { base, alarms } = head;
        let alarm = |alarm: StoredAlarm| Alarm {
            member: MemberId(alarm.member),
            kind: match alarm.kind {
                StoredAlarmKind::NoSpace => AlarmKind::NoSpace,
                StoredAlarmKind::Corrupt => AlarmKind::Corrupt,
            },
        };
        let member = |m: StoredMember| MemberAttributes {
            id: MemberId(m.id),
            name: m.name,
            client_urls: m.client_urls,
        };
        let head = Self {
            revision: Revision::new(base.revision),
            compact_revision: base.compact_revision.map(Revision::new),
            members: base.members.into_iter().map(member).collect(),
            alarms: alarms.into_iter().map(alarm).collect(),
            auth: Arc::default(),
        };
        let ascends = head.members.is_sorted_by_key(|member| member.id) && head.alarms.is_sorted();
        if ascends && head.compact_revision <= Some(head.revision) {
            Ok(head)
        } else {
            Err(StoreError::damaged("Head: it contradicts itself"))
        }
    }
}

impl From<&Applied> for StoredApplied {
    fn from(applied: &Applied) -> Self {
        let id = |id: LogId| (id.term().get(), id.index().get());
        Self {
            log_id: applied.log_id.map(id),
            membership: applied.membership.as_ref().map(|(at, content)| (id(*at), content.clone())),
        }
    }
}

impl From<StoredApplied> for Applied {
    fn from(applied: StoredApplied) -> Self {
        let id = |(term, index)| LogId::new(Term::new(term), LogIndex::new(index));
        Self {
            log_id: applied.log_id.map(id),
            membership: applied.membership.map(|(at, content)| (id(at), content)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Applied {
        let id = |term, index| LogId::new(Term::new(term), LogIndex::new(index));
        Applied { log_id: Some(id(3, 300)), membership: Some((id(1, 0), Bytes::from_static(b"m"))) }
    }

    fn head() -> Head {
        let member =
            MemberAttributes { id: MemberId(7), name: "a".into(), client_urls: vec!["http://h:1".into()] };
        Head {
            revision: Revision::new(9),
            compact_revision: Some(Revision::new(4)),
            members: vec![member],
            alarms: vec![Alarm { member: MemberId(7), kind: AlarmKind::Corrupt }],
            auth: Arc::default(),
        }
    }

    /// The bytes on disk; a change here needs a new version.
    #[test]
    fn golden_bytes() {
        let stored = encode(&StoredApplied::from(&applied()));
        assert_eq!(stored, [b'H', b'F', 1, 2, 1, 3, 251, 44, 1, 1, 1, 0, 1, b'm']);
        let mut want = vec![b'H', b'F', 2, 1, 9, 1, 4, 1, 7, 1, b'a', 1, 10];
        want.extend_from_slice(b"http://h:1");
        want.extend_from_slice(&[1, 7, 1]);
        assert_eq!(encode(&StoredHead::from(&head())), want);
        assert_eq!(encode(&StoredScrubbed { compact_revision: 5 }), [b'H', b'F', 1, 5, 5]);
        let footer = Footer {
            applied: (&Applied::default()).into(),
            blocks: 1,
            records: 2,
            content_bytes: 3,
            sha256: [9; 32],
        };
        let mut want = vec![b'H', b'F', 1, 4, 0, 0, 1, 2, 3];
        want.extend_from_slice(&[9; 32]);
        assert_eq!(encode(&footer), want);
    }

    #[test]
    fn round_trips() {
        let (head2, applied2) =
            decode::<Preface>(&encode(&Preface::new(&head(), &applied()))).unwrap().into_parts().unwrap();
        assert_eq!((head2, applied2), (head(), applied()));
    }

    #[test]
    fn what_was_written_before_there_were_alarms_is_read() {
        let without = Head { alarms: Vec::new(), ..head() };
        let before = |mut bytes: Vec<u8>| {
            assert_eq!((bytes[2], bytes.pop()), (2, Some(NO_ALARMS)));
            bytes[2] = 1;
            bytes
        };
        let stored = before(encode(&StoredHead::from(&without)));
        assert_eq!(Head::try_from(decode::<StoredHead>(&stored).unwrap()).unwrap(), without);
        let preface = before(encode(&Preface::new(&without, &applied())));
        assert_eq!(decode::<Preface>(&preface).unwrap().into_parts().unwrap(), (without, applied()));
    }

    #[test]
    fn a_head_that_contradicts_itself_is_damage() {
        let is_refused = |change: fn(&mut Head)| {
            let mut wrong = head();
            change(&mut wrong);
            let stored = StoredHead::from(&wrong);
            matches!(Head::try_from(stored), Err(StoreError::Damaged(_)))
        };
        assert!(!is_refused(|_| {}));
        assert!(is_refused(|head| head.compact_revision = Some(head.revision.next())));
        let before = |head: &mut Head| {
            let member = MemberAttributes { id: MemberId(6), ..head.members[0].clone() };
            head.members.push(member);
        };
        assert!(is_refused(before));
        assert!(is_refused(|head| head.alarms.push(Alarm { kind: AlarmKind::NoSpace, ..head.alarms[0] })));
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        let good = encode(&StoredApplied::from(&applied()));
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(decode::<StoredApplied>(&trailing).is_err());
        assert!(decode::<StoredApplied>(&good[..good.len() - 1]).is_err());
        assert!(decode::<StoredHead>(&good).is_err(), "another kind");
        let mut newer = good.clone();
        newer[2] = 2;
        assert!(matches!(decode::<StoredApplied>(&newer), Err(StoreError::Newer(_))));
        newer[2] = 0;
        assert!(matches!(decode::<StoredApplied>(&newer), Err(StoreError::Damaged(_))), "an older one");
        newer[0] = 0;
        newer[2] = 2;
        assert!(matches!(decode::<StoredApplied>(&newer), Err(StoreError::Damaged(_))), "no magic");
        assert!(decode::<StoredApplied>(b"HF").is_err());
    }
}
