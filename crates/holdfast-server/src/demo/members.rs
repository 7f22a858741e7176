//! The demo's member processes: started, looked after, tormented, stopped.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast_env::Clock;
use rustix::process::{Pid, Signal, kill_process};

use super::DemoError;
use super::directory::{Directory, remove_orphans};
use super::ports::{self, Ports};
use crate::config::flags::{DemoFlags, EngineFlag};

const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// A member that ended is started again after so many seconds: long enough to see the others go on without it.
const SECONDS_UNTIL_RESTART: u32 = 3;
/// How long the members may take to stop; each bounds its own parts below that.
const STOP_MAX: Duration = Duration::from_secs(15);

/// The three processes and their directory, which is removed with this value.
pub(super) struct Members {
    members: Vec<Member>,
    // Behind the processes, which write to it.
    directory: Directory,
}

struct Member {
    name: &'static str,
    ports: Ports,
    arguments: Vec<String>,
    log: PathBuf,
    state: State,
}

enum State {
    Running {
        child: Child,
        /// By SIGSTOP.
        is_paused: bool,
        /// It was asked to stop, to be started again.
        is_restarting: bool,
    },
    Down {
        seconds: u32,
    },
}

/// When a member that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restarts {
    /// By itself, after a while.
    ByItself,
    /// When somebody asks for it.
    OnDemand,
}

/// What a member process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Process {
    Running { pid: u32 },
    Paused { pid: u32 },
    Ended,
}

/// What can be done to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, or SIGCONT when it is paused.
    PauseOrResume,
    /// Stopped in order and started again, or just started.
    Restart,
    /// SIGUSR1, on which a member takes a snapshot.
    Dump,
}

impl Members {
    /// Starts three members with fresh data.
    pub(super) fn start(flags: &DemoFlags) -> Result<Self, DemoError> {
        let ports = ports::choose().map_err(DemoError::Ports)?;
        let parent = std::env::temp_dir();
        remove_orphans(&parent);
        let directory = Directory::create(&parent).map_err(|source| DemoError::Directory {
            action: "create a directory in",
            path: parent,
            source,
        })?;
        let mut started = Self { members: Vec::new(), directory };
        let cluster: Vec<String> =
            NAMES.iter().zip(ports).map(|(name, ports)| format!("{name}={}", url(ports.peer))).collect();
        for (name, ports) in NAMES.into_iter().zip(ports) {
            let data_dir = started.directory.path().join(name);
            let log = started.directory.path().join(format!("{name}.log"));
            let arguments = arguments(name, ports, &data_dir, &cluster.join(","), flags);
            let state = State::start(&arguments, &log)?;
            started.members.push(Member { name, ports, arguments, log, state });
        }
        Ok(started)
    }

    /// Where data and logs are.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The client URLs, in the members' order.
    pub(super) fn client_urls(&self) -> Vec<String> {
        self.members.iter().map(|member| url(member.ports.client)).collect()
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.members.iter().map(|member| member.name).collect()
    }

    /// What each process is doing.
    pub(super) fn processes(&self) -> Vec<Process> {
        let process = |member: &Member| match &member.state {
            State::Running { child, is_paused: true, .. } => Process::Paused { pid: child.id() },
            State::Running { child, .. } => Process::Running { pid: child.id() },
            State::Down { .. } => Process::Ended,
        };
        self.members.iter().map(process).collect()
    }

    /// Does something to the member at this place. Returns what there is to tell.
    ///
    /// Errors: the system's, when it refuses a signal.
    pub(super) fn act(&mut self, at: usize, deed: Deed) -> io::Result<String> {
        let Member { name, state, .. } = &mut self.members[at];
        let State::Running { child, is_paused, is_restarting } = state else {
            if deed != Deed::Restart {
                return Ok(format!("{name} is not running: r starts it again"));
            }
            // The next look starts it.
            *state = State::Down { seconds: SECONDS_UNTIL_RESTART };
            return Ok(format!("{name} is being started"));
        };
        let signal = |signal| match Pid::from_raw(child.id().cast_signed()) {
            Some(pid) => kill_process(pid, signal).map_err(io::Error::from),
            None => Ok(()),
        };
        match deed {
            Deed::Kill => {
                child.kill()?;
                Ok(format!("{name} is killed (SIGKILL)"))
            }
            Deed::PauseOrResume if *is_paused => {
                signal(Signal::CONT)?;
                *is_paused = false;
                Ok(format!("{name} goes on (SIGCONT)"))
            }
            Deed::PauseOrResume => {
                signal(Signal::STOP)?;
                *is_paused = true;
                Ok(format!("{name} is paused (SIGSTOP): it holds its ports and says nothing"))
            }
            Deed::Restart => {
                signal(Signal::CONT)?;
                *is_paused = false;
                *is_restarting = true;
                // Closes the pipe, which the member takes as the wish to stop.
                drop(child.stdin.take());
                Ok(format!("{name} is asked to stop, to be started again"))
            }
            Deed::Dump if *is_paused => Ok(format!("{name} is paused, and would not hear of a dump")),
            Deed::Dump => {
                signal(Signal::USR1)?;
                Ok(format!("{name} is asked for a dump (SIGUSR1)"))
            }
        }
    }

    /// An error when a member has ended, which at the start means that it cannot run.
    pub(super) fn fail_if_ended(&mut self) -> Result<(), DemoError> {
        for member in &mut self.members {
            if let State::Running { child, .. } = &mut member.state
                && child.try_wait().map_err(DemoError::Start)?.is_some()
            {
                return Err(DemoError::Ended { name: member.name, reason: last_line(&member.log) });
            }
        }
        Ok(())
    }

    /// To be called once a second: starts again what has ended. Returns what there is to tell.
    pub(super) fn look_after(&mut self, restarts: Restarts) -> Result<Vec<String>, DemoError> {
        let mut lines = Vec::new();
        for member in &mut self.members {
            let name = member.name;
            let next = match &mut member.state {
                State::Running { child, is_restarting, .. } => {
                    match child.try_wait().map_err(DemoError::Start)? {
                        None => continue,
                        Some(_) if *is_restarting => State::Down { seconds: SECONDS_UNTIL_RESTART },
                        Some(status) => {
                            let then = match restarts {
                                Restarts::ByItself => {
                                    format!("it is started again in {SECONDS_UNTIL_RESTART} s")
                                }
                                Restarts::OnDemand => "r starts it again".to_owned(),
                            };
                            lines.push(format!("member {name} ended ({status}); {then}"));
                            State::Down { seconds: 0 }
                        }
                    }
                }
                State::Down { seconds } if *seconds < SECONDS_UNTIL_RESTART => match restarts {
                    Restarts::ByItself => State::Down { seconds: *seconds + 1 },
                    Restarts::OnDemand => continue,
                },
                State::Down { .. } => {
                    let state = State::start(&member.arguments, &member.log)?;
                    if let State::Running { child, .. } = &state {
                        lines.push(format!("member {name} is started again, pid {}", child.id()));
                    }
                    state
                }
            };
            member.state = next;
        }
        Ok(lines)
    }

    /// Asks all to stop, waits, and ends by force what does not.
    pub(super) async fn stop(&mut self, clock: &dyn Clock) {
        for member in &mut self.members {
            if let State::Running { child, is_paused, .. } = &mut member.state {
                // Closes the pipe, which the member takes as the wish to stop.
                drop(child.stdin.take());
                if *is_paused && let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                    // Fails only for a process that has ended already.
                    if let Err(error) = kill_process(pid, Signal::CONT) {
                        tracing::debug!(%error, member = member.name, "cannot resume a demo member");
                    }
                }
            }
        }
        let deadline = clock.now().after(STOP_MAX);
        while clock.now() < deadline && self.members.iter_mut().any(Member::is_running) {
            clock.sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Member {
    fn is_running(&mut self) -> bool {
        match &mut self.state {
            State::Running { child, .. } => child.try_wait().is_ok_and(|ended| ended.is_none()),
            State::Down { .. } => false,
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let State::Running { child, .. } = &mut member.state {
                // Fails only for a process that has ended already.
                if let Err(error) = child.kill().and_then(|()| child.wait()) {
                    tracing::debug!(%error, member = member.name, "cannot end a demo member");
                }
            }
        }
    }
}

impl State {
    fn start(arguments: &[String], log: &Path) -> Result<Self, DemoError> {
        let child = spawn(arguments, log)?;
        Ok(Self::Running { child, is_paused: false, is_restarting: false })
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn arguments(name: &str, ports: Ports, data_dir: &Path, cluster: &str, flags: &DemoFlags) -> Vec<String> {
    let engine = match flags.engine {
        EngineFlag::Sled => "sled",
        EngineFlag::Redb => "redb",
        EngineFlag::Memory => "memory",
    };
    [
        "--exit-with-stdin".to_owned(),
        format!("--name={name}"),
        format!("--data-dir={}", data_dir.display()),
        format!("--listen-client-urls={}", url(ports.client)),
        format!("--listen-peer-urls={}", url(ports.peer)),
        format!("--initial-cluster={cluster}"),
        "--initial-cluster-token=holdfast-demo".to_owned(),
        format!("--engine={engine}"),
        // A demo writes little; small segments spare its start the filling of three times 128 MiB.
        "--segment-bytes=8MiB".to_owned(),
        format!("--log-level={}", flags.log_level),
        "--log-format=json".to_owned(),
    ]
    .to_vec()
}

/// In a process group of its own, so that Ctrl-C reaches the demo alone, and without our environment, whose
/// HOLDFAST_* and ETCD_* variables are meant for others.
fn spawn(arguments: &[String], log: &Path) -> Result<Child, DemoError> {
    let open = |path: &Path| File::options().create(true).append(true).open(path);
    let log =
        open(log).map_err(|source| DemoError::Directory { action: "write", path: log.to_owned(), source })?;
    let binary = std::env::current_exe().map_err(DemoError::Start)?;
    Command::new(binary)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(DemoError::Start)
}

fn last_line(log: &Path) -> String {
    let read = |path: &Path| -> io::Result<String> { std::fs::read_to_string(path) };
    match read(log) {
        Ok(text) => text.lines().last().unwrap_or("it said nothing").to_owned(),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}
