//! What a store of versioned objects does, whatever is behind it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;

use super::error::StoreError;
use super::item::{Change, Item, Items, Page, Removed};
use super::selector::Selection;
use crate::codec::LeaseId;
use crate::read::ReadLevel;

/// What has to be so for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Expect {
    /// Anything.
    #[default]
    Anything,
    /// There is no object at the key.
    Missing,
    /// There is an object at the key.
    Present,
    /// The object at the key has this version, and with it is the same object: one that was deleted and made again has
    /// another. 0 is [`Expect::Missing`].
    Version(u64),
}

/// How a write is done, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// What has to be so.
    pub expect: Expect,
    /// How long the object lives. Of no meaning to a deletion.
    pub lifetime: Lifetime,
}

/// How long an object lives that is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Stays,
    /// As long as it would have lived without the write. The object must be there, and expected to be.
    Kept,
    /// As long as this lease. Cluster alone: a store in memory refuses it.
    Lease(LeaseId),
    /// So long, and at most a twentieth of it or a minute longer, whichever is less, and the rest of a second: objects that
    /// are put about the same time share a lease. Cluster alone: a store in memory refuses it.
    Ttl(Duration),
}

impl Conditions {
    /// The write happens whatever there is.
    pub fn none() -> Self {
        Self::default()
    }

    /// The write happens when this is so.
    pub fn expect(expect: Expect) -> Self {
        Self { expect, ..Self::default() }
    }

    /// The write happens when the object has this version; 0 when there is none.
    pub fn prev_version(version: u64) -> Self {
        Self::expect(Expect::Version(version))
    }

    /// The object lives so long.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Lifetime) -> Self {
        Self { lifetime, ..self }
    }

    /// What is wrong with a put on these, if anything is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_expected = matches!(self.expect, Expect::Present | Expect::Version(1..));
        let is_kept = self.lifetime == Lifetime::Kept;
        (is_kept && !is_expected).then_some("a lifetime is kept of what is expected to be there")
    }
}

/// No key is empty.
pub(super) fn check_key(key: &Bytes) -> Result<(), StoreError<Bytes>> {
    if key.is_empty() { Err(StoreError::Invalid { reason: "the key is empty" }) } else { Ok(()) }
}

/// A page begins before the prefix, or in it: behind it is nothing that it could have.
pub(super) fn check_behind(prefix: &Bytes, behind: Option<&Bytes>) -> Result<(), StoreError<Bytes>> {
    match behind {
        Some(behind) if behind > prefix && !behind.starts_with(prefix) => {
            Err(StoreError::Invalid { reason: "a page begins behind all that it could have" })
        }
        Some(_) | None => Ok(()),
    }
}

/// Ordered keys with versioned objects of bytes: read, written on conditions, and watched.
///
/// What a write returns is what a read at that version returns. Every read names how fresh it is, see [`ReadLevel`]: at
/// least as new as one's own write is `AtLeast(version of the write)`, as new as anybody's is `Linearizable`.
///
/// No key is empty: one that is asked for, put or deleted is [`StoreError::Invalid`].
///
/// The futures are native, not boxed: a read from memory costs no allocation, and backends are chosen at compile time.
/// Who needs to choose at run time wraps two backends in an enum.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use holdfast_client::ReadLevel;
/// use holdfast_client::store::{Conditions, MemoryStorage, Storage, StoreError};
///
/// let storage = MemoryStorage::new();
/// let first = storage.put("k".into(), "one".into(), Conditions::prev_version(0)).await?;
/// let late = storage.put("k".into(), "two".into(), Conditions::prev_version(0)).await;
/// assert!(matches!(late, Err(StoreError::Conflict { current: Some(item), .. }) if item.value == "one"));
/// let seen = storage.get("k".into(), ReadLevel::AtLeast(first.version)).await?;
/// assert_eq!(seen.version, first.version);
/// # Ok(())
/// # }
/// ```
pub trait Storage: Send + Sync + 'static {
    /// Changes under a prefix.
    type Watch: StorageWatch<Bytes>;

    /// What this is in metrics: `memory`, `cluster`.
    fn backend(&self) -> &'static str;

    /// Returns when the store has come to this version, with the version that it has.
    ///
    /// Errors: [`StoreError::FutureRevision`] when it does not within `time_max`; [`StoreError::Unavailable`] when nobody
    /// could be reached at the end of that.
    fn wait(
        &self,
        version: u64,
        time_max: Duration,
    ) -> impl Future<Output = Result<u64, StoreError<Bytes>>> + Send;

    /// Puts an object, and gives it as it is stored.
    ///
    /// Errors: [`StoreError::Conflict`] with the object that is there, read in the same step; [`StoreError::Unknown`], after
    /// which it may be there; what else [`StoreError`] says.
    fn put(
        &self,
        key: Bytes,
        value: Bytes,
        conditions: Conditions,
    ) -> impl Future<Output = Result<Item<Bytes>, StoreError<Bytes>>> + Send;

    /// Deletes an object, and gives it as it was last.
    ///
    /// Errors: [`StoreError::NotFound`] when it is not there, unless a version was expected, which is
    /// [`StoreError::Conflict`]; [`StoreError::Unknown`], after which it may be gone; what else [`StoreError`] says.
    fn delete(
        &self,
        key: Bytes,
        conditions: Conditions,
    ) -> impl Future<Output = Result<Removed<Bytes>, StoreError<Bytes>>> + Send;

    /// An object.
    ///
    /// Errors: [`StoreError::NotFound`], [`StoreError::Compacted`], [`StoreError::FutureRevision`]; a read is never
    /// [`StoreError::Unknown`].
    fn get(
        &self,
        key: Bytes,
        level: ReadLevel,
    ) -> impl Future<Output = Result<Item<Bytes>, StoreError<Bytes>>> + Send;

    /// All objects whose keys begin so and that are selected, as they were at one version.
    ///
    /// Errors: as [`Storage::get`], but for not found: a list may be empty.
    fn list(
        &self,
        prefix: Bytes,
        level: ReadLevel,
        selection: Selection<Bytes>,
    ) -> impl Future<Output = Result<Items<Bytes>, StoreError<Bytes>>> + Send;

    /// The next objects whose keys begin so, at most `limit`, behind a key of them; from the first on without one, or
    /// behind a key before them. A limit of 0 is one of 1. [`Page::more`] says whether there are more behind them.
    ///
    /// Errors: [`StoreError::Invalid`] behind a key that is behind all that begin so; as [`Storage::list`].
    fn page(
        &self,
        prefix: Bytes,
        behind: Option<Bytes>,
        limit: usize,
        level: ReadLevel,
    ) -> impl Future<Output = Result<Page<Bytes>, StoreError<Bytes>>> + Send;

    /// How many objects have keys that begin so.
    ///
    /// Errors: as [`Storage::list`].
    fn count(
        &self,
        prefix: Bytes,
        level: ReadLevel,
    ) -> impl Future<Output = Result<u64, StoreError<Bytes>>> + Send;

    /// The changes behind a version of objects whose keys begin so, and that are selected before or after the change.
    /// Without a version, behind the newest one. Changes come in order, each once; a list's version is where to go on.
    ///
    /// Each has the object as it was before; when that is not known any more, the watch ends as compacted.
    ///
    /// Errors: the watch cannot be established. Once it is, what goes wrong is the last thing that it gives.
    fn watch_prefix(
        &self,
        prefix: Bytes,
        after: Option<u64>,
        selection: Selection<Bytes>,
    ) -> impl Future<Output = Result<Self::Watch, StoreError<Bytes>>> + Send;
}

/// An established watch. Dropping it ends it.
pub trait StorageWatch<V>: Send + 'static {
    /// The next change. Waits as long as it takes. Cancel-safe.
    ///
    /// An error comes right before the end: `None` is all that follows.
    fn next(&mut self) -> impl Future<Output = Option<Result<Change<V>, StoreError<V>>>> + Send;

    /// Whether selectors are evaluated where the objects are. When not, all changes come here first.
    fn server_side(&self) -> bool;
}
