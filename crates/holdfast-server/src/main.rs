//! The binary `holdfast`: a member, a demo of three, or a health check.
//!
//! Exit codes: 0 done, 1 something on the machine or in the cluster, 2 flags or environment, 3 the member has no place in
//! its cluster any more (it was removed, or came back without its data): starting it again does not help.

use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;

use clap::error::ErrorKind;
use holdfast_env::{RealSpawn, Spawn, panics};
use holdfast_raft::Departure;
use holdfast_server::config::flags::{self, CliCommand, DemoFlags, HealthcheckFlags, JoinFlags, ServerFlags};
use holdfast_server::config::{self, Config};
use holdfast_server::error::{Exit, ServerError};
use holdfast_server::server::{self, Server};
use holdfast_server::{demo, healthcheck, joining, limits, logging, monitoring};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Gives memory back that a dump or a list took for a while: `docs/decisions/0005`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    panics::end_the_process();
    let cli = match flags::parse(std::env::args_os(), &|name| std::env::var_os(name)) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let threads = match config::serving_threads(&cli.server) {
        Ok(threads) => threads,
        Err(error) => {
            let (exit, message) = failed(&error.into());
            return ended(exit, &message);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .event_interval(limits::TASKS_PER_LOOK)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return ended(Exit::Failure, &format!("cannot start: {error}")),
    };
    let (exit, message) = runtime.block_on(async {
        match cli.command {
            None => serve(&cli.server, None).await,
            Some(CliCommand::Join(flags)) => serve(&cli.server, Some(&flags)).await,
            Some(CliCommand::Demo(flags)) => run_demo(&flags).await,
            Some(CliCommand::Healthcheck(flags)) => check(&flags).await,
            Some(CliCommand::Flags) => print_flags(),
        }
    });
    // Work that still blocks (a read of a slow disk) must not hold up the end.
    runtime.shutdown_background();
    ended(exit, &message)
}

/// clap's own words, and its exit codes: help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if printed.is_ok() => {
            ExitCode::from(Exit::Success.code())
        }
        _ => ExitCode::from(Exit::Usage.code()),
    }
}

fn ended(exit: Exit, message: &str) -> ExitCode {
    // With no standard error there is nobody to tell; the exit code still says it.
    if !message.is_empty() && writeln!(std::io::stderr(), "holdfast: {message}").is_err() {
        return ExitCode::from(Exit::Failure.code());
    }
    ExitCode::from(exit.code())
}

fn failed(error: &ServerError) -> (Exit, String) {
    (error.exit(), error.to_string())
}

async fn serve(flags: &ServerFlags, join: Option<&JoinFlags>) -> (Exit, String) {
    let config = match logging::start(flags).and_then(|()| Config::from_flags(flags)) {
        Ok(config) => config,
        Err(error) => return failed(&error.into()),
    };
    let unknown = flags::unknown_variables(std::env::vars_os().map(|(name, _)| name));
    for warning in config.warnings.iter().chain(&unknown) {
        tracing::warn!("{warning}");
    }
    // Before anything is started, so that no signal is missed while the parts come up.
    let stop = match StopRequest::watch(flags.exit_with_stdin, Hangup::Ends) {
        Ok(stop) => stop,
        Err(error) => return (Exit::Failure, format!("cannot watch for signals: {error}")),
    };
    // SIGUSR1 asks for a dump; without this line it would end the process.
    let mut dumps = match signal(SignalKind::user_defined1()) {
        Ok(dumps) => dumps,
        Err(error) => return (Exit::Failure, format!("cannot watch for signals: {error}")),
    };
    let metrics_ports = match monitoring::bind(&config.listen_metrics_urls).await {
        Ok(bound) => bound,
        Err(error) => return failed(&error),
    };
    let server = tokio::select! {
        // Cancel-safe: a start that is dropped has acknowledged nothing, and the log is made to be cut off anywhere.
        started = start(&config, join) => match started {
            Ok(server) => server,
            Err(error) => return failed(&error),
        },
        why = stop.clone().wait() => return (Exit::Success, format!("stopped by {why} before it had started")),
    };
    let metrics = metrics_ports.serve(&server.http_routes(), server.tls());
    let ending = until_the_end(&server, stop, &mut dumps).await;
    if let Ending::Asked(why) = ending {
        tracing::info!(why, "stopping");
    }
    if let Ending::Departed(Departure::WentBack) = ending
        && let Err(error) = server.retire_data_dir()
    {
        tracing::error!(%error, "the directory could not be marked as one that must not be used again");
    }
    metrics.stop().await;
    server.stop().await;
    match ending {
        Ending::Asked(_) => (Exit::Success, String::new()),
        Ending::Departed(why) => (Exit::Departed, farewell(why, &config)),
        Ending::ServingEnded => (Exit::Failure, "serving clients ended unexpectedly: see the log".to_owned()),
    }
}

/// Starts a member, after it has joined if it is to.
async fn start(config: &Config, join: Option<&JoinFlags>) -> Result<Server, ServerError> {
    if let Some(join) = join {
        joining::join(&server::world(config)?, config, join).await?;
    }
    Server::start(config).await
}

/// What whoever runs the member is told when it has no place any more.
fn farewell(why: Departure, config: &Config) -> String {
    let (name, data_dir) = (&config.name, config.data_dir.display());
    let again = "holdfast join --replace --endpoints with a member's client URL, and this member's flags";
    match why {
        Departure::Removed => format!(
            "member \"{name}\" was removed from the cluster, and its id cannot be used again: {data_dir} is kept and not \
             used any more. To take part again as a new member: {again}"
        ),
        Departure::Wiped => format!(
            "member \"{name}\" came back without its log: {data_dir} is not what it was, and the others refuse a member \
             that has forgotten what it acknowledged. Restore the directory, or take part as a new member: {again}"
        ),
        Departure::WentBack => format!(
            "member \"{name}\" has lost log entries that it had acknowledged: an older copy of {data_dir} was put back, or its \
             disk did not keep what it said it had. The directory is kept and not used any more, because with it \
             acknowledged writes could be lost. Check the disk, and take part as a new member: {again}"
        ),
    }
}

/// Why a member that has started stops.
enum Ending {
    Asked(&'static str),
    Departed(Departure),
    ServingEnded,
}

/// Waits for the end, and takes dumps meanwhile.
async fn until_the_end(server: &Server, stop: StopRequest, dumps: &mut Signal) -> Ending {
    let mut asked = pin!(stop.wait());
    let mut serving_ended = pin!(server.serving_ended());
    let mut departed = pin!(server.departed());
    loop {
        tokio::select! {
            // All only wait; nothing is lost with the others.
            why = &mut asked => return Ending::Asked(why),
            why = &mut departed => return Ending::Departed(why),
            () = &mut serving_ended => return Ending::ServingEnded,
            Some(()) = dumps.recv() => take_dump(server).await,
        }
    }
}

async fn take_dump(server: &Server) {
    match server.dump().await {
        Ok(()) => tracing::info!("SIGUSR1: a dump is on its way"),
        Err(error) => tracing::warn!(%error, "SIGUSR1: no dump is taken"),
    }
}

async fn run_demo(flags: &DemoFlags) -> (Exit, String) {
    let stop = match StopRequest::watch(false, Hangup::Stops) {
        Ok(stop) => stop,
        Err(error) => return (Exit::Failure, format!("cannot watch for signals: {error}")),
    };
    let stopped = async move {
        stop.wait().await;
    };
    match demo::run(flags, stopped).await {
        Ok(()) => (Exit::Success, String::new()),
        Err(error) => (Exit::Failure, error.to_string()),
    }
}

fn print_flags() -> (Exit, String) {
    match std::io::stdout().write_all(flags::document::markdown().as_bytes()) {
        Ok(()) => (Exit::Success, String::new()),
        Err(error) => (Exit::Failure, format!("cannot print: {error}")),
    }
}

async fn check(flags: &HealthcheckFlags) -> (Exit, String) {
    match healthcheck::run(flags).await {
        Ok(healthcheck::Found::Ready) => (Exit::Success, String::new()),
        Ok(healthcheck::Found::NotReady(reason)) => (Exit::Failure, reason),
        Err(error) => failed(&error.into()),
    }
}

/// What the end of the terminal means.
#[derive(Clone, Copy)]
enum Hangup {
    /// A stop in order: the demo belongs to its terminal and has a directory to remove.
    Stops,
    /// What the system does by itself: nothing under nohup, else the end. A member survives both.
    Ends,
}

/// Someone wants the process to end.
#[derive(Clone)]
struct StopRequest {
    why: tokio::sync::watch::Receiver<&'static str>,
}

impl StopRequest {
    /// Watches for SIGTERM and SIGINT and, if asked to, for SIGHUP and the end of standard input.
    fn watch(with_stdin: bool, hangup: Hangup) -> std::io::Result<Self> {
        let (tell, why) = tokio::sync::watch::channel("");
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = match hangup {
            Hangup::Stops => Some(signal(SignalKind::hangup())?),
            Hangup::Ends => None,
        };
        let stdin = with_stdin.then(stdin_closed);
        let spawn = RealSpawn::new(tokio::runtime::Handle::current());
        let watch = async move {
            let stdin = async move {
                match stdin {
                    Some(closed) => drop(closed.await),
                    None => std::future::pending().await,
                }
            };
            let hung_up = async move {
                match &mut hangup {
                    Some(hangup) => drop(hangup.recv().await),
                    None => std::future::pending().await,
                }
            };
            let why = tokio::select! {
                // All only wait; the first one decides.
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = hung_up => "SIGHUP",
                () = stdin => "the end of standard input",
            };
            tell.send_replace(why);
            // Further signals are ignored, so that an impatient second Ctrl-C does not cut the stop short; its parts
            // are all bounded. The sender stays alive for whoever still waits.
            std::future::pending::<()>().await;
        };
        // It runs until the process ends and has nothing to clean up, so nobody waits for it.
        drop(spawn.task("signals", Box::pin(watch)));
        Ok(Self { why })
    }

    /// Waits, and says who wants it.
    async fn wait(mut self) -> &'static str {
        match self.why.wait_for(|why| !why.is_empty()).await {
            Ok(why) => *why,
            Err(_) => "the end of the runtime",
        }
    }
}

/// Fires when standard input is closed: a parent that dies closes it, in whatever way it dies.
fn stdin_closed() -> oneshot::Receiver<()> {
    let (closed, told) = oneshot::channel::<()>();
    let spawn = RealSpawn::new(tokio::runtime::Handle::current());
    let read = async move {
        let mut buffer = [0; 256];
        // Whatever comes is ignored; an error means the same as the end.
        while std::io::Read::read(&mut std::io::stdin(), &mut buffer).is_ok_and(|bytes| bytes > 0) {}
        // Its end is the message.
        drop(closed);
    };
    // The thread blocks in a read until the process ends, so nobody waits for it.
    drop(spawn.dedicated("stdin", Box::pin(read)));
    told
}
