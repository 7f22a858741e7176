//! What an informer tells about itself.

use std::time::Duration;

/// What an informer is doing.
///
/// ```text
///   Init ──► Syncing ──► Live ◄──► Resume
///                          │ ▲
///              revisions lost│ list, difference
///                          ▼ │
///                         Relist                any ──► Stopped
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InformerState {
    /// It has not begun.
    Init,
    /// It reads the first list.
    Syncing,
    /// It follows changes. A connection or member that fails is replaced underneath, from the revision it has come to.
    Live,
    /// Its watch was refused, and is asked for again, from the revision it has come to.
    Resume,
    /// It reads the list again. What it knew can be read meanwhile.
    Relist,
    /// It has ended. What it knew can still be read.
    Stopped,
}

/// Why all was listed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelistReason {
    /// Changes were compacted before they were seen.
    Compacted,
    /// A comparison with the server has shown a difference.
    Mismatch,
    /// Somebody asked for it.
    Asked,
}

/// How often all was listed again, beside the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relists {
    /// Because changes were compacted before they were seen.
    pub compacted: u64,
    /// Because a comparison with the server has shown a difference.
    pub mismatch: u64,
    /// Because somebody asked for it.
    pub asked: u64,
}

impl Relists {
    /// For any reason.
    pub fn total(&self) -> u64 {
        self.compacted + self.mismatch + self.asked
    }

    pub(super) fn count(&mut self, reason: RelistReason) {
        *match reason {
            RelistReason::Compacted => &mut self.compacted,
            RelistReason::Mismatch => &mut self.mismatch,
            RelistReason::Asked => &mut self.asked,
        } += 1;
    }
}

/// How an informer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What it is doing.
    pub state: InformerState,
    /// The revision that it has come to; 0 before the first list is complete.
    pub revision: u64,
    /// Keys that it knows, those that cannot be read among them.
    pub objects: usize,
    /// Keys whose bytes are no object.
    pub unreadable: usize,
    /// How long ago something has changed in its range; `None` when nothing has since it began.
    pub last_event_age: Option<Duration>,
    /// How long ago the server told anything: a list, a change, or that there was none.
    pub last_heard_age: Option<Duration>,
    /// How often all was listed again.
    pub relists: Relists,
    /// Subscriptions that follow.
    pub subscribers: usize,
    /// How often a subscription was dropped or too slow.
    pub lagged: u64,
    /// The last thing that went wrong, until something goes right.
    pub error: Option<String>,
}
