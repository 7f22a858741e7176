//! Writes of single keys, and deletes of ranges.

use bytes::Bytes;

use crate::client::{Client, Repeat, kv};
use crate::codec::{self, KeyValue, LeaseId, malformed};
use crate::error::Error;
use crate::range::KeyRange;
use crate::txn::{Compare, Op, OpAnswer, Txn};

/// A key that is to be set.
///
/// ```
/// use holdfast_client::{LeaseId, Put};
///
/// let put = Put::new("services/web/1", "10.0.0.7").lease(LeaseId(7)).previous();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    pub(crate) key: Bytes,
    /// `None` keeps the one that is there.
    pub(crate) value: Option<Bytes>,
    pub(crate) lease: PutLease,
    pub(crate) previous: bool,
}

/// The lease that a key is to live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutLease {
    /// None: it stays.
    Detach,
    /// This one, whichever it had.
    Attach(LeaseId),
    /// The one that it has.
    Keep,
}

impl Put {
    /// Sets the key, whether it exists or not. It lives with no lease from then on.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let value = Some(value.into());
        Self { key: key.into(), value, lease: PutLease::Detach, previous: false }
    }

    /// Changes the lease of a key and keeps its value. Refused when it does not exist.
    pub fn keep_value(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: None, lease: PutLease::Detach, previous: false }
    }

    /// The key ends with this lease.
    #[must_use]
    pub fn lease(mut self, lease: LeaseId) -> Self {
        self.lease = PutLease::Attach(lease);
        self
    }

    /// The key keeps the lease that it has, or none. Refused when it does not exist.
    #[must_use]
    pub fn keep_lease(mut self) -> Self {
        self.lease = PutLease::Keep;
        self
    }

    /// The answer has the key as it was before.
    #[must_use]
    pub fn previous(mut self) -> Self {
        self.previous = true;
        self
    }
}

/// What a put came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAnswer {
    /// The store's revision with it: the mod revision of the key.
    pub revision: u64,
    /// The key as it was before, if that was asked for and it existed.
    pub previous: Option<KeyValue>,
}

/// Keys that are to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    pub(crate) range: KeyRange,
    pub(crate) previous: bool,
}

impl Delete {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::range(KeyRange::key(key))
    }

    /// All keys of a range.
    pub fn range(range: KeyRange) -> Self {
        Self { range, previous: false }
    }

    /// The answer has the keys as they were before.
    #[must_use]
    pub fn previous(mut self) -> Self {
        self.previous = true;
        self
    }
}

/// What a delete of a range came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteAnswer {
    /// The store's revision after it. When nothing was deleted it is the one from before.
    pub revision: u64,
    /// How many keys were deleted.
    pub deleted: u64,
    /// Them, in the order of their keys, if that was asked for.
    pub previous: Vec<KeyValue>,
}

/// What a delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Whether the key existed.
    pub existed: bool,
    /// The store's revision after it.
    pub revision: u64,
}

/// What became of a key that was to be set if it did not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetIfNotExists {
    /// It was set, at this revision.
    Set {
        /// Both create and mod revision of the key.
        revision: u64,
    },
    /// It existed, as this.
    Exists(KeyValue),
}

impl Client {
    /// Sets a key, whether it exists or not. Gives the revision. It lives with no lease; [`Client::put_with`] does more.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be set.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        Ok(self.put_with(Put::new(key, value)).await?.revision)
    }

    /// Sets a key.
    ///
    /// Errors: as [`Error`] says; no such lease, or a key that does not exist and should keep something, is refused. After
    /// [`Error::Unknown`] it may be set.
    pub async fn put_with(&self, put: Put) -> Result<PutAnswer, Error> {
        let namespace = self.namespace();
        let request = codec::kv::put_request(put, namespace);
        let put = async |channel, request| kv(channel).put(request).await;
        self.call(Repeat::Harmful, request, put, |answer| codec::kv::put_answer(answer, namespace)).await
    }

    /// Deletes a key.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be deleted.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, Error> {
        let DeleteAnswer { revision, deleted, .. } = self.delete_with(Delete::key(key)).await?;
        Ok(Deleted { existed: deleted > 0, revision })
    }

    /// Deletes all keys of a range, in one revision.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] they may be deleted, all of them or none.
    pub async fn delete_range(&self, range: KeyRange) -> Result<DeleteAnswer, Error> {
        self.delete_with(Delete::range(range)).await
    }

    /// Deletes keys, in one revision.
    ///
    /// Errors: as [`Client::delete_range`].
    pub async fn delete_with(&self, delete: Delete) -> Result<DeleteAnswer, Error> {
        let namespace = self.namespace();
        let request = codec::kv::delete_request(&delete, namespace);
        let delete = async |channel, request| kv(channel).delete_range(request).await;
        self.call(Repeat::Harmful, request, delete, |answer| codec::kv::delete_answer(answer, namespace))
            .await
    }

    /// Sets a key if it does not exist. Of many who try at once, one succeeds.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be set: read it and look for the own value.
    pub async fn set_if_not_exists(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<SetIfNotExists, Error> {
        self.create(Put::new(key, value)).await
    }

    /// Sets a key if it does not exist, and reads it otherwise.
    pub(crate) async fn create(&self, put: Put) -> Result<SetIfNotExists, Error> {
        let key = put.key.clone();
        let txn = Txn::new().when(Compare::missing(key.clone())).then(put).or_else(Op::get(key));
        self.txn_as(txn, |answer| {
            if answer.succeeded {
                return Ok(SetIfNotExists::Set { revision: answer.revision });
            }
            let existing = answer.answers.into_iter().next().and_then(OpAnswer::into_kv);
            existing.map(SetIfNotExists::Exists).ok_or_else(|| malformed("no key where there must be one"))
        })
        .await
    }
}
