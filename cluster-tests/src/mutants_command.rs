//! The command `mutants`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use cluster_tests::harness::binary;
use cluster_tests::mutants::table::Layer;
use cluster_tests::mutants::{self, Plan};

use super::duration;

#[derive(Debug, Args)]
pub(super) struct MutantsFlags {
    /// Only these mutants, by name
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only what is tried in these layers
    #[arg(long = "layer", value_enum, value_delimiter = ',')]
    layers: Vec<Layer>,
    /// A trial that has found nothing by then is stopped
    #[arg(long, default_value = "10m", value_parser = duration)]
    limit: Duration,
}

impl MutantsFlags {
    /// Whether each of them was found.
    #[expect(clippy::print_stdout, reason = "a command line tool reports on standard output")]
    pub(super) async fn run(self) -> Result<bool> {
        let Self { only, layers, limit } = self;
        let plan = Plan { only, layers, limit, holdfast: binary::holdfast()? };
        let stop = Stop::default();
        let stopped = Arc::clone(&stop.0);
        // It waits for processes, and ends with this future.
        let trials = move || mutants::run(&plan, stopped, |line| println!("{line}"));
        let report = tokio::task::spawn_blocking(trials);
        let report = report.await.context("the trials ended early")??;
        println!("{report}");
        Ok(report.is_clean())
    }
}

/// Ends the trials when it is dropped.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
