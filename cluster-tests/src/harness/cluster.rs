//! Some members of one cluster, as processes with a directory each, and what can be done to them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::disk::SmallDisk;
use super::network::Network;
use super::process::Process;
use super::scrape::Scrape;
use super::{binary, ports};
use crate::client::{Client, TIMEOUT};

/// Between two questions while something is waited for.
const POLL: Duration = Duration::from_millis(20);

/// What is under test: ours, or the control. Both take etcd's flags.
#[derive(Debug, Clone)]
pub struct System {
    /// For reports.
    pub label: String,
    /// The program.
    pub binary: PathBuf,
    /// Flags beyond those that make up the cluster.
    pub extra_args: Vec<String>,
}

impl System {
    /// The binary `holdfast`, see [`binary::holdfast`].
    pub fn holdfast(extra_args: &[String]) -> Result<Self> {
        let mut args = vec!["--exit-with-stdin".to_owned()];
        args.extend_from_slice(extra_args);
        Ok(Self { label: "holdfast".to_owned(), binary: binary::holdfast()?, extra_args: args })
    }

    /// The control: a real etcd at `binary`, with etcd's own defaults.
    pub fn etcd(binary: PathBuf, extra_args: &[String]) -> Self {
        Self { label: "etcd".to_owned(), binary, extra_args: extra_args.to_vec() }
    }
}

/// One member: where it listens, where its data lies, and its process while it runs.
#[derive(Debug)]
pub struct Member {
    /// Its name in the cluster.
    pub name: String,
    /// Where clients reach it.
    pub client_url: String,
    /// Where it listens for the other members.
    pub peer_url: String,
    /// Where they reach it: the same, or a way that leads there.
    pub peer_route: String,
    /// Its data directory; the log lies beside it.
    pub data_dir: PathBuf,
    /// What stands before the program on its command line, if it is run by another.
    wrapper: Vec<String>,
    /// Where its files are seen: the root, or that of its own mount namespace.
    root: PathBuf,
    /// Whether it is one of those that form the cluster.
    is_founder: bool,
    process: Option<Process>,
}

impl Member {
    /// Whether a process was started and has not been killed by us.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.name))
    }

    /// Its data directory, as this process sees it.
    pub fn files(&self) -> PathBuf {
        let below = self.data_dir.strip_prefix("/").unwrap_or(&self.data_dir);
        self.root.join(below)
    }

    fn log(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }
}

/// A cluster of processes. Dropping it kills them and removes their directory.
#[derive(Debug)]
pub struct Cluster {
    system: System,
    token: String,
    members: Vec<Member>,
    network: Option<Arc<Network>>,
    dir: Option<TempDir>,
}

impl Cluster {
    /// Chooses ports and directories for `size` members, n1, n2 and so on, and starts none of them.
    pub fn prepare(system: System, size: usize) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("cluster-tests-").tempdir().context("no temporary directory")?;
        let members = (1..=size).map(|number| member(number, dir.path())).collect::<Result<_>>()?;
        let token =
            dir.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { system, token, members, network: None, dir: Some(dir) })
    }

    /// Has a member started from now on through `wrapper`, for example in another mount namespace.
    pub fn set_wrapper(&mut self, index: usize, wrapper: Vec<String>) {
        self.members[index].wrapper = wrapper;
    }

    /// Puts a member that has never run on a disk of its own.
    pub fn set_disk(&mut self, index: usize, mount: &Path, disk: &SmallDisk) {
        let member = &mut self.members[index];
        member.data_dir = mount.join("data");
        (member.wrapper, member.root) = (disk.wrapper(), disk.root());
    }

    /// Has all members reach each other over a network that can be broken, with a place for `spare` more of them, which
    /// are not part of the cluster yet. To be called before any of them starts.
    pub async fn connect(&mut self, spare: usize) -> Result<Arc<Network>> {
        let founders = self.members.len();
        for number in founders + 1..=founders + spare {
            let member = member(number, self.path())?;
            self.members.push(Member { is_founder: false, ..member });
        }
        let targets: Vec<String> = self.members.iter().map(|member| member.peer_url.clone()).collect();
        let network = Arc::new(Network::to(&targets).await?);
        for (index, member) in self.members.iter_mut().enumerate() {
            network.route(index).clone_into(&mut member.peer_route);
        }
        self.network = Some(Arc::clone(&network));
        Ok(network)
    }

    /// Has members started from now on with another program; gives the one before.
    pub fn set_binary(&mut self, binary: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.system.binary, binary)
    }

    /// What is under test.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Starts `size` members and waits until each of them serves linearizable reads.
    pub async fn start(system: System, size: usize) -> Result<Self> {
        let mut cluster = Self::prepare(system, size)?;
        for index in 0..size {
            cluster.spawn(index)?;
        }
        cluster.wait_ready(Duration::from_secs(30)).await?;
        Ok(cluster)
    }

    /// The members, in the order of their names.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One member, by its place.
    pub fn member(&mut self, index: usize) -> &mut Member {
        &mut self.members[index]
    }

    /// Client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url.clone()).collect()
    }

    /// The directory of the whole cluster.
    pub fn path(&self) -> &Path {
        self.dir.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// The command that starts a member.
    pub fn command(&self, index: usize) -> Command {
        let founders: Vec<usize> = (0..self.members.len()).filter(|i| self.members[*i].is_founder).collect();
        self.command_among(index, &founders, "new")
    }

    fn command_among(&self, index: usize, all: &[usize], state: &str) -> Command {
        let name = |index: &usize| {
            let Member { name, peer_route, .. } = &self.members[*index];
            format!("{name}={peer_route}")
        };
        let all: Vec<String> = all.iter().map(name).collect();
        let mut command = self.own_command(index, &[]);
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", state]);
        command.args(&self.system.extra_args);
        command
    }

    /// Gives a member that has never served, or whose clients have forgotten it, another port for clients: the one that was
    /// chosen long ago may be in use by now.
    pub fn renew_client_port(&mut self, index: usize) -> Result<()> {
        self.members[index].client_url = format!("http://127.0.0.1:{}", ports::free_port()?);
        Ok(())
    }

    /// Starts a member without data that `all`, itself among them, were told to be joined by.
    pub fn join(&mut self, index: usize, all: &[usize]) -> Result<()> {
        ensure!(!self.members[index].is_started(), "{} is running already", self.members[index].name);
        let command = self.command_among(index, all, "existing");
        self.started(index, command)
    }

    fn started(&mut self, index: usize, command: Command) -> Result<()> {
        let process = Process::spawn(command, &self.members[index].log())?;
        if let Some(network) = &self.network {
            network.set_process(index, Some(process.pid()));
        }
        self.members[index].process = Some(process);
        Ok(())
    }

    /// The command, up to the flags that say who the others are.
    fn own_command(&self, index: usize, subcommand: &[&str]) -> Command {
        let member = &self.members[index];
        let words = member.wrapper.iter().map(AsRef::as_ref).chain([self.system.binary.as_os_str()]);
        let words: Vec<&OsStr> = words.collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.args(subcommand);
        command.args(["--name", &member.name]);
        command.arg("--data-dir").arg(&member.data_dir);
        command.args([
            "--listen-client-urls",
            &member.client_url,
            "--advertise-client-urls",
            &member.client_url,
        ]);
        command.args([
            "--listen-peer-urls",
            &member.peer_url,
            "--initial-advertise-peer-urls",
            &member.peer_route,
        ]);
        command.args(["--initial-cluster-token", &self.token]);
        command
    }

    /// Starts a member that is not running, on the data it has.
    pub fn spawn(&mut self, index: usize) -> Result<()> {
        self.spawn_with(index, &[])
    }

    /// The same, with flags that only this start has. Of a flag that is given twice the last one counts.
    pub fn spawn_with(&mut self, index: usize, flags: &[String]) -> Result<()> {
        ensure!(!self.members[index].is_started(), "{} is running already", self.members[index].name);
        let mut command = self.command(index);
        command.args(flags);
        self.started(index, command)
    }

    /// Starts a member whose process and directory are gone again, under a new id, in the place of the old one:
    /// `holdfast join --replace`.
    pub fn replace(&mut self, index: usize) -> Result<()> {
        let name = &self.members[index].name;
        ensure!(!self.members[index].is_started(), "{name} is running already");
        ensure!(!self.members[index].files().exists(), "{name} still has its data");
        let others = self.members.iter().filter(|member| member.is_started());
        let endpoints: Vec<&str> = others.map(|member| member.client_url.as_str()).collect();
        let mut command =
            self.own_command(index, &["join", "--replace", "--endpoints", &endpoints.join(",")]);
        command.args(&self.system.extra_args);
        self.started(index, command)
    }

    /// SIGKILL to one member.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        let name = self.members[index].name.clone();
        let mut process =
            self.members[index].process.take().with_context(|| format!("{name} is not running"))?;
        process.kill()
    }

    /// SIGKILL to all members that run, one right after the other.
    pub fn kill_all(&mut self) -> Result<()> {
        (0..self.members.len())
            .filter(|i| self.members[*i].is_started())
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|i| self.kill(i))
    }

    /// Waits until every started member answers a linearizable read.
    pub async fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let client = Client::new(&self.endpoints())?;
        let deadline = Instant::now() + patience;
        for index in 0..self.members.len() {
            if self.members[index].is_started() {
                self.wait_member_ready(&client, index, deadline).await?;
            }
        }
        Ok(())
    }

    /// Waits until a member that is new says that it votes.
    pub async fn until_voting(&self, index: usize, patience: Duration) -> Result<()> {
        let Member { name, client_url, .. } = &self.members[index];
        let deadline = Instant::now() + patience;
        loop {
            let votes = Scrape::of(client_url).await.and_then(|page| page.count("holdfast_votes"));
            if matches!(votes, Ok(1)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{name} does not vote after {patience:?}: {votes:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a member does nothing but serve and its metrics are as `wanted`, too; gives them.
    pub async fn wait_settled(
        &self,
        index: usize,
        patience: Duration,
        wanted: impl Fn(&Scrape) -> Result<bool>,
    ) -> Result<Scrape> {
        let Member { name, client_url, .. } = &self.members[index];
        let deadline = Instant::now() + patience;
        loop {
            let page = Scrape::of(client_url).await?;
            if page.is_settled()? && wanted(&page)? {
                return Ok(page);
            }
            ensure!(Instant::now() < deadline, "{name} is still busy after {patience:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Which member leads, asked of each running one; the answer of the highest term counts.
    pub async fn leader(&self, patience: Duration) -> Result<usize> {
        let client = Client::new(&self.endpoints())?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(index) = self.leader_now(&client).await {
                return Ok(index);
            }
            if Instant::now() >= deadline {
                bail!("no member says that it leads, after {patience:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Keeps the directory when this value is dropped, for a look at what went wrong.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.take().map(TempDir::keep).unwrap_or_default()
    }

    async fn leader_now(&self, client: &Client) -> Option<usize> {
        let mut newest = None;
        for index in (0..self.members.len()).filter(|i| self.members[*i].is_started()) {
            let Ok(status) = client.status(index).await else { continue };
            let own_id = status.header.map_or(0, |header| header.member_id);
            if status.leader == own_id && own_id != 0 {
                newest = newest.max(Some((status.raft_term, index)));
            }
        }
        newest.map(|(_, index)| index)
    }

    async fn wait_member_ready(&mut self, client: &Client, index: usize, deadline: Instant) -> Result<()> {
        loop {
            let answer = client.revision(index, TIMEOUT).await;
            if answer.is_ok() {
                return Ok(());
            }
            let member = &mut self.members[index];
            let name = member.name.clone();
            let process = member.process()?;
            if let Some(status) = process.try_wait()? {
                bail!("{name} has ended ({status}); its last lines:\n{}", process.log_tail(20));
            }
            if Instant::now() >= deadline {
                let error = answer.err().map(|error| format!("{error:#}")).unwrap_or_default();
                bail!("{name} does not serve ({error}); its last lines:\n{}", process.log_tail(20));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn member(number: usize, dir: &Path) -> Result<Member> {
    let name = format!("n{number}");
    let peer_url = format!("http://127.0.0.1:{}", ports::free_port()?);
    Ok(Member {
        client_url: format!("http://127.0.0.1:{}", ports::free_port()?),
        peer_route: peer_url.clone(),
        peer_url,
        data_dir: dir.join(&name),
        name,
        wrapper: Vec::new(),
        root: PathBuf::from("/"),
        is_founder: true,
        process: None,
    })
}
