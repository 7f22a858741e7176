//! An informer, and what its users hold of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::cache::Cache;
use super::health::{Health, InformerState, RelistReason};
use super::hub::Hub;
use super::index::Indexer;
use super::object::{Decode, DecodeError, Object};
use super::snapshot::Snapshot;
use super::subscription::Subscription;
use super::task::{Closing, Task};
use crate::client::Client;
use crate::codec::KeyValue;
use crate::range::KeyRange;
use crate::wait::deadline;

/// Changes that wait for a subscriber, unless it asks for another number.
const CHANGES_MAX: usize = 4_096;

/// What an informer makes of the keys of its range.
pub struct InformerOptions<T> {
    decode: Arc<Decode<T>>,
    indexers: Vec<Indexer<T>>,
}

impl<T> InformerOptions<T> {
    /// Objects are what `decode` makes of a key with its value. It is called once for each value, in the informer's task,
    /// and must not wait for anything.
    ///
    /// What it cannot decode is kept as [`super::Unreadable`], told to subscribers, and stops nothing.
    pub fn decode_with(decode: impl Fn(&KeyValue) -> Result<T, DecodeError> + Send + Sync + 'static) -> Self {
        Self { decode: Arc::new(decode), indexers: Vec::new() }
    }

    /// Objects can be found by what `terms` says of them: [`Snapshot::by_index`]. It must say the same of the same object
    /// always; twice the same is once. A term of an object takes some 50 bytes beside the term itself, of which there is
    /// one for all objects that have it.
    ///
    /// # Panics
    /// When there is an index with this name already.
    #[must_use]
    pub fn index(
        mut self,
        name: &'static str,
        terms: impl Fn(&Object<T>) -> Vec<Bytes> + Send + Sync + 'static,
    ) -> Self {
        assert!(self.indexers.iter().all(|indexer| indexer.name != name), "one index of a name: {name}");
        self.indexers.push(Indexer::new(name, terms));
        self
    }
}

impl<T> fmt::Debug for InformerOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InformerOptions").field("indexers", &self.indexers).finish_non_exhaustive()
    }
}

/// Keeps a range of keys here, decoded, as it is on the cluster; made by [`Client::informer`]. It owns the task that does
/// so: [`Informer::stop`] ends it in order, dropping it ends it at once.
#[derive(Debug)]
pub struct Informer<T> {
    reader: Reader<T>,
    task: JoinHandle<()>,
}

/// Reads what an informer keeps. Cheap to clone, and of use also when the informer has ended.
pub struct Reader<T> {
    pub(super) client: Client,
    pub(super) range: KeyRange,
    pub(super) decode: Arc<Decode<T>>,
    hub: Arc<Hub<T>>,
    relists: mpsc::Sender<RelistReason>,
}

/// A revision was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// Not in time.
    #[error("revision {wanted} was not reached in time, the informer is at {current}")]
    Late {
        /// Asked for.
        wanted: u64,
        /// The revision that the informer has come to; 0 before its first list is complete.
        current: u64,
    },
    /// The informer has ended, and will not come further.
    #[error("the informer has ended at revision {current}, and {wanted} is wanted")]
    Stopped {
        /// Asked for.
        wanted: u64,
        /// The revision that the informer has come to.
        current: u64,
    },
}

impl Client {
    /// Keeps a range of keys here. It begins at once, in a task of its own: lists the range at one revision, then follows
    /// its changes. Must be called within a tokio runtime.
    ///
    /// It goes on over connections and members that fail, and lists again only when changes were compacted before it
    /// could see them. Memory: at most 150 bytes for each key beside the key and the object.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use holdfast_client::KeyRange;
    /// use holdfast_client::informer::InformerOptions;
    ///
    /// let options = InformerOptions::decode_with(|kv| Ok(String::from_utf8(kv.value.to_vec())?))
    ///     .index("host", |object| vec![object.value().split(':').next().unwrap_or("").to_owned().into()]);
    /// let informer = client.informer(KeyRange::prefix("services/"), options);
    /// let reader = informer.reader();
    /// reader.wait_for(1, Duration::from_secs(10)).await?;
    /// for service in reader.snapshot().by_index("host", b"10.0.0.7").into_iter().flatten() {
    ///     println!("{service:?}: {}", service.value());
    /// }
    /// let revision = client.put("services/web/1", "10.0.0.7:80").await?;
    /// let snapshot = reader.wait_for(revision, Duration::from_secs(1)).await?;
    /// assert!(snapshot.get("services/web/1").is_ok_and(|object| object.is_some()));
    /// informer.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn informer<T: Send + Sync + 'static>(
        &self,
        range: KeyRange,
        options: InformerOptions<T>,
    ) -> Informer<T> {
        let cache = Cache::new(options.indexers.into());
        let hub = Arc::new(Hub::new(Arc::clone(cache.snapshot())));
        // One wish is as good as many.
        let (relists, wishes) = mpsc::channel(1);
        let reader = Reader {
            client: self.clone(),
            range: range.clone(),
            decode: Arc::clone(&options.decode),
            hub: Arc::clone(&hub),
            relists,
        };
        let (client, decode) = (self.clone(), options.decode);
        let task = Task { client, range, decode, cache, hub: Closing(hub), relists: wishes };
        Informer { reader, task: tokio::spawn(task.run()) }
    }
}

impl<T> Informer<T> {
    /// What it keeps.
    pub fn reader(&self) -> &Reader<T> {
        &self.reader
    }

    /// Ends it, and returns when its task has ended. Its readers can be used further.
    pub async fn stop(mut self) {
        self.task.abort();
        // An error is that it was aborted, or that a decoder has panicked, which was told where that happened.
        drop((&mut self.task).await);
    }
}

impl<T> Drop for Informer<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T> Reader<T> {
    /// The newest state: empty, and of revision 0, before the first list is complete. Waits for nothing.
    pub fn snapshot(&self) -> Arc<Snapshot<T>> {
        self.hub.newest()
    }

    /// Whether the first list is complete.
    pub fn has_synced(&self) -> bool {
        // Who is told of the list sees it here: the state is there before anybody is told.
        self.hub.newest().revision() > 0
    }

    /// What the informer is doing.
    pub fn state(&self) -> InformerState {
        self.hub.position().state
    }

    /// How the informer is.
    pub fn health(&self) -> Health {
        self.hub.health()
    }

    /// Returns when all up to a revision is known, and gives the state then: what was written at the revision, here or
    /// anywhere, is in it. While somebody waits the server is asked how far it has come: it need not be a revision that
    /// has changed something in the range.
    ///
    /// Errors: it was not reached in time, or the informer has ended.
    pub async fn wait_for(&self, revision: u64, time_max: Duration) -> Result<Arc<Snapshot<T>>, WaitError> {
        let deadline = deadline(time_max);
        let mut positions = self.hub.positions();
        let is_there = |revision: u64| self.hub.newest().revision() >= revision;
        if is_there(revision) {
            return Ok(self.snapshot());
        }
        let waiting = self.hub.wait();
        let reached = positions
            .wait_for(|position| position.revision >= revision || position.state == InformerState::Stopped);
        let reached = timeout_at(deadline, reached).await.map(|position| position.map(|position| *position));
        drop(waiting);
        let current = self.hub.newest().revision();
        match reached {
            _ if is_there(revision) => Ok(self.snapshot()),
            Ok(_) => Err(WaitError::Stopped { wanted: revision, current }),
            Err(_) => Err(WaitError::Late { wanted: revision, current }),
        }
    }

    /// Follows the changes from now on, behind all that is there. At most 4,096 changes wait to be read, or one revision.
    pub fn subscribe(&self) -> Subscription<T> {
        self.subscribe_with(CHANGES_MAX)
    }

    /// As [`Reader::subscribe`], with another number of changes that may wait. One revision may be larger.
    pub fn subscribe_with(&self, changes_max: usize) -> Subscription<T> {
        Subscription::new(Arc::clone(&self.hub), changes_max)
    }

    /// Has all listed again, and tells what is different. Returns at once.
    pub fn relist(&self) {
        self.wish(RelistReason::Asked);
    }

    pub(super) fn wish(&self, reason: RelistReason) {
        // Full: it is about to be done. Closed: nothing is done any more.
        if self.relists.try_send(reason).is_err() {
            tracing::debug!(?reason, "a wish to list again came to nothing");
        }
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            range: self.range.clone(),
            decode: Arc::clone(&self.decode),
            hub: Arc::clone(&self.hub),
            relists: self.relists.clone(),
        }
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.hub.position();
        f.debug_struct("Reader")
            .field("range", &self.range)
            .field("position", &position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AW15: an informer that ends before its task has run tells all who wait, however long they would.
    #[tokio::test]
    async fn aw15_an_informer_that_ends_before_it_begins_tells_all_who_wait() {
        // Nobody is there, and nobody is asked: a task runs here only while something is waited for.
        let client = Client::new(["http://127.0.0.1:1"]).unwrap();
        let options = InformerOptions::decode_with(|_| Ok(()));
        let informer = client.informer(KeyRange::prefix("f/"), options);
        let reader = informer.reader().clone();
        let mut subscription = reader.subscribe();
        informer.stop().await;
        let waited = tokio::time::timeout(Duration::from_secs(60), reader.wait_for(1, Duration::MAX)).await;
        assert!(matches!(waited, Ok(Err(WaitError::Stopped { wanted: 1, current: 0 }))), "{waited:?}");
        assert_eq!(reader.state(), InformerState::Stopped);
        assert!(subscription.next().await.is_none());
    }
}
