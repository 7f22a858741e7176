//! Log lines: level, form and place.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::ConfigError;
use crate::config::flags::{LogFormatFlag, LogOutputFlag, ServerFlags};

/// What the libraries below us say is of use to nobody but us, unless asked for by name.
const QUIET: &str = "openraft=error,h2=warn,hyper=warn,hyper_util=warn,tower=warn,sled=warn";

/// Sets up logging for the whole process. To be called once, first thing.
///
/// Errors: a level or filter that cannot be read.
pub fn start(flags: &ServerFlags) -> Result<(), ConfigError> {
    let filter = filter(&flags.log_level)?;
    let (writer, is_terminal) = match flags.log_outputs {
        LogOutputFlag::Stderr => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
        LogOutputFlag::Stdout => (BoxMakeWriter::new(std::io::stdout), std::io::stdout().is_terminal()),
    };
    let default = if is_terminal { LogFormatFlag::Console } else { LogFormatFlag::Json };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let set = match flags.log_format.unwrap_or(default) {
        LogFormatFlag::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormatFlag::Console => lines.with_ansi(is_terminal).try_init(),
    };
    // Only a second call fails, and then the first one's settings go on.
    if let Err(error) = set {
        tracing::debug!(%error, "logging is set up already");
    }
    Ok(())
}

/// A level by etcd's names, or a list of filters such as `info,holdfast_raft=debug`.
fn filter(text: &str) -> Result<EnvFilter, ConfigError> {
    let directives = match text.to_ascii_lowercase().as_str() {
        "debug" => format!("debug,{QUIET}"),
        "info" => format!("info,{QUIET}"),
        "warn" | "warning" => "warn".to_owned(),
        "error" | "dpanic" | "panic" | "fatal" => "error".to_owned(),
        _ if text.contains('=') || text.contains(',') => text.to_owned(),
        _ => return Err(invalid(text)),
    };
    EnvFilter::try_new(directives).map_err(|_| invalid(text))
}

fn invalid(text: &str) -> ConfigError {
    ConfigError::Value {
        flag: "log-level",
        value: format!("\"{text}\""),
        rule: "write debug, info, warn, error, or filters such as info,holdfast_raft=debug".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read() {
        for good in ["debug", "INFO", "warn", "error", "panic", "info,holdfast_raft=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "a=b=c", "info,,=="] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
