//! TLS for every end of holdfast: ports for clients, peers and metrics, connections between members, the SDK and the
//! command line.
//!
//! rustls with the `ring` provider, which is always named: a process-wide default would depend on who links what.
//! Protocols and ciphers are rustls' own choice.
//!
//! # What it is not
//! It reads no flags and runs no task but the handshakes of [`Incoming`]: whoever owns a [`Reloading`] looks at its files again when it likes. Revocation
//! lists, cipher lists and certificates made at the start are left out.
//!
//! # Invariants
//! - A certificate is used only with the key that belongs to it. While files are being replaced, what was read last
//!   stays in use.
//! - A handshake takes no longer than [`limits::HANDSHAKE_TIME_MAX`], waiting for its turn included, and no more than
//!   [`limits::HANDSHAKES_MAX`] are under way on a port.
//! - A failed handshake has one [`Cause`], which is counted, and logged at most once in [`limits::SAME_WARNING_INTERVAL`].
//!
//! # Module map
//! `files` what is in PEM files, `facts` what a certificate says, [`reload`] contents that are looked at again, [`server`]
//! and [`client`] settings of either end, `accept` handshakes of a port, `answer` what who speaks plain text is told,
//! `connect` connections for tonic and hyper, `stream` the sockets, [`cause`] why a handshake failed, in words.

mod accept;
mod answer;
pub mod cause;
pub mod client;
mod connect;
mod error;
mod facts;
mod files;
pub mod limits;
pub mod reload;
pub mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

pub use accept::{Accepted, Acceptor, Incoming, Port};
pub use cause::Cause;
pub use client::{ClientFiles, ClientTls, Roots, Verify};
pub use connect::{ConnectError, Connector};
pub use error::TlsError;
pub use files::PairFiles;
pub use reload::{Change, Reloading};
pub use server::{Allowed, ServerFiles, ServerTls};
pub use stream::{ClientStream, ServerStream};

/// Which versions of TLS are spoken: 1.2 and 1.3 unless one of them is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// Both.
    #[default]
    Both,
    /// 1.2 alone.
    Only12,
    /// 1.3 alone.
    Only13,
}

impl Versions {
    fn list(self) -> Vec<&'static rustls::SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&TLS13, &TLS12],
            Self::Only12 => vec![&TLS12],
            Self::Only13 => vec![&TLS13],
        }
    }
}

/// The common name in the first certificate of a PEM file.
///
/// Errors: a file that cannot be read, or has no certificate in it.
pub fn common_name_in(path: &std::path::Path) -> Result<Option<String>, TlsError> {
    let certificates = files::Contents::read(path)?.certificates()?;
    Ok(certificates.first().and_then(facts::common_name))
}

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
