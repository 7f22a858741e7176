//! What the watch streams count, under etcd's names where etcd has one.

use prometheus::{IntCounter, IntGauge};

use super::Maker;
use crate::codec::response::signed;

/// Counters that the streams and the dispatch loop write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WatchCounts {
    /// Events handed to streams, once per watcher.
    pub events: IntCounter,
    /// Events that wait in the queues of streams.
    pub events_pending: IntGauge,
    /// Bytes that wait in the queues of streams; what several streams share counts for each.
    pub bytes_pending: IntGauge,
    /// Times that dispatch had fallen so far behind that it left changes to history.
    pub overruns: IntCounter,
    /// Slices of history that were read for watchers behind the head.
    pub catch_up_reads: IntCounter,
    /// Times that a stream's queue had no room for a delivery.
    pub refusals: IntCounter,
}

impl WatchCounts {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            events: maker
                .counter("etcd_debugging_mvcc_events_total", "Total number of events sent by this member."),
            events_pending: maker.gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Total number of pending events to be sent.",
            ),
            bytes_pending: maker
                .gauge("holdfast_watch_queued_bytes", "Bytes that wait in the queues of watch streams."),
            overruns: maker.counter(
                "holdfast_watch_overruns_total",
                "Times that watch dispatch left changes to history because it was too far behind.",
            ),
            catch_up_reads: maker.counter(
                "holdfast_watch_catch_up_reads_total",
                "Slices of history that were read for watchers behind the head.",
            ),
            refusals: maker.counter(
                "holdfast_watch_refusals_total",
                "Times that the queue of a watch stream had no room for a delivery.",
            ),
        }
    }
}

/// How the watchers of a member are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchFigures {
    /// Open watch streams.
    pub streams: usize,
    /// Watchers.
    pub watchers: usize,
    /// Watchers that read history: they are behind, or were created with a past revision.
    pub lagging: usize,
    /// Revisions between the newest one visible here and the watcher that is furthest behind; 0 when none is.
    pub lag_revisions: u64,
    /// Bytes that wait in the queues of all streams.
    pub queued_bytes: u64,
}

/// Copied from the dispatch loop when the page is asked for.
pub(super) struct WatchGauges {
    streams: IntGauge,
    watchers: IntGauge,
    lagging: IntGauge,
    lag_revisions: IntGauge,
}

impl WatchGauges {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            streams: maker.gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams."),
            watchers: maker.gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers."),
            lagging: maker.gauge(
                "etcd_debugging_mvcc_slow_watcher_total",
                "Total number of watchers that are behind and read from history.",
            ),
            lag_revisions: maker.gauge(
                "holdfast_watch_lag_revisions",
                "Revisions between the newest one and the watcher that is furthest behind.",
            ),
        }
    }

    pub(super) fn refresh(&self, figures: &WatchFigures) {
        self.streams.set(signed(figures.streams as u64));
        self.watchers.set(signed(figures.watchers as u64));
        self.lagging.set(signed(figures.lagging as u64));
        self.lag_revisions.set(signed(figures.lag_revisions));
    }
}
