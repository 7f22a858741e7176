//! Collecting from a source: list, follow, list again when it must.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::time::sleep;

use super::batch::{Batch, CHANGES_MAX, Run};
use super::collection::{Change, Collection};
use super::error::CollectError;
use super::guard::Wish;
use super::keys::{self, Place};
use super::origin::{ObjectName, OriginObject, OriginVersion};
use super::source::{Source, SourceError, SourceEvent};
use crate::client::jittered;
use crate::error::{Class, Error};
use crate::range::KeyRange;
use crate::read::ReadLevel;

/// Pause after a source or the cluster has not answered; doubles up to [`PAUSE_MAX`], and half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(800);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Events that are looked at for one batch, those among them that change nothing.
const EVENTS_MAX: usize = CHANGES_MAX * 4;

/// Why following ended.
enum Ended {
    /// All has to be listed again.
    Expired,
    /// It goes on from the cursor.
    Pause(String),
}

impl Collection {
    /// Collects from a source: goes on where any run before has come to, or lists all first. Each batch of what the source
    /// tells is one transaction with the cursor, so that whatever stops this, and whenever, nothing is missing and nothing
    /// twice. What is stored already as the source has it is not written again, also by a list.
    ///
    /// It returns only when it cannot go on; otherwise it may be dropped at any point. Memory: a page of the source, a
    /// page of the cluster, and 16 bytes or so for each object while all are listed.
    ///
    /// Somebody else who collects from the same source, here or anywhere, is stopped by it.
    ///
    /// Gives the reason: [`CollectError::Superseded`], [`CollectError::Removing`], what is stored cannot be read, or the
    /// cluster refuses.
    pub async fn follow<S: Source>(&self, source: &S) -> CollectError {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.progress_of(source).await;
            match self.follow_once(source).await {
                Err(error) if error.class() == Class::Rejected => return error,
                Err(error) => tracing::debug!(%error, source = %source.id(), "collecting is tried again"),
                Ok(never) => match never {},
            }
            pause =
                if self.progress_of(source).await == before { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            sleep(jittered(pause)).await;
        }
    }

    /// How far it has come; none when nobody tells.
    async fn progress_of<S: Source>(&self, source: &S) -> Option<OriginVersion> {
        self.origin(source.id()).await.ok().flatten()
    }

    /// Boxed, so that it can be seen to be `Send` here, and where it is spawned nothing has to be seen any more.
    fn follow_once<'a, S: Source>(
        &'a self,
        source: &'a S,
    ) -> BoxFuture<'a, Result<Infallible, CollectError>> {
        Box::pin(self.follow_run(source))
    }

    async fn follow_run<S: Source>(&self, source: &S) -> Result<Infallible, CollectError> {
        let mut run = Run::begin(self, source).await?;
        let mut pause = PAUSE_MIN;
        loop {
            let reason = match run.stored.cursor.origin.clone() {
                None => run.list_all().await?,
                Some(origin) => run.follow(&origin, &mut pause).await?,
            };
            let Some(ended) = reason else { continue };
            // Also a source that does not go back to its own list is asked less and less often.
            let cause = match ended {
                Ended::Expired => {
                    run.forget().await?;
                    "it does not go back so far".to_owned()
                }
                Ended::Pause(cause) => cause,
            };
            tracing::debug!(cause, source = %source.id(), "a source is asked again");
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl<S: Source> Run<'_, S> {
    /// The next thing to do is to list all.
    async fn forget(&mut self) -> Result<(), CollectError> {
        self.apply(&Batch::default(), None).await
    }

    /// Follows until the source ends its watch.
    async fn follow(
        &mut self,
        from: &OriginVersion,
        pause: &mut Duration,
    ) -> Result<Option<Ended>, CollectError> {
        let mut watch = match self.source.watch(from).await {
            // Some streams must not be asked again behind their end.
            Ok(watch) => watch.fuse(),
            Err(error) => return Ok(Some(ended(&error))),
        };
        let mut waiting = None;
        let mut reached = from.clone();
        loop {
            let first = match waiting.take() {
                Some(event) => Some(event),
                None => watch.next().await,
            };
            let mut told = match first {
                None => return Ok(Some(Ended::Pause("the watch has ended".to_owned()))),
                Some(Err(error)) => return Ok(Some(ended(&error))),
                Some(Ok(event)) => Some(event),
            };
            *pause = PAUSE_MIN;
            // As many as are there, and fit.
            let mut batch = Batch::default();
            for _ in 0..EVENTS_MAX {
                let Some(event) = told.take() else { break };
                let (change, version) = change(event);
                match change {
                    Some(change) if !batch.has_room_for(&change) => {
                        waiting = Some(Ok(event_of(change)));
                        break;
                    }
                    Some(change) => batch.push(change),
                    None => {}
                }
                // A deletion may come with the version of what was deleted.
                if self.source.compare(&version, &reached) != Some(Ordering::Less) {
                    reached = version;
                }
                match watch.next().now_or_never() {
                    Some(Some(Ok(event))) => told = Some(event),
                    Some(Some(Err(error))) => waiting = Some(Err(error)),
                    // An end is told again.
                    Some(None) | None => {}
                }
            }
            if let Some(event) = told {
                waiting = Some(Ok(event));
            }
            self.apply(&batch, Some(&reached)).await?;
        }
    }

    /// Lists all, writes what is different, deletes what is not there any more.
    async fn list_all(&mut self) -> Result<Option<Ended>, CollectError> {
        let listed_from = self.stored.revision;
        let mut seen = HashSet::new();
        let mut token = None;
        let version = loop {
            let page = match self.source.list(token.take()).await {
                Ok(page) => page,
                Err(error) => return Ok(Some(ended(&error))),
            };
            let mut batch = Batch::default();
            for OriginObject { name, origin, bytes } in page.objects {
                seen.insert(hash(&name));
                self.add(&mut batch, Change { name, origin, wish: Wish::Put(bytes) }).await?;
            }
            self.apply(&batch, None).await?;
            match page.next {
                Some(next) => token = Some(next),
                None => break page.version,
            }
        };
        self.sweep(&seen, &version, listed_from).await?;
        self.apply(&Batch::default(), Some(&version)).await?;
        Ok(None)
    }

    /// Adds a change, and writes the batch before if it is full.
    async fn add(&mut self, batch: &mut Batch, change: Change) -> Result<(), CollectError> {
        if !batch.has_room_for(&change) {
            self.apply(&std::mem::take(batch), None).await?;
        }
        batch.push(change);
        Ok(())
    }

    /// Deletes what is stored and was not listed, unless it is newer than the list.
    async fn sweep(
        &mut self,
        seen: &HashSet<u64>,
        version: &OriginVersion,
        listed_from: u64,
    ) -> Result<(), CollectError> {
        let collection = self.collection;
        let resource = &collection.resource;
        let pages_of = |range| collection.client.pages(range, ReadLevel::Linearizable).keys_only();
        let mut rest = KeyRange::prefix(keys::objects(resource, self.source.id()));
        let mut pages = pages_of(rest.clone());
        let mut batch = Batch::default();
        loop {
            let page = match pages.next().await {
                // What is deleted meanwhile may take so long that the revision of the pages is compacted. The first page
                // of new ones is of the newest revision, which is never compacted: it gets on.
                Err(Error::Compacted { .. }) => {
                    pages = pages_of(rest.clone());
                    continue;
                }
                page => page?,
            };
            let Some(page) = page else { break };
            if let Some(last) = page.last() {
                rest = rest.behind(&last.key);
            }
            for kv in page {
                let Some(Place::Object(_, name)) = keys::place(resource, &kv.key) else { continue };
                if !seen.contains(&hash(&name)) {
                    let wish = Wish::Vanish { listed_from };
                    self.add(&mut batch, Change { name, origin: version.clone(), wish }).await?;
                }
            }
        }
        if batch.is_empty() { Ok(()) } else { self.apply(&batch, None).await }
    }
}

/// A million of them collide with a probability of one in 10^7; what collides stays until its source tells that it is gone.
fn hash(name: &ObjectName) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// What an event changes, and the version that is reached with it.
fn change(event: SourceEvent) -> (Option<Change>, OriginVersion) {
    match event {
        SourceEvent::Put(OriginObject { name, origin, bytes }) => {
            let version = origin.clone();
            (Some(Change { name, origin, wish: Wish::Put(bytes) }), version)
        }
        SourceEvent::Deleted { name, origin } => {
            let version = origin.clone();
            (Some(Change { name, origin, wish: Wish::Delete }), version)
        }
        SourceEvent::Progress(version) => (None, version),
    }
}

/// The other way.
fn event_of(change: Change) -> SourceEvent {
    let Change { name, origin, wish } = change;
    match wish {
        Wish::Put(bytes) => SourceEvent::Put(OriginObject { name, origin, bytes }),
        Wish::Delete | Wish::Vanish { .. } => SourceEvent::Deleted { name, origin },
    }
}

fn ended(error: &SourceError) -> Ended {
    match error {
        SourceError::Expired => Ended::Expired,
        SourceError::Failed(source) => Ended::Pause(source.to_string()),
    }
}
