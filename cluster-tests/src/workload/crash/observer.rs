//! Looks at every member all the time: which positions it tells, and which revision it shows to those who ask it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::harness::scrape::Scrape;
use crate::judge::positions::{LocalRead, Positions, Sample};
use crate::workload::watch::shared::Shared;

/// Between two looks at one member.
const EVERY: Duration = Duration::from_millis(100);

/// How long a local read may take. A member that is down is asked again soon.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Positions, those of one member in their order.
    pub samples: Vec<Sample>,
    /// Local reads, those of one member in their order.
    pub reads: Vec<LocalRead>,
}

/// Running looks.
#[derive(Debug)]
pub struct Observer {
    tasks: JoinSet<Seen>,
    newest: Arc<Newest>,
}

/// What the looks and their owner share.
#[derive(Debug, Default)]
struct Newest {
    stop: AtomicBool,
    /// Of each member, how far it had purged its log when it was looked at last.
    purged: Vec<AtomicU64>,
    /// How often each member has been replaced.
    replaced: Vec<AtomicU64>,
    /// How often the stable store of each was taken from it.
    rebuilt: Vec<AtomicU64>,
}

impl Observer {
    /// Looks at the members at these URLs until it is stopped.
    pub fn start(shared: &Arc<Shared>, client: &Client, urls: &[String]) -> Self {
        let zeros = || urls.iter().map(|_| AtomicU64::new(0)).collect();
        let newest = Arc::new(Newest {
            stop: AtomicBool::new(false),
            purged: zeros(),
            replaced: zeros(),
            rebuilt: zeros(),
        });
        let mut tasks = JoinSet::new();
        for (member, url) in urls.iter().enumerate() {
            tasks.spawn(look(member, url.clone(), Arc::clone(shared), client.clone(), Arc::clone(&newest)));
        }
        Self { tasks, newest }
    }

    /// How far a member had purged its log when it was looked at last.
    pub fn purged(&self, member: usize) -> u64 {
        self.newest.purged[member].load(Ordering::Relaxed)
    }

    /// A member that is down will be another one when it is there again.
    pub fn replaced(&self, member: usize) {
        self.newest.replaced[member].fetch_add(1, Ordering::Relaxed);
    }

    /// A member that is down has to rebuild its stable store, whose positions begin anew. What it shows does not.
    pub fn rebuilt(&self, member: usize) {
        self.newest.rebuilt[member].fetch_add(1, Ordering::Relaxed);
    }

    /// Stops, and gives all that was seen.
    pub async fn stop(mut self) -> Result<Seen> {
        self.newest.stop.store(true, Ordering::Relaxed);
        let mut all = Seen::default();
        while let Some(seen) = self.tasks.join_next().await {
            let seen = seen.context("an observer panicked")?;
            all.samples.extend(seen.samples);
            all.reads.extend(seen.reads);
        }
        Ok(all)
    }
}

async fn look(member: usize, url: String, shared: Arc<Shared>, client: Client, newest: Arc<Newest>) -> Seen {
    let mut seen = Seen::default();
    while !newest.stop.load(Ordering::Relaxed) {
        let replaced = newest.replaced[member].load(Ordering::Relaxed);
        if let Ok(positions) = positions(&url).await {
            newest.purged[member].store(positions.purged, Ordering::Relaxed);
            let replaced = replaced + newest.rebuilt[member].load(Ordering::Relaxed);
            seen.samples.push(Sample { member, replaced, at: shared.elapsed(), positions });
        }
        if let Ok(revision) = client.local_revision(member, READ_TIMEOUT).await {
            seen.reads.push(LocalRead { member, replaced, at: shared.elapsed(), revision });
        }
        tokio::time::sleep(EVERY).await;
    }
    seen
}

async fn positions(url: &str) -> Result<Positions> {
    positions_in(&Scrape::of(url).await?)
}

fn positions_in(page: &Scrape) -> Result<Positions> {
    let applied = page.count("etcd_server_proposals_applied_total")?;
    Ok(Positions {
        applied,
        stable: applied.saturating_sub(page.count("holdfast_stable_lag_entries")?),
        durable: applied.saturating_sub(page.count("holdfast_durable_lag_entries")?),
        snapshot: page.count("holdfast_snapshot_index")?,
        purged: page.count("holdfast_log_purged_index")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lags_become_positions() {
        let page = "etcd_server_proposals_applied_total 90\nholdfast_stable_lag_entries 10\n\
            holdfast_durable_lag_entries 30\nholdfast_snapshot_index 50\nholdfast_log_purged_index 40\n";
        let positions = positions_in(&Scrape::parse(page).unwrap()).unwrap();
        let expected = Positions { applied: 90, stable: 80, durable: 60, snapshot: 50, purged: 40 };
        assert_eq!(positions, expected);
    }
}
