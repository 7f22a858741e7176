//! One member as a process: a configuration file, a port for metrics, log files, signals.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{HOLDFAST, signal, wait_for};

/// Ports are chosen by asking for free ones, which others may take in between: so often a start is tried again.
const START_ATTEMPTS: usize = 5;

/// A member with a configuration file; killed when it is dropped.
struct Member {
    child: Child,
    client: u16,
    metrics: u16,
    directory: TempDir,
}

impl Member {
    /// Starts one, and waits until it says that it is ready.
    async fn start() -> Self {
        for _ in 0..START_ATTEMPTS {
            let mut member = Self::spawn();
            let log = member.log();
            let is_ready = wait_for("a ready member", || {
                if member.child.try_wait().unwrap().is_some() {
                    return Ok(false);
                }
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                if said.contains("ready to serve client requests") { Ok(true) } else { Err(said) }
            });
            if is_ready.await {
                return member;
            }
        }
        panic!("others took the ports {START_ATTEMPTS} times");
    }

    fn spawn() -> Self {
        let directory = TempDir::new().unwrap();
        let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [client, peer, metrics] = held.map(|listener| listener.local_addr().unwrap().port());
        let at = |port| format!("http://127.0.0.1:{port}");
        let file = directory.path().join("etcd.yaml");
        let text = format!(
            "name: from-file\ndata-dir: {dir}/data\nlisten-client-urls: {}\nlisten-peer-urls: {}\n\
             listen-metrics-urls: {}\nsegment-bytes: 4MiB\nsnapshot-count: 10000\nstrict-reconfig-check: true\n\
             log-format: json\nlog-outputs: [stderr, {dir}/member.log]\nclient-transport-security:\n  auto-tls: false\n",
            at(client),
            at(peer),
            at(metrics),
            dir = directory.path().display(),
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new(HOLDFAST)
            .arg("--config-file")
            .arg(&file)
            .env_clear()
            .env("HOLDFAST_NAME", "from-variable")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, client, metrics, directory }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("member.log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_member_runs_as_its_file_says() {
    let mut member = Member::start().await;
    let said = member.said();
    assert!(said.contains("\"name\":\"from-variable\""), "a variable wins over the file: {said}");
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("has no effect")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(warnings[0].contains("etcd.yaml: snapshot-count=10000"), "{}", warnings[0]);
    for (port, path, part) in [
        (member.metrics, "/metrics", "etcd_server_has_leader 1"),
        (member.metrics, "/health", "{\"health\":\"true\""),
        (member.metrics, "/readyz", "ok"),
        (member.client, "/metrics", "etcd_server_has_leader 1"),
    ] {
        let answer = get(port, path);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(part), "{path}: {answer}");
    }
    signal(member.child.id(), Signal::TERM);
    let ended = wait_for("the end", || member.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(ended.await.code(), Some(0), "{}", member.said());
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, member.metrics)).is_err());
}

fn run(args: &[&str]) -> Output {
    Command::new(HOLDFAST).args(args).env_clear().stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_start_that_is_refused_says_why_and_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let data_dir = format!("--data-dir={}/data", directory.path().display());
    for (arg, part) in [
        ("--peer-cert-file=a.pem", "--peer-cert-file needs --peer-key-file"),
        ("--snapshot-cuont=1", "--snapshot-count"),
        ("--log-outputs=/no/such/directory/x.log", "cannot append to /no/such/directory/x.log"),
        ("--listen-metrics-urls=https://127.0.0.1:1", "needs a certificate: give --cert-file and --key-file"),
        ("--config-file=/no/such/file.yaml", "cannot read /no/such/file.yaml"),
    ] {
        let output = run(&[&data_dir, arg]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arg}: {said}");
        assert!(said.contains(part), "{arg}: {said}");
    }
    assert!(!Path::new(&data_dir["--data-dir=".len()..]).exists());
}

#[test]
fn the_page_about_flags_is_printed() {
    let output = run(&["flags"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("# Flags\n"));
}

/// What is counted as a refused connection is told where its operator looks, with what to do.
#[tokio::test]
async fn a_refused_connection_is_told_in_the_log() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(at("own.crt"), pair.cert.pem()).unwrap();
    std::fs::write(at("own.key"), pair.signing_key.serialize_pem()).unwrap();
    for _ in 0..START_ATTEMPTS {
        let held = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [client, peer] = held.map(|listener| listener.local_addr().unwrap().port());
        let flag = |name: &str, value: &str| format!("--{name}={value}");
        let child = Command::new(HOLDFAST)
            .args([
                flag("data-dir", at("data").to_str().unwrap()),
                flag("listen-client-urls", &format!("https://127.0.0.1:{client}")),
                flag("advertise-client-urls", &format!("https://127.0.0.1:{client}")),
                flag("listen-peer-urls", &format!("http://127.0.0.1:{peer}")),
                flag("initial-advertise-peer-urls", &format!("http://127.0.0.1:{peer}")),
                flag("initial-cluster", &format!("default=http://127.0.0.1:{peer}")),
                flag("cert-file", at("own.crt").to_str().unwrap()),
                flag("key-file", at("own.key").to_str().unwrap()),
                flag("segment-bytes", "4MiB"),
                flag("log-outputs", at("member.log").to_str().unwrap()),
            ])
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let said = || std::fs::read_to_string(at("member.log")).unwrap_or_default();
        let is_ready = wait_for("a ready member", || match said() {
            _ if child.0.try_wait().unwrap().is_some() => Ok(false),
            said if said.contains("ready to serve client requests") => Ok(true),
            said => Err(said),
        });
        if !is_ready.await {
            continue;
        }
        // Whatever it is answered, which is its own end's message.
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, client)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let told = wait_for("the warning", || {
            let said = said();
            let line = said.lines().find(|line| line.contains("a connection was refused"));
            line.map(str::to_owned).ok_or(said)
        });
        let told = told.await;
        for part in ["WARN", "plain_text", "client", "this port speaks TLS: have it use https://"] {
            assert!(told.contains(part), "{part} in {told}");
        }
        return;
    }
    panic!("others took the ports {START_ATTEMPTS} times");
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}
