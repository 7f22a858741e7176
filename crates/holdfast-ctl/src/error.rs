//! Why a command did not do what it was to do, and the exit code that says so.

use std::time::Duration;

use tonic::{Code, Status};

/// What a command ends with.
pub(crate) type Done = Result<(), CtlError>;

/// An endpoint that could not be asked, and why.
#[derive(Debug, Clone)]
pub(crate) struct Unreached {
    /// As it was given.
    pub(crate) endpoint: String,
    /// In words, with the next step where there is one.
    pub(crate) cause: String,
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// Too few words, too many, or ones that exclude each other.
    #[error("{0}")]
    Arguments(String),
    /// A word that is no number, where etcdctl ends as with any other error.
    #[error("{0}")]
    Word(String),
    /// Standard input has something that is not understood.
    #[error("{0}")]
    Input(String),
    /// A value of a flag that there is not, or not for this command.
    #[error("{0}")]
    Feature(String),
    /// No endpoint could be asked. Nothing was done.
    #[error("{}", unreachable(.0))]
    Unreachable(Vec<Unreached>),
    /// The connection was lost while the answer was awaited. What was asked for may have been done.
    #[error("the connection to {endpoint} broke: {cause}")]
    Broken {
        /// As it was given.
        endpoint: String,
        /// In words.
        cause: String,
    },
    /// There is a connection, and no answer. What was asked for may be done yet.
    #[error(
        "{endpoint} has not answered within {limit:?}: has the cluster a leader? holdfastctl status says more"
    )]
    Late {
        /// As it was given.
        endpoint: String,
        /// How long the answer was awaited.
        limit: Duration,
    },
    /// The server's answer is no.
    #[error("{}{}", .what, .status.message())]
    Refused {
        /// What was asked for, with a colon behind it; empty for what goes without saying.
        what: &'static str,
        /// The server's words.
        status: Status,
    },
    /// Something was found to be ill, and has been told already.
    #[error("{0}")]
    Unhealthy(String),
    /// A watch has ended that should have gone on.
    #[error("the member has ended the watch")]
    WatchEnded,
    /// Everything has been said.
    #[error("exit code {0}")]
    Exit(u8),
    /// Of this machine: files, standard output.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl CtlError {
    /// The exit code. Where etcdctl's differs, `docs/holdfastctl.md` says why.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Word(_) | Self::Unhealthy(_) | Self::Other(_) => 1,
            Self::Unreachable(_) | Self::Broken { .. } => 2,
            Self::Input(_) => 3,
            Self::Feature(_) | Self::Late { .. } => 4,
            Self::Refused { status, .. } => refusal(status.code()),
            Self::WatchEnded => 5,
            Self::Arguments(_) => 128,
            Self::Exit(code) => *code,
        }
    }

    /// The same with what was asked for in front of the server's words.
    pub(crate) fn at(self, what: &'static str) -> Self {
        match self {
            Self::Refused { status, .. } => Self::Refused { what, status },
            other => other,
        }
    }

    /// Whether the server's answer has these words.
    pub(crate) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Refused { status, .. } if status.message() == words)
    }
}

impl From<std::io::Error> for CtlError {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.into())
    }
}

/// A request that will not do is an error like any other; a server that cannot serve it is one of its own.
fn refusal(code: Code) -> u8 {
    match code {
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated
        // What etcd refuses without a code of its own, such as a password for a user who has none.
        | Code::Unknown => 1,
        Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => 4,
    }
}

fn unreachable(all: &[Unreached]) -> String {
    let mut text = "no endpoint can be reached".to_owned();
    for Unreached { endpoint, cause } in all {
        text.push_str(&format!("\n  {endpoint}: {cause}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_a_bad_request_from_a_server_that_cannot() {
        let refused = |status| CtlError::Refused { what: "", status };
        assert_eq!(refused(Status::permission_denied("no")).exit_code(), 1);
        assert_eq!(refused(Status::unavailable("no leader")).exit_code(), 4);
        assert_eq!(CtlError::Unreachable(Vec::new()).exit_code(), 2);
        assert_eq!(CtlError::Arguments(String::new()).exit_code(), 128);
    }

    #[test]
    fn each_endpoint_has_its_own_cause() {
        let unreached =
            |endpoint: &str, cause: &str| Unreached { endpoint: endpoint.into(), cause: cause.into() };
        let error = CtlError::Unreachable(vec![unreached("a:1", "refused"), unreached("b:2", "late")]);
        assert_eq!(error.to_string(), "no endpoint can be reached\n  a:1: refused\n  b:2: late");
    }
}
