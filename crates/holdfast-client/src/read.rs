//! Reads, each with how fresh it must be.

use std::ops::RangeInclusive;

use bytes::Bytes;

use crate::client::{Client, Repeat, kv};
use crate::codec::{self, KeyValue};
use crate::error::Error;
use crate::range::KeyRange;

/// How fresh a read must be.
///
/// What each costs and promises, of the cluster as it is when the read begins:
///
/// | level | asks | shows | works without a quorum |
/// | --- | --- | --- | --- |
/// | [`Any`](Self::Any) | one member, its memory | some state that was committed; another member may show an older one | yes |
/// | [`AtLeast`](Self::AtLeast) | one member, and a quorum only when that is behind | everything up to the revision, perhaps more | as long as the member that is asked has come so far |
/// | [`Exact`](Self::Exact) | one member, and a quorum only when that is behind | the state at the revision, the same always and everywhere | as long as the member that is asked has come so far |
/// | [`Linearizable`](Self::Linearizable) | a quorum | every write that was acknowledged to anybody before | no |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadLevel {
    /// What the member that is asked has. For what only has to be right in the end.
    Any,
    /// Not older than this revision. For who wants to see what it knows of: its own write, or the event that woke it.
    /// [`Error::FutureRevision`] when the cluster has not come so far.
    AtLeast(u64),
    /// As it was at this revision, whatever has happened since. [`Error::Compacted`] when that is not kept any more,
    /// [`Error::FutureRevision`] when it has not come yet.
    Exact(u64),
    /// As it is now.
    Linearizable,
}

/// What a read has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read<T> {
    /// What there is.
    pub value: T,
    /// The revision of the store that shows it. A watch from the next one on misses nothing and repeats nothing.
    pub revision: u64,
}

impl<T> Read<T> {
    /// Something else that is true at the same revision.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Read<U> {
        Read { value: f(self.value), revision: self.revision }
    }
}

/// What keys are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortBy {
    /// Their bytes.
    Key,
    /// How often they have been changed.
    Version,
    /// When they came into being.
    CreateRevision,
    /// When they were changed last.
    ModRevision,
    /// The bytes of their values.
    Value,
}

/// Which of two comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The lower one.
    Ascending,
    /// The higher one.
    Descending,
}

/// What of a range is wanted. All of it, in the order of keys, unless set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOptions {
    pub(crate) limit: u64,
    pub(crate) keys_only: bool,
    pub(crate) sort: Option<(SortBy, Order)>,
    pub(crate) mod_revisions: Option<RangeInclusive<u64>>,
    pub(crate) create_revisions: Option<RangeInclusive<u64>>,
}

impl ListOptions {
    /// All of the range.
    pub fn new() -> Self {
        Self::default()
    }

    /// At most so many keys; 0 is no limit. [`Page::more`] tells whether there were more.
    #[must_use]
    pub fn limit(mut self, keys: u64) -> Self {
        self.limit = keys;
        self
    }

    /// Values stay on the server: each is empty in the answer.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// In another order. The server reads the whole range for it, whatever the limit.
    #[must_use]
    pub fn sorted(mut self, by: SortBy, order: Order) -> Self {
        self.sort = Some((by, order));
        self
    }

    /// Only keys whose latest change is in these revisions, both ends inclusive. The server reads the whole range for it.
    #[must_use]
    pub fn changed_in(mut self, revisions: RangeInclusive<u64>) -> Self {
        self.mod_revisions = Some(revisions);
        self
    }

    /// Only keys that came into being in these revisions, both ends inclusive. The server reads the whole range for it.
    #[must_use]
    pub fn created_in(mut self, revisions: RangeInclusive<u64>) -> Self {
        self.create_revisions = Some(revisions);
        self
    }
}

/// Some keys of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The keys with their values, in the order wanted.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut it.
    pub more: bool,
    /// How many keys the range has, whatever the limit and the bounds of revisions.
    pub count: u64,
}

/// What a range is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) range: KeyRange,
    pub(crate) options: ListOptions,
    pub(crate) count_only: bool,
}

/// Where a query is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// 0 is the newest.
    pub(crate) revision: u64,
    pub(crate) serializable: bool,
}

impl Client {
    /// One key; `None` if it does not exist.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// use holdfast_client::ReadLevel;
    ///
    /// let read = client.get("config/web", ReadLevel::Linearizable).await?;
    /// match read.value {
    ///     Some(kv) => println!("{:?} since revision {}", kv.value, kv.mod_revision),
    ///     None => println!("not there at revision {}", read.revision),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: as [`Error`] and [`ReadLevel`] say; a read never has an unknown outcome.
    pub async fn get(
        &self,
        key: impl Into<Bytes>,
        level: ReadLevel,
    ) -> Result<Read<Option<KeyValue>>, Error> {
        let query = Query { range: KeyRange::key(key), options: ListOptions::default(), count_only: false };
        Ok(self.query(&query, level).await?.map(|page| page.items.into_iter().next()))
    }

    /// Keys of a range, in one answer of any size. [`Client::pages`] reads large ranges.
    ///
    /// Errors: as [`Client::get`].
    pub async fn list(
        &self,
        range: KeyRange,
        options: ListOptions,
        level: ReadLevel,
    ) -> Result<Read<Page>, Error> {
        self.query(&Query { range, options, count_only: false }, level).await
    }

    /// How many keys a range has.
    ///
    /// Errors: as [`Client::get`].
    pub async fn count(&self, range: KeyRange, level: ReadLevel) -> Result<Read<u64>, Error> {
        let query = Query { range, options: ListOptions::default(), count_only: true };
        Ok(self.query(&query, level).await?.map(|page| page.count))
    }

    async fn query(&self, query: &Query, level: ReadLevel) -> Result<Read<Page>, Error> {
        let now = |serializable| View { revision: 0, serializable };
        match level {
            ReadLevel::Any => self.query_view(query, now(true)).await,
            ReadLevel::Linearizable => self.query_view(query, now(false)).await,
            ReadLevel::AtLeast(least) => {
                let read = self.query_view(query, now(true)).await?;
                if read.revision >= least {
                    return Ok(read);
                }
                let read = self.query_view(query, now(false)).await?;
                if read.revision >= least {
                    return Ok(read);
                }
                Err(Error::FutureRevision { current: Some(read.revision) })
            }
            // On the wire 0 is the newest, and what it would show here is not the state at any revision.
            ReadLevel::Exact(0) => Err(Error::Compacted { compact_revision: None }),
            ReadLevel::Exact(revision) => {
                // What a revision shows never changes: any member that has come so far will do.
                let exact = |serializable| View { revision, serializable };
                let read = match self.query_view(query, exact(true)).await {
                    Err(Error::FutureRevision { .. }) => self.query_view(query, exact(false)).await?,
                    result => result?,
                };
                Ok(Read { revision, ..read })
            }
        }
    }

    async fn query_view(&self, query: &Query, view: View) -> Result<Read<Page>, Error> {
        let namespace = self.namespace();
        let request = codec::kv::range_request(query, view, namespace);
        let range = async |channel, request| kv(channel).range(request).await;
        self.call(Repeat::Harmless, request, range, |answer| codec::kv::read(answer, namespace)).await
    }
}
