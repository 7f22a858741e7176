//! Metrics, under etcd's names where etcd has one, so that its dashboards and alerts work, and `holdfast_*` for the rest.
//!
//! Counters that the services own are counted where things happen; everything that another crate knows is read when
//! the page is asked for. Module map: [`rpc`] counts RPCs, [`events`] counts changes, [`watch`] what watch streams do,
//! `dispatch` forms what the dispatcher and its dumps do, `checkpoints` those of the key index, `leases` those of leases, `proposals`
//! those of proposals, `fsync` the log's times, `tls` certificates and failed connections.

mod checkpoints;
mod dispatch;
pub mod events;
mod fsync;
mod leases;
mod proposals;
pub mod rpc;
mod tls;
pub mod watch;

use std::time::Duration;

use holdfast_env::LogId;
use holdfast_raft::{Health, LogStats};
use holdfast_storage::{DispatcherState, StorageStatus};
use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::codec::response::signed;
use crate::tls::TlsFigures;
use crate::version;
use checkpoints::CheckpointGauges;
use dispatch::DispatchGauges;
use events::EventCounts;
use leases::LeaseGauges;
use proposals::ProposalGauges;
use rpc::RpcMetrics;
use tls::TlsGauges;
use watch::{WatchCounts, WatchFigures, WatchGauges};

/// All metrics of one member.
pub struct Metrics {
    registry: Registry,
    /// RPCs by method and code.
    pub rpc: RpcMetrics,
    /// Changes that became visible here.
    pub events: EventCounts,
    /// What the watch streams do.
    pub watch: WatchCounts,
    /// Ranges answered by this member.
    pub ranges: IntCounter,
    /// Transactions answered by this member.
    pub txns: IntCounter,
    /// Confirmations for linearizable reads that failed.
    pub read_indexes_failed: IntCounter,
    /// Health checks that passed.
    pub health_success: IntCounter,
    /// Health checks that failed.
    pub health_failures: IntCounter,
    /// Time of HashKV.
    pub hash_seconds: Histogram,
    /// Time of requests, by type and success.
    pub request_seconds: HistogramVec,
    refreshed: Mutex<Refreshed>,
}

/// What is copied from consensus and storage when the page is asked for. Under a lock so that two scrapes at once do
/// not add the same difference to a counter twice.
struct Refreshed {
    has_leader: IntGauge,
    is_leader: IntGauge,
    is_learner: IntGauge,
    votes: IntGauge,
    leader_changes: IntCounter,
    leases: LeaseGauges,
    proposals: ProposalGauges,
    db_bytes: IntGauge,
    db_bytes_in_use: IntGauge,
    keys: IntGauge,
    current_revision: IntGauge,
    dispatcher_state: IntGaugeVec,
    stable_lag: IntGauge,
    durable_lag: IntGauge,
    snapshot_index: IntGauge,
    disk_bytes: IntGauge,
    evaluation_reads: IntCounter,
    log_segments: IntGauge,
    log_queued_bytes: IntGauge,
    log_is_full: IntGauge,
    log_last_index: IntGauge,
    receiving_bytes: IntGauge,
    log_purged_index: IntGauge,
    dispatch: DispatchGauges,
    checkpoints: CheckpointGauges,
    tls: TlsGauges,
    watch: WatchGauges,
}

/// What never changes while the member runs.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// This member's id.
    pub member_id: u64,
    /// The quota on data in bytes; 0 for none.
    pub quota_bytes: u64,
}

/// What the page is made from.
pub struct Scrape {
    /// Consensus.
    pub health: Health,
    /// Storage.
    pub storage: StorageStatus,
    /// The Raft log.
    pub log: LogStats,
    /// The last entry in the Raft log.
    pub log_last: Option<LogId>,
    /// The last entry that was purged from it.
    pub log_purged: Option<LogId>,
    /// The watchers.
    pub watch: WatchFigures,
    /// Certificates and ports.
    pub tls: TlsFigures,
    /// Bytes of requests of which only a part has come yet.
    pub receiving_bytes: usize,
}

/// Makes and registers metrics; the names are constants, so that registering can only fail by a mistake in this crate.
struct Maker<'a>(&'a Registry);

const MADE: &str = "metric names are valid and unique";

impl Maker<'_> {
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        let metric = IntCounter::new(name, help).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let metric = IntGauge::new(name, help).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let metric = IntCounterVec::new(Opts::new(name, help), labels).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn real_gauge(&self, name: &str, help: &str) -> Gauge {
        let metric = Gauge::new(name, help).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn real_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        let metric = GaugeVec::new(Opts::new(name, help), labels).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn histogram(&self, options: HistogramOpts) -> Histogram {
        let metric = Histogram::with_opts(options).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }

    fn histograms(&self, options: HistogramOpts, labels: &[&str]) -> HistogramVec {
        let metric = HistogramVec::new(options, labels).expect(MADE);
        self.0.register(Box::new(metric.clone())).expect(MADE);
        metric
    }
}

/// Doubling buckets from `start` seconds.
fn doubling(start: f64, count: usize) -> Vec<f64> {
    prometheus::exponential_buckets(start, 2.0, count).expect("start and count are positive")
}

impl Metrics {
    /// Makes all metrics of a member.
    pub fn new(fixed: &Fixed) -> Self {
        let registry = Registry::new();
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self())).expect(MADE);
        let maker = Maker(&registry);
        maker
            .gauges("etcd_server_id", "Server or member ID in hexadecimal format.", &["server_id"])
            .with_label_values(&[&format!("{:x}", fixed.member_id)])
            .set(1);
        maker
            .gauges("etcd_server_version", "Which version is running.", &["server_version"])
            .with_label_values(&[version::ETCD_API])
            .set(1);
        maker
            .gauges("etcd_cluster_version", "Which version the cluster runs.", &["cluster_version"])
            .with_label_values(&[version::ETCD_API])
            .set(1);
        maker
            .gauges("holdfast_build_info", "Which version of holdfast is running.", &["version"])
            .with_label_values(&[version::HOLDFAST])
            .set(1);
        maker
            .gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.")
            .set(signed(fixed.quota_bytes));
        let request_seconds = HistogramOpts::new(
            "etcd_server_request_duration_seconds",
            "Time of a request in this member, in seconds, by type and success.",
        );
        let hash_seconds = HistogramOpts::new(
            "etcd_mvcc_hash_duration_seconds",
            "Time of a hash of the history, in seconds.",
        );
        Self {
            rpc: RpcMetrics::new(&registry),
            events: EventCounts {
                puts: maker.counter("etcd_mvcc_put_total", "Total number of puts seen by this member."),
                deletes: maker
                    .counter("etcd_mvcc_delete_total", "Total number of deletes seen by this member."),
            },
            watch: WatchCounts::new(&maker),
            ranges: maker.counter("etcd_mvcc_range_total", "Total number of ranges answered by this member."),
            txns: maker.counter("etcd_mvcc_txn_total", "Total number of txns answered by this member."),
            read_indexes_failed: maker.counter(
                "etcd_server_read_indexes_failed_total",
                "The total number of failed read indexes seen.",
            ),
            health_success: maker
                .counter("etcd_server_health_success", "The total number of successful health checks."),
            health_failures: maker
                .counter("etcd_server_health_failures", "The total number of failed health checks."),
            hash_seconds: maker.histogram(hash_seconds.buckets(doubling(0.01, 15))),
            request_seconds: maker
                .histograms(request_seconds.buckets(doubling(0.0005, 15)), &["type", "success"]),
            refreshed: Mutex::new(Refreshed::new(&maker)),
            registry,
        }
    }

    /// Notes how long a request took.
    pub fn observe_request(&self, kind: RequestKind, succeeded: bool, took: Duration) {
        let success = if succeeded { "true" } else { "false" };
        self.request_seconds.with_label_values(&[kind.label(), success]).observe(took.as_secs_f64());
    }

    /// The page, in Prometheus' text format.
    ///
    /// Errors: a metric that cannot be written as text, which only a mistake in this crate can cause.
    pub fn render(&self, scrape: &Scrape) -> Result<String, prometheus::Error> {
        let page = {
            // Held until all is read: a second scrape would change what this one has not read yet.
            let refreshed = self.refreshed.lock();
            refreshed.refresh(scrape);
            TextEncoder::new().encode_to_string(&self.registry.gather())?
        };
        Ok(page + &fsync::render(&scrape.log) + &dispatch::render(&scrape.storage.dispatch))
    }
}

/// A request's type, as in the labels of `etcd_server_request_duration_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Range.
    Range,
    /// RangeStream: until its first piece was read.
    RangeStream,
    /// Put.
    Put,
    /// DeleteRange.
    DeleteRange,
    /// Txn.
    Txn,
    /// Compact.
    Compact,
    /// LeaseGrant.
    LeaseGrant,
    /// LeaseRevoke.
    LeaseRevoke,
}

impl RequestKind {
    fn label(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RangeStream => "range_stream",
            Self::Put => "put",
            Self::DeleteRange => "delete_range",
            Self::Txn => "txn",
            Self::Compact => "compact",
            Self::LeaseGrant => "lease_grant",
            Self::LeaseRevoke => "lease_revoke",
        }
    }
}

impl Refreshed {
    fn new(maker: &Maker<'_>) -> Self {
        Self {
            has_leader: maker
                .gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not."),
            is_leader: maker.gauge(
                "etcd_server_is_leader",
                "Whether or not this member is a leader. 1 if is, 0 otherwise.",
            ),
            votes: maker.gauge("holdfast_votes", "1 when the member votes; a new one catches up first."),
            is_learner: maker.gauge(
                "etcd_server_is_learner",
                "Whether or not this member is a learner. 1 if is, 0 otherwise.",
            ),
            leader_changes: maker
                .counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen."),
            proposals: ProposalGauges::new(maker),
            db_bytes: maker.gauge(
                "etcd_mvcc_db_total_size_in_bytes",
                "Logical bytes of the retained history, equal on all members.",
            ),
            db_bytes_in_use: maker.gauge(
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Logical bytes of the retained history in use, equal on all members.",
            ),
            keys: maker.gauge("etcd_debugging_mvcc_keys_total", "Total number of keys in the index."),
            current_revision: maker
                .gauge("etcd_debugging_mvcc_current_revision", "The current revision of the store."),
            dispatcher_state: maker.gauges(
                "holdfast_dispatcher_state",
                "1 for the state the dispatcher is in, 0 for the others.",
                &["state"],
            ),
            stable_lag: maker.gauge(
                "holdfast_stable_lag_entries",
                "Entries that are visible but not yet in the stable store.",
            ),
            durable_lag: maker.gauge(
                "holdfast_durable_lag_entries",
                "Entries that are visible but not yet synced in the stable store.",
            ),
            snapshot_index: maker.gauge(
                "holdfast_snapshot_index",
                "The last log entry in the newest verified snapshot; 0 for none.",
            ),
            disk_bytes: maker.gauge("holdfast_stable_disk_bytes", "Bytes on disk of the stable store."),
            evaluation_reads: maker.counter(
                "holdfast_evaluation_store_reads_total",
                "Values that the evaluation of a command had to wait for the stable store for.",
            ),
            log_segments: maker.gauge("holdfast_log_segments", "Segment files of the Raft log in use."),
            log_queued_bytes: maker
                .gauge("holdfast_log_queued_bytes", "Bytes that wait to be written to the Raft log."),
            log_is_full: maker.gauge(
                "holdfast_log_is_full",
                "1 while there is no room for another log segment, 0 otherwise.",
            ),
            log_last_index: maker.gauge("holdfast_log_last_index", "The last entry in the Raft log."),
            receiving_bytes: maker.gauge(
                "holdfast_receiving_bytes",
                "Bytes of requests of which only a part has come yet; at most --max-receiving-bytes.",
            ),
            log_purged_index: maker
                .gauge("holdfast_log_purged_index", "The last entry that was purged from the Raft log."),
            dispatch: DispatchGauges::new(maker),
            checkpoints: CheckpointGauges::new(maker),
            leases: LeaseGauges::new(maker),
            tls: TlsGauges::new(maker),
            watch: WatchGauges::new(maker),
        }
    }

    fn refresh(&self, scrape: &Scrape) {
        let Scrape { health, storage, log, log_last, log_purged, watch, tls, receiving_bytes } = scrape;
        self.receiving_bytes.set(i64::try_from(*receiving_bytes).unwrap_or(i64::MAX));
        self.has_leader.set(i64::from(health.leader.is_some()));
        self.is_leader.set(i64::from(health.is_leader));
        self.is_learner.set(i64::from(health.is_learner));
        self.votes.set(i64::from(health.votes));
        raise(&self.leader_changes, health.leader_changes);
        self.proposals.refresh(storage, health);
        let bytes = signed(storage.logical_bytes);
        self.db_bytes.set(bytes);
        self.db_bytes_in_use.set(bytes);
        self.keys.set(signed(storage.keys as u64));
        self.current_revision.set(signed(storage.visible.revision.get()));
        for state in STATES {
            self.dispatcher_state
                .with_label_values(&[state_label(state)])
                .set(i64::from(storage.state == state));
        }
        let applied = storage.visible.log_id.map_or(0, |id| id.index().get());
        let behind =
            |reached: Option<LogId>| signed(applied.saturating_sub(reached.map_or(0, |id| id.index().get())));
        self.stable_lag.set(behind(storage.stable));
        self.durable_lag.set(behind(storage.durable));
        self.snapshot_index.set(signed(storage.snapshot.map_or(0, |id| id.index().get())));
        self.disk_bytes.set(signed(storage.disk_bytes));
        raise(&self.evaluation_reads, storage.evaluation_reads);
        self.log_segments.set(signed(log.segments as u64));
        self.log_queued_bytes.set(signed(log.queued_bytes as u64));
        self.log_is_full.set(i64::from(log.is_full));
        let index = |id: Option<LogId>| signed(id.map_or(0, |id| id.index().get()));
        self.log_last_index.set(index(*log_last));
        self.log_purged_index.set(index(*log_purged));
        self.dispatch.refresh(storage);
        self.checkpoints.refresh(&storage.dispatch.checkpoints);
        self.leases.refresh(storage.leases, health);
        self.watch.refresh(watch);
        self.tls.refresh(tls);
    }
}

/// Brings a counter up to `total`; another crate counts, and may only go up.
fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

const STATES: [DispatcherState; 5] = [
    DispatcherState::Normal,
    DispatcherState::Dumping,
    DispatcherState::Merging,
    DispatcherState::Installing,
    DispatcherState::Poisoned,
];

/// A dispatcher state's name, in labels and in texts.
pub fn state_label(state: DispatcherState) -> &'static str {
    match state {
        DispatcherState::Normal => "normal",
        DispatcherState::Dumping => "dumping",
        DispatcherState::Merging => "merging",
        DispatcherState::Installing => "installing",
        DispatcherState::Poisoned => "poisoned",
    }
}
