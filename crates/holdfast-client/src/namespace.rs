//! Keys that all begin the same for the server, and do not for the caller.

use bytes::Bytes;

use crate::client::Client;
use crate::range::{KeyRange, prefixed};

/// What is put before each key on its way out, and taken off on its way back. Empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Namespace(Bytes);

impl Namespace {
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The key for the server. An empty one stays so, and is refused there.
    pub(crate) fn key(&self, key: &Bytes) -> Bytes {
        if key.is_empty() { Bytes::new() } else { prefixed(&self.0, key) }
    }

    /// The range for the server: `key` and `range_end`.
    pub(crate) fn range(&self, range: &KeyRange) -> (Bytes, Bytes) {
        range.wire(&self.0)
    }

    /// The key for the caller; `None` when it is not in the namespace.
    pub(crate) fn strip(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.0).then(|| key.slice(self.0.len()..))
    }

    fn within(&self, prefix: &Bytes) -> Self {
        Self(prefixed(&self.0, prefix))
    }
}

impl Client {
    /// A client that sees the keys that begin with `prefix`, and nothing else, as if they began behind it. It shares its
    /// connections with this one. Within a namespace the prefix is put behind that of the namespace.
    ///
    /// Leases have no keys, and are the same in all namespaces.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// use holdfast_client::{KeyRange, ReadLevel};
    ///
    /// let tenant = client.namespaced("tenants/7/");
    /// tenant.put("config", "v1").await?;
    /// assert!(client.get("tenants/7/config", ReadLevel::Linearizable).await?.value.is_some());
    /// assert_eq!(tenant.count(KeyRange::all(), ReadLevel::Linearizable).await?.value, 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn namespaced(&self, prefix: impl Into<Bytes>) -> Self {
        self.with_namespace(self.namespace().within(&prefix.into()))
    }
}
