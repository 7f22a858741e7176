//! Settings of the end that accepts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::error::TlsError;
use crate::files::{Contents, PairFiles, certified};
use crate::reload::Reloading;
use crate::{Versions, facts};

/// HTTP/2 first; probes and scrapers speak HTTP/1.1.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Files and rules of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// What the port shows.
    pub pair: PairFiles,
    /// Whoever connects must show a certificate of one of these CAs; `None`: nobody is asked for one.
    pub ca: Option<PathBuf>,
    /// And one with such a name.
    pub allowed: Allowed,
    /// Versions of TLS.
    pub versions: Versions,
}

/// Whose certificates are admitted, among those that a CA has signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Allowed {
    /// All.
    #[default]
    Anyone,
    /// Those with one of these common names.
    CommonNames(Vec<String>),
    /// Those that are for one of these host names or addresses.
    Hostnames(Vec<String>),
}

/// What a port is served with, as of the files' last good contents.
pub struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    /// When the port's certificate expires, in seconds since 1970.
    pub expires: Option<i64>,
    /// When the first of the CAs expires.
    pub ca_expires: Option<i64>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// Errors: what cannot be used, with its name.
    pub fn load(files: &ServerFiles) -> Result<Reloading<Self>, TlsError> {
        let mut paths = vec![files.pair.cert.clone(), files.pair.key.clone()];
        paths.extend(files.ca.clone());
        let (allowed, versions) = (files.allowed.clone(), files.versions);
        Reloading::new(paths, Box::new(move |contents: &[Contents]| made(contents, &allowed, versions)))
    }
}

/// From certificate, key and, if there is one, the file of CAs.
fn made(contents: &[Contents], allowed: &Allowed, versions: Versions) -> Result<ServerTls, TlsError> {
    let (cert, key, ca) = (&contents[0], &contents[1], contents.get(2));
    let certified = certified(cert, key)?;
    let expires = facts::first_expiry(certified.cert.first());
    let builder = ServerConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&versions.list())
        .expect("ring has ciphers for every version");
    let (builder, ca_expires) = match ca {
        None => (builder.with_no_client_auth(), None),
        Some(ca) => {
            let verifier = verifier(ca, allowed)?;
            (builder.with_client_cert_verifier(verifier), facts::first_expiry(&ca.certificates()?))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(ServerTls { config: Arc::new(config), expires, ca_expires })
}

fn verifier(ca: &Contents, allowed: &Allowed) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let signed =
        WebPkiClientVerifier::builder_with_provider(Arc::new(ca.roots()?), crate::provider()).build();
    let signed =
        signed.map_err(|error| TlsError::Malformed { path: ca.path.clone(), reason: error.to_string() })?;
    Ok(match allowed {
        Allowed::Anyone => signed,
        allowed => Arc::new(Named { signed, allowed: allowed.clone() }),
    })
}

/// Admits certificates by name, once their signatures are good.
#[derive(Debug)]
struct Named {
    signed: Arc<dyn ClientCertVerifier>,
    allowed: Allowed,
}

impl Allowed {
    pub(crate) fn admits(&self, certificate: &CertificateDer<'_>) -> bool {
        match self {
            Self::Anyone => true,
            Self::CommonNames(names) => {
                facts::common_name(certificate).is_some_and(|name| names.contains(&name))
            }
            Self::Hostnames(names) => names.iter().any(|name| is_for(certificate, name)),
        }
    }
}

fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(name))
    else {
        return false;
    };
    rustls::client::verify_server_name(&parsed, &name).is_ok()
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.signed.verify_client_cert(end_entity, intermediates, now)?;
        if self.allowed.admits(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
