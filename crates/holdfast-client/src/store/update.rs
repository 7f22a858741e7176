//! Writes that depend on what is there, and objects that are written again because they are stale.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::Codec;
use super::error::StoreError;
use super::item::Item;
use super::storage::{Conditions, Lifetime, Storage};
use super::transform::Transformer;
use super::typed::{ATTEMPTS_MAX, TypedError, TypedItem, TypedStore, UpdateError, unchanged};
use crate::read::ReadLevel;

/// Objects that are read at once while stale ones are looked for.
const PAGE: usize = 200;

/// How far [`TypedStore::rewrite_stale`] has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewritten {
    /// Objects that were looked at.
    pub seen: u64,
    /// Those that were stale, and were written again.
    pub rewritten: u64,
    /// Those that cannot be opened, which stay as they are: nobody can write them again who cannot read them.
    pub unreadable: u64,
    /// The first of these.
    pub first_unreadable: Option<Bytes>,
    /// Where to go on; `None` when all is done. It stays valid whatever happens meanwhile, and may be kept anywhere.
    pub cursor: Option<Bytes>,
}

impl<T, C, X, S> TypedStore<T, C, X, S>
where
    T: Send + Sync + 'static,
    C: Codec<T>,
    X: Transformer,
    S: Storage,
{
    /// Changes an object with a function of what is there: `None` when there is none. When somebody else changes it in
    /// between, the function is called again with that object, which came with the refusal: one round trip for each try,
    /// and at most [`ATTEMPTS_MAX`] tries.
    ///
    /// Nothing is written when the object would be encoded as it is already, unless it is stale. A `hint`, an object that
    /// the caller has already, saves the first read; before something is refused or left undone because of it, the object
    /// is read once. The object keeps its lease.
    ///
    /// Errors: those of the function, after which nothing happened; [`StoreError::Conflict`] after too many tries;
    /// [`StoreError::Unknown`], which is never tried again here; as [`TypedStore::get`] and [`TypedStore::put`].
    ///
    /// ```no_run
    /// # async fn example(store: holdfast_client::store::TypedStore<u64>) {
    /// use std::convert::Infallible;
    ///
    /// let counted = store
    ///     .guaranteed_update("hits".into(), None, |hits| Ok::<_, Infallible>(hits.copied().unwrap_or(0) + 1))
    ///     .await;
    /// # }
    /// ```
    pub async fn guaranteed_update<E: Send>(
        &self,
        key: Bytes,
        hint: Option<TypedItem<T>>,
        mut update: impl FnMut(Option<&T>) -> Result<T, E> + Send,
    ) -> Result<TypedItem<T>, UpdateError<T, E>> {
        let mut is_hint = hint.is_some();
        let mut current = match hint {
            Some(item) => Some(item),
            None => self.find(&key).await?,
        };
        for _ in 0..ATTEMPTS_MAX {
            let next = match update(current.as_ref().map(|item| &*item.value)) {
                Ok(next) => next,
                Err(_) if is_hint => {
                    (is_hint, current) = (false, self.find(&key).await?);
                    continue;
                }
                Err(error) => return Err(UpdateError::Caller(error)),
            };
            let encoded = self.encode(&key, &next)?;
            if let Some(item) = &current
                && !item.is_stale
                && self.encode(&key, &item.value)? == encoded
            {
                if !is_hint {
                    return Ok(item.clone());
                }
                (is_hint, current) = (false, self.find(&key).await?);
                continue;
            }
            let lifetime = if current.is_some() { Lifetime::Kept } else { Lifetime::Stays };
            let conditions = Conditions::expect(unchanged(current.as_ref())).with_lifetime(lifetime);
            match self.put_encoded(key.clone(), Arc::new(next), encoded, conditions).await {
                Err(StoreError::Conflict { current: found, .. }) => {
                    (is_hint, current) = (false, found.map(|item| *item));
                }
                result => return Ok(result?),
            }
        }
        Err(UpdateError::Store(StoreError::Conflict { key, current: current.map(Box::new) }))
    }

    /// An object as it is now, if it is there.
    async fn find(&self, key: &Bytes) -> Result<Option<TypedItem<T>>, TypedError<T>> {
        match self.get(key.clone(), ReadLevel::Linearizable).await {
            Ok(item) => Ok(Some(item)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes again what is stale, under a prefix: after a key was replaced, so that the old one can be left out once
    /// nothing is [unreadable](Rewritten::unreadable). It looks at `objects_max` objects or a page more, and says where to
    /// go on; begin without a cursor, and go on until there is none. What was done stays done.
    ///
    /// Objects are sealed again as they are, without being decoded, and keep their leases. One that somebody changes
    /// meanwhile is left to them: they write it in the new way.
    ///
    /// Errors: as [`Storage::page`] and [`Storage::put`]; go on with the cursor that was given last: to write an object
    /// twice does no harm.
    pub async fn rewrite_stale(
        &self,
        prefix: Bytes,
        cursor: Option<Bytes>,
        objects_max: u64,
    ) -> Result<Rewritten, TypedError<T>> {
        let mut done = Rewritten { cursor, ..Rewritten::default() };
        loop {
            let page =
                self.storage().page(prefix.clone(), done.cursor.clone(), PAGE, ReadLevel::Linearizable);
            let page = match page.await {
                Ok(page) => page,
                Err(error) => return Err(self.error(error).await),
            };
            let last = page.items.last().map(|item| item.key.clone());
            for item in page.items {
                done.seen += 1;
                match self.unseal(item).await {
                    Ok(item) => done.rewritten += u64::from(item.is_stale && self.rewrite(item).await?),
                    Err(StoreError::Transform { key, .. }) => {
                        done.unreadable += 1;
                        done.first_unreadable.get_or_insert(key);
                    }
                    Err(error) => return Err(error),
                }
            }
            done.cursor = last.filter(|_| page.more);
            if done.cursor.is_none() || done.seen >= objects_max {
                return Ok(done);
            }
        }
    }

    /// Whether it was this call that wrote it.
    async fn rewrite(&self, item: Item<Bytes>) -> Result<bool, TypedError<T>> {
        let conditions = Conditions::prev_version(item.version).with_lifetime(Lifetime::Kept);
        match self.put_raw(item.key, item.value, conditions).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(self.error(error).await),
        }
    }
}

#[cfg(test)]
mod tests;
