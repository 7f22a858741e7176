//! Readers of ranges: as they are, as one member has them, and as they were at an old revision.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::scene::{Chooser, Scene, think};
use crate::judge::reads::{Mode, Read, Shown};
use crate::judge::watch::record::Pair;

/// The workload's name.
pub const NAME: &str = "lists";

/// Clients.
const CLIENTS: usize = 4;

/// How far back the past goes.
const BACK_MAX: i64 = 2_000;

/// What is listed, by the beginnings of keys: each ends with a stroke.
const PREFIXES: [&str; 7] =
    ["register/0/", "register/1/", "account/", "probe/", "data/00/", "data/01/", "lock/"];

/// Running readers.
#[derive(Debug)]
pub struct Lists {
    tasks: JoinSet<Vec<Read>>,
}

impl Lists {
    /// Starts readers that together make about `rate` calls a second.
    pub fn start(scene: &Arc<Scene>, rate: u32) -> Self {
        let pause = Duration::from_secs_f64(CLIENTS as f64 / f64::from(rate));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let mut rng = scene.shared.rng(NAME, number);
            let chooser = Chooser::new(&mut rng, scene.client.len());
            tasks.spawn(Lister { scene: Arc::clone(scene), rng, chooser }.run(pause));
        }
        Self { tasks }
    }

    /// Waits for the readers, and gives what they read.
    pub async fn finish(mut self) -> Result<Vec<Read>> {
        let mut all = Vec::new();
        while let Some(reads) = self.tasks.join_next().await {
            all.extend(reads.context("a reader panicked")?);
        }
        Ok(all)
    }
}

struct Lister {
    scene: Arc<Scene>,
    rng: StdRng,
    chooser: Chooser,
}

impl Lister {
    async fn run(mut self, pause: Duration) -> Vec<Read> {
        let mut reads = Vec::new();
        while !self.scene.is_over() {
            think(&mut self.rng, pause).await;
            let floor = self.scene.shared.newest();
            let mode = match self.rng.random_range(0..3) {
                0 => Mode::Linearizable,
                1 => Mode::Serializable,
                _ => Mode::Past((floor - self.rng.random_range(0..BACK_MAX)).max(1)),
            };
            let from = PREFIXES[self.rng.random_range(0..PREFIXES.len())];
            // Behind a stroke comes a nought.
            let (from, to) = (Bytes::from(from), Bytes::from(format!("{}0", &from[..from.len() - 1])));
            let member = self.chooser.next(&mut self.rng);
            let request = RangeRequest {
                key: from.clone(),
                range_end: to.clone(),
                serializable: mode == Mode::Serializable,
                revision: if let Mode::Past(revision) = mode { revision } else { 0 },
                ..RangeRequest::default()
            };
            let answer = self.scene.read(NAME, member, request).await;
            let ended = self.scene.now();
            let (header, shown) = match answer {
                Ok(answer) => {
                    (answer.header.as_ref().map_or(0, |header| header.revision), self.shown(&answer))
                }
                Err(error) if error.contains("compacted") => (0, Shown::Compacted),
                Err(_) => {
                    self.chooser.failed();
                    continue;
                }
            };
            reads.push(Read { member, mode, from, to, floor, header, ended, shown });
        }
        reads
    }

    fn shown(&self, answer: &RangeResponse) -> Shown {
        let mut keys = self.scene.shared.keys();
        let pairs = answer.kvs.iter().map(|kv| {
            let (create_revision, mod_revision, version) = (kv.create_revision, kv.mod_revision, kv.version);
            let pair = Pair { value: &kv.value, create_revision, mod_revision, version, lease: kv.lease };
            (keys.id(&kv.key), pair.print())
        });
        Shown::Keys(pairs.collect())
    }
}
