//! Errors: those that callers see, and those that pass between the parts of this crate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_mvcc::command::Refusal;

use crate::types::CancelReason;

/// Why a read gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The revision is not readable.
    #[error(transparent)]
    Refused(Refusal),
    /// The stable store failed.
    #[error("stable store: {0}")]
    Store(String),
}

/// Why an export does not go on. A new one may.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The stable store failed.
    #[error("stable store: {0}")]
    Store(String),
    /// The state was replaced by a snapshot from the leader, and what was being read is gone.
    #[error("the state was replaced by a snapshot from the leader")]
    Replaced,
    /// The storage has been shut down, or applies nothing any more.
    #[error("the storage has ended")]
    Closed,
}

/// Why the storage cannot go on, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk failed.
    #[error("storage {}: {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the disk said.
        source: std::io::Error,
    },
    /// Another process holds the engine's files.
    #[error("the stable store in {} is in use by another process: stop it first", path.display())]
    InUse {
        /// The engine's directory.
        path: PathBuf,
    },
    /// A received snapshot is not whole; nothing was changed.
    #[error("the snapshot {} is damaged: {detail}", path.display())]
    BadSnapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no such snapshot any more: it was replaced, or found damaged. Take the current one.
    #[error("the snapshot {id} is not the current one any more")]
    NotCurrent {
        /// Its id.
        id: String,
    },
    /// Something on disk was written by a newer release. Nothing was changed.
    #[error(
        "{} was written by a newer release of this program ({detail}); nothing was changed: \
         start that release or a later one on this directory",
        path.display()
    )]
    NewerFormat {
        /// The file or directory.
        path: PathBuf,
        /// What is newer, with both versions.
        detail: String,
    },
    /// The dump ended without a snapshot; the newest older one stays in force, a later dump may succeed.
    #[error("the dump did not finish: {reason}")]
    DumpFailed {
        /// Why.
        reason: String,
    },
    /// The dump was cancelled; the newest older snapshot stays in force.
    #[error("the dump was cancelled: {reason}")]
    DumpCancelled {
        /// Why.
        reason: CancelReason,
    },
    /// The disk has no room for a dump, so none was begun.
    #[error(
        "{} has {free_bytes} bytes free, and a dump is begun with {needed_bytes} only (twice what is stored): \
         free space on that disk, or compact",
        path.display()
    )]
    NoSpaceForDump {
        /// The directory of the storage.
        path: PathBuf,
        /// What is free there.
        free_bytes: u64,
        /// What has to be.
        needed_bytes: u64,
    },
    /// The last dump did not succeed, and the next one that nobody needs at once waits. None was begun.
    #[error("the last dump did not succeed: the next one may begin in {} s", wait.as_secs_f64().ceil())]
    DumpPostponed {
        /// For so long.
        wait: Duration,
    },
    /// The stable store failed: nothing is applied any more until the member is restarted. When the store was
    /// damaged, that start rebuilds it from the newest snapshot and the log.
    #[error("the stable store failed: {reason}")]
    Poisoned {
        /// What failed where, and what to do.
        reason: String,
    },
    /// The storage has been shut down.
    #[error("the storage is shut down")]
    Closed,
}

impl StorageError {
    /// Says what was tried with which path; for `map_err`.
    pub(crate) fn io<'a>(path: &'a Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }

    /// What the snapshot at `path` holds cannot be read.
    pub(crate) fn snapshot(path: &Path, error: StoreError) -> Self {
        match error {
            StoreError::Newer(detail) => Self::NewerFormat { path: path.to_owned(), detail },
            other => Self::BadSnapshot { path: path.to_owned(), detail: other.to_string() },
        }
    }

    /// The stable store at `path` failed while it was opened or built.
    pub(crate) fn store(path: &Path, error: StoreError) -> Self {
        match error {
            StoreError::InUse => Self::InUse { path: path.to_owned() },
            StoreError::Damaged(reason) => Self::Poisoned { reason: format!("{}: {reason}", path.display()) },
            StoreError::Newer(detail) => Self::NewerFormat { path: path.to_owned(), detail },
            StoreError::Failed(source) => {
                Self::Io { path: path.to_owned(), action: "use the stable store", source }
            }
        }
    }
}

/// What an engine, or the layer that reads records from it, reports. Always local, never an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The files are locked by another process.
    #[error("its files are in use by another process")]
    InUse,
    /// What was read cannot be right: the store has to be rebuilt.
    #[error("damaged: {0}")]
    Damaged(String),
    /// A newer release wrote it: it is whole, and must be left as it is.
    #[error("written by a newer release: {0}")]
    Newer(String),
    /// The operating system refused.
    #[error("{0}")]
    Failed(#[source] std::io::Error),
}

impl StoreError {
    /// The error with its place, in words for whoever runs the member.
    pub(crate) fn at(&self, dir: &Path) -> String {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            // Engines wrap what the system said in words of their own; this case has a remedy that is worth naming.
            Self::Failed(source) if matches!(source.kind(), StorageFull | QuotaExceeded) => {
                format!("{}: no space left on its file system: free space on that disk first", dir.display())
            }
            _ => format!("{}: {self}", dir.display()),
        }
    }

    /// A version above ours.
    pub(crate) fn newer(what: &str, found: u8, known: u8) -> Self {
        Self::Newer(format!("{what} has format {found}, this release reads up to {known}"))
    }

    /// A claim about stored bytes that does not hold.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}
