//! `holdfast demo`: three real members on this machine, and some traffic to look at.
//!
//! The members are child processes of the same binary with ordinary flags, so what runs here is what runs in
//! production. They live in a temporary directory that is removed at the end, and cannot outlive the demo: each holds
//! the reading end of a pipe and stops when the demo, in whatever way it ends, lets go of the other.
//!
//! Module map: `members` the processes, `directory` where their data is, `ports` where they listen, `traffic` the load,
//! `probe` asks the members and `page` reads their metrics, `model` makes sense of it all; on a terminal `board` shows
//! it, else `plain`.

mod board;
mod directory;
mod members;
mod model;
mod page;
mod plain;
mod ports;
mod probe;
mod traffic;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic, RealClock};
use tonic::transport::{Channel, Endpoint};

use crate::config::flags::DemoFlags;
use members::{Members, Process};
use model::{Model, Round};
use probe::{Probe, Sampler, Seen};
use traffic::Traffic;

/// How long the three may take to elect their first leader, on a slow machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long it may take to connect to a member.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// How long one request of the traffic may take.
const REQUEST_MAX: Duration = Duration::from_secs(8);

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The temporary directory.
    #[error("demo: cannot {action} {}: {source}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// Which directory or file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A member process could not be started.
    #[error("demo: cannot start a member: {0}")]
    Start(io::Error),
    /// No free ports.
    #[error("demo: cannot find free ports on 127.0.0.1: {0}")]
    Ports(io::Error),
    /// A member ended before the cluster was up.
    #[error("demo: member {name} ended while it started: {reason}")]
    Ended {
        /// Which one.
        name: &'static str,
        /// The last line of its log.
        reason: String,
    },
    /// The cluster did not come up.
    #[error("demo: the members elected no leader within {START_MAX:?}")]
    NoLeader,
    /// Standard output is gone.
    #[error("demo: cannot print: {0}")]
    Print(io::Error),
    /// The terminal.
    #[error("demo: cannot use the terminal: {0}; --plain needs none")]
    Terminal(io::Error),
    /// An address that cannot be connected to.
    #[error("demo: {0}")]
    Endpoint(#[from] tonic::transport::Error),
}

/// Runs the demo until `stopped` completes or the duration is over. The temporary directory is gone afterwards.
pub async fn run(flags: &DemoFlags, stopped: impl Future<Output = ()>) -> Result<(), DemoError> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new(tokio::runtime::Handle::current()));
    let mut members = Members::start(flags)?;
    let finished = {
        let duration = flags.duration;
        let over = Arc::clone(&clock);
        let enough = async move {
            match duration {
                Some(duration) => over.sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Both ends only wait. The show holds nothing that must be finished: its requests may be cut off.
            () = stopped => Ok(()),
            () = enough => Ok(()),
            shown = show(flags, &mut members, &clock) => shown,
        }
    };
    // With nobody to read it, the members are stopped all the same.
    let told = say(format_args!("stopping the members"));
    members.stop(clock.as_ref()).await;
    finished.and(told)?;
    say(format_args!("stopped; nothing is left behind"))
}

/// Prints a line. With nobody to read it, the demo ends.
fn say(line: std::fmt::Arguments<'_>) -> Result<(), DemoError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(DemoError::Print)
}

/// What both forms of the demo are made from.
struct Show<'a> {
    members: &'a mut Members,
    sampler: Sampler,
    traffic: Traffic,
    rate: u32,
    clock: Arc<dyn Clock>,
    began: Monotonic,
}

impl Show<'_> {
    fn model(&self) -> Model {
        Model::new(self.members.names().into_iter().zip(self.members.client_urls()))
    }

    fn rate(&self) -> u32 {
        self.rate
    }

    fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.traffic.set_rate(rate);
    }

    /// What there is to know besides what the members said.
    fn round(&self, seen: Vec<Option<Seen>>) -> Round {
        Round {
            at: self.clock.now().since(self.began),
            seen,
            processes: self.members.processes(),
            traffic: self.traffic.take_second(),
        }
    }
}

async fn show(flags: &DemoFlags, members: &mut Members, clock: &Arc<dyn Clock>) -> Result<(), DemoError> {
    let urls = members.client_urls();
    let channels = connect(&urls)?;
    let probes: Vec<Probe> =
        channels.iter().zip(&urls).filter_map(|(channel, url)| Probe::new(channel.clone(), url)).collect();
    say(format_args!(
        "three members are starting; their data and logs are in {}",
        members.directory().display()
    ))?;
    wait_for_leader(members, &probes, clock.as_ref()).await?;
    let traffic = Traffic::start(flags.rate, &channels, clock);
    let sampler = Sampler::start(probes, clock);
    let began = clock.now();
    let mut show = Show { members, sampler, traffic, rate: flags.rate, clock: Arc::clone(clock), began };
    if board::is_there() && !flags.plain {
        return board::run(&mut show).await;
    }
    introduce(show.members)?;
    plain::run(&mut show).await
}

fn introduce(members: &Members) -> Result<(), DemoError> {
    let urls = members.client_urls();
    let list = urls.iter().map(|url| url.trim_start_matches("http://")).collect::<Vec<_>>().join(",");
    say(format_args!("ready. In another terminal:\n\n  etcdctl --endpoints={list} put hello world\n"))?;
    say(format_args!(
        "kill -9 a member to see the others go on (its process id is below). Ctrl-C ends the demo."
    ))?;
    for ((name, process), url) in members.names().iter().zip(members.processes()).zip(urls) {
        if let Process::Running { pid } | Process::Paused { pid } = process {
            say(format_args!("  {name}  pid {pid}  {url}"))?;
        }
    }
    Ok(())
}

fn connect(urls: &[String]) -> Result<Vec<Channel>, DemoError> {
    let connect = |url: &String| -> Result<Channel, DemoError> {
        let endpoint = Endpoint::from_shared(url.clone())?;
        Ok(endpoint.connect_timeout(CONNECT_MAX).timeout(REQUEST_MAX).connect_lazy())
    };
    urls.iter().map(connect).collect()
}

async fn wait_for_leader(
    members: &mut Members,
    probes: &[Probe],
    clock: &dyn Clock,
) -> Result<(), DemoError> {
    let deadline = clock.now().after(START_MAX);
    while clock.now() < deadline {
        members.fail_if_ended()?;
        let seen = probe::ask_all(probes).await;
        if seen.iter().flatten().filter(|seen| seen.leader != 0).count() == probes.len() {
            return Ok(());
        }
        clock.sleep(Duration::from_millis(100)).await;
    }
    Err(DemoError::NoLeader)
}
