//! Single keys.

use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use pb::kv_client::KvClient;
use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, Client, Repeat};
use crate::codec::{self, KeyValue, LeaseId};
use crate::error::Error;

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

/// What a delete came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Whether the key existed.
    pub existed: bool,
    /// The store's revision after it.
    pub revision: u64,
}

pub(crate) fn stub(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

impl Client {
    /// A key as it is now, by a linearizable read; `None` if it does not exist.
    ///
    /// Errors: as [`Error`] says; a read never has an unknown outcome.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        Ok(self.get_as_of(key.into()).await?.0)
    }

    /// As [`Client::get`], with the revision of which it is true.
    pub(crate) async fn get_as_of(&self, key: Bytes) -> Result<(Option<KeyValue>, u64), Error> {
        let answer = self.range(pb::RangeRequest { key, ..Default::default() }).await?;
        let revision = codec::revision(answer.header.as_ref());
        Ok((answer.kvs.into_iter().next().map(Into::into), revision))
    }

    /// Sets a key, whether it exists or not. Gives the revision.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be set.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let put = async |channel, request| stub(channel).put(request).await;
        let answer = self.call(Repeat::Harmful, request, put).await?;
        Ok(codec::revision(answer.header.as_ref()))
    }

    /// Deletes a key.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be deleted.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, Error> {
        let request = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
        let delete = async |channel, request| stub(channel).delete_range(request).await;
        let answer = self.call(Repeat::Harmful, request, delete).await?;
        Ok(Deleted { existed: answer.deleted > 0, revision: codec::revision(answer.header.as_ref()) })
    }

    /// Sets a key if it does not exist. Of many who try at once, one succeeds.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be set: read it and look for the own value.
    pub async fn set_if_not_exists(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<SetIfNotExists, Error> {
        self.create(&key.into(), value.into(), None).await
    }

    pub(crate) async fn create(
        &self,
        key: &Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> Result<SetIfNotExists, Error> {
        let txn = async |channel, request| stub(channel).txn(request).await;
        let answer = self.call(Repeat::Harmful, codec::create(key, value, lease), txn).await?;
        if answer.succeeded {
            return Ok(SetIfNotExists::Set { revision: codec::revision(answer.header.as_ref()) });
        }
        let existing = codec::first_read(answer);
        Ok(SetIfNotExists::Exists(existing.expect("a key that exists is read in the same transaction")))
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        let range = async |channel, request| stub(channel).range(request).await;
        self.call(Repeat::Harmless, request, range).await
    }
}
