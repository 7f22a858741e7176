//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Works with holdfast clusters and their files.
#[derive(Debug, Parser)]
#[command(name = "holdfastctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The member to ask: host:port, or a URL
    #[arg(long, global = true, default_value = "127.0.0.1:2379")]
    pub(crate) endpoints: String,
    /// How long the connection may take to be made, in seconds
    #[arg(long, global = true, default_value = "5", value_parser = seconds)]
    pub(crate) dial_timeout: Duration,
    /// Who asks, where authentication is on: name:password, or the name alone with --password
    #[arg(long, global = true)]
    pub(crate) user: Option<String>,
    /// The password of --user
    #[arg(long, global = true, requires = "user")]
    pub(crate) password: Option<String>,
    /// How figures are written
    #[arg(long, short = 'w', global = true, value_enum, default_value_t = WriteOut::Simple)]
    pub(crate) write_out: WriteOut,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WriteOut {
    /// One line, or plain text
    Simple,
    /// A table
    Table,
    /// JSON
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Files with the state of a member: backups, and the way to and from etcd
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Saves the state of one member (holdfast or etcd) to a file
    Save {
        /// The file; it is there only once it is whole, and checked
        file: PathBuf,
    },
    /// Hash, revision, number of pairs and size of a file, as etcdctl counts them
    Status {
        /// The file
        file: PathBuf,
    },
    /// What is in a file: buckets, revisions, compaction, leases, members, alarms
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Makes the data directory of a member that begins with a file, of holdfast or etcd
    Restore(RestoreFlags),
}

/// Flags of `snapshot restore`. Those of the member mean what they mean to `holdfast`, which is to be started with the
/// same ones.
#[derive(Debug, Args)]
pub(crate) struct RestoreFlags {
    /// The file
    pub(crate) file: PathBuf,
    /// The data directory to make; the name with .holdfast behind it, when it is not given
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// The member's name
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// All members of the new cluster: name=http://host:2380,...
    #[arg(long)]
    pub(crate) initial_cluster: Option<String>,
    /// The member's own peer URLs
    #[arg(long)]
    pub(crate) initial_advertise_peer_urls: Option<String>,
    /// Tells the new cluster from others with equal URLs, the old one among them
    #[arg(long, default_value = "etcd-cluster")]
    pub(crate) initial_cluster_token: String,
    /// Take a file without a right checksum: one that was copied out of a data directory
    #[arg(long)]
    pub(crate) skip_hash_check: bool,
    /// Raise the newest revision by so much, so that no client has seen it before
    #[arg(long, requires = "mark_compacted")]
    pub(crate) bump_revision: Option<u64>,
    /// Mark all revisions before the raised one as compacted, so that watches and caches begin anew
    #[arg(long, requires = "bump_revision")]
    pub(crate) mark_compacted: bool,
    /// Leave users and roles out: everybody may read and write everything then
    #[arg(long)]
    pub(crate) without_auth: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let text = text.strip_suffix('s').unwrap_or(text);
    let seconds: f64 = text.parse().map_err(|_| "give seconds, as 5 or 5s".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_raised_revision_and_its_mark_come_together() {
        let parse = |flags: &[&str]| {
            let all = ["holdfastctl", "snapshot", "restore", "f"].iter().chain(flags);
            Cli::try_parse_from(all).map(|_| ()).map_err(|error| error.to_string())
        };
        parse(&[]).unwrap();
        parse(&["--bump-revision=5", "--mark-compacted"]).unwrap();
        assert!(parse(&["--bump-revision=5"]).unwrap_err().contains("--mark-compacted"));
        assert!(parse(&["--mark-compacted"]).unwrap_err().contains("--bump-revision"));
    }
}
