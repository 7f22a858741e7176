//! A store of objects of one type: a codec and a transformer before a [`Storage`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::cluster::ClusterStorage;
use super::codec::{Codec, Json};
use super::error::StoreError;
use super::item::{Change, Item, Items, Page, Removed};
use super::selector::Selection;
use super::storage::{Conditions, Expect, Storage, StorageWatch};
use super::transform::{Identity, TransformError, Transformer};
use crate::read::ReadLevel;

/// An object of a [`TypedStore`].
pub type TypedItem<T> = Item<Arc<T>>;
/// Why a [`TypedStore`] did not do what it was asked.
pub type TypedError<T> = StoreError<Arc<T>>;

/// Objects of one type under keys: encoded by `C`, sealed by `X`, kept by `S`. Cheap to clone.
///
/// Reading fetches, opens, decodes, and gives the version beside the object, so that no object can have a wrong one in
/// it. The place that a transformer binds an object to is its whole key, as the store has it: behind the namespace of a
/// client that has one.
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use holdfast_client::ReadLevel;
/// use holdfast_client::store::{AesGcm, ClusterStorage, Conditions, Json, PrefixChain, TypedStore};
///
/// let sealed = PrefixChain::new("holdfast:enc:aesgcm:1:", Arc::new(AesGcm::new(&[7; 32])));
/// let store = TypedStore::<Vec<String>, _, _, _>::new(ClusterStorage::new(client), Json, sealed);
/// let item = store.put("words/a".into(), vec!["one".to_owned()], Conditions::prev_version(0)).await?;
/// let read = store.get("words/a".into(), ReadLevel::AtLeast(item.version)).await?;
/// assert_eq!(read.value[0], "one");
/// # Ok(())
/// # }
/// ```
pub struct TypedStore<T, C = Json, X = Identity, S = ClusterStorage> {
    inner: Arc<Inner<C, X, S>>,
    of: PhantomData<fn() -> T>,
}

struct Inner<C, X, S> {
    codec: C,
    transformer: X,
    storage: S,
}

impl<T, C, X, S> TypedStore<T, C, X, S>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    X: Transformer,
    S: Storage,
{
    /// Objects in this store.
    pub fn new(storage: S, codec: C, transformer: X) -> Self {
        Self { inner: Arc::new(Inner { codec, transformer, storage }), of: PhantomData }
    }

    /// The store behind it.
    pub fn storage(&self) -> &S {
        &self.inner.storage
    }

    /// Returns when the store has come to this version, see [`Storage::wait`].
    ///
    /// Errors: [`StoreError::FutureRevision`] when it does not in time.
    pub async fn wait(&self, version: u64, time_max: Duration) -> Result<u64, TypedError<T>> {
        match self.inner.storage.wait(version, time_max).await {
            Ok(current) => Ok(current),
            Err(error) => Err(self.error(error).await),
        }
    }

    /// Puts an object, and gives its version.
    ///
    /// Errors: as [`Storage::put`]; it has no encoded form, or cannot be sealed, in which case nothing happened.
    pub async fn put(
        &self,
        key: Bytes,
        object: impl Into<Arc<T>>,
        conditions: Conditions,
    ) -> Result<TypedItem<T>, TypedError<T>> {
        let object = object.into();
        let encoded = self.encode(&key, &object)?;
        self.put_encoded(key, object, encoded, conditions).await
    }

    pub(crate) async fn put_encoded(
        &self,
        key: Bytes,
        object: Arc<T>,
        encoded: Bytes,
        conditions: Conditions,
    ) -> Result<TypedItem<T>, TypedError<T>> {
        match self.put_raw(key, encoded, conditions).await {
            Ok(item) => Ok(item.map(|_| object)),
            Err(error) => Err(self.error(error).await),
        }
    }

    pub(crate) fn encode(&self, key: &Bytes, object: &T) -> Result<Bytes, TypedError<T>> {
        self.inner.codec.encode(object).map_err(|source| StoreError::Encode { key: key.clone(), source })
    }

    /// Deletes an object, and gives it as it was last, with the version of the deletion.
    ///
    /// Errors: as [`Storage::delete`]; [`StoreError::Gone`] when it is deleted and what it was cannot be decoded.
    pub async fn delete(&self, key: Bytes, conditions: Conditions) -> Result<Removed<Arc<T>>, TypedError<T>> {
        match self.inner.storage.delete(key, conditions).await {
            Ok(Removed { item, at }) => match self.open(item).await {
                Ok(item) => Ok(Removed { item, at }),
                Err(StoreError::Decode { key, source, .. }) => {
                    Err(StoreError::Gone { key, at, source: Box::new(source) })
                }
                Err(StoreError::Transform { key, source, .. }) => {
                    Err(StoreError::Gone { key, at, source: Box::new(source) })
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(self.error(error).await),
        }
    }

    /// Deletes an object if `validate` agrees with it as it is then, trying again when it changes in between. It begins
    /// with `hint`, if given; one that is out of date or that `validate` refuses is read again once.
    ///
    /// Errors: as [`TypedStore::delete`]; those of `validate`.
    pub async fn delete_validated<E>(
        &self,
        key: Bytes,
        hint: Option<TypedItem<T>>,
        mut validate: impl FnMut(&T) -> Result<(), E> + Send,
    ) -> Result<Removed<Arc<T>>, UpdateError<T, E>>
    where
        E: Send,
    {
        let mut is_hint = hint.is_some();
        let mut current = match hint {
            Some(item) => item,
            None => self.get(key.clone(), ReadLevel::Linearizable).await?,
        };
        for _ in 0..ATTEMPTS_MAX {
            match validate(&current.value) {
                Ok(()) => {}
                Err(_) if is_hint => {
                    (is_hint, current) = (false, self.get(key.clone(), ReadLevel::Linearizable).await?);
                    continue;
                }
                Err(error) => return Err(UpdateError::Caller(error)),
            }
            match self.delete(key.clone(), Conditions::prev_version(current.version)).await {
                Err(StoreError::Conflict { current: Some(item), .. }) => {
                    (is_hint, current) = (false, *item);
                }
                Err(StoreError::Conflict { key, current: None }) => {
                    return Err(UpdateError::Store(StoreError::NotFound { key, at: 0 }));
                }
                result => return Ok(result?),
            }
        }
        Err(UpdateError::Store(StoreError::Conflict { key, current: Some(Box::new(current)) }))
    }

    /// An object.
    ///
    /// Errors: as [`Storage::get`]; what is there cannot be opened or decoded, which is never "not found".
    pub async fn get(&self, key: Bytes, level: ReadLevel) -> Result<TypedItem<T>, TypedError<T>> {
        match self.inner.storage.get(key, level).await {
            Ok(item) => self.open(item).await,
            Err(error) => Err(self.error(error).await),
        }
    }

    /// An object as it is now, if it is there, and the version of the store of which that is true.
    ///
    /// Errors: as [`TypedStore::get`], but for not found.
    pub(crate) async fn find_at(&self, key: Bytes) -> Result<(Option<TypedItem<T>>, u64), TypedError<T>> {
        // The lowest of the keys that begin so; an answer about one key alone does not have the store's version.
        let page = self.inner.storage.page(key.clone(), None, 1, ReadLevel::Linearizable).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => return Err(self.error(error).await),
        };
        let found = match page.items.into_iter().next().filter(|item| item.key == key) {
            Some(item) => Some(self.open(item).await?),
            None => None,
        };
        Ok((found, page.version))
    }

    /// All objects whose keys begin so and that are selected, as they were at one version. Selectors see decoded objects,
    /// so they are evaluated here.
    ///
    /// Errors: as [`Storage::list`]; the first object that cannot be opened or decoded.
    pub async fn list(
        &self,
        prefix: Bytes,
        level: ReadLevel,
        selection: Selection<Arc<T>>,
    ) -> Result<Items<Arc<T>>, TypedError<T>> {
        if let Some(reason) = selection.fault() {
            return Err(StoreError::Invalid { reason });
        }
        let listed = match self.inner.storage.list(prefix, level, Selection::all()).await {
            Ok(listed) => listed,
            Err(error) => return Err(self.error(error).await),
        };
        let mut items = Vec::with_capacity(if selection.is_all() { listed.items.len() } else { 0 });
        for item in listed.items {
            let item = self.open(item).await?;
            if selection.matches(&item) {
                items.push(item);
            }
        }
        Ok(Items { items, version: listed.version, server_side: selection.is_all() && listed.server_side })
    }

    /// Waits until the store has come to this version, then lists it at that version or a later one: what was written or
    /// seen at the version is in the list.
    ///
    /// Errors: [`StoreError::FutureRevision`] when it does not come in time; as [`TypedStore::list`].
    pub async fn wait_and_list(
        &self,
        version: u64,
        time_max: Duration,
        prefix: Bytes,
        selection: Selection<Arc<T>>,
    ) -> Result<Items<Arc<T>>, TypedError<T>> {
        self.wait(version, time_max).await?;
        self.list(prefix, ReadLevel::AtLeast(version), selection).await
    }

    /// The next objects whose keys begin so, see [`Storage::page`].
    ///
    /// Errors: as [`TypedStore::list`].
    pub async fn page(
        &self,
        prefix: Bytes,
        behind: Option<Bytes>,
        limit: usize,
        level: ReadLevel,
    ) -> Result<Page<Arc<T>>, TypedError<T>> {
        let page = match self.inner.storage.page(prefix, behind, limit, level).await {
            Ok(page) => page,
            Err(error) => return Err(self.error(error).await),
        };
        let mut items = Vec::with_capacity(page.items.len());
        for item in page.items {
            items.push(self.open(item).await?);
        }
        Ok(Page { items, version: page.version, more: page.more })
    }

    /// How many objects have keys that begin so, whether they can be decoded or not.
    ///
    /// Errors: as [`Storage::count`].
    pub async fn count(&self, prefix: Bytes, level: ReadLevel) -> Result<u64, TypedError<T>> {
        match self.inner.storage.count(prefix, level).await {
            Ok(count) => Ok(count),
            Err(error) => Err(self.error(error).await),
        }
    }

    /// The changes behind a version, see [`Storage::watch_prefix`]. Selectors see decoded objects.
    ///
    /// Errors: as [`Storage::watch_prefix`].
    pub async fn watch(
        &self,
        prefix: Bytes,
        after: Option<u64>,
        selection: Selection<Arc<T>>,
    ) -> Result<TypedWatch<T, C, X, S>, TypedError<T>> {
        if let Some(reason) = selection.fault() {
            return Err(StoreError::Invalid { reason });
        }
        match self.inner.storage.watch_prefix(prefix, after, Selection::all()).await {
            Ok(watch) => Ok(TypedWatch { store: self.clone(), watch, selection, pending: None }),
            Err(error) => Err(self.error(error).await),
        }
    }

    /// Opens and decodes what is stored.
    async fn open(&self, item: Item<Bytes>) -> Result<TypedItem<T>, TypedError<T>> {
        let Item { key, value, version, created, is_stale } = self.unseal(item).await?;
        match self.inner.codec.decode(&value) {
            Ok(object) => Ok(Item { key, value: Arc::new(object), version, created, is_stale }),
            Err(source) => Err(StoreError::Decode { key, version, source }),
        }
    }

    /// Opens what is stored, and leaves it encoded.
    pub(crate) async fn unseal(&self, item: Item<Bytes>) -> Result<Item<Bytes>, TypedError<T>> {
        let Item { key, value, version, created, .. } = item;
        match self.inner.transformer.open(value, &key).await {
            Ok(opened) => Ok(Item { key, value: opened.value, version, created, is_stale: opened.is_stale }),
            Err(source) => Err(StoreError::Transform { key, version, source }),
        }
    }

    /// Seals what is encoded already, and puts it. What is in its way comes as it is stored, for who needs no more than its
    /// version.
    pub(crate) async fn put_raw(
        &self,
        key: Bytes,
        encoded: Bytes,
        conditions: Conditions,
    ) -> Result<Item<Bytes>, StoreError<Bytes>> {
        let sealed = self.inner.transformer.seal(encoded, &key).await;
        let sealed =
            sealed.map_err(|source| StoreError::Transform { key: key.clone(), version: 0, source })?;
        self.inner.storage.put(key, sealed, conditions).await
    }

    /// An error of the store behind it, with the object in it decoded.
    pub(crate) async fn error(&self, error: StoreError<Bytes>) -> TypedError<T> {
        match error {
            StoreError::Conflict { key, current: Some(item) } => match self.open(*item).await {
                Ok(item) => StoreError::Conflict { key, current: Some(Box::new(item)) },
                Err(error) => error,
            },
            // No other one has an object.
            error => error.try_map(|item| Err(StoreError::Conflict { key: item.key, current: None })),
        }
    }

    /// What was before, if it can be read. What is now does not depend on it.
    async fn readable(&self, item: Item<Bytes>) -> Option<TypedItem<T>> {
        match self.open(item).await {
            Ok(item) => Some(item),
            Err(error) => {
                tracing::debug!(%error, "what was before a change is not known");
                None
            }
        }
    }

    /// Errors: what is there now cannot be opened or decoded.
    async fn change(&self, change: Change<Bytes>) -> Result<Change<Arc<T>>, TypedError<T>> {
        let Change { kind, key, version, current, previous } = change;
        let current = match current {
            Some(item) => Some(self.open(item).await?),
            None => None,
        };
        let previous = match previous {
            Some(item) => self.readable(item).await,
            None => None,
        };
        Ok(Change { kind, key, version, current, previous })
    }
}

impl<T, C, X, S> Clone for TypedStore<T, C, X, S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), of: PhantomData }
    }
}

impl<T, C, X, S> fmt::Debug for TypedStore<T, C, X, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedStore").finish_non_exhaustive()
    }
}

/// How often a write that depends on what is there is tried before it is left: each try costs a round trip, and somebody
/// else's write was done for each that failed.
pub const ATTEMPTS_MAX: u32 = 100;

/// Why an update was not done.
#[derive(thiserror::Error)]
pub enum UpdateError<T, E> {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] TypedError<T>),
    /// The caller's function did not want it. Nothing happened.
    #[error("refused by who updates: {0}")]
    Caller(E),
}

impl<T, E: fmt::Display> fmt::Debug for UpdateError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => fmt::Debug::fmt(error, f),
            Self::Caller(error) => write!(f, "refused by who updates: {error}"),
        }
    }
}

/// A watch of a [`TypedStore`]. Dropping it ends it.
pub struct TypedWatch<T, C, X, S: Storage> {
    store: TypedStore<T, C, X, S>,
    watch: S::Watch,
    selection: Selection<Arc<T>>,
    /// Taken from the watch, and not opened yet.
    pending: Option<Change<Bytes>>,
}

impl<T, C, X, S> TypedWatch<T, C, X, S>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    X: Transformer,
    S: Storage,
{
    /// The next change, see [`StorageWatch::next`]. An object that cannot be opened or decoded is an error after which the
    /// watch goes on; when it is the key service that failed, with the same change, so call again after a pause. What
    /// was before and cannot be read is left out of its change. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Change<Arc<T>>, TypedError<T>>> {
        loop {
            let change = match &self.pending {
                Some(change) => change.clone(),
                None => match self.watch.next().await? {
                    Ok(change) => self.pending.insert(change).clone(),
                    Err(error) => return Some(Err(self.store.error(error).await)),
                },
            };
            let opened = self.store.change(change).await;
            // The service may answer the next time, and nobody else has the change.
            if !matches!(&opened, Err(StoreError::Transform { source: TransformError::Kms { .. }, .. })) {
                self.pending = None;
            }
            match opened.map(|change| change.seen_by(|item| self.selection.matches(item))) {
                Ok(None) => {}
                Ok(Some(seen)) => return Some(Ok(seen)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Whether selectors are evaluated where the objects are.
    pub fn server_side(&self) -> bool {
        self.selection.is_all() && self.watch.server_side()
    }
}

/// What is expected of an object that was read: that it is still the same, or still not there.
pub(crate) fn unchanged<V>(item: Option<&Item<V>>) -> Expect {
    item.map_or(Expect::Missing, |item| Expect::Version(item.version))
}

#[cfg(test)]
mod tests;
