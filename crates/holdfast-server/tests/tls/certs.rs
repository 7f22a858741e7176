//! Certificates for one test, in a directory of its own, and clients that use them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use holdfast_server::server::Server;
use holdfast_tls::{ClientFiles, ClientTls, Connector, PairFiles, Roots};
use pb::kv_client::KvClient;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// A CA with its file.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// What a certificate says.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) hosts: &'a [&'a str],
    pub(crate) until_year: i32,
}

/// A certificate for members and clients on this machine.
pub(crate) const LOCAL: Leaf<'static> =
    Leaf { common_name: "member", hosts: &["localhost", "127.0.0.1"], until_year: 2100 };

/// A directory with certificates.
pub(crate) struct Certs {
    dir: TempDir,
}

impl Authority {
    /// All have the same name, as those of one operator may.
    pub(crate) fn new() -> Self {
        let mut params = params(Leaf { common_name: "the CA", hosts: &[], until_year: 2100 });
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }
}

fn params(leaf: Leaf<'_>) -> CertificateParams {
    let hosts: Vec<String> = leaf.hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, leaf.common_name);
    params.not_after = date_time_ymd(leaf.until_year, 1, 1);
    params
}

impl Certs {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of CAs.
    pub(crate) fn trust(&self, name: &str, authorities: &[&Authority]) -> PathBuf {
        let all: Vec<&str> = authorities.iter().map(|authority| authority.pem.as_str()).collect();
        self.write(name, &all.concat())
    }

    /// `<name>.crt` and `<name>.key`.
    pub(crate) fn issue(&self, name: &str, authority: &Authority, leaf: Leaf<'_>) -> PairFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = params(leaf);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        PairFiles {
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
            cert: self.write(&format!("{name}.crt"), &certificate.pem()),
        }
    }

    /// Writes aside and renames, as whoever replaces files of a running member should.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let (part, file) = (self.file(&format!("{name}.part")), self.file(name));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(&part, &file).unwrap();
        file
    }
}

/// A flag with a file.
pub(crate) fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// The flags of a client port that wants certificates of these CAs.
pub(crate) fn client_port(pair: &PairFiles, ca: Option<&Path>) -> Vec<String> {
    let mut flags = vec![flag("cert-file", &pair.cert), flag("key-file", &pair.key)];
    if let Some(ca) = ca {
        flags.extend([flag("trusted-ca-file", ca), "--client-cert-auth".to_owned()]);
    }
    flags
}

pub(crate) fn as_strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// How a client connects.
pub(crate) fn files(ca: &Path, pair: Option<&PairFiles>) -> ClientFiles {
    ClientFiles { roots: Roots::File(ca.to_owned()), pair: pair.cloned(), ..ClientFiles::default() }
}

pub(crate) fn channel(url: &str, files: &ClientFiles) -> Channel {
    let connector = Connector::new(Arc::new(ClientTls::load(files).unwrap()));
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().timeout(Duration::from_secs(20));
    endpoint.connect_with_connector_lazy(connector)
}

/// One put over a connection of its own; the innermost cause when there is no answer.
pub(crate) async fn put(url: &str, files: &ClientFiles, key: &str) -> Result<(), String> {
    put_over(channel(url, files), key).await
}

pub(crate) async fn put_over(channel: Channel, key: &str) -> Result<(), String> {
    let request = pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
    match KvClient::new(channel).put(request).await {
        Ok(_) => Ok(()),
        Err(status) => Err(innermost(&status)),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// How many connections of a port have failed for a cause, once that is at least one.
pub(crate) async fn failures(server: &Server, port: &str, cause: &str) -> u64 {
    failures_from(1, server, port, cause).await
}

/// The same, once it is at least this many: a connection is closed a moment before it is counted.
pub(crate) async fn failures_from(least: u64, server: &Server, port: &str, cause: &str) -> u64 {
    let find = || {
        let failures = server.tls().figures().failures;
        let found = failures.into_iter().find(|(name, why, _)| *name == port && why.label() == cause);
        found.map_or(0, |(_, _, count)| count)
    };
    until(|| find() >= least).await;
    find()
}

/// Waits for a condition, for at most half a minute.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let patience = tokio::time::timeout(Duration::from_secs(30), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    patience.await.expect("the condition comes true in time");
}
