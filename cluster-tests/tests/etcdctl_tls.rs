//! etcdctl, in two versions, with certificates that `holdfastctl cert` makes: mutual TLS, and the name in a certificate as the
//! user; who has none, or believes none, is refused.

#![expect(clippy::unwrap_used, reason = "in a test a failure to set the scene is a panic")]

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use cluster_tests::conformance::etcdctl::programs;
use cluster_tests::harness::binary;
use cluster_tests::harness::ports::free_port;
use tokio::process::{Child, Command};

/// A member with mutual TLS, until it is dropped.
struct Member {
    dir: tempfile::TempDir,
    url: String,
    _process: Child,
}

/// How long a member may take to be ready; a busy machine takes a while.
const READY_MAX: Duration = Duration::from_secs(60);

impl Member {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for args in
            [&["ca"][..], &["server", "--hosts", "127.0.0.1"], &["client", "root"], &["client", "alice"]]
        {
            let program = binary::holdfastctl().expect("holdfastctl is built");
            let made = Command::new(program).arg("cert").args(args).current_dir(dir.path()).output().await;
            let made = made.unwrap();
            assert!(made.status.success(), "{args:?}: {}", String::from_utf8_lossy(&made.stderr));
        }
        let ports = [free_port().unwrap(), free_port().unwrap()];
        let url = format!("https://127.0.0.1:{}", ports[0]);
        let process = Command::new(binary::holdfast().expect("holdfast is built"))
            .current_dir(dir.path())
            .args([&format!("--listen-client-urls={url}"), "--cert-file=server.crt", "--key-file=server.key"])
            .args(["--client-cert-auth", "--trusted-ca-file=ca.crt", "--data-dir=data"])
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{}", ports[1]))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let member = Self { dir, url, _process: process };
        let ready = tokio::time::timeout(READY_MAX, async {
            while !member.is_ready().await {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        ready.await.expect("the member is ready in time");
        member
    }

    async fn is_ready(&self) -> bool {
        let mut check = Command::new(binary::holdfast().expect("holdfast is built"));
        check.current_dir(self.dir.path()).args(["healthcheck", "--endpoint", &self.url]);
        check.args(["--cacert=ca.crt", "--cert=root.crt", "--key=root.key"]);
        check.output().await.unwrap().status.success()
    }

    async fn run(&self, program: &Path, user: Option<&str>, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("ETCDCTL_API", "3").stdin(Stdio::null());
        command.args(["--endpoints", &self.url, "--dial-timeout=5s", "--command-timeout=5s"]);
        if let Some(user) = user {
            command.args(["--cacert=ca.crt", &format!("--cert={user}.crt"), &format!("--key={user}.key")]);
        }
        command.args(args).output().await.unwrap()
    }

    /// What a command that has to succeed prints.
    async fn says(&self, program: &Path, user: &str, args: &[&str]) -> String {
        let output = self.run(program, Some(user), args).await;
        assert!(output.status.success(), "{user} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn tell(line: &str) {
    let Some((program, _)) = programs(line, "with TLS") else { return };
    let member = Member::start().await;
    assert_eq!(member.says(&program, "alice", &["put", "a", "1"]).await, "OK\n");
    assert_eq!(member.says(&program, "alice", &["get", "a"]).await, "a\n1\n");
    let without = member.run(&program, None, &["put", "a", "1"]).await;
    assert!(!without.status.success());
    let unbelieved = ["--cert=alice.crt", "--key=alice.key", "put", "a", "1"];
    assert!(!member.run(&program, None, &unbelieved).await.status.success());
    let blind = ["--insecure-skip-tls-verify", "--cert=alice.crt", "--key=alice.key", "put", "a", "2"];
    assert!(member.run(&program, None, &blind).await.status.success());
    for args in [
        &["user", "add", "root", "--no-password"][..],
        &["user", "add", "alice", "--no-password"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "app"],
        &["role", "grant-permission", "app", "readwrite", "app/", "--prefix"],
        &["user", "grant-role", "alice", "app"],
        &["auth", "enable"],
    ] {
        member.says(&program, "root", args).await;
    }
    assert_eq!(member.says(&program, "alice", &["put", "app/1", "1"]).await, "OK\n");
    let denied = member.run(&program, Some("alice"), &["put", "a", "3"]).await;
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(said.contains("etcdserver: permission denied"), "{said}");
    assert_eq!(member.says(&program, "root", &["get", "a"]).await, "a\n2\n");
}

#[tokio::test]
async fn etcdctl_3_4_is_served_with_certificates() {
    tell("3.4").await;
}

#[tokio::test]
async fn etcdctl_3_5_is_served_with_certificates() {
    tell("3.5").await;
}
