//! The time to the first write behind a fault, with puts that the history of the run knows of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::client::{Client, Outcome};
use crate::judge::watch::history::Step;
use crate::workload::first_ack::{TIMEOUT, first_ack};
use crate::workload::watch::shared::Shared;

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
        let (probe, began) = (self.clone(), Instant::now());
        let members = self.client.len();
        tokio::spawn(async move { first_ack(began, members, |member, _| probe.clone().put(member)).await })
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
