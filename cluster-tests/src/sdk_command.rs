//! The commands `sdk` and `collector`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use cluster_tests::harness::cluster::System;
use cluster_tests::workload::watch::writers::Load;
use cluster_tests::workload::{collector, sdk};

use crate::duration;

/// Flags of `sdk`.
#[derive(Debug, Args)]
pub(crate) struct SdkFlags {
    /// A flag for every member, e.g. --member-flag=--engine=redb; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// How long load and faults go on, such as 30s or 10m
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Informers
    #[arg(long, default_value_t = 20)]
    informers: usize,
    /// Watches
    #[arg(long, default_value_t = 200)]
    watches: usize,
    /// Sessions that take one lock in turns
    #[arg(long, default_value_t = 4)]
    sessions: usize,
    /// Concurrent writers
    #[arg(long, default_value_t = 6)]
    writers: usize,
    /// Commands a second, of all writers together
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// Between two compactions, in milliseconds
    #[arg(long, default_value_t = 4_000)]
    compact_every_ms: u64,
    /// Seed of writers, compactions and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl SdkFlags {
    /// Runs it; whether nothing was found.
    pub(crate) async fn run(self) -> Result<bool> {
        let Self { duration, informers, watches, sessions, writers, rate, seed, .. } = self;
        let load = Load { writers, rate, value_bytes_max: 300 };
        let compact_every = Duration::from_millis(self.compact_every_ms);
        let plan = sdk::Plan { duration, informers, watches, sessions, load, compact_every, seed };
        let report = Box::pin(sdk::run(System::holdfast(&self.member_flags)?, plan)).await?;
        println!("{report}");
        Ok(report.is_clean())
    }
}

/// Flags of `collector`.
#[derive(Debug, Args)]
pub(crate) struct CollectorFlags {
    /// A flag for every member, e.g. --member-flag=--engine=redb; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// How long writes and troubles go on, such as 30s or 10m
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Objects of each of the three sources
    #[arg(long, default_value_t = 10_000)]
    objects: u64,
    /// Writes to the sources, a second
    #[arg(long, default_value_t = 60)]
    rate: u32,
    /// Writes to the sources and to the collection at once, a second
    #[arg(long, default_value_t = 20)]
    direct_rate: u32,
    /// Seed of writes and troubles
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl CollectorFlags {
    /// Runs it; whether nothing was found.
    pub(crate) async fn run(self) -> Result<bool> {
        let Self { duration, objects, rate, direct_rate, seed, .. } = self;
        let plan = collector::Plan { duration, objects, rate, direct_rate, seed };
        let report = Box::pin(collector::run(System::holdfast(&self.member_flags)?, plan)).await?;
        println!("{report}");
        Ok(report.findings.is_empty())
    }
}
