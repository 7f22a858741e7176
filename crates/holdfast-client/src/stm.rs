//! Software transactions: a function that reads and writes, run again when others have changed what it read.

use std::collections::BTreeMap;

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
    revision: Option<u64>,
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
    ///     .transact(async |tx| {
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
    pub async fn transact<T, E>(
        &self,
        mut run: impl AsyncFnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<Transacted<T>, UpdateError<E>> {
        for attempts in 1..=ATTEMPTS {
            let (reads, writes) = (BTreeMap::new(), BTreeMap::new());
            let mut transaction = Transaction { client: self.clone(), revision: None, reads, writes };
            let value = run(&mut transaction).await.map_err(UpdateError::Refused)?;
            if let Some(revision) = transaction.commit().await? {
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
    pub async fn get(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = key.into();
        if let Some(written) = self.writes.get(&key) {
            return Ok(written.clone());
        }
        if let Some(read) = self.reads.get(&key) {
            return Ok(read.as_ref().map(|kv| kv.value.clone()));
        }
        let level = self.revision.map_or(ReadLevel::Linearizable, ReadLevel::Exact);
        let read = self.client.get(key.clone(), level).await?;
        self.revision = Some(read.revision);
        let value = read.value.as_ref().map(|kv| kv.value.clone());
        self.reads.insert(key, read.value);
        Ok(value)
    }

    /// Sets a key, when all of it happens.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.insert(key.into(), Some(value.into()));
    }

    /// Deletes a key, when all of it happens.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.writes.insert(key.into(), None);
    }

    /// Writes, if nothing that was read has changed; gives the revision then.
    async fn commit(self) -> Result<Option<u64>, Error> {
        // All that was read is of one revision, and nothing depends on it.
        if let (true, Some(revision)) = (self.writes.is_empty(), self.revision) {
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
        let answer = self.client.txn(txn).await?;
        Ok(answer.succeeded.then_some(answer.revision))
    }
}
