//! The harness as a command: long runs that `cargo test` leaves out, on holdfast or on real etcd as the control.
#![expect(clippy::print_stdout, reason = "a command line tool reports on standard output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
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
    }
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
