//! Who must not take part (any more), as far as this member knows: the two questions that a greeting asks.
//!
//! - Was the peer removed? Its id is used up; it is told so and ends.
//! - Does the peer come with an empty log although it had one? It has forgotten its vote and what it acknowledged, so it
//!   could help to elect a leader that lacks acknowledged writes. It is told so and ends, before it has voted with us. When its
//!   log is not empty (any more), the greeting was overtaken by what it has acknowledged since: it greets again.
//!
//! A member is known to have had a log when it has published its name (it does so when it has caught up), or when it
//! has ever acknowledged an entry of ours since this process started.

use std::collections::BTreeSet;

use holdfast_log::Log;
use holdfast_storage::Storage;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Why this member has no place in the cluster any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It was removed.
    Removed,
    /// Its log is gone: its data directory was lost or replaced by an empty one.
    Wiped,
    /// Its log has lost entries that it had acknowledged: an older copy of its data directory was put back, or its disk
    /// has not kept what it said it had.
    WentBack,
}

/// See the module.
pub(crate) struct Roster {
    /// This member's own log and state; `None` for connections without a member behind them.
    /// Taken at the shutdown: connections may outlive the member, and must not hold its files.
    stores: Mutex<Option<(Log, Storage)>>,
    /// Written by the state machine.
    removed: Mutex<BTreeSet<u64>>,
    /// Told when [`Roster::removed`] has changed. The watcher waits on it.
    changed: Notify,
    /// Peers that have acknowledged entries. Written by the connections.
    acknowledged: Mutex<BTreeSet<u64>>,
    /// Set once, by whoever learns it first.
    departed: watch::Sender<Option<Departure>>,
}

impl std::fmt::Debug for Roster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roster").field("removed", &self.removed).finish_non_exhaustive()
    }
}

impl Roster {
    pub(crate) fn new(stores: Option<(Log, Storage)>) -> Self {
        Self {
            stores: Mutex::new(stores),
            removed: Mutex::default(),
            changed: Notify::new(),
            acknowledged: Mutex::default(),
            departed: watch::Sender::new(None),
        }
    }

    /// True when this member has nothing in its log that it could have acknowledged: at most what every initial member begins
    /// with by itself, the first entry or the state that the cluster is founded with. No leader has ever had their term.
    pub(crate) fn own_log_is_empty(&self) -> bool {
        let stores = self.stores.lock();
        let Some((log, storage)) = &*stores else { return false };
        let last = log.state().last.or(storage.applied().log_id);
        last.is_none_or(|last| last.term().get() == 0)
    }

    /// This member's own state, until the shutdown.
    pub(crate) fn storage(&self) -> Option<Storage> {
        self.stores.lock().as_ref().map(|(_, storage)| storage.clone())
    }

    /// Lets go of the member's own log and state.
    pub(crate) fn close(&self) {
        drop(self.stores.lock().take());
    }

    /// Replaces who was removed.
    pub(crate) fn set_removed(&self, removed: &BTreeSet<u64>) {
        let mut known = self.removed.lock();
        if *known != *removed {
            known.clone_from(removed);
            drop(known);
            self.changed.notify_one();
        }
    }

    /// Who was removed.
    pub(crate) fn removed(&self) -> BTreeSet<u64> {
        self.removed.lock().clone()
    }

    /// Waits until somebody was removed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn is_removed(&self, peer: u64) -> bool {
        self.removed.lock().contains(&peer)
    }

    /// Notes that a peer has an entry durably in its log, and not only the first one.
    pub(crate) fn acknowledged(&self, peer: u64) {
        self.acknowledged.lock().insert(peer);
    }

    /// True when a peer is known to have had a log.
    pub(crate) fn had_log(&self, peer: u64) -> bool {
        let has_published = || {
            let stores = self.stores.lock();
            let members = stores.as_ref().map(|(_, storage)| storage.members()).unwrap_or_default();
            members.iter().any(|member| member.id.0 == peer)
        };
        self.acknowledged.lock().contains(&peer) || has_published()
    }

    /// Notes that this member has no place any more.
    pub(crate) fn depart(&self, why: Departure) {
        let is_first = self.departed.send_if_modified(|departed| {
            let is_first = departed.is_none();
            departed.get_or_insert(why);
            is_first
        });
        if is_first {
            tracing::error!(?why, "this member has no place in the cluster any more");
        }
    }

    pub(crate) fn departed(&self) -> watch::Receiver<Option<Departure>> {
        self.departed.subscribe()
    }
}
