//! Barriers: many wait until one lets them go.

use bytes::Bytes;

use crate::client::Client;
use crate::error::Error;
use crate::range::KeyRange;
use crate::read::{Read, ReadLevel};
use crate::session::Session;
use crate::watch::{WatchEvent, WatchOptions};
use crate::write::{Put, SetIfNotExists};

/// A key that holds others up as long as it exists; made by [`Client::barrier`].
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// let barrier = client.barrier("migration");
/// assert!(barrier.hold().await?);
/// // Elsewhere: client.barrier("migration").wait().await?
/// barrier.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Barrier {
    client: Client,
    key: Bytes,
}

impl Client {
    /// The barrier of this key. Nothing is asked for before it is used.
    pub fn barrier(&self, key: impl Into<Bytes>) -> Barrier {
        Barrier { client: self.clone(), key: key.into() }
    }
}

impl Barrier {
    /// Holds others up until it is released, also when this process ends. Gives whether it did not do so already.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] it may hold them up.
    pub async fn hold(&self) -> Result<bool, Error> {
        self.set(Put::new(self.key.clone(), Bytes::new())).await
    }

    /// Holds others up until it is released, or until the session ends. Gives whether it did not do so already.
    ///
    /// Errors: as [`Barrier::hold`].
    pub async fn hold_with(&self, session: &Session) -> Result<bool, Error> {
        self.set(Put::new(self.key.clone(), Bytes::new()).lease(session.lease())).await
    }

    async fn set(&self, put: Put) -> Result<bool, Error> {
        match self.client.create(put).await? {
            SetIfNotExists::Set { .. } => Ok(true),
            SetIfNotExists::Exists(_) => Ok(false),
        }
    }

    /// Lets all go that wait.
    ///
    /// Errors: as [`Error`] says. After [`Error::Unknown`] they may go.
    pub async fn release(&self) -> Result<(), Error> {
        self.client.delete(self.key.clone()).await?;
        Ok(())
    }

    /// Waits until it does not hold anybody up. Cancel-safe.
    ///
    /// Errors: as [`Client::get`] and [`crate::Watch::next`].
    pub async fn wait(&self) -> Result<(), Error> {
        loop {
            let Read { value: Some(_), revision } =
                self.client.get(self.key.clone(), ReadLevel::Linearizable).await?
            else {
                return Ok(());
            };
            let deletes = WatchOptions::new().from(revision + 1).only_deletes();
            let mut watch = self.client.watch(KeyRange::key(self.key.clone()), deletes);
            loop {
                match watch.next().await? {
                    WatchEvent::Progress { .. } => {}
                    // It was released, and may be held again by now: who waited goes.
                    WatchEvent::Changes { .. } => return Ok(()),
                    WatchEvent::Lost { .. } => break,
                }
            }
        }
    }
}
