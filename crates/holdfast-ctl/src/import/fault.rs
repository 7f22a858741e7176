//! Why a step of an import ended early, and what that asks for.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};

/// One of the two clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What is imported from.
    Source,
    /// What is imported to.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the source",
            Self::Target => "the target",
        })
    }
}

/// Why a step ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A call failed, or a stream broke.
    #[error("{side}: {what}: {}", cause(status))]
    Call {
        /// Whose it was.
        side: Side,
        /// What was asked for.
        what: &'static str,
        /// The answer.
        status: Box<Status>,
    },
    /// There was no answer. A write may have happened.
    #[error("{side}: {what}: no answer in time")]
    Silent {
        /// Whose it would have been.
        side: Side,
        /// What was asked for.
        what: &'static str,
    },
    /// No connection.
    #[error("cannot connect to {side} at {endpoint}: {why}")]
    Connection {
        /// To which of them.
        side: Side,
        /// As it was given.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The source has compacted what was to be read.
    #[error("the source has compacted what was to be read next")]
    Compacted,
    /// Another import writes to the target.
    #[error(
        "another import has taken over: only one at a time can write to the target. This one has ended, and has done no harm"
    )]
    TakenOver,
    /// It cannot go on, and a second try would not help.
    #[error(transparent)]
    Refused(anyhow::Error),
}

impl Fault {
    /// Whether a new connection, to another member or a little later, may help. Nothing is lost by it: where the import
    /// stands is kept in the target.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Connection { .. } => true,
            Self::Call { status, .. } => is_transient(status),
            Self::Compacted | Self::TakenOver | Self::Refused(_) => false,
        }
    }

    /// The status of a call that failed.
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Call { status, .. } => Some(status),
            Self::Silent { .. }
            | Self::Connection { .. }
            | Self::Compacted
            | Self::TakenOver
            | Self::Refused(_) => None,
        }
    }

    /// Whether it is this answer of a member: the texts are part of etcd's protocol.
    pub(crate) fn says(&self, code: Code, text: &str) -> bool {
        self.status().is_some_and(|status| status.code() == code && status.message() == text)
    }
}

fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::Internal
        | Code::Unknown
        // A token that has ended: the next session has a new one.
        | Code::Unauthenticated => true,
        Code::ResourceExhausted => status.message() == "etcdserver: too many requests",
        Code::InvalidArgument => status.message() == "etcdserver: revision of auth store is old",
        Code::Ok
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => false,
    }
}

/// A connection that breaks has a cause of its own, which says more.
fn cause(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    match cause {
        Some(cause) => format!("the connection broke: {cause}"),
        None => format!("{} ({:?})", status.message(), status.code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_over_soon_is_tried_again() {
        let call = |status: Status| Fault::Call { side: Side::Target, what: "x", status: Box::new(status) };
        assert!(call(Status::unavailable("etcdserver: no leader")).is_transient());
        assert!(call(Status::resource_exhausted("etcdserver: too many requests")).is_transient());
        let full = call(Status::resource_exhausted("etcdserver: mvcc: database space exceeded"));
        assert!(!full.is_transient() && full.to_string().contains("the target: x: etcdserver: mvcc"));
        assert!(!call(Status::permission_denied("etcdserver: permission denied")).is_transient());
        assert!(!Fault::TakenOver.is_transient());
    }
}
