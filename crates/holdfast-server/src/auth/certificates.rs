//! The names of those whose connections have shown a certificate, for as long as they are open.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A connection's certificate, in the extensions of its requests. Copied with every call; the name stays in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateId(u64);

/// The common names of open connections.
#[derive(Debug, Default)]
pub struct Certificates {
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    /// Counts up and is never used again, so that a call that outlives its connection is nobody's.
    last: u64,
    names: HashMap<CertificateId, Arc<str>>,
}

/// A certificate that is shown; it counts until this is dropped.
#[derive(Debug)]
pub struct Showing {
    table: Arc<Certificates>,
    id: CertificateId,
}

impl Certificates {
    /// Takes in the common name of a connection. An empty one names nobody.
    pub fn show(self: &Arc<Self>, common_name: &str) -> Option<Showing> {
        if common_name.is_empty() {
            return None;
        }
        let mut shown = self.shown.lock();
        shown.last += 1;
        let id = CertificateId(shown.last);
        shown.names.insert(id, common_name.into());
        Some(Showing { table: Arc::clone(self), id })
    }

    /// The name in a certificate, as long as its connection is open.
    pub fn name(&self, id: CertificateId) -> Option<Arc<str>> {
        self.shown.lock().names.get(&id).cloned()
    }
}

impl Showing {
    /// What to put into the extensions of the connection's requests.
    pub fn id(&self) -> CertificateId {
        self.id
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.table.shown.lock().names.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_as_long_as_its_connection_is_open() {
        let table = Arc::new(Certificates::default());
        let (alice, bob) = (table.show("alice").unwrap(), table.show("bob").unwrap());
        let id = alice.id();
        assert_eq!(table.name(id).as_deref(), Some("alice"));
        assert_eq!(table.name(bob.id()).as_deref(), Some("bob"));
        drop(alice);
        assert_eq!(table.name(id), None);
        assert!(table.show("").is_none());
    }
}
