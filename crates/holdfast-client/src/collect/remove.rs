//! Removing a source with all that was collected from it.

use tokio::time::sleep;

use super::collection::{ATTEMPTS_MAX, Collection};
use super::cursor::{Cursor, Removal, StoredCursor};
use super::error::CollectError;
use super::keys;
use super::origin::SourceId;
use crate::client::jittered;
use crate::error::{Class, Error};
use crate::range::KeyRange;
use crate::read::{ListOptions, ReadLevel};
use crate::txn::{Compare, Op, Txn, TxnAnswer};
use crate::watch_stream::PAUSE_MIN;

/// Keys that are deleted in one transaction.
const PAGE_KEYS: u64 = 500;

impl Collection {
    /// Removes a source with all its objects, in transactions of at most 500 objects each: who reads sees all of one or
    /// nothing of it. From the first one on nobody writes anything of the source, here or anywhere. In the end the source
    /// is told to be removed; before that each object is told to be deleted, or none, as `removal` says.
    ///
    /// When it does not come to its end, the source stays as it is by then and cannot be collected; it is to be called
    /// again. A source that is not there is removed, too.
    ///
    /// Errors: as [`crate::Client::txn`]; nothing is unknown behind an error that lasts but whether the last page is gone.
    pub async fn remove_source(&self, id: &SourceId, removal: Removal) -> Result<(), CollectError> {
        self.mark_removing(id, removal).await?;
        for prefix in [
            keys::objects(&self.resource, id),
            keys::gone_objects(&self.resource, id),
            keys::gone_since(&self.resource, id),
        ] {
            self.delete_pages(&prefix).await?;
        }
        let last = Txn::new()
            .then(Op::delete(keys::cursor(&self.resource, id)))
            .then(Op::delete(keys::removing(&self.resource, id)));
        self.repeated(last).await?;
        Ok(())
    }

    /// From here on nobody writes anything of the source.
    async fn mark_removing(&self, id: &SourceId, removal: Removal) -> Result<(), CollectError> {
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
            if self.repeated(txn).await?.succeeded {
                return Ok(());
            }
        }
        Err(CollectError::Busy { key: cursor_key })
    }

    async fn delete_pages(&self, prefix: &str) -> Result<(), CollectError> {
        let range = KeyRange::prefix(prefix.to_owned());
        loop {
            let options = ListOptions::new().keys_only().limit(PAGE_KEYS);
            let page = self.client.list(range.clone(), options, ReadLevel::Linearizable).await?.value;
            let (Some(first), Some(last)) = (page.items.first(), page.items.last()) else { return Ok(()) };
            // Nobody adds any: what lies between was read.
            let end = [last.key.as_ref(), b"\0"].concat();
            let delete = crate::write::Delete::range(KeyRange::between(first.key.clone(), end));
            self.repeated(Txn::new().then(delete)).await?;
        }
    }

    /// Runs a transaction that may be run twice: it deletes what nobody makes any more, or compares with what it changes.
    async fn repeated(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.client.txn(txn.clone()).await {
                Err(error)
                    if attempts < ATTEMPTS_MAX && matches!(error.class(), Class::Unknown | Class::Retry) =>
                {
                    sleep(jittered(PAUSE_MIN)).await;
                }
                result => return result,
            }
        }
    }
}
