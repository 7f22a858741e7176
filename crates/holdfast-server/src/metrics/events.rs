//! Counts the changes that become visible on this member. The first consumer of events; watches come beside it.

use holdfast_mvcc::types::{Change, Record, Revision};
use holdfast_storage::EventSink;
use prometheus::IntCounter;

/// Counters of changes.
#[derive(Debug, Clone)]
pub struct EventCounts {
    /// Puts, also those inside transactions.
    pub puts: IntCounter,
    /// Deleted keys.
    pub deletes: IntCounter,
}

impl EventSink for EventCounts {
    fn publish(&self, records: Vec<Record>, _revision: Revision) {
        let puts = records.iter().filter(|record| matches!(record.change, Change::Put(_))).count() as u64;
        self.puts.inc_by(puts);
        self.deletes.inc_by(records.len() as u64 - puts);
    }
}
