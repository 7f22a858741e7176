//! How two states of a cache differ.

use std::fmt;
use std::sync::Arc;

use super::object::{Entry, Object, Unreadable};

/// What has happened to one key.
pub enum Change<T> {
    /// There is an object where there was none that could be read.
    Added {
        /// As it is.
        object: Arc<Object<T>>,
    },
    /// There is another object. Where changes were not seen one by one, it may have been deleted and made again in
    /// between: its create revision is another one then.
    Modified {
        /// As it is.
        object: Arc<Object<T>>,
        /// As it was known before.
        previous: Arc<Object<T>>,
    },
    /// The key is gone.
    Deleted {
        /// The key.
        key: Box<[u8]>,
        /// As it was known last; `None` when that could not be read.
        last: Option<Arc<Object<T>>>,
        /// When it was deleted, or the revision at which it is known to be gone.
        revision: u64,
        /// Whether `last` is what was deleted, and `revision` when. After a gap neither is certain.
        sight: Sight,
    },
    /// The key was set to bytes that are no object.
    Unreadable {
        /// What they are.
        unreadable: Arc<Unreadable>,
        /// As it was known before, if it could be read.
        previous: Option<Arc<Object<T>>>,
    },
}

/// Whether a change was seen as it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It was.
    Seen,
    /// Two states were compared: more may have happened in between.
    Gap,
}

impl<T> Change<T> {
    /// The key.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Added { object } | Self::Modified { object, .. } => object.key(),
            Self::Deleted { key, .. } => key,
            Self::Unreadable { unreadable, .. } => unreadable.key(),
        }
    }

    /// The object that is there now, if it can be read.
    pub fn object(&self) -> Option<&Arc<Object<T>>> {
        match self {
            Self::Added { object } | Self::Modified { object, .. } => Some(object),
            Self::Deleted { .. } | Self::Unreadable { .. } => None,
        }
    }

    pub(super) fn set(before: Option<&Entry<T>>, after: Entry<T>) -> Self {
        let previous = before.and_then(Entry::object).cloned();
        match (after, previous) {
            (Entry::Object(object), None) => Self::Added { object },
            (Entry::Object(object), Some(previous)) => Self::Modified { object, previous },
            (Entry::Unreadable(unreadable), previous) => Self::Unreadable { unreadable, previous },
        }
    }

    pub(super) fn deleted(before: &Entry<T>, revision: u64, sight: Sight) -> Self {
        Self::Deleted { key: before.key().into(), last: before.object().cloned(), revision, sight }
    }
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Added { object } => Self::Added { object: Arc::clone(object) },
            Self::Modified { object, previous } => {
                Self::Modified { object: Arc::clone(object), previous: Arc::clone(previous) }
            }
            Self::Deleted { key, last, revision, sight } => {
                Self::Deleted { key: key.clone(), last: last.clone(), revision: *revision, sight: *sight }
            }
            Self::Unreadable { unreadable, previous } => {
                Self::Unreadable { unreadable: Arc::clone(unreadable), previous: previous.clone() }
            }
        }
    }
}

/// Without the values: they may be large, or secret.
impl<T> fmt::Debug for Change<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { object } => write!(f, "added {object:?}"),
            Self::Modified { object, previous } => {
                write!(f, "modified {object:?}, was at {}", previous.mod_revision())
            }
            Self::Deleted { key, revision, sight, .. } => {
                write!(f, "deleted {} at {revision} ({sight:?})", key.escape_ascii())
            }
            Self::Unreadable { unreadable, .. } => write!(f, "{unreadable}"),
        }
    }
}
