//! The flags and environment names, as text: etcd's, and a few of our own.
//!
//! Every flag is also read from the environment as `HOLDFAST_<FLAG>`, then as `ETCD_<FLAG>` (upper case, `-` as `_`);
//! a flag wins over both. An empty variable counts as not set. A single dash works as well as two, as in etcd.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::limits;

/// What the names of our variables begin with; the first one wins.
const PREFIXES: [&str; 2] = ["HOLDFAST_", "ETCD_"];

/// The command line of the binary.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version = crate::version::LONG,
    about = "A Raft-replicated, versioned key-value store that speaks etcd v3",
    long_about = "A Raft-replicated, versioned key-value store that speaks etcd v3.\n\n\
        Without a command it runs one member, with etcd's flags. Each flag is also read from the environment as\n\
        HOLDFAST_<FLAG>, then ETCD_<FLAG> (upper case, - as _); the flag wins.",
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Something else than running a member.
    #[command(subcommand)]
    pub command: Option<CliCommand>,
    /// The member's flags.
    #[command(flatten)]
    pub server: ServerFlags,
}

/// What the binary does beside running a member.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Starts three members on this machine, in a temporary directory, with some traffic
    Demo(DemoFlags),
    /// Asks a member whether it is ready; exit code 0 if so, 1 if not
    Healthcheck(HealthcheckFlags),
}

/// Flags of `holdfast demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoFlags {
    /// Stop by itself after so long, e.g. 30s; without it, run until Ctrl-C
    #[arg(long, value_parser = duration)]
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
}

/// Flags of `holdfast healthcheck`.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthcheckFlags {
    /// The member's client URL
    #[arg(long, default_value = "http://127.0.0.1:2379")]
    pub endpoint: String,
    /// Give up after so long
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
}

/// Which engine keeps the stable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineFlag {
    /// sled
    Sled,
    /// redb
    Redb,
    /// In memory, rebuilt from snapshot and log at each start
    Memory,
}

/// `new` or `existing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterStateFlag {
    /// Form the initial cluster, or start again as its member
    New,
    /// Start again as a member of a running cluster
    Existing,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatFlag {
    /// One JSON object per line
    Json,
    /// For people
    #[value(alias = "text")]
    Console,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogOutputFlag {
    /// Standard error
    #[value(alias = "default")]
    Stderr,
    /// Standard output
    Stdout,
}

/// The flags of a member.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerFlags {
    /// Name of this member, as in --initial-cluster
    #[arg(long, default_value = "default", help_heading = "Member")]
    pub name: String,
    /// Directory for all data [default: NAME.holdfast]
    #[arg(long, help_heading = "Member")]
    pub data_dir: Option<PathBuf>,
    /// Where to serve clients, comma-separated [default: http://localhost:2379]
    #[arg(long, help_heading = "Member")]
    pub listen_client_urls: Option<String>,
    /// Where to serve the other members [default: http://localhost:2380]
    #[arg(long, help_heading = "Member")]
    pub listen_peer_urls: Option<String>,
    /// Where clients reach this member [default: --listen-client-urls]
    #[arg(long, help_heading = "Member")]
    pub advertise_client_urls: Option<String>,
    /// Where the other members reach this one [default: as in --initial-cluster, or --listen-peer-urls]
    #[arg(long, help_heading = "Cluster")]
    pub initial_advertise_peer_urls: Option<String>,
    /// All first members, name=url, comma-separated [default: this member alone]
    #[arg(long, help_heading = "Cluster")]
    pub initial_cluster: Option<String>,
    /// Whether the cluster is formed by this start
    #[arg(long, value_enum, default_value_t = ClusterStateFlag::New, help_heading = "Cluster")]
    pub initial_cluster_state: ClusterStateFlag,
    /// Tells clusters with equal URLs apart
    #[arg(long, default_value = "etcd-cluster", help_heading = "Cluster")]
    pub initial_cluster_token: String,
    /// Time between heartbeats, in milliseconds
    #[arg(long, default_value = "100", value_parser = millis, help_heading = "Cluster")]
    pub heartbeat_interval: Duration,
    /// Silence of the leader before a campaign, in milliseconds
    #[arg(long, default_value = "1000", value_parser = millis, help_heading = "Cluster")]
    pub election_timeout: Duration,
    /// Largest request in bytes
    #[arg(long, default_value_t = limits::REQUEST_BYTES_MAX as u64, value_parser = bytes, help_heading = "Limits")]
    pub max_request_bytes: u64,
    /// Most operations in a transaction
    #[arg(long, default_value_t = limits::TXN_OPS_MAX, help_heading = "Limits")]
    pub max_txn_ops: usize,
    /// Most streams per client connection
    #[arg(long, default_value_t = limits::CONCURRENT_STREAMS_MAX, help_heading = "Limits")]
    pub max_concurrent_streams: u32,
    /// Quota on the data in bytes; 0 for the default. Reported, not enforced yet
    #[arg(long, allow_hyphen_values = true, default_value = "0", help_heading = "Limits")]
    pub quota_backend_bytes: i64,
    /// Memory for values, in bytes or as 512MiB
    #[arg(long, default_value = "512MiB", value_parser = bytes, help_heading = "Engine")]
    pub memory_bytes: u64,
    /// Engine of the stable store
    #[arg(long, value_enum, default_value_t = EngineFlag::Sled, help_heading = "Engine")]
    pub engine: EngineFlag,
    /// Threads that write the stable store [default: one per core, at most 8]
    #[arg(long, help_heading = "Engine")]
    pub write_workers: Option<usize>,
    /// Log bytes since the last snapshot that start a dump (or the snapshot's size, if that is more)
    #[arg(long, default_value = "64MiB", value_parser = bytes, help_heading = "Engine")]
    pub dump_log_bytes: u64,
    /// Size of a log segment
    #[arg(long, default_value = "64MiB", value_parser = bytes, help_heading = "Engine")]
    pub segment_bytes: u64,
    /// debug, info, warn, error, or filters such as info,holdfast_raft=debug
    #[arg(long, default_value = "info", help_heading = "Logging")]
    pub log_level: String,
    /// Form of log lines [default: console on a terminal, else json]
    #[arg(long, value_enum, help_heading = "Logging")]
    pub log_format: Option<LogFormatFlag>,
    /// Where log lines go
    #[arg(long, value_enum, default_value_t = LogOutputFlag::Stderr, help_heading = "Logging")]
    pub log_outputs: LogOutputFlag,
    /// Ping an idle client so often; 0s for never
    #[arg(long, default_value = "2h", value_parser = duration, help_heading = "Limits")]
    pub grpc_keepalive_interval: Duration,
    /// Drop a client that does not answer a ping for so long
    #[arg(long, default_value = "20s", value_parser = duration, help_heading = "Limits")]
    pub grpc_keepalive_timeout: Duration,
    /// End when standard input is closed: for a parent that must not leave members behind
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    pub exit_with_stdin: bool,
    /// What etcd knows and holdfast needs no setting for.
    #[command(flatten)]
    pub accepted: AcceptedFlags,
}

/// Flags of etcd that are accepted so that existing command lines work, and change nothing here.
#[derive(Debug, Clone, clap::Args)]
pub struct AcceptedFlags {
    /// No effect: a dump is started by bytes, see --dump-log-bytes
    #[arg(long, help_heading = "Accepted without effect")]
    pub snapshot_count: Option<u64>,
    /// No effect: pre-vote is always on
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Accepted without effect")]
    pub pre_vote: Option<bool>,
    /// No effect: unsafe reconfigurations are always refused
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Accepted without effect")]
    pub strict_reconfig_check: Option<bool>,
    /// No effect: log lines are JSON or text, see --log-format
    #[arg(long, help_heading = "Accepted without effect")]
    pub logger: Option<String>,
    /// No effect: one snapshot is kept
    #[arg(long, help_heading = "Accepted without effect")]
    pub max_snapshots: Option<u64>,
    /// No effect: log segments are recycled
    #[arg(long, help_heading = "Accepted without effect")]
    pub max_wals: Option<u64>,
    /// No effect: clients may ping as often as they like
    #[arg(long, help_heading = "Accepted without effect")]
    pub grpc_keepalive_min_time: Option<String>,
    /// No effect: all metrics are always served
    #[arg(long, help_heading = "Accepted without effect")]
    pub metrics: Option<String>,
}

impl AcceptedFlags {
    /// One sentence for each flag that was given and has no effect.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut warn = |given: bool, flag: &str, why: &str| {
            if given {
                warnings.push(format!("--{flag} has no effect in holdfast: {why}"));
            }
        };
        warn(
            self.snapshot_count.is_some(),
            "snapshot-count",
            "a dump is started by bytes, see --dump-log-bytes",
        );
        warn(self.pre_vote == Some(false), "pre-vote=false", "pre-vote is always on");
        warn(
            self.strict_reconfig_check == Some(false),
            "strict-reconfig-check=false",
            "the check is always on",
        );
        warn(
            self.max_snapshots.is_some(),
            "max-snapshots",
            "one verified snapshot is kept, and those in use",
        );
        warn(self.max_wals.is_some(), "max-wals", "log segments are recycled");
        warnings
    }
}

/// Parses a command line. `environment` looks up a variable.
///
/// Errors: clap's own, with usage; also for `--help` and `--version`, which clap counts as errors.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().map(|arg| two_dashes(&arg)).collect();
    let command = Cli::command();
    let is_subcommand =
        args.get(1).and_then(|a| a.to_str()).is_some_and(|first| command.find_subcommand(first).is_some());
    if !is_subcommand {
        let mut from_environment = Vec::new();
        for (variable, arg) in environment_args(&command, environment) {
            check_variable(&variable, &arg)?;
            from_environment.push(arg);
        }
        // In front of the command line, so that a flag given there overrides it.
        let at = args.len().min(1);
        args.splice(at..at, from_environment);
    }
    Cli::try_parse_from(args)
}

/// The flags that can be given by a variable, with the end of its name.
fn variables(command: &clap::Command) -> impl Iterator<Item = (&str, String)> {
    let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_long);
    let flags = flags.filter(|flag| !matches!(*flag, "help" | "version"));
    flags.map(|flag| (flag, flag.to_ascii_uppercase().replace('-', "_")))
}

/// Each variable that is set, and its value as a flag.
fn environment_args(
    command: &clap::Command,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<(String, OsString)> {
    let mut args = Vec::new();
    for (flag, suffix) in variables(command) {
        let given = |prefix: &str| {
            let variable = format!("{prefix}{suffix}");
            let value = environment(&variable).filter(|value| !value.is_empty())?;
            Some((variable, value))
        };
        if let Some((variable, value)) = PREFIXES.into_iter().find_map(given) {
            let mut arg = OsString::from(format!("--{flag}="));
            arg.push(value);
            args.push((variable, arg));
        }
    }
    args
}

/// Errors: the flag's own, with the variable's name, which is what its user knows.
fn check_variable(variable: &str, arg: &OsString) -> Result<(), clap::Error> {
    let parsed = Cli::try_parse_from([OsString::from("holdfast"), arg.clone()]);
    parsed.map(drop).map_err(|error| {
        let text = error.to_string();
        let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        Cli::command().error(error.kind(), format!("environment variable {variable}: {first}"))
    })
}

/// One sentence for each variable among `names` that looks like ours and is none: most likely it is misspelt. Those
/// that Kubernetes makes for services called "holdfast" or "etcd" are no mistake.
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let command = Cli::command();
    let known: BTreeSet<String> = variables(&command).map(|(_, suffix)| suffix).collect();
    let mut warnings = Vec::new();
    for name in names {
        let Some(name) = name.to_str() else { continue };
        let Some(suffix) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else { continue };
        let is_others = name == "HOLDFAST_BIN" || name.contains("_PORT") || name.contains("_SERVICE_");
        if !is_others && !known.contains(suffix) {
            warnings.push(format!(
                "the environment variable {name} has no effect: no flag has this name, see --help for all flags"
            ));
        }
    }
    warnings.sort();
    warnings
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

/// A whole number of milliseconds, or a duration with a unit.
fn millis(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(ms) => Ok(Duration::from_millis(ms)),
        Err(_) => {
            humantime::parse_duration(text).map_err(|_| "write milliseconds, e.g. 1000, or 1s".to_owned())
        }
    }
}

/// A duration with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write e.g. 500ms, 20s or 2h"))
}

/// A number of bytes, or one with KiB, MiB, GiB (also K, M, G; all powers of 1024).
fn bytes(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("write bytes, or a number with KiB, MiB or GiB".to_owned()),
    };
    let number: u64 =
        number.parse().map_err(|_| "write bytes, or a number with KiB, MiB or GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "the number is too large".to_owned())
}
