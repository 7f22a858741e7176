//! The written form of leases, and the feed of their changes.
//!
//! ```text
//! row      form 0 (1) | lease                    of the stable store, under the lease's id
//! frame    (id i64 LE | lease) …                 of a snapshot
//! lease    granted at u64 LE | granted seconds u64 LE | remaining seconds u64 LE, one more; 0 when there is no checkpoint
//! ```
//!
//! "Granted at" is the log index of the entry that granted it.

use std::sync::atomic::AtomicU64;

use holdfast_mvcc::types::{Lease, LeaseChange, LeaseId, LogIndex};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::StoreError;
use crate::limits::LEASE_FEED_MAX;

const PLAIN: u8 = 0;
const LEASE_BYTES: usize = 24;
const ENTRY_BYTES: usize = 8 + LEASE_BYTES;

/// The row of a lease.
pub(crate) fn row(lease: Lease) -> Vec<u8> {
    let mut row = vec![PLAIN];
    row.extend_from_slice(&encode(lease));
    row
}

/// The lease of a row.
pub(crate) fn from_row(row: &[u8]) -> Result<Lease, StoreError> {
    match row.split_first() {
        Some((&PLAIN, lease)) => decode(lease),
        _ => Err(StoreError::damaged("a lease has an unknown form")),
    }
}

/// The content of a frame.
pub(crate) fn frame(leases: &[(LeaseId, Lease)]) -> Vec<u8> {
    leases.iter().flat_map(|(id, lease)| id.0.to_le_bytes().into_iter().chain(encode(*lease))).collect()
}

/// The leases of a frame.
pub(crate) fn from_frame(frame: &[u8]) -> Result<Vec<(LeaseId, Lease)>, StoreError> {
    if !frame.len().is_multiple_of(ENTRY_BYTES) {
        return Err(StoreError::damaged("a frame of leases has an impossible length"));
    }
    let entry = |entry: &[u8]| match entry.split_first_chunk() {
        Some((id, lease)) => Ok((LeaseId(i64::from_le_bytes(*id)), decode(lease)?)),
        None => Err(StoreError::damaged("a lease is too short")),
    };
    frame.chunks(ENTRY_BYTES).map(entry).collect()
}

fn encode(lease: Lease) -> [u8; LEASE_BYTES] {
    let mut bytes = [0; LEASE_BYTES];
    let remaining = lease.remaining_seconds.map_or(0, |seconds| seconds.saturating_add(1));
    bytes[..8].copy_from_slice(&lease.granted_at.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&lease.granted_seconds.to_le_bytes());
    bytes[16..].copy_from_slice(&remaining.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Lease, StoreError> {
    let wrong = || StoreError::damaged("a lease has the wrong length");
    let bytes = <&[u8; LEASE_BYTES]>::try_from(bytes).map_err(|_| wrong())?;
    let number = |at: usize| bytes[at..].first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
    Ok(Lease {
        granted_at: LogIndex(number(0)),
        granted_seconds: number(8),
        remaining_seconds: number(16).checked_sub(1),
    })
}

/// What commands do to leases, for the one who keeps their deadlines. Nothing is kept while nobody follows.
#[derive(Debug, Default)]
pub(crate) struct LeaseFeed {
    /// Written by the dispatcher under the index lock; taken by the follower. `None`: nobody follows, or the follower has
    /// lost the thread and must begin anew.
    changes: Mutex<Option<Vec<LeaseChange>>>,
    /// Told of each change. One task waits on it: the follower.
    changed: Notify,
    /// Leases granted since the start; written by the dispatcher.
    pub(crate) granted: AtomicU64,
    /// Leases that ended since the start; written by the dispatcher.
    pub(crate) ended: AtomicU64,
}

impl LeaseFeed {
    /// Adds changes, in order.
    pub(crate) fn push(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let mut kept = self.changes.lock();
        let Some(waiting) = kept.as_mut() else { return };
        if waiting.len() + changes.len() > LEASE_FEED_MAX {
            *kept = None;
        } else {
            waiting.extend_from_slice(changes);
        }
        drop(kept);
        self.changed.notify_one();
    }

    /// The changes from now on are kept. Called under the index lock.
    pub(crate) fn follow(&self) {
        *self.changes.lock() = Some(Vec::new());
    }

    /// Nothing is kept any more: nobody follows, or the state was replaced.
    pub(crate) fn cut(&self) {
        *self.changes.lock() = None;
        self.changed.notify_one();
    }

    /// What came since the last call; `None` when the thread is lost.
    pub(crate) fn take(&self) -> Option<Vec<LeaseChange>> {
        self.changes.lock().as_mut().map(std::mem::take)
    }

    /// Resolves after the next push or cut; one that came before counts.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(granted_seconds: u64, remaining_seconds: Option<u64>) -> Lease {
        Lease { granted_at: LogIndex(258), granted_seconds, remaining_seconds }
    }

    /// The bytes on disk; a change here needs a new form.
    #[test]
    fn golden_bytes() {
        let mut bytes = [0; 25];
        (bytes[1], bytes[2], bytes[9]) = (2, 1, 5);
        assert_eq!(row(lease(5, None)), bytes);
        bytes[17] = 1;
        assert_eq!(row(lease(5, Some(0))), bytes);
        let mut expected = vec![254, 255, 255, 255, 255, 255, 255, 255];
        expected.extend_from_slice(&row(lease(5, Some(2)))[1..]);
        assert_eq!(frame(&[(LeaseId(-2), lease(5, Some(2)))]), expected);
    }

    #[test]
    fn what_was_not_written_is_refused() {
        let leases = [(LeaseId(1), lease(9, None)), (LeaseId(i64::MIN), lease(u64::MAX, Some(3)))];
        assert_eq!(from_frame(&frame(&leases)).unwrap(), leases);
        assert_eq!(from_row(&row(leases[1].1)).unwrap(), leases[1].1);
        assert!(from_frame(&frame(&leases)[1..]).is_err());
        let good = row(leases[0].1);
        assert!(from_row(&good[..24]).is_err());
        assert!(from_row(&[&good[..], &[0]].concat()).is_err());
        assert!(from_row(&[&[1], &good[1..]].concat()).is_err());
        assert!(from_row(&[]).is_err());
    }

    #[test]
    fn a_follower_misses_nothing_or_is_told() {
        let feed = LeaseFeed::default();
        let change = LeaseChange { id: LeaseId(1), lease: None };
        feed.push(&[change]);
        assert_eq!(feed.take(), None, "nobody followed");
        feed.follow();
        feed.push(&[change]);
        assert_eq!(feed.take(), Some(vec![change]));
        assert_eq!(feed.take(), Some(Vec::new()));
        feed.push(&vec![change; LEASE_FEED_MAX]);
        feed.push(&[change]);
        assert_eq!(feed.take(), None);
        feed.follow();
        feed.cut();
        assert_eq!(feed.take(), None);
    }
}
