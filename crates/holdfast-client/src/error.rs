//! What can go wrong, and what the caller should do about it.

use std::error::Error as _;

use tonic::{Code, Status};

use crate::client::Repeat;

/// Where the server says whether a failed write may have happened. etcd does not say.
const OUTCOME: &str = "holdfast-outcome";

/// The one refusal that passes: the server has too much to do just now.
const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";

/// Of a member that does not serve this: others do.
const LEARNER: &str = "etcdserver: rpc not supported for learner";
/// etcd says so of writes that it has not carried out, and also of the one that fills the space, which it has.
pub(crate) const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
/// What the words of every refusal of a server begin with.
const SERVER: &str = "etcdserver: ";

/// What servers say of a revision that they do not have any more, and of one that they do not have yet.
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";
/// Where holdfast says beside it which revision is the lowest, and which the newest. etcd does not say.
const COMPACT_REVISION: &str = "holdfast-compact-revision";
const CURRENT_REVISION: &str = "holdfast-current-revision";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No endpoint was given.
    #[error("no endpoint to connect to")]
    NoEndpoint,
    /// A text that is no URL of an endpoint.
    #[error("{endpoint:?} is no endpoint")]
    BadEndpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// Certificate files that cannot be used.
    #[error(transparent)]
    Tls(holdfast_tls::TlsError),
    /// The server refuses the request, and would refuse it again. Nothing happened.
    #[error("refused: {message} ({code:?})")]
    Refused {
        /// The kind of refusal.
        code: Code,
        /// In the server's words.
        message: String,
    },
    /// The revision that should be read is not kept any more.
    #[error("the revision is compacted, {}", or_unknown("the lowest that is kept is", *compact_revision))]
    Compacted {
        /// The lowest that can be read, inclusive, if the server says.
        compact_revision: Option<u64>,
    },
    /// The revision that should be read has not come yet.
    #[error("the revision has not come yet, {}", or_unknown("the newest is", *current))]
    FutureRevision {
        /// The newest, if the server says.
        current: Option<u64>,
    },
    /// The session is lost, or what was held in it. Open another one.
    #[error("the session is lost, or what was held in it")]
    SessionLost,
    /// Others changed the same keys again and again, each time first. Nothing happened.
    #[error("others were first, {attempts} times")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// No endpoint answered in time. Nothing happened: the request may be made again.
    #[error("nothing happened, tried {}", list(attempts))]
    Unavailable {
        /// What each attempt came to, the last one last.
        attempts: Vec<Attempt>,
    },
    /// The request may have happened, or may still happen.
    #[error("may have happened, tried {}", list(attempts))]
    Unknown {
        /// What each attempt came to, the last one last.
        attempts: Vec<Attempt>,
    },
}

/// One attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Which endpoint.
    pub endpoint: String,
    /// What it or the connection to it said.
    pub cause: String,
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Change the request.
    Rejected,
    /// Try again: nothing happened.
    Retry,
    /// Find out whether it happened.
    Unknown,
}

impl Error {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::NoEndpoint
            | Self::BadEndpoint { .. }
            | Self::Tls(_)
            | Self::Refused { .. }
            | Self::Compacted { .. }
            | Self::SessionLost => Class::Rejected,
            Self::FutureRevision { .. } | Self::Contended { .. } | Self::Unavailable { .. } => Class::Retry,
            Self::Unknown { .. } => Class::Unknown,
        }
    }

    pub(crate) fn is_refused_with(&self, wanted: Code) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

fn or_unknown(what: &str, revision: Option<u64>) -> String {
    revision.map_or_else(
        || "the server does not say by how much".to_owned(),
        |revision| format!("{what} {revision}"),
    )
}

/// Each endpoint with what it came to, once, however often that was tried.
fn list(attempts: &[Attempt]) -> String {
    let mut texts = Vec::new();
    for Attempt { endpoint, cause } in attempts {
        let text = format!("{endpoint}: {cause}");
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts.join("; ")
}

/// What a failed attempt says about the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It will never be accepted.
    Refused,
    /// Nothing happened.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// Judges a failed attempt. In doubt it is unknown.
pub(crate) fn judge(status: &Status, repeat: Repeat) -> Verdict {
    if matches!(status.message(), TOO_MANY_REQUESTS | LEARNER) {
        return Verdict::Nothing;
    }
    if let Some(outcome) = status.metadata().get(OUTCOME) {
        let is_passing = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded);
        return match (outcome.as_bytes(), is_passing) {
            (b"none", true) => Verdict::Nothing,
            (b"none", false) => Verdict::Refused,
            _ => Verdict::Unknown,
        };
    }
    // A code that the transport has made up, for a connection that broke: the server may have been at it already.
    if status.source().is_some() && !was_never_sent(status) {
        return Verdict::Unknown;
    }
    match status.code() {
        Code::ResourceExhausted if status.message() == NO_SPACE => Verdict::Unknown,
        // An answer of a server that has done what was asked, larger than is taken here.
        Code::OutOfRange if repeat != Repeat::Harmless && !status.message().starts_with(SERVER) => {
            Verdict::Unknown
        }
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Verdict::Refused,
        Code::Unavailable if status.message() == "etcdserver: no leader" || was_never_sent(status) => {
            Verdict::Nothing
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Verdict::Unknown,
    }
}

/// The error that a refusal is.
pub(crate) fn refusal(status: &Status) -> Error {
    let bound = |name| status.metadata().get(name)?.to_str().ok()?.parse().ok();
    match (status.code(), status.message()) {
        (Code::OutOfRange, COMPACTED) => Error::Compacted { compact_revision: bound(COMPACT_REVISION) },
        (Code::OutOfRange, FUTURE_REVISION) => Error::FutureRevision { current: bound(CURRENT_REVISION) },
        (code, message) => Error::Refused { code, message: message.to_owned() },
    }
}

/// Nobody listened at the endpoint, or TLS could not be agreed on with who did.
fn was_never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<holdfast_tls::ConnectError>() {
            return true;
        }
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The last cause that a status has, or else its own words.
pub(crate) fn cause_of(status: &Status) -> String {
    let mut cause = status.source();
    let mut text = format!("{:?}: {}", status.code(), status.message());
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_outcome(mut status: Status, outcome: &'static str) -> Status {
        status.metadata_mut().insert(OUTCOME, outcome.parse().unwrap());
        status
    }

    /// Of tonic's decoder.
    const TOO_LARGE: &str = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";

    /// What tonic makes of a connection that ends so.
    fn broken(code: Code) -> Status {
        let mut status = Status::new(code, "h2 protocol error");
        status.set_source(std::sync::Arc::new(std::io::Error::other("go away")));
        status
    }

    #[test]
    fn a_revision_that_is_not_there_is_told_from_other_refusals() {
        let mut status = Status::out_of_range(COMPACTED);
        let told = refusal(&status).to_string();
        assert_eq!(told, "the revision is compacted, the server does not say by how much");
        status.metadata_mut().insert(COMPACT_REVISION, "7".parse().unwrap());
        assert!(matches!(refusal(&status), Error::Compacted { compact_revision: Some(7) }));
        let mut status = Status::out_of_range(FUTURE_REVISION);
        status.metadata_mut().insert(CURRENT_REVISION, "9".parse().unwrap());
        assert!(matches!(refusal(&status), Error::FutureRevision { current: Some(9) }));
        assert!(matches!(refusal(&Status::out_of_range("other")), Error::Refused { .. }));
    }

    #[test]
    fn a_failed_attempt_is_judged_by_what_the_server_says() {
        let cases = [
            (Status::unavailable("etcdserver: no leader"), Verdict::Nothing),
            (Status::unavailable("etcdserver: request timed out"), Verdict::Unknown),
            (Status::unavailable("transport error"), Verdict::Unknown),
            (Status::resource_exhausted("etcdserver: too many requests"), Verdict::Nothing),
            (Status::failed_precondition(LEARNER), Verdict::Nothing),
            (with_outcome(Status::failed_precondition(LEARNER), "none"), Verdict::Nothing),
            (Status::unavailable(LEARNER), Verdict::Nothing),
            (Status::resource_exhausted(NO_SPACE), Verdict::Unknown),
            (with_outcome(Status::resource_exhausted(NO_SPACE), "none"), Verdict::Refused),
            (broken(Code::ResourceExhausted), Verdict::Unknown),
            (broken(Code::PermissionDenied), Verdict::Unknown),
            (Status::permission_denied("etcdserver: permission denied"), Verdict::Refused),
            (Status::out_of_range(TOO_LARGE), Verdict::Unknown),
            (Status::out_of_range("etcdserver: too large lease TTL"), Verdict::Refused),
            (Status::cancelled("Timeout expired"), Verdict::Unknown),
            (Status::not_found("etcdserver: requested lease not found"), Verdict::Refused),
            (with_outcome(Status::unavailable("etcdserver: leader changed"), "none"), Verdict::Nothing),
            (with_outcome(Status::unavailable("etcdserver: server stopped"), "unknown"), Verdict::Unknown),
            (
                with_outcome(Status::invalid_argument("etcdserver: request is too large"), "none"),
                Verdict::Refused,
            ),
            (with_outcome(Status::deadline_exceeded("late"), "unknown"), Verdict::Unknown),
        ];
        for (status, verdict) in cases {
            for repeat in [Repeat::Idempotent, Repeat::Harmful] {
                assert_eq!(judge(&status, repeat), verdict, "{status:?}");
            }
        }
        assert_eq!(judge(&Status::out_of_range(TOO_LARGE), Repeat::Harmless), Verdict::Refused);
    }
}
