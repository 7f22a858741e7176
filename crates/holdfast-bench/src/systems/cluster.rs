//! Members of one system as child processes, each with a fresh directory; all of it goes when the value is dropped.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_proto::etcdserverpb::RangeRequest;
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::{Programs, System, ports};
use crate::error::Error;
use crate::grpc::{Connection, Frame, RANGE, Reading};
use crate::measure::procfs::Pid;

/// How long members may take until each of them answers a linearizable read.
const START_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A running cluster.
pub(crate) struct Cluster {
    /// Which system it is of.
    pub(crate) system: System,
    program: PathBuf,
    members: Vec<Member>,
    // Behind the processes, which write to it until they are gone.
    directory: TempDir,
}

struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Child,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Asked first, so that a program that writes a profile at its end gets to write it.
        self.ask_to_end();
        // Fails only for a process that has ended.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

impl Member {
    /// Asks the process to end, and waits until it has, or until [`END_LIMIT`] is over.
    fn ask_to_end(&mut self) {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) else {
            return;
        };
        if kill_process(pid, Signal::TERM).is_err() {
            return;
        }
        let asked = Instant::now();
        while asked.elapsed() < END_LIMIT && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How long a process may take to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Where and how large.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Members of each system; of the empty server there is always one.
    pub(crate) members: usize,
    /// Below which the directories are made.
    pub(crate) parent: PathBuf,
}

impl Cluster {
    /// Starts a system with fresh data and waits until each member serves.
    pub(crate) async fn start(system: System, programs: &Programs, layout: &Layout) -> Result<Self, Error> {
        let program = programs.of(system)?;
        let directory = tempfile::Builder::new()
            .prefix(&format!("holdfast-bench-{}-", system.name()))
            .tempdir_in(&layout.parent)
            .map_err(Error::io(format!("make a directory in {}", layout.parent.display())))?;
        let count = if system == System::Ceiling { 1 } else { layout.members };
        let ports = ports::free(2 * count)?;
        let peers = peer_list(&ports[count..]);
        let flags = programs.flags(system);
        let mut members = Vec::new();
        for (number, (client_port, peer_port)) in ports[..count].iter().zip(&ports[count..]).enumerate() {
            let name = format!("n{}", number + 1);
            let log = directory.path().join(format!("{name}.log"));
            let mut command = Command::new(&program);
            if system == System::Ceiling {
                let value_bytes = programs.value_bytes.to_string();
                command.args([
                    "ceiling",
                    "--listen",
                    &authority(*client_port),
                    "--value-bytes",
                    &value_bytes,
                ]);
            } else {
                member_arguments(&mut command, &name, Ports { client: *client_port, peer: *peer_port });
                command.arg("--data-dir").arg(directory.path().join(&name));
                command.args(["--initial-cluster", &peers, "--initial-cluster-state", "new"]);
                command.args(["--initial-cluster-token", "holdfast-bench"]).args(&flags);
            }
            let arguments: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
            let child = spawn(command, &log)?;
            let (client_port, peer_port) = (*client_port, *peer_port);
            members.push(Member { name, client_port, peer_port, arguments, log, child });
        }
        let mut cluster = Self { system, program, members, directory };
        cluster.wait_until_serving().await?;
        Ok(cluster)
    }

    /// host:port of each member's client side.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| authority(member.client_port)).collect()
    }

    /// What holds the members' data and logs.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The members' processes.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.members.iter().map(|member| Pid(member.child.id())).collect()
    }

    /// Each member's data directory.
    pub(crate) fn data_directories(&self) -> Vec<PathBuf> {
        self.members.iter().map(|member| self.directory.path().join(&member.name)).collect()
    }

    /// Kills a member with SIGKILL and starts it again on its data. Does not wait until it serves.
    pub(crate) fn kill_and_restart(&mut self, number: usize) -> Result<(), Error> {
        let member = &mut self.members[number];
        let kill = member.child.kill().and_then(|()| member.child.wait());
        kill.map_err(Error::io(format!("kill {}", member.name)))?;
        let mut command = Command::new(&self.program);
        command.args(&member.arguments);
        member.child = spawn(command, &member.log)?;
        Ok(())
    }

    /// An error when a member has ended.
    pub(crate) fn fail_if_ended(&mut self) -> Result<(), Error> {
        for member in &mut self.members {
            let ended = member.child.try_wait().map_err(Error::io("look after a child process"))?;
            if ended.is_some() {
                let name = format!("{} {} (peer port {})", self.system.name(), member.name, member.peer_port);
                return Err(Error::Ended { name, last_line: last_line(&member.log) });
            }
        }
        Ok(())
    }

    async fn wait_until_serving(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_MAX;
        for endpoint in self.endpoints() {
            while !serves(&endpoint).await {
                self.fail_if_ended()?;
                if Instant::now() > deadline {
                    let what = format!("{} at {endpoint} serves", self.system.name());
                    return Err(Error::Late { what, patience: START_MAX });
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// The ports of one member.
#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    peer: u16,
}

fn member_arguments(command: &mut Command, name: &str, ports: Ports) {
    let (client, peer) = (url(ports.client), url(ports.peer));
    command.args(["--name", name]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    // As much as etcd takes without a warning: large stores are measured, too.
    command.args(["--quota-backend-bytes", "8589934592"]);
}

fn peer_list(peer_ports: &[u16]) -> String {
    let one = |(number, port): (usize, &u16)| format!("n{}={}", number + 1, url(*port));
    peer_ports.iter().enumerate().map(one).collect::<Vec<_>>().join(",")
}

fn authority(port: u16) -> String {
    format!("{}:{port}", Ipv4Addr::LOCALHOST)
}

fn url(port: u16) -> String {
    format!("http://{}", authority(port))
}

/// Without our environment, whose HOLDFAST_* and ETCD_* variables are meant for others. Standard input stays open and
/// silent as long as we live: ours and the empty server end with it.
fn spawn(mut command: Command, log: &Path) -> Result<Child, Error> {
    let output = append(log).map_err(Error::io(format!("write {}", log.display())))?;
    let errors = output.try_clone().map_err(Error::io("share a log file"))?;
    let program = command.get_program().display().to_string();
    let command = command.env_clear().stdin(Stdio::piped()).stdout(output).stderr(errors);
    command.spawn().map_err(Error::io(format!("start {program}")))
}

/// Behind what an earlier start has written.
fn append(log: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(log)
}

async fn serves(endpoint: &str) -> bool {
    let question = RangeRequest { key: "/".into(), ..RangeRequest::default() };
    let ask = async {
        let (connection, _driver) = Connection::open(endpoint, Reading::Everything).await?;
        connection.caller(RANGE).call(Frame::of(&question)).await
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.is_ok_and(|answer| answer.is_ok())
}

fn last_line(log: &Path) -> String {
    match std::fs::read_to_string(log) {
        Ok(text) => text.lines().last().unwrap_or("it said nothing").to_owned(),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}
