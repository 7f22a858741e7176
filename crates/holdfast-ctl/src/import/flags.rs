//! The flags of `import`, and its limits.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Flags of `import`. What is said of the target is said with the flags of every command: --endpoints, --user, --cacert.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImportFlags {
    /// Members of the cluster to import from: host:port or URLs, comma-separated
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) from: Vec<String>,
    /// Who asks there: name:password, or the name alone with --from-password. It must be allowed to read everything
    #[arg(long, env = "HOLDFASTCTL_FROM_USER", hide_env_values = true)]
    pub(crate) from_user: Option<String>,
    /// The password of --from-user
    #[arg(long, requires = "from_user", env = "HOLDFASTCTL_FROM_PASSWORD", hide_env_values = true)]
    pub(crate) from_password: Option<String>,
    /// Believe certificates of the source of the CAs in this file, PEM
    #[arg(long)]
    pub(crate) from_cacert: Option<PathBuf>,
    /// Show this certificate to the source, PEM
    #[arg(long)]
    pub(crate) from_cert: Option<PathBuf>,
    /// The private key of --from-cert, PEM
    #[arg(long)]
    pub(crate) from_key: Option<PathBuf>,
    /// Believe any certificate of the source
    #[arg(long)]
    pub(crate) from_insecure_skip_tls_verify: bool,
    /// Import the keys that begin so, and no others; may be given several times
    #[arg(long)]
    pub(crate) prefix: Vec<String>,
    /// Make the target equal even if it has keys there that no import wrote: what differs is overwritten, and what the
    /// source does not have is deleted. For a target that was restored from a snapshot of the source
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The switch, when the writers have stopped: catch up, compare everything, close the old revisions, and end
    #[arg(long)]
    pub(crate) finish: bool,
    /// Go on where the target's revisions cannot be raised above the source's: clients that resume a watch there may miss
    /// changes and not be told
    #[arg(long)]
    pub(crate) accept_lower_revisions: bool,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Limits, each with its default.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// How far the target's revision is kept above the source's: what clients of the source may see after the switch
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    pub(crate) headroom: i64,
    /// Raise the target's revision by at most so much at the start; each takes a write
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    pub(crate) raise_max: i64,
    /// Bytes in one page that is read, about
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1024..=33_554_432))]
    pub(crate) page_bytes: u32,
    /// Operations in one transaction on the target: its --max-txn-ops
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) txn_ops: u32,
    /// Bytes in one transaction on the target: less than its --max-request-bytes, for what comes on top
    #[arg(long, default_value_t = 1_500_000, value_parser = clap::value_parser!(u32).range(4096..=67_108_864))]
    pub(crate) txn_bytes: u32,
    /// Transactions under way at a time while pages are copied
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) writers: u32,
    /// Bytes of changes that wait to be applied, about; the source's watch is read no further then
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(u32).range(65_536..=1_073_741_824))]
    pub(crate) backlog_bytes: u32,
    /// Give up when nothing has worked for so many seconds
    #[arg(long, default_value = "300", value_parser = crate::cli::seconds)]
    pub(crate) retry_for: Duration,
    /// Seconds between lines about progress, where standard error is no terminal
    #[arg(long, default_value = "5", value_parser = crate::cli::seconds)]
    pub(crate) progress_interval: Duration,
}

/// Keys in one page at most, however small they are.
pub(crate) const PAGE_KEYS_MAX: i64 = 5_000;
/// Keys in the first page, of which nothing is known yet.
pub(crate) const PAGE_KEYS_FIRST: i64 = 64;
/// Bytes of one answer at most. A larger page is asked for again with fewer keys; one pair, or one event, has to fit.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long one call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two tries when a member cannot be used.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Idle connections are asked for a sign of life so often. etcd ends those that ask more often than every 5 s.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Leases are looked after so often: less than half of the shortest time to live that etcd grants.
pub(crate) const LEASE_ROUND: Duration = Duration::from_millis(500);
/// A lease is kept alive so many times in its time to live.
pub(crate) const RENEWALS_PER_TTL: u32 = 3;
/// The time to live, in seconds, of a lease that is over on the source and still has keys in what is to be applied.
pub(crate) const DEAD_LEASE_SECONDS: i64 = 10;
/// Leases that are granted, or asked for, at a time.
pub(crate) const LEASES_AT_ONCE: usize = 16;
/// After so many the ones that are held are looked after: the first of many would end while the last are granted.
pub(crate) const LEASES_BEFORE_RENEWAL: usize = 256;
/// Writes under way while the target's revision is raised.
pub(crate) const RAISES_AT_ONCE: usize = 128;
/// The source is asked for its revision so often while it is followed.
pub(crate) const LAG_INTERVAL: Duration = Duration::from_secs(1);
/// The watch is begun anew when the source is ahead and nothing has come for so long.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(30);
/// A position on its own, without changes beside it, is written at most so often.
pub(crate) const POSITION_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a transaction beside keys and values, for each operation.
pub(crate) const OP_OVERHEAD_BYTES: usize = 32;
/// At the switch the source takes no write for so long; writers that write less often are not found.
pub(crate) const QUIET_FOR: Duration = Duration::from_secs(5);
/// Between two looks at it.
pub(crate) const QUIET_PAUSE: Duration = Duration::from_millis(500);
/// A session of this length has worked: what breaks behind it is another failure.
pub(crate) const SESSION_WORKED: Duration = Duration::from_secs(30);
/// How often both sides are compared when the source goes on changing.
pub(crate) const COMPARISONS_MAX: u32 = 5;
/// Keys that differ are named up to so many.
pub(crate) const DIFFERENCES_SHOWN: usize = 10;
