//! What is measured: holdfast, etcd, and an empty server, each as processes of their own with fresh data.
//!
//! Module map: [`cluster`] starts and stops members, [`ports`] finds them ports, [`ceiling`] is the empty server.

pub(crate) mod ceiling;
pub(crate) mod cluster;
pub(crate) mod ports;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::Error;

/// One of the sides of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    /// This project, with its default engine
    Holdfast,
    /// This project on redb
    HoldfastRedb,
    /// This project with the least memory for values: what is read comes from the store
    HoldfastCold,
    /// etcd 3.5.1
    Etcd,
    /// A gRPC server that stores nothing: what the wire alone costs
    Ceiling,
}

impl System {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::HoldfastRedb => "holdfast-redb",
            Self::HoldfastCold => "holdfast-cold",
            Self::Etcd => "etcd",
            Self::Ceiling => "ceiling",
        }
    }

    /// Whether it is this project's server.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Holdfast | Self::HoldfastRedb | Self::HoldfastCold)
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This project's server.
    pub(crate) holdfast: PathBuf,
    /// Real etcd.
    pub(crate) etcd: PathBuf,
    /// More flags for this project's server.
    pub(crate) holdfast_flags: Vec<String>,
    /// Size of the values that the empty server answers with.
    pub(crate) value_bytes: u32,
}

impl Programs {
    /// The program of a system.
    ///
    /// Errors: it is not there, with the command that puts it there.
    pub(crate) fn of(&self, system: System) -> Result<PathBuf, Error> {
        let (path, remedy) = match system {
            System::Ceiling => return std::env::current_exe().map_err(Error::io("find this program")),
            System::Etcd => (&self.etcd, "scripts/fetch-peers fetches it, --etcd names another"),
            System::Holdfast | System::HoldfastRedb | System::HoldfastCold => (
                &self.holdfast,
                "cargo build --release --package holdfast-server builds it, HOLDFAST_BIN or --holdfast names another",
            ),
        };
        if !path.is_file() {
            return Err(Error::Setting(format!("{} is not there: {remedy}", path.display())));
        }
        Ok(path.clone())
    }

    /// Flags of a system beyond those that make up its cluster: both sides with their defaults, but etcd with a
    /// snapshot each 10,000 entries, as kubeadm starts it.
    fn flags(&self, system: System) -> Vec<String> {
        let fixed: &[&str] = match system {
            System::Holdfast => &["--exit-with-stdin"],
            System::HoldfastRedb => &["--exit-with-stdin", "--engine=redb"],
            System::HoldfastCold => &["--exit-with-stdin", "--memory-bytes=16MiB"],
            System::Etcd => &["--snapshot-count=10000"],
            System::Ceiling => &[],
        };
        let more = if system.is_ours() { &self.holdfast_flags[..] } else { &[] };
        fixed.iter().map(|flag| (*flag).to_owned()).chain(more.iter().cloned()).collect()
    }
}

/// This project's server where cargo puts it: beside this program, or the release build of the same target directory.
pub(crate) fn default_holdfast() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let dir = this.parent().unwrap_or(Path::new("."));
    dir.parent().unwrap_or(dir).join("release/holdfast")
}
