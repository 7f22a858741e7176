//! What is in PEM files.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::TlsError;
use crate::limits;

/// A certificate, with those between it and its CA behind it, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificates, PEM.
    pub cert: PathBuf,
    /// The private key, PEM: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Contents {
    pub(crate) fn read(path: &Path) -> Result<Self, TlsError> {
        let failed = |error: std::io::Error| TlsError::Read { path: path.into(), reason: error.to_string() };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(limits::FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Self { path: path.into(), bytes })
    }

    /// All certificates in it, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let certificates = read.map_err(|error| self.malformed(error))?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate { path: self.path.clone() });
        }
        Ok(certificates)
    }

    /// All certificates in it, as those who are trusted.
    pub(crate) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.malformed(error))?;
        }
        Ok(roots)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => Ok(key),
            Err(rustls_pki_types::pem::Error::NoItemsFound) => {
                Err(TlsError::NoKey { path: self.path.clone() })
            }
            Err(error) => Err(self.malformed(error)),
        }
    }

    fn malformed(&self, error: impl std::fmt::Display) -> TlsError {
        TlsError::Malformed { path: self.path.clone(), reason: error.to_string() }
    }
}

/// A certificate with its key.
///
/// Errors: one of them is not there, or they do not belong together.
pub(crate) fn certified(cert: &Contents, key: &Contents) -> Result<CertifiedKey, TlsError> {
    let made = CertifiedKey::from_der(cert.certificates()?, key.key()?, &crate::provider());
    made.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::OtherKey { cert: cert.path.clone(), key: key.path.clone() }
        }
        rustls::Error::InvalidCertificate(_) => cert.malformed(error),
        _ => key.malformed(error),
    })
}
