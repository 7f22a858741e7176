//! What can go wrong.

use super::envelope::BadEnvelope;
use super::origin::SourceId;
use super::version::BadVersion;
use crate::error::{Class, Error};

/// Why nothing, or not all, was collected, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// A version means nothing here.
    #[error(transparent)]
    Version(#[from] BadVersion),
    /// An object cannot be written down, or what is stored is none.
    #[error("{key}: what is stored is no object")]
    Object {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: BadEnvelope,
    },
    /// What is stored of a source's state cannot be read.
    #[error("{key}: what is stored is no state of a source")]
    State {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else collects from this source: only one can.
    #[error("somebody else collects from {source_id}")]
    Superseded {
        /// It.
        source_id: SourceId,
    },
    /// The source is being removed, here or by somebody who did not come to the end: remove it again.
    #[error("{source_id} is being removed")]
    Removing {
        /// It.
        source_id: SourceId,
    },
    /// Others have changed it each time in between. Nothing happened.
    #[error("{key} is changed by others all the time")]
    Busy {
        /// Its key.
        key: String,
    },
    /// The source's versions cannot be compared, and something else is there: the watch of the source will tell. Nothing
    /// happened.
    #[error("nobody can tell whether {key} is newer")]
    Incomparable {
        /// Its key.
        key: String,
    },
}

impl CollectError {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Busy { .. } => Class::Retry,
            Self::Version(_)
            | Self::Object { .. }
            | Self::State { .. }
            | Self::Superseded { .. }
            | Self::Removing { .. }
            | Self::Incomparable { .. } => Class::Rejected,
        }
    }
}
