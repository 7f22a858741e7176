//! Which live key is attached to which lease, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::hash::Mixer;
use crate::types::LeaseId;

/// Keys with a lease; those without are not in it. The two sides share each key's bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Attached {
    leases: BTreeMap<Arc<[u8]>, LeaseId>,
    keys: BTreeSet<(LeaseId, Arc<[u8]>)>,
}

impl Attached {
    /// The lease of a key.
    pub(super) fn lease(&self, key: &[u8]) -> Option<LeaseId> {
        self.leases.get(key).copied()
    }

    /// The keys of a lease behind one (exclusive), ascending.
    pub(super) fn keys(&self, id: LeaseId, after: Option<&[u8]>) -> impl Iterator<Item = &[u8]> + use<'_> {
        let from = match after {
            Some(after) => Bound::Excluded((id, Arc::from(after))),
            None => Bound::Included((id, Arc::from([]))),
        };
        self.keys
            .range((from, Bound::Unbounded))
            .take_while(move |entry| entry.0 == id)
            .map(|entry| &*entry.1)
    }

    /// The leases that have keys, ascending.
    pub(super) fn leases(&self) -> impl Iterator<Item = LeaseId> + '_ {
        let mut last = None;
        self.keys.iter().filter_map(move |(id, _)| (last.replace(*id) != Some(*id)).then_some(*id))
    }

    /// Attaches a key to a lease, or to none.
    pub(super) fn set(&mut self, key: &[u8], lease: Option<LeaseId>) {
        // Usually nothing is attached to anything: no search then.
        if lease.is_none() && self.leases.is_empty() {
            return;
        }
        let Some((shared, old)) = self.leases.get_key_value(key).map(|(key, old)| (Arc::clone(key), *old))
        else {
            if let Some(lease) = lease {
                let shared: Arc<[u8]> = key.into();
                self.leases.insert(Arc::clone(&shared), lease);
                self.keys.insert((lease, shared));
            }
            return;
        };
        if lease == Some(old) {
            return;
        }
        let mut entry = (old, shared);
        self.keys.remove(&entry);
        match lease {
            Some(lease) => {
                self.leases.insert(Arc::clone(&entry.1), lease);
                entry.0 = lease;
                self.keys.insert(entry);
            }
            None => drop(self.leases.remove(key)),
        }
    }

    pub(super) fn digest(&self, mixer: &mut Mixer) {
        for (key, lease) in &self.leases {
            mixer.bytes(key);
            mixer.bytes(&lease.0.to_le_bytes());
        }
    }
}
