//! `holdfast demo`: three real members on this machine, and some traffic to look at.
//!
//! The members are child processes of the same binary with ordinary flags, so what runs here is what runs in
//! production. They live in a temporary directory that is removed at the end, and cannot outlive the demo: each holds
//! the reading end of a pipe and stops when the demo, in whatever way it ends, lets go of the other.
//!
//! Module map: `members` the processes, `directory` where their data is, `traffic` the load, `ports` where they listen.

mod directory;
mod members;
mod ports;
mod traffic;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, RealClock};
use holdfast_proto::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::{Channel, Endpoint};

use crate::config::flags::DemoFlags;
use members::Members;
use traffic::{Second, Traffic};

/// How long the three may take to elect their first leader, on a slow machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a member may take to say how it is, once a second.
const STATUS_MAX: Duration = Duration::from_millis(500);
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
    members.stop(clock.as_ref()).await;
    finished?;
    say(format_args!("stopped; nothing is left behind"))
}

/// Prints a line. With nobody to read it, the demo ends.
fn say(line: std::fmt::Arguments<'_>) -> Result<(), DemoError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(DemoError::Print)
}

async fn show(flags: &DemoFlags, members: &mut Members, clock: &Arc<dyn Clock>) -> Result<(), DemoError> {
    let endpoints = members.client_urls();
    let channels = connect(&endpoints)?;
    say(format_args!(
        "three members are starting; their data and logs are in {}",
        members.directory().display()
    ))?;
    wait_for_leader(members, &channels, clock.as_ref()).await?;
    let list = endpoints.iter().map(|url| url.trim_start_matches("http://")).collect::<Vec<_>>().join(",");
    say(format_args!("ready. In another terminal:\n\n  etcdctl --endpoints={list} put hello world\n"))?;
    say(format_args!(
        "kill -9 a member to see the others go on (its process id is below). Ctrl-C ends the demo."
    ))?;
    for (name, process_id, url) in members.processes() {
        say(format_args!("  {name}  pid {process_id}  {url}"))?;
    }
    let traffic = Traffic::start(flags.rate, &channels, clock);
    for second in 1_u64.. {
        clock.sleep(Duration::from_secs(1)).await;
        for line in members.look_after()? {
            say(format_args!("{line}"))?;
        }
        let seen = statuses(&channels).await;
        say(format_args!("{}", describe(second, members, &seen, &traffic.take_second())))?;
    }
    Ok(())
}

fn connect(urls: &[String]) -> Result<Vec<Channel>, DemoError> {
    let connect = |url: &String| -> Result<Channel, DemoError> {
        let endpoint = Endpoint::from_shared(url.clone())?;
        Ok(endpoint.connect_timeout(STATUS_MAX).timeout(REQUEST_MAX).connect_lazy())
    };
    urls.iter().map(connect).collect()
}

async fn wait_for_leader(
    members: &mut Members,
    channels: &[Channel],
    clock: &dyn Clock,
) -> Result<(), DemoError> {
    let deadline = clock.now().after(START_MAX);
    while clock.now() < deadline {
        members.fail_if_ended()?;
        let seen = statuses(channels).await;
        if seen.iter().flatten().filter(|status| status.leader != 0).count() == channels.len() {
            return Ok(());
        }
        clock.sleep(Duration::from_millis(100)).await;
    }
    Err(DemoError::NoLeader)
}

/// Each member's own view, or `None` when it does not answer.
async fn statuses(channels: &[Channel]) -> Vec<Option<pb::StatusResponse>> {
    let ask = channels.iter().map(|channel| async move {
        let mut client = MaintenanceClient::new(channel.clone());
        let answer = tokio::time::timeout(STATUS_MAX, client.status(pb::StatusRequest {})).await;
        answer.ok()?.ok().map(tonic::Response::into_inner)
    });
    futures::future::join_all(ask).await
}

fn describe(second: u64, members: &Members, seen: &[Option<pb::StatusResponse>], traffic: &Second) -> String {
    let up = seen.iter().flatten().count();
    // The newest term's view: a member that was cut off may still believe in an old leader.
    let newest = seen.iter().flatten().max_by_key(|status| status.raft_term);
    let leader = newest.filter(|status| status.leader != 0).and_then(|status| {
        let at = seen.iter().position(|other| member_id(other.as_ref()) == Some(status.leader))?;
        members.name(at)
    });
    let revision =
        seen.iter().flatten().filter_map(|s| s.header.as_ref()).map(|h| h.revision).max().unwrap_or(0);
    format!(
        "{second:>4}s  leader {}  term {}  up {up}/{}  {} puts/s  {} gets/s  put p50 {}  p99 {}  errors {}  revision {revision}",
        leader.unwrap_or("none"),
        newest.map_or(0, |status| status.raft_term),
        seen.len(),
        traffic.puts,
        traffic.gets,
        milliseconds(traffic.put_quantile(0.5)),
        milliseconds(traffic.put_quantile(0.99)),
        traffic.errors,
    )
}

fn member_id(status: Option<&pb::StatusResponse>) -> Option<u64> {
    status?.header.as_ref().map(|header| header.member_id)
}

fn milliseconds(latency: Option<Duration>) -> String {
    latency.map_or_else(|| "-".to_owned(), |latency| format!("{:.1} ms", latency.as_secs_f64() * 1000.0))
}
