//! Rows WH17 to WH19 as their users meet them: a store, a snapshot, a log or all of a member's data is gone or damaged.
//! Each ends in service, or in an error that names what to do, which is then done and ends in service.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::{HOLDFAST, signal, wait_for};

/// Members as processes, each killed when this is dropped.
struct Members {
    directory: TempDir,
    /// A peer and a client port for each.
    ports: Vec<(u16, u16)>,
    running: Vec<Option<Child>>,
}

impl Members {
    fn start(count: usize) -> Self {
        let ports = holdfast_testserver::free_ports(2 * count).unwrap();
        let ports = ports.chunks(2).map(|pair| (pair[0], pair[1])).collect();
        let mut members = Self { directory: TempDir::new().unwrap(), ports, running: Vec::new() };
        for member in 0..count {
            members.running.push(None);
            members.run(member, &[]);
        }
        members
    }

    /// Three that are ready.
    async fn three() -> Self {
        let members = Self::start(3);
        for member in 0..3 {
            members.ready(member, 1).await;
        }
        members
    }

    fn at(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    fn dir(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("n{member}"))
    }

    fn endpoint(&self, member: usize) -> String {
        Self::at(self.ports[member].1)
    }

    /// Starts a member with these arguments before its own flags.
    fn run(&mut self, member: usize, arguments: &[&str]) {
        let cluster: Vec<String> =
            (0..self.ports.len()).map(|n| format!("n{n}={}", Self::at(self.ports[n].0))).collect();
        let (peer, client) = self.ports[member];
        let log = std::fs::File::options().create(true).append(true).open(self.log(member)).unwrap();
        let joins = arguments.first() == Some(&"join");
        let mut command = Command::new(HOLDFAST);
        command.args(arguments).args([
            format!("--name=n{member}"),
            format!("--data-dir={}", self.dir(member).display()),
            format!("--listen-peer-urls={}", Self::at(peer)),
            format!("--listen-client-urls={}", Self::at(client)),
            "--segment-bytes=4MiB".to_owned(),
            "--memory-bytes=64MiB".to_owned(),
            // Longer than what a busy machine holds a member up.
            "--election-timeout=5000".to_owned(),
            "--log-format=json".to_owned(),
        ]);
        if !joins {
            command.arg(format!("--initial-cluster={}", cluster.join(",")));
        }
        let child = command.env_clear().stdin(Stdio::null()).stderr(log).spawn().unwrap();
        self.running[member] = Some(child);
    }

    fn log(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("n{member}.log"))
    }

    fn said(&self, member: usize) -> String {
        std::fs::read_to_string(self.log(member)).unwrap_or_default()
    }

    /// Waits until a member says so for the `times`th time.
    async fn ready(&self, member: usize, times: usize) {
        wait_for("a ready member", || {
            let said = self.said(member);
            if said.matches("ready to serve client requests").count() >= times { Ok(()) } else { Err(said) }
        })
        .await;
    }

    fn kill(&mut self, member: usize) {
        let mut child = self.running[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the end of a member; its exit code.
    async fn ended(&mut self, member: usize) -> i32 {
        let mut child = self.running[member].take().unwrap();
        let log = self.log(member);
        let ended = wait_for("the end", || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            child.try_wait().unwrap().ok_or_else(said)
        });
        ended.await.code().unwrap()
    }

    async fn put(&self, member: usize, key: &str, value: Vec<u8>) {
        let mut kv = KvClient::new(self.channel(member));
        let request =
            pb::PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() };
        kv.put(request).await.unwrap();
    }

    /// By a linearizable read.
    async fn get(&self, member: usize, key: &str) -> Option<Vec<u8>> {
        let mut kv = KvClient::new(self.channel(member));
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = kv.range(request).await.unwrap().into_inner();
        answer.kvs.first().map(|kv| kv.value.to_vec())
    }

    fn channel(&self, member: usize) -> Channel {
        let endpoint = Endpoint::from_shared(self.endpoint(member)).unwrap();
        endpoint.timeout(Duration::from_secs(30)).connect_lazy()
    }

    async fn leader(&self) -> usize {
        let mut maintenance = MaintenanceClient::new(self.channel(0));
        let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
        let ids = self.ids(0).await;
        let (_, name) = ids.iter().find(|(id, _)| *id == status.leader).expect("somebody leads");
        (0..ids.len()).find(|n| *name == format!("n{n}")).unwrap()
    }

    async fn ids(&self, member: usize) -> Vec<(u64, String)> {
        let mut cluster = ClusterClient::new(self.channel(member));
        let list = cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
        list.into_inner().members.into_iter().map(|member| (member.id, member.name)).collect()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for mut child in self.running.drain(..).flatten() {
            // Fails only for a process that has ended already.
            drop(child.kill());
            child.wait().unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in files(from) {
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &to);
        } else {
            std::fs::copy(&path, to).unwrap();
        }
    }
}

/// Turns a byte in the middle of what a file holds.
fn damage(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap();
    content[used / 2] ^= 0x5a;
    std::fs::write(path, content).unwrap();
}

/// One member with a value in its snapshot and one behind it; killed.
async fn with_snapshot() -> (Members, PathBuf) {
    let mut members = Members::start(1);
    members.ready(0, 1).await;
    members.put(0, "before", b"1".to_vec()).await;
    signal(members.running[0].as_ref().unwrap().id(), Signal::USR1);
    let snapshots = members.dir(0).join("store").join("snapshots");
    let snapshot = wait_for("a snapshot", || {
        let is_whole = |path: &PathBuf| path.extension().is_some_and(|end| end == "snap");
        files(&snapshots).into_iter().find(is_whole).ok_or_else(|| members.said(0))
    })
    .await;
    members.put(0, "after", b"2".to_vec()).await;
    members.kill(0);
    (members, snapshot)
}

async fn serves_both(members: &mut Members) {
    members.run(0, &[]);
    members.ready(0, 2).await;
    assert_eq!(members.get(0, "before").await.unwrap(), b"1");
    assert_eq!(members.get(0, "after").await.unwrap(), b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn wh19_a_deleted_stable_store_is_rebuilt() {
    let (mut members, _) = with_snapshot().await;
    for path in files(&members.dir(0).join("store")) {
        if path.file_name().unwrap() != "snapshots" {
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }
    serves_both(&mut members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wh19_a_rotten_snapshot_is_set_aside_and_the_stable_store_serves() {
    let (mut members, snapshot) = with_snapshot().await;
    damage(&snapshot);
    serves_both(&mut members).await;
    // A start that does not need its content leaves the reading for when there is nothing else to do.
    wait_for("the snapshot to be put out of the way, for a look", || {
        if snapshot.with_extension("bad").is_file() { Ok(()) } else { Err(members.said(0)) }
    })
    .await;
    assert!(members.said(0).contains("a snapshot is damaged"), "{}", members.said(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wh19_a_damaged_log_is_refused_and_the_named_command_brings_the_member_back() {
    let mut members = Members::three().await;
    for n in 0..40 {
        members.put(0, &format!("k{n}"), vec![7; 20_000]).await;
    }
    assert!(members.get(1, "k39").await.is_some());
    members.kill(1);
    let segment = files(&members.dir(1).join("log"))
        .into_iter()
        .find(|path| std::fs::read(path).unwrap().iter().filter(|byte| **byte != 0).count() > 100_000);
    damage(&segment.unwrap());
    members.run(1, &[]);
    assert_eq!(members.ended(1).await, 1);
    let said = members.said(1);
    assert!(said.contains("is damaged at byte") && said.contains("holdfast join --replace"), "{said}");
    // The two others go on, and the member comes back under a new id by the command that was named.
    members.put(0, "meanwhile", b"1".to_vec()).await;
    let before = members.ids(0).await;
    let endpoints = format!("--endpoints={}", members.endpoint(0));
    members.run(1, &["join", "--replace", &endpoints]);
    members.ready(1, 2).await;
    assert_eq!(members.get(1, "k39").await.unwrap(), vec![7; 20_000]);
    assert_eq!(members.get(1, "meanwhile").await.unwrap(), b"1");
    let after = members.ids(1).await;
    assert_eq!(after.len(), 3, "{after:?}");
    let gone: Vec<&(u64, String)> = before.iter().filter(|member| !after.contains(member)).collect();
    assert!(gone.len() == 1 && gone[0].1 == "n1", "{before:?} {after:?}");
    assert!(members.directory.path().join("n1.replaced-1").is_dir(), "the old data is kept");
    // Run again, the same command only starts it.
    members.kill(1);
    members.run(1, &["join", &endpoints]);
    members.ready(1, 3).await;
    assert_eq!(members.ids(1).await, after);
}

/// An older copy of a disk, put back under the same id, has forgotten what the member acknowledged since.
#[tokio::test(flavor = "multi_thread")]
async fn wh19_a_member_with_an_older_copy_of_its_disk_is_refused_and_joins_under_a_new_id() {
    let mut members = Members::three().await;
    members.put(0, "a", b"1".to_vec()).await;
    // Not the leader: whoever leads remembers what the others acknowledged.
    let leader = members.leader().await;
    let victim = (leader + 1) % 3;
    members.kill(victim);
    let backup = members.directory.path().join("backup");
    copy_dir(&members.dir(victim), &backup);
    members.run(victim, &[]);
    members.ready(victim, 2).await;
    // Without the third member, this takes the victim's acknowledgement, and the leader has it.
    let bystander = members.running[(leader + 2) % 3].as_ref().unwrap().id();
    signal(bystander, Signal::STOP);
    members.put(leader, "b", b"2".to_vec()).await;
    signal(bystander, Signal::CONT);
    assert_eq!(members.get(victim, "b").await.unwrap(), b"2");
    members.kill(victim);
    std::fs::remove_dir_all(members.dir(victim)).unwrap();
    copy_dir(&backup, &members.dir(victim));
    members.run(victim, &[]);
    assert_eq!(members.ended(victim).await, 3);
    let said = members.said(victim);
    assert!(said.contains("has lost log entries that it had acknowledged"), "{said}");
    members.run(victim, &[]);
    assert_eq!(members.ended(victim).await, 1, "also when no leader remembers what it had");
    let said = members.said(victim);
    assert!(said.contains("so with it acknowledged writes could be lost"), "{said}");
    let endpoints = format!("--endpoints={}", members.endpoint(leader));
    members.run(victim, &["join", "--replace", &endpoints]);
    members.ready(victim, 3).await;
    assert_eq!(members.get(victim, "b").await.unwrap(), b"2");
    assert_eq!(members.ids(victim).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn wh19_a_member_that_lost_everything_is_refused_and_joins_under_a_new_id() {
    let mut members = Members::three().await;
    members.put(0, "a", b"1".to_vec()).await;
    members.kill(2);
    std::fs::remove_dir_all(members.dir(2)).unwrap();
    // With the flags it was made with, it would form a cluster in which it has acknowledged nothing.
    members.run(2, &[]);
    assert_eq!(members.ended(2).await, 3);
    let said = members.said(2);
    assert!(said.contains("came back without its log") && said.contains("holdfast join --replace"), "{said}");
    std::fs::remove_dir_all(members.dir(2)).unwrap();
    members.run(2, &["--initial-cluster-state=existing"]);
    assert_eq!(members.ended(2).await, 1);
    let said = members.said(2);
    assert!(said.contains("a member must not forget what it has acknowledged"), "{said}");
    let endpoints = format!("--endpoints={},{}", members.endpoint(0), members.endpoint(1));
    members.run(2, &["join", &endpoints]);
    assert_eq!(members.ended(2).await, 1);
    assert!(
        members.said(2).contains("or let it take the other's place with --replace"),
        "{}",
        members.said(2)
    );
    members.run(2, &["join", "--replace", &endpoints]);
    members.ready(2, 2).await;
    assert_eq!(members.get(2, "a").await.unwrap(), b"1");
    members.put(2, "b", b"2".to_vec()).await;
    assert_eq!(members.ids(2).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_ends_with_a_code_of_its_own_and_stays_out() {
    let mut members = Members::three().await;
    let ids = members.ids(0).await;
    let id = ids.iter().find(|(_, name)| name == "n2").unwrap().0;
    let mut cluster = ClusterClient::new(members.channel(0));
    cluster.member_remove(pb::MemberRemoveRequest { id }).await.unwrap();
    assert_eq!(members.ended(2).await, 3);
    let said = members.said(2);
    assert!(said.contains("was removed from the cluster, and its id cannot be used again"), "{said}");
    members.run(2, &[]);
    assert_eq!(members.ended(2).await, 3, "starting it again does not help");
    members.put(0, "a", b"1".to_vec()).await;
}
