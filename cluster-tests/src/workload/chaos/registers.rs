//! Registers: a few keys that several clients read, write, delete and compare-and-swap at once. A register is given up for
//! a new one when it has had many calls, or several of unknown outcome, so that each can be judged by a search.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::RangeRequest;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::scene::{Chooser, Scene, Written, think};
use crate::judge::linearizable::{Answer, Call, Operation, State};
use crate::judge::watch::history::Step;
use crate::workload::compares::{created_at, exists, holds};

/// The workload's name.
pub const NAME: &str = "registers";

/// Registers in use at a time, and clients of each.
const REGISTERS: usize = 5;
const CLIENTS: usize = 4;

/// When a register is given up.
const CALLS_MAX: usize = 300;
const UNKNOWN_MAX: usize = 6;

/// All calls of a run by their register.
pub type Records = BTreeMap<String, Vec<Operation>>;

#[derive(Debug, Default)]
struct Slot {
    generation: usize,
    calls: usize,
    unknown: usize,
}

/// Running clients.
#[derive(Debug)]
pub struct Registers {
    tasks: JoinSet<()>,
    common: Arc<Common>,
}

#[derive(Debug)]
struct Common {
    slots: Mutex<Vec<Slot>>,
    records: Mutex<Records>,
}

impl Common {
    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().expect("no holder of the lock panics")
    }

    /// The register in use in this place. A call of it begins.
    fn begin(&self, place: usize) -> usize {
        let slot = &mut self.slots()[place];
        if slot.calls >= CALLS_MAX || slot.unknown >= UNKNOWN_MAX {
            *slot = Slot { generation: slot.generation + 1, ..Slot::default() };
        }
        slot.calls += 1;
        slot.generation
    }

    fn end(&self, place: usize, generation: usize, operation: Option<Operation>) {
        let Some(operation) = operation else { return };
        {
            let slot = &mut self.slots()[place];
            let is_unknown = operation.answer == Answer::Unknown && slot.generation == generation;
            slot.unknown += usize::from(is_unknown);
        }
        let mut records = self.records.lock().expect("no holder of the lock panics");
        records.entry(name(place, generation)).or_default().push(operation);
    }
}

impl Registers {
    /// Starts the clients, which together make about `rate` calls a second.
    pub fn start(scene: &Arc<Scene>, rate: u32) -> Self {
        let slots = (0..REGISTERS).map(|_| Slot::default()).collect();
        let common = Arc::new(Common { slots: Mutex::new(slots), records: Mutex::default() });
        let clients = REGISTERS * CLIENTS;
        let pause = Duration::from_secs_f64(clients as f64 / f64::from(rate));
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let rng = scene.shared.rng(NAME, number);
            let chooser = Chooser::new(&mut scene.shared.rng("chooser", number), scene.client.len());
            let (scene, common) = (Arc::clone(scene), Arc::clone(&common));
            let user = User { scene, common, rng, chooser, place: number % REGISTERS, last: None };
            tasks.spawn(user.run(pause));
        }
        Self { tasks, common }
    }

    /// Waits for the clients, and gives what they recorded.
    pub async fn finish(mut self) -> Result<Records> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client of registers panicked")?;
        }
        Ok(std::mem::take(&mut *self.common.records.lock().expect("no holder of the lock panics")))
    }
}

struct User {
    scene: Arc<Scene>,
    common: Arc<Common>,
    rng: StdRng,
    chooser: Chooser,
    place: usize,
    /// What it saw last: the best guess for a compare-and-swap.
    last: State,
}

impl User {
    async fn run(mut self, pause: Duration) {
        while !self.scene.is_over() {
            think(&mut self.rng, pause).await;
            let generation = self.common.begin(self.place);
            let key = Bytes::from(name(self.place, generation));
            let new = self.scene.number();
            let call = match self.rng.random_range(0..100) {
                0..45 => Call::Read,
                45..70 => Call::Write(Some(new)),
                70..75 => Call::Write(None),
                _ => Call::Swap { expected: self.last, new },
            };
            let member = self.chooser.next(&mut self.rng);
            let began = self.scene.now();
            let answer = self.call(member, &key, call).await;
            let operation = answer.map(|answer| Operation { call, answer, began, ended: self.scene.now() });
            self.common.end(self.place, generation, operation);
        }
    }

    /// `None`: certainly nothing happened.
    async fn call(&mut self, member: usize, key: &Bytes, call: Call) -> Option<Answer> {
        if call == Call::Read {
            let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
            let Ok(answer) = self.scene.read(NAME, member, request).await else {
                self.chooser.failed();
                return None;
            };
            self.last = answer.kvs.first().map(|kv| number(&kv.value));
            return Some(Answer::Saw(self.last));
        }
        let (compare, new) = match call {
            Call::Swap { expected: Some(expected), new } => (vec![holds(key, value(expected))], Some(new)),
            Call::Swap { expected: None, new } => (vec![created_at(key, 0)], Some(new)),
            Call::Write(new) => (Vec::new(), new),
            Call::Read => (Vec::new(), None),
        };
        let step = match new {
            Some(new) => Step::Put { key: key.clone(), value: value(new), lease: 0 },
            None => Step::Delete { key: key.clone(), range_end: Bytes::new() },
        };
        let written = self.write(member, compare, step).await;
        let is_swap = matches!(call, Call::Swap { .. });
        match written {
            Written::At(_) if is_swap => {
                self.last = new;
                Some(Answer::Swapped(true))
            }
            Written::At(_) => Some(Answer::Written),
            Written::Not(_) => {
                self.last = None;
                Some(if is_swap { Answer::Swapped(false) } else { Answer::Written })
            }
            Written::Refused => {
                self.chooser.failed();
                None
            }
            Written::Unknown => {
                self.chooser.failed();
                Some(Answer::Unknown)
            }
        }
    }

    /// A delete is made only of a key that exists, as one that changes nothing has no revision: a transaction says which.
    async fn write(
        &self,
        member: usize,
        mut compare: Vec<holdfast_proto::etcdserverpb::Compare>,
        step: Step,
    ) -> Written {
        if let Step::Delete { key, .. } = &step {
            compare.push(exists(key));
        }
        self.scene.write(NAME, member, compare, &[step]).await
    }
}

fn name(place: usize, generation: usize) -> String {
    format!("register/{place}/{generation:05}")
}

fn value(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
