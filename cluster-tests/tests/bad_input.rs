//! Bad input to the binary: one clear message that says what, where and what to do, a non-zero exit, and nothing
//! changed on disk.
#![expect(clippy::unwrap_used, reason = "in a test a failure to set the scene is a panic")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_tests::client::{Client, Outcome, TIMEOUT};
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::{Cluster, System};
use cluster_tests::harness::ports::free_port;
use cluster_tests::skip::skipped;

/// A process that refuses its input ends within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a refusal looked from outside.
struct Refusal {
    code: Option<i32>,
    stderr: String,
}

impl Refusal {
    /// The message is one line, and has all of `parts` in it.
    fn says(&self, parts: &[&str]) {
        let lines: Vec<&str> =
            self.stderr.lines().filter(|line| parts.iter().all(|part| line.contains(part))).collect();
        assert_eq!(lines.len(), 1, "one line with {parts:?} expected in:\n{}", self.stderr);
        assert!(self.code.is_some_and(|code| code != 0), "exit code {:?}", self.code);
        assert!(!self.stderr.contains("panicked"), "a panic is no message:\n{}", self.stderr);
    }
}

/// Runs a command that must end by itself.
fn run(mut command: Command) -> Refusal {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if Instant::now() >= deadline {
            child.kill().expect("a child of ours");
            break child.wait().expect("a child of ours");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut stderr = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("messages are text");
    Refusal { code: status.code(), stderr }
}

/// Every file and directory below `root`, with a file's bytes.
fn tree(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.expect("a readable directory").path();
            let content = path.is_file().then(|| std::fs::read(&path).expect("a readable file"));
            if content.is_none() {
                open.push(path.clone());
            }
            found.insert(path, content);
        }
    }
    found
}

/// Fails with the names alone: the bytes of a log are no help to a reader.
fn assert_unchanged(before: &BTreeMap<PathBuf, Option<Vec<u8>>>, root: &Path) {
    let after = tree(root);
    let names = before.keys().chain(after.keys());
    let changed: Vec<&PathBuf> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(changed.is_empty(), "changed on disk: {changed:?}");
}

/// A command of the binary with a fresh data directory, which must still not exist after a refusal.
fn with_flags(flags: &[&str], parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut command = Command::new(binary::holdfast().unwrap());
    command.arg("--data-dir").arg(&data_dir).args(flags);
    run(command).says(parts);
    assert!(!data_dir.exists(), "a refused start made its data directory");
}

/// A member of a cluster of one that has some data, and was stopped gracefully.
async fn stopped_member() -> Cluster {
    let system = System::holdfast(&["--segment-bytes=4MiB".to_owned()]).expect("a binary to test");
    let mut cluster = Cluster::start(system, 1).await.expect("a member starts");
    let client = Client::new(&cluster.endpoints()).unwrap();
    for number in 0..50 {
        let outcome =
            client.put(0, Bytes::from(format!("k{number}")), Bytes::from(vec![7; 500]), TIMEOUT).await;
        assert!(matches!(outcome, Outcome::Acked(_)), "{outcome:?}");
    }
    cluster.member(0).process().unwrap().terminate(PATIENCE).expect("it stops on SIGTERM");
    cluster.kill(0).expect("it has ended");
    cluster
}

/// Starts the stopped member again, which must be refused and leave its directory as it is.
fn refuses_to_start(cluster: &Cluster, more: &[&str], parts: &[&str]) {
    let data_dir = cluster.members()[0].data_dir.clone();
    let before = tree(&data_dir);
    assert!(!before.is_empty());
    let mut command = cluster.command(0);
    command.args(more);
    run(command).says(parts);
    assert_unchanged(&before, &data_dir);
}

fn flip_byte(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0x55;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn an_unknown_flag() {
    with_flags(&["--no-such-flag"], &["--no-such-flag"]);
}

#[test]
fn a_bad_url() {
    for url in ["nonsense", "ftp://127.0.0.1:2379", "http://127.0.0.1", "http://:2379/path"] {
        with_flags(&["--listen-client-urls", url], &["--listen-client-urls", url]);
    }
}

#[test]
fn an_initial_cluster_without_this_member() {
    with_flags(
        &["--name", "n1", "--initial-cluster", "n2=http://127.0.0.1:2380"],
        &["--initial-cluster", "n1"],
    );
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let peer = format!("http://127.0.0.1:{}", free_port().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary::holdfast().unwrap());
    command.arg("--data-dir").arg(dir.path().join("data"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    run(command).says(&["--listen-client-urls", &url, "choose another port"]);
}

#[tokio::test]
async fn a_data_directory_of_another_cluster() {
    let cluster = stopped_member().await;
    let data_dir = cluster.members()[0].data_dir.display().to_string();
    let flags = ["--initial-cluster-token", "another"];
    refuses_to_start(&cluster, &flags, &[&data_dir, "belongs to cluster", "--data-dir"]);
}

#[tokio::test]
async fn a_directory_with_files_of_somebody_else() {
    let cluster = Cluster::prepare(System::holdfast(&[]).unwrap(), 1).unwrap();
    let data_dir = cluster.members()[0].data_dir.clone();
    std::fs::create_dir_all(&data_dir).unwrap();
    std::fs::write(data_dir.join("thesis.txt"), "do not touch").unwrap();
    refuses_to_start(&cluster, &[], &[&data_dir.display().to_string(), "thesis.txt", "--data-dir"]);
}

#[tokio::test]
async fn a_newer_format() {
    let cluster = stopped_member().await;
    let identity = cluster.members()[0].data_dir.join("IDENTITY");
    let text = std::fs::read_to_string(&identity).unwrap();
    let newer = text.replace("format 1\n", "format 99\n");
    assert_ne!(text, newer);
    std::fs::write(&identity, newer).unwrap();
    let data_dir = cluster.members()[0].data_dir.display().to_string();
    refuses_to_start(&cluster, &[], &[&data_dir, "format 99", "newer"]);
}

#[tokio::test]
async fn a_corrupt_identity() {
    let cluster = stopped_member().await;
    let identity = cluster.members()[0].data_dir.join("IDENTITY");
    let offset = std::fs::read_to_string(&identity).unwrap().find("cluster ").unwrap() + "cluster ".len();
    flip_byte(&identity, offset);
    let data_dir = cluster.members()[0].data_dir.display().to_string();
    refuses_to_start(&cluster, &[], &[&data_dir, "IDENTITY", "damaged"]);
}

#[tokio::test]
async fn a_log_that_is_damaged_inside() {
    let cluster = stopped_member().await;
    let log = cluster.members()[0].data_dir.join("log");
    let mut segments: Vec<PathBuf> =
        tree(&log).into_keys().filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    let segment = segments.first().expect("a log has a segment");
    // The 50 puts went in one after another: any byte of the first ones lies before writes that are whole.
    let content = std::fs::read(segment).unwrap();
    let middle =
        content.windows(8).position(|window| window == [7; 8]).expect("the first value is in the log");
    flip_byte(segment, middle);
    refuses_to_start(&cluster, &[], &[&segment.display().to_string(), "damaged at byte", "new id"]);
}

#[tokio::test]
async fn a_second_process_on_the_same_directory() {
    let system = System::holdfast(&[]).expect("a binary to test");
    let mut cluster = Cluster::start(system, 1).await.expect("a member starts");
    let client = Client::new(&cluster.endpoints()).unwrap();
    let key = Bytes::from_static(b"k");
    assert!(matches!(client.put(0, key.clone(), key.clone(), TIMEOUT).await, Outcome::Acked(_)));
    // Ports of its own, so that the directory is the only thing in the way.
    let mut command = cluster.command(0);
    for flag in ["--listen-client-urls", "--listen-peer-urls"] {
        command.args([flag, &format!("http://127.0.0.1:{}", free_port().unwrap())]);
    }
    let data_dir = cluster.members()[0].data_dir.display().to_string();
    run(command).says(&[&data_dir, "another process is using it"]);
    assert!(cluster.member(0).process().unwrap().try_wait().unwrap().is_none(), "the first process goes on");
    let found = client.past(0, &key, 0).await.unwrap().expect("its data is there");
    assert_eq!(found.value, key);
}

/// A file system of its own, without privileges where user namespaces are allowed.
fn in_small_filesystem(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-euc", script]);
    command
}

#[test]
fn a_full_disk() {
    let probe =
        in_small_filesystem("d=$(mktemp -d); mount -t tmpfs -o size=1m tmpfs $d; umount $d; rmdir $d")
            .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skipped(
            "a start on a full disk",
            "this user cannot mount a small file system (unshare, user namespaces)",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().display().to_string();
    let script = format!(
        "mount -t tmpfs -o size=1m tmpfs {mount}\n\
         cat /dev/zero >{mount}/ballast 2>/dev/null || true\n\
         status=0; \"$0\" --data-dir {mount}/data || status=$?\n\
         find {mount}/data -type f -size +0 >&2 2>/dev/null || true\n\
         exit $status"
    );
    let mut command = in_small_filesystem(&script);
    command.arg(binary::holdfast().unwrap());
    let peer = format!("http://127.0.0.1:{}", free_port().unwrap());
    let client = format!("http://127.0.0.1:{}", free_port().unwrap());
    for (flag, url) in
        [("LISTEN_PEER_URLS", &peer), ("LISTEN_CLIENT_URLS", &client), ("ADVERTISE_CLIENT_URLS", &client)]
    {
        command.env(format!("HOLDFAST_{flag}"), url);
    }
    command.env("HOLDFAST_INITIAL_ADVERTISE_PEER_URLS", &peer);
    command.env("HOLDFAST_INITIAL_CLUSTER", format!("default={peer}"));
    let refusal = run(command);
    refusal.says(&[&mount, "No space left on device", "free space"]);
    let left: Vec<&str> =
        refusal.stderr.lines().filter(|line| line.starts_with(&format!("{mount}/data/"))).collect();
    assert!(left.is_empty(), "files with content were left behind: {left:?}");
}
