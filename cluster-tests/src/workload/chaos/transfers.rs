//! Transfers: money moved between accounts by transactions on what was read before, and all accounts read at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::scene::{Chooser, Scene, Written, think};
use crate::judge::transfers::Balances;
use crate::judge::watch::history::Step;
use crate::workload::compares::{changed_at, created_at};

/// The workload's name.
pub const NAME: &str = "transfers";

/// Accounts, and what each holds at first.
const ACCOUNTS: usize = 8;
const FIRST: i64 = 100;

/// What all of them hold together.
pub const TOTAL: i64 = ACCOUNTS as i64 * FIRST;

/// Clients.
const CLIENTS: usize = 4;

/// How often opening the accounts is tried on a cluster that nobody has broken yet.
const TRIES: usize = 20;

/// What begins the keys, and what is behind all of them.
const PREFIX: &str = "account/";
const BEHIND: &str = "account0";

/// Running clients.
#[derive(Debug)]
pub struct Transfers {
    tasks: JoinSet<()>,
    reads: Arc<Mutex<Vec<Balances>>>,
}

impl Transfers {
    /// Opens the accounts, and starts clients that together make about `rate` calls a second.
    pub async fn start(scene: &Arc<Scene>, rate: u32) -> Result<Self> {
        open(scene).await?;
        let reads = Arc::<Mutex<Vec<Balances>>>::default();
        let pause = Duration::from_secs_f64(CLIENTS as f64 / f64::from(rate));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let mut rng = scene.shared.rng(NAME, number);
            let chooser = Chooser::new(&mut rng, scene.client.len());
            let teller = Teller { scene: Arc::clone(scene), rng, chooser, reads: Arc::clone(&reads) };
            tasks.spawn(teller.run(pause));
        }
        Ok(Self { tasks, reads })
    }

    /// Waits for the clients, and gives what they read.
    pub async fn finish(mut self) -> Result<Vec<Balances>> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client of accounts panicked")?;
        }
        Ok(std::mem::take(&mut *self.reads.lock().expect("no holder of the lock panics")))
    }
}

/// All accounts in one transaction. An open try is followed by another one, which then finds them there.
async fn open(scene: &Scene) -> Result<()> {
    let put = |account| Step::Put { key: key(account), value: value(FIRST, scene.number()), lease: 0 };
    for attempt in 0..TRIES {
        let steps: Vec<Step> = (0..ACCOUNTS).map(put).collect();
        let member = attempt % scene.client.len();
        let written = scene.write(NAME, member, vec![created_at(&key(0), 0)], &steps).await;
        if matches!(written, Written::At(_) | Written::Not(_)) {
            return Ok(());
        }
    }
    anyhow::bail!("a cluster that nobody broke opened no accounts in {TRIES} tries")
}

struct Teller {
    scene: Arc<Scene>,
    rng: StdRng,
    chooser: Chooser,
    reads: Arc<Mutex<Vec<Balances>>>,
}

impl Teller {
    async fn run(mut self, pause: Duration) {
        while !self.scene.is_over() {
            think(&mut self.rng, pause).await;
            let member = self.chooser.next(&mut self.rng);
            let (from, to) = (Bytes::from_static(PREFIX.as_bytes()), Bytes::from_static(BEHIND.as_bytes()));
            let request = RangeRequest { key: from, range_end: to, ..RangeRequest::default() };
            let Ok(answer) = self.scene.read(NAME, member, request).await else {
                self.chooser.failed();
                continue;
            };
            self.note(&answer);
            if answer.kvs.len() == ACCOUNTS && self.rng.random_bool(0.8) {
                self.transfer(member, &answer).await;
            }
        }
    }

    fn note(&self, answer: &RangeResponse) {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let balances = answer.kvs.iter().map(|kv| balance(&kv.value)).collect();
        self.reads.lock().expect("no holder of the lock panics").push(Balances { revision, balances });
    }

    async fn transfer(&mut self, member: usize, answer: &RangeResponse) {
        let from = self.rng.random_range(0..ACCOUNTS);
        let to = (from + self.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let amount = self.rng.random_range(1..=20).min(balance(&answer.kvs[from].value));
        let changes = [(from, -amount), (to, amount)];
        let compare = changes.map(|(account, _)| changed_at(&key(account), answer.kvs[account].mod_revision));
        let steps = changes.map(|(account, change)| {
            let value = value(balance(&answer.kvs[account].value) + change, self.scene.number());
            Step::Put { key: key(account), value, lease: 0 }
        });
        let written = self.scene.write(NAME, member, compare.to_vec(), &steps).await;
        if matches!(written, Written::Refused | Written::Unknown) {
            self.chooser.failed();
        }
    }
}

fn key(account: usize) -> Bytes {
    Bytes::from(format!("{PREFIX}{account}"))
}

/// The balance, and a number by which no value is repeated.
fn value(balance: i64, number: u64) -> Bytes {
    Bytes::from(format!("{balance}/{number}"))
}

/// What cannot be read holds more than there is, so that the total shows it.
fn balance(value: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(value);
    text.split('/').next().and_then(|balance| balance.parse().ok()).unwrap_or(1_000_000)
}
