//! Why the log cannot be used.

use std::path::{Path, PathBuf};

use holdfast_env::{LogId, LogIndex};

/// Why the log cannot be used. `NoSpace` is to be retried (nothing happened); the others are fatal for the member,
/// except that `TooLarge` and `NotNext` are faults of the caller. An open log never says `NoSpace`: its entries wait.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error("log {}: {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the disk said.
        source: std::io::Error,
    },
    /// Bytes that were durable are not there any more. The log is not repaired, because entries that this member
    /// has acknowledged may be lost.
    #[error(
        "log {} is damaged at byte {offset}: {what}; it is not repaired, because entries this member has \
         acknowledged may be lost: remove this member from the cluster, wipe its data directory and add it again \
         under a new id", path.display()
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// The byte in the file.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A segment file between others, or one that holds live entries, is missing.
    #[error(
        "log {}: the file is missing; entries this member has acknowledged may be lost: restore the file, or remove \
         this member from the cluster, wipe its data directory and add it again under a new id", path.display()
    )]
    Missing {
        /// The segment file.
        path: PathBuf,
    },
    /// The file was written by a newer version of holdfast.
    #[error(
        "log {} has format {found}, this version of holdfast reads up to {known}: start the newer version again",
        path.display()
    )]
    NewerFormat {
        /// The segment file.
        path: PathBuf,
        /// Its format version.
        found: u8,
        /// The newest one known here.
        known: u8,
    },
    /// There is no room for the first segment file of a new log. Nothing happened.
    #[error("log {}: no space for its first segment file: free space on its file system", dir.display())]
    NoSpace {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The entry does not fit in a segment. Nothing happened.
    #[error("a log entry of {bytes} bytes is larger than the {bytes_max} that a segment takes")]
    TooLarge {
        /// The entry's size with its header.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The appended entries do not follow on the last one. Nothing happened.
    #[error("log entry {index} does not follow on the last entry {last:?}")]
    NotNext {
        /// The index given.
        index: LogIndex,
        /// The end of the log.
        last: Option<LogId>,
    },
    /// The log was shut down, or a write failed and the member is stopping.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Wraps a disk error.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), action, source }
    }

    /// True when the disk said that it is full.
    pub(crate) fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io { source, .. } => matches!(source.kind(), StorageFull | QuotaExceeded),
            _ => false,
        }
    }
}
