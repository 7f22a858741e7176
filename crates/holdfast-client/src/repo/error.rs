//! Why a repository did not do what it was asked, and what the caller should do about it.

use std::fmt;

use super::object::{BadName, ObjectKey};
use super::repository::Stored;
use crate::error::{Class, Error};
use crate::store::{CodecError, TooLarge};

/// Why there is no answer. The same of each backend.
#[derive(thiserror::Error)]
pub enum RepoError<T> {
    /// An object with this key is there already, whatever it is like. Nothing happened.
    #[error("{key} exists already, at version {version}")]
    AlreadyExists {
        /// The key.
        key: ObjectKey,
        /// The version of the object that is there.
        version: u64,
    },
    /// There is no object with this key. Nothing happened.
    #[error("there is no {key}")]
    NotFound {
        /// The key.
        key: ObjectKey,
    },
    /// The object has another version than was expected. Nothing happened.
    #[error("{key} is at version {}", current.version)]
    Conflict {
        /// The key.
        key: ObjectKey,
        /// The object that is there, read in the same step.
        current: Stored<T>,
    },
    /// The request makes no sense. Nothing happened.
    #[error(transparent)]
    Invalid(Invalid),
    /// What is stored under this key is no such object. It is there, and stays as it is.
    #[error("{key} at version {version} cannot be decoded")]
    Decode {
        /// The key, as far as it is one; the stored key otherwise.
        key: String,
        /// The version of what is there.
        version: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The object is deleted, and what it was cannot be decoded.
    #[error("{key} is deleted at {at}, and what it was is not known")]
    Gone {
        /// The key.
        key: String,
        /// The version of the deletion.
        at: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no room. Nothing happened.
    #[error(transparent)]
    TooLarge(TooLarge),
    /// What was asked of the past is not known any more: list again, and watch from there.
    #[error("version {wanted} is compacted, what is known begins at {oldest}")]
    Compacted {
        /// Asked for.
        wanted: u64,
        /// The oldest version that can be gone on after; 0 when the store does not say.
        oldest: u64,
    },
    /// The cluster refuses, and would refuse again. Nothing happened.
    #[error("the cluster refuses")]
    Refused {
        /// In its words.
        #[source]
        source: Error,
    },
    /// Nobody answered in time. Nothing happened: it may be tried again.
    #[error("the repository is not available")]
    Unavailable {
        /// What each attempt came to; none when the time was over before one had ended.
        #[source]
        source: Option<Error>,
    },
    /// It may have happened, or may still happen. Read it to find out.
    #[error("nobody knows whether it happened")]
    Unknown {
        /// What each attempt came to.
        #[source]
        source: Error,
    },
}

/// Why a request makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A name, or the scope that it belongs to.
    #[error(transparent)]
    Name(#[from] BadName),
    /// Something else.
    #[error("invalid: {reason}")]
    Request {
        /// What.
        reason: &'static str,
    },
    /// The object has no encoded form.
    #[error("the object cannot be encoded")]
    Encode {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl<T> RepoError<T> {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::AlreadyExists { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::Invalid(_)
            | Self::Decode { .. }
            | Self::TooLarge(_)
            | Self::Compacted { .. }
            | Self::Refused { .. } => Class::Rejected,
            Self::Unavailable { .. } => Class::Retry,
            // What was asked for has happened: it is not to be asked for again blindly.
            Self::Unknown { .. } | Self::Gone { .. } => Class::Unknown,
        }
    }

    /// What this is in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::AlreadyExists { .. } => "already_exists",
            Self::NotFound { .. } => "not_found",
            Self::Conflict { .. } => "conflict",
            Self::Invalid(_) => "invalid",
            Self::Decode { .. } => "decode",
            Self::Gone { .. } => "gone",
            Self::TooLarge(_) => "too_large",
            Self::Compacted { .. } => "compacted",
            Self::Refused { .. } => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::Unknown { .. } => "unknown",
        }
    }
}

impl<T> From<TooLarge> for RepoError<T> {
    fn from(too_large: TooLarge) -> Self {
        Self::TooLarge(too_large)
    }
}

impl<T> From<BadName> for RepoError<T> {
    fn from(bad: BadName) -> Self {
        Self::Invalid(Invalid::Name(bad))
    }
}

impl<T> From<super::filter::BadFilter> for RepoError<T> {
    fn from(bad: super::filter::BadFilter) -> Self {
        match bad {
            super::filter::BadFilter::Name(bad) => bad.into(),
            super::filter::BadFilter::Selectors(reason) => Self::Invalid(Invalid::Request { reason }),
        }
    }
}

pub(super) fn encode_failed<T>(source: CodecError) -> RepoError<T> {
    RepoError::Invalid(Invalid::Encode { source: Box::new(source) })
}

/// Without the object: it may be large, or secret.
impl<T> fmt::Debug for RepoError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.label())?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
