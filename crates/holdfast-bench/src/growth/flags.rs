//! The command line of the curves.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::cli::ServerFlags;
use crate::systems::System;

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CurveName {
    /// Keys of the store: CPU of puts and gets, memory, time of a restart
    Keys,
    /// Keys of a member alone with little memory for values: bytes of memory for each
    KeyMemory,
    /// Revisions of each key, likewise: bytes of memory for each
    RevisionMemory,
    /// Revisions of each key: CPU of puts and gets, memory
    Revisions,
    /// Watchers, of keys of their own, of one prefix, and of both: CPU of puts
    Watchers,
    /// Bytes of a value: CPU of puts, MiB a second
    Values,
    /// Members: CPU of puts and gets
    Members,
    /// Clients: CPU of puts, puts a second, latencies
    Clients,
}

impl CurveName {
    /// As flags and files have it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// How far the curves go.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RangeFlags {
    /// Keys at the end of keys and key-memory, which begin with 10,000
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1000..=1_000_000_000))]
    pub(crate) keys_max: u64,
    /// Revisions of each key at the end of revisions and revision-memory, which begin with 1
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    pub(crate) revisions_max: u64,
    /// Watchers at the end of watchers, which begins with 10
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    pub(crate) watchers_max: u32,
    /// Watchers of one prefix, at most: each put is an event for every one of them
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    pub(crate) prefix_watchers_max: u32,
    /// Bytes of a value at the end of values, which begins with 16
    #[arg(long, default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(16..=1_500_000))]
    pub(crate) value_bytes_max: u32,
    /// Clients at the end of clients, which begins with 1
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub(crate) clients_max: u32,
}

/// Flags of the curves.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GrowthFlags {
    /// Curves to measure, comma-separated [default: all]
    #[arg(long = "curve", value_enum, value_delimiter = ',')]
    pub(crate) curves: Vec<CurveName>,
    /// Systems, comma-separated, one after the other in each curve
    #[arg(long = "system", value_enum, value_delimiter = ',', default_values = ["holdfast"])]
    pub(crate) systems: Vec<System>,
    /// How far they go
    #[command(flatten)]
    pub(crate) range: RangeFlags,
    /// How long each load runs
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Load before each of them that is not counted
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub(crate) warm_up: Duration,
    /// Members of each system, where they are not what grows
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) members: u32,
    /// Operations under way at a time, where they are not what grows
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Connections they share, spread over all members
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) connections: u32,
    /// Bytes of a value, where they are not what grows
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Puts a second in watchers
    #[arg(long, default_value = "500")]
    pub(crate) watch_rate: NonZeroU32,
    /// What is started
    #[command(flatten)]
    pub(crate) servers: ServerFlags,
    /// Write all figures to this file; `page` and `compare` take it as --growth
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write the tables to this file, as Markdown
    #[arg(long)]
    pub(crate) section: Option<PathBuf>,
    /// Write a picture of each curve into this directory, as growth-CURVE.svg
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
}

impl GrowthFlags {
    /// The curves that are asked for.
    pub(crate) fn chosen(&self) -> Vec<CurveName> {
        if self.curves.is_empty() { CurveName::value_variants().to_vec() } else { self.curves.clone() }
    }
}
