//! Compacts again and again: near the head, exactly there, and exactly at a delete, where etcd has lost events.
//!
//! Before each compaction it settles the chronicle: afterwards nobody could.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::calls::{TIMEOUT, compact};
use super::shared::Shared;
use crate::client::Client;
use crate::judge::watch::record::Compaction;

/// How far behind the head a compaction may stay.
const BACK_MAX: i64 = 1_500;

/// Between two looks at whether to stop.
const POLL: Duration = Duration::from_millis(50);

/// A running compactor.
#[derive(Debug)]
pub struct Compactor {
    task: JoinHandle<Vec<Compaction>>,
    stop: Arc<AtomicBool>,
}

impl Compactor {
    /// Compacts every `period`, through one member after the other.
    pub fn start(shared: Arc<Shared>, client: Client, channels: Vec<Channel>, period: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(shared, client, channels, period, Arc::clone(&stop)));
        Self { task, stop }
    }

    /// Stops it and gives what it asked for.
    pub async fn stop(self) -> Result<Vec<Compaction>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the compactor panicked")
    }
}

async fn run(
    shared: Arc<Shared>,
    client: Client,
    channels: Vec<Channel>,
    period: Duration,
    stop: Arc<AtomicBool>,
) -> Vec<Compaction> {
    let mut rng = shared.rng("compactor", 0);
    let mut asked: Vec<Compaction> = Vec::new();
    for round in 0_usize.. {
        let due = tokio::time::Instant::now() + period;
        while tokio::time::Instant::now() < due && !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(POLL).await;
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let member = round % channels.len();
        let Some(head) = settle_by_any(&shared, &client, member).await else { continue };
        let lowest = asked.last().map_or(1, |last| last.revision);
        let wanted = match rng.random_range(0..10) {
            0..2 => head,
            2..5 => shared.newest_delete().min(head),
            _ => head - rng.random_range(0..=BACK_MAX),
        };
        if wanted > lowest {
            asked.push(Compaction { revision: wanted, asked_at: shared.elapsed() });
            // Refused, or not answered: it counts as asked for, which is all that the judge needs to know.
            drop(compact(&channels[member], wanted).await);
        }
    }
    asked
}

/// Settles the chronicle through one member after the other, from `first` on, and gives the revision up to which that is
/// done; `None` if none of them can now.
pub async fn settle_by_any(shared: &Shared, client: &Client, first: usize) -> Option<i64> {
    for offset in 0..client.len() {
        if let Ok(head) = settle(shared, client, (first + offset) % client.len()).await {
            return Some(head);
        }
    }
    None
}

/// Has the chronicle tell everything up to the present revision, which it gives.
pub async fn settle(shared: &Shared, client: &Client, member: usize) -> Result<i64> {
    let head = client.revision(member, TIMEOUT).await?;
    shared.chronicle().settle(client, member, head).await?;
    Ok(head)
}
