//! What is collected from: a cluster of one member that nobody breaks, with some sources in it, and its whole past.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::past;
use crate::client::{Client, Contents, TIMEOUT};
use crate::harness::cluster::{Cluster, System};
use crate::judge::sdk::world::Change;
use crate::judge::watch::history::Step;
use crate::workload::watch::calls::{Fate, carry_out, compact};

/// The sources: the first part of their keys.
pub const SOURCES: [&str; 3] = ["s0", "s1", "s2"];

/// Objects that are put at a time while it is filled.
const FILLED_AT_ONCE: u64 = 100;

/// One of so many writes is a deletion.
const DELETE_EACH: u64 = 6;

/// The origin.
#[derive(Debug)]
pub struct Origin {
    cluster: Cluster,
    client: Client,
    past: Vec<Change>,
    /// The past is known up to here.
    read: i64,
}

impl Origin {
    /// Starts it, with so many objects in each source.
    pub async fn start(system: System, objects: u64) -> Result<Self> {
        let cluster = Cluster::start(system, 1).await?;
        let client = Client::new(&cluster.endpoints())?;
        let channel = client.channel(0);
        for source in SOURCES {
            for first in (0..objects).step_by(usize::try_from(FILLED_AT_ONCE)?) {
                let steps: Vec<Step> = (first..objects.min(first + FILLED_AT_ONCE))
                    .map(|object| put(source, object, format!("first/{object:06}")))
                    .collect();
                let fate = carry_out(&channel, &steps).await;
                ensure!(matches!(fate, Fate::At(_)), "the origin is not filled: {fate:?}");
            }
        }
        Ok(Self { cluster, client, past: Vec::new(), read: 1 })
    }

    /// Where it serves clients.
    pub fn url(&self) -> String {
        self.cluster.endpoints().swap_remove(0)
    }

    /// A connection.
    pub fn channel(&self) -> Channel {
        self.client.channel(0)
    }

    /// Reads its past up to now, then has it forgotten.
    pub async fn compact(&mut self) -> Result<()> {
        let head = self.learn().await?;
        compact(&self.channel(), head).await.context("the origin is not compacted")?;
        Ok(())
    }

    /// Reads its past up to now. Gives the revision.
    pub async fn learn(&mut self) -> Result<i64> {
        let head = self.client.revision(0, TIMEOUT).await?;
        let changes = past::read(&self.channel(), self.read + 1, head).await;
        self.past.extend(changes.context("the past of the origin")?);
        self.read = self.read.max(head);
        Ok(head)
    }

    /// What it holds.
    pub async fn contents(&self) -> Result<Contents> {
        self.client.contents(0, 0).await
    }

    /// Its whole past, as far as it was read.
    pub fn past(&self) -> &[Change] {
        &self.past
    }

    /// Keeps its directory.
    pub fn keep(&mut self) {
        self.cluster.keep();
    }
}

fn put(source: &str, object: u64, value: String) -> Step {
    Step::Put { key: key(source, object), value: value.into(), lease: 0 }
}

fn key(source: &str, object: u64) -> Bytes {
    format!("{source}/ns/{object:06}").into()
}

/// Writes to the origin, and to nothing else.
#[derive(Debug)]
pub struct OriginWriter {
    task: JoinHandle<u64>,
    stop: Arc<AtomicBool>,
}

impl OriginWriter {
    /// Starts it, with so many writes a second.
    pub fn start(channel: Channel, mut rng: StdRng, objects: u64, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                tick.tick().await;
                number += 1;
                let (source, object) =
                    (SOURCES[rng.random_range(0..SOURCES.len())], rng.random_range(0..objects));
                let step = if number.is_multiple_of(DELETE_EACH) {
                    Step::Delete { key: key(source, object), range_end: Bytes::new() }
                } else {
                    put(source, object, format!("own/{number}/{object:06}"))
                };
                // What became of it, the past tells.
                carry_out(&channel, &[step]).await;
            }
            number
        });
        Self { task, stop }
    }

    /// Stops it; how much it wrote.
    pub async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the writer panicked")
    }
}
