//! What the dispatch loop leaves for whoever asks how it is doing.

use holdfast_mvcc::types::Revision;
use holdfast_watch::Figures;

/// Written by the dispatch loop after each turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) figures: Figures,
    pub(super) streams: usize,
    pub(super) head: Revision,
    /// The first revision that some watcher has not got; none when all have got everything up to the head.
    pub(super) oldest_missed: Option<Revision>,
}
