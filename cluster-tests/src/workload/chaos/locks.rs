//! Locks with fencing tokens: clients take a lock by creating its key under a lease, write under it as long as the key is
//! the one they created, and release it, or forget it and let the lease end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::LeaseGrantRequest;
use holdfast_proto::etcdserverpb::lease_client::LeaseClient;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::book::End;
use super::scene::{Chooser, Scene, Written, think};
use crate::judge::fencing::{Guarded, Taken};
use crate::judge::watch::history::Step;
use crate::workload::compares::created_at;

/// The workload's name.
pub const NAME: &str = "locks";

/// Locks, and clients of each.
const LOCKS: usize = 2;
const CLIENTS: usize = 3;

/// How long a lease lives, in seconds.
const TTL_SECONDS: i64 = 2;

/// How long a grant may take.
const CALL: Duration = Duration::from_millis(1_500);

/// Writes under a lock at most.
const WRITES_MAX: usize = 6;

/// What clients saw.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// Locks that were taken.
    pub taken: Vec<Taken>,
    /// Writes that were kept away because the lock was lost.
    pub fenced: u64,
}

/// Running clients.
#[derive(Debug)]
pub struct Locks {
    tasks: JoinSet<()>,
    record: Arc<Mutex<Record>>,
}

impl Locks {
    /// Starts clients that together make about `rate` calls a second.
    pub fn start(scene: &Arc<Scene>, rate: u32) -> Self {
        let record = Arc::<Mutex<Record>>::default();
        let clients = LOCKS * CLIENTS;
        let pause = Duration::from_secs_f64(clients as f64 / f64::from(rate));
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let mut rng = scene.shared.rng(NAME, number);
            let chooser = Chooser::new(&mut rng, scene.client.len());
            let Guarded { lock, key } = guarded(number % LOCKS);
            let (scene, record) = (Arc::clone(scene), Arc::clone(&record));
            tasks.spawn(Taker { scene, record, rng, chooser, lock, key }.run(pause));
        }
        Self { tasks, record }
    }

    /// Waits for the clients, and gives what they saw.
    pub async fn finish(mut self) -> Result<Record> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client of locks panicked")?;
        }
        Ok(std::mem::take(&mut *self.record.lock().expect("no holder of the lock panics")))
    }
}

/// All locks and what is written under them.
pub fn all() -> Vec<Guarded> {
    (0..LOCKS).map(guarded).collect()
}

fn guarded(lock: usize) -> Guarded {
    Guarded { lock: Bytes::from(format!("lock/{lock}")), key: Bytes::from(format!("guarded/{lock}")) }
}

struct Taker {
    scene: Arc<Scene>,
    record: Arc<Mutex<Record>>,
    rng: StdRng,
    chooser: Chooser,
    lock: Bytes,
    key: Bytes,
}

impl Taker {
    async fn run(mut self, pause: Duration) {
        while !self.scene.is_over() {
            think(&mut self.rng, pause * 2).await;
            let member = self.chooser.next(&mut self.rng);
            let Some(lease) = self.grant(member).await else {
                self.chooser.failed();
                continue;
            };
            let value = Bytes::from(self.scene.number().to_string());
            let take = Step::Put { key: self.lock.clone(), value, lease };
            let began = self.scene.now();
            let written = self.scene.write(NAME, member, vec![created_at(&self.lock, 0)], &[take]).await;
            if let Written::At(token) = written {
                let (lock, ended) = (self.lock.clone(), self.scene.now());
                self.record().taken.push(Taken { lock, token, began, ended });
                self.hold(token, pause).await;
            }
        }
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().expect("no holder of the lock panics")
    }

    async fn grant(&self, member: usize) -> Option<i64> {
        let mut leases = LeaseClient::new(self.scene.client.channel(member));
        let grant = leases.lease_grant(LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 });
        let granted = tokio::time::timeout(CALL, grant).await.ok().and_then(Result::ok);
        let end = if granted.is_some() { End::Ok } else { End::Unknown };
        self.scene.book.count(NAME, end, self.scene.now());
        granted.map(|granted| granted.into_inner().id)
    }

    /// Writes under the lock, perhaps for longer than the lease lives, and releases it or does not.
    async fn hold(&mut self, token: i64, pause: Duration) {
        for _ in 0..self.rng.random_range(1..=WRITES_MAX) {
            let member = self.chooser.next(&mut self.rng);
            let value = Bytes::from(format!("{token}/{}", self.scene.number()));
            let write = Step::Put { key: self.key.clone(), value, lease: 0 };
            match self.scene.write(NAME, member, vec![created_at(&self.lock, token)], &[write]).await {
                Written::At(_) => {}
                Written::Not(_) => {
                    self.record().fenced += 1;
                    return;
                }
                Written::Refused | Written::Unknown => self.chooser.failed(),
            }
            think(&mut self.rng, pause).await;
        }
        if self.rng.random_bool(0.7) {
            let release = Step::Delete { key: self.lock.clone(), range_end: Bytes::new() };
            let member = self.chooser.next(&mut self.rng);
            let written =
                self.scene.write(NAME, member, vec![created_at(&self.lock, token)], &[release]).await;
            if matches!(written, Written::Refused | Written::Unknown) {
                self.chooser.failed();
            }
        }
    }
}
