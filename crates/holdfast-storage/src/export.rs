//! All history at one revision, page by page, while writes go on: what a backup is made of.
//!
//! Head and leases are copied in one moment, between two commands. The records up to that revision are read afterwards,
//! a page at a time, each where it is by then: in the ring of the newest changes or in the stable store. What keeps them
//! is a pin at the compact revision: nothing more is scrubbed away while an export lives. Nothing else is held between
//! two pages, so that neither writes nor dumps wait.

use std::sync::Arc;

use holdfast_env::LogId;
use holdfast_mvcc::Head;
use holdfast_mvcc::types::{Lease, LeaseId, Record, RecordId, Revision};

use crate::changes::stored_page;
use crate::error::{ExportError, StoreError};
use crate::gate::{Gate, Pin};
use crate::limits::LOCK_KEYS_MAX;
use crate::pipeline::shared::Shared;
use crate::read::{Entered, enter};
use crate::record::Stored;
use crate::retention::Retention;
use crate::stable::following;
use crate::view::View;

/// A state that is being written out. Dropped, it lets the scrub go on.
pub struct Export {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    retention: Retention,
    head: Head,
    leases: Vec<(LeaseId, Lease)>,
    log_id: Option<LogId>,
    next: RecordId,
    _pin: Pin,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("head", &self.head).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Export {
    /// As of what is evaluated now, which readers may not see yet.
    pub(crate) fn begin(shared: Arc<Shared>) -> Self {
        let log_id = shared.visible.borrow().log_id;
        let Ok(Entered { view, pin }) = enter(&shared, |gate| Ok(gate.enter_window())) else {
            unreachable!("the window is open to everybody")
        };
        let (head, leases) = {
            let state = view.state.read();
            (state.head().clone(), state.leases().collect())
        };
        // The pin is at this compact revision or below: the index knows it as long as the pin is there.
        let retention = Retention::new(&view, head.compact_revision);
        let gate = Arc::clone(&view.gate);
        Self { shared, gate, retention, head, leases, log_id, next: RecordId::default(), _pin: pin }
    }

    /// The state beside the records.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// All leases, ascending by id.
    pub fn leases(&self) -> &[(LeaseId, Lease)] {
        &self.leases
    }

    /// An entry of the log that the state contains; it may contain some that follow.
    pub fn log_id(&self) -> Option<LogId> {
        self.log_id
    }

    /// The next records up to the head's revision, ascending, of those that a compaction leaves: about so many bytes. May
    /// be empty before the end, which is `None`. Blocks on the stable store.
    ///
    /// # Errors
    /// The export cannot go on: the store failed, or the state was replaced by a snapshot from the leader.
    pub fn page(&mut self, bytes: usize) -> Result<Option<Vec<Record>>, ExportError> {
        let through = self.head.revision;
        if self.next.revision > through {
            return Ok(None);
        }
        let view = self.shared.view.load_full();
        if !Arc::ptr_eq(&view.gate, &self.gate) {
            return Err(ExportError::Replaced);
        }
        let records = self.unfiltered(&view, bytes);
        let mut records =
            records.map_err(|e| ExportError::Store(self.shared.read_failed(&view.generation, &e)))?;
        if let Some(last) = records.last() {
            self.next = following(last.id);
        }
        records.retain(|record| record.id.revision <= through);
        Ok(Some(self.retention.filter(records)))
    }

    /// Moves on by itself when there is nothing before the next place to look at.
    fn unfiltered(&mut self, view: &View, bytes: usize) -> Result<Vec<Record>, StoreError> {
        let end = self.head.revision.next();
        if let Some(page) = view.ring.page(self.next, LOCK_KEYS_MAX) {
            if page.is_empty() {
                self.next = RecordId::new(end, 0);
            }
            let mut left = bytes;
            let fits = |stored: &&Arc<Stored>| {
                let is_more = left > 0;
                left = left.saturating_sub(stored.meta.len() + stored.value.len());
                is_more
            };
            return Ok(page.iter().take_while(fits).map(|stored| stored.record.clone()).collect());
        }
        // What has left the ring is whole in the store; of what is still in it, the store may have a part.
        let before = view.ring.from().min(end);
        // The scrub must not replace a run while its two packs are read.
        let _no_scrub = self.shared.scrubbing.read();
        let page = stored_page(view.generation.stable(), self.next, before, bytes)?;
        if page.is_empty() {
            self.next = RecordId::new(before, 0);
        }
        Ok(page)
    }
}

/// The revision that must be visible before the first page is read.
pub(crate) fn revision(export: &Export) -> Revision {
    export.head.revision
}
