//! A place in a queue of those who want the same thing.
//!
//! The queue is all keys behind a name and a slash, in the order of their create revisions; who is first has what all
//! want. That is how etcd's own clients and its lock and election services queue, so that they all wait for each other.
//! A key lives with the lease of its session, and is deleted when its owner leaves.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tonic::Code;

use crate::client::{Client, jittered};
use crate::codec::KeyValue;
use crate::error::{Class, Error};
use crate::held::{HoldState, lose};
use crate::range::KeyRange;
use crate::read::{ListOptions, Order, SortBy};
use crate::session::{Session, SessionState};
use crate::txn::{Compare, Op, OpAnswer, Txn};
use crate::watch::{WatchEvent, WatchOptions};
use crate::write::{Delete, Put, SetIfNotExists};

/// Pause before what failed is tried again; half of it is random.
const RETRY: Duration = Duration::from_millis(200);
/// The longest pause before a place that is not wanted any more is given up again.
const LEAVE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// After this time no server works on a request any more that nobody waits for: etcd's budget for one is 7 s.
const LATE: Duration = Duration::from_secs(15);

/// A place. Dropping it gives it up, in the background.
#[derive(Debug)]
pub(crate) struct Place {
    session: Session,
    /// What all keys of the queue begin with.
    queue: Bytes,
    key: Bytes,
    /// The create revision of the key, once it is known.
    revision: Option<u64>,
    is_left: bool,
}

impl Place {
    /// Takes the last place.
    pub(crate) async fn take(session: &Session, name: &Bytes, value: Bytes) -> Result<Self, Error> {
        if session.state() == SessionState::Lost {
            return Err(Error::SessionLost);
        }
        let queue = queue(name);
        let own = format!("{:x}.{}", session.lease().0, session.place());
        let key: Bytes = [queue.as_ref(), own.as_bytes()].concat().into();
        // Before the key is made: who drops this future leaves nothing behind.
        let mut place = Self { session: session.clone(), queue, key, revision: None, is_left: false };
        let put = Put::new(place.key.clone(), value).lease(session.lease());
        let revision = match session.client().create(put).await {
            Ok(SetIfNotExists::Set { revision }) => revision,
            Ok(SetIfNotExists::Exists(kv)) => kv.create_revision,
            Err(error) => {
                place.is_left = error.class() != Class::Unknown;
                return Err(lost_lease(error));
            }
        };
        place.revision = Some(revision);
        Ok(place)
    }

    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(crate) fn client(&self) -> &Client {
        self.session.client()
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The create revision of the key. Those before it have a lower one.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.expect("a place is given away once its revision is known")
    }

    /// The place is still there.
    pub(crate) fn is_there(&self) -> Compare {
        Compare::create_revision(self.key.clone()).equals(self.revision())
    }

    /// Who is right before it, and the revision at which that is so; `None` when it is first.
    ///
    /// Errors: as [`Error`] says; [`Error::SessionLost`] when the place is gone.
    pub(crate) async fn before(&self) -> Result<Option<(KeyValue, u64)>, Error> {
        let options = ListOptions::new()
            .limit(1)
            .keys_only()
            .sorted(SortBy::CreateRevision, Order::Descending)
            .created_in(1..=self.revision().saturating_sub(1));
        let txn =
            Txn::new().when(self.is_there()).then(Op::list(KeyRange::prefix(self.queue.clone()), options));
        let answer = self.client().txn(txn).await?;
        if !answer.succeeded {
            return Err(Error::SessionLost);
        }
        let before = answer.answers.into_iter().next().and_then(OpAnswer::into_kv);
        Ok(before.map(|kv| (kv, answer.revision)))
    }

    /// Waits until it is first.
    ///
    /// Errors: [`Error::SessionLost`], or a server refuses; members that do not answer are asked again.
    pub(crate) async fn first(&self) -> Result<(), Error> {
        let mut session = self.session.clone();
        tokio::select! {
            // Both only wait.
            result = self.wait() => result,
            () = session.lost() => Err(Error::SessionLost),
        }
    }

    async fn wait(&self) -> Result<(), Error> {
        loop {
            match self.before().await {
                Ok(None) => return Ok(()),
                Ok(Some((kv, revision))) => until_changed(self.client(), kv.key, revision).await?,
                Err(error) if error.class() == Class::Retry => {
                    tracing::debug!(%error, "a place in a queue cannot be seen yet");
                    tokio::time::sleep(jittered(RETRY)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives it up, and returns when the next one has its turn.
    ///
    /// Errors: nobody could be told; it is tried again in the background.
    pub(crate) async fn leave(mut self) -> Result<(), Error> {
        let txn = Txn::new().when(self.is_there()).then(Delete::key(self.key.clone()));
        self.client().txn(txn).await?;
        self.is_left = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        // Without a runtime nobody keeps the session alive either.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Not the session: its lease may end meanwhile, and the key with it.
        let (client, key, is_made) = (self.client().clone(), self.key.clone(), self.revision.is_some());
        let remove = move || {
            let (client, key) = (client.clone(), key.clone());
            async move { client.delete(key).await.map(drop) }
        };
        let mut pulse = self.session.pulse();
        drop(runtime.spawn(async move {
            tokio::select! {
                // Both may be dropped at any point: the key of a session that is lost ends with its lease.
                () = pulse.lost() => {}
                () = leave_at_last(RETRY, is_made, remove) => {}
            }
        }));
    }
}

/// A lease that does not exist any more is a session that is lost.
pub(crate) fn lost_lease(error: Error) -> Error {
    if error.is_refused_with(Code::NotFound) { Error::SessionLost } else { error }
}

/// Removes a place until that has worked: as long as it is there, nobody behind it has a turn.
async fn leave_at_last<R: Future<Output = Result<(), Error>>>(
    pause: Duration,
    is_made: bool,
    remove: impl Fn() -> R,
) {
    until_done(pause, &remove).await;
    if !is_made {
        // The request that makes it may still be under way.
        tokio::time::sleep(LATE).await;
        until_done(pause, &remove).await;
    }
}

/// Tries until it works; pauses double up to [`LEAVE_PAUSE_MAX`].
async fn until_done<R: Future<Output = Result<(), Error>>>(mut pause: Duration, attempt: impl Fn() -> R) {
    while let Err(error) = attempt().await {
        tracing::debug!(%error, "a place in a queue is not given up yet");
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LEAVE_PAUSE_MAX);
    }
}

/// What all keys of a queue begin with.
pub(crate) fn queue(name: &Bytes) -> Bytes {
    [name.as_ref(), b"/"].concat().into()
}

/// Waits until a key has changed behind a revision, or may have.
async fn until_changed(client: &Client, key: Bytes, revision: u64) -> Result<(), Error> {
    let mut watch = client.watch(KeyRange::key(key), WatchOptions::new().from(revision + 1).only_deletes());
    loop {
        match watch.next().await? {
            WatchEvent::Progress { .. } => {}
            WatchEvent::Changes { .. } | WatchEvent::Lost { .. } => return Ok(()),
        }
    }
}

/// A place that is first, as long as it is there.
#[derive(Debug)]
pub(crate) struct First {
    place: Place,
    /// Whether the key is gone, though the session may live.
    gone: watch::Receiver<bool>,
    /// Ends the task that looks for that.
    _keeper: watch::Sender<()>,
}

impl First {
    pub(crate) fn keep(place: Place) -> Self {
        let (tell, gone) = watch::channel(false);
        let (keeper, mut dropped) = watch::channel(());
        let (client, key, revision) = (place.client().clone(), place.key().clone(), place.revision());
        // Ends with the sender in `Self`, or with the loss.
        drop(tokio::spawn(async move {
            tokio::select! {
                // Both arms may be dropped at any point: nobody looks at what they would have found.
                _ = dropped.changed() => {}
                () = lose(client, key, revision) => {}
            }
            tell.send_replace(true);
        }));
        Self { place, gone, _keeper: keeper }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn state(&self) -> HoldState {
        // A task that is gone looks no more.
        if *self.gone.borrow() || self.gone.has_changed().is_err() {
            return HoldState::Lost;
        }
        self.place.session().state().into()
    }

    pub(crate) async fn lost(&mut self) {
        let mut session = self.place.session().clone();
        tokio::select! {
            // Both only wait; an error means that the task has ended, which has told so before.
            gone = self.gone.wait_for(|gone| *gone) => drop(gone),
            () = session.lost() => {}
        }
    }

    pub(crate) async fn leave(self) -> Result<(), Error> {
        self.place.leave().await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// RS4: a place that stays would hold up all behind it for as long as its session lives.
    #[tokio::test]
    async fn a_place_is_given_up_until_it_is_gone() {
        let attempts = Cell::new(0);
        let remove = || {
            attempts.set(attempts.get() + 1);
            let is_late = attempts.get() <= 20;
            async move { if is_late { Err(Error::Unavailable { attempts: Vec::new() }) } else { Ok(()) } }
        };
        leave_at_last(Duration::ZERO, true, remove).await;
        assert_eq!(attempts.get(), 21);
    }
}
