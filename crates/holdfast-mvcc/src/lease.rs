//! Leases: which there are, and how commands change them. Which keys are attached to a lease is in the index, because it
//! follows from the records.
//!
//! A lease has no deadline here: time does not pass in a replicated state. The leader keeps the deadlines, and proposes
//! the end of a lease ([`LeaseExpire`](crate::command::LeaseExpire)) with the term in which it judged; in an entry of another term that is refused. A
//! leader that was deposed while it did not notice cannot end what its successor keeps alive. It names each lease together
//! with the entry that granted it ([`LeaseRef`]): the end of one that was revoked meanwhile is not the end of one that was
//! granted under the same id.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::command::{LEASES_MAX, LeaseCheckpoint, LeaseGrant, Refusal};
use crate::hash::Mixer;
use crate::state::State;
use crate::types::{EntryId, Lease, LeaseChange, LeaseId, LeaseRef, Term};

/// What a lease counts in logical bytes.
pub(crate) const LEASE_BYTES: u64 = 64;

/// The leases there are, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeaseTable {
    leases: BTreeMap<LeaseId, Lease>,
}

impl LeaseTable {
    pub(crate) fn get(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(&id).copied()
    }

    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// The lease, when it is there and no other has its id.
    fn named(&self, named: LeaseRef) -> Option<Lease> {
        self.get(named.id).filter(|lease| lease.granted_at == named.granted_at)
    }

    pub(crate) fn contains_named(&self, named: LeaseRef) -> bool {
        self.named(named).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LeaseId, Lease)> + '_ {
        self.leases.iter().map(|(id, lease)| (*id, *lease))
    }

    pub(crate) fn behind(&self, after: Option<LeaseId>) -> impl Iterator<Item = (LeaseId, Lease)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.leases.range((from, Bound::Unbounded)).map(|(id, lease)| (*id, *lease))
    }

    /// Sets or removes a lease; answers the change for the caller's store.
    fn set(&mut self, id: LeaseId, lease: Option<Lease>) -> LeaseChange {
        match lease {
            Some(lease) => self.leases.insert(id, lease),
            None => self.leases.remove(&id),
        };
        LeaseChange { id, lease }
    }

    pub(crate) fn digest(&self, mixer: &mut Mixer) {
        mixer.number(self.leases.len() as u64);
        for (id, lease) in &self.leases {
            mixer.bytes(&id.0.to_le_bytes());
            mixer.number(lease.granted_at.0);
            mixer.number(lease.granted_seconds);
            mixer.number(lease.remaining_seconds.map_or(0, |seconds| seconds + 1));
        }
    }
}

impl State {
    /// Puts leases back, as the changes that evaluation has answered had left them. Before, between or behind the records
    /// is all the same.
    pub fn restore_leases(&mut self, leases: impl IntoIterator<Item = (LeaseId, Lease)>) {
        for (id, lease) in leases {
            self.leases.set(id, Some(lease));
        }
    }

    /// A lease, when there is one with this id.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(id)
    }

    /// All leases, ascending by id.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, Lease)> + '_ {
        self.leases.iter()
    }

    /// The leases behind one (exclusive), ascending by id; all with `None`.
    pub fn leases_behind(&self, after: Option<LeaseId>) -> impl Iterator<Item = (LeaseId, Lease)> + '_ {
        self.leases.behind(after)
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The keys that are attached to a lease, ascending.
    pub fn attached_keys(&self, id: LeaseId) -> impl Iterator<Item = &[u8]> + '_ {
        self.index.attached_keys(id, None)
    }

    /// As [`State::attached_keys`], behind a key (exclusive).
    pub fn attached_keys_behind(&self, id: LeaseId, after: &[u8]) -> impl Iterator<Item = &[u8]> + use<'_> {
        self.index.attached_keys(id, Some(after))
    }

    /// A lease that keys are attached to and that does not exist: never in a state that commands have led to. For who has
    /// restored one, and wants to know if something was missing.
    pub fn missing_lease(&self) -> Option<LeaseId> {
        self.index.attached_leases().find(|id| !self.leases.contains(*id))
    }

    pub(crate) fn grant(&mut self, grant: LeaseGrant, entry: EntryId) -> Result<LeaseChange, Refusal> {
        // On the wire 0 means none: it is the id of no lease, as a put that names it.
        if grant.id.0 == 0 {
            return Err(Refusal::LeaseNotFound { lease: grant.id });
        }
        if self.leases.contains(grant.id) {
            return Err(Refusal::LeaseExists { lease: grant.id });
        }
        let lease =
            Lease { granted_at: entry.index, granted_seconds: grant.ttl_seconds, remaining_seconds: None };
        Ok(self.leases.set(grant.id, Some(lease)))
    }

    /// Removes a lease; its keys are the caller's to delete.
    pub(crate) fn remove_lease(&mut self, id: LeaseId) -> LeaseChange {
        self.leases.set(id, None)
    }

    pub(crate) fn checkpoint(
        &mut self,
        checkpoint: &LeaseCheckpoint,
        term: Term,
    ) -> Result<Vec<LeaseChange>, Refusal> {
        check_term(checkpoint.term, term)?;
        let mut changes = Vec::with_capacity(checkpoint.remaining.len());
        for remaining in checkpoint.remaining.iter().take(LEASES_MAX) {
            let Some(lease) = self.leases.named(remaining.lease) else { continue };
            // All of the time that was granted is no news.
            let seconds = remaining.seconds.filter(|seconds| *seconds < lease.granted_seconds);
            let lease = Lease { remaining_seconds: seconds, ..lease };
            changes.push(self.leases.set(remaining.lease.id, Some(lease)));
        }
        Ok(changes)
    }
}

/// Whether what a leader has judged in one term may be applied in an entry of another.
pub(crate) fn check_term(judged: Term, applied: Term) -> Result<(), Refusal> {
    if judged == applied { Ok(()) } else { Err(Refusal::OtherTerm { judged, applied }) }
}
