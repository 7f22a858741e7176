//! The flags, the environment names and the configuration file, as text: etcd's, and a few of our own.
//!
//! A member's flags come from [`table`]; nothing else lists them. A flag wins over `HOLDFAST_<FLAG>`, that over
//! `ETCD_<FLAG>` (upper case, `-` as `_`), that over the file given with `--config-file`. An empty variable counts as
//! not set. A single dash works as well as two, as in etcd.
//!
//! Module map: [`value`] what a text means, [`given`] what was given and where, [`mod@file`] the YAML, [`server`] the typed
//! result, [`client`] TLS of the commands, [`document`] the help and `docs/flags.md`.

pub mod client;
pub mod document;
pub mod file;
pub mod given;
pub mod server;
pub mod table;
#[cfg(test)]
mod tests;
pub mod value;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use client::ClientTlsFlags;
pub use given::unknown_variables;
use given::{Given, GivenError, Place};
pub use server::{
    ClusterStateFlag, CompactionModeFlag, EndFlags, EngineFlag, LogFormatFlag, ServerFlags, TlsFlags,
};
use table::{Flag, SECTIONS, Treatment};
use value::Kind;
pub(super) use value::duration as read_duration;

/// The command line of the binary.
#[derive(Debug)]
pub struct Cli {
    /// Something else than running a member.
    pub command: Option<CliCommand>,
    /// The member's flags; the defaults with a command other than `join`.
    pub server: ServerFlags,
}

/// The commands; the member's flags are added to it from the table.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version = crate::version::LONG,
    about = "A Raft-replicated, versioned key-value store that speaks etcd v3",
    long_about = "A Raft-replicated, versioned key-value store that speaks etcd v3.\n\n\
        Without a command it runs one member, with etcd's flags. Each flag is also read from the environment as\n\
        HOLDFAST_<FLAG>, then ETCD_<FLAG> (upper case, - as _), then from --config-file; the flag wins.",
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
struct Commands {
    #[command(subcommand)]
    command: Option<CliCommand>,
}

/// What the binary does beside running a member.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Starts three members on this machine, in a temporary directory, with some traffic
    Demo(DemoFlags),
    /// Asks a member whether it is ready; exit code 0 if so, 1 if not
    Healthcheck(HealthcheckFlags),
    /// Adds this machine to a running cluster and runs the member; takes all flags of a member. Run again, it goes on
    Join(JoinFlags),
    /// Prints docs/flags.md, which lists every flag of etcd and what becomes of it here
    Flags,
}

/// Flags of `holdfast demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoFlags {
    /// Stop by itself after so long, e.g. 30s; without it, run until Ctrl-C
    #[arg(long, value_parser = read_duration)]
    pub duration: Option<Duration>,
    /// Requests per second to send (three puts to one read); 0 for none
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub rate: u32,
    /// Engine of the stable store
    #[arg(long, value_enum, default_value_t = EngineFlag::Sled)]
    pub engine: EngineFlag,
    /// Log level of the members, written to files in the temporary directory
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// Print a line a second, also on a terminal
    #[arg(long)]
    pub plain: bool,
}

/// Flags of `holdfast healthcheck`.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthcheckFlags {
    /// The member's client URL
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    pub endpoint: String,
    /// Give up after so long
    #[arg(long, default_value = "5s", value_parser = read_duration)]
    pub timeout: Duration,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the help of the command")]
    pub tls: ClientTlsFlags,
}

/// Flags of `holdfast join`, beside those of a member.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct JoinFlags {
    /// Client URLs of members of the cluster; comma-separated
    #[arg(long, required = true, help_heading = "Joining")]
    pub endpoints: String,
    /// Join as a learner: receive everything, do not vote
    #[arg(long, help_heading = "Joining")]
    pub learner: bool,
    /// Take the place of the member that had these peer URLs or this data directory: it is removed from the cluster, its
    /// directory is moved aside, and this one joins under a new id
    #[arg(long, help_heading = "Joining")]
    pub replace: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the help of the command")]
    pub tls: ClientTlsFlags,
}

/// Parses a command line. `environment` looks up a variable.
///
/// Errors: clap's own, with usage; also for `--help` and `--version`, which clap counts as errors.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().map(|arg| two_dashes(&arg)).collect();
    if args.get(1).is_some_and(|arg| arg == "join") {
        args.remove(1);
        return parse_join(args, environment);
    }
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    let Commands { command: chosen } = Commands::from_arg_matches(&matches)?;
    let given = match chosen {
        Some(_) => Given::default(),
        None => given(&matches, environment)
            .map_err(|message| command.error(ErrorKind::ValueValidation, message))?,
    };
    Ok(Cli { command: chosen, server: ServerFlags::of(given) })
}

/// A command line of `holdfast join`, without the word itself.
fn parse_join(
    args: Vec<OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Cli, clap::Error> {
    let about = "Adds this machine to a running cluster and runs the member";
    let mut command = with_member_flags(JoinFlags::augment_args(Command::new("holdfast join").about(about)));
    let matches = command.try_get_matches_from_mut(args)?;
    let join = JoinFlags::from_arg_matches(&matches)?;
    let given =
        given(&matches, environment).map_err(|message| command.error(ErrorKind::ValueValidation, message))?;
    Ok(Cli { command: Some(CliCommand::Join(join)), server: ServerFlags::of(given) })
}

/// The command line as clap sees it.
pub(super) fn command() -> Command {
    with_member_flags(Commands::command().after_help(document::without_effect()))
}

fn with_member_flags(mut command: Command) -> Command {
    for section in SECTIONS {
        for flag in section.flags {
            command = command.arg(arg(flag).help_heading(section.title));
        }
    }
    command
}

fn arg(flag: &'static Flag) -> Arg {
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .aliases(flag.aliases)
        .action(ArgAction::Set)
        .value_name(flag.kind.placeholder())
        .value_parser(ValueParser::string())
        .allow_hyphen_values(flag.kind == Kind::Number);
    let arg = match flag.kind {
        // As in Go: a switch takes its value behind an equals sign only.
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    };
    match flag.treatment {
        Treatment::Served(does) if !flag.is_internal => arg.help(document::line(does, flag.default)),
        _ => arg.hide(true),
    }
}

/// Everything that was given, by precedence.
///
/// Errors: a sentence with the place that its user knows.
fn given(matches: &ArgMatches, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Given, String> {
    let mut given = Given::default();
    let sentence = |error: GivenError| error.to_string();
    for flag in table::all() {
        if matches.value_source(flag.name) == Some(ValueSource::CommandLine)
            && let Some(text) = matches.get_one::<String>(flag.name)
        {
            given.take(flag, text, Place::CommandLine(flag.name)).map_err(sentence)?;
        }
    }
    given.take_variables(environment).map_err(sentence)?;
    if let Some(path) = given.text("config-file").filter(|path| !path.is_empty()).map(PathBuf::from) {
        let settings = file::read(Path::new(&path)).map_err(|error| error.to_string())?;
        given.take_settings(&path, settings).map_err(sentence)?;
    }
    Ok(given)
}

/// `-name` as `--name`: Go programs take both.
fn two_dashes(arg: &OsStr) -> OsString {
    match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && text.as_bytes()[1].is_ascii_lowercase() => {
            OsString::from(format!("-{text}"))
        }
        _ => arg.to_owned(),
    }
}
