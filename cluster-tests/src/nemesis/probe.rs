//! How long nobody could write: puts through every member, every few milliseconds, until one is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::{Client, Outcome};
use crate::judge::watch::history::Step;
use crate::workload::watch::shared::Shared;

/// Every member is tried so often.
const EVERY: Duration = Duration::from_millis(20);

/// A put is given up after this long. It does not hold up the next one.
const TIMEOUT: Duration = Duration::from_millis(1_000);

/// Puts that may be under way at a time; above it, none is added until one ends.
const PUTS_MAX: usize = 200;

/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// Probes of one run. Their values never repeat.
#[derive(Debug, Clone)]
pub struct Probe {
    client: Client,
    shared: Arc<Shared>,
    number: Arc<AtomicU64>,
}

impl Probe {
    /// Probes through every member of `client`, whose connections have been used before.
    pub fn new(client: Client, shared: Arc<Shared>) -> Self {
        Self { client, shared, number: Arc::default() }
    }

    /// Begins now; the time until the acknowledgement of the first put that is called from now on.
    pub fn start(&self) -> JoinHandle<Option<Duration>> {
        tokio::spawn(self.clone().first_ack(Instant::now()))
    }

    async fn first_ack(self, began: Instant) -> Option<Duration> {
        let mut puts = JoinSet::new();
        let mut tick = tokio::time::interval(EVERY);
        while began.elapsed() < PATIENCE {
            tokio::select! {
                // Cancel-safe: a tick that was not taken stays due.
                _ = tick.tick() => {
                    for member in 0..self.client.len() {
                        if puts.len() < PUTS_MAX {
                            puts.spawn(self.clone().put(member));
                        }
                    }
                }
                // Cancel-safe: a result that was not taken stays in the set.
                Some(put) = puts.join_next() => {
                    if put.unwrap_or(false) {
                        return Some(began.elapsed());
                    }
                }
            }
        }
        None
    }

    async fn put(self, member: usize) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (key, value) = (Bytes::from(format!("probe/{member}")), Bytes::from(format!("{number:08}")));
        let outcome = self.client.put(member, key.clone(), value.clone(), TIMEOUT).await;
        if let Outcome::Acked(revision) = outcome {
            self.shared.saw(revision);
            self.shared.chronicle().told(revision, &[Step::Put { key, value, lease: 0 }]);
        }
        matches!(outcome, Outcome::Acked(_))
    }
}
