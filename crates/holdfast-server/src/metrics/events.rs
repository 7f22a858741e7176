//! Counts the changes that become visible on this member.

use holdfast_mvcc::types::{Change, Record};
use prometheus::IntCounter;

/// Counters of changes.
#[derive(Debug, Clone)]
pub struct EventCounts {
    /// Puts, also those inside transactions.
    pub puts: IntCounter,
    /// Deleted keys.
    pub deletes: IntCounter,
}

impl EventCounts {
    /// Counts these changes.
    pub fn count(&self, records: &[&Record]) {
        let puts = records.iter().filter(|record| matches!(record.change, Change::Put(_))).count() as u64;
        self.puts.inc_by(puts);
        self.deletes.inc_by(records.len() as u64 - puts);
    }
}
