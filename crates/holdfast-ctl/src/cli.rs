//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Works with holdfast clusters and their files.
#[derive(Debug, Parser)]
#[command(name = "holdfastctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The member to ask: host:port, or a URL
    #[arg(long, global = true, default_value = "127.0.0.1:2379", env = "ETCDCTL_ENDPOINTS")]
    pub(crate) endpoints: String,
    /// How long the connection may take to be made, in seconds
    #[arg(long, global = true, default_value = "5", value_parser = seconds, env = "ETCDCTL_DIAL_TIMEOUT")]
    pub(crate) dial_timeout: Duration,
    /// Who asks, where authentication is on: name:password, or the name alone with --password
    #[arg(long, global = true, env = "ETCDCTL_USER", hide_env_values = true)]
    pub(crate) user: Option<String>,
    /// The password of --user
    #[arg(long, global = true, requires = "user", env = "ETCDCTL_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsFlags,
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
    /// Certificates for development and tests, of a CA of your own
    #[command(subcommand)]
    Cert(CertCommand),
}

/// etcdctl's flags about TLS, with its meanings.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsFlags {
    /// Believe certificates of the CAs in this file, PEM; without it, of those that this machine trusts
    #[arg(long, global = true, env = "ETCDCTL_CACERT")]
    pub(crate) cacert: Option<PathBuf>,
    /// Show this certificate, PEM
    #[arg(long, global = true, env = "ETCDCTL_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// The private key of --cert, PEM
    #[arg(long, global = true, env = "ETCDCTL_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Believe any certificate: who is in between can read and change everything
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY", action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    pub(crate) insecure_skip_tls_verify: bool,
    /// Use plain text for endpoints without a scheme when no file is given; false uses TLS for them
    #[arg(long, global = true, env = "ETCDCTL_INSECURE_TRANSPORT", action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) insecure_transport: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Makes a CA: ca.crt, which everybody may have, and ca.key, which nobody else should
    Ca(Authority),
    /// Makes a certificate for the client port of members
    Server(Issued),
    /// Makes a certificate for the peer port of members, and for their connections to each other
    Peer(Issued),
    /// Makes a certificate for a client; its name is the user with --client-cert-auth
    Client(Issued),
}

/// Flags of `cert ca`.
#[derive(Debug, Args)]
pub(crate) struct Authority {
    /// Where the files are written
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Days until it expires
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
    /// Write over files that are there
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// Flags of the other `cert` commands.
#[derive(Debug, Args)]
pub(crate) struct Issued {
    /// Its common name, and the name of the files: NAME.crt and NAME.key. The word of the command when it is not given
    pub(crate) name: Option<String>,
    /// Host names and addresses that it is for; comma-separated. The names of this machine for itself, unless given
    #[arg(long)]
    pub(crate) hosts: Option<String>,
    /// Where the CA's files are, and the new ones are written
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// Days until it expires
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) days: u32,
    /// Write over files that are there
    #[arg(long)]
    pub(crate) overwrite: bool,
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
