//! What the members need to have much to log and to dump: transactions that change nothing, and values that do not
//! compress, on keys of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest, request_op};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Channel;

use crate::judge::watch::history::Step;
use crate::workload::watch::calls::{Fate, TIMEOUT, carry_out};
use crate::workload::watch::shared::Shared;
use crate::workload::watch::writers::Written;

/// Bytes of one transaction that changes nothing.
const BALLAST_BYTES: usize = 128 << 10;

/// Writers of them; each has one under way at a time.
const BALLAST_WRITERS: usize = 3;

/// Between two of one writer.
const BALLAST_EVERY: Duration = Duration::from_millis(120);

/// Keys with large values, those that are there from the first hurry on, the values of one command, and the bytes of each:
/// more than one batch of the engine.
const BULK_KEYS: usize = 15;
const BULK_KEYS_IN_A_HURRY: usize = 160;
const BULK_STEPS: usize = 5;
const BULK_BYTES: usize = 250 << 10;

/// Between two commands with large values, when there is no hurry.
const BULK_EVERY: Duration = Duration::from_millis(1_500);

/// How often the first large values are tried on a cluster that nobody has broken yet.
const BASE_TRIES: usize = 20;

/// Running pressure.
#[derive(Debug)]
pub struct Pressure {
    ballast: JoinSet<()>,
    bulk: JoinHandle<Vec<Written>>,
    shared: Arc<Knobs>,
}

#[derive(Debug, Default)]
struct Knobs {
    stop: AtomicBool,
    /// How many times faster than usual large values are written.
    hurry: AtomicU32,
}

impl Pressure {
    /// Writes all large values once, then goes on in the background.
    pub async fn start(shared: &Arc<Shared>, channels: Vec<Channel>) -> Result<Self> {
        let mut bulk = Bulk {
            shared: Arc::clone(shared),
            rng: shared.rng("bulk", 0),
            generations: vec![0; BULK_KEYS_IN_A_HURRY],
            written: Vec::new(),
            next: 0,
        };
        for _ in 0..BULK_KEYS / BULK_STEPS {
            bulk.write_first(&channels).await?;
        }
        let knobs = Arc::new(Knobs::default());
        let mut ballasts = JoinSet::new();
        for number in 0..BALLAST_WRITERS {
            ballasts.spawn(ballast(shared.rng("ballast", number), channels.clone(), Arc::clone(&knobs)));
        }
        Ok(Self {
            ballast: ballasts,
            bulk: tokio::spawn(bulk.run(channels, Arc::clone(&knobs))),
            shared: knobs,
        })
    }

    /// From now on large values come so many times as fast; 1 is the usual pace. At a faster one there are more of them, and
    /// dumps take longer.
    pub fn hurry(&self, times: u32) {
        self.shared.hurry.store(times, Ordering::Relaxed);
    }

    /// Stops, and gives the commands that changed something, or may have.
    pub async fn stop(mut self) -> Result<Vec<Written>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.ballast.join_next().await {
            ended.context("a writer of ballast panicked")?;
        }
        self.bulk.await.context("the writer of large values panicked")
    }
}

struct Bulk {
    shared: Arc<Shared>,
    rng: StdRng,
    /// Of each key, how often it was given up after an unknown outcome.
    generations: Vec<usize>,
    written: Vec<Written>,
    next: usize,
}

impl Bulk {
    async fn write_first(&mut self, channels: &[Channel]) -> Result<()> {
        for attempt in 0..BASE_TRIES {
            if self.write(&channels[attempt % channels.len()], BULK_KEYS).await != Fate::Unknown {
                return Ok(());
            }
            self.next = self.next.saturating_sub(BULK_STEPS);
        }
        ensure!(false, "a cluster that nobody broke took no large values in {BASE_TRIES} tries");
        Ok(())
    }

    async fn run(mut self, channels: Vec<Channel>, knobs: Arc<Knobs>) -> Vec<Written> {
        let mut member = 0;
        while !knobs.stop.load(Ordering::Relaxed) {
            let times = knobs.hurry.load(Ordering::Relaxed).max(1);
            let keys = if times > 1 { BULK_KEYS_IN_A_HURRY } else { BULK_KEYS };
            if self.write(&channels[member], keys).await == Fate::Unknown {
                member = (member + 1) % channels.len();
            }
            tokio::time::sleep(BULK_EVERY / times).await;
        }
        self.written
    }

    async fn write(&mut self, channel: &Channel, among: usize) -> Fate {
        let keys: Vec<usize> = (0..BULK_STEPS).map(|offset| (self.next + offset) % among).collect();
        self.next += BULK_STEPS;
        let steps: Vec<Step> = keys.iter().map(|key| self.step(*key)).collect();
        self.shared.chronicle().begin(&steps);
        let fate = carry_out(channel, &steps).await;
        self.shared.chronicle().end(&steps, fate);
        match fate {
            Fate::At(revision) => self.shared.saw(revision),
            Fate::Unknown => keys.iter().for_each(|key| self.generations[*key] += 1),
            Fate::Nothing => {}
        }
        self.written.push(Written { fate, ended: self.shared.elapsed() });
        fate
    }

    /// Noise, so that no value is repeated and none compresses.
    fn step(&mut self, key: usize) -> Step {
        let mut value = vec![0; BULK_BYTES];
        self.rng.fill_bytes(&mut value);
        Step::Put {
            key: format!("bulk/{key:02}/{:03}", self.generations[key]).into(),
            value: value.into(),
            lease: 0,
        }
    }
}

async fn ballast(mut rng: StdRng, channels: Vec<Channel>, knobs: Arc<Knobs>) {
    let mut value = vec![0; BALLAST_BYTES];
    rng.fill_bytes(&mut value);
    let value = Bytes::from(value);
    while !knobs.stop.load(Ordering::Relaxed) {
        let channel = channels[rng.random_range(0..channels.len())].clone();
        // It changes nothing, whether or not it arrives.
        drop(tokio::time::timeout(TIMEOUT, KvClient::new(channel).txn(nothing(value.clone()))).await);
        tokio::time::sleep(BALLAST_EVERY).await;
    }
}

/// A transaction whose condition never holds: it is logged whole, and takes no revision.
fn nothing(value: Bytes) -> TxnRequest {
    let key = Bytes::from_static(b"ballast");
    let put = PutRequest { key: key.clone(), value, ..PutRequest::default() };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key,
            target_union: Some(TargetUnion::Version(1)),
            ..Compare::default()
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        ..TxnRequest::default()
    }
}
