//! A repository in memory: for tests, for small things, for what may be lost.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::error::{Invalid, RepoError, encode_failed};
use super::filter::Filter;
use super::metrics::{Counters, Meter, Metrics, Operation};
use super::object::{Object, ObjectKey, Scope, check_name};
use super::repository::{Applied, Deleted, Event, Listed, Repository, RepositoryWatch, Stored, seen, stored};
use super::snapshot::{self, SnapshotError, Summary};
use crate::store::cow::{Cow, Decision, Written};
use crate::store::{Codec, Item, Json, Limits, MemoryWatch, Selection, StorageWatch, StoreError};

/// What each key of a repository that belongs to no cluster id begins with. Those of an id begin with `@`.
const OWN: &[u8] = b"/";

/// A [`Repository`] in memory. Clones share what is in it; what is written is gone with the last one, unless a snapshot
/// was taken. No I/O, no threads, nothing to set up.
///
/// Readers see the newest version and keep it; they wait for nobody. Writers do one after the other. Objects are kept as
/// they are, and encoded to know how large they are: what has no encoded form is refused here, too.
pub struct MemoryRepository<T, C = Json> {
    cow: Arc<Cow<Arc<T>>>,
    codec: Arc<C>,
    scope: Scope,
    prefix: Bytes,
    meter: Meter,
}

impl<T> MemoryRepository<T> {
    /// An empty repository with the usual limits, whose objects are measured and saved as JSON.
    pub fn new(scope: Scope) -> Self {
        Self::with_codec(scope, Json, Limits::default())
    }

    /// An empty repository with these limits.
    pub fn with_limits(scope: Scope, limits: Limits) -> Self {
        Self::with_codec(scope, Json, limits)
    }
}

impl<T, C> MemoryRepository<T, C> {
    /// An empty repository whose objects are measured and saved in another form.
    pub fn with_codec(scope: Scope, codec: C, limits: Limits) -> Self {
        Self {
            cow: Arc::new(Cow::new(limits, false)),
            codec: Arc::new(codec),
            scope,
            prefix: Bytes::from_static(OWN),
            meter: Meter::new::<T>("memory"),
        }
    }

    /// The same, which notes its operations there as well.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<dyn Metrics>) -> Self {
        Self { meter: self.meter.with(metrics), ..self }
    }

    /// What was counted, of all clones.
    pub fn counters(&self) -> &Counters {
        self.meter.counters()
    }

    /// The newest version: 1 when nothing was ever written.
    pub fn version(&self) -> u64 {
        self.cow.view().version()
    }

    /// Bytes of all keys and objects in encoded form, of all cluster ids.
    pub fn bytes(&self) -> u64 {
        self.cow.view().bytes()
    }

    fn key(&self, key: &ObjectKey) -> Bytes {
        key.behind(&self.prefix)
    }

    fn not_found(key: &ObjectKey) -> RepoError<T> {
        RepoError::NotFound { key: key.clone() }
    }
}

/// What keeps an object, and what it is to be.
struct Wanted<T> {
    key: ObjectKey,
    object: Arc<T>,
    bytes: u64,
}

fn current<T>(written: &Written<Arc<T>>) -> Stored<T> {
    stored(written.current.as_ref().expect("what was put is there"))
}

fn conflict<T>(key: &ObjectKey, item: &Item<Arc<T>>, expected: Option<u64>) -> Result<(), RepoError<T>> {
    if expected.is_some_and(|expected| expected != item.version) {
        return Err(RepoError::Conflict { key: key.clone(), current: stored(item) });
    }
    Ok(())
}

impl<T: Object, C: Codec<T>> MemoryRepository<T, C> {
    fn wanted(&self, object: Arc<T>) -> Result<Wanted<T>, RepoError<T>> {
        let key = ObjectKey::of(&*object, self.scope)?;
        let encoded = self.codec.encode(&object).map_err(encode_failed)?;
        let bytes = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
        Ok(Wanted { key, object, bytes })
    }

    fn create_now(&self, object: Arc<T>) -> Result<Stored<T>, RepoError<T>> {
        let Wanted { key, object, bytes } = self.wanted(object)?;
        let written = self.cow.write(&self.key(&key), |item, _| match item {
            Some(item) => Err(RepoError::AlreadyExists { key, version: item.version }),
            None => Ok(Decision::Put(object, bytes)),
        })?;
        Ok(current(&written))
    }

    fn update_now(&self, object: Arc<T>, expected: Option<u64>) -> Result<Stored<T>, RepoError<T>> {
        let Wanted { key, object, bytes } = self.wanted(object)?;
        let written = self.cow.write(&self.key(&key), |item, _| {
            let item = item.ok_or_else(|| Self::not_found(&key))?;
            conflict(&key, item, expected)?;
            Ok::<_, RepoError<T>>(Decision::Put(object, bytes))
        })?;
        Ok(current(&written))
    }

    fn apply_now(&self, object: Arc<T>) -> Result<Applied<T>, RepoError<T>> {
        let Wanted { key, object, bytes } = self.wanted(object)?;
        let put = |_: Option<&_>, _| Ok::<_, RepoError<T>>(Decision::Put(object, bytes));
        let written = self.cow.write(&self.key(&key), put)?;
        let now = current(&written);
        Ok(if written.previous.is_some() { Applied::Updated(now) } else { Applied::Created(now) })
    }

    fn delete_now(&self, key: &ObjectKey, expected: Option<u64>) -> Result<Deleted<T>, RepoError<T>> {
        key.check(self.scope)?;
        let written = self.cow.write(&self.key(key), |item, _| {
            let item = item.ok_or_else(|| Self::not_found(key))?;
            conflict(key, item, expected)?;
            Ok::<_, RepoError<T>>(Decision::Delete)
        })?;
        let last = stored(written.previous.as_ref().expect("what was deleted was there"));
        Ok(Deleted { last, at: written.version })
    }

    fn get_now(&self, key: &ObjectKey) -> Result<Stored<T>, RepoError<T>> {
        key.check(self.scope)?;
        let (item, _) = self.cow.get(&self.key(key));
        item.map(|item| stored(&item)).ok_or_else(|| Self::not_found(key))
    }

    fn list_now(&self, filter: &Filter) -> Result<Listed<T>, RepoError<T>> {
        filter.check(self.scope)?;
        let view = self.cow.view();
        let items = match filter.only(self.scope) {
            Some(key) => {
                let item = view.get(&self.key(&key)).filter(|item| filter.matches(&*item.value));
                item.map(stored).into_iter().collect()
            }
            None => {
                let prefix = self.under(filter);
                let items = view.prefix(&prefix).filter(|item| filter.matches(&*item.value));
                items.map(stored).collect()
            }
        };
        Ok(Listed { items, version: view.version() })
    }

    fn count_now(&self, filter: &Filter) -> Result<u64, RepoError<T>> {
        filter.check(self.scope)?;
        let (view, prefix) = (self.cow.view(), self.under(filter));
        let items = view.prefix(&prefix).filter(|item| filter.is_prefix() || filter.matches(&*item.value));
        Ok(u64::try_from(items.count()).unwrap_or(u64::MAX))
    }

    fn watch_now(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<MemoryRepositoryWatch<T>, RepoError<T>> {
        filter.check(self.scope)?;
        let watch = MemoryWatch::new(&self.cow, self.under(filter), after, Selection::all());
        let watch = watch.map_err(|error| watch_failed(&error))?;
        Ok(MemoryRepositoryWatch { watch, prefix: self.prefix.clone(), filter: filter.clone() })
    }

    /// What the keys begin with that a filter can find.
    fn under(&self, filter: &Filter) -> Bytes {
        [self.prefix.as_ref(), filter.prefix().as_bytes()].concat().into()
    }

    /// Writes down all objects of this repository, as they are at one version. Writers go on meanwhile. Of a part that
    /// belongs to a cluster id, the objects of that part.
    ///
    /// Errors: the writer's; an object that cannot be encoded.
    pub fn snapshot(&self, to: impl io::Write) -> Result<Summary, SnapshotError> {
        let view = self.cow.view();
        let items = view.prefix(&self.prefix);
        snapshot::write(to, view.version(), items, self.prefix.len(), &*self.codec)
    }

    /// Replaces all objects of this part by those of a snapshot. Nothing is changed before all of it is read and its
    /// checksum agrees.
    ///
    /// Versions never go backwards: a repository to which nothing was written takes the objects with the versions that
    /// they had; in any other all of them are changed now, so all get the next version. Watches end as compacted.
    ///
    /// Errors: the reader's; what is read is no snapshot, is cut or damaged; its objects have no room or no place here.
    pub fn restore(&self, from: impl io::Read) -> Result<Summary, SnapshotError> {
        let (version, read) = snapshot::read::<T, C>(from, &*self.codec)?;
        let mut items = Vec::with_capacity(read.len());
        for snapshot::Saved { path, object, version, created, bytes } in read {
            let key = ObjectKey::parse(&path).ok_or(SnapshotError::Malformed)?;
            let own = ObjectKey::of(&object, self.scope).map_err(SnapshotError::Name)?;
            if own != key {
                return Err(SnapshotError::Malformed);
            }
            let value = Arc::new(object);
            items.push((Item { key: self.key(&key), value, version, created, is_stale: false }, bytes));
        }
        let objects = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let version = self.cow.replace(&self.prefix, version, items).map_err(SnapshotError::TooLarge)?;
        Ok(Summary { objects, version })
    }
}

impl<T: Object, C: Codec<T>> Repository<T> for MemoryRepository<T, C> {
    type Watch = MemoryRepositoryWatch<T>;

    fn scope(&self) -> Scope {
        self.scope
    }

    async fn create(&self, object: impl Into<Arc<T>> + Send) -> Result<Stored<T>, RepoError<T>> {
        self.noted(Operation::Create, |own| own.create_now(object.into()))
    }

    async fn get(&self, key: &ObjectKey) -> Result<Stored<T>, RepoError<T>> {
        self.noted(Operation::Get, |own| own.get_now(key))
    }

    async fn list(&self, filter: &Filter) -> Result<Listed<T>, RepoError<T>> {
        self.noted(Operation::List, |own| own.list_now(filter))
    }

    async fn update(
        &self,
        object: impl Into<Arc<T>> + Send,
        expected: Option<u64>,
    ) -> Result<Stored<T>, RepoError<T>> {
        self.noted(Operation::Update, |own| own.update_now(object.into(), expected))
    }

    async fn delete(&self, key: &ObjectKey, expected: Option<u64>) -> Result<Deleted<T>, RepoError<T>> {
        self.noted(Operation::Delete, |own| own.delete_now(key, expected))
    }

    async fn apply(&self, object: impl Into<Arc<T>> + Send) -> Result<Applied<T>, RepoError<T>> {
        self.noted(Operation::Apply, |own| own.apply_now(object.into()))
    }

    async fn count(&self, filter: &Filter) -> Result<u64, RepoError<T>> {
        self.noted(Operation::Count, |own| own.count_now(filter))
    }

    async fn watch(&self, filter: &Filter, after: Option<u64>) -> Result<Self::Watch, RepoError<T>> {
        self.noted(Operation::Watch, |own| own.watch_now(filter, after))
    }

    async fn ready(&self) -> Result<(), RepoError<T>> {
        self.noted(Operation::Ready, |_| Ok(()))
    }

    fn for_cluster(&self, id: &str) -> Result<Self, RepoError<T>> {
        check_name(id)?;
        if self.prefix != OWN {
            return Err(RepoError::Invalid(Invalid::Request {
                reason: "it belongs to a cluster id already",
            }));
        }
        Ok(Self { prefix: format!("@{id}/").into(), ..self.clone() })
    }
}

impl<T: Object, C: Codec<T>> MemoryRepository<T, C> {
    fn noted<V>(
        &self,
        operation: Operation,
        work: impl FnOnce(&Self) -> Result<V, RepoError<T>>,
    ) -> Result<V, RepoError<T>> {
        let began = Instant::now();
        let result = work(self);
        self.meter.note(operation, began, &result);
        result
    }
}

impl<T, C> Clone for MemoryRepository<T, C> {
    fn clone(&self) -> Self {
        Self {
            cow: Arc::clone(&self.cow),
            codec: Arc::clone(&self.codec),
            scope: self.scope,
            prefix: self.prefix.clone(),
            meter: self.meter.clone(),
        }
    }
}

impl<T, C> fmt::Debug for MemoryRepository<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.cow.view();
        f.debug_struct("MemoryRepository")
            .field("of", &self.meter.of)
            .field("objects", &view.len())
            .field("version", &view.version())
            .finish_non_exhaustive()
    }
}

/// A watch of a [`MemoryRepository`]. It has no queue: it is a place in the ring of changes, and ends as compacted when it
/// is read so slowly that its place is forgotten. Cancel-safe.
pub struct MemoryRepositoryWatch<T> {
    watch: MemoryWatch<Arc<T>>,
    prefix: Bytes,
    filter: Filter,
}

impl<T: Object> RepositoryWatch<T> for MemoryRepositoryWatch<T> {
    async fn next(&mut self) -> Option<Result<Event<T>, RepoError<T>>> {
        loop {
            let change = match self.watch.next().await? {
                Ok(change) => change,
                Err(error) => return Some(Err(watch_failed(&error))),
            };
            if let Some(event) = seen(change, self.prefix.len(), &self.filter) {
                return Some(Ok(event));
            }
        }
    }
}

fn watch_failed<T>(error: &StoreError<Arc<T>>) -> RepoError<T> {
    match error {
        StoreError::Compacted { wanted, oldest } => RepoError::Compacted { wanted: *wanted, oldest: *oldest },
        // The ring of a store in memory knows no other one.
        _ => RepoError::Invalid(Invalid::Request { reason: "no such watch" }),
    }
}
