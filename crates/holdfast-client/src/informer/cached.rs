//! Objects that are read here and written there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::object::{Entry, Object, Unreadable};
use super::reader::{Reader, WaitError};
use super::snapshot::Snapshot;
use crate::client::Client;
use crate::codec::KeyValue;
use crate::error::{Class, Error};
use crate::range::KeyRange;
use crate::read::{Read, ReadLevel};
use crate::store::{Codec, CodecError};
use crate::txn::Op;
use crate::update::Tried;
use crate::write::Put;

/// How long a read waits for the cache to come to its revision, unless set.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How often an update is tried when others change the object in between.
const ATTEMPTS_MAX: u32 = 64;

/// A store whose reads come from an informer's cache and whose writes go to the server. Cheap to clone.
///
/// | level | asks the server | shows |
/// | --- | --- | --- |
/// | [`ReadLevel::Any`] | nothing | what the cache has, once it has listed |
/// | [`ReadLevel::AtLeast`] | nothing, but how far it has come when the cache is behind | everything up to the revision |
/// | [`ReadLevel::Linearizable`] | its revision | every write that was acknowledged to anybody before |
/// | [`ReadLevel::Exact`] | for the objects, unless the cache is at the revision | the state at the revision |
///
/// A write gives its revision; a read that is at least as new sees it.
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use holdfast_client::informer::{CachedStore, InformerOptions};
/// use holdfast_client::store::{Codec, Json};
/// use holdfast_client::{KeyRange, ReadLevel};
///
/// let options = InformerOptions::decode_with(|kv| Ok(Json.decode(&kv.value)?));
/// let informer = client.informer(KeyRange::prefix("limits/"), options);
/// let limits = CachedStore::<u64, Json>::new(informer.reader().clone(), Json);
/// let revision = limits.put("limits/web", &100).await?;
/// let read = limits.get("limits/web", ReadLevel::AtLeast(revision)).await?;
/// assert_eq!(read.value.map(|limit| *limit.value()), Some(100));
/// # Ok(())
/// # }
/// ```
pub struct CachedStore<T, C> {
    reader: Reader<T>,
    codec: Arc<C>,
    wait_max: Duration,
}

/// Why a cached store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CachedError<T> {
    /// The key is not in the range that the informer keeps. Nothing happened.
    #[error("{} is not in the informer's range", key.escape_ascii())]
    OutOfRange {
        /// The key.
        key: Bytes,
    },
    /// The cache has not come to the revision. Nothing happened.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The object is there, and its bytes are none.
    #[error(transparent)]
    Unreadable(Arc<Unreadable>),
    /// The object has no bytes. Nothing happened.
    #[error("the object for {} cannot be encoded", key.escape_ascii())]
    Encode {
        /// The key.
        key: Bytes,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The object is not as expected. Nothing happened.
    #[error("the object is not as expected: {current:?}")]
    Conflict {
        /// As it is; `None` when it is not there.
        current: Option<Arc<Object<T>>>,
    },
    /// The server did not do it, or nobody knows.
    #[error(transparent)]
    Server(#[from] Error),
}

impl<T> CachedError<T> {
    /// What to do about it.
    pub fn class(&self) -> Class {
        match self {
            Self::OutOfRange { .. } | Self::Unreadable(_) | Self::Encode { .. } | Self::Conflict { .. } => {
                Class::Rejected
            }
            Self::Wait(WaitError::Late { .. }) => Class::Retry,
            Self::Wait(WaitError::Stopped { .. }) => Class::Rejected,
            Self::Server(error) => error.class(),
        }
    }
}

/// What is expected of an object that is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is not there.
    Missing,
    /// This revision has changed it last. 0 is [`Expected::Missing`].
    At(u64),
}

impl Expected {
    /// That it is still as it was when it was read.
    pub fn unchanged<T>(object: Option<&Object<T>>) -> Self {
        object.map_or(Self::Missing, |object| Self::At(object.mod_revision()))
    }

    /// The revision that has changed it last; 0 when it is not there.
    fn mod_revision(self) -> u64 {
        match self {
            Self::Missing => 0,
            Self::At(revision) => revision,
        }
    }
}

impl<T, C: Codec<T>> CachedStore<T, C> {
    /// Reads come from this informer; what is written is encoded with `codec`, which must be what the informer decodes.
    pub fn new(reader: Reader<T>, codec: C) -> Self {
        Self { reader, codec: Arc::new(codec), wait_max: WAIT_MAX }
    }

    /// How long a read waits for the cache to come to its revision. 5 s unless set.
    #[must_use]
    pub fn wait_max(mut self, wait_max: Duration) -> Self {
        self.wait_max = wait_max;
        self
    }

    /// The informer behind it.
    pub fn reader(&self) -> &Reader<T> {
        &self.reader
    }

    /// The state of the cache that is fresh enough, for as many reads as one likes.
    ///
    /// Errors: the cache does not come so far in time; the server does not tell its revision; the cache is not at the
    /// revision of [`ReadLevel::Exact`] when it is asked, see [`CachedStore::get`] and [`CachedStore::list`].
    pub async fn snapshot(&self, level: ReadLevel) -> Result<Arc<Snapshot<T>>, CachedError<T>> {
        let revision = match level {
            // Before its first list is complete a cache has nothing, which is not that there is nothing.
            ReadLevel::Any => 1,
            ReadLevel::AtLeast(revision) => revision.max(1),
            ReadLevel::Linearizable => self.revision_now().await?,
            ReadLevel::Exact(wanted) => {
                let snapshot = self.reader.wait_for(wanted.max(1), self.wait_max).await?;
                let current = snapshot.revision();
                return if current == wanted {
                    Ok(snapshot)
                } else {
                    Err(CachedError::Server(Error::Compacted { compact_revision: Some(current) }))
                };
            }
        };
        Ok(self.reader.wait_for(revision, self.wait_max).await?)
    }

    /// An object; `None` when it is not there.
    ///
    /// Errors: as [`CachedStore::snapshot`]; it is there and its bytes are no object. At [`ReadLevel::Exact`] as
    /// [`Client::get`].
    pub async fn get(
        &self,
        key: impl Into<Bytes>,
        level: ReadLevel,
    ) -> Result<Read<Option<Arc<Object<T>>>>, CachedError<T>> {
        let key = self.key(key)?;
        let Some(snapshot) = self.fresh(level).await? else {
            let read = self.client().get(key, level).await?;
            let object = read.value.map(|kv| self.object(&kv)).transpose()?;
            return Ok(Read { value: object, revision: read.revision });
        };
        let found =
            snapshot.get(&key).map_err(|unreadable| CachedError::Unreadable(Arc::clone(unreadable)))?;
        Ok(Read { value: found.cloned(), revision: snapshot.revision() })
    }

    /// The objects whose keys begin so, in the order of their keys, all of one revision.
    ///
    /// Errors: as [`CachedStore::snapshot`]; not all keys that begin so are in the informer's range; the first whose bytes
    /// are no object. At [`ReadLevel::Exact`] as [`Client::list_all`].
    pub async fn list(
        &self,
        prefix: impl Into<Bytes>,
        level: ReadLevel,
    ) -> Result<Read<Vec<Arc<Object<T>>>>, CachedError<T>> {
        let prefix = prefix.into();
        if !self.reader.range.covers(&KeyRange::prefix(prefix.clone())) {
            return Err(CachedError::OutOfRange { key: prefix });
        }
        let Some(snapshot) = self.fresh(level).await? else {
            let read = self.client().list_all(KeyRange::prefix(prefix), level).await?;
            let objects = read.value.iter().map(|kv| self.object(kv)).collect::<Result<_, _>>()?;
            return Ok(Read { value: objects, revision: read.revision });
        };
        let objects = snapshot.under(&prefix).cloned().map(readable).collect::<Result<_, _>>()?;
        Ok(Read { value: objects, revision: snapshot.revision() })
    }

    /// Sets an object, whether it is there or not. Gives the revision.
    ///
    /// Errors: as [`Client::put`]; it cannot be encoded.
    pub async fn put(&self, key: impl Into<Bytes>, value: &T) -> Result<u64, CachedError<T>> {
        let key = self.key(key)?;
        let value = self.encode(&key, value)?;
        Ok(self.client().put(key, value).await?)
    }

    /// Sets an object if it is as expected. Gives the revision. An object that was there keeps its lease.
    ///
    /// Errors: as [`CachedStore::put`]; [`CachedError::Conflict`], with the object as it is, when it is not as expected.
    pub async fn put_if(
        &self,
        key: impl Into<Bytes>,
        value: &T,
        expected: Expected,
    ) -> Result<u64, CachedError<T>> {
        let key = self.key(key)?;
        let put = Put::new(key.clone(), self.encode(&key, value)?);
        let mod_revision = expected.mod_revision();
        let put = if mod_revision == 0 { put } else { put.keep_lease() };
        self.written(self.client().write_if(&key, mod_revision, put.into()).await?)
    }

    /// Deletes an object. Gives whether it was there, and the revision.
    ///
    /// Errors: as [`Client::delete`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<crate::write::Deleted, CachedError<T>> {
        let key = self.key(key)?;
        Ok(self.client().delete(key).await?)
    }

    /// Deletes an object if this revision has changed it last. Gives the revision of the deletion. 0 has changed none: it
    /// is a conflict, whatever there is.
    ///
    /// Errors: as [`Client::txn`]; [`CachedError::Conflict`], with the object as it is, when it is not as expected.
    pub async fn delete_if(&self, key: impl Into<Bytes>, mod_revision: u64) -> Result<u64, CachedError<T>> {
        let key = self.key(key)?;
        if mod_revision == 0 {
            return Err(CachedError::Conflict { current: self.stored(&key).await? });
        }
        self.written(self.client().write_if(&key, mod_revision, Op::delete(key.clone())).await?)
    }

    /// Changes an object as `change` says, beginning with what the cache has: when that is out of date, with what is
    /// there. `change` may be called again and again. `None` leaves it as it is, and gives no revision: of what the cache
    /// has that is taken as said only after the object was read once. The object keeps its lease.
    ///
    /// Errors: as [`CachedStore::put_if`]; [`CachedError::Conflict`] when others were faster 64 times. After
    /// [`Error::Unknown`] it may be changed.
    pub async fn update(
        &self,
        key: impl Into<Bytes>,
        mut change: impl FnMut(Option<&Object<T>>) -> Option<T>,
    ) -> Result<Option<u64>, CachedError<T>> {
        let key = self.key(key)?;
        // What cannot be read here may have been mended there.
        let cached = self.reader.snapshot().get(&key).map(Option::<&_>::cloned).ok();
        let mut is_cached = cached.is_some();
        let mut current = match cached {
            Some(found) => found,
            None => self.stored(&key).await?,
        };
        for _ in 0..ATTEMPTS_MAX {
            let Some(value) = change(current.as_deref()) else {
                if !is_cached {
                    return Ok(None);
                }
                (is_cached, current) = (false, self.stored(&key).await?);
                continue;
            };
            match self.put_if(key.clone(), &value, Expected::unchanged(current.as_deref())).await {
                Ok(revision) => return Ok(Some(revision)),
                Err(CachedError::Conflict { current: stands }) => (is_cached, current) = (false, stands),
                Err(error) => return Err(error),
            }
        }
        Err(CachedError::Conflict { current })
    }

    fn client(&self) -> &Client {
        &self.reader.client
    }

    /// An object as it is now.
    async fn stored(&self, key: &Bytes) -> Result<Option<Arc<Object<T>>>, CachedError<T>> {
        let read = self.client().get(key.clone(), ReadLevel::Linearizable).await?;
        read.value.map(|kv| self.object(&kv)).transpose()
    }

    /// The revision of the store, as of now: of a linearizable read within the range, as the user may have to be allowed.
    async fn revision_now(&self) -> Result<u64, Error> {
        let lowest = KeyRange::key(self.reader.range.lowest().clone());
        Ok(self.client().count(lowest, ReadLevel::Linearizable).await?.revision)
    }

    /// The key, if it is one of the informer's.
    fn key(&self, key: impl Into<Bytes>) -> Result<Bytes, CachedError<T>> {
        let key = key.into();
        if self.reader.range.contains(&key) { Ok(key) } else { Err(CachedError::OutOfRange { key }) }
    }

    /// The state to read from; `None` when the server has to be asked for the objects.
    async fn fresh(&self, level: ReadLevel) -> Result<Option<Arc<Snapshot<T>>>, CachedError<T>> {
        if let ReadLevel::Exact(revision) = level {
            let is_it = |snapshot: &Arc<Snapshot<T>>| revision > 0 && snapshot.revision() == revision;
            return Ok(Some(self.reader.snapshot()).filter(is_it));
        }
        self.snapshot(level).await.map(Some)
    }

    fn encode(&self, key: &Bytes, value: &T) -> Result<Bytes, CachedError<T>> {
        self.codec.encode(value).map_err(|source| CachedError::Encode { key: key.clone(), source })
    }

    fn object(&self, kv: &KeyValue) -> Result<Arc<Object<T>>, CachedError<T>> {
        readable(Entry::decode(kv, &*self.reader.decode))
    }

    fn written(&self, tried: Tried) -> Result<u64, CachedError<T>> {
        match tried {
            Tried::Written { revision } => Ok(revision),
            Tried::Changed(kv) => {
                let current = kv.map(|kv| self.object(&kv)).transpose()?;
                Err(CachedError::Conflict { current })
            }
        }
    }
}

fn readable<T>(entry: Entry<T>) -> Result<Arc<Object<T>>, CachedError<T>> {
    match entry {
        Entry::Object(object) => Ok(object),
        Entry::Unreadable(unreadable) => Err(CachedError::Unreadable(unreadable)),
    }
}

impl<T, C> Clone for CachedStore<T, C> {
    fn clone(&self) -> Self {
        Self { reader: self.reader.clone(), codec: Arc::clone(&self.codec), wait_max: self.wait_max }
    }
}

impl<T, C> fmt::Debug for CachedStore<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore").field("reader", &self.reader).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::informer::InformerOptions;
    use crate::store::Json;

    /// A cache of a range on a cluster that does not answer.
    fn unlisted(range: KeyRange) -> (crate::informer::Informer<u64>, CachedStore<u64, Json>) {
        let client = Client::new(["http://127.0.0.1:1"]).unwrap();
        let informer = client.informer(range, InformerOptions::decode_with(|kv| Ok(Json.decode(&kv.value)?)));
        let store = CachedStore::new(informer.reader().clone(), Json).wait_max(Duration::from_millis(10));
        (informer, store)
    }

    /// AW26: before the first list is complete nobody knows what is there, and that is what is said.
    #[tokio::test]
    async fn aw26_a_cache_that_has_not_listed_does_not_say_that_nothing_is_there() {
        let (_informer, store) = unlisted(KeyRange::prefix("n/"));
        for level in [ReadLevel::Any, ReadLevel::AtLeast(0), ReadLevel::AtLeast(1)] {
            let late = store.get("n/a", level).await.unwrap_err();
            assert!(
                matches!(late, CachedError::Wait(WaitError::Late { wanted: 1, .. })),
                "{level:?}: {late}"
            );
            assert!(store.list("n/", level).await.is_err(), "{level:?}");
        }
        let none = store.get("n/a", ReadLevel::Exact(0)).await.unwrap_err();
        assert!(matches!(none, CachedError::Server(Error::Compacted { .. })), "{none}");
    }

    /// A list is whole or refused: what is beyond the range is not known here.
    #[tokio::test]
    async fn a_list_of_a_prefix_that_goes_beyond_the_range_is_refused() {
        for range in [KeyRange::between("n/a", "n/am"), KeyRange::key("n/a"), KeyRange::from("n/aa")] {
            let (_informer, store) = unlisted(range.clone());
            let refused = store.list("n/a", ReadLevel::Any).await.unwrap_err();
            assert!(matches!(refused, CachedError::OutOfRange { .. }), "{range:?}: {refused}");
        }
    }
}
