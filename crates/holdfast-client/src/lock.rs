//! Locks that are fair, and that show when they are lost.

use bytes::Bytes;

use crate::error::Error;
use crate::held::HoldState;
use crate::place::{First, Place};
use crate::session::Session;
use crate::txn::Compare;

/// A lock that is held; made by [`Session::lock`]. Dropping it gives it up, in the background; [`Lock::unlock`] waits for
/// that. It ends with its session, and when its key is deleted by others.
#[derive(Debug)]
pub struct Lock {
    first: First,
}

impl Session {
    /// Waits until it holds the lock of this name. Who asks first holds it first. It takes part with etcd's clients, and
    /// with the lock service, which queue in the same way.
    ///
    /// Dropping the future gives the place in the queue up, in the background.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// use std::time::Duration;
    /// use holdfast_client::{Op, Txn};
    ///
    /// let session = client.session(Duration::from_secs(10)).await?;
    /// let lock = session.lock("locks/report").await?;
    /// // What the lock guards is changed only while it is held, whatever this process believes.
    /// let written = client.txn(Txn::new().when(lock.is_held()).then(Op::put("report", "done"))).await?;
    /// assert!(written.succeeded);
    /// lock.unlock().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Errors: as [`Error`] says; [`Error::SessionLost`] when the session ends before the lock is held. In any case
    /// nothing is held.
    pub async fn lock(&self, name: impl Into<Bytes>) -> Result<Lock, Error> {
        let place = Place::take(self, &name.into(), Bytes::new()).await?;
        place.first().await?;
        Ok(Lock { first: First::keep(place) })
    }

    /// Holds the lock of this name if nobody does; `None` otherwise.
    ///
    /// Errors: as [`Session::lock`].
    pub async fn try_lock(&self, name: impl Into<Bytes>) -> Result<Option<Lock>, Error> {
        let place = Place::take(self, &name.into(), Bytes::new()).await?;
        if place.before().await?.is_none() {
            return Ok(Some(Lock { first: First::keep(place) }));
        }
        place.leave().await?;
        Ok(None)
    }
}

impl Lock {
    /// The fencing token: higher than that of everybody who held this lock before. Whoever is told to do something under
    /// the lock refuses who shows a lower one than somebody else has.
    pub fn token(&self) -> u64 {
        self.first.place().revision()
    }

    /// The key of the lock.
    pub fn key(&self) -> &Bytes {
        self.first.place().key()
    }

    /// A claim that holds as long as the lock does, for transactions that must not happen otherwise.
    pub fn is_held(&self) -> Compare {
        self.first.place().is_there()
    }

    /// Whether it is held now, as far as this process knows.
    pub fn state(&self) -> HoldState {
        self.first.state()
    }

    /// Waits until it is lost. Cancel-safe.
    pub async fn lost(&mut self) {
        self.first.lost().await;
    }

    /// Gives it up, and returns when others can have it.
    ///
    /// Errors: nobody could be told. It is tried again in the background, and ends with the session.
    pub async fn unlock(self) -> Result<(), Error> {
        self.first.leave().await
    }
}
