//! What can go wrong while measuring. All of it ends the run, except a refused call, which is counted.

use std::io;
use std::time::Duration;

/// Why a measurement cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file, process or socket of this machine.
    #[error("cannot {action}")]
    Io {
        /// What was tried, to stand behind "cannot".
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The connection to a server broke.
    #[error("the connection failed")]
    Connection(#[from] h2::Error),
    /// The server answered with a gRPC status other than OK.
    #[error("the server refused with code {code}: {message}")]
    Refused {
        /// gRPC's number.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// The answer is no gRPC message of the expected type.
    #[error("an answer that is none: {0}")]
    Answer(&'static str),
    /// An answer's message cannot be decoded.
    #[error("an answer that cannot be decoded")]
    Decode(#[from] prost::DecodeError),
    /// A server that was started has ended.
    #[error("{name} has ended; its last line: {last_line}")]
    Ended {
        /// Which one.
        name: String,
        /// Of its log.
        last_line: String,
    },
    /// Something that had to happen did not.
    #[error("{what} not within {patience:?}")]
    Late {
        /// What was waited for, to stand before "not within".
        what: String,
        /// How long.
        patience: Duration,
    },
    /// A setting that cannot be.
    #[error("{0}")]
    Setting(String),
    /// The measurement was stopped from outside.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Makes an I/O error into one that says what was tried.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The message with all its causes.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
