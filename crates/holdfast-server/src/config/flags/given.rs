//! What was given: on the command line, in the environment, in the file, in this order of precedence.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::Setting;
use super::table::{self, Flag, Refusal};
use super::value::Value;

/// What the names of our variables begin with; the first one wins.
const PREFIXES: [&str; 2] = ["HOLDFAST_", "ETCD_"];

/// Where a value comes from, as its user knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A flag, by the name it was given with.
    CommandLine(&'static str),
    /// A variable.
    Variable(String),
    /// A key of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The key, with dots between levels.
        key: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(name) => write!(f, "--{name}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File { path, key } => write!(f, "{}: {key}", path.display()),
        }
    }
}

/// A value that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GivenError {
    /// It cannot be read.
    #[error("{place}: \"{text}\" is not allowed: {rule}")]
    Value {
        /// Where it was given.
        place: Place,
        /// What was given.
        text: String,
        /// What to write.
        rule: String,
    },
    /// It asks for something that is not there.
    #[error("{place}={text} is refused: {}; {}", refusal.why, refusal.next)]
    Refused {
        /// Where it was given.
        place: Place,
        /// What was given.
        text: String,
        /// Why, and what to do.
        refusal: Refusal,
    },
}

/// What each flag is set to.
#[derive(Debug, Clone, Default)]
pub struct Given {
    values: BTreeMap<&'static str, (Value, Place)>,
    warnings: Vec<String>,
}

impl Given {
    /// Takes a value, unless the flag has one of higher precedence. That one also decides about warnings.
    ///
    /// Errors: a value that cannot be read, or is refused.
    pub fn take(&mut self, flag: &'static Flag, text: &str, place: Place) -> Result<(), GivenError> {
        if self.values.contains_key(flag.name) {
            return Ok(());
        }
        if let Some(refusal) = flag.refusal(text) {
            return Err(GivenError::Refused { place, text: text.to_owned(), refusal });
        }
        let value = match flag.kind.read(text) {
            Ok(value) => value,
            Err(rule) => return Err(GivenError::Value { place, text: text.to_owned(), rule }),
        };
        self.warnings.extend(flag.warning(&place.to_string(), text));
        self.values.insert(flag.name, (value, place));
        Ok(())
    }

    /// Takes every variable that is set; an empty one counts as not set.
    ///
    /// Errors: as [`Given::take`].
    pub fn take_variables(
        &mut self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<(), GivenError> {
        for prefix in PREFIXES {
            for flag in table::all().filter(|flag| !flag.is_internal) {
                for variable in flag.names().map(|name| format!("{prefix}{}", suffix(name))) {
                    let Some(text) = environment(&variable).filter(|text| !text.is_empty()) else { continue };
                    self.take(flag, &text.to_string_lossy(), Place::Variable(variable))?;
                }
            }
        }
        Ok(())
    }

    /// Takes what the file at `path` says.
    ///
    /// Errors: as [`Given::take`].
    pub fn take_settings(&mut self, path: &Path, settings: Vec<Setting>) -> Result<(), GivenError> {
        for Setting { flag, key, text } in settings {
            self.take(flag, &text, Place::File { path: path.to_owned(), key })?;
        }
        Ok(())
    }

    /// What is to be said once about flags without effect.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Where a flag's value comes from; `None` for its default.
    pub fn place(&self, name: &str) -> Option<&Place> {
        self.values.get(name).map(|(_, place)| place)
    }

    /// A flag's value or its default; `None` when it has neither.
    fn value(&self, name: &str) -> Option<Value> {
        if let Some((value, _)) = self.values.get(name) {
            return Some(value.clone());
        }
        let flag = table::find(name).expect("only flags of the table are asked for");
        let is_given = !flag.default.is_empty();
        is_given.then(|| flag.kind.read(flag.default).expect("defaults can be read, a test reads them all"))
    }

    /// A text; `None` when it is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) if !text.is_empty() || self.place(name).is_some() => Some(text),
            _ => None,
        }
    }

    /// A count, or bytes.
    pub fn count(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Count(count)) => Some(count),
            _ => None,
        }
    }

    /// A number; 0 without one.
    pub fn number(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    /// A duration; none without one.
    pub fn time(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Time(time)) => time,
            _ => Duration::ZERO,
        }
    }

    /// A switch; off without one.
    pub fn is_on(&self, name: &str) -> bool {
        self.value(name) == Some(Value::Switch(true))
    }
}

/// The end of a variable's name.
fn suffix(flag: &str) -> String {
    flag.to_ascii_uppercase().replace('-', "_")
}

/// One sentence for each variable among `names` that looks like ours and is none: most likely it is misspelt. Those
/// that Kubernetes makes for services called "holdfast" or "etcd" are no mistake.
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in names {
        let Some(name) = name.to_str() else { continue };
        let Some(suffix) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else { continue };
        let is_others = name == "HOLDFAST_BIN" || name.contains("_PORT") || name.contains("_SERVICE_");
        let flag = suffix.to_ascii_lowercase().replace('_', "-");
        if is_others || table::find(&flag).is_some_and(|flag| !flag.is_internal) {
            continue;
        }
        let nearest =
            table::nearest(&flag).map_or_else(String::new, |near| format!(" (the nearest is --{near})"));
        warnings.push(format!(
            "the environment variable {name} has no effect: no flag has this name{nearest}, see --help for all flags"
        ));
    }
    warnings.sort();
    warnings
}
