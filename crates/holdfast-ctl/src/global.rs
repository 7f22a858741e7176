//! Flags that every command has, with etcdctl's names; where they come from, and how clap is made to read them as etcdctl
//! does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Args, Command};

/// Flags of all commands.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The members to ask: host:port or URLs, comma-separated. The first one that can be reached is asked
    #[arg(long, global = true, default_value = "127.0.0.1:2379", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// How long a connection may take to be made
    #[arg(long, global = true, default_value = "2s", value_parser = duration)]
    pub(crate) dial_timeout: Duration,
    /// How long an answer may take
    #[arg(long, global = true, default_value = "5s", value_parser = duration)]
    pub(crate) command_timeout: Duration,
    /// After how long without a word a connection is tried; less than 10s counts as 10s
    #[arg(long, global = true, default_value = "2s", value_parser = duration)]
    pub(crate) keepalive_time: Duration,
    /// How long a trial may take before the connection is given up
    #[arg(long, global = true, default_value = "6s", value_parser = duration)]
    pub(crate) keepalive_timeout: Duration,
    /// Who asks, where authentication is on: name:password, or the name alone with --password
    #[arg(long, global = true, hide_env_values = true)]
    pub(crate) user: Option<String>,
    /// The password of --user
    #[arg(long, global = true, hide_env_values = true)]
    pub(crate) password: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsFlags,
    /// The format of output: simple, fields, json, table, protobuf
    #[arg(long, short = 'w', global = true, default_value = "simple")]
    pub(crate) write_out: String,
    /// Write keys and values as \x hexadecimal
    #[arg(long, global = true)]
    pub(crate) hex: bool,
    /// Log what the connection does, to standard error
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// etcdctl's flags about TLS, with its meanings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsFlags {
    /// Believe certificates of the CAs in this file, PEM; without it, of those that this machine trusts
    #[arg(long, global = true)]
    pub(crate) cacert: Option<PathBuf>,
    /// Show this certificate, PEM
    #[arg(long, global = true)]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of --cert, PEM
    #[arg(long, global = true)]
    pub(crate) key: Option<PathBuf>,
    /// Believe any certificate: who is in between can read and change everything
    #[arg(long, global = true)]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Use plain text for endpoints without a scheme when no file is given; false uses TLS for them
    #[arg(long, global = true, action = ArgAction::Set, value_parser = truth)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) insecure_transport: bool,
}

/// A command line that reads flags as etcdctl does: `--flag=false`, the last one of several counts, beginnings of commands
/// will do, and flags of all commands come from the environment too.
pub(crate) fn like_etcdctl(command: Command) -> Command {
    let command = command.mut_args(|arg| from_environment(arg, &|name| std::env::var_os(name)));
    as_pflag(command)
}

/// `--some-flag` is `HOLDFASTCTL_SOME_FLAG`, or else `ETCDCTL_SOME_FLAG`; an empty variable is none.
fn from_environment(arg: Arg, variable: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Arg {
    let Some(long) = arg.get_long().filter(|_| arg.is_global_set()) else { return arg };
    let name = long.replace('-', "_").to_uppercase();
    let names = ["HOLDFASTCTL_", "ETCDCTL_"].map(|prefix| format!("{prefix}{name}"));
    let is_set = |name: &String| variable(name).is_some_and(|value| !value.is_empty());
    match names.into_iter().find(is_set) {
        // clap wants names that stay; they are few, and made once.
        Some(name) => arg.env(&*name.leak()),
        None => arg,
    }
}

/// The same without the environment.
pub(crate) fn as_pflag(command: Command) -> Command {
    command
        .infer_subcommands(true)
        .args_override_self(true)
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .value_parser(truth)
                .default_missing_value("true")
                .default_value("false")
                .hide_default_value(true)
                .hide_possible_values(true),
            ArgAction::Set | ArgAction::Append if !arg.is_positional() && !arg.is_require_equals_set() => {
                arg.allow_hyphen_values(true)
            }
            _ => arg,
        })
        .mut_subcommands(as_pflag)
}

/// What Go takes for true and false.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// Numbers with units, as `1m30s` or `500ms`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a time, as 5s, 500ms or 1m30s".to_owned();
    let number_ends = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(number_ends(rest));
        let unit_ends = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_ends);
        let unit = match unit {
            "" if number.len() == text.len() => 1.0,
            "s" => 1.0,
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = behind;
    }
    if text.is_empty() {
        return Err(wrong());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos_or_seconds() {
        let ms = |text| duration(text).unwrap().as_millis();
        assert_eq!((ms("5s"), ms("5"), ms("1m30s"), ms("1.5s"), ms("20ms")), (5000, 5000, 90_000, 1500, 20));
        assert_eq!(ms("1h"), 3_600_000);
        for wrong in ["", "s", "5x", "1m30", "-1s", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn our_variables_go_before_etcdctls_and_empty_ones_are_none() {
        let of = |given: &'static [(&str, &str)]| {
            let arg = Arg::new("dial_timeout").long("dial-timeout").global(true);
            let variable = move |name: &str| {
                given.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).into())
            };
            let arg = from_environment(arg, &variable);
            arg.get_env().map(|name| name.to_str().unwrap().to_owned())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("ETCDCTL_DIAL_TIMEOUT", "1s")]).as_deref(), Some("ETCDCTL_DIAL_TIMEOUT"));
        let both = of(&[("ETCDCTL_DIAL_TIMEOUT", "1s"), ("HOLDFASTCTL_DIAL_TIMEOUT", "2s")]);
        assert_eq!(both.as_deref(), Some("HOLDFASTCTL_DIAL_TIMEOUT"));
        let empty = of(&[("ETCDCTL_DIAL_TIMEOUT", "1s"), ("HOLDFASTCTL_DIAL_TIMEOUT", "")]);
        assert_eq!(empty.as_deref(), Some("ETCDCTL_DIAL_TIMEOUT"));
    }
}
