//! Lists of elements to which clients append by compare-and-swap on what they read before. A list is left for a new one
//! when it is long, and read once more in the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::RangeRequest;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use super::scene::{Chooser, Scene, Written, think};
use crate::client::Contents;
use crate::judge::sets::{Append, Finding, Read, judge};
use crate::judge::watch::history::Step;
use crate::workload::compares::changed_at;

/// The workload's name.
pub const NAME: &str = "sets";

/// Clients.
const CLIENTS: usize = 4;

/// Elements of a list before it is left.
const ELEMENTS_MAX: usize = 150;

/// What was done to one list.
#[derive(Debug, Default, Clone)]
pub struct Record {
    appends: Vec<Append>,
    reads: Vec<Read>,
}

/// Running clients.
#[derive(Debug)]
pub struct Sets {
    tasks: JoinSet<()>,
    common: Arc<Common>,
}

#[derive(Debug, Default)]
struct Common {
    newest: AtomicUsize,
    records: Mutex<Vec<Record>>,
}

impl Common {
    fn note(&self, list: usize, note: impl FnOnce(&mut Record)) {
        let mut records = self.records.lock().expect("no holder of the lock panics");
        if records.len() <= list {
            records.resize(list + 1, Record::default());
        }
        note(&mut records[list]);
    }
}

impl Sets {
    /// Starts clients that together make about `rate` calls a second.
    pub fn start(scene: &Arc<Scene>, rate: u32) -> Self {
        let common = Arc::<Common>::default();
        let pause = Duration::from_secs_f64(2.0 * CLIENTS as f64 / f64::from(rate));
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let mut rng = scene.shared.rng(NAME, number);
            let chooser = Chooser::new(&mut rng, scene.client.len());
            let (scene, common) = (Arc::clone(scene), Arc::clone(&common));
            tasks.spawn(Appender { scene, common, rng, chooser }.run(pause));
        }
        Self { tasks, common }
    }

    /// Waits for the clients, and gives what they recorded, by list.
    pub async fn finish(mut self) -> Result<Vec<Record>> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a client of lists panicked")?;
        }
        Ok(std::mem::take(&mut *self.common.records.lock().expect("no holder of the lock panics")))
    }
}

/// Judges all lists by what the store holds in the end.
pub fn findings(records: &[Record], end: &Contents) -> Vec<(usize, Finding)> {
    let of = |(list, record): (usize, &Record)| {
        let stored = end.pairs.get(&key(list)).map(|stored| elements(&stored.value)).unwrap_or_default();
        let findings = judge(&record.appends, &record.reads, &stored);
        findings.into_iter().map(move |finding| (list, finding))
    };
    records.iter().enumerate().flat_map(of).collect()
}

struct Appender {
    scene: Arc<Scene>,
    common: Arc<Common>,
    rng: StdRng,
    chooser: Chooser,
}

impl Appender {
    async fn run(mut self, pause: Duration) {
        while !self.scene.is_over() {
            think(&mut self.rng, pause).await;
            let list = self.common.newest.load(Ordering::SeqCst);
            let member = self.chooser.next(&mut self.rng);
            let began = self.scene.now();
            let request = RangeRequest { key: key(list), ..RangeRequest::default() };
            let Ok(answer) = self.scene.read(NAME, member, request).await else {
                self.chooser.failed();
                continue;
            };
            let (shown, changed) =
                answer.kvs.first().map_or_else(Default::default, |kv| (elements(&kv.value), kv.mod_revision));
            self.common.note(list, |record| record.reads.push(Read { began, elements: shown.clone() }));
            if shown.len() >= ELEMENTS_MAX {
                // Whoever finds it full first goes on to the next one.
                let (next, order) = (list + 1, Ordering::SeqCst);
                self.common.newest.compare_exchange(list, next, order, order).ok();
            } else if self.rng.random_bool(0.9) {
                self.append(member, list, shown, changed).await;
            }
        }
    }

    async fn append(&mut self, member: usize, list: usize, shown: Vec<u64>, changed: i64) {
        let element = self.scene.number();
        let mut elements = shown;
        elements.push(element);
        let text: Vec<String> = elements.iter().map(u64::to_string).collect();
        let step = Step::Put { key: key(list), value: text.join(" ").into(), lease: 0 };
        let written = self.scene.write(NAME, member, vec![changed_at(&key(list), changed)], &[step]).await;
        let outcome = match written {
            Written::At(_) => Some(true),
            Written::Not(_) | Written::Refused => Some(false),
            Written::Unknown => None,
        };
        if matches!(written, Written::Refused | Written::Unknown) {
            self.chooser.failed();
        }
        let ended = self.scene.now();
        self.common.note(list, |record| record.appends.push(Append { element, outcome, ended }));
    }
}

fn key(list: usize) -> Bytes {
    Bytes::from(format!("list/{list:05}"))
}

/// What is no number is an element that nobody appended.
fn elements(value: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(value);
    text.split_whitespace().map(|element| element.parse().unwrap_or(u64::MAX)).collect()
}
