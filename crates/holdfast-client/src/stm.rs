//! Software transactions: a function that reads and writes, run again when others have changed what it read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::client::{Client, jittered};
use crate::codec::KeyValue;
use crate::error::Error;
use crate::read::ReadLevel;
use crate::txn::{Compare, Op, Txn};
use crate::update::UpdateError;
use crate::write::{Delete, Put};

/// How often a function is run before it is given up.
const ATTEMPTS: u32 = 100;
/// Pause behind some conflicts; half of it is random.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// What a function in a software transaction sees and does; see [`Client::transact`].
///
/// All that it reads is of one revision, which the first read fixes, and its own writes.
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    seen: Arc<Mutex<Seen>>,
}

/// What a run has read and wants to write. Written by the run, and taken when it has ended.
#[derive(Debug, Default)]
struct Seen {
    revision: Option<u64>,
    /// Two first reads were made at once, and are not of the same revision.
    is_mixed: bool,
    /// What was read, as of `revision`.
    reads: BTreeMap<Bytes, Option<KeyValue>>,
    /// What is to be written; `None` deletes.
    writes: BTreeMap<Bytes, Option<Bytes>>,
}

/// What a software transaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transacted<T> {
    /// What the function gave.
    pub value: T,
    /// The store's revision with it.
    pub revision: u64,
    /// How often the function was run.
    pub attempts: u32,
}

impl Client {
    /// Runs a function that reads and writes keys so that all of it happens at once, or nothing: when others have changed
    /// a key that it read, it is run again with what there is then. It must do nothing else that counts.
    ///
    /// A transaction has at most as many operations as servers take, 128 unless they are told otherwise. Keys that are
    /// written live with no lease from then on.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let moved = client
    ///     .transact(|tx| async move {
    ///         let Some(value) = tx.get("from").await? else { return Ok(false) };
    ///         tx.put("to", value);
    ///         tx.delete("from");
    ///         Ok::<_, holdfast_client::Error>(true)
    ///     })
    ///     .await?;
    /// println!("{} at revision {}", moved.value, moved.revision);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: the function's, of a state that was there; [`Error`] otherwise; [`Error::Contended`] when others were first
    /// too often. After [`Error::Unknown`] all of it may have happened.
    pub async fn transact<T, E, R: Future<Output = Result<T, E>>>(
        &self,
        mut run: impl FnMut(Transaction) -> R,
    ) -> Result<Transacted<T>, UpdateError<E>> {
        for attempts in 1..=ATTEMPTS {
            let seen = Arc::new(Mutex::new(Seen::default()));
            let transaction = Transaction { client: self.clone(), seen: Arc::clone(&seen) };
            let value = run(transaction).await.map_err(UpdateError::Refused)?;
            let seen = std::mem::take(&mut *lock(&seen));
            if let Some(revision) = seen.commit(self).await? {
                return Ok(Transacted { value, revision, attempts });
            }
            if attempts > 1 {
                tokio::time::sleep(jittered(PAUSE)).await;
            }
        }
        Err(Error::Contended { attempts: ATTEMPTS }.into())
    }
}

impl Transaction {
    /// The value of a key; `None` if it does not exist.
    ///
    /// Errors: as [`Error`] says; [`Error::Compacted`] when the revision of the first read is not kept any more.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = key.into();
        let revision = {
            let seen = lock(&self.seen);
            if let Some(written) = seen.writes.get(&key) {
                return Ok(written.clone());
            }
            if let Some(read) = seen.reads.get(&key) {
                return Ok(read.as_ref().map(|kv| kv.value.clone()));
            }
            seen.revision
        };
        let level = revision.map_or(ReadLevel::Linearizable, ReadLevel::Exact);
        let read = self.client.get(key.clone(), level).await?;
        let value = read.value.as_ref().map(|kv| kv.value.clone());
        let mut seen = lock(&self.seen);
        let fixed = *seen.revision.get_or_insert(read.revision);
        seen.is_mixed |= fixed != read.revision;
        seen.reads.insert(key, read.value);
        Ok(value)
    }

    /// Sets a key, when all of it happens.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        lock(&self.seen).writes.insert(key.into(), Some(value.into()));
    }

    /// Deletes a key, when all of it happens.
    pub fn delete(&self, key: impl Into<Bytes>) {
        lock(&self.seen).writes.insert(key.into(), None);
    }
}

impl Seen {
    /// Writes, if nothing that was read has changed; gives the revision then.
    async fn commit(self, client: &Client) -> Result<Option<u64>, Error> {
        // All that was read is of one revision, and nothing depends on it.
        if let (true, Some(revision)) = (self.writes.is_empty() && !self.is_mixed, self.revision) {
            return Ok(Some(revision));
        }
        let mut txn = Txn::new();
        for (key, kv) in self.reads {
            txn = txn.when(Compare::mod_revision(key).equals(kv.map_or(0, |kv| kv.mod_revision)));
        }
        for (key, value) in self.writes {
            txn = txn.then(match value {
                Some(value) => Op::Put(Put::new(key, value)),
                None => Op::Delete(Delete::key(key)),
            });
        }
        let answer = client.txn(txn).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
