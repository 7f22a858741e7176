//! The binary against members of the test server: what etcdctl has not, and the exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use holdfast_testserver::TestCluster;
use rustix::process::{Pid, Signal, kill_process};

/// A command line, with what the environment has.
fn command(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastctl"));
    command.env_clear().envs(variables.iter().copied()).args(args).stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Runs beside the members, which live in this process.
async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    run_with(args, &[]).await
}

async fn run_with(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = command(args, variables);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    said(&output.unwrap())
}

/// A port that nobody listens on.
const DEAD: &str = "127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_fail_are_told_with_their_causes() {
    let (code, out, err) = run(&["--endpoints=127.0.0.1:1,127.0.0.1:2", "get", "a"]).await;
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("127.0.0.1:1: connection refused") && err.contains("127.0.0.1:2: conn"), "{err}");
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let both = format!("--endpoints={DEAD},{url}");
    assert_eq!(run(&[&both, "put", "a", "1"]).await, (Some(0), "OK\n".into(), String::new()));
    let (code, _, err) = run(&[&format!("--endpoints={}", url.replace("http", "https")), "get", "a"]).await;
    assert!(code == Some(2) && err.contains("plain text on this port"), "{err}");
    let (code, _, err) = run(&[&both, "endpoint", "status"]).await;
    assert!(code == Some(2) && err.contains(DEAD), "{err}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_fails_is_told_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    let [certs, other] = [dir.path(), &other].map(|dir| format!("--dir={}", dir.display()));
    for args in [&["cert", "ca", &certs][..], &["cert", "server", &certs], &["cert", "ca", &other]] {
        assert_eq!(run(args).await.0, Some(0));
    }
    let flag = |flag: &str, file: &str| format!("--{flag}={}", dir.path().join(file).display());
    let flags = [flag("cert-file", "server.crt"), flag("key-file", "server.key")];
    let cluster = TestCluster::start(1, &flags.each_ref().map(String::as_str)).await.unwrap();
    let url = cluster.endpoint(0);
    let endpoint = format!("--endpoints={url}");
    let right = flag("cacert", "ca.crt");
    assert_eq!(run(&[&endpoint, &right, "put", "a", "1"]).await.0, Some(0));
    let (code, _, err) = run(&[&endpoint, &flag("cacert", "other/ca.crt"), "get", "a"]).await;
    assert!(code == Some(2) && err.contains("of a CA that is not trusted here"), "{err}");
    let plain = format!("--endpoints={}", url.replace("https", "http"));
    for args in [&[&plain, "get", "a"][..], &[&plain, "put", "a", "2"], &[&plain, "endpoint", "status"]] {
        let (code, _, err) = run(args).await;
        assert!(code == Some(2) && err.contains("plain text on a TLS port"), "{args:?}: {err}");
    }
    assert_eq!(run(&[&endpoint, &right, "get", "a"]).await.1, "a\n1\n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_come_from_the_environment_ours_first() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let ours = [("HOLDFASTCTL_ENDPOINTS", url.as_str()), ("ETCDCTL_ENDPOINTS", DEAD), ("ETCDCTL_API", "3")];
    assert_eq!(run_with(&["put", "a", "1"], &ours).await.1, "OK\n");
    let theirs = [("ETCDCTL_ENDPOINTS", url.as_str()), ("ETCDCTL_WRITE_OUT", "fields")];
    assert!(run_with(&["get", "a"], &theirs).await.1.contains("\"Key\" : \"a\""));
    assert_eq!(run_with(&["get", "a", "-w", "simple"], &theirs).await.1, "a\n1\n");
    let watched = [("ETCDCTL_ENDPOINTS", url.as_str()), ("ETCDCTL_WATCH_KEY", "a")];
    assert_eq!(run_with(&["watch", "b"], &watched).await.0, Some(128));
    let (code, _, err) = run_with(&["get", "a"], &[("ETCDCTL_API", "2")]).await;
    assert!(code == Some(128) && err.contains("ETCDCTL_API=2"), "{err}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcdctl_has_not() {
    let cluster = TestCluster::single().await.unwrap();
    let endpoint = format!("--endpoints={}", cluster.endpoint(0));
    let on = async |args: &[&str]| run(&[&[endpoint.as_str()], args].concat()).await;
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        on(&["put", key, value]).await;
    }
    assert_eq!(on(&["get", "a", "c", "-w", "raw"]).await.1, "12");
    assert_eq!(on(&["get", "none"]).await.0, Some(0));
    assert_eq!(on(&["get", "none", "--exit-code"]).await, (Some(1), String::new(), String::new()));
    assert_eq!(on(&["get", "a", "--exit-code"]).await.0, Some(0));
    assert!(on(&["get", "a", "--count-only", "-w", "json"]).await.1.ends_with("\"count\":1}\n"));
    assert_eq!(on(&["del", "a", "--range=c", "--dry-run"]).await.1, "2\n");
    assert_eq!(on(&["del", "a", "c", "--dry-run", "--prev-kv"]).await.1, "2\na\n1\nb\n2\n");
    assert_eq!(on(&["get", "", "--prefix", "-w", "raw"]).await.1, "123");
    // What cannot be shown is not done.
    assert_eq!(on(&["del", "a", "-w", "table"]).await.0, Some(4));
    assert_eq!(on(&["get", "a", "-w", "raw"]).await.1, "1");
    assert_eq!(on(&["del", "a", "--range=c"]).await.1, "2\n");
    assert_eq!(on(&["get", "a", "--rev=1000"]).await.0, Some(1));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_member_that_is_down() {
    let mut cluster = TestCluster::three().await.unwrap();
    let endpoint = format!("--endpoints={}", cluster.endpoint(0));
    let (code, out, _) = run(&[&endpoint, "status"]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("3 voters, leader n") && out.ends_with("Nothing is wrong.\n"), "{out}");
    let down = cluster.endpoint(2);
    cluster.stop_member(2).await;
    let (code, out, _) = run(&[&endpoint, "status"]).await;
    assert_eq!(code, Some(5), "{out}");
    let wanted = format!("- n2 ({:x}) at {down} cannot be asked: connection refused", cluster.member_id(2));
    assert!(out.contains(&wanted), "{out}");
    let (code, out, _) = run(&[&endpoint, "status", "-w", "json"]).await;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["healthy"]), (Some(5), &serde_json::Value::from(false)));
    cluster.stop_member(1).await;
    let (code, out, _) = run(&[&endpoint, "status", "--command-timeout=2s"]).await;
    assert!(code == Some(5) && out.contains("1 of 3 voters answer, and 2 are needed"), "{code:?} {out}");
    cluster.stop().await;
}

/// A command that goes on, with its lines as they come.
struct Watch {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watch {
    fn start(args: &[&str]) -> Self {
        let mut child =
            command(args, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let stdout = child.stdout.take().unwrap();
        Self { child, lines: BufReader::new(stdout).lines() }
    }

    fn interrupt(mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_its_member_and_an_interrupt_ends_it() {
    let mut cluster = TestCluster::single().await.unwrap();
    let endpoint = format!("--endpoints={}", cluster.endpoint(0));
    let put = async |value: &str| run(&[&endpoint, "put", "a", value]).await.0;
    assert_eq!(put("1").await, Some(0));
    let mut watch = Watch::start(&[&endpoint, "watch", "a", "--rev=1"]);
    let read = |mut watch: Watch, count: usize| {
        tokio::task::spawn_blocking(move || {
            let lines: Vec<String> = watch.lines.by_ref().take(count).map(Result::unwrap).collect();
            (watch, lines)
        })
    };
    let (read_on, lines) = read(watch, 3).await.unwrap();
    assert_eq!(lines, ["PUT", "a", "1"]);
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    assert_eq!(put("2").await, Some(0));
    (watch, _) = (read_on, ());
    let (watch, lines) = read(watch, 3).await.unwrap();
    assert_eq!(lines, ["PUT", "a", "2"]);
    assert_eq!(tokio::task::spawn_blocking(|| watch.interrupt()).await.unwrap(), Some(130));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_and_is_interrupted_leaves_no_place() {
    let cluster = TestCluster::single().await.unwrap();
    let endpoint = format!("--endpoints={}", cluster.endpoint(0));
    let places = async |wanted: usize| {
        for _ in 0..600 {
            let (_, out, _) = run(&[&endpoint, "get", "l/", "--prefix", "--keys-only"]).await;
            if out.lines().filter(|line| line.starts_with("l/")).count() == wanted {
                return;
            }
        }
        panic!("there are not {wanted} places");
    };
    let holder = Watch::start(&[&endpoint, "lock", "l"]);
    places(1).await;
    let waiting = Watch::start(&[&endpoint, "lock", "l"]);
    places(2).await;
    let ended = tokio::task::spawn_blocking(|| waiting.interrupt()).await.unwrap();
    assert_eq!(ended, Some(130));
    places(1).await;
    assert_eq!(tokio::task::spawn_blocking(|| holder.interrupt()).await.unwrap(), Some(0));
    places(0).await;
    // Its lease has ended with it.
    assert_eq!(run(&[&endpoint, "lease", "list"]).await.1, "found 0 leases\n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_copies_and_follows() {
    let [source, destination] = [TestCluster::single().await.unwrap(), TestCluster::single().await.unwrap()];
    let [from, to] = [&source, &destination].map(|cluster| format!("--endpoints={}", cluster.endpoint(0)));
    run(&[&from, "put", "a/1", "old"]).await;
    let other = destination.endpoint(0);
    let mirror = Watch::start(&[&from, "make-mirror", &other, "--prefix=a/", "--dest-prefix=b/"]);
    let until = async |key: &str, wanted: &str| {
        for _ in 0..600 {
            if run(&[&to, "get", key, "-w", "raw"]).await.1 == wanted {
                return;
            }
        }
        panic!("{key} does not become {wanted}");
    };
    until("b/1", "old").await;
    run(&[&from, "put", "a/2", "new"]).await;
    until("b/2", "new").await;
    run(&[&from, "del", "a/1"]).await;
    until("b/1", "").await;
    assert_eq!(tokio::task::spawn_blocking(|| mirror.interrupt()).await.unwrap(), Some(130));
    source.stop().await;
    destination.stop().await;
}

#[test]
fn words_that_make_no_command_are_refused() {
    let code = |args: &[&str]| said(&command(args, &[]).output().unwrap()).0;
    assert_eq!((code(&["nonsense"]), code(&["get", "a", "--nonsense"])), (Some(1), Some(1)));
    assert_eq!((code(&["get"]), code(&["get", "a", "-w", "nope"])), (Some(128), Some(4)));
    assert_eq!((code(&[]), code(&["lease"]), code(&["--help"])), (Some(0), Some(0), Some(0)));
    assert!(Path::new(env!("CARGO_BIN_EXE_holdfastctl")).exists());
}
