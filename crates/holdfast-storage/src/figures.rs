//! What the dispatcher and its dumps have done, in plain form; the server turns it into metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::StorageError;
use crate::types::{CancelReason, DispatcherState};

/// How many bounds [`Times::buckets`] has, without the last, unbounded bucket.
pub const TIME_BUCKETS: usize = 16;

/// How often something took how long.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Times {
    /// How many took at most 15.625 µs, and so on with twice the bound before, 1 ms among them, up to 0.512 s
    /// ([`Times::bucket_bound`]); then how many took longer. Each counts in one bucket only.
    pub buckets: [u64; TIME_BUCKETS + 1],
    /// How long all of them took together.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Times {
    /// The inclusive upper bound of a bucket; `None` for the last one.
    pub fn bucket_bound(bucket: usize) -> Option<Duration> {
        (bucket < TIME_BUCKETS).then(|| Duration::from_nanos(15_625 << bucket))
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn observe(&mut self, took: Duration) {
        let holds = |bucket: &usize| Self::bucket_bound(*bucket).is_some_and(|bound| took <= bound);
        let bucket = (0..TIME_BUCKETS).find(holds).unwrap_or(TIME_BUCKETS);
        self.buckets[bucket] += 1;
        self.total += took;
        self.longest = self.longest.max(took);
    }
}

/// How a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DumpResult {
    /// With a verified, durable snapshot.
    Ok,
    /// It was cancelled.
    Cancelled(CancelReason),
    /// The disk, the snapshot or the stable store failed.
    Failed,
}

impl DumpResult {
    /// A word for labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cancelled(reason) => reason.label(),
            Self::Failed => "failed",
        }
    }

    pub(crate) fn of<T>(result: &Result<T, StorageError>) -> Self {
        match result {
            Ok(_) => Self::Ok,
            Err(StorageError::DumpCancelled { reason }) => Self::Cancelled(*reason),
            Err(_) => Self::Failed,
        }
    }
}

/// One dump that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpEnd {
    /// How.
    pub result: DumpResult,
    /// The snapshot's length; 0 without one.
    pub bytes: u64,
    /// From the seal to the end.
    pub took: Duration,
}

impl DumpEnd {
    /// Bytes of the snapshot per second, in MiB; 0 without one.
    pub fn mib_per_second(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { bytes_as_mib(self.bytes) / seconds } else { 0.0 }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people; snapshots are far below 2^52 bytes")]
fn bytes_as_mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// How full the overlay had to become for something to be done about it, as a share of the memory budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PressureLevel {
    /// An eighth: the dump hurries.
    Hurry,
    /// A quarter: a part of the overlay goes to the stable store while the dump goes on.
    Drain,
    /// A half: entries are held back, and a dump that nobody needs at once is cancelled.
    Hold,
}

impl PressureLevel {
    /// All of them, ascending.
    pub const ALL: [Self; 3] = [Self::Hurry, Self::Drain, Self::Hold];

    /// A word for labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hurry => "hurry",
            Self::Drain => "drain",
            Self::Hold => "hold",
        }
    }
}

/// What a start built the key index from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum IndexSource {
    /// All records: there was no checkpoint.
    #[default]
    Records,
    /// All records: there was a checkpoint, damaged or passed by a compaction.
    RecordsDespiteCheckpoint,
    /// A checkpoint and the records behind it.
    Checkpoint,
}

impl IndexSource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Records, Self::RecordsDespiteCheckpoint, Self::Checkpoint];

    /// A word for labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::RecordsDespiteCheckpoint => "checkpoint_unusable",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// How the writing of a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckpointEnd {
    /// It is in force.
    Ok,
    /// A compaction came in between.
    Overtaken,
    /// The disk failed.
    Failed,
}

impl CheckpointEnd {
    /// All of them, in the order of [`CheckpointFigures::ended`].
    pub const ALL: [Self; 3] = [Self::Ok, Self::Overtaken, Self::Failed];

    /// A word for labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Overtaken => "overtaken",
            Self::Failed => "failed",
        }
    }
}

/// What checkpoints of the key index were good for, and what became of those that were written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckpointFigures {
    /// What the start built the index from.
    pub source: IndexSource,
    /// How many ended how, in the order of [`CheckpointEnd::ALL`].
    pub ended: [u64; 3],
    /// The length of the last one that was written.
    pub bytes: u64,
}

/// How often the dispatcher went from one state to another, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: DispatcherState,
    /// The state behind.
    pub to: DispatcherState,
    /// A word.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// Figures since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DispatchFigures {
    /// All that happened, in the order of states and reasons.
    pub transitions: Vec<Transition>,
    /// The last dump.
    pub last_dump: Option<DumpEnd>,
    /// How many dumps ended how, and how long the last one of those took.
    pub dumps: Vec<(DumpResult, u64, Duration)>,
    /// How long the dispatcher stood still at the start of a dump.
    pub start_stall: Times,
    /// How long it stood still at the end of one.
    pub finish_stall: Times,
    /// How long merges took, from the end of a dump until the overlay was stored.
    pub merges: Times,
    /// What went into the stable store.
    pub commits: CommitFigures,
    /// Values that were looked for in memory while a memtable was frozen.
    pub overlay_reads: OverlayReads,
    /// Entries that were skipped because the state contained them.
    pub skipped_entries: u64,
    /// Received snapshots that were not installed because the state had come as far.
    pub skipped_snapshots: u64,
    /// How often a dump came to each level of pressure, in the order of [`PressureLevel::ALL`].
    pub pressure: [u64; 3],
    /// Checkpoints of the key index.
    pub checkpoints: CheckpointFigures,
}

/// What the committer has stored: batches, each atomic with its position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitFigures {
    /// How long each took.
    pub times: Times,
    /// Records in all of them.
    pub records: u64,
    /// Bytes of them, with what an entry costs.
    pub bytes: u64,
}

/// Values that were looked for in memory while a memtable was frozen, in a dump and in a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlayReads {
    /// Found in the active or in the frozen memtable.
    pub hits: u64,
    /// Found elsewhere, or not in memory.
    pub misses: u64,
}

/// Collects the figures. Written by dispatcher and committer.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    figures: DispatchFigures,
    transitions: BTreeMap<(DispatcherState, DispatcherState, &'static str), u64>,
    dumps: BTreeMap<DumpResult, (u64, Duration)>,
}

impl Collector {
    /// The figures so far.
    pub(crate) fn read(&self) -> DispatchFigures {
        let inner = self.inner.lock();
        let transition = |(&(from, to, reason), &count): (&_, &u64)| Transition { from, to, reason, count };
        DispatchFigures {
            transitions: inner.transitions.iter().map(transition).collect(),
            dumps: inner.dumps.iter().map(|(&result, &(count, last))| (result, count, last)).collect(),
            ..inner.figures.clone()
        }
    }

    pub(crate) fn opened(&self, source: IndexSource) {
        self.inner.lock().figures.checkpoints.source = source;
    }

    pub(crate) fn checkpoint_ended(&self, end: CheckpointEnd, bytes: u64) {
        let checkpoints = &mut self.inner.lock().figures.checkpoints;
        checkpoints.ended[end as usize] += 1;
        if end == CheckpointEnd::Ok {
            checkpoints.bytes = bytes;
        }
    }

    pub(crate) fn transition(&self, from: DispatcherState, to: DispatcherState, reason: &'static str) {
        *self.inner.lock().transitions.entry((from, to, reason)).or_default() += 1;
    }

    pub(crate) fn dump_ended(&self, end: DumpEnd) {
        let mut inner = self.inner.lock();
        inner.figures.last_dump = Some(end);
        let (count, last) = inner.dumps.entry(end.result).or_default();
        *count += 1;
        *last = end.took;
    }

    pub(crate) fn start_stalled(&self, took: Duration) {
        self.inner.lock().figures.start_stall.observe(took);
    }

    pub(crate) fn finish_stalled(&self, took: Duration) {
        self.inner.lock().figures.finish_stall.observe(took);
    }

    pub(crate) fn merged(&self, took: Duration) {
        self.inner.lock().figures.merges.observe(took);
    }

    pub(crate) fn committed(&self, records: usize, bytes: usize, took: Duration) {
        let commits = &mut self.inner.lock().figures.commits;
        commits.times.observe(took);
        commits.records += records as u64;
        commits.bytes += bytes as u64;
    }

    pub(crate) fn skipped_entry(&self) {
        self.inner.lock().figures.skipped_entries += 1;
    }

    pub(crate) fn skipped_snapshot(&self) {
        self.inner.lock().figures.skipped_snapshots += 1;
    }

    pub(crate) fn pressed(&self, level: PressureLevel) {
        self.inner.lock().figures.pressure[level as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let mut times = Times::default();
        for micros in [0, 15, 16, 512_000, 512_001] {
            times.observe(Duration::from_micros(micros));
        }
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[15], times.buckets[16]), (2, 1, 1, 1));
        assert_eq!((times.count(), times.longest), (5, Duration::from_micros(512_001)));
    }

    #[test]
    fn a_rate_is_in_mib_per_second() {
        let end = DumpEnd { result: DumpResult::Ok, bytes: 3 << 20, took: Duration::from_millis(1500) };
        assert!((end.mib_per_second() - 2.0).abs() < 1e-9);
    }
}
