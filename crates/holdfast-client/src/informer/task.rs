//! The task of an informer: lists, follows, lists again when it must.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::cache::{Cache, Update};
use super::health::{InformerState, RelistReason};
use super::hub::{Hub, Step};
use super::object::{Decode, Entry};
use crate::client::{Client, jittered};
use crate::codec::KeyValue;
use crate::codec::watch::Event;
use crate::error::Error;
use crate::range::KeyRange;
use crate::read::ReadLevel;
use crate::watch::{WatchEvent, WatchOptions};

/// Pause after a list that failed; doubles up to [`PAUSE_MAX`], and half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(800);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often the server is asked how far it has come while somebody waits for a revision.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// What an informer's task works on.
pub(super) struct Task<T> {
    pub(super) client: Client,
    pub(super) range: KeyRange,
    pub(super) decode: Arc<Decode<T>>,
    pub(super) cache: Cache<T>,
    /// A field, so that it is closed also when the task ends before it has run.
    pub(super) hub: Closing<T>,
    /// Who wants all to be listed again.
    pub(super) relists: mpsc::Receiver<RelistReason>,
}

/// Closes the hub also when the task is aborted or panics.
pub(super) struct Closing<T>(pub(super) Arc<Hub<T>>);

impl<T> Deref for Closing<T> {
    type Target = Hub<T>;

    fn deref(&self) -> &Hub<T> {
        &self.0
    }
}

impl<T> Drop for Closing<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A list that is not taken.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Read(#[from] Error),
    #[error("the cluster has gone back to revision {given}, and {known} is known")]
    Backwards { given: u64, known: u64 },
}

impl<T: Send + Sync + 'static> Task<T> {
    /// Never ends by itself. It may be dropped at any point.
    pub(super) async fn run(mut self) {
        let mut reason = None;
        loop {
            self.hub.set_state(if reason.is_some() { InformerState::Relist } else { InformerState::Syncing });
            let revision = self.list(reason).await;
            self.hub.set_state(InformerState::Live);
            reason = Some(self.follow(revision).await);
        }
    }

    /// Lists until that succeeds, and gives the revision.
    async fn list(&mut self, reason: Option<RelistReason>) -> u64 {
        let mut pause = PAUSE_MIN;
        loop {
            match self.list_once(reason).await {
                Ok(revision) => return revision,
                Err(error) => {
                    tracing::debug!(%error, "a list is tried again");
                    self.hub.notes().error = Some(error.to_string());
                }
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn list_once(&mut self, reason: Option<RelistReason>) -> Result<u64, ListError> {
        let (revision, entries) = self.read_all().await?;
        let known = self.cache.snapshot().revision();
        if revision < known {
            return Err(ListError::Backwards { given: revision, known });
        }
        // Before the first list is complete nobody knows anything, and each object would be a change.
        let changes = match reason {
            None => {
                self.cache.load(revision, entries);
                Vec::new()
            }
            Some(_) => self.cache.replace(revision, entries).unwrap_or_default(),
        };
        self.heard(!changes.is_empty());
        if let Some(reason) = reason {
            self.hub.notes().relists.count(reason);
            tracing::info!(?reason, revision, changes = changes.len(), "all was listed again");
        }
        self.publish(changes, true, reason);
        Ok(revision)
    }

    /// All keys as of one revision. What is known already is not decoded again.
    async fn read_all(&self) -> Result<(u64, Vec<Entry<T>>), Error> {
        let mut pages = self.client.pages(self.range.clone(), ReadLevel::Linearizable);
        let mut entries = Vec::new();
        while let Some(page) = pages.next().await? {
            entries.extend(page.iter().map(|kv| self.entry(kv)));
        }
        let revision = pages.revision().expect("the first page has told, and there is one always");
        Ok((revision, entries))
    }

    fn entry(&self, kv: &KeyValue) -> Entry<T> {
        let known = self.cache.snapshot().entry(&kv.key).filter(|entry| entry.is_of(kv));
        known.cloned().unwrap_or_else(|| Entry::decode(kv, &*self.decode))
    }

    /// Follows changes from behind a revision, until all has to be listed again.
    async fn follow(&mut self, revision: u64) -> RelistReason {
        let options = WatchOptions::new().from(revision + 1).progress();
        let mut watch = self.client.watch(self.range.clone(), options);
        loop {
            // All arms are cancel-safe: each takes something whole, or nothing.
            tokio::select! {
                told = watch.next() => {
                    if let Some(reason) = self.take(told) {
                        return reason;
                    }
                }
                Some(reason) = self.relists.recv() => return reason,
                () = progress_is_due(&self.hub) => watch.ask_progress(),
            }
        }
    }

    /// Takes what the watch tells; a reason to list again, if it is one.
    fn take(&mut self, told: Result<WatchEvent, Error>) -> Option<RelistReason> {
        match told {
            Ok(WatchEvent::Changes { revision, events }) => {
                let updates = events.into_iter().map(|event| self.update(event)).collect();
                match self.cache.apply(revision, updates) {
                    Ok(changes) => {
                        self.heard(true);
                        self.publish(changes, false, None);
                    }
                    Err(refused) => tracing::warn!(%refused, "a watch has told something twice"),
                }
            }
            Ok(WatchEvent::Progress { revision }) => {
                self.heard(false);
                // What is known already is no progress.
                if self.cache.advance(revision).is_ok() {
                    self.publish(Vec::new(), false, None);
                }
            }
            Ok(WatchEvent::Lost { from, resumes_at }) if from < resumes_at => {
                return Some(RelistReason::Compacted);
            }
            Ok(WatchEvent::Lost { .. }) => {}
            Err(error) => {
                // The watch rests before it asks again.
                tracing::debug!(%error, "a watch is refused");
                self.hub.notes().error = Some(error.to_string());
                self.hub.set_state(InformerState::Resume);
            }
        }
        None
    }

    fn update(&self, event: Event) -> Update<T> {
        match event {
            Event::Put { kv, .. } => Update::Set(Entry::decode(&kv, &*self.decode)),
            Event::Delete { key, .. } => Update::Delete(key),
        }
    }

    fn heard(&self, is_change: bool) {
        let now = tokio::time::Instant::now();
        let mut notes = self.hub.notes();
        notes.heard_at = Some(now);
        if is_change {
            notes.changed_at = Some(now);
        }
        notes.error = None;
        drop(notes);
        if self.hub.position().state == InformerState::Resume {
            self.hub.set_state(InformerState::Live);
        }
    }

    fn publish(&self, changes: Vec<super::Change<T>>, is_list: bool, relisted: Option<RelistReason>) {
        let snapshot = self.cache.snapshot();
        let step = (is_list || !changes.is_empty()).then(|| Step {
            snapshot: Arc::clone(snapshot),
            changes: changes.into(),
            relisted,
        });
        self.hub.publish(snapshot, step);
    }
}

/// Returns when the server should be asked how far it has come, because somebody waits for a revision: at once, and then
/// again and again. What is written outside of the range is told by nothing else.
async fn progress_is_due<T>(hub: &Hub<T>) {
    let again = async {
        if hub.is_awaited() {
            sleep(PROGRESS_PAUSE).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    // Both arms are cancel-safe: a notification that is not taken is kept.
    tokio::select! {
        () = hub.awaited.notified() => {}
        () = again => {}
    }
}
