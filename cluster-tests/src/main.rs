//! The harness as a command: long runs that `cargo test` leaves out, on holdfast or on real etcd as the control.
#![expect(clippy::print_stdout, reason = "a command line tool reports on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use chaos_command::RunFlags;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::conformance::{document, observed};
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::watch::check_perf;
use cluster_tests::workload::crash::points::Point;
use cluster_tests::workload::writers::Load;
use cluster_tests::workload::{
    apiserver, crash, dump_latency, dump_policy, failover, kill, lease_fencing, replace, watch,
};
use differ_command::DifferFlags;
use hostile_command::{CrowdFlags, HostileFlags};
use mutants_command::MutantsFlags;
use sdk_command::{CollectorFlags, SdkFlags};

mod chaos_command;
mod differ_command;
mod hostile_command;
mod mutants_command;
mod sdk_command;

/// Starts real processes, breaks them, and judges what clients saw.
#[derive(Debug, Parser)]
#[command(name = "cluster-tests")]
struct Cli {
    #[command(subcommand)]
    command: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Everything at once: workloads that share a cluster, faults of every kind, every judge, a verdict of one page
    Run(RunFlags),
    /// Writers under SIGKILL: the leader twice, then all members; every acknowledged put must be there
    Kill(KillFlags),
    /// API servers with their exact calls while the leader is killed: lists, caches, transactions, compactors judged
    Apiserver(ApiserverFlags),
    /// The leader killed again and again: time to the first acknowledged write
    Failover(FailoverFlags),
    /// Members die at each named point under load and come back; writes, watchers, hashes and positions judged
    Crash(CrashFlags),
    /// p99 of puts while the leader dumps, a client lists all keys, and history is compacted, beside p99 without
    DumpLatency(DumpLatencyFlags),
    /// A store grown from empty and rewritten: what dumps write and how long the log gets, against the policy's bounds
    DumpPolicy(DumpPolicyFlags),
    /// Members without their disk replaced: one in a large cluster over connections that break, then all, under load
    Replace(ReplaceFlags),
    /// The leader stopped and continued again and again, leases kept alive through whoever leads: none may end early or late
    LeaseFencing(LeaseFencingFlags),
    /// The same random calls to real etcd and to holdfast: everything a client can see is compared
    Differ(DifferFlags),
    /// Writes docs/conformance.md from the scripts, the tags in the tests and what comparisons have seen
    ConformanceDoc {
        /// Play all scripts on real etcd and on holdfast first, and write what there was to see
        #[arg(long)]
        observe: bool,
    },
    /// One mistake after the other planted in tests, simulation and members: something has to find each of them
    Mutants(MutantsFlags),
    /// Watchers that come, go and resume under kills, pauses and compaction; every law of watches judged
    Watch(WatchFlags),
    /// The SDK in a process of its own: informers, watches, sessions and a lock under faults, held against the server
    Sdk(SdkFlags),
    /// A collector of three sources in a process of its own, restarted, cut off and rolled back, with somebody racing it
    Collector(CollectorFlags),
    /// Lists all keys of a member in one call, again and again: what dump-latency runs beside its puts
    #[command(hide = true)]
    ListKeys {
        /// Where it serves clients
        url: String,
        /// No list begins after this time
        #[arg(value_parser = duration)]
        during: Duration,
    },
    /// A crowd of clients without credentials that send garbage, too much, or do not read: memory bounded, others undisturbed
    Hostile {
        #[command(flatten)]
        members: SystemFlags,
        #[command(flatten)]
        hostile: HostileFlags,
    },
    /// The crowd of hostile
    #[command(hide = true)]
    Crowd(CrowdFlags),
    /// etcdctl check perf, in each version that is here, on etcd and on holdfast: it must end and give its verdict
    CheckPerf,
}

/// What is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Against {
    Holdfast,
    /// The control
    Etcd,
}

#[derive(Debug, Args)]
struct SystemFlags {
    /// Run real etcd instead of holdfast: ETCD_BIN, or what scripts/fetch-peers has put down
    #[arg(long)]
    etcd: bool,
    /// The same by name
    #[arg(long, value_enum, default_value_t = Against::Holdfast)]
    against: Against,
    /// A flag for every member, e.g. --member-flag=--engine=redb; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// Members
    #[arg(long, default_value_t = 3)]
    members: usize,
}

#[derive(Debug, Args)]
struct KillFlags {
    #[command(flatten)]
    system: SystemFlags,
    /// Acknowledged puts to reach
    #[arg(long, default_value_t = 100_000)]
    puts: u64,
    /// So many kills of one member or of all at random moments, instead of the three; --puts has no meaning then
    #[arg(long, default_value_t = 0)]
    kills: usize,
    /// Concurrent writers
    #[arg(long, default_value_t = 64)]
    writers: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
    /// A put is given up after so many milliseconds
    #[arg(long, default_value_t = 3_000)]
    timeout_ms: u64,
    /// How long a killed leader stays away, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    down_ms: u64,
    /// Seed of the values
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ApiserverFlags {
    /// Run real etcd instead of holdfast, as the control: ETCD_BIN, or what scripts/fetch-peers has put down
    #[arg(long)]
    etcd: bool,
    /// A flag for every member, e.g. --member-flag=--engine=redb; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// How long load and faults go on, such as 30s or 10m
    #[arg(long, default_value = "5m", value_parser = duration)]
    duration: Duration,
    /// Writers of each of the three API servers
    #[arg(long, default_value_t = 3)]
    writers: usize,
    /// Between two turns of a compactor, about, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    compact_every_ms: u64,
    /// Seed of load and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct CrashFlags {
    /// Engines of the stable store
    #[arg(long, value_delimiter = ',', default_values_t = ["sled".to_owned(), "redb".to_owned()])]
    engines: Vec<String>,
    /// Points to die at, and disasters, by name [default: all]
    #[arg(long, value_delimiter = ',')]
    points: Vec<String>,
    /// Deaths at each point on each engine: rounds, the first one with this seed, each next one with the next
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Watchers
    #[arg(long, default_value_t = 24)]
    watchers: usize,
    /// Commands a second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Seed of the first round
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct DumpLatencyFlags {
    #[command(flatten)]
    system: SystemFlags,
    /// Keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 1_024)]
    value_bytes: usize,
    /// Pairs of windows of each comparison; the median of each side counts
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Length of a window
    #[arg(long, default_value = "6s", value_parser = duration)]
    window: Duration,
    /// Only what goes on beside the puts that is named here
    #[arg(long, value_enum, value_delimiter = ',', default_value = "dump,list,compaction")]
    only: Vec<dump_latency::Beside>,
    /// Dumps whose switches are measured, with `--only switches`
    #[arg(long, default_value_t = 200)]
    dumps: u64,
    /// Wait for a line on standard input between filling the store and measuring
    #[arg(long)]
    wait: bool,
    /// Seed of values and keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct DumpPolicyFlags {
    #[command(flatten)]
    system: SystemFlags,
    /// MiB to grow to
    #[arg(long, default_value_t = 64)]
    store_mib: u64,
    /// How many times that is written in all
    #[arg(long, default_value_t = 10)]
    times: u64,
    /// MiB of log that make a dump due, and of a segment
    #[arg(long, default_value_t = 4)]
    dump_log_mib: u64,
    /// Seed of values and keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct FailoverFlags {
    #[command(flatten)]
    system: SystemFlags,
    /// Kills
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Fail when the median is not below so many milliseconds
    #[arg(long)]
    median_below_ms: Option<u64>,
    /// Seed of the pauses between kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct ReplaceFlags {
    /// A flag for every member, e.g. --member-flag=--engine=redb; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// MiB of values in the large cluster
    #[arg(long, default_value_t = 2_048)]
    store_mib: u64,
    /// KiB of each of them
    #[arg(long, default_value_t = 64)]
    value_kib: usize,
    /// How often the connections of the new member break while it receives the snapshot
    #[arg(long, default_value_t = 3)]
    cuts: u32,
    /// How long puts are measured before
    #[arg(long, default_value = "20s", value_parser = duration)]
    window: Duration,
    /// Concurrent writers while all three are replaced
    #[arg(long, default_value_t = 16)]
    writers: u64,
    /// Seed of the values
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct LeaseFencingFlags {
    #[command(flatten)]
    system: SystemFlags,
    /// How often the leader is stopped
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Leases that are kept alive all the time
    #[arg(long, default_value_t = 6)]
    kept: usize,
    /// Leases of each round that are left to die
    #[arg(long, default_value_t = 8)]
    dying: usize,
    /// Seed of the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct WatchFlags {
    #[command(flatten)]
    system: SystemFlags,
    /// How long load and faults go on, such as 30s or 10m
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Watchers
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    /// Concurrent writers
    #[arg(long, default_value_t = 8)]
    writers: usize,
    /// Commands a second, of all writers together
    #[arg(long, default_value_t = 150)]
    rate: u32,
    /// Bytes of a value at most
    #[arg(long, default_value_t = 600)]
    value_bytes_max: usize,
    /// Between two compactions, in milliseconds
    #[arg(long, default_value_t = 4_000)]
    compact_every_ms: u64,
    /// Seed of watchers, moods, commands and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Reads 90, 90s or 10m.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text} is no duration such as 30s or 10m"))?;
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| format!("{text} is too long"))
}

impl SystemFlags {
    fn system(&self) -> Result<System> {
        if !self.etcd && self.against == Against::Holdfast {
            return System::holdfast(&self.member_flags);
        }
        control(&self.member_flags)
    }
}

fn control(member_flags: &[String]) -> Result<System> {
    let etcd: PathBuf = binary::etcd().context("no etcd: set ETCD_BIN or run scripts/fetch-peers")?;
    Ok(System::etcd(etcd, member_flags))
}

#[tokio::main]
async fn main() -> ExitCode {
    // Ctrl-C and SIGTERM end the run by dropping it, so that the processes it started are killed.
    let outcome = tokio::select! {
        outcome = run(Cli::parse().command) => outcome,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("cluster-tests: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn api_servers(flags: &ApiserverFlags) -> Result<bool> {
    let compact_every = Duration::from_millis(flags.compact_every_ms);
    let ApiserverFlags { duration, writers, seed, .. } = *flags;
    let plan = apiserver::Plan { duration, writers, compact_every, seed };
    let system =
        if flags.etcd { control(&flags.member_flags)? } else { System::holdfast(&flags.member_flags)? };
    let report = Box::pin(apiserver::run(system, plan)).await?;
    println!("{report}");
    Ok(report.is_clean())
}

async fn replaced(flags: ReplaceFlags) -> Result<bool> {
    let ReplaceFlags { member_flags, store_mib, value_kib, cuts, window, writers, seed } = flags;
    // Its store is larger than the default quota.
    let member_flags = [vec!["--quota-backend-bytes=-1".to_owned()], member_flags].concat();
    let load = Load { writers, value_bytes: 128, timeout: Duration::from_secs(3), seed };
    let (store_bytes, value_bytes) = (store_mib << 20, value_kib << 10);
    let plan = replace::Plan { store_bytes, value_bytes, cuts, window, load };
    let report = Box::pin(replace::run(System::holdfast(&member_flags)?, plan)).await?;
    println!("{report}");
    Ok(report.is_clean())
}

/// Whether the run came to what it must come to.
async fn run(command: Workload) -> Result<bool> {
    match command {
        Workload::Run(flags) => flags.run().await,
        Workload::Kill(flags) => {
            let timeout = Duration::from_millis(flags.timeout_ms);
            let KillFlags { writers, value_bytes, seed, puts, .. } = flags;
            let load = Load { writers, value_bytes, timeout, seed };
            let down = Duration::from_millis(flags.down_ms);
            let (members, random_kills) = (flags.system.members, flags.kills);
            let plan = kill::Plan { members, puts, random_kills, load, down };
            let report = kill::run(flags.system.system()?, plan).await?;
            println!("{report}");
            Ok(report.verdict.is_clean())
        }
        Workload::Apiserver(flags) => api_servers(&flags).await,
        Workload::Failover(flags) => {
            let plan = failover::Plan { members: flags.system.members, kills: flags.kills, seed: flags.seed };
            let report = failover::run(flags.system.system()?, &plan).await?;
            println!("{report}");
            let median = report.spread().context("no kill was made")?.median;
            Ok(flags.median_below_ms.is_none_or(|bound| median < Duration::from_millis(bound)))
        }
        Workload::Crash(flags) => crash_rounds(&flags).await,
        Workload::DumpLatency(flags) => latencies(&flags).await,
        Workload::DumpPolicy(flags) => {
            let DumpPolicyFlags { system, store_mib, times, dump_log_mib, seed } = flags;
            let (dump_log_bytes, segment_bytes) = (dump_log_mib << 20, dump_log_mib << 20);
            let store_bytes = store_mib << 20;
            let plan = dump_policy::Plan { store_bytes, times, dump_log_bytes, segment_bytes, seed };
            let report = dump_policy::run(system.system()?, plan).await?;
            println!("{report}");
            Ok(report.is_clean())
        }
        Workload::Replace(flags) => replaced(flags).await,
        Workload::LeaseFencing(flags) => {
            let LeaseFencingFlags { system, rounds, kept, dying, seed } = flags;
            let plan = lease_fencing::Plan { members: system.members, rounds, kept, dying, seed };
            let report = lease_fencing::run(system.system()?, plan).await?;
            println!("{report}");
            Ok(report.is_clean())
        }
        Workload::Watch(flags) => {
            let WatchFlags { duration, watchers, writers, rate, value_bytes_max, seed, .. } = flags;
            let load = watch::writers::Load { writers, rate, value_bytes_max };
            let compact_every = Duration::from_millis(flags.compact_every_ms);
            let members = flags.system.members;
            let plan = watch::Plan { members, watchers, duration, compact_every, load, seed };
            let report = watch::run(flags.system.system()?, plan).await?;
            println!("{report}");
            Ok(report.is_clean())
        }
        Workload::Sdk(flags) => flags.run().await,
        Workload::Collector(flags) => flags.run().await,
        Workload::Mutants(flags) => flags.run().await,
        Workload::Differ(flags) => flags.run().await,
        Workload::Hostile { members, hostile } => hostile.run(members.system()?).await,
        Workload::Crowd(flags) => flags.run().await,
        Workload::ListKeys { url, during } => {
            let (keys, times) = dump_latency::list_keys(&url, during).await?;
            println!("{keys} {times}");
            Ok(true)
        }
        Workload::CheckPerf => check_perf().await,
        Workload::ConformanceDoc { observe } => write_document(observe).await,
    }
}

/// Plays all rounds, and prints the table as it is after each of them on the way.
async fn crash_rounds(flags: &CrashFlags) -> Result<bool> {
    let named = |name: &String| Point::named(name).with_context(|| format!("no point is named {name}"));
    let points: Vec<&'static Point> = match flags.points.as_slice() {
        [] => Point::all().collect(),
        names => names.iter().map(named).collect::<Result<_>>()?,
    };
    let mut report = crash::report::Report::default();
    for seed in flags.seed..flags.seed + flags.rounds {
        for engine in &flags.engines {
            let (watchers, rate) = (flags.watchers, flags.rate);
            let plan = crash::Plan { engine: engine.clone(), points: points.clone(), watchers, rate, seed };
            let round = Box::pin(crash::run(System::holdfast(&[])?, plan, |line| println!("{line}"))).await?;
            let (deaths, missed) = (round.deaths.len(), round.missed.len());
            let verdict = if round.is_clean() { "no finding" } else { "FINDINGS" };
            println!("{engine}, seed {seed}: {deaths} deaths, {missed} times not reached, {verdict}");
            round.broken.iter().for_each(|broken| println!("  {broken}"));
            report.rounds.push(round);
        }
    }
    println!("{report}");
    for (engine, point) in report.never_reached() {
        println!("nobody died at {point} on {engine}");
    }
    Ok(report.is_clean() && report.never_reached().is_empty())
}

async fn latencies(flags: &DumpLatencyFlags) -> Result<bool> {
    let DumpLatencyFlags { keys, value_bytes, pairs, window, dumps, seed, .. } = *flags;
    let beside = flags.only.clone();
    let plan = dump_latency::Plan { keys, value_bytes, pairs, window, seed, beside, dumps };
    let go = async || {
        println!("the store is filled");
        if flags.wait {
            let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
            line.await.context("reading standard input")??;
        }
        Ok(())
    };
    let report = Box::pin(dump_latency::run(flags.system.system()?, plan, go)).await?;
    println!("{report}");
    Ok(report.is_clean())
}

/// Prints the verdicts; fails when one does not come, or not in etcdctl's form.
async fn check_perf() -> Result<bool> {
    let etcd = binary::etcd().context("no etcd: set ETCD_BIN or run scripts/fetch-peers")?;
    let installed = Some(PathBuf::from("/usr/bin/etcdctl")).filter(|program| program.is_file());
    for program in installed.into_iter().chain(binary::etcdctl()) {
        for system in [System::etcd(etcd.clone(), &[]), System::holdfast(&[])?] {
            let label = system.label.clone();
            let verdict = check_perf::run_on(&program, system, 3).await?;
            println!("{} on {label}, exit code {:?}", program.display(), verdict.code);
            verdict.lines.iter().for_each(|line| println!("  {line}"));
        }
    }
    Ok(true)
}

async fn write_document(observe: bool) -> Result<bool> {
    if observe {
        let etcd = binary::etcd().context("no etcd: set ETCD_BIN or run scripts/fetch-peers")?;
        let observed = observed::observe(&System::etcd(etcd, &[]), &System::holdfast(&[])?).await?;
        std::fs::write(data_dir().join("observed.txt"), observed.text()).context("writing observed.txt")?;
    }
    let path = binary::workspace().join(document::DOCUMENT);
    std::fs::write(&path, document::document()?).with_context(|| format!("writing {}", path.display()))?;
    println!("{} is written", path.display());
    Ok(true)
}

/// Returns when the process is asked to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}
