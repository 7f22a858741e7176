//! What repositories count: operations, how they ended, and how long they took.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::error::RepoError;

/// Where buckets of latency end, in microseconds: powers of two from 1 us to about 67 s. What is longer is in the last one.
const BUCKETS: usize = 27;

/// Labels are few, as their values are fixed by the program; what is one too many is not counted.
const SERIES_MAX: usize = 1_024;

/// What a repository was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Operation {
    Create,
    Get,
    List,
    Update,
    Delete,
    Apply,
    Count,
    Watch,
    Ready,
}

impl Operation {
    /// What this is in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::List => "list",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Apply => "apply",
            Self::Count => "count",
            Self::Watch => "watch",
            Self::Ready => "ready",
        }
    }
}

/// One operation that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// `memory`, or what the store behind it calls itself, as `cluster`.
    pub backend: &'static str,
    /// The type of the objects, as Rust names it.
    pub of: &'static str,
    /// What was asked.
    pub operation: Operation,
    /// `ok`, or the [label](RepoError::label) of the error.
    pub result: &'static str,
}

/// Who counts. It is called once for each operation, when that has ended, and must be quick. An operation whose caller
/// stopped waiting has not ended.
pub trait Metrics: Send + Sync {
    /// Notes an operation.
    fn record(&self, labels: Labels, took: Duration);
}

/// [`Metrics`] that can be read. Each repository has one of its own, unless it is given another.
///
/// Counting takes no lock, so readers do not wait for each other here.
#[derive(Default)]
pub struct Counters {
    series: ArcSwap<BTreeMap<Labels, Arc<Series>>>,
}

#[derive(Default)]
struct Series {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// What was counted of one kind of operation that ended in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Which.
    pub labels: Labels,
    /// How many.
    pub count: u64,
    /// How long they took together.
    pub sum: Duration,
    /// Half of them took at most so long: the end of the bucket it is in, at most twice too much.
    pub p50: Duration,
    /// Of a hundred, 99 took at most so long, as exactly.
    pub p99: Duration,
}

impl Counters {
    /// All that was counted, in the order of labels. What is counted meanwhile may be in it or not.
    pub fn read(&self) -> Vec<Counted> {
        self.series.load().iter().map(|(labels, series)| series.read(*labels)).collect()
    }

    /// How many operations ended so.
    pub fn count(&self, operation: Operation, result: &str) -> u64 {
        let counted = self.read().into_iter();
        let these = counted.filter(|of| of.labels.operation == operation && of.labels.result == result);
        these.map(|of| of.count).sum()
    }
}

impl Metrics for Counters {
    fn record(&self, labels: Labels, took: Duration) {
        let mut all = self.series.load();
        if !all.contains_key(&labels) {
            if all.len() >= SERIES_MAX {
                return;
            }
            // Once for each kind of operation and result; who comes at the same time finds what the other has put.
            self.series.rcu(|all| {
                let mut more = BTreeMap::clone(all);
                more.entry(labels).or_default();
                more
            });
            all = self.series.load();
        }
        let Some(series) = all.get(&labels) else { return };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        series.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        series.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// The bucket whose end is the first power of two that is not below it.
fn bucket(us: u64) -> usize {
    let power = us
        .max(1)
        .checked_next_power_of_two()
        .map_or(BUCKETS, |power| usize::try_from(power.trailing_zeros()).unwrap_or(BUCKETS));
    power.min(BUCKETS - 1)
}

impl Series {
    fn read(&self, labels: Labels) -> Counted {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let count = buckets.iter().sum();
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed));
        Counted { labels, count, sum, p50: quantile(&buckets, count, 50), p99: quantile(&buckets, count, 99) }
    }
}

fn quantile(buckets: &[u64], count: u64, percent: u64) -> Duration {
    let wanted = count.saturating_mul(percent).div_ceil(100);
    let mut seen = 0;
    let at = buckets.iter().position(|of| {
        seen += of;
        seen >= wanted
    });
    let end = |at: usize| 1_u64 << at.min(BUCKETS - 1);
    if count == 0 { Duration::ZERO } else { Duration::from_micros(end(at.unwrap_or(BUCKETS - 1))) }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read()).finish()
    }
}

/// What a repository notes its operations with.
#[derive(Clone)]
pub(super) struct Meter {
    pub(super) backend: &'static str,
    pub(super) of: &'static str,
    counters: Arc<Counters>,
    /// Beside the counters.
    other: Option<Arc<dyn Metrics>>,
}

impl Meter {
    pub(super) fn new<T>(backend: &'static str) -> Self {
        Self { backend, of: std::any::type_name::<T>(), counters: Arc::default(), other: None }
    }

    pub(super) fn with(self, other: Arc<dyn Metrics>) -> Self {
        Self { other: Some(other), ..self }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Notes how an operation ended.
    pub(super) fn note<V, T>(&self, operation: Operation, began: Instant, result: &Result<V, RepoError<T>>) {
        let result = result.as_ref().err().map_or("ok", RepoError::label);
        let labels = Labels { backend: self.backend, of: self.of, operation, result };
        let took = began.elapsed();
        self.counters.record(labels, took);
        if let Some(other) = &self.other {
            other.record(labels, took);
        }
        tracing::trace!(
            backend = labels.backend,
            of = labels.of,
            operation = operation.label(),
            result,
            ?took,
            "a repository's operation"
        );
    }

    /// Runs an operation and notes how it ended.
    pub(super) async fn run<V, T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<V, RepoError<T>>>,
    ) -> Result<V, RepoError<T>> {
        let began = Instant::now();
        let result = work.await;
        self.note(operation, began, &result);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(result: &'static str) -> Labels {
        Labels { backend: "memory", of: "T", operation: Operation::Get, result }
    }

    /// RS15, RS19: a counter and quantiles of latency for each backend, type, operation and result.
    #[test]
    fn rs15_operations_are_counted_by_their_labels_with_quantiles() {
        let counters = Counters::default();
        for us in 1..=100 {
            counters.record(labels("ok"), Duration::from_micros(us));
        }
        counters.record(labels("not_found"), Duration::from_secs(1_000));
        let counted = counters.read();
        assert_eq!(counted.iter().map(|of| of.labels.result).collect::<Vec<_>>(), ["not_found", "ok"]);
        assert_eq!((counted[1].count, counted[1].sum), (100, Duration::from_micros(5_050)));
        assert_eq!(counted[1].p50, Duration::from_micros(64));
        assert_eq!(counted[1].p99, Duration::from_micros(128));
        assert_eq!(counted[0].p50, Duration::from_micros(1 << 26), "the last bucket");
        assert_eq!(counters.count(Operation::Get, "ok"), 100);
        assert_eq!(counters.count(Operation::List, "ok"), 0);
    }
}
