//! The configuration file: YAML (or JSON, which is YAML) with etcd's keys.
//!
//! A key is a flag's name. Certificates may also stand below `client-transport-security` and `peer-transport-security`,
//! and what is said of sockets below `socket-options`, as etcd writes them. Lists and comma-separated texts mean the same. A duration without a unit counts nanoseconds,
//! because that is what etcd's files do. An empty value is as good as none.

use std::io::Read;
use std::path::{Path, PathBuf};

use yaml_rust2::{Yaml, YamlLoader};

use super::table::{self, Flag};
use super::value::Kind;

/// Larger files are no configuration; and what is read is kept in memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// One key of the file that sets something.
#[derive(Debug)]
pub struct Setting {
    /// The flag it sets.
    pub flag: &'static Flag,
    /// The key as written, with dots between levels.
    pub key: String,
    /// The value, as the flag would take it.
    pub text: String,
}

/// Why a configuration file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("--config-file: cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        reason: String,
    },
    /// It is not YAML.
    #[error("--config-file: {} is not YAML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        reason: String,
    },
    /// A key that nothing belongs to.
    #[error("{}: {key}: there is no such key{}", path.display(), suggestion(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest known one.
        nearest: Option<String>,
    },
    /// A value of the wrong form.
    #[error("{}: {key}: {rule}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What to write.
        rule: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(|| "; docs/flags.md lists all".to_owned(), |key| format!("; did you mean {key}?"))
}

/// Reads the file.
pub fn read(path: &Path) -> Result<Vec<Setting>, FileError> {
    let unreadable =
        |error: std::io::Error| FileError::Unreadable { path: path.to_owned(), reason: error.to_string() };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(FileError::Unreadable { path: path.to_owned(), reason });
    }
    parse(path, &text)
}

/// Reads the text of the file at `path`, which is used in errors only.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Setting>, FileError> {
    let syntax = |reason: String| FileError::Syntax { path: path.to_owned(), reason };
    let documents = YamlLoader::load_from_str(text).map_err(|error| syntax(error.to_string()))?;
    let mut settings = Vec::new();
    match documents.as_slice() {
        [] | [Yaml::Null] => {}
        [Yaml::Hash(keys)] => {
            for (key, value) in keys {
                let key = scalar(key).ok_or_else(|| syntax("a key is not a text".to_owned()))?;
                Reader { path, settings: &mut settings }.top(&key, value)?;
            }
        }
        [_] => return Err(syntax("write one \"key: value\" per line".to_owned())),
        _ => return Err(syntax("it holds more than one document".to_owned())),
    }
    Ok(settings)
}

struct Reader<'a> {
    path: &'a Path,
    settings: &'a mut Vec<Setting>,
}

impl Reader<'_> {
    fn top(&mut self, key: &str, value: &Yaml) -> Result<(), FileError> {
        let flag_below: fn(&str) -> Option<&'static Flag> = match key {
            "client-transport-security" => |key| certificate_flag("client", key),
            "peer-transport-security" => |key| certificate_flag("peer", key),
            "socket-options" => |key| find(&format!("socket-{key}")),
            // A file that names a file would be read in a circle.
            "config-file" => return Err(self.unknown(key, None)),
            _ => return self.set(key, find(key), value),
        };
        match value {
            Yaml::Null => Ok(()),
            Yaml::Hash(inner) => {
                for (name, value) in inner {
                    let name = scalar(name).unwrap_or_default();
                    self.set(&format!("{key}.{name}"), flag_below(&name), value)?;
                }
                Ok(())
            }
            _ => Err(self.form(key, "write its keys below it, indented".to_owned())),
        }
    }

    fn set(&mut self, key: &str, flag: Option<&'static Flag>, value: &Yaml) -> Result<(), FileError> {
        let Some(flag) = flag else {
            return Err(self.unknown(key, table::nearest(key)));
        };
        let text = match value {
            Yaml::Null => return Ok(()),
            Yaml::Integer(nanoseconds) if flag.kind == Kind::Duration => format!("{nanoseconds}ns"),
            Yaml::Array(parts) => {
                let parts: Option<Vec<String>> = parts.iter().map(scalar).collect();
                parts.ok_or_else(|| self.form(key, "write a list of texts".to_owned()))?.join(",")
            }
            _ => scalar(value).ok_or_else(|| self.form(key, format!("write {}", flag.kind)))?,
        };
        if !text.is_empty() {
            self.settings.push(Setting { flag, key: key.to_owned(), text });
        }
        Ok(())
    }

    fn unknown(&self, key: &str, nearest: Option<&'static str>) -> FileError {
        FileError::UnknownKey {
            path: self.path.to_owned(),
            key: key.to_owned(),
            nearest: nearest.map(str::to_owned),
        }
    }

    fn form(&self, key: &str, rule: String) -> FileError {
        FileError::Form { path: self.path.to_owned(), key: key.to_owned(), rule }
    }
}

fn find(key: &str) -> Option<&'static Flag> {
    table::find(key).filter(|flag| !flag.is_internal)
}

/// The flag of a key below `client-transport-security` or `peer-transport-security`.
fn certificate_flag(side: &str, key: &str) -> Option<&'static Flag> {
    let name = match key {
        "allowed-cn" | "allowed-cns" => format!("{side}-cert-allowed-cn"),
        "allowed-hostname" | "allowed-hostnames" => format!("{side}-cert-allowed-hostname"),
        _ if side == "peer" => format!("peer-{key}"),
        _ => key.to_owned(),
    };
    let is_one =
        |flag: &&Flag| ["cert", "key", "ca", "tls", "crl", "san"].iter().any(|part| flag.name.contains(part));
    find(&name).filter(is_one)
}

/// The text of what is neither a list, nor keys, nor nothing.
fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(is_true) => Some(is_true.to_string()),
        Yaml::Array(_) | Yaml::Hash(_) | Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => None,
    }
}
