//! Forms the figures of proposals, under etcd's names where it has one.

use holdfast_raft::Health;
use holdfast_storage::StorageStatus;
use prometheus::{Gauge, IntCounter, IntGauge};

use super::{Maker, raise};
use crate::codec::response::signed;

/// What is copied when the page is asked for.
pub(super) struct ProposalGauges {
    committed: IntGauge,
    applied: IntGauge,
    pending: IntGauge,
    failed: IntCounter,
    paced: Gauge,
}

impl ProposalGauges {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            committed: maker
                .gauge("etcd_server_proposals_committed_total", "The index of the last committed log entry."),
            applied: maker
                .gauge("etcd_server_proposals_applied_total", "The index of the last applied log entry."),
            pending: maker
                .gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit."),
            failed: maker
                .counter("etcd_server_proposals_failed_total", "The total number of failed proposals seen."),
            paced: maker.real_gauge(
                "holdfast_writes_paced_seconds",
                "How long batches of writes were held back on this member while dumps were behind, since the start.",
            ),
        }
    }

    pub(super) fn refresh(&self, storage: &StorageStatus, health: &Health) {
        raise(&self.failed, health.proposals_failed);
        self.pending.set(signed(health.proposals_pending));
        self.committed.set(signed(health.committed.map_or(0, |id| id.index().get())));
        let applied = storage.visible.log_id.map_or(0, |id| id.index().get());
        self.applied.set(signed(applied));
        self.paced.set(health.writes_paced.as_secs_f64());
    }
}
