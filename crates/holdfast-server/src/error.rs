//! Why a member cannot start or go on, in sentences for whoever runs it.

use std::io;

use holdfast_raft::{LogError, StartError};

use crate::auth::signed::SigningError;
use crate::config::ConfigError;
use crate::data_dir::DataDirError;
use crate::joining::JoinError;

/// Why a member cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The flags cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate files cannot be used.
    #[error(transparent)]
    Tls(#[from] holdfast_tls::TlsError),
    /// The keys of signed tokens cannot be used.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// An address cannot be listened on.
    #[error("--{flag}: cannot listen on {url}: {source}{}", listen_advice(source))]
    Listen {
        /// The flag it came with.
        flag: &'static str,
        /// The URL.
        url: String,
        /// What the network said.
        source: io::Error,
    },
    /// The Raft log cannot be used.
    #[error("{}{}", .0, log_advice(.0))]
    Log(#[from] holdfast_raft::LogError),
    /// The stable store or the snapshots cannot be used.
    #[error("{0}")]
    Storage(#[from] holdfast_storage::StorageError),
    /// The member cannot find its place in a running cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Consensus cannot start.
    #[error("{}{}", .0, start_advice(.0))]
    Raft(#[from] holdfast_raft::StartError),
    /// Reflection or transport could not be set up.
    #[error("cannot serve clients: {0}")]
    Serve(String),
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it should.
    Success,
    /// Something on the machine, in the data or in the cluster.
    Failure,
    /// The flags or the environment.
    Usage,
    /// The member has no place in its cluster any more; starting it again does not help.
    Departed,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Departed => 3,
        }
    }
}

impl ServerError {
    /// How the process ends with this error: usage for what the flags alone tell, failure for all else.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Usage,
            Self::Tls(_)
            | Self::Signing(_)
            | Self::DataDir(_)
            | Self::Listen { .. }
            | Self::Log(_)
            | Self::Storage(_)
            | Self::Raft(_)
            | Self::Join(_)
            | Self::Serve(_) => Exit::Failure,
        }
    }
}

/// The command that does what an error asks for, in one step.
const REPLACE: &str = "; one command does that: holdfast join --replace --endpoints with a member's client URL, and this \
                       member's flags";

fn log_advice(error: &LogError) -> &'static str {
    match error {
        LogError::Damaged { .. } | LogError::Missing { .. } => REPLACE,
        _ => "",
    }
}

fn start_advice(error: &StartError) -> &'static str {
    match error {
        StartError::Gap { .. } => REPLACE,
        StartError::Net(_) | StartError::Raft(_) => "",
    }
}

/// What to do about an address, when that is plain; starts with a colon.
fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": stop the process that uses it, or choose another port",
        io::ErrorKind::AddrNotAvailable => ": it is no address of this machine",
        io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege, choose a higher one",
        _ => "",
    }
}

/// The innermost cause, which is what people can act on.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
