//! What a watch begins with when it goes on from versions of the sources.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::collection::{Collection, envelope};
use super::cursor::Cursor;
use super::error::CollectError;
use super::keys::{self, Place};
use super::origin::{OriginVersion, SourceId};
use super::resume::ResumeMap;
use super::view::Scope;
use super::watch::CollectEvent;
use crate::pages::Pages;
use crate::range::KeyRange;
use crate::read::ReadLevel;

/// How the versions of a source stand to each other.
pub(super) type SourceOrder =
    dyn Fn(&SourceId, &OriginVersion, &OriginVersion) -> Option<Ordering> + Send + Sync;

/// What is told of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// All its objects.
    Nothing,
    /// What is newer than this.
    UpTo(OriginVersion),
}

/// The objects of a scope as of one revision, as far as they are news.
pub(super) struct Initial {
    revision: u64,
    known: BTreeMap<SourceId, Known>,
    order: Box<SourceOrder>,
    /// What comes first.
    first: Option<Vec<Result<CollectEvent, CollectError>>>,
    pages: Pages,
}

impl Initial {
    /// Fixes the revision, and finds out from where on each source goes.
    pub(super) async fn begin(
        collection: &Collection,
        scope: &Scope,
        given: ResumeMap,
        order: Box<SourceOrder>,
    ) -> Result<Self, CollectError> {
        let now = collection.client.get(keys::PREFIX, ReadLevel::Linearizable).await?;
        let revision = now.revision;
        let pages = collection.client.pages(collection.objects_of(scope), ReadLevel::Exact(revision));
        let mut this = Self { revision, known: BTreeMap::new(), order, first: None, pages };
        let mut first = Vec::new();
        for (source, given) in given {
            if !scope.has_source(&source) {
                continue;
            }
            if this.goes_on_from(collection, &source, &given).await? {
                first.append(&mut this.gone(collection, scope, &source, &given).await?);
                this.known.insert(source, Known::UpTo(given));
            } else {
                first.push(CollectEvent::Resync { source: source.clone() });
                this.known.insert(source, Known::Nothing);
            }
        }
        this.first = Some(first.into_iter().map(Ok).collect());
        Ok(this)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The next events; `None` when all are told. Cancel-safe.
    pub(super) async fn next(
        &mut self,
        collection: &Collection,
        scope: &Scope,
    ) -> Result<Option<Vec<Result<CollectEvent, CollectError>>>, CollectError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(page) = self.pages.next().await? else { return Ok(None) };
        let mut events = Vec::new();
        for kv in page {
            let Some(Place::Object(source, name)) = keys::place(&collection.resource, &kv.key) else {
                continue;
            };
            if !scope.has(&source, &name) {
                continue;
            }
            match collection.collected(source, name, &kv) {
                Ok(collected) if self.is_news(&collected.source, &collected.version.origin) => {
                    events.push(Ok(CollectEvent::Put(collected)));
                }
                Ok(_) => {}
                Err(error) => events.push(Err(error)),
            }
        }
        Ok(Some(events))
    }

    /// Where versions cannot be compared, what is not known to be old is news.
    fn is_news(&self, source: &SourceId, origin: &OriginVersion) -> bool {
        match self.known.get(source) {
            None | Some(Known::Nothing) => true,
            Some(Known::UpTo(known)) => self.is_newer(source, origin, known),
        }
    }

    fn is_newer(&self, source: &SourceId, origin: &OriginVersion, known: &OriginVersion) -> bool {
        origin != known
            && !matches!((self.order)(source, origin, known), Some(Ordering::Less | Ordering::Equal))
    }

    /// Whether all that was deleted behind a version is known.
    async fn goes_on_from(
        &self,
        collection: &Collection,
        source: &SourceId,
        given: &OriginVersion,
    ) -> Result<bool, CollectError> {
        let level = ReadLevel::Exact(self.revision);
        let cursor = collection.client.get(keys::cursor(&collection.resource, source), level).await?.value;
        let Some(reached) = cursor.as_ref().map(Cursor::of).transpose()?.and_then(|cursor| cursor.origin)
        else {
            return Ok(false);
        };
        if reached == *given {
            return Ok(true);
        }
        // The other cluster was ahead of this one: what it has told is not here yet.
        if (self.order)(source, given, &reached) == Some(Ordering::Greater) {
            return Ok(true);
        }
        let notes = KeyRange::prefix(keys::gone_since(&collection.resource, source));
        let notes = collection.client.list_all(notes, level).await?.value;
        let mut is_covered = false;
        for note in notes {
            let since = serde_json::from_slice::<Option<OriginVersion>>(&note.value);
            let since = since.map_err(|error| CollectError::State {
                key: String::from_utf8_lossy(&note.key).into_owned(),
                source: error,
            })?;
            let Some(since) = since else { continue };
            let order =
                if since == *given { Some(Ordering::Equal) } else { (self.order)(source, &since, given) };
            is_covered |= matches!(order, Some(Ordering::Less | Ordering::Equal));
        }
        Ok(is_covered)
    }

    /// What was deleted behind a version, as far as it is still gone; and what may have been.
    async fn gone(
        &self,
        collection: &Collection,
        scope: &Scope,
        source: &SourceId,
        given: &OriginVersion,
    ) -> Result<Vec<CollectEvent>, CollectError> {
        let range = KeyRange::prefix(keys::gone_objects(&collection.resource, source));
        let gone = collection.client.list_all(range, ReadLevel::Exact(self.revision)).await?.value;
        let mut events = Vec::new();
        for kv in gone {
            let Some(name) = keys::gone_name(&collection.resource, source, &kv.key) else { continue };
            let envelope = envelope(&kv)?;
            // Who has the version of what was deleted, or a later one, may not know that it is deleted.
            let is_news = envelope.is_gone_at_its_own() || self.is_newer(source, &envelope.origin, given);
            if scope.has(source, &name) && is_news {
                let origin = envelope.origin;
                let (source, version) = (source.clone(), collection.list_version(kv.mod_revision));
                events.push(CollectEvent::Deleted { source, name, origin: Some(origin), version });
            }
        }
        Ok(events)
    }
}
