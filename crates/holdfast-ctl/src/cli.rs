//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use crate::global::duration as seconds;
use crate::global::{Global, like_etcdctl};
use crate::{check, cluster, endpoint, import, kv, lease, lock, member, mirror, role, txn, user, watch};

/// Works with clusters that speak etcd v3, holdfast's first of all: etcdctl's commands, flags and output
#[derive(Debug, Parser)]
#[command(name = "holdfastctl", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What concerns all commands.
const AFTER_HELP: &str = "\
Every flag of all commands can be a variable too: --dial-timeout is HOLDFASTCTL_DIAL_TIMEOUT, or else ETCDCTL_DIAL_TIMEOUT.
Exit codes: 0 done, 1 refused or failed, 2 no connection, 3 bad standard input, 4 the server cannot, or there is no such
format, 5 unhealthy, or a watch was ended, 128 bad words, 130 interrupted. docs/holdfastctl.md has more.";

/// What can be done. The doc comments are the help texts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Reads a key or a range
    Get(kv::Get),
    /// Writes a key
    Put(kv::Put),
    /// Deletes a key or a range
    Del(kv::Del),
    /// Runs a transaction from standard input: comparisons, then requests for yes, then for no; an empty line ends each
    Txn(txn::Txn),
    /// Gives up what is older than a revision
    Compaction(kv::Compaction),
    /// Writes changes as they come
    Watch(watch::Watch),
    /// Leases
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Holds a lock: until Ctrl-C, or while a command runs
    Lock(lock::Lock),
    /// Takes part in an election, or looks on
    Elect(lock::Elect),
    /// Members of the cluster
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Endpoints, each by itself
    Endpoint(endpoint::EndpointFlags),
    /// What is wrong with the cluster, and what to do about it; exit code 5 when something is
    Status,
    /// Alarms
    #[command(subcommand)]
    Alarm(cluster::AlarmCommand),
    /// Authentication as a whole
    #[command(subcommand)]
    Auth(user::AuthCommand),
    /// Users
    #[command(subcommand)]
    User(user::UserCommand),
    /// Roles
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Has another member lead
    MoveLeader(cluster::MoveLeader),
    /// Has endpoints give room back
    Defrag(cluster::Defrag),
    /// The way down to an older version
    #[command(subcommand)]
    Downgrade(cluster::DowngradeCommand),
    /// Whether the cluster keeps up with a load
    #[command(subcommand)]
    Check(check::CheckCommand),
    /// Copies everything to another cluster, and then what changes
    MakeMirror(mirror::MakeMirror),
    /// Moves a live cluster, etcd or another, into this one, and keeps it in step until the switch
    Import(Box<import::flags::ImportFlags>),
    /// Files with the state of a member: backups, and the way to and from etcd
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Certificates for development and tests, of a CA of your own
    #[command(subcommand)]
    Cert(CertCommand),
    /// The versions of this program and of the API
    Version,
}

/// The command line.
///
/// Errors: what clap says of it, also when help was asked for.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&like_etcdctl(Cli::command()).try_get_matches()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        like_etcdctl(Cli::command()).debug_assert();
    }

    #[test]
    fn flags_are_read_as_etcdctl_reads_them() {
        let parse = |line: &str| {
            let matches = like_etcdctl(Cli::command()).try_get_matches_from(line.split(' '));
            matches.and_then(|matches| Cli::from_arg_matches(&matches))
        };
        let get = |line: &str| match parse(line) {
            Ok(Cli { command: Command::Get(get), .. }) => Ok(get),
            other => Err(format!("{other:?}")),
        };
        let flags = get("holdfastctl get a --prefix --keys-only=false --rev -3 --limit=1 --limit=2").unwrap();
        assert!(flags.prefix && !flags.keys_only);
        assert_eq!((flags.rev, flags.limit), (-3, 2));
        assert!(get("holdfastctl get -- -a").unwrap().words == ["-a"]);
        assert!(get("holdfastctl get a --prefix=maybe").is_err());
        let two = parse("holdfastctl --endpoints=a:1,b:2 mem li --endpoints c:3").unwrap();
        assert!(matches!(two.command, Command::Member(member::MemberCommand::List { .. })));
        assert!(parse("holdfastctl nonsense").is_err());
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
