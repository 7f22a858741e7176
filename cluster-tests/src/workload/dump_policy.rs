//! One member that grows from empty and is then rewritten ten times over: how much its dumps write, and how long its log
//! gets, held against the bounds of the policy.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::client::{Client, Outcome, TIMEOUT};
use crate::harness::cluster::{Cluster, System};
use crate::judge::dump_policy::{self, Dump, Finding, LogLook, Record, Stage};
use crate::workload::watch::calls::{Window, compact, connections};

/// Concurrent writers.
const WRITERS: u64 = 16;

/// Bytes of a value. They do not compress.
const VALUE_BYTES: usize = 8 << 10;

/// Between two looks at the log.
const POLL: Duration = Duration::from_millis(20);

/// How many findings are printed.
const SHOWN_MAX: usize = 10;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The size to grow to.
    pub store_bytes: u64,
    /// How many times that size is written in all.
    pub times: u64,
    /// The threshold of the policy.
    pub dump_log_bytes: u64,
    /// Length of a segment.
    pub segment_bytes: u64,
    /// Seed of values and keys.
    pub seed: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// What was seen.
    pub record: Record,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
        let Plan { store_bytes, dump_log_bytes, segment_bytes, seed, .. } = self.plan;
        let (store, due, segment) = (mib(store_bytes), mib(dump_log_bytes), mib(segment_bytes));
        writeln!(f, "a store of {store}, a dump due after {due}, segments of {segment}, seed {seed}")?;
        for stage in [Stage::Growing, Stage::Steady] {
            let (dumped, came) = self.record.written(stage);
            let dumps = self.record.dumps.iter().filter(|dump| dump.stage == stage).count();
            let percent = dumped * 100 / came.max(1);
            writeln!(
                f,
                "  {stage}: {} came in, {dumps} dumps wrote {}, {}.{:02} times",
                mib(came),
                mib(dumped),
                percent / 100,
                percent % 100
            )?;
        }
        let longest = self.record.looks.iter().max_by_key(|look| look.bytes);
        let closest = self.record.looks.iter().max_by_key(|look| {
            u128::from(look.bytes) * 1_000 / u128::from(self.record.log_bytes_max(look).max(1))
        });
        if let (Some(longest), Some(closest)) = (longest, closest) {
            writeln!(
                f,
                "  log: {} at most; closest to its bound with {} of {}, in {} looks",
                mib(longest.bytes),
                mib(closest.bytes),
                mib(self.record.log_bytes_max(closest)),
                self.record.looks.len()
            )?;
        }
        for finding in self.findings.iter().take(SHOWN_MAX) {
            writeln!(f, "  {finding}")?;
        }
        write!(f, "  findings: {}", self.findings.len())
    }
}

/// Runs the plan on one member.
pub async fn run(mut system: System, plan: Plan) -> Result<Report> {
    system.extra_args.push(format!("--dump-log-bytes={}", plan.dump_log_bytes));
    system.extra_args.push(format!("--segment-bytes={}", plan.segment_bytes));
    system.extra_args.push("--log-format=json".to_owned());
    let mut cluster = Cluster::start(system, 1).await?;
    let client = Client::new(&cluster.endpoints())?;
    let came = Arc::new(AtomicU64::new(0));
    let mut eye = Eye {
        record: Record::default(),
        came: Arc::clone(&came),
        read: 0,
        sealed: None,
        is_durable: false,
        newest: 0,
    };
    (eye.record.dump_log_bytes, eye.record.segment_bytes) = (plan.dump_log_bytes, plan.segment_bytes);
    let value_bytes = u64::try_from(VALUE_BYTES).unwrap_or(u64::MAX);
    let keys = plan.store_bytes / value_bytes;
    write(&mut cluster, &client, &mut eye, Work { stage: Stage::Growing, keys, puts: keys, seed: plan.seed })
        .await?;
    eye.record.growing_bytes = came.load(Ordering::Relaxed);
    let puts = keys * plan.times.saturating_sub(1);
    write(&mut cluster, &client, &mut eye, Work { stage: Stage::Steady, keys, puts, seed: plan.seed })
        .await?;
    let mut record = eye.record;
    record.steady_bytes = came.load(Ordering::Relaxed) - record.growing_bytes;
    let findings = dump_policy::judge(&record);
    Ok(Report { plan, record, findings })
}

/// What is written in a stage.
#[derive(Debug, Clone, Copy)]
struct Work {
    stage: Stage,
    keys: u64,
    puts: u64,
    seed: u64,
}

/// Writes, compacts in the steady stage, and looks at the member all the while.
async fn write(cluster: &mut Cluster, client: &Client, eye: &mut Eye, work: Work) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let (client, came, next) = (client.clone(), Arc::clone(&eye.came), Arc::clone(&next));
        writers.spawn(async move {
            let mut rng = StdRng::seed_from_u64(work.seed ^ number << 32 ^ work.puts);
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= work.puts {
                    return anyhow::Ok(());
                }
                let key = if work.stage == Stage::Growing { place } else { rng.random_range(0..work.keys) };
                let mut value = vec![0; VALUE_BYTES];
                rng.fill_bytes(&mut value);
                let outcome = client.put(0, format!("key/{key:08}").into(), value.into(), TIMEOUT).await;
                ensure!(matches!(outcome, Outcome::Acked(_)), "a put came to {outcome:?}");
                came.fetch_add(u64::try_from(VALUE_BYTES)?, Ordering::Relaxed);
            }
        });
    }
    let compactor = (work.stage == Stage::Steady).then(|| {
        let (client, next, done) = (client.clone(), Arc::clone(&next), Arc::clone(&done));
        let channels = connections(&cluster.endpoints(), Window::Usual);
        tokio::spawn(async move {
            let (channels, mut due) = (channels?, 0);
            while !done.load(Ordering::Relaxed) {
                if next.load(Ordering::Relaxed) >= due {
                    due += work.keys / 16;
                    compact(&channels[0], client.revision(0, TIMEOUT).await?).await?;
                }
                tokio::time::sleep(POLL).await;
            }
            anyhow::Ok(())
        })
    });
    while !writers.is_empty() {
        while let Some(writer) = writers.try_join_next() {
            writer.context("a writer panicked")??;
        }
        eye.look(cluster, work.stage)?;
        tokio::time::sleep(POLL).await;
    }
    done.store(true, Ordering::Relaxed);
    if let Some(compactor) = compactor {
        compactor.await.context("the compactor panicked")??;
    }
    eye.look(cluster, work.stage)
}

/// Reads what the member logs of its dumps, and how long its log is.
struct Eye {
    record: Record,
    came: Arc<AtomicU64>,
    /// Bytes of its output that were read.
    read: usize,
    /// Users' bytes that had come in when the running dump began.
    sealed: Option<u64>,
    /// True when the log was not yet let go behind the newest snapshot.
    is_durable: bool,
    /// The length of the newest snapshot behind which the log was let go.
    newest: u64,
}

impl Eye {
    fn look(&mut self, cluster: &mut Cluster, stage: Stage) -> Result<()> {
        let dir = cluster.members()[0].data_dir.join("log");
        let text = cluster.member(0).process()?.log_text();
        let came = self.came.load(Ordering::Relaxed);
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.get(self.read..whole).unwrap_or_default().lines() {
            match said(line) {
                Some(Said::Sealed(revision)) => self.sealed = Some(bytes_at(revision)),
                Some(Said::Durable(bytes)) => {
                    let arrived_bytes = came.saturating_sub(self.sealed.unwrap_or(came));
                    self.record.dumps.push(Dump { stage, bytes, arrived_bytes });
                    self.is_durable = true;
                }
                Some(Said::LetGo) if std::mem::take(&mut self.is_durable) => {
                    let sealed = self.sealed.unwrap_or(came);
                    if let Some(dump) = self.record.dumps.last_mut() {
                        dump.arrived_bytes = came.saturating_sub(sealed);
                        self.newest = dump.bytes;
                    }
                }
                Some(Said::LetGo) => {}
                None => {}
            }
        }
        self.read = whole;
        self.record.looks.push(LogLook { bytes: bytes_of(&dir)?, snapshot_bytes: self.newest });
        Ok(())
    }
}

/// Users' bytes in the entries up to a revision: each is a put, and the first one is revision 2.
fn bytes_at(revision: u64) -> u64 {
    revision.saturating_sub(1) * VALUE_BYTES as u64
}

/// What a member says of a dump.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Up to this revision.
    Sealed(u64),
    Durable(u64),
    LetGo,
}

fn said(line: &str) -> Option<Said> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    match line.get("message")?.as_str()? {
        "dump: sealed, drained and flushed, writing" => Some(Said::Sealed(line.get("revision")?.as_u64()?)),
        "dump: verified and durable" => Some(Said::Durable(line.get("bytes")?.as_u64()?)),
        "the log goes up to here" => Some(Said::LetGo),
        _ => None,
    }
}

/// Bytes of all files in a directory. One that goes away meanwhile has none.
fn bytes_of(dir: &Path) -> Result<u64> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    Ok(entries.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_dumps_are_understood() {
        let line = "{\"level\":\"INFO\",\"message\":\"dump: verified and durable\",\"bytes\":17}";
        assert_eq!(said(line), Some(Said::Durable(17)));
        let line = "{\"message\":\"dump: sealed, drained and flushed, writing\",\"revision\":3}";
        assert_eq!(said(line), Some(Said::Sealed(3)));
        assert_eq!(bytes_at(3), 2 * 8192);
        assert_eq!(said("dump: sealed, drained and flushed, writing"), None);
    }
}
