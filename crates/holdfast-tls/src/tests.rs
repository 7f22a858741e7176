//! Files that are wrong, files that change, and both ends against each other without a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

struct Files {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn pair(&self, name: &str, key: &KeyPair) -> PairFiles {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        PairFiles {
            cert: self.write(&format!("{name}.crt"), &certificate.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    fn server(&self, pair: &PairFiles) -> ServerFiles {
        ServerFiles {
            pair: pair.clone(),
            ca: Some(self.path("ca.crt")),
            allowed: Allowed::Anyone,
            versions: Versions::Both,
        }
    }
}

fn refusal(files: &ServerFiles) -> String {
    ServerTls::load(files).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_next_step() {
    let files = Files::new();
    let pair = files.pair("a", &KeyPair::generate().unwrap());
    let other = files.pair("b", &KeyPair::generate().unwrap());
    let server = files.server(&pair);
    ServerTls::load(&server).unwrap();
    let with_key = |key: PathBuf| ServerFiles { pair: PairFiles { key, ..pair.clone() }, ..server.clone() };
    let with_cert =
        |cert: PathBuf| ServerFiles { pair: PairFiles { cert, ..pair.clone() }, ..server.clone() };
    let with_ca = |ca: PathBuf| ServerFiles { ca: Some(ca), ..server.clone() };
    let cut = files.write("cut.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let empty = files.write("empty", "");
    for (wrong, parts) in [
        (with_key(other.key.clone()), ["b.key", "does not belong to the certificate in", "a.crt"]),
        (with_key(pair.cert.clone()), ["a.crt", "no private key", "BEGIN PRIVATE KEY"]),
        (with_key(files.path("none")), ["none", "cannot read", "check the path"]),
        (with_cert(pair.key.clone()), ["a.key", "no certificate", "BEGIN CERTIFICATE"]),
        (with_cert(cut), ["cut.crt", "cannot be used", "write it anew"]),
        (with_ca(empty), ["empty", "no certificate", "BEGIN CERTIFICATE"]),
    ] {
        let said = refusal(&wrong);
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

#[test]
fn keys_of_the_usual_kinds_are_taken() {
    let files = Files::new();
    for (name, key) in [
        ("p256", KeyPair::generate().unwrap()),
        ("p384", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()),
        ("ed25519", KeyPair::generate_for(&PKCS_ED25519).unwrap()),
    ] {
        let pair = files.pair(name, &key);
        let made = ServerTls::load(&files.server(&pair)).unwrap();
        assert!(made.current().expires.is_some() && made.current().ca_expires.is_some());
    }
}

#[test]
fn changed_files_are_taken_when_they_belong_together_and_refused_once() {
    let files = Files::new();
    let pair = files.pair("a", &KeyPair::generate().unwrap());
    let made = ServerTls::load(&files.server(&pair)).unwrap();
    let before = made.current();
    assert_eq!(made.look(), Change::None);
    let next = files.pair("next", &KeyPair::generate().unwrap());
    let put = |from: &Path, to: &Path| {
        std::fs::copy(from, to).unwrap();
    };
    put(&next.key, &pair.key);
    // Once is no mistake yet: whoever replaces files may be at it.
    assert_eq!(made.look(), Change::None);
    assert!(matches!(made.look(), Change::Refused(TlsError::OtherKey { .. })));
    assert_eq!(made.look(), Change::None);
    assert!(Arc::ptr_eq(&before, &made.current()));
    put(&next.cert, &pair.cert);
    assert_eq!(made.look(), Change::Taken);
    assert!(!Arc::ptr_eq(&before, &made.current()));
    assert_eq!(made.look(), Change::None);
    std::fs::remove_file(&pair.cert).unwrap();
    assert_eq!(made.look(), Change::None);
    assert!(matches!(made.look(), Change::Refused(TlsError::Read { .. })));
    put(&next.cert, &pair.cert);
    assert_eq!(made.look(), Change::None, "as it was");
}

#[test]
fn every_cause_has_its_own_name_and_place() {
    for (at, cause) in Cause::ALL.into_iter().enumerate() {
        assert_eq!(cause as usize, at);
        assert!(Cause::ALL[..at].iter().all(|other| other.label() != cause.label()));
    }
}

#[test]
fn the_same_is_told_once_and_counted_each_time() {
    let port = Port::new("test");
    let peer = "127.0.0.1:1".parse().unwrap();
    for _ in 0..3 {
        port.failed(Cause::Late, peer, None);
    }
    port.failed(Cause::Closed, peer, None);
    let counted: Vec<_> = port.failures().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [(Cause::Late, 3), (Cause::Closed, 1)]);
    assert_eq!((port.unsaid(Cause::Late), port.unsaid(Cause::Closed)), (2, 0));
}

#[tokio::test]
async fn both_ends_talk_and_the_name_is_known() {
    let files = Files::new();
    let pair = files.pair("alice", &KeyPair::generate().unwrap());
    let settings = Arc::new(ServerTls::load(&files.server(&pair)).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let mut incoming = Incoming::new(listener, Acceptor::tls(Port::new("test"), settings));
    let client = ClientFiles {
        pair: Some(pair),
        roots: Roots::File(files.path("ca.crt")),
        allowed: Allowed::CommonNames(vec!["alice".to_owned()]),
        ..ClientFiles::default()
    };
    let connector = Connector::new(Arc::new(ClientTls::load(&client).unwrap()));
    let (mut near, mut far) =
        tokio::join!(async { connector.connect(url.parse().unwrap()).await.unwrap() }, incoming.next());
    assert_eq!(far.stream.common_name().as_deref(), Some("alice"));
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    let mut heard = [0; 4];
    far.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    // Another name than the one that is allowed.
    let picky = ClientFiles { allowed: Allowed::CommonNames(vec!["bob".to_owned()]), ..client };
    let connector = Connector::new(Arc::new(ClientTls::load(&picky).unwrap()));
    let (refused, _) = tokio::join!(connector.connect(url.parse().unwrap()), incoming.next());
    let said = refused.map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("none of the names that are allowed"), "{said}");
}

#[tokio::test]
async fn who_is_answered_can_read_it_to_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let talk = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        // More than is looked at, so that something is unread when the other end closes.
        client.write_all(&[b'x'; 4096]).await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let answer = async {
        let (socket, _) = listener.accept().await.unwrap();
        answer::last_words(socket, answer::Words::for_plain_text(b"GET /")).await;
    };
    let (heard, ()) = tokio::join!(talk, answer);
    assert!(heard.ends_with("this port speaks TLS: use https://\n"), "{heard}");
}
