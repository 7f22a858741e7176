//! The binary `holdfastctl`: etcdctl's commands, flags, variables and output, and what a cluster's keeper needs beyond them.
//!
//! What it is not: a library. Nothing here keeps state but the files that it is told to write.
//!
//! Invariants
//! - Standard output has data alone, in the shape that etcdctl 3.5.1 gives it; messages go to standard error.
//! - A command whose answer cannot be written in the format that is wanted is refused before it does anything.
//! - A change is sent once, unless it is certain that it was not served.
//!
//! Module map: [`cli`] and [`global`] (the command line), [`client`], [`connect`] and [`cause`] (who is asked, and why nobody
//! could be), [`error`] (exit codes), [`output`] (formats); a module for each group of commands: [`kv`], [`txn`],
//! [`watch`], [`lease`], [`lock`], [`member`], [`endpoint`], [`status`], [`cluster`], [`user`], [`role`], [`mirror`], [`check`],
//! [`snapshot`], [`import`], [`cert`].

mod cause;
mod cert;
mod check;
mod cli;
mod client;
mod cluster;
mod connect;
mod endpoint;
mod error;
mod global;
mod import;
mod kv;
mod lease;
mod lock;
mod member;
mod mirror;
mod output;
mod range;
mod role;
mod session;
mod snapshot;
mod status;
mod stop;
mod terminal;
mod txn;
mod user;
mod watch;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use cli::{Cli, Command};
use client::Client;
use error::{CtlError, Done};
use output::Out;
use stop::INTERRUPTED;
use tokio::task::LocalSet;
use tracing_subscriber::filter::LevelFilter;

/// The version of the API, as etcdctl names it.
const API_VERSION: &str = "3.5";

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let level = if cli.global.debug { LevelFilter::DEBUG } else { LevelFilter::WARN };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).init();
    let line: Vec<OsString> = std::env::args_os().collect();
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(CtlError::from)
        .and_then(|runtime| {
            // Tasks stay on this thread: what they share need not be sent anywhere.
            let done = LocalSet::new().block_on(&runtime, until_interrupted(&cli, &line));
            // Somebody may be waiting for standard input yet.
            runtime.shutdown_background();
            done
        });
    let Err(error) = done else { return ExitCode::SUCCESS };
    if !matches!(error, CtlError::Exit(_)) {
        // Without a standard error the exit code alone has to say it.
        drop(writeln!(std::io::stderr(), "holdfastctl: {}", told(&error)));
    }
    ExitCode::from(error.exit_code())
}

/// Words that make no command: help when that was asked for, and else etcdctl's exit codes.
fn refused(error: &clap::Error) -> ExitCode {
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let printed = if is_help {
        std::io::stdout().write_all(error.render().to_string().as_bytes())
    } else {
        error.print()
    };
    ExitCode::from(match error.kind() {
        _ if printed.is_err() => 1,
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ if is_help => 0,
        ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict | ErrorKind::TooManyValues => 128,
        ErrorKind::UnknownArgument if is_word(error) => 128,
        _ => 1,
    })
}

/// Whether what was not expected is a word, and no flag.
fn is_word(error: &clap::Error) -> bool {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => !word.starts_with('-'),
        _ => false,
    }
}

/// An error with its causes; those that its own text tells already are not told again.
fn told(error: &CtlError) -> String {
    let CtlError::Other(error) = error else { return error.to_string() };
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

async fn until_interrupted(cli: &Cli, line: &[OsString]) -> Done {
    // Whoever holds something has to give it back first.
    if matches!(cli.command, Command::Lock(_) | Command::Elect(_) | Command::Import(_)) {
        return run(cli, line).await;
    }
    tokio::select! {
        done = run(cli, line) => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(CtlError::Exit(INTERRUPTED)),
    }
}

/// There was an etcdctl for another API, which a script may still ask for.
fn check_api() -> Done {
    match std::env::var_os("ETCDCTL_API") {
        Some(version) if version == "2" => Err(CtlError::Arguments(
            "ETCDCTL_API=2 asks for etcd's API of before 2016, which neither holdfast nor today's etcd has: unset it"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

async fn run(cli: &Cli, line: &[OsString]) -> Done {
    check_api()?;
    match &cli.command {
        Command::Version => {
            output::line(&format!("holdfastctl version: {}", env!("CARGO_PKG_VERSION")))?;
            output::line(&format!("API version: {API_VERSION}"))
        }
        Command::Snapshot(command) => snapshot::snapshot(&cli.global, command).await,
        Command::Cert(command) => output::write(cert::cert(command)?.as_bytes()),
        Command::Import(flags) => import::import(&cli.global, flags).await,
        _ => ask(cli, line).await,
    }
}

/// What a cluster is asked for.
async fn ask(cli: &Cli, line: &[OsString]) -> Done {
    let out = Out::new(&cli.global)?;
    let client = Arc::new(Client::new(&cli.global)?);
    match &cli.command {
        Command::Get(flags) => kv::get(&client, out, flags).await,
        Command::Put(flags) => kv::put(&client, out, flags).await,
        Command::Del(flags) => kv::del(&client, out, flags).await,
        Command::Txn(flags) => txn::txn(&client, out, flags).await,
        Command::Compaction(flags) => kv::compaction(&client, flags).await,
        Command::Watch(flags) => watch::watch(&client, out, flags, line).await,
        Command::Lease(command) => lease::lease(&client, out, command).await,
        Command::Lock(flags) => lock::lock(&client, out, flags).await,
        Command::Elect(flags) => lock::elect(&client, out, flags).await,
        Command::Member(command) => member::member(&client, out, command).await,
        Command::Endpoint(flags) => endpoint::endpoint(&client, out, flags).await,
        Command::Status => status::status(&client, out).await,
        Command::Alarm(command) => cluster::alarm(&client, out, command).await,
        Command::Auth(command) => user::auth(&client, out, command).await,
        Command::User(command) => user::user(&client, out, command).await,
        Command::Role(command) => role::role(&client, out, command).await,
        Command::MoveLeader(flags) => cluster::move_leader(&client, out, flags).await,
        Command::Defrag(flags) => cluster::defrag(&client, flags).await,
        Command::Downgrade(command) => cluster::downgrade(&client, out, command).await,
        Command::Check(command) => check::check(&client, command).await,
        Command::MakeMirror(flags) => mirror::make_mirror(&client, &cli.global, flags).await,
        // They ask no cluster.
        Command::Version | Command::Snapshot(_) | Command::Cert(_) | Command::Import(_) => Ok(()),
    }
}
