//! Why consensus gave no answer, or could not start.

use holdfast_env::LogId;

/// Why a proposal or a linearizable read gave no answer. `TimedOut` and `Stopped` may have happened; the others have
/// not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// No leader is known; nothing happened.
    #[error("no leader is known")]
    NoLeader,
    /// The leader changed before the request was in its log, or while a read waited; nothing happened.
    #[error("the leader changed")]
    LeaderChanged,
    /// The encoded command is larger than allowed; nothing happened.
    #[error("the command has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The command nests transactions so deep that its log entry could not be read again; nothing happened.
    #[error(
        "the command nests transactions deeper than {depth_max} levels; validate commands before they are proposed"
    )]
    TooDeep {
        /// How many may be one in the other.
        depth_max: usize,
    },
    /// The queue of proposals is full, or applying lags too far; nothing happened.
    #[error("too many requests are waiting")]
    TooManyRequests,
    /// The disk has no room for more log; nothing happened. Clears itself when there is space.
    #[error("the disk has no room for more log")]
    NoSpace,
    /// The time budget ended before the outcome was known; it may have happened or still happen.
    #[error("the request timed out; it may have happened")]
    TimedOut(TimeoutCause),
    /// A read's time budget ended before the local state had caught up.
    #[error("the read timed out waiting for the local state")]
    ApplyTimedOut,
    /// The member is stopping; a write may have happened.
    #[error("the member is stopping")]
    Stopped,
}

/// What explains a time-out best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutCause {
    /// Nothing special was seen.
    Plain,
    /// The leader changed while the request waited.
    LeaderFailure,
    /// This member had lost its leader.
    ConnectionLost,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The peer address cannot be used.
    #[error(transparent)]
    Net(#[from] holdfast_env::NetError),
    /// Entries that this member has not applied are gone from its log, and no snapshot holds them: its store was lost.
    #[error(
        "the state reaches {applied:?}, but the log begins behind {purged} and no snapshot covers what is between: \
         restore this member's data directory from a backup, or replace the member by one with a new id"
    )]
    Gap {
        /// The last entry that the stable store or the newest snapshot contains.
        applied: Option<LogId>,
        /// The last entry that was purged from the log.
        purged: LogId,
    },
    /// The log, the stable store and openraft disagree, or a disk failed.
    #[error("cannot start consensus: {0}")]
    Raft(String),
}
