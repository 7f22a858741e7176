//! A store on a cluster, through plain etcd v3: holdfast, or etcd itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use super::cluster_watch::ClusterWatch;
use super::error::StoreError;
use super::item::{Item, Items, Page, Removed};
use super::leases::Leases;
use super::limits::{Limit, TooLarge};
use super::selector::Selection;
use super::storage::{Conditions, Expect, Lifetime, Storage, check_behind, check_key};
use crate::client::Client;
use crate::codec::{KeyValue, LeaseId};
use crate::error::{Error, NO_SPACE};
use crate::range::KeyRange;
use crate::read::{ListOptions, ReadLevel};
use crate::txn::{Compare, Op, OpAnswer, Txn, TxnAnswer};
use crate::wait::LOWEST_KEY;
use crate::write::{Delete, Put};

/// What servers say when a request is larger than they take.
const REQUEST_TOO_LARGE: &str = "etcdserver: request is too large";
/// And of a lease that is not there.
const NO_LEASE: &str = "etcdserver: requested lease not found";

/// A [`Storage`] on a cluster. Keys are those of the client, in its namespace if it has one. Cheap to clone.
///
/// Selectors are evaluated here, after the objects came over the wire, as plain etcd has none: lists and watches say so by
/// `server_side: false`. A conditional write is one transaction, so one round trip, also when it comes to a conflict.
#[derive(Debug, Clone)]
pub struct ClusterStorage {
    client: Client,
    leases: Arc<Leases>,
    /// Where the revision is asked for when no other prefix is given.
    within: Bytes,
}

impl ClusterStorage {
    /// A store of the client's cluster.
    pub fn new(client: Client) -> Self {
        Self { client, leases: Arc::default(), within: Bytes::new() }
    }

    /// The same, which asks for revisions behind this prefix: for a client whose user may read only there. Of use to
    /// [`Storage::wait`] alone, as all else names the keys that it is about.
    #[must_use]
    pub fn within(self, prefix: impl Into<Bytes>) -> Self {
        Self { within: prefix.into(), ..self }
    }

    /// The client that it uses.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The revision that such a read shows. It asks behind the prefix: not everybody may read everywhere.
    async fn revision(&self, within: &Bytes, level: ReadLevel) -> Result<u64, StoreError<Bytes>> {
        let count = self.client.count(KeyRange::key(nobodys_key(within)), level).await;
        count.map(|read| read.revision).map_err(|error| refusal(0, error))
    }

    async fn put_once(
        &self,
        key: &Bytes,
        value: Bytes,
        expect: Expect,
        lifetime: Lived,
    ) -> Result<Item<Bytes>, StoreError<Bytes>> {
        let put = Put::new(key.clone(), value.clone());
        let put = match lifetime {
            Lived::Stays => put,
            Lived::Kept => put.keep_lease(),
            Lived::Lease(lease) => put.lease(lease),
        };
        let txn = guarded(key, expect).then(put);
        // When it came into being, where that is not now.
        let meta = || Op::list(KeyRange::key(key.clone()), ListOptions::new().keys_only());
        let is_new = matches!(expect, Expect::Missing | Expect::Version(0));
        let txn = if is_new { txn } else { txn.then(meta()) };
        let answer = self.client.txn(txn.or_else(Op::get(key.clone()))).await;
        let TxnAnswer { succeeded, revision, answers } = answer.map_err(|error| refusal(0, error))?;
        let found = answers.into_iter().rev().find_map(OpAnswer::into_kv);
        if !succeeded {
            let current = found.map(|kv| Box::new(item(kv)));
            return Err(StoreError::Conflict { key: key.clone(), current });
        }
        let created = found.map_or(revision, |kv| kv.create_revision);
        Ok(Item { key: key.clone(), value, version: revision, created, is_stale: false })
    }
}

/// How long an object lives, once its lease is known.
#[derive(Debug, Clone, Copy)]
enum Lived {
    Stays,
    Kept,
    Lease(LeaseId),
}

/// A transaction that succeeds when this is so.
fn guarded(key: &Bytes, expect: Expect) -> Txn {
    let key = key.clone();
    match expect {
        Expect::Anything => Txn::new(),
        Expect::Missing | Expect::Version(0) => Txn::new().when(Compare::missing(key)),
        Expect::Present => Txn::new().when(Compare::exists(key)),
        Expect::Version(version) => Txn::new().when(Compare::mod_revision(key).equals(version)),
    }
}

pub(super) fn item(kv: KeyValue) -> Item<Bytes> {
    Item {
        key: kv.key,
        value: kv.value,
        version: kv.mod_revision,
        created: kv.create_revision,
        is_stale: false,
    }
}

/// A client's error as a store's; `wanted` is the version that was asked for.
pub(super) fn refusal<V>(wanted: u64, error: Error) -> StoreError<V> {
    match error {
        Error::Compacted { compact_revision } => {
            StoreError::Compacted { wanted, oldest: compact_revision.unwrap_or(0) }
        }
        Error::FutureRevision { current } => {
            StoreError::FutureRevision { wanted, current: current.unwrap_or(0) }
        }
        Error::Unavailable { .. } => StoreError::Unavailable { source: error },
        Error::Unknown { .. } => StoreError::Unknown { source: error },
        Error::Refused { ref message, .. } => match message.as_str() {
            REQUEST_TOO_LARGE => TooLarge { limit: Limit::ObjectBytes, wanted: 0, max: 0 }.into(),
            NO_SPACE => TooLarge { limit: Limit::Cluster, wanted: 0, max: 0 }.into(),
            _ => StoreError::Refused { source: error },
        },
        _ => StoreError::Refused { source: error },
    }
}

/// What is asked for behind a prefix when only the revision is wanted: a key that nobody uses.
fn nobodys_key(within: &Bytes) -> Bytes {
    [within.as_ref(), LOWEST_KEY].concat().into()
}

fn wanted(level: ReadLevel) -> u64 {
    match level {
        ReadLevel::AtLeast(version) | ReadLevel::Exact(version) => version,
        ReadLevel::Any | ReadLevel::Linearizable => 0,
    }
}

fn is_no_lease(error: &StoreError<Bytes>) -> bool {
    let StoreError::Refused { source: Error::Refused { code, message } } = error else { return false };
    *code == Code::NotFound && message == NO_LEASE
}

impl Storage for ClusterStorage {
    type Watch = ClusterWatch;

    fn backend(&self) -> &'static str {
        "cluster"
    }

    async fn wait(&self, version: u64, time_max: Duration) -> Result<u64, StoreError<Bytes>> {
        let waited = self.client.wait_at(nobodys_key(&self.within), version, time_max).await;
        waited.map_err(|error| refusal(version, error))
    }

    async fn put(
        &self,
        key: Bytes,
        value: Bytes,
        conditions: Conditions,
    ) -> Result<Item<Bytes>, StoreError<Bytes>> {
        check_key(&key)?;
        let Conditions { expect, lifetime } = conditions;
        if let Some(reason) = conditions.fault() {
            return Err(StoreError::Invalid { reason });
        }
        let ttl = match lifetime {
            Lifetime::Stays => return self.put_once(&key, value, expect, Lived::Stays).await,
            Lifetime::Kept => return self.put_once(&key, value, expect, Lived::Kept).await,
            Lifetime::Lease(lease) => return self.put_once(&key, value, expect, Lived::Lease(lease)).await,
            Lifetime::Ttl(ttl) => ttl,
        };
        let lease = self.leases.for_object(&self.client, ttl).await.map_err(grant_failed)?;
        match self.put_once(&key, value.clone(), expect, Lived::Lease(lease)).await {
            // Somebody revoked it, or the clocks disagree. Nothing happened, so another one is as good; once.
            Err(error) if is_no_lease(&error) => {
                self.leases.forget(lease).await;
                let lease = self.leases.for_object(&self.client, ttl).await.map_err(grant_failed)?;
                self.put_once(&key, value, expect, Lived::Lease(lease)).await
            }
            result => result,
        }
    }

    async fn delete(&self, key: Bytes, conditions: Conditions) -> Result<Removed<Bytes>, StoreError<Bytes>> {
        check_key(&key)?;
        let expect = conditions.expect;
        if matches!(expect, Expect::Missing | Expect::Version(0)) {
            let item = self.get(key.clone(), ReadLevel::Linearizable).await?;
            return Err(StoreError::Conflict { key, current: Some(Box::new(item)) });
        }
        let txn = guarded(&key, expect).then(Delete::key(key.clone()).previous());
        let answer = self.client.txn(txn.or_else(Op::get(key.clone()))).await;
        let answer = answer.map_err(|error| refusal(0, error))?;
        let at = answer.revision;
        let found = answer.answers.into_iter().next().and_then(OpAnswer::into_kv).map(item);
        match (answer.succeeded, found) {
            (true, Some(item)) => Ok(Removed { item, at }),
            (false, None) if matches!(expect, Expect::Version(_)) => {
                Err(StoreError::Conflict { key, current: None })
            }
            (_, None) => Err(StoreError::NotFound { key, at }),
            (false, Some(item)) => Err(StoreError::Conflict { key, current: Some(Box::new(item)) }),
        }
    }

    async fn get(&self, key: Bytes, level: ReadLevel) -> Result<Item<Bytes>, StoreError<Bytes>> {
        check_key(&key)?;
        let read = self.client.get(key.clone(), level).await;
        let read = read.map_err(|error| refusal(wanted(level), error))?;
        read.value.map(item).ok_or(StoreError::NotFound { key, at: read.revision })
    }

    async fn list(
        &self,
        prefix: Bytes,
        level: ReadLevel,
        selection: Selection<Bytes>,
    ) -> Result<Items<Bytes>, StoreError<Bytes>> {
        if let Some(reason) = selection.fault() {
            return Err(StoreError::Invalid { reason });
        }
        let read = self.client.list_all(KeyRange::prefix(prefix), level).await;
        let read = read.map_err(|error| refusal(wanted(level), error))?;
        let items = read.value.into_iter().map(item).filter(|item| selection.matches(item)).collect();
        Ok(Items { items, version: read.revision, server_side: selection.is_all() })
    }

    async fn page(
        &self,
        prefix: Bytes,
        behind: Option<Bytes>,
        limit: usize,
        level: ReadLevel,
    ) -> Result<Page<Bytes>, StoreError<Bytes>> {
        check_behind(&prefix, behind.as_ref())?;
        let range = KeyRange::prefix(prefix);
        let range = match behind {
            Some(behind) if range.contains(&behind) => range.behind(&behind),
            Some(_) | None => range,
        };
        // On the wire 0 is no limit.
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        let read = self.client.list(range, ListOptions::new().limit(limit), level).await;
        let read = read.map_err(|error| refusal(wanted(level), error))?;
        let items = read.value.items.into_iter().map(item).collect();
        Ok(Page { items, version: read.revision, more: read.value.more })
    }

    async fn count(&self, prefix: Bytes, level: ReadLevel) -> Result<u64, StoreError<Bytes>> {
        let read = self.client.count(KeyRange::prefix(prefix), level).await;
        read.map(|read| read.value).map_err(|error| refusal(wanted(level), error))
    }

    async fn watch_prefix(
        &self,
        prefix: Bytes,
        after: Option<u64>,
        selection: Selection<Bytes>,
    ) -> Result<ClusterWatch, StoreError<Bytes>> {
        if let Some(reason) = selection.fault() {
            return Err(StoreError::Invalid { reason });
        }
        let after = match after {
            // What is in the future is waited for.
            // Nothing has happened before revision 1, so behind 0 is behind 1.
            Some(after) => match self.revision(&prefix, ReadLevel::Exact(after.max(1))).await {
                Ok(_) | Err(StoreError::FutureRevision { .. }) => after,
                Err(StoreError::Compacted { oldest, .. }) => {
                    return Err(StoreError::Compacted { wanted: after, oldest });
                }
                Err(error) => return Err(error),
            },
            None => self.revision(&prefix, ReadLevel::Linearizable).await?,
        };
        Ok(ClusterWatch::new(&self.client, prefix, after, selection))
    }
}

/// A lease that was not granted, or that nobody will use: the object was not put.
fn grant_failed(error: Error) -> StoreError<Bytes> {
    match error {
        Error::Unknown { attempts } => StoreError::Unavailable { source: Error::Unavailable { attempts } },
        error => refusal(0, error),
    }
}
