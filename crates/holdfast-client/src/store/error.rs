//! Why a store did not do what it was asked, and what the caller should do about it.

use std::fmt;

use bytes::Bytes;

use super::codec::CodecError;
use super::item::Item;
use super::limits::TooLarge;
use super::transform::TransformError;
use crate::error::{Class, Error};

/// Why there is no answer. `V` is what the store gives: a conflict comes with the object that stands in the way.
#[derive(thiserror::Error)]
pub enum StoreError<V> {
    /// There is no such object.
    #[error("there is no {}", text(key))]
    NotFound {
        /// The key.
        key: Bytes,
        /// The version of the store of which that is true; 0 when that is not known.
        at: u64,
    },
    /// The conditions do not hold. Nothing happened.
    #[error("{} is not as expected: {}", text(key), state(current.as_deref()))]
    Conflict {
        /// The key.
        key: Bytes,
        /// The object that is there, read in the same step; none when there is none.
        current: Option<Box<Item<V>>>,
    },
    /// This past is not known any more. List again, and go on from there.
    #[error("version {wanted} is compacted, what is known begins at {oldest}")]
    Compacted {
        /// Asked for.
        wanted: u64,
        /// The oldest that can be asked for; 0 when the store does not say.
        oldest: u64,
    },
    /// This version is not there yet, and did not come in time.
    #[error("version {wanted} is in the future, the store is at {current}")]
    FutureRevision {
        /// Asked for.
        wanted: u64,
        /// The newest version that was seen; 0 when the store does not say.
        current: u64,
    },
    /// The request makes no sense. Nothing happened.
    #[error("invalid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no room. Nothing happened.
    #[error(transparent)]
    TooLarge(TooLarge),
    /// The object has no encoded form. Nothing happened.
    #[error("the object for {} cannot be encoded", text(key))]
    Encode {
        /// The key.
        key: Bytes,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// What is stored is no such object. It is there, and stays as it is.
    #[error("{} at version {version} cannot be decoded", text(key))]
    Decode {
        /// The key.
        key: Bytes,
        /// Its version.
        version: u64,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// What is stored cannot be turned back, say because its key is not known. It is there, and stays as it is.
    #[error("{} at version {version} cannot be opened", text(key))]
    Transform {
        /// The key.
        key: Bytes,
        /// Its version; 0 for what was about to be written.
        version: u64,
        /// Why.
        #[source]
        source: TransformError,
    },
    /// It is deleted, and what it was cannot be opened or decoded.
    #[error("{} is deleted at {at}, and what it was is not known", text(key))]
    Gone {
        /// The key.
        key: Bytes,
        /// The version of the deletion.
        at: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cluster refuses, and would refuse again. Nothing happened.
    #[error("the cluster refuses")]
    Refused {
        /// In its words.
        #[source]
        source: Error,
    },
    /// Nobody answered in time. Nothing happened: it may be tried again.
    #[error("the store is not available")]
    Unavailable {
        /// What each attempt came to.
        #[source]
        source: Error,
    },
    /// It may have happened, or may still happen. Read it to find out.
    #[error("nobody knows whether it happened")]
    Unknown {
        /// What each attempt came to.
        #[source]
        source: Error,
    },
}

impl<V> StoreError<V> {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Compacted { .. }
            | Self::Invalid { .. }
            | Self::TooLarge(_)
            | Self::Encode { .. }
            | Self::Decode { .. }
            | Self::Transform { .. }
            | Self::Refused { .. } => Class::Rejected,
            Self::FutureRevision { .. } | Self::Unavailable { .. } => Class::Retry,
            // What was asked for has happened: it is not to be asked for again blindly.
            Self::Unknown { .. } | Self::Gone { .. } => Class::Unknown,
        }
    }

    /// The same for who gives another form of the object. A conflict whose object has no such form becomes that error.
    pub fn try_map<U>(self, form: impl FnOnce(Item<V>) -> Result<Item<U>, StoreError<U>>) -> StoreError<U> {
        match self {
            Self::Conflict { key, current } => match current.map(|item| form(*item)).transpose() {
                Ok(current) => StoreError::Conflict { key, current: current.map(Box::new) },
                Err(error) => error,
            },
            Self::NotFound { key, at } => StoreError::NotFound { key, at },
            Self::Compacted { wanted, oldest } => StoreError::Compacted { wanted, oldest },
            Self::FutureRevision { wanted, current } => StoreError::FutureRevision { wanted, current },
            Self::Invalid { reason } => StoreError::Invalid { reason },
            Self::TooLarge(too_large) => StoreError::TooLarge(too_large),
            Self::Encode { key, source } => StoreError::Encode { key, source },
            Self::Decode { key, version, source } => StoreError::Decode { key, version, source },
            Self::Transform { key, version, source } => StoreError::Transform { key, version, source },
            Self::Gone { key, at, source } => StoreError::Gone { key, at, source },
            Self::Refused { source } => StoreError::Refused { source },
            Self::Unavailable { source } => StoreError::Unavailable { source },
            Self::Unknown { source } => StoreError::Unknown { source },
        }
    }
}

impl<V> From<TooLarge> for StoreError<V> {
    fn from(too_large: TooLarge) -> Self {
        Self::TooLarge(too_large)
    }
}

/// Without the objects: they may be large, or secret.
impl<V> fmt::Debug for StoreError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A key as a person reads it.
pub(crate) fn text(key: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(key))
}

fn state<V>(current: Option<&Item<V>>) -> String {
    match current {
        Some(item) => format!("it is there at version {}", item.version),
        None => "it is not there".to_owned(),
    }
}
