//! What happens to what is collected.

use std::collections::{BTreeSet, VecDeque};

use super::collection::{Collection, envelope};
use super::cursor::{Cursor, Removal};
use super::error::CollectError;
use super::initial::{Initial, SourceOrder};
use super::keys::{self, Place};
use super::origin::{ObjectName, OriginVersion, SourceId};
use super::resume::ResumePoint;
use super::version::ListVersion;
use super::view::{Collected, Scope};
use crate::codec::watch::Event;
use crate::range::KeyRange;
use crate::read::ReadLevel;
use crate::watch::{Watch, WatchEvent, WatchOptions};

/// What a watch of a collection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectEvent {
    /// An object is new, or another one.
    Put(Collected),
    /// An object is gone.
    Deleted {
        /// Where it came from.
        source: SourceId,
        /// Its name there.
        name: ObjectName,
        /// The version at the source: of the deletion, as far as it is known, or else of what was deleted.
        origin: Option<OriginVersion>,
        /// The version of the deletion here.
        version: ListVersion,
    },
    /// What was given as known of this source is too old to go on from: all its objects follow. What is not among them is
    /// gone.
    Resync {
        /// It.
        source: SourceId,
    },
    /// The source is removed. Of its objects those that were not told to be deleted are gone, too.
    SourceRemoved {
        /// It.
        source: SourceId,
        /// When.
        version: ListVersion,
    },
    /// All up to this version was told.
    Progress(ListVersion),
    /// Changes were compacted before they could be told. List again.
    Lost {
        /// The first revision whose changes may be missing.
        from: ListVersion,
    },
}

/// The changes of what is collected, in the order of their revisions; made by [`Collection::watch`].
pub struct CollectionWatch {
    collection: Collection,
    scope: Scope,
    ready: VecDeque<Result<CollectEvent, CollectError>>,
    /// What is told before the changes.
    initial: Option<Initial>,
    watch: Watch,
    /// Sources that are being removed as a whole.
    removing: BTreeSet<SourceId>,
}

impl Collection {
    /// Tells the changes of a scope, from a point on, see [`ResumePoint::parse`]; `None` begins with all objects.
    ///
    /// From a version of this cluster, of an object or a list: all changes behind it, on whichever member. From versions
    /// of the sources, which may come from another cluster: what each source has that is newer, then changes. What was
    /// deleted at no version above its own may be told to be deleted once more. A source
    /// that is not named begins with all its objects; one whose version is too old to know what was deleted since is told
    /// to be resynced, alone. `order` is how a source's versions stand to each other, as [`super::Source::compare`].
    ///
    /// A watch of one object tells of its source's removal as of the object's deletion.
    ///
    /// Errors: [`super::BadVersion::PrefixMismatch`]: the version is of another cluster, or from before a restore. As
    /// [`crate::Client::list`].
    pub async fn watch(
        &self,
        scope: &Scope,
        from: Option<&ResumePoint>,
        order: impl Fn(&SourceId, &OriginVersion, &OriginVersion) -> Option<std::cmp::Ordering>
        + Send
        + Sync
        + 'static,
    ) -> Result<CollectionWatch, CollectError> {
        let (initial, revision) = match from {
            Some(ResumePoint::Version(version)) => (None, version.revision_of(self.prefix)?),
            Some(ResumePoint::Sources(known)) => {
                let order: Box<SourceOrder> = Box::new(order);
                let initial = Initial::begin(self, scope, known.clone(), order).await?;
                let revision = initial.revision();
                (Some(initial), revision)
            }
            None => {
                let initial = Initial::begin(self, scope, Default::default(), Box::new(order)).await?;
                let revision = initial.revision();
                (Some(initial), revision)
            }
        };
        // A watch of one object does not see when its source's removal is over: it tells each deletion.
        let removing =
            if scope.is_one_object() { BTreeSet::new() } else { self.being_removed(revision).await? };
        let options = WatchOptions::new().from(revision + 1).previous().progress();
        let watch = self.client.watch(self.watched(scope), options);
        let (collection, scope) = (self.clone(), scope.clone());
        Ok(CollectionWatch { collection, scope, ready: VecDeque::new(), initial, watch, removing })
    }

    /// The keys to watch for a scope: with the cursor of its source, unless it is one object.
    fn watched(&self, scope: &Scope) -> KeyRange {
        match &scope.source {
            Some(source) if !scope.is_one_object() => {
                let end = format!("{}0", keys::cursor(&self.resource, source));
                KeyRange::between(keys::cursor(&self.resource, source), end)
            }
            _ => self.objects_of(scope),
        }
    }

    /// Sources that are being removed as a whole since a revision or longer. What was deleted between it and a later
    /// removal was deleted by itself; such a removal is told by the cursor.
    async fn being_removed(&self, revision: u64) -> Result<BTreeSet<SourceId>, CollectError> {
        let prefix = keys::all_removing(&self.resource);
        let level = ReadLevel::AtLeast(revision);
        let read = self.client.list_all(KeyRange::prefix(prefix.clone()), level).await?;
        let mut removing = BTreeSet::new();
        for kv in read.value {
            let source = std::str::from_utf8(&kv.key).ok().and_then(|key| key.strip_prefix(prefix.as_str()));
            let Some(Ok(source)) = source.map(SourceId::new) else { continue };
            let cursor = self.client.get(keys::cursor(&self.resource, &source), level).await?.value;
            if cursor.is_some_and(|kv| kv.mod_revision <= revision && is_removed_whole(&kv)) {
                removing.insert(source);
            }
        }
        Ok(removing)
    }
}

fn is_removed_whole(kv: &crate::codec::KeyValue) -> bool {
    Cursor::of(kv).is_ok_and(|cursor| cursor.removing == Some(Removal::Whole))
}

impl CollectionWatch {
    /// Waits for what comes next, as long as it takes. Cancel-safe.
    ///
    /// Errors: as [`Watch::next`]; what is stored is no object. It may be called again, and goes on behind it.
    pub async fn next(&mut self) -> Result<CollectEvent, CollectError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if let Some(initial) = &mut self.initial {
                match initial.next(&self.collection, &self.scope).await? {
                    Some(events) => self.ready.extend(events),
                    None => self.initial = None,
                }
                continue;
            }
            match self.watch.next().await? {
                WatchEvent::Changes { events, .. } => {
                    for event in events {
                        self.take(event);
                    }
                }
                WatchEvent::Progress { revision } => {
                    return Ok(CollectEvent::Progress(self.collection.list_version(revision)));
                }
                WatchEvent::Lost { from, .. } => {
                    return Ok(CollectEvent::Lost { from: self.collection.list_version(from) });
                }
            }
        }
    }

    fn take(&mut self, event: Event) {
        match keys::place(&self.collection.resource, event.key()) {
            Some(Place::Object(source, name)) if self.scope.has(&source, &name) => {
                let told = self.of_object(source, name, event).transpose();
                self.ready.extend(told);
            }
            Some(Place::Cursor(source)) if self.scope.has_source(&source) => {
                self.take_cursor(source, &event);
            }
            Some(Place::Object(..) | Place::Cursor(_)) | None => {}
        }
    }

    /// What an event of an object tells, if anything.
    fn of_object(
        &self,
        source: SourceId,
        name: ObjectName,
        event: Event,
    ) -> Result<Option<CollectEvent>, CollectError> {
        match event {
            Event::Put { kv, .. } => {
                Ok(Some(CollectEvent::Put(self.collection.collected(source, name, &kv)?)))
            }
            Event::Delete { .. } if self.removing.contains(&source) => Ok(None),
            Event::Delete { revision, previous, .. } => {
                let origin = previous.as_ref().map(envelope).transpose()?.map(|envelope| envelope.origin);
                let version = self.collection.list_version(revision);
                Ok(Some(CollectEvent::Deleted { source, name, origin, version }))
            }
        }
    }

    fn take_cursor(&mut self, source: SourceId, event: &Event) {
        match event {
            Event::Put { kv, .. } => {
                if is_removed_whole(kv) {
                    self.removing.insert(source);
                } else {
                    self.removing.remove(&source);
                }
            }
            Event::Delete { revision, .. } => {
                self.removing.remove(&source);
                let version = self.collection.list_version(*revision);
                self.ready.push_back(Ok(CollectEvent::SourceRemoved { source, version }));
            }
        }
    }
}

impl std::fmt::Debug for CollectionWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CollectionWatch").field("scope", &self.scope).finish_non_exhaustive()
    }
}
