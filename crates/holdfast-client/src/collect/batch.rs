//! Batches of a source's events, each in one transaction with the cursor.
//!
//! # Invariants
//! - The cursor says what is stored, and the other way around: no batch is half here, and none is here twice.
//! - One run collects from a source: who begins takes the cursor, and each batch is written only as long as it has it.

use tokio::time::sleep;

use super::collection::{ATTEMPTS_MAX, Change, Collection};
use super::cursor::{Cursor, StoredCursor};
use super::envelope::Writer;
use super::error::CollectError;
use super::guard::{Stored, Verdict};
use super::keys;
use super::origin::{ObjectName, OriginVersion};
use super::source::Source;
use crate::client::jittered;
use crate::error::Class;
use crate::txn::{Compare, Op, Txn};
use crate::watch_stream::PAUSE_MIN;

/// The most changes of a batch. Servers take 128 operations in a transaction unless they are told otherwise; a change is
/// two at most, and there are up to three others.
pub(super) const CHANGES_MAX: usize = 60;
/// The most bytes of a batch, unless one object is larger. Servers take 1.5 MiB unless they are told otherwise.
pub(super) const BYTES_MAX: usize = 1024 * 1024;

/// Changes that are written together; each of another object, so that none is hidden by a later one.
#[derive(Debug, Default)]
pub(super) struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    /// Whether there is room for another change.
    pub(super) fn has_room_for(&self, change: &Change) -> bool {
        self.changes.is_empty()
            || (self.changes.len() < CHANGES_MAX
                && self.bytes + change.bytes() <= BYTES_MAX
                && !self.has(&change.name))
    }

    fn has(&self, name: &ObjectName) -> bool {
        self.changes.iter().any(|change| change.name == *name)
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes += change.bytes();
        self.changes.push(change);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// One run of collecting from a source.
pub(super) struct Run<'a, S> {
    pub(super) collection: &'a Collection,
    pub(super) source: &'a S,
    /// As this run has written it last.
    pub(super) stored: StoredCursor,
}

impl<'a, S: Source> Run<'a, S> {
    /// Takes the cursor of a source. Whoever had it writes nothing any more.
    ///
    /// Errors: the source is being removed; as of the cluster.
    pub(super) async fn begin(collection: &'a Collection, source: &'a S) -> Result<Self, CollectError> {
        let run = rand::random();
        for _ in 0..ATTEMPTS_MAX {
            let stored = collection.read(source.id(), &[]).await?.cursor;
            // A try of which nobody knew.
            if stored.cursor.run == run {
                return Ok(Self { collection, source, stored });
            }
            let cursor = Cursor { origin: stored.cursor.origin.clone(), run, batch: 0, removing: None };
            let mut this = Self { collection, source, stored };
            if this.write(&Batch::default(), &[], cursor).await? {
                return Ok(this);
            }
        }
        Err(CollectError::Busy { key: keys::cursor(&collection.resource, source.id()) })
    }

    /// Writes what of a batch is new, and how far the source is collected with it. Nothing is written when nothing is new.
    ///
    /// Errors: somebody else collects; others change the objects all the time; as of the cluster. After an unknown
    /// outcome it is found out what happened, so that none is unknown but when nobody tells.
    pub(super) async fn apply(
        &mut self,
        batch: &Batch,
        origin: Option<&OriginVersion>,
    ) -> Result<(), CollectError> {
        let source_id = self.source.id();
        let next = Cursor {
            origin: origin.cloned(),
            batch: self.stored.cursor.batch + 1,
            ..self.stored.cursor.clone()
        };
        for _ in 0..ATTEMPTS_MAX {
            let read = self.collection.read(source_id, &batch.changes).await?;
            if read.cursor.revision != self.stored.revision {
                // Or it was written by an attempt of which nobody knew.
                if read.cursor.cursor != next {
                    return Err(CollectError::Superseded { source_id: source_id.clone() });
                }
                self.stored = read.cursor;
                return Ok(());
            }
            let mut news = Vec::new();
            for (change, stored) in batch.changes.iter().zip(&read.stored) {
                if change.verdict(self.source, stored, Writer::Sync) == Verdict::Apply {
                    news.push((change, stored));
                }
            }
            if news.is_empty() && next.origin == self.stored.cursor.origin {
                return Ok(());
            }
            if self.write(batch, &news, next.clone()).await? {
                return Ok(());
            }
        }
        let key = keys::cursor(&self.collection.resource, source_id);
        Err(CollectError::Busy { key })
    }

    /// Whether it was written. If not, what is stored has changed, or nobody knows.
    async fn write(
        &mut self,
        batch: &Batch,
        news: &[(&Change, &Stored)],
        cursor: Cursor,
    ) -> Result<bool, CollectError> {
        debug_assert!(news.len() <= batch.changes.len(), "what is new is of the batch");
        let (collection, id) = (self.collection, self.source.id());
        let key = keys::cursor(&collection.resource, id);
        let txn = collection
            .unless_removing(id, Txn::new())
            .when(Compare::mod_revision(key.clone()).equals(self.stored.revision));
        let (txn, note) = collection.with_changes(self.source, txn, news, Writer::Sync, &self.stored).await?;
        let txn = txn.then(Op::put(key, cursor.encode()));
        match collection.client.txn(txn).await {
            Ok(answer) if answer.succeeded => {
                collection.noted(id, note).await;
                self.stored = StoredCursor { cursor, revision: answer.revision };
                Ok(true)
            }
            Ok(_) => Ok(false),
            // The cursor tells whether it was written: it is read before anything else is.
            Err(error) if matches!(error.class(), Class::Unknown | Class::Retry) => {
                tracing::debug!(%error, source = %id, "a batch may have been written");
                sleep(jittered(PAUSE_MIN)).await;
                Ok(false)
            }
            Err(error) => collection.after_refusal(error).await.map(|()| false),
        }
    }
}
