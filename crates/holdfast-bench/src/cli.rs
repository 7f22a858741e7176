//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::growth::flags::GrowthFlags;
use crate::load::pace::Pace;
use crate::sdk::SdkFlags;
use crate::systems::{Programs, System, default_holdfast};

/// Loads holdfast, etcd and an empty server with the same work, and counts what it costs them.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start systems side by side, run each case on them in turn, and print what each unit of work cost
    Compare(Box<CompareFlags>),
    /// Measure how costs grow with keys, revisions, watchers, values, members and clients, and print a table of each
    Growth(Box<GrowthFlags>),
    /// Make a page of what compare and growth have written, and judge it by the goals of this program
    Page(PageFlags),
    /// Load servers that run already
    Load(LoadFlags),
    /// Load systems side by side and print what they take of disk and memory, and how fast a member is back
    Footprint(Box<FootprintFlags>),
    /// Load systems one after the other and print what their memory grows by while everything is listed
    ListMemory(Box<ListingFlags>),
    /// Measure what the SDK costs its user beside a bare stub, and how fast an informer takes everything in
    Sdk(SdkFlags),
    /// Serve etcd's KV from nothing, until standard input is closed: the ceiling of any server on this stack
    Ceiling(CeilingFlags),
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Writes of random keys
    Put,
    /// The same by one client, at the leader
    PutOne,
    /// The same by 64 clients
    #[value(name = "put-64")]
    Put64,
    /// The same by 1,000 clients
    #[value(name = "put-1000")]
    Put1000,
    /// Writes at --steady-rate a second, by a timetable: how late answers are when there is little to do
    PutSteady,
    /// Writes at 30 % of what the slowest system reached in the case put of this run, by a timetable
    PutBusy,
    /// Reads confirmed by a quorum
    GetLinearizable,
    /// The same at --steady-rate a second, by a timetable
    GetSteady,
    /// Reads of the member's own state
    GetSerializable,
    /// Reads confirmed by a quorum, at the leader alone and at its followers alone
    GetLinearizableFollowers,
    /// Reads of the member's own state, at the leader alone and at its followers alone
    GetSerializableFollowers,
    /// Transactions that write a key if it is as last seen
    Cas,
    /// Linearizable reads with one write in five
    Mixed,
    /// Reads of a thousand keys at once
    List,
    /// Reads of a thousand keys in pages of a hundred
    ListPaged,
    /// Reads of all --list-keys keys in one call, by one client
    ListWhole,
    /// The same in pages of --page-keys keys
    ListWholePaged,
    /// Writes at --steady-rate a second with and without ten clients that list all --list-keys keys, whole or in pages
    PutBesideLists,
    /// Ten watchers of everything while puts come by a timetable: how late events are
    WatchLatency,
    /// --watchers watchers of everything while puts come by a timetable: what an event costs
    WatchFanout,
    /// The same with and without --silent watchers that never read: what they cost the others, by the put
    SlowWatchers,
    /// Writes at --steady-rate a second with and without --watchers watchers of everything: what writers notice
    PutWatched,
    /// Writes at --steady-rate a second to watched keys, with 10 and with --key-watchers watchers, each of a key of its own
    PutKeysWatched,
    /// Grants of leases
    LeaseGrant,
    /// Keep-alives, each client's lease on a stream of its own
    LeaseKeepalive,
    /// --leases leases that are each renewed every --lease-renewal, a stream for each connection: what that costs
    LeaseSteady,
    /// Writes at --steady-rate a second, with and without --leases leases that end meanwhile, all of them in a second or two
    LeaseEnd,
    /// --idle-connections connections that do nothing after a first read
    Connections,
}

impl Case {
    /// Its name in tables.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// The size of a load.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SizeFlags {
    /// Operations under way at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Connections they share, spread over all members
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// How long each load runs
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Operations a second, started by a timetable and timed from when they were due [default: as fast as they go]
    #[arg(long)]
    pub(crate) rate: Option<NonZeroU32>,
}

impl SizeFlags {
    /// How fast operations start.
    pub(crate) fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Closed, Pace::Open)
    }
}

/// Flags of the cases that watch.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WatchFlags {
    /// Watchers of everything, those that never read included
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) watchers: u32,
    /// Watchers that share a stream; the streams share --connections connections
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) watchers_per_stream: u32,
    /// Of the watchers in slow-watchers, so many never read
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) silent: u32,
    /// Puts a second while they watch
    #[arg(long, default_value = "500")]
    pub(crate) watch_rate: NonZeroU32,
    /// Watchers in put-keys-watched, each of a key of its own, a thousand on a stream
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) key_watchers: u32,
}

/// Flags of the cases that list everything.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListFlags {
    /// Keys of a list
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) list_keys: u64,
    /// Keys of a page
    #[arg(long, default_value = "500")]
    pub(crate) page_keys: NonZeroU32,
}

/// Flags of the cases with many leases.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LeaseFlags {
    /// Leases that live at a time
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) leases: u32,
    /// How often each is renewed
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) lease_renewal: Duration,
}

/// Flags that shape the work of cases.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WorkFlags {
    /// Size of the loads
    #[command(flatten)]
    pub(crate) size: SizeFlags,
    /// Watchers
    #[command(flatten)]
    pub(crate) watch: WatchFlags,
    /// Leases
    #[command(flatten)]
    pub(crate) lease: LeaseFlags,
    /// Lists of everything
    #[command(flatten)]
    pub(crate) list: ListFlags,
    /// Operations a second in the steady cases
    #[arg(long, default_value = "500")]
    pub(crate) steady_rate: NonZeroU32,
    /// Connections of the case connections
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) idle_connections: u32,
}

/// Flags about the servers that are started.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerFlags {
    /// The program holdfast [default: the release build beside this program]
    #[arg(long, env = "HOLDFAST_BIN")]
    holdfast: Option<PathBuf>,
    /// More flags for holdfast, comma-separated, such as --engine=redb
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    holdfast_flag: Vec<String>,
    /// The program etcd
    #[arg(long, env = "ETCD_BIN", default_value = "target/peers/etcd")]
    etcd: PathBuf,
    /// Where the servers' directories are made, all on one disk
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub(crate) data_parent: PathBuf,
}

impl ServerFlags {
    /// The programs; the empty server answers with values of so many bytes.
    pub(crate) fn programs(&self, value_bytes: u32) -> Programs {
        Programs {
            holdfast: self.holdfast.clone().unwrap_or_else(default_holdfast),
            etcd: self.etcd.clone(),
            holdfast_flags: self.holdfast_flag.clone(),
            value_bytes,
        }
    }
}

/// Flags of a comparison.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CompareFlags {
    /// Members of each system
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) members: u32,
    /// Rounds of each case; each round runs it on every system in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// The work
    #[command(flatten)]
    pub(crate) work: WorkFlags,
    /// Cases to run, comma-separated
    #[arg(long = "case", value_enum, value_delimiter = ',', default_values = ["put", "get-linearizable", "get-serializable"])]
    pub(crate) cases: Vec<Case>,
    /// Systems to compare, comma-separated
    #[arg(long = "system", value_enum, value_delimiter = ',', default_values = ["holdfast", "etcd", "ceiling"])]
    pub(crate) systems: Vec<System>,
    /// Load before each measurement that is not counted
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// What is started
    #[command(flatten)]
    pub(crate) servers: ServerFlags,
    /// Write all rounds and summaries to this file, behind each case
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Keep what the file of --json says of cases that are not measured now
    #[arg(long, requires = "json")]
    pub(crate) keep: bool,
    /// Write the whole report to this file, as Markdown
    #[arg(long)]
    pub(crate) page: Option<PathBuf>,
    /// Write a picture of each figure into this directory
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// Curves that growth has written with --json, for the report
    #[arg(long)]
    pub(crate) growth: Option<PathBuf>,
}

/// Flags of a page.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PageFlags {
    /// What compare has written with --json
    #[arg(long)]
    pub(crate) results: PathBuf,
    /// What growth has written with --json
    #[arg(long)]
    pub(crate) growth: Option<PathBuf>,
    /// Where growth has written its pictures
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// The file to write, as Markdown
    #[arg(long)]
    pub(crate) page: PathBuf,
}

/// What the values of a footprint are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Values {
    /// Bytes that cannot be compressed
    Random,
    /// Objects in JSON, as configuration and service discovery keep them: names repeat, identities do not
    Json,
}

/// Flags of the footprint.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FootprintFlags {
    /// Members of each system
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) members: u32,
    /// Revisions to write
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revisions: u64,
    /// Different keys, each of which is written at least once
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// What values are made of
    #[arg(long, value_enum, default_value = "random")]
    pub(crate) values: Values,
    /// Bytes of a value; no two values are alike
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Puts under way at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Connections they share, spread over all members
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,
    /// Stretches that the load is cut into; the systems take turns
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) stretches: u32,
    /// How often a member is killed and started again
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) restarts: u32,
    /// How long after the compaction to the head the sizes are read
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) after_compaction: Duration,
    /// Systems, comma-separated
    #[arg(long = "system", value_enum, value_delimiter = ',', default_values = ["holdfast", "etcd"])]
    pub(crate) systems: Vec<System>,
    /// What is started
    #[command(flatten)]
    pub(crate) servers: ServerFlags,
    /// Write all figures to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// Flags of the lists.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ListingFlags {
    /// Members of each system; the first one is asked
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) members: u32,
    /// Keys that are there to be listed
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Bytes of a value; no two values are alike
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Keys of a page
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) page_keys: u32,
    /// Puts under way at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Connections they share, spread over all members
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,
    /// Systems, comma-separated
    #[arg(long = "system", value_enum, value_delimiter = ',', default_values = ["holdfast", "holdfast-redb", "etcd"])]
    pub(crate) systems: Vec<System>,
    /// What is started
    #[command(flatten)]
    pub(crate) servers: ServerFlags,
    /// Write all figures to this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// Flags of a load on running servers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadFlags {
    /// host:port of each member, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub(crate) endpoints: Vec<String>,
    /// What to do
    #[arg(value_enum)]
    pub(crate) case: Case,
    /// The work
    #[command(flatten)]
    pub(crate) work: WorkFlags,
}

/// Flags of the empty server.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CeilingFlags {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:2379")]
    pub(crate) listen: SocketAddr,
    /// Bytes of the value it answers with
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) value_bytes: u32,
}
