//! The binary `holdfastctl`, with etcdctl's verbs and output and what the extensions add.
//!
//! So far there is `snapshot`: [`save`] from a member, [`status`] and [`inspect`] of a file, [`restore`] into a data
//! directory. For everything else etcdctl works against a holdfast server.
//!
//! Exit codes: 0 done, 1 something on the machine or in the cluster, 2 flags.

mod cert;
mod cli;
mod connect;
mod inspect;
mod output;
mod restore;
mod save;
mod status;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command, SnapshotCommand};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            let code = if error.use_stderr() || printed.is_err() { 2 } else { 0 };
            return ExitCode::from(code);
        }
    };
    // Warnings of the parts that are shared with the server.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let done = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&cli)));
    match done.and_then(|text| Ok(std::io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error the exit code alone has to say it.
            drop(writeln!(std::io::stderr(), "holdfastctl: {}", told(&error)));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes; those that its own text tells already are not told again.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

async fn run(cli: &Cli) -> anyhow::Result<String> {
    let command = match &cli.command {
        Command::Snapshot(command) => command,
        Command::Cert(command) => return cert::cert(command),
    };
    Ok(match command {
        SnapshotCommand::Save { file } => save::save(cli, file).await?,
        SnapshotCommand::Status { file } => status::status(file, cli.write_out)?,
        SnapshotCommand::Inspect { file } => inspect::inspect(file, cli.write_out)?,
        SnapshotCommand::Restore(flags) => restore::restore(flags)?,
    })
}
