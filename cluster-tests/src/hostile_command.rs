//! The commands `hostile`, and `crowd`, which it runs.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cluster_tests::harness::cluster::System;
use cluster_tests::workload::hostile::crowd::Crowd;
use cluster_tests::workload::hostile::{Plan, run};

use crate::duration;

/// Flags of `hostile`.
#[derive(Debug, Args)]
pub(crate) struct HostileFlags {
    /// Connections of the crowd
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Acts of the whole crowd, a second
    #[arg(long, default_value_t = 300.0)]
    acts_per_second: f64,
    /// How long it stays
    #[arg(long, default_value = "5m", value_parser = duration)]
    duration: Duration,
    /// How long puts are measured without it, before and after
    #[arg(long, default_value = "30s", value_parser = duration)]
    calm: Duration,
    /// Seed of what the crowd does
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl HostileFlags {
    /// Runs it; whether nothing was found.
    pub(crate) async fn run(self, system: System) -> Result<bool> {
        let Self { connections, acts_per_second, duration, calm, seed } = self;
        let report = run(system, Plan { connections, acts_per_second, duration, calm, seed }).await?;
        println!("{report}");
        Ok(report.findings.is_empty())
    }
}

/// Flags of `crowd`.
#[derive(Debug, Args)]
pub(crate) struct CrowdFlags {
    /// host:port of a member; one for each
    #[arg(long = "member")]
    members: Vec<String>,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    acts_per_second: f64,
    #[arg(long, value_parser = duration)]
    during: Duration,
    #[arg(long)]
    seed: u64,
}

impl CrowdFlags {
    /// Comes, stays, and says what it did.
    pub(crate) async fn run(self) -> Result<bool> {
        let Self { members, connections, acts_per_second, during, seed } = self;
        println!("{}", Crowd { members, connections, acts_per_second, during, seed }.run().await?);
        Ok(true)
    }
}
