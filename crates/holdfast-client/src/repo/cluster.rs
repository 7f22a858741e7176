//! A repository on a cluster.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::error::{Invalid, RepoError};
use super::filter::Filter;
use super::metrics::{Counters, Meter, Metrics, Operation};
use super::object::{Object, ObjectKey, Scope, check_name};
use super::repository::{
    Applied, Deleted, Event, Listed, READY_MAX, Repository, RepositoryWatch, Stored, seen, stored,
};
use crate::client::Client;
use crate::read::ReadLevel;
use crate::store::{
    ClusterStorage, Codec, Conditions, Expect, Identity, Json, Selection, Storage, StoreError, Transformer,
    TypedError, TypedItem, TypedStore, TypedWatch, text,
};

/// Where a repository's objects are: `<root>/<group>/<resource>/<namespace>/<name>`, without the namespace in a repository
/// that has none, and `<root>@<id>/...` for a cluster id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What all repositories' keys begin with; `/r` unless set. Not empty, and without `@`.
    pub root: Cow<'static, str>,
    /// Who defines the objects, as `wgpolicyk8s.io`. Named as objects are.
    pub group: String,
    /// What the objects are, as `policyreports`. Named as objects are.
    pub resource: String,
}

impl Place {
    /// Under the usual root.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { root: Cow::Borrowed("/r"), group: group.into(), resource: resource.into() }
    }

    /// Under another root.
    #[must_use]
    pub fn under(self, root: impl Into<String>) -> Self {
        Self { root: Cow::Owned(root.into()), ..self }
    }

    fn check(&self) -> Result<(), Invalid> {
        check_name(&self.group)?;
        check_name(&self.resource)?;
        if self.root.is_empty() || self.root.contains('@') {
            return Err(Invalid::Request { reason: "a root is empty or has an @" });
        }
        Ok(())
    }

    fn prefix(&self, cluster: Option<&str>) -> Bytes {
        let Self { root, group, resource } = self;
        match cluster {
            Some(id) => format!("{root}@{id}/{group}/{resource}/").into(),
            None => format!("{root}/{group}/{resource}/").into(),
        }
    }
}

/// A [`Repository`] on a cluster: holdfast, or etcd. Cheap to clone.
///
/// Each write is one transaction, so of many who create an object through any members one succeeds; reads are
/// linearizable. Objects are encoded by `C` and sealed by `X`; `S` is where they are kept.
///
/// ```no_run
/// # use holdfast_client::repo::{ClusterRepository, Object, Place, RepoError, Repository, Scope};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Report { name: String, namespace: String }
/// # impl Object for Report {
/// #     fn name(&self) -> &str { &self.name }
/// #     fn namespace(&self) -> Option<&str> { Some(&self.namespace) }
/// # }
/// # async fn example(client: holdfast_client::Client) -> Result<(), RepoError<Report>> {
/// let place = Place::new("wgpolicyk8s.io", "policyreports");
/// let reports = ClusterRepository::<Report>::new(client, place, Scope::Namespaced)?;
/// match reports.create(Report { name: "r".into(), namespace: "default".into() }).await {
///     Err(RepoError::AlreadyExists { version, .. }) => println!("there since {version}"),
///     Err(RepoError::Unknown { source }) => println!("it may be there: {source}"),
///     result => println!("{}", result?.version),
/// }
/// # Ok(())
/// # }
/// ```
pub struct ClusterRepository<T, C = Json, X = Identity, S = ClusterStorage> {
    store: TypedStore<T, C, X, S>,
    place: Place,
    scope: Scope,
    prefix: Bytes,
    is_part: bool,
    meter: Meter,
}

impl<T: Object> ClusterRepository<T>
where
    Json: Codec<T>,
{
    /// Objects as JSON, on the client's cluster.
    ///
    /// Errors: [`RepoError::Invalid`], for the place.
    pub fn new(client: Client, place: Place, scope: Scope) -> Result<Self, RepoError<T>> {
        Self::on(TypedStore::new(ClusterStorage::new(client), Json, Identity), place, scope)
    }
}

impl<T, C, X, S> ClusterRepository<T, C, X, S>
where
    T: Object,
    C: Codec<T>,
    X: Transformer,
    S: Storage,
{
    /// Objects in a store of one's own making.
    ///
    /// Errors: [`RepoError::Invalid`], for the place.
    pub fn on(store: TypedStore<T, C, X, S>, place: Place, scope: Scope) -> Result<Self, RepoError<T>> {
        place.check().map_err(RepoError::Invalid)?;
        let (prefix, meter) = (place.prefix(None), Meter::new::<T>(store.storage().backend()));
        Ok(Self { store, place, scope, prefix, is_part: false, meter })
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

    /// What all keys of this repository begin with.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    fn under(&self, filter: &Filter) -> Bytes {
        [self.prefix.as_ref(), filter.prefix().as_bytes()].concat().into()
    }

    /// The path behind the prefix, as a person reads it.
    fn path(&self, key: &Bytes) -> String {
        let path = key.strip_prefix(self.prefix.as_ref()).unwrap_or(key);
        String::from_utf8_lossy(path).into_owned()
    }

    /// What a store's error is here. `key` is what was asked for, if it was one object.
    fn error(&self, error: TypedError<T>, key: Option<&ObjectKey>) -> RepoError<T> {
        let request = |reason| RepoError::Invalid(Invalid::Request { reason });
        match (error, key) {
            (StoreError::NotFound { .. } | StoreError::Conflict { current: None, .. }, Some(key)) => {
                RepoError::NotFound { key: key.clone() }
            }
            (StoreError::Conflict { current: Some(item), .. }, Some(key)) => {
                RepoError::Conflict { key: key.clone(), current: stored(&item) }
            }
            (StoreError::NotFound { .. } | StoreError::Conflict { .. }, None) => {
                request("a request for many objects was answered for one")
            }
            (StoreError::Decode { key, version, source }, _) => {
                RepoError::Decode { key: self.path(&key), version, source: Box::new(source) }
            }
            (StoreError::Transform { version: 0, source, .. }, _) => {
                RepoError::Invalid(Invalid::Encode { source: Box::new(source) })
            }
            (StoreError::Transform { key, version, source }, _) => {
                RepoError::Decode { key: self.path(&key), version, source: Box::new(source) }
            }
            (StoreError::Encode { source, .. }, _) => {
                RepoError::Invalid(Invalid::Encode { source: Box::new(source) })
            }
            (StoreError::Gone { key, at, source }, _) => RepoError::Gone { key: self.path(&key), at, source },
            (StoreError::Compacted { wanted, oldest }, _) => RepoError::Compacted { wanted, oldest },
            (StoreError::FutureRevision { .. }, _) => RepoError::Unavailable { source: None },
            (StoreError::Invalid { reason }, _) => request(reason),
            (StoreError::TooLarge(too_large), _) => RepoError::TooLarge(too_large),
            (StoreError::Refused { source }, _) => RepoError::Refused { source },
            (StoreError::Unavailable { source }, _) => RepoError::Unavailable { source: Some(source) },
            (StoreError::Unknown { source }, _) => RepoError::Unknown { source },
        }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        object: Arc<T>,
        expect: Expect,
    ) -> Result<TypedItem<T>, TypedError<T>> {
        self.store.put(key.behind(&self.prefix), object, Conditions::expect(expect)).await
    }

    async fn create_now(&self, object: Arc<T>) -> Result<Stored<T>, RepoError<T>> {
        let key = ObjectKey::of(&*object, self.scope)?;
        let at = key.behind(&self.prefix);
        let encoded = self.store.encode(&at, &object).map_err(|error| self.error(error, Some(&key)))?;
        match self.store.put_raw(at, encoded, Conditions::expect(Expect::Missing)).await {
            Ok(item) => Ok(Stored { object, version: item.version }),
            // Whether it can be decoded or not, it is there.
            Err(StoreError::Conflict { current: Some(item), .. }) => {
                Err(RepoError::AlreadyExists { key, version: item.version })
            }
            Err(error) => Err(self.error(self.store.error(error).await, Some(&key))),
        }
    }

    async fn get_now(&self, key: &ObjectKey) -> Result<Stored<T>, RepoError<T>> {
        key.check(self.scope)?;
        let item = self.store.get(key.behind(&self.prefix), ReadLevel::Linearizable).await;
        item.map(|item| stored(&item)).map_err(|error| self.error(error, Some(key)))
    }

    async fn list_now(&self, filter: &Filter) -> Result<Listed<T>, RepoError<T>> {
        filter.check(self.scope)?;
        if let Some(key) = filter.only(self.scope) {
            return self.list_one(&key, filter).await;
        }
        let listed = self.store.list(self.under(filter), ReadLevel::Linearizable, Selection::all()).await;
        let listed = listed.map_err(|error| self.error(error, None))?;
        let items = listed.items.into_iter().filter(|item| filter.matches(&*item.value));
        Ok(Listed { items: items.map(|item| stored(&item)).collect(), version: listed.version })
    }

    /// Of the store's version, as any list: the object's own may be compacted, and no watch goes on from there.
    async fn list_one(&self, key: &ObjectKey, filter: &Filter) -> Result<Listed<T>, RepoError<T>> {
        let found = self.store.find_at(key.behind(&self.prefix)).await;
        let (item, version) = found.map_err(|error| self.error(error, Some(key)))?;
        let items = item.filter(|item| filter.matches(&*item.value));
        Ok(Listed { items: items.map(|item| stored(&item)).into_iter().collect(), version })
    }

    async fn update_now(&self, object: Arc<T>, expected: Option<u64>) -> Result<Stored<T>, RepoError<T>> {
        let key = ObjectKey::of(&*object, self.scope)?;
        let item = self.put(&key, object, expectation(expected)).await;
        item.map(|item| stored(&item)).map_err(|error| self.error(error, Some(&key)))
    }

    async fn delete_now(&self, key: &ObjectKey, expected: Option<u64>) -> Result<Deleted<T>, RepoError<T>> {
        key.check(self.scope)?;
        let conditions = Conditions::expect(expectation(expected));
        let removed = self.store.delete(key.behind(&self.prefix), conditions).await;
        let removed = removed.map_err(|error| self.error(error, Some(key)))?;
        Ok(Deleted { last: stored(&removed.item), at: removed.at })
    }

    async fn apply_now(&self, object: Arc<T>) -> Result<Applied<T>, RepoError<T>> {
        let key = ObjectKey::of(&*object, self.scope)?;
        let item = self.put(&key, object, Expect::Anything).await;
        let item = item.map_err(|error| self.error(error, Some(&key)))?;
        let is_new = item.created == item.version;
        Ok(if is_new { Applied::Created(stored(&item)) } else { Applied::Updated(stored(&item)) })
    }

    async fn count_now(&self, filter: &Filter) -> Result<u64, RepoError<T>> {
        if !filter.is_prefix() {
            let listed = self.list_now(filter).await?;
            return Ok(u64::try_from(listed.items.len()).unwrap_or(u64::MAX));
        }
        filter.check(self.scope)?;
        let count = self.store.count(self.under(filter), ReadLevel::Linearizable).await;
        count.map_err(|error| self.error(error, None))
    }

    async fn watch_now(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> Result<ClusterRepositoryWatch<T, C, X, S>, RepoError<T>> {
        filter.check(self.scope)?;
        let watch = self.store.watch(self.under(filter), after, Selection::all()).await;
        let watch = watch.map_err(|error| self.error(error, None))?;
        Ok(ClusterRepositoryWatch { repository: self.clone(), watch, filter: filter.clone() })
    }

    async fn ready_now(&self) -> Result<(), RepoError<T>> {
        // Any read that goes through a majority will do; of one name there is little to count.
        let count = self.store.count(self.prefix.clone(), ReadLevel::Linearizable);
        match tokio::time::timeout(READY_MAX, count).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.error(error, None)),
            Err(_) => Err(RepoError::Unavailable { source: None }),
        }
    }
}

/// What is expected of an object that has to be there, and perhaps at a version. 0 is no object's version, and on the wire
/// it would mean that there is none.
fn expectation(expected: Option<u64>) -> Expect {
    match expected {
        Some(0) => Expect::Version(u64::MAX >> 1),
        Some(version) => Expect::Version(version),
        None => Expect::Present,
    }
}

impl<T, C, X, S> Repository<T> for ClusterRepository<T, C, X, S>
where
    T: Object,
    C: Codec<T>,
    X: Transformer,
    S: Storage,
{
    type Watch = ClusterRepositoryWatch<T, C, X, S>;

    fn scope(&self) -> Scope {
        self.scope
    }

    async fn create(&self, object: impl Into<Arc<T>> + Send) -> Result<Stored<T>, RepoError<T>> {
        self.meter.run(Operation::Create, self.create_now(object.into())).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Stored<T>, RepoError<T>> {
        self.meter.run(Operation::Get, self.get_now(key)).await
    }

    async fn list(&self, filter: &Filter) -> Result<Listed<T>, RepoError<T>> {
        self.meter.run(Operation::List, self.list_now(filter)).await
    }

    async fn update(
        &self,
        object: impl Into<Arc<T>> + Send,
        expected: Option<u64>,
    ) -> Result<Stored<T>, RepoError<T>> {
        self.meter.run(Operation::Update, self.update_now(object.into(), expected)).await
    }

    async fn delete(&self, key: &ObjectKey, expected: Option<u64>) -> Result<Deleted<T>, RepoError<T>> {
        self.meter.run(Operation::Delete, self.delete_now(key, expected)).await
    }

    async fn apply(&self, object: impl Into<Arc<T>> + Send) -> Result<Applied<T>, RepoError<T>> {
        self.meter.run(Operation::Apply, self.apply_now(object.into())).await
    }

    async fn count(&self, filter: &Filter) -> Result<u64, RepoError<T>> {
        self.meter.run(Operation::Count, self.count_now(filter)).await
    }

    async fn watch(&self, filter: &Filter, after: Option<u64>) -> Result<Self::Watch, RepoError<T>> {
        self.meter.run(Operation::Watch, self.watch_now(filter, after)).await
    }

    async fn ready(&self) -> Result<(), RepoError<T>> {
        self.meter.run(Operation::Ready, self.ready_now()).await
    }

    fn for_cluster(&self, id: &str) -> Result<Self, RepoError<T>> {
        check_name(id)?;
        if self.is_part {
            return Err(RepoError::Invalid(Invalid::Request {
                reason: "it belongs to a cluster id already",
            }));
        }
        Ok(Self { prefix: self.place.prefix(Some(id)), is_part: true, ..self.clone() })
    }
}

impl<T, C, X, S> Clone for ClusterRepository<T, C, X, S> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            place: self.place.clone(),
            scope: self.scope,
            prefix: self.prefix.clone(),
            is_part: self.is_part,
            meter: self.meter.clone(),
        }
    }
}

impl<T, C, X, S> fmt::Debug for ClusterRepository<T, C, X, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterRepository")
            .field("of", &self.meter.of)
            .field("prefix", &text(&self.prefix))
            .finish_non_exhaustive()
    }
}

/// A watch of a [`ClusterRepository`]. It goes on over connections and members that fail, and ends as compacted when what
/// it has not given yet is not kept any more.
pub struct ClusterRepositoryWatch<T, C, X, S: Storage> {
    repository: ClusterRepository<T, C, X, S>,
    watch: TypedWatch<T, C, X, S>,
    filter: Filter,
}

impl<T, C, X, S> RepositoryWatch<T> for ClusterRepositoryWatch<T, C, X, S>
where
    T: Object,
    C: Codec<T>,
    X: Transformer,
    S: Storage,
{
    async fn next(&mut self) -> Option<Result<Event<T>, RepoError<T>>> {
        loop {
            match self.watch.next().await? {
                Ok(change) => {
                    if let Some(event) = seen(change, self.repository.prefix.len(), &self.filter) {
                        return Some(Ok(event));
                    }
                }
                Err(error) => return Some(Err(self.repository.error(error, None))),
            }
        }
    }
}

#[cfg(test)]
mod tests;
