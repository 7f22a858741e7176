//! What can be wrong with certificate files, in sentences for whoever has to replace them.

use std::path::PathBuf;

/// Files that TLS cannot begin with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}: check the path, and that this user may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        reason: String,
    },
    /// A file without a certificate.
    #[error("{} has no certificate in it: it must be PEM, with a BEGIN CERTIFICATE line", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file without a private key.
    #[error(
        "{} has no private key in it: it must be PEM, with a BEGIN PRIVATE KEY line and not encrypted",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Something that is no certificate and no key.
    #[error("{} cannot be used: {reason}: write it anew", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate and the key of another one.
    #[error(
        "the key in {} does not belong to the certificate in {}: give the two that were made together",
        key.display(),
        cert.display()
    )]
    OtherKey {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// This machine trusts nobody.
    #[error(
        "this machine has no trusted CAs of its own: give the file of the CA that signed the certificates"
    )]
    NoSystemRoots,
}
