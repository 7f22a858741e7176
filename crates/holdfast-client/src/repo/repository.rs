//! What a repository does, whatever is behind it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::error::RepoError;
use super::filter::Filter;
use super::object::{Object, ObjectKey, Scope};
use crate::store::{Change, ChangeKind, Item};

/// How long [`Repository::ready`] waits.
pub const READY_MAX: Duration = Duration::from_secs(2);

/// An object as it is stored.
pub struct Stored<T> {
    /// The object. Shared: who wants to change it makes another one.
    pub object: Arc<T>,
    /// The revision of its latest change. Grows with each change, also when the object was deleted in between.
    pub version: u64,
}

impl<T> Clone for Stored<T> {
    fn clone(&self) -> Self {
        Self { object: Arc::clone(&self.object), version: self.version }
    }
}

impl<T: PartialEq> PartialEq for Stored<T> {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.object == other.object
    }
}

impl<T> fmt::Debug for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("version", &self.version).finish_non_exhaustive()
    }
}

/// All that a list found, as it was at one version.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    /// In the order of keys; may be empty.
    pub items: Vec<Stored<T>>,
    /// The version of which this is true, also when there is no item. A watch after it misses nothing.
    pub version: u64,
}

/// What was deleted.
#[derive(Debug, Clone)]
pub struct Deleted<T> {
    /// The object as it was last, with the version of its latest change.
    pub last: Stored<T>,
    /// The version of the deletion.
    pub at: u64,
}

/// What an upsert came to.
#[derive(Debug, Clone)]
pub enum Applied<T> {
    /// There was none.
    Created(Stored<T>),
    /// There was one, and now there is this.
    Updated(Stored<T>),
}

impl<T> Applied<T> {
    /// The object that is there now.
    pub fn into_stored(self) -> Stored<T> {
        match self {
            Self::Created(stored) | Self::Updated(stored) => stored,
        }
    }
}

/// A change of an object, as far as the watch's filter is concerned.
#[derive(Debug, Clone)]
pub struct Event<T> {
    /// What happened.
    pub kind: ChangeKind,
    /// To whom.
    pub key: ObjectKey,
    /// The version of the change: of the deletion, for what is gone.
    pub version: u64,
    /// The object as it is now; none when it is deleted.
    pub current: Option<Stored<T>>,
    /// As it was before; none when it was not there, and where what it was cannot be opened or decoded.
    pub previous: Option<Stored<T>>,
}

/// Objects of one type, each under its name. What it promises does not depend on what is behind it:
///
/// | call | when the object is there | when it is not |
/// |---|---|---|
/// | create | `AlreadyExists` | there it is |
/// | get | it | `NotFound` |
/// | update | the new one, or `Conflict` if another version was expected | `NotFound`, and it stays so |
/// | delete | gone, and returned, or `Conflict` if another version was expected | `NotFound` |
/// | apply | the new one | there it is |
/// | list | all of them at one version, in the order of keys | an empty list with a version |
///
/// Of many who do one of these at once, each has what one order of all of them would give. Reads see every write that was
/// acknowledged before they began.
///
/// The futures are native, not boxed: a read from memory costs no allocation, and backends are chosen at compile time.
/// Who needs to choose at run time wraps two repositories in an enum.
///
/// ```no_run
/// # use holdfast_client::repo::{Filter, MemoryRepository, Object, ObjectKey, RepoError, Repository, Scope};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Report { name: String, namespace: String, failed: u32 }
/// # impl Object for Report {
/// #     fn name(&self) -> &str { &self.name }
/// #     fn namespace(&self) -> Option<&str> { Some(&self.namespace) }
/// # }
/// # async fn example() -> Result<(), RepoError<Report>> {
/// let reports = MemoryRepository::<Report>::new(Scope::Namespaced);
/// let report = Report { name: "r".into(), namespace: "default".into(), failed: 0 };
/// let created = reports.create(report).await?;
/// let changed = Report { name: "r".into(), namespace: "default".into(), failed: 1 };
/// reports.update(changed, Some(created.version)).await?;
/// let listed = reports.list(&Filter::namespace("default")).await?;
/// assert_eq!(listed.items.len(), 1);
/// reports.delete(&ObjectKey::namespaced("default", "r")?, None).await?;
/// # Ok(())
/// # }
/// ```
pub trait Repository<T: Object>: Clone + Send + Sync + 'static {
    /// A watch of this repository.
    type Watch: RepositoryWatch<T>;

    /// Whether its objects are in namespaces.
    fn scope(&self) -> Scope;

    /// Adds an object.
    ///
    /// Errors: [`RepoError::AlreadyExists`]; [`RepoError::Unknown`], after which it may be there; what else [`RepoError`]
    /// says.
    fn create(
        &self,
        object: impl Into<Arc<T>> + Send,
    ) -> impl Future<Output = Result<Stored<T>, RepoError<T>>> + Send;

    /// An object.
    ///
    /// Errors: [`RepoError::NotFound`]; [`RepoError::Decode`], when something is there that is no such object.
    fn get(&self, key: &ObjectKey) -> impl Future<Output = Result<Stored<T>, RepoError<T>>> + Send;

    /// The objects that a filter wants. None is an empty list, never an error.
    ///
    /// Errors: [`RepoError::Decode`] names the first one that cannot be decoded; what else [`RepoError`] says.
    fn list(&self, filter: &Filter) -> impl Future<Output = Result<Listed<T>, RepoError<T>>> + Send;

    /// Replaces an object; when a version is expected, only an object of that version.
    ///
    /// Errors: [`RepoError::NotFound`] when it is not there, whether a version is expected or not, and it is not created;
    /// [`RepoError::Conflict`] with the one that is there; [`RepoError::Unknown`], after which it may be replaced.
    fn update(
        &self,
        object: impl Into<Arc<T>> + Send,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<Stored<T>, RepoError<T>>> + Send;

    /// Deletes an object, and gives it as it was last; when a version is expected, only an object of that version.
    ///
    /// Errors: as [`Repository::update`]; [`RepoError::Gone`] when it is deleted and what it was cannot be decoded.
    fn delete(
        &self,
        key: &ObjectKey,
        expected: Option<u64>,
    ) -> impl Future<Output = Result<Deleted<T>, RepoError<T>>> + Send;

    /// Adds an object or replaces it, whatever is there, and says which.
    ///
    /// Errors: [`RepoError::Unknown`], after which it may be there; what else [`RepoError`] says.
    fn apply(
        &self,
        object: impl Into<Arc<T>> + Send,
    ) -> impl Future<Output = Result<Applied<T>, RepoError<T>>> + Send;

    /// How many objects a filter wants.
    ///
    /// Errors: as [`Repository::list`].
    fn count(&self, filter: &Filter) -> impl Future<Output = Result<u64, RepoError<T>>> + Send;

    /// The changes behind a version of objects that the filter wants before or after the change; without a version, behind
    /// the newest one. Each comes once, in order. Go on after the version of a list, or of the last event.
    ///
    /// Errors: [`RepoError::Compacted`] when the version is too old; what else [`RepoError`] says.
    fn watch(
        &self,
        filter: &Filter,
        after: Option<u64>,
    ) -> impl Future<Output = Result<Self::Watch, RepoError<T>>> + Send;

    /// Returns when the repository answers a read that sees all that was acknowledged.
    ///
    /// Errors: [`RepoError::Unavailable`] when it does not within [`READY_MAX`].
    fn ready(&self) -> impl Future<Output = Result<(), RepoError<T>>> + Send;

    /// The part of the same store that belongs to a cluster with this id, which is named as objects are: it sees nothing
    /// of other ids and of this one, and they see nothing of it. Limits, versions and metrics are those of the whole.
    ///
    /// Errors: the id is no name.
    fn for_cluster(&self, id: &str) -> Result<Self, RepoError<T>>;
}

/// An established watch of a repository. Dropping it ends it.
pub trait RepositoryWatch<T>: Send + 'static {
    /// The next event. Waits as long as it takes.
    ///
    /// [`RepoError::Decode`] is an object that cannot be decoded, and more follows. Any other error comes right before the
    /// end: `None` is all that follows it. After [`RepoError::Compacted`] list again, and watch from there.
    fn next(&mut self) -> impl Future<Output = Option<Result<Event<T>, RepoError<T>>>> + Send;
}

/// What is in a store, as a repository gives it.
pub(super) fn stored<T>(item: &Item<Arc<T>>) -> Stored<T> {
    Stored { object: Arc::clone(&item.value), version: item.version }
}

/// The change as an event, if the filter wants it.
pub(super) fn seen<T: Object>(change: Change<Arc<T>>, prefix: usize, filter: &Filter) -> Option<Event<T>> {
    // Of what cannot be read any more, the name is known.
    let key = ObjectKey::parse(change.key.get(prefix..)?).filter(|key| filter.finds(key))?;
    let Change { kind, version, current, previous, .. } =
        change.seen_by(|item| filter.matches(&*item.value))?;
    let stored = |item: Option<Item<Arc<T>>>| item.map(|item| stored(&item));
    Some(Event { kind, key, version, current: stored(current), previous: stored(previous) })
}
