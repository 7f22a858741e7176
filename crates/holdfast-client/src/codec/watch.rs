//! Changes of keys.

use bytes::Bytes;
use holdfast_proto::mvccpb;
use holdfast_proto::mvccpb::event::EventType;
use tonic::Status;

use super::{KeyValue, malformed};
use crate::namespace::Namespace;

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was set.
    Put {
        /// As it is since then. It has come into being if `create_revision` is `mod_revision`.
        kv: KeyValue,
        /// As it was before, if that was asked for, it existed, and the server still knows.
        previous: Option<KeyValue>,
    },
    /// It was deleted, by a request or with its lease.
    Delete {
        /// The key.
        key: Bytes,
        /// When.
        revision: u64,
        /// As it was before, if that was asked for and the server still knows.
        previous: Option<KeyValue>,
    },
}

impl Event {
    /// The key that has changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// When.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put { kv, .. } => kv.mod_revision,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// Whether the key came into being.
    pub fn is_create(&self) -> bool {
        matches!(self, Self::Put { kv, .. } if kv.create_revision == kv.mod_revision)
    }

    /// As the caller sees it.
    ///
    /// Errors: it makes no sense.
    pub(crate) fn decode(event: mvccpb::Event, namespace: &Namespace) -> Result<Self, Status> {
        let is_delete = event.r#type == i32::from(EventType::Delete);
        let kv = event.kv.ok_or_else(|| malformed("a change of no key"))?;
        let kv = KeyValue::decode(kv, namespace)?;
        let previous = event.prev_kv.map(|kv| KeyValue::decode(kv, namespace)).transpose()?;
        Ok(if is_delete {
            Self::Delete { key: kv.key, revision: kv.mod_revision, previous }
        } else {
            Self::Put { kv, previous }
        })
    }
}
