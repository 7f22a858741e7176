//! Settings of the end that connects.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::error::TlsError;
use crate::files::{Contents, PairFiles, certified};
use crate::reload::Reloading;
use crate::server::Allowed;
use crate::{Versions, facts};

/// Files and rules of who connects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientFiles {
    /// What is shown to a server that asks.
    pub pair: Option<PairFiles>,
    /// Whose certificates are believed.
    pub roots: Roots,
    /// What is checked of the server's certificate.
    pub verify: Verify,
    /// And whose are, among those.
    pub allowed: Allowed,
    /// Versions of TLS.
    pub versions: Versions,
}

impl ClientFiles {
    /// What etcdctl's flags mean: `--cacert`, `--cert` with `--key`, `--insecure-skip-tls-verify`.
    pub fn of_flags(cacert: Option<PathBuf>, pair: Option<PairFiles>, skips_verify: bool) -> Self {
        let verify = if skips_verify { Verify::Nothing } else { Verify::All };
        Self { pair, roots: cacert.map_or(Roots::System, Roots::File), verify, ..Self::default() }
    }
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Roots {
    /// Those of the CAs that this machine trusts.
    #[default]
    System,
    /// Those of the CAs in this file.
    File(PathBuf),
}

/// What is checked of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Signature, time and name.
    #[default]
    All,
    /// Nothing: who is in between can read and change everything.
    Nothing,
}

/// What connections are made with, as of the files' last good contents.
pub struct ClientTls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) allowed: Allowed,
    /// When the certificate that is shown expires, in seconds since 1970.
    pub expires: Option<i64>,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// Errors: what cannot be used, with its name.
    pub fn load(files: &ClientFiles) -> Result<Reloading<Self>, TlsError> {
        let files = files.clone();
        let mut paths: Vec<PathBuf> =
            files.pair.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]).collect();
        if let Roots::File(path) = &files.roots {
            paths.push(path.clone());
        }
        Reloading::new(paths, Box::new(move |contents: &[Contents]| made(&files, contents)))
    }
}

/// From certificate and key, if there are some, and the file of CAs, if there is one.
fn made(files: &ClientFiles, contents: &[Contents]) -> Result<ClientTls, TlsError> {
    let (pair, ca) = contents.split_at(if files.pair.is_some() { 2 } else { 0 });
    let roots = match ca.first() {
        Some(ca) => ca.roots()?,
        None => system_roots(files.verify)?,
    };
    let builder = ClientConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&files.versions.list())
        .expect("ring has ciphers for every version");
    let builder = match files.verify {
        Verify::All => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crate::provider());
            // The one error is that there is no CA, which was looked at above.
            builder.with_webpki_verifier(verifier.build().map_err(|_| TlsError::NoSystemRoots)?)
        }
        Verify::Nothing => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(crate::provider())))
        }
    };
    let (mut config, expires) = match pair {
        [cert, key] => {
            let certified = certified(cert, key)?;
            let expires = facts::first_expiry(certified.cert.first());
            (builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))), expires)
        }
        _ => (builder.with_no_client_auth(), None),
    };
    // gRPC alone; who wants HTTP/1.1 asks for it.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(ClientTls { config: Arc::new(config), allowed: files.allowed.clone(), expires })
}

fn system_roots(verify: Verify) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if verify == Verify::Nothing {
        return Ok(roots);
    }
    // What cannot be read is left out: the rest may be enough, and the handshake says so if not.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

/// Believes any certificate; signatures of the handshake itself are still checked, as a broken server is no use.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
