//! Log lines: level, form and place.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::ConfigError;
use crate::config::flags::{LogFormatFlag, ServerFlags};

/// What the libraries below us say is of use to nobody but us, unless asked for by name.
const QUIET: &str = "openraft=error,h2=warn,hyper=warn,hyper_util=warn,tower=warn,sled=warn";

/// Sets up logging for the whole process. To be called once, first thing.
///
/// Errors: a level or filter that cannot be read, or a file that cannot be opened.
pub fn start(flags: &ServerFlags) -> Result<(), ConfigError> {
    let filter = filter(&flags.log_level)?;
    let outputs = Outputs::open(&flags.log_outputs)?;
    let is_terminal = outputs.are_terminals();
    let default = if is_terminal { LogFormatFlag::Console } else { LogFormatFlag::Json };
    let writer = BoxMakeWriter::new(Mutex::new(outputs));
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

/// Where each line goes.
#[derive(Debug)]
enum Output {
    Stderr,
    Stdout,
    /// Appended to, in one write per line, so that a file can be rotated by copying and truncating it.
    File(File),
}

/// All places of a line. They are behind one lock, so that lines of two threads do not mix.
#[derive(Debug)]
struct Outputs(Vec<Output>);

impl Outputs {
    /// Reads what `--log-outputs` takes.
    ///
    /// Errors: a place that is none, or a file that cannot be opened.
    fn open(text: &str) -> Result<Self, ConfigError> {
        let outputs = text.split(',').map(|part| match part.trim() {
            "default" | "stderr" | "/dev/stderr" => Ok(Output::Stderr),
            "stdout" | "/dev/stdout" => Ok(Output::Stdout),
            journal if journal.starts_with("systemd/") => Err(ConfigError::Value {
                flag: "log-outputs",
                value: format!("\"{journal}\""),
                rule: "write stderr: under systemd that is the journal".to_owned(),
            }),
            "" => Err(ConfigError::Value {
                flag: "log-outputs",
                value: format!("\"{text}\""),
                rule: "write stderr, stdout or files to append to, separated by commas".to_owned(),
            }),
            path => {
                File::options().create(true).append(true).open(path).map(Output::File).map_err(|error| {
                    ConfigError::LogFile { path: path.to_owned(), reason: error.to_string() }
                })
            }
        });
        outputs.collect::<Result<_, _>>().map(Self)
    }

    fn are_terminals(&self) -> bool {
        self.0.iter().all(|output| match output {
            Output::Stderr => io::stderr().is_terminal(),
            Output::Stdout => io::stdout().is_terminal(),
            Output::File(_) => false,
        })
    }
}

impl Write for Outputs {
    /// A place that fails must not keep the line from the others; the last failure is told.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut failed = Ok(());
        for output in &mut self.0 {
            let written = match output {
                Output::Stderr => io::stderr().write_all(line),
                Output::Stdout => io::stdout().write_all(line),
                Output::File(file) => file.write_all(line),
            };
            failed = written.and(failed);
        }
        failed.map(|()| line.len())
    }

    /// Nothing is kept back but in standard output, which ends lines itself.
    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
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

    #[test]
    fn lines_are_appended_to_every_file() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a.log", "b.log"].map(|name| directory.path().join(name));
        std::fs::write(&first, "before\n").unwrap();
        let mut outputs = Outputs::open(&format!("{},{}", first.display(), second.display())).unwrap();
        outputs.write_all(b"a line\n").unwrap();
        assert_eq!(std::fs::read_to_string(first).unwrap(), "before\na line\n");
        assert_eq!(std::fs::read_to_string(second).unwrap(), "a line\n");
    }

    #[test]
    fn places_that_are_none_are_refused() {
        for (text, part) in [
            ("systemd/journal", "write stderr"),
            ("stderr,", "separated"),
            ("/no/such/dir/x.log", "cannot append"),
        ] {
            let error = Outputs::open(text).unwrap_err().to_string();
            assert!(error.contains("--log-outputs") && error.contains(part), "{error}");
        }
    }
}
