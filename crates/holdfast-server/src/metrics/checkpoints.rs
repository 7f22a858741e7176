//! Checkpoints of the key index: what the start made of the one that it found, and how those written since ended.

use holdfast_storage::{CheckpointEnd, CheckpointFigures, IndexSource};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

use super::Maker;
use crate::codec::response::signed;

/// What is copied from the storage's status.
pub(super) struct CheckpointGauges {
    source: IntGaugeVec,
    ended: IntCounterVec,
    bytes: IntGauge,
}

impl CheckpointGauges {
    pub(super) fn new(maker: &Maker<'_>) -> Self {
        Self {
            source: maker.gauges(
                "holdfast_start_index",
                "1 at what the start built the key index from: a checkpoint and what lies behind it, all records, or \
                 all records because the checkpoint could not be used.",
                &["from"],
            ),
            ended: maker.counters(
                "holdfast_checkpoints_total",
                "Checkpoints of the key index, by how their writing ended.",
                &["result"],
            ),
            bytes: maker.gauge(
                "holdfast_checkpoint_bytes",
                "The length of the last checkpoint that was written; 0 when there was none since the start.",
            ),
        }
    }

    pub(super) fn refresh(&self, figures: &CheckpointFigures) {
        for source in IndexSource::ALL {
            self.source.with_label_values(&[source.label()]).set(i64::from(figures.source == source));
        }
        for (end, count) in CheckpointEnd::ALL.iter().zip(figures.ended) {
            super::raise(&self.ended.with_label_values(&[end.label()]), count);
        }
        self.bytes.set(signed(figures.bytes));
    }
}
