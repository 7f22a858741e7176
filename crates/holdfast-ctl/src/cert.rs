//! `cert`: a CA for development, and certificates of it. Keys are ECDSA on P-256, which everything that speaks TLS 1.2
//! knows.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use holdfast_env::{Clock, RealClock};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::cli::{Authority, CertCommand, Issued};

/// The name of the CA's files.
const CA: &str = "ca";

/// What it is called; what it signs names it so.
const CA_NAME: &str = "holdfast development CA";

/// What a certificate is for when no hosts are given: a member on this machine.
const LOCAL_HOSTS: &str = "localhost,127.0.0.1,::1";

/// Certificates begin so long ago: clocks differ.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everybody may read a certificate, and its owner alone a key.
const CERT_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// Makes what was asked for; what is to be said then.
pub(crate) fn cert(command: &CertCommand) -> anyhow::Result<String> {
    match command {
        CertCommand::Ca(flags) => authority(flags),
        CertCommand::Server(flags) => issue(flags, "server", &[ExtendedKeyUsagePurpose::ServerAuth]),
        // A member both accepts and connects.
        CertCommand::Peer(flags) => {
            issue(flags, "peer", &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
        }
        CertCommand::Client(flags) => issue(flags, "client", &[ExtendedKeyUsagePurpose::ClientAuth]),
    }
}

fn authority(flags: &Authority) -> anyhow::Result<String> {
    let files = Files::of(&flags.dir, CA);
    files.check(flags.overwrite)?;
    let key = KeyPair::generate()?;
    let mut params = valid_for(flags.days, Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    files.write(&certificate.pem(), &key)?;
    Ok(files.told(flags.days))
}

fn issue(flags: &Issued, kind: &str, purposes: &[ExtendedKeyUsagePurpose]) -> anyhow::Result<String> {
    let name = flags.name.as_deref().unwrap_or(kind);
    if name.is_empty() || name == CA || name.contains('/') || name.starts_with('.') {
        bail!("a certificate cannot be named {name:?}: its files are named so, and {CA} is the CA");
    }
    let files = Files::of(&flags.dir, name);
    files.check(flags.overwrite)?;
    let issuer = issuer(&flags.dir)?;
    // A client is nobody's host.
    let hosts = flags.hosts.as_deref().unwrap_or(if kind == "client" { "" } else { LOCAL_HOSTS });
    let hosts = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned);
    let mut params = valid_for(flags.days, hosts.collect())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purposes.to_vec();
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    files.write(&certificate.pem(), &key)?;
    Ok(files.told(flags.days))
}

/// The CA in a directory, as far as certificates of it need it: its name and its key.
fn issuer(dir: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let files = Files::of(dir, CA);
    let missing =
        || format!("cannot use {}: make a CA first, with holdfastctl cert ca", files.cert.display());
    let name = holdfast_tls::common_name_in(&files.cert).with_context(missing)?;
    if name.as_deref() != Some(CA_NAME) {
        bail!("{} is of another CA: have that one sign, or give another --dir", files.cert.display());
    }
    let key = fs::read_to_string(&files.key).with_context(missing)?;
    let key = KeyPair::from_pem(&key).with_context(|| files.key.display().to_string())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, CA_NAME);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(Issuer::new(params, key))
}

/// From a little before now, for so many days, for these hosts.
fn valid_for(days: u32, hosts: Vec<String>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts).context("--hosts")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let clock = RealClock::new(tokio::runtime::Handle::current());
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(clock.wall().0);
    params.not_before = now - BACKDATED;
    params.not_after = now + DAY * days;
    Ok(params)
}

/// A certificate and its key.
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn of(dir: &Path, name: &str) -> Self {
        Self { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    /// Refuses to write over what is there.
    fn check(&self, overwrite: bool) -> anyhow::Result<()> {
        match [&self.cert, &self.key].into_iter().find(|path| !overwrite && path.exists()) {
            Some(path) => bail!("{} exists: give --overwrite, or another --dir or name", path.display()),
            None => Ok(()),
        }
    }

    fn write(&self, cert: &str, key: &KeyPair) -> anyhow::Result<()> {
        if let Some(dir) = self.cert.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        write(&self.key, &key.serialize_pem(), KEY_MODE)?;
        write(&self.cert, cert, CERT_MODE)
    }

    fn told(&self, days: u32) -> String {
        format!("Wrote {} and {}, valid for {days} days\n", self.cert.display(), self.key.display())
    }
}

/// Writes aside and renames, so that a member that reads the file meanwhile has either all of it or the old one.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let written = (|| {
        // Left behind by one that was stopped; its mode is not known.
        if part.exists() {
            fs::remove_file(&part)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use holdfast_tls::{ClientFiles, ClientTls, PairFiles, Roots, ServerFiles, ServerTls};

    use super::*;

    fn issued(dir: &Path, name: &str) -> Issued {
        Issued { name: Some(name.into()), hosts: None, dir: dir.into(), days: 30, overwrite: false }
    }

    #[tokio::test]
    async fn what_is_written_can_be_served_with_and_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let early = cert(&CertCommand::Server(issued(dir.path(), "n1"))).unwrap_err();
        assert!(format!("{early:#}").contains("holdfastctl cert ca"), "{early:#}");
        let ca = || Authority { dir: dir.path().into(), days: 30, overwrite: false };
        cert(&CertCommand::Ca(ca())).unwrap();
        let refused = cert(&CertCommand::Ca(ca())).unwrap_err().to_string();
        assert!(refused.contains("--overwrite"), "{refused}");
        cert(&CertCommand::Ca(Authority { overwrite: true, ..ca() })).unwrap();
        cert(&CertCommand::Server(issued(dir.path(), "n1"))).unwrap();
        cert(&CertCommand::Client(issued(dir.path(), "alice"))).unwrap();
        assert!(cert(&CertCommand::Client(issued(dir.path(), "../alice"))).is_err());
        let file = |name: &str| dir.path().join(name);
        let mode = |name: &str| fs::metadata(file(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("n1.key"), mode("ca.key")), (0o600, 0o600));
        let pair =
            |name: &str| PairFiles { cert: file(&format!("{name}.crt")), key: file(&format!("{name}.key")) };
        let server = ServerFiles {
            pair: pair("n1"),
            ca: Some(file("ca.crt")),
            allowed: holdfast_tls::Allowed::Anyone,
            versions: holdfast_tls::Versions::Both,
        };
        assert!(ServerTls::load(&server).unwrap().current().expires.is_some());
        let client = ClientFiles {
            pair: Some(pair("alice")),
            roots: Roots::File(file("ca.crt")),
            ..ClientFiles::default()
        };
        ClientTls::load(&client).unwrap();
    }
}
