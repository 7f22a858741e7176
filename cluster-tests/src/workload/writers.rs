//! Writers that put without a pause and record every outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;

use crate::client::{Client, Outcome};
use crate::judge::durability::Attempt;

/// Pause after a put that failed, so that a dead cluster is asked often and not flooded.
const PAUSE: Duration = Duration::from_millis(20);

/// One put in so many goes to a hot key.
const HOT_EVERY: u64 = 8;

/// Hot keys of one writer.
const HOT_KEYS: u64 = 4;

/// What the writers do.
#[derive(Debug, Clone)]
pub struct Load {
    /// Concurrent writers; each has one put under way at a time.
    pub writers: u64,
    /// Bytes of each value, at least 24.
    pub value_bytes: usize,
    /// Puts are given up after this long, and count as unknown.
    pub timeout: Duration,
    /// Makes the values, and so a run, repeatable as far as the writers are concerned.
    pub seed: u64,
}

/// A put with its times, both since the writers began.
#[derive(Debug, Clone)]
pub struct Timed {
    /// What was tried and what came of it.
    pub attempt: Attempt,
    /// When the call was made.
    pub started: Duration,
    /// When its outcome was known.
    pub ended: Duration,
}

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    tasks: JoinSet<Vec<Timed>>,
    shared: Arc<Shared>,
}

/// What writers tell each other and the one who watches them.
#[derive(Debug)]
struct Shared {
    client: Client,
    load: Load,
    began: Instant,
    stop: AtomicBool,
    /// Acknowledged puts.
    acked: AtomicU64,
    /// The highest revision any writer was told.
    revision: AtomicI64,
    /// The latest start of a put that was acknowledged, in microseconds since the beginning.
    newest_start_us: AtomicU64,
}

impl Writers {
    /// Starts them on the endpoints of `client`.
    pub fn start(client: Client, load: Load) -> Self {
        let shared = Arc::new(Shared {
            client,
            began: Instant::now(),
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            revision: AtomicI64::new(0),
            newest_start_us: AtomicU64::new(0),
            load,
        });
        let mut tasks = JoinSet::new();
        for number in 0..shared.load.writers {
            tasks.spawn(write(number, Arc::clone(&shared)));
        }
        Self { tasks, shared }
    }

    /// Time since they began.
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Puts acknowledged so far.
    pub fn acked(&self) -> u64 {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Whether a put that started after `moment` has been acknowledged.
    pub fn acked_since(&self, moment: Duration) -> bool {
        u128::from(self.shared.newest_start_us.load(Ordering::Relaxed)) > moment.as_micros()
    }

    /// Stops them and gives all they recorded, in no particular order.
    pub async fn stop(mut self) -> Result<Vec<Timed>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(puts) = self.tasks.join_next().await {
            all.extend(puts.context("a writer panicked")?);
        }
        Ok(all)
    }
}

async fn write(number: u64, shared: Arc<Shared>) -> Vec<Timed> {
    let mut rng = StdRng::seed_from_u64(shared.load.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut puts = Vec::new();
    let members = shared.client.len();
    let mut member = usize::try_from(number).unwrap_or(0) % members;
    let mut sequence = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let key = key(number, sequence);
        let value = value(number, sequence, shared.load.value_bytes, &mut rng);
        let put = shared.put(member, key, value).await;
        if !matches!(put.attempt.outcome, Outcome::Acked(_)) {
            member = (member + 1) % members;
            tokio::time::sleep(PAUSE).await;
        }
        puts.push(put);
        sequence += 1;
    }
    puts
}

impl Shared {
    async fn put(&self, member: usize, key: Bytes, value: Bytes) -> Timed {
        let floor = self.revision.load(Ordering::SeqCst);
        let started = self.began.elapsed();
        let outcome = self.client.put(member, key.clone(), value.clone(), self.load.timeout).await;
        let ended = self.began.elapsed();
        if let Outcome::Acked(revision) = outcome {
            self.revision.fetch_max(revision, Ordering::SeqCst);
            self.acked.fetch_add(1, Ordering::Relaxed);
            let started_us = u64::try_from(started.as_micros()).unwrap_or(u64::MAX);
            self.newest_start_us.fetch_max(started_us, Ordering::Relaxed);
        }
        Timed { attempt: Attempt { key, value, outcome, floor }, started, ended }
    }
}

/// A fresh key for most puts, and one of few hot keys for some.
fn key(writer: u64, sequence: u64) -> Bytes {
    if sequence % HOT_EVERY == HOT_EVERY - 1 {
        let slot = (sequence / HOT_EVERY) % HOT_KEYS;
        format!("hot/{writer:04}/{slot}").into()
    } else {
        format!("fresh/{writer:04}/{sequence:08}").into()
    }
}

/// Names its writer and place, so that no value is ever repeated; filled up with noise that does not compress.
fn value(writer: u64, sequence: u64, length: usize, rng: &mut StdRng) -> Bytes {
    let mut value = format!("{writer:04}/{sequence:08}/").into_bytes();
    let named = value.len();
    value.resize(length.max(named), 0);
    rng.fill_bytes(&mut value[named..]);
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_put_in_eight_goes_to_one_of_four_hot_keys() {
        let keys: Vec<Bytes> = (0..64).map(|sequence| key(3, sequence)).collect();
        let hot: std::collections::BTreeSet<&Bytes> =
            keys.iter().filter(|key| key.starts_with(b"hot/")).collect();
        assert_eq!(hot.len(), 4);
        assert_eq!(keys.iter().filter(|key| key.starts_with(b"hot/")).count(), 8);
        let fresh: std::collections::BTreeSet<&Bytes> =
            keys.iter().filter(|key| key.starts_with(b"fresh/")).collect();
        assert_eq!(fresh.len(), 56);
    }
}
