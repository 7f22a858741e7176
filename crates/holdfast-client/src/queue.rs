//! Queues: each element is taken once, in the order in which it was put.

use bytes::Bytes;

use crate::client::Client;
use crate::codec::KeyValue;
use crate::error::Error;
use crate::range::KeyRange;
use crate::read::{ListOptions, Order, ReadLevel, SortBy};
use crate::txn::{Compare, Txn};
use crate::watch::{WatchEvent, WatchOptions};
use crate::write::{Delete, Put};

/// Elements that are looked at at once, so that many who take do not all want the same one.
const AHEAD: u64 = 16;

/// A queue: all keys that begin with its name and a slash; made by [`Client::queue`].
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// let queue = client.queue("jobs");
/// queue.put("a job").await?;
/// let job = queue.take().await?;
/// println!("{:?}", job.value);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    prefix: Bytes,
}

impl Client {
    /// The queue of this name. Nothing is asked for before it is used.
    pub fn queue(&self, name: impl Into<Bytes>) -> Queue {
        Queue { client: self.clone(), prefix: crate::place::queue(&name.into()) }
    }
}

impl Queue {
    /// Puts an element at the end. Gives its revision, which orders it.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may be in the queue.
    pub async fn put(&self, value: impl Into<Bytes>) -> Result<u64, Error> {
        // Nobody else has this key; its place comes from its revision.
        let own = format!("{:032x}", rand::random::<u128>());
        let key = Bytes::from([self.prefix.as_ref(), own.as_bytes()].concat());
        self.client.put_with(Put::new(key, value)).await.map(|answer| answer.revision)
    }

    /// Takes the first element, and waits for one if there is none.
    ///
    /// With many who take at once, one may be taken a little before another that was put earlier.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] an element may be taken that nobody has been given.
    pub async fn take(&self) -> Result<KeyValue, Error> {
        loop {
            let (taken, revision) = self.take_first().await?;
            if let Some(kv) = taken {
                return Ok(kv);
            }
            let puts = WatchOptions::new().from(revision + 1).only_puts();
            let mut watch = self.client.watch(KeyRange::prefix(self.prefix.clone()), puts);
            while let WatchEvent::Progress { .. } = watch.next().await? {}
        }
    }

    /// Takes the first element; `None` when there is none.
    ///
    /// Errors: as [`Queue::take`].
    pub async fn try_take(&self) -> Result<Option<KeyValue>, Error> {
        Ok(self.take_first().await?.0)
    }

    /// An element among the first ones, or else the revision at which there was none.
    async fn take_first(&self) -> Result<(Option<KeyValue>, u64), Error> {
        let mut ahead = 1;
        loop {
            let options = ListOptions::new().limit(ahead).sorted(SortBy::CreateRevision, Order::Ascending);
            let range = KeyRange::prefix(self.prefix.clone());
            let read = self.client.list(range, options, ReadLevel::Linearizable).await?;
            if read.value.items.is_empty() {
                return Ok((None, read.revision));
            }
            let at = rand::random_range(0..read.value.items.len());
            let kv = read.value.items.into_iter().nth(at).expect("it is one of them");
            let txn = Txn::new()
                .when(Compare::mod_revision(kv.key.clone()).equals(kv.mod_revision))
                .then(Delete::key(kv.key.clone()));
            let answer = self.client.txn(txn).await?;
            if answer.succeeded {
                return Ok((Some(kv), answer.revision));
            }
            // Somebody else has it: each time this one looks further.
            ahead = (ahead * 2).min(AHEAD);
        }
    }
}
