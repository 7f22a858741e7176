//! Removing a source with all that was collected from it.

use tokio::time::sleep;

use super::collection::{ATTEMPTS_MAX, Collection, failed};
use super::cursor::{Cursor, Removal, StoredCursor};
use super::error::CollectError;
use super::keys;
use super::origin::SourceId;
use crate::client::jittered;
use crate::error::{Class, Error};
use crate::range::KeyRange;
use crate::read::{ListOptions, ReadLevel};
use crate::txn::{Compare, Op, OpAnswer, Txn, TxnAnswer};
use crate::watch_stream::PAUSE_MIN;

/// Keys that are deleted in one transaction.
const PAGE_KEYS: u64 = 500;

/// Whether a removal is still to be gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Goes,
    /// The source is removed by now.
    Done,
}

impl Collection {
    /// Removes a source with all its objects, in transactions of at most 500 objects each: who reads sees all of one or
    /// nothing of it. From the first one on nobody writes anything of the source, here or anywhere. In the end the source
    /// is told to be removed; before that each object is told to be deleted, or none, as `removal` says.
    ///
    /// When it does not come to its end, the source stays as it is by then and cannot be collected; it is to be called
    /// again: then the later call removes, and this one deletes nothing any more, also not of what is collected anew. A
    /// source that is not there is removed, too.
    ///
    /// Errors: as [`crate::Client::txn`]; nothing is unknown behind an error that lasts but whether the last page is gone.
    /// [`CollectError::Removing`]: somebody else has begun to remove it since, and is not done.
    pub async fn remove_source(&self, id: &SourceId, removal: Removal) -> Result<(), CollectError> {
        let mark = self.mark_removing(id, removal).await?;
        for prefix in [
            keys::objects(&self.resource, id),
            keys::gone_objects(&self.resource, id),
            keys::gone_since(&self.resource, id),
        ] {
            if self.delete_pages(id, mark, &prefix).await? == Hold::Done {
                return Ok(());
            }
        }
        let last = self
            .while_marked(id, mark)
            .then(Op::delete(keys::cursor(&self.resource, id)))
            .then(Op::delete(keys::removing(&self.resource, id)));
        self.held(id, last).await?;
        Ok(())
    }

    /// From here on nobody writes anything of the source, and nobody else who removes it deletes anything. Gives the
    /// revision of the mark: whoever marks it anew takes over.
    async fn mark_removing(&self, id: &SourceId, removal: Removal) -> Result<u64, CollectError> {
        let (cursor_key, removing_key) =
            (keys::cursor(&self.resource, id), keys::removing(&self.resource, id));
        for _ in 0..ATTEMPTS_MAX {
            let read = self.client.get(cursor_key.clone(), ReadLevel::Linearizable).await?;
            let stored = StoredCursor::of(read.value.as_ref())?;
            // Another run, so that whoever collects is stopped also by the cursor.
            let cursor = Cursor { run: rand::random(), removing: Some(removal), ..stored.cursor };
            let txn = Txn::new()
                .when(Compare::mod_revision(cursor_key.clone()).equals(stored.revision))
                .then(Op::put(cursor_key.clone(), cursor.encode()))
                .then(Op::put(removing_key.clone(), ""));
            let answer = self.repeated(txn).await?;
            if answer.succeeded {
                return Ok(answer.revision);
            }
        }
        Err(CollectError::Busy { key: cursor_key })
    }

    /// A transaction that does nothing, however late it arrives, once the source is removed or somebody else removes it:
    /// by then it may have been collected anew.
    fn while_marked(&self, id: &SourceId, mark: u64) -> Txn {
        let key = keys::removing(&self.resource, id);
        Txn::new().when(Compare::mod_revision(key.clone()).equals(mark)).or_else(Op::get(key))
    }

    /// Runs a transaction that is made by [`Self::while_marked`].
    ///
    /// Errors: somebody else removes the source.
    async fn held(&self, id: &SourceId, txn: Txn) -> Result<Hold, CollectError> {
        let answer = self.repeated(txn).await?;
        if answer.succeeded {
            return Ok(Hold::Goes);
        }
        // Without a mark all that was there when this one was made is gone, by whoever has come to the end.
        match answer.answers.into_iter().find_map(OpAnswer::into_kv) {
            None => Ok(Hold::Done),
            Some(_) => Err(CollectError::Removing { source_id: id.clone() }),
        }
    }

    async fn delete_pages(&self, id: &SourceId, mark: u64, prefix: &str) -> Result<Hold, CollectError> {
        let range = KeyRange::prefix(prefix.to_owned());
        loop {
            let options = ListOptions::new().keys_only().limit(PAGE_KEYS);
            let page = self.client.list(range.clone(), options, ReadLevel::Linearizable).await?.value;
            let (Some(first), Some(last)) = (page.items.first(), page.items.last()) else {
                return Ok(Hold::Goes);
            };
            // Nobody adds any: what lies between was read.
            let end = [last.key.as_ref(), b"\0"].concat();
            let delete = crate::write::Delete::range(KeyRange::between(first.key.clone(), end));
            if self.held(id, self.while_marked(id, mark).then(delete)).await? == Hold::Done {
                return Ok(Hold::Done);
            }
        }
    }

    /// Runs a transaction that may be run twice: it compares with what it changes.
    async fn repeated(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        let mut attempts = 0;
        let mut unknown = None;
        loop {
            attempts += 1;
            match self.client.txn(txn.clone()).await {
                Err(error)
                    if attempts < ATTEMPTS_MAX && matches!(error.class(), Class::Unknown | Class::Retry) =>
                {
                    unknown = Some(error).filter(|error| error.class() == Class::Unknown).or(unknown);
                    sleep(jittered(PAUSE_MIN)).await;
                }
                result => return result.map_err(|error| failed(unknown, error)),
            }
        }
    }
}
