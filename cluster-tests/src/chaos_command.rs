//! The command `run`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use cluster_tests::harness::cluster::System;
use cluster_tests::nemesis::Fault;
use cluster_tests::workload::chaos::report::Report;
use cluster_tests::workload::chaos::{self, LENGTH, Minimum, Plan, Workload};

use super::{Against, control, duration};

/// With less than this a run proves nothing.
const MINIMUM: Minimum = Minimum { operations: 20_000, faults: 5 };

#[derive(Debug, Args)]
pub(super) struct RunFlags {
    /// Members
    #[arg(long, visible_alias = "members", default_value_t = 3)]
    nodes: usize,
    /// Faults, by name or group, or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    nemesis: Vec<String>,
    /// What clients do, or all
    #[arg(long, value_delimiter = ',', default_value = "all")]
    workload: Vec<String>,
    /// How long load and faults go on, such as 30s or 10m
    #[arg(long, default_value = "15m", value_parser = duration)]
    duration: Duration,
    /// How long each fault lasts, such as 3s; without it, from 0.3 to 2.5 s
    #[arg(long, value_parser = duration)]
    lasts: Option<Duration>,
    /// Seed of faults and clients
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What is under test
    #[arg(long, value_enum, default_value_t = Against::Holdfast)]
    against: Against,
    /// A flag for every member, e.g. --member-flag=--engine=redb; may be repeated
    #[arg(long = "member-flag", allow_hyphen_values = true)]
    member_flags: Vec<String>,
    /// Another build: every second rolling restart goes to it, and back
    #[arg(long)]
    other_binary: Option<PathBuf>,
    /// Calls a second, of all clients together, about
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Watchers
    #[arg(long, default_value_t = 60)]
    watchers: usize,
    /// Write verdict.txt, verdict.json and timeline.html into this directory
    #[arg(long)]
    report: Option<PathBuf>,
}

impl RunFlags {
    /// Whether nothing was found. Errors: it could not be run, or proves nothing.
    #[expect(clippy::print_stdout, reason = "a command line tool reports on standard output")]
    pub(super) async fn run(self) -> Result<bool> {
        let system = match self.against {
            Against::Holdfast => System::holdfast(&self.member_flags)?,
            Against::Etcd => control(&self.member_flags)?,
        };
        let plan = Plan {
            members: self.nodes,
            faults: Fault::named(&self.nemesis)?,
            workloads: Workload::named(&self.workload)?,
            duration: self.duration,
            length: self.lasts.map_or(LENGTH, |lasts| lasts..=lasts),
            rounds: None,
            rate: self.rate,
            watchers: self.watchers,
            other_binary: self.other_binary,
            minimum: MINIMUM,
            seed: self.seed,
        };
        let report = Box::pin(chaos::run(system, plan, |line| println!("{line}"))).await?;
        println!("{report}");
        if let Some(directory) = &self.report {
            write(&report, directory)?;
        }
        if !report.findings.is_empty() {
            return Ok(false);
        }
        if !report.void().is_empty() {
            bail!("the run is void");
        }
        Ok(true)
    }
}

fn write(report: &Report, directory: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let files = [
        ("verdict.txt", report.to_string()),
        ("verdict.json", format!("{:#}\n", report.json())),
        ("timeline.html", report.html()),
    ];
    for (name, text) in files {
        std::fs::write(directory.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}
