//! What commands that ask a member connect with: etcdctl's names and meanings.

use std::path::PathBuf;

use holdfast_tls::{ClientFiles, PairFiles};

/// What a command connects to https:// URLs with: etcdctl's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct ClientTlsFlags {
    /// Believe certificates of the CAs in this file, PEM; without it, of those that this machine trusts
    #[arg(long)]
    pub cacert: Option<PathBuf>,
    /// Show this certificate, PEM
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// The private key of --cert, PEM
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Believe any certificate: who is in between can read and change everything
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,
}

impl ClientTlsFlags {
    /// An endpoint as a URL. etcdctl's often come without a scheme: TLS is meant when something about it is given.
    pub fn with_scheme(&self, endpoint: &str) -> String {
        if endpoint.contains("://") {
            return endpoint.to_owned();
        }
        let scheme = if self == &Self::default() { "http" } else { "https" };
        format!("{scheme}://{endpoint}")
    }

    /// The files.
    pub fn files(&self) -> ClientFiles {
        let pair = self.cert.clone().zip(self.key.clone()).map(|(cert, key)| PairFiles { cert, key });
        ClientFiles::of_flags(self.cacert.clone(), pair, self.insecure_skip_tls_verify)
    }
}
