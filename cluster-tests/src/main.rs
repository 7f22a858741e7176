//! The harness as a command: long runs that `cargo test` leaves out, on holdfast or on real etcd as the control.
#![expect(clippy::print_stdout, reason = "a command line tool reports on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use cluster_tests::differ;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::System;
use cluster_tests::workload::writers::Load;
use cluster_tests::workload::{failover, kill};

/// Starts real processes, breaks them, and judges what clients saw.
#[derive(Debug, Parser)]
#[command(name = "cluster-tests")]
struct Cli {
    #[command(subcommand)]
    command: Workload,
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Writers under SIGKILL: the leader twice, then all members; every acknowledged put must be there
    Kill(KillFlags),
    /// The leader killed again and again: time to the first acknowledged write
    Failover(FailoverFlags),
    /// The same random calls to real etcd and to holdfast: everything a client can see is compared
    Differ(DifferFlags),
}

#[derive(Debug, Args)]
struct SystemFlags {
    /// Run real etcd instead of holdfast: ETCD_BIN, or what scripts/fetch-peers has put down
    #[arg(long)]
    etcd: bool,
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
struct DifferFlags {
    /// Calls in all, spread over the seeds
    #[arg(long, default_value_t = 50_000)]
    calls: usize,
    /// How many seeds, from 1 on
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// This seed alone
    #[arg(long)]
    seed: Option<u64>,
    /// How many watchers live at any time, about
    #[arg(long, default_value_t = 20)]
    watchers: usize,
    /// Sizes of the clusters that are compared with one member of etcd
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    members: Vec<usize>,
    /// What is compared with etcd: etcd itself is the control
    #[arg(long, value_enum, default_value_t = AgainstFlag::Holdfast)]
    against: AgainstFlag,
    /// A flag for every member of both sides, e.g. --member-flag=--max-txn-ops=5; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// How many plays shrinking may take
    #[arg(long, default_value_t = 150)]
    shrink_plays: usize,
    /// Play this file of calls instead of random ones
    #[arg(long)]
    script: Option<PathBuf>,
    /// With --script: print everything etcd answers and sends
    #[arg(long)]
    show: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum AgainstFlag {
    Holdfast,
    Etcd,
}

impl DifferFlags {
    fn plan(&self) -> differ::Plan {
        differ::Plan {
            calls: self.calls,
            seeds: self.seed.map_or_else(|| (1..=self.seeds).collect(), |seed| vec![seed]),
            watchers: self.watchers,
            members: self.members.clone(),
            against: match self.against {
                AgainstFlag::Holdfast => differ::Against::Holdfast,
                AgainstFlag::Etcd => differ::Against::Etcd,
            },
            member_flags: self.member_flags.clone(),
            shrink_plays_max: self.shrink_plays,
        }
    }
}

impl SystemFlags {
    fn system(&self) -> Result<System> {
        if !self.etcd {
            return System::holdfast(&self.member_flags);
        }
        let etcd: PathBuf = binary::etcd().context("no etcd: set ETCD_BIN or run scripts/fetch-peers")?;
        Ok(System::etcd(etcd, &self.member_flags))
    }
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

/// Whether the run came to what it must come to.
async fn run(command: Workload) -> Result<bool> {
    match command {
        Workload::Kill(flags) => {
            let timeout = Duration::from_millis(flags.timeout_ms);
            let KillFlags { writers, value_bytes, seed, puts, .. } = flags;
            let load = Load { writers, value_bytes, timeout, seed };
            let down = Duration::from_millis(flags.down_ms);
            let plan = kill::Plan { members: flags.system.members, puts, load, down };
            let report = kill::run(flags.system.system()?, plan).await?;
            println!("{report}");
            Ok(report.verdict.is_clean())
        }
        Workload::Failover(flags) => {
            let plan = failover::Plan { members: flags.system.members, kills: flags.kills, seed: flags.seed };
            let report = failover::run(flags.system.system()?, &plan).await?;
            println!("{report}");
            let median = report.spread().context("no kill was made")?.median;
            Ok(flags.median_below_ms.is_none_or(|bound| median < Duration::from_millis(bound)))
        }
        Workload::Differ(flags) => compare(&flags).await,
    }
}

async fn compare(flags: &DifferFlags) -> Result<bool> {
    let plan = flags.plan();
    if let Some(path) = &flags.script {
        let shown = if flags.show { differ::Shown::Transcript } else { differ::Shown::Differences };
        let (text, is_same) = differ::play_file(&plan, path, shown).await?;
        println!("{text}");
        return Ok(is_same);
    }
    let outcome = differ::run(&plan, |line| println!("{line}")).await?;
    println!("{outcome}");
    Ok(outcome.differences.is_empty())
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
