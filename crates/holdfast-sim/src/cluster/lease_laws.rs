//! What was told of leases, and the judgement on it.
//!
//! A lease that was acknowledged, by its grant or by a keep-alive, lives for its time to live from the moment on at which
//! that was asked for: so long no key of it may be deleted, unless its revocation was asked for. Its keys go in one
//! revision. That it does end is part of the recovery ([`recovery`](super::recovery)).

use bytes::Bytes;
use holdfast_mvcc::types::Change;
use tokio::time::Instant;

use super::history::{History, Recorded, Violation};

/// Which lease of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeasePlace(usize);

/// What is known of one lease.
#[derive(Debug)]
pub(super) struct HeldLease {
    /// What was acknowledged: it does not end by itself before.
    alive_until: Instant,
    /// When somebody began to ask for its end.
    revoked_at: Option<Instant>,
    /// Its keys, and whether it was acknowledged that they are attached.
    keys: Vec<(Bytes, bool)>,
}

impl HeldLease {
    /// Before that it may not end at all.
    fn must_live_until(&self) -> Instant {
        self.revoked_at.map_or(self.alive_until, |revoked| revoked.min(self.alive_until))
    }
}

impl History {
    /// Records a lease whose grant was acknowledged.
    pub(super) fn granted(&self, alive_until: Instant) -> LeasePlace {
        let mut recorded = self.shared.lock();
        recorded.report.leases += 1;
        recorded.leases.push(HeldLease { alive_until, revoked_at: None, keys: Vec::new() });
        LeasePlace(recorded.leases.len() - 1)
    }

    /// Records that a key is about to be attached.
    pub(super) fn attaching(&self, place: LeasePlace, key: Bytes) {
        self.shared.lock().leases[place.0].keys.push((key, false));
    }

    /// Records that a key was attached.
    pub(super) fn attached(&self, place: LeasePlace, key: &Bytes) {
        let mut recorded = self.shared.lock();
        if let Some(known) = recorded.leases[place.0].keys.iter_mut().find(|known| known.0 == *key) {
            known.1 = true;
        }
    }

    /// Records that a keep-alive was acknowledged.
    pub(super) fn renewed(&self, place: LeasePlace, alive_until: Instant) {
        let mut recorded = self.shared.lock();
        recorded.report.keep_alives += 1;
        let lease = &mut recorded.leases[place.0];
        lease.alive_until = lease.alive_until.max(alive_until);
    }

    /// Until when a lease lives, at least.
    pub(super) fn alive_until(&self, place: LeasePlace) -> Instant {
        self.shared.lock().leases[place.0].alive_until
    }

    /// Records that somebody is about to ask for the end of a lease.
    pub(super) fn revoking(&self, place: LeasePlace) {
        self.shared.lock().leases[place.0].revoked_at.get_or_insert_with(Instant::now);
    }

    /// Records that a member said that there is no such lease.
    pub(super) fn told_gone(&self, place: LeasePlace) {
        let must_live_until = self.shared.lock().leases[place.0].must_live_until();
        if Instant::now() < must_live_until {
            self.violate("a member said that a lease is gone which was acknowledged to live");
        }
    }
}

impl Recorded {
    /// Holds the ends of leases against what was acknowledged.
    pub(super) fn judge_leases(&self) -> Result<(), Violation> {
        let deletes = self.published.iter().flat_map(|(revision, records)| {
            let deletes = records.iter().filter(|record| record.change == Change::Delete);
            deletes.map(|record| (record.key.clone(), *revision))
        });
        let gone: std::collections::BTreeMap<Bytes, u64> = deletes.collect();
        for lease in &self.leases {
            let ends = |(key, _): &(Bytes, bool)| gone.get(key).map(|revision| (key.clone(), *revision));
            for (key, revision) in lease.keys.iter().filter_map(ends) {
                let at = self.published_at.get(&revision).copied();
                let early = at.filter(|at| *at < lease.must_live_until());
                if let Some(at) = early {
                    let by = lease.must_live_until().duration_since(at);
                    return Err(Violation::new(format!("{key:?} ended at {revision}, {by:?} too early")));
                }
            }
            let mut ends = lease.keys.iter().filter(|key| key.1).map(|(key, _)| gone.get(key));
            let first = ends.next();
            if ends.any(|other| Some(other) != first) {
                let keys = &lease.keys;
                return Err(Violation::new(format!(
                    "keys of one lease ended apart, or did not end: {keys:?}"
                )));
            }
        }
        Ok(())
    }
}
