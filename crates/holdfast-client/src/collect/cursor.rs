//! How far a source is collected.

use serde::{Deserialize, Serialize};

use super::error::CollectError;
use super::origin::OriginVersion;
use crate::codec::KeyValue;

/// How far a source is collected. Lies beside its objects, and changes in the same transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The version of the source up to which all is here; none before the first list is complete, and while another is
    /// read.
    pub(super) origin: Option<OriginVersion>,
    /// Who collects: a random number, another one after each start.
    pub(super) run: u64,
    /// Batches that it has written. Tells who does not know whether a batch was written.
    pub(super) batch: u64,
    /// How the source is being removed, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) removing: Option<Removal>,
}

/// How the removal of a source is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// Each object is told to be deleted; then the source to be removed.
    Each,
    /// Only the source is told to be removed.
    Whole,
}

/// A cursor as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct StoredCursor {
    pub(super) cursor: Cursor,
    /// The revision that has changed it last; 0 when there is none.
    pub(super) revision: u64,
}

impl StoredCursor {
    pub(super) fn of(kv: Option<&KeyValue>) -> Result<Self, CollectError> {
        let Some(kv) = kv else { return Ok(Self::default()) };
        Ok(Self { cursor: Cursor::of(kv)?, revision: kv.mod_revision })
    }
}

impl Cursor {
    pub(super) fn of(kv: &KeyValue) -> Result<Self, CollectError> {
        serde_json::from_slice(&kv.value).map_err(|source| CollectError::State {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            source,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a cursor has a form in JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_what_is_written_down() {
        let cursor = Cursor { origin: Some("7".into()), run: 5, batch: 2, removing: None };
        assert_eq!(cursor.encode(), br#"{"origin":"7","run":5,"batch":2}"#);
        let removing = Cursor { removing: Some(Removal::Whole), ..Cursor::default() };
        assert_eq!(removing.encode(), br#"{"origin":null,"run":0,"batch":0,"removing":"whole"}"#);
        for cursor in [cursor, removing] {
            assert_eq!(serde_json::from_slice::<Cursor>(&cursor.encode()).unwrap(), cursor);
        }
    }
}
