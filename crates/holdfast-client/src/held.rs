//! A key that is held: a lock, or the place of a leader.
//!
//! Who holds it has made the key, attached to a lease of its own, and keeps the lease alive. It is lost when the lease
//! ends, when the key is deleted or made anew by others, or when nobody could tell for so long that the lease may have
//! ended: by then somebody else may hold it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::client::{Client, jittered};
use crate::codec::watch::Event;
use crate::codec::{KeyValue, LeaseId};
use crate::error::{Class, Error};
use crate::pulse::Pulse;
use crate::range::KeyRange;
use crate::read::{Read, ReadLevel};
use crate::session::{Lives, SessionState};
use crate::watch::{Watch, WatchEvent, WatchOptions};
use crate::write::{Put, SetIfNotExists};

/// Pause before an attempt that failed is made again; half of it is random.
const RETRY: Duration = Duration::from_millis(500);

/// What an attempt to hold a key came to.
#[derive(Debug)]
pub enum Acquired {
    /// It is held.
    Held(Held),
    /// Somebody else holds it, with this.
    Taken(KeyValue),
}

/// Whether a key is still held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// It is.
    Held,
    /// It is, but the last renewal failed. It is lost if that goes on.
    Suspect,
    /// It is not, or nobody can tell any more.
    Lost,
}

impl From<SessionState> for HoldState {
    /// Of what is held as long as the session lives.
    fn from(state: SessionState) -> Self {
        match state {
            SessionState::Alive => Self::Held,
            SessionState::Suspect => Self::Suspect,
            SessionState::Lost => Self::Lost,
        }
    }
}

/// A held key; made by [`Client::acquire`]. Dropping it gives the key up, in the background; [`Held::release`] waits for
/// that.
#[derive(Debug)]
pub struct Held {
    client: Client,
    key: Bytes,
    lease: LeaseId,
    revision: u64,
    pulse: Pulse,
    /// Ends the task that keeps it alive.
    _keeper: watch::Sender<()>,
    is_released: bool,
}

impl Client {
    /// Tries once to hold a key, with a value that tells the others who does.
    ///
    /// It is held as long as its lease is kept alive, which happens in the background: when this process ends or is cut
    /// off, others can have it after `ttl`. Who does not get it leaves no lease behind.
    ///
    /// Errors: as [`Error`] says. In any case nothing is held, or will be for longer than `ttl`.
    pub async fn try_acquire(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Acquired, Error> {
        let (acquired, _) = self.try_acquire_at(key.into(), value.into(), ttl).await?;
        Ok(acquired)
    }

    /// As [`Client::try_acquire`], with a revision at which that was so: the newest one that is known.
    async fn try_acquire_at(
        &self,
        key: Bytes,
        value: Bytes,
        ttl: Duration,
    ) -> Result<(Acquired, u64), Error> {
        let client = self.clone();
        // A task of its own: it cleans up also when this future is dropped half-way.
        let attempt = tokio::spawn(async move { client.attempt(key, value, ttl).await });
        attempt.await.expect("an attempt does not panic, and nobody aborts it")
    }

    /// Waits until it holds a key. See [`Client::try_acquire`].
    ///
    /// Errors: as there, but for members that do not answer: it goes on.
    pub async fn acquire(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Held, Error> {
        let (key, value) = (key.into(), value.into());
        loop {
            match self.try_acquire_at(key.clone(), value.clone(), ttl).await {
                Ok((Acquired::Held(held), _)) => return Ok(held),
                Ok((Acquired::Taken(by), revision)) => {
                    // Not from the key's own revision on, which may be compacted long since.
                    let from = WatchOptions::new().from(revision + 1);
                    let mut watch = self.watch(KeyRange::key(key.clone()), from);
                    // Either way the next attempt tells.
                    match until_gone(&mut watch, by.create_revision).await? {
                        Gone::Gone | Gone::Perhaps => {}
                    }
                }
                Err(error) if error.class() == Class::Rejected => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "not acquired yet");
                    tokio::time::sleep(jittered(RETRY)).await;
                }
            }
        }
    }

    async fn attempt(self, key: Bytes, value: Bytes, ttl: Duration) -> Result<(Acquired, u64), Error> {
        // It needs no lease to see that others hold it.
        let read = self.get(key.clone(), ReadLevel::Linearizable).await?;
        if let Some(by) = read.value {
            return Ok((Acquired::Taken(by), read.revision));
        }
        let lives = Lives::grant(&self, ttl).await?;
        let lease = lives.lease;
        match self.create(Put::new(key.clone(), value).lease(lease)).await {
            Ok(SetIfNotExists::Set { revision }) => {
                Ok((Acquired::Held(Held::keep(self, key, revision, lives)), revision))
            }
            Ok(SetIfNotExists::Exists(by)) => {
                self.abandon(lease).await;
                let revision = by.mod_revision.max(read.revision);
                Ok((Acquired::Taken(by), revision))
            }
            Err(error) => {
                // If the key was made after all, it goes with the lease.
                self.abandon(lease).await;
                Err(error)
            }
        }
    }
}

impl Held {
    fn keep(client: Client, key: Bytes, revision: u64, lives: Lives) -> Self {
        let (heart, pulse) = lives.pulse();
        let (keeper, mut dropped) = watch::channel(());
        let (keeping, watched) = (client.clone(), key.clone());
        // Ends with the sender in `Self`, or with the loss.
        drop(tokio::spawn(async move {
            tokio::select! {
                // All arms may be dropped at any point: nobody looks at what they would have found.
                _ = dropped.changed() => {}
                () = lives.renew(&keeping, &heart) => {}
                () = lose(keeping.clone(), watched, revision) => {}
            }
            // Which tells that it is lost.
            drop(heart);
        }));
        let lease = lives.lease;
        Self { client, key, lease, revision, pulse, _keeper: keeper, is_released: false }
    }

    /// The key.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The lease that it lives with.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// The revision at which it was made. Whoever held it before had a lower one, so that it can be shown as a fencing
    /// token to those who must not listen to an earlier holder.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether it is held now.
    pub fn state(&self) -> HoldState {
        self.pulse.state().into()
    }

    /// Waits until it is lost. Cancel-safe.
    pub async fn lost(&mut self) {
        self.pulse.lost().await;
    }

    /// Gives it up, and returns when others can have it.
    ///
    /// Errors: nobody could be told. It ends within its time to live then.
    pub async fn release(mut self) -> Result<(), Error> {
        self.is_released = true;
        self.client.revoke(self.lease).await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        // Without a runtime nobody renews it either: it ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, lease) = (self.client.clone(), self.lease);
            drop(runtime.spawn(async move { client.abandon(lease).await }));
        }
    }
}

/// Returns when the key is not the one made at `revision` any more.
pub(crate) async fn lose(client: Client, key: Bytes, revision: u64) {
    let mut from = revision + 1;
    loop {
        let mut watch = client.watch(KeyRange::key(key.clone()), WatchOptions::new().from(from));
        match until_gone(&mut watch, revision).await {
            Ok(Gone::Gone) => return,
            // The watch was cut off, and what it missed was compacted: the key itself tells.
            Ok(Gone::Perhaps) => {}
            Err(error) => {
                tracing::warn!(%error, "a held key cannot be watched; it is read instead, from time to time");
                tokio::time::sleep(jittered(RETRY)).await;
            }
        }
        match client.get(key.clone(), ReadLevel::Linearizable).await {
            Ok(Read { value: Some(kv), revision: now }) if kv.create_revision == revision => from = now + 1,
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "a held key cannot be read yet");
                tokio::time::sleep(jittered(RETRY)).await;
            }
        }
    }
}

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// It was deleted, or made anew.
    Gone,
    /// Its changes are not known any more.
    Perhaps,
}

/// Waits until the key that was made at `created` is gone, or may be.
async fn until_gone(watch: &mut Watch, created: u64) -> Result<Gone, Error> {
    loop {
        let events = match watch.next().await? {
            WatchEvent::Lost { .. } => return Ok(Gone::Perhaps),
            WatchEvent::Progress { .. } => continue,
            WatchEvent::Changes { events, .. } => events,
        };
        let is_gone = events.iter().any(|event| match event {
            Event::Put { kv, .. } => kv.create_revision != created,
            Event::Delete { .. } => true,
        });
        if is_gone {
            return Ok(Gone::Gone);
        }
    }
}
