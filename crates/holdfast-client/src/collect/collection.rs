//! What is collected of one kind: read, written, removed.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::cursor::StoredCursor;
use super::envelope::{Envelope, Writer};
use super::error::CollectError;
use super::guard::{Stored, Verdict, Wish, compare, decide};
use super::keys;
use super::origin::{ObjectName, OriginObject, OriginVersion, Resource, SourceId};
use super::source::Source;
use super::version::{Prefix, Version};
use crate::client::Client;
use crate::codec::{KeyValue, LeaseId};
use crate::error::{Class, Error};
use crate::lease::new_id;
use crate::read::ReadLevel;
use crate::txn::{Compare, Op, OpAnswer, Txn};
use crate::write::{Put, SetIfNotExists};

/// How long it is known that an object is gone, at least: an older one that is late does not come back to life.
pub const GONE_FOR: Duration = Duration::from_secs(600);
/// What is gone within such a time shares a lease.
const LEASE_SHARED_FOR: Duration = Duration::from_secs(60);
/// How often a write is decided anew because others have changed the object, or nobody knew whether it was written.
pub(super) const ATTEMPTS_MAX: u32 = 16;

/// Collects; made by [`Collector::open`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Collector {
    client: Client,
    prefix: Prefix,
}

impl Collector {
    /// Finds the prefix of versions that this cluster keeps, or makes one. It is the same for all who ask any member,
    /// and after each restart.
    ///
    /// Errors: as [`Client::set_if_not_exists`]; what is stored is no prefix. After [`Error::Unknown`] there may be one by
    /// now: ask again.
    pub async fn open(client: Client) -> Result<Self, CollectError> {
        let made = Prefix::random();
        let prefix = match client.set_if_not_exists(keys::PREFIX, made.to_string()).await? {
            SetIfNotExists::Set { .. } => made,
            SetIfNotExists::Exists(kv) => String::from_utf8_lossy(&kv.value).parse()?,
        };
        Ok(Self { client, prefix })
    }

    /// Makes a new prefix, in place of the one that there is. To be done once after the cluster was restored from a
    /// backup: revisions begin anew from there, and versions from before mean nothing any more. Who has opened the
    /// collector before must open it again.
    ///
    /// Errors: as [`Client::put`].
    pub async fn renew_prefix(client: Client) -> Result<Self, CollectError> {
        let prefix = Prefix::random();
        client.put(keys::PREFIX, prefix.to_string()).await?;
        Ok(Self { client, prefix })
    }

    /// Whose revisions versions count.
    pub fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// What is collected of one kind, from all its sources.
    ///
    /// ```no_run
    /// # use holdfast_client::collect::{CollectError, Collector, Resource, Scope, Source};
    /// # async fn example(client: holdfast_client::Client, source: impl Source) -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::open(client).await?;
    /// let pods = collector.collection(Resource::new("pods")?);
    /// let everything = Scope::all();
    /// tokio::select! {
    ///     // Collects as long as it is polled, and goes on where it was when it is called again.
    ///     error = pods.follow(&source) => return Err(error.into()),
    ///     listed = pods.list(&everything, holdfast_client::ReadLevel::Linearizable) => {
    ///         for pod in listed?.objects {
    ///             println!("{}: {} is at {}", pod.source, pod.name, pod.version);
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn collection(&self, resource: Resource) -> Collection {
        let generation = Arc::new(Mutex::new(None));
        Collection { client: self.client.clone(), prefix: self.prefix, resource, generation }
    }
}

/// What is collected of one kind; made by [`Collector::collection`]. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    pub(super) client: Client,
    pub(super) prefix: Prefix,
    pub(super) resource: Resource,
    /// What is gone now. The lock is held while a lease is granted.
    generation: Arc<Mutex<Option<Generation>>>,
}

/// The leases of all that is gone within a short time, and the sources that have noted it.
#[derive(Debug, Clone)]
struct Generation {
    /// Of what is gone.
    gone: LeaseId,
    /// Of the notes. Ends before any other process's lease ends on which something is put while this one is used.
    notes: LeaseId,
    until: Instant,
    noted: BTreeSet<SourceId>,
}

/// What a direct write came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is stored.
    Applied(Version),
    /// It was stored already: the source has told of it, or somebody else has written it.
    Same(Version),
    /// Something newer is stored: this version, or nothing, when the object is gone since.
    Older(Option<Version>),
}

impl Collection {
    /// What is collected.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Writes an object that was just written to its source, so that readers see it at once and not when the source
    /// tells: write to the source first, take the version that it gives, then call this. Whichever comes first, this or
    /// the source's watch, the newest version stays, and each is one change. A process that dies between the two leaves
    /// nothing that the watch does not repair.
    ///
    /// Who reads at the version that this gives, or a later one, sees the object, on each member.
    ///
    /// Errors: as [`Client::txn`]; [`CollectError::Incomparable`] when the source's versions cannot be compared and
    /// something else is stored; [`CollectError::Removing`].
    pub async fn write<S: Source>(&self, source: &S, object: &OriginObject) -> Result<Written, CollectError> {
        let wish = Wish::Put(object.bytes.clone());
        self.write_direct(source, &object.name, &object.origin, wish).await
    }

    /// As [`Collection::write`], for an object that was just deleted at its source, at this version of the deletion.
    ///
    /// Errors: as there.
    pub async fn delete<S: Source>(
        &self,
        source: &S,
        name: &ObjectName,
        origin: &OriginVersion,
    ) -> Result<Written, CollectError> {
        self.write_direct(source, name, origin, Wish::Delete).await
    }

    async fn write_direct<S: Source>(
        &self,
        source: &S,
        name: &ObjectName,
        origin: &OriginVersion,
        wish: Wish,
    ) -> Result<Written, CollectError> {
        let change = Change { name: name.clone(), origin: origin.clone(), wish };
        let mut unknown = None;
        let written = self.attempt_direct(source, &change, &mut unknown).await;
        written.map_err(|error| failed(unknown, error))
    }

    /// Tries until it is known what a direct write came to. `unknown` is an attempt of which nobody knows.
    async fn attempt_direct<S: Source>(
        &self,
        source: &S,
        change: &Change,
        unknown: &mut Option<Error>,
    ) -> Result<Written, CollectError> {
        let (id, Change { name, origin, .. }) = (source.id(), change);
        for _ in 0..ATTEMPTS_MAX {
            let read = self.read(id, std::slice::from_ref(change)).await?;
            let stored = &read.stored[0];
            match change.verdict(source, stored, Writer::Direct) {
                Verdict::Apply => {}
                // What is read is committed, also when it was written by an attempt of which nobody knew.
                Verdict::Same if unknown.is_some() => {
                    return Ok(Written::Applied(self.version_of(stored, origin)));
                }
                Verdict::Same => return Ok(Written::Same(self.version_of(stored, origin))),
                Verdict::Older => {
                    let there = stored.object.as_ref();
                    return Ok(Written::Older(there.map(|there| self.version_of(stored, &there.origin))));
                }
                Verdict::Incomparable => {
                    return Err(CollectError::Incomparable { key: keys::object(&self.resource, id, name) });
                }
            }
            let txn = self.unless_removing(id, Txn::new());
            let (txn, note) =
                self.with_changes(source, txn, &[(change, stored)], Writer::Direct, &read.cursor).await?;
            match self.client.txn(txn).await {
                Ok(answer) if answer.succeeded => {
                    self.noted(id, note).await;
                    let (prefix, revision, origin) = (self.prefix, answer.revision, origin.clone());
                    return Ok(Written::Applied(Version { prefix, revision, origin }));
                }
                Ok(_) => {}
                // What is stored will tell; an attempt that is late changes nothing once that is another.
                Err(error) if error.class() == Class::Unknown => *unknown = Some(error),
                Err(error) => self.after_refusal(error).await?,
            }
        }
        Err(CollectError::Busy { key: keys::object(&self.resource, id, name) })
    }

    fn version_of(&self, stored: &Stored, origin: &OriginVersion) -> Version {
        let revision = stored.object_revision.max(stored.gone_revision);
        Version { prefix: self.prefix, revision, origin: origin.clone() }
    }

    /// What is stored of objects, as of one revision.
    ///
    /// Errors: the source is being removed.
    pub(super) async fn read(&self, id: &SourceId, changes: &[Change]) -> Result<Readings, CollectError> {
        let mut txn = Txn::new()
            .then(Op::get(keys::cursor(&self.resource, id)))
            .then(Op::get(keys::removing(&self.resource, id)));
        for change in changes {
            txn = txn
                .then(Op::get(keys::object(&self.resource, id, &change.name)))
                .then(Op::get(keys::gone(&self.resource, id, &change.name)));
        }
        let mut answers = self.client.txn(txn).await?.answers.into_iter().map(OpAnswer::into_kv);
        let cursor = StoredCursor::of(answers.next().flatten().as_ref())?;
        if answers.next().flatten().is_some() {
            return Err(CollectError::Removing { source_id: id.clone() });
        }
        let mut stored = Vec::with_capacity(changes.len());
        for _ in changes {
            let (object, gone) = (answers.next().flatten(), answers.next().flatten());
            stored.push(Stored {
                object_revision: object.as_ref().map_or(0, |kv| kv.mod_revision),
                gone_revision: gone.as_ref().map_or(0, |kv| kv.mod_revision),
                object: object.as_ref().map(envelope).transpose()?,
                gone: gone.as_ref().map(envelope).transpose()?,
            });
        }
        Ok(Readings { cursor, stored })
    }

    /// Nothing is written of a source that is being removed.
    pub(super) fn unless_removing(&self, id: &SourceId, txn: Txn) -> Txn {
        txn.when(Compare::missing(keys::removing(&self.resource, id)))
    }

    /// With changes, each as long as what it was decided about is still stored.
    pub(super) async fn with_changes<S: Source>(
        &self,
        source: &S,
        mut txn: Txn,
        changes: &[(&Change, &Stored)],
        writer: Writer,
        cursor: &StoredCursor,
    ) -> Result<(Txn, Option<Note>), CollectError> {
        let id = source.id();
        let (mut generation, mut note) = (None, None);
        for (change, stored) in changes {
            let key = keys::object(&self.resource, id, &change.name);
            let gone = keys::gone(&self.resource, id, &change.name);
            txn = txn
                .when(Compare::mod_revision(key.clone()).equals(stored.object_revision))
                .when(Compare::mod_revision(gone.clone()).equals(stored.gone_revision));
            let encoded = |envelope: Envelope| {
                envelope.encode().map_err(|source| CollectError::Object { key: key.clone(), source })
            };
            match &change.wish {
                Wish::Put(bytes) => {
                    let (origin, bytes) = (change.origin.clone(), bytes.clone());
                    txn = txn.then(Op::put(key.clone(), encoded(Envelope { origin, writer, bytes })?));
                    if stored.gone_revision > 0 {
                        txn = txn.then(Op::delete(gone));
                    }
                }
                Wish::Delete | Wish::Vanish { .. } => {
                    if stored.object_revision > 0 {
                        txn = txn.then(Op::delete(key.clone()));
                    }
                    let lease = match generation {
                        Some(lease) => lease,
                        None => {
                            let current = self.gone_now().await?;
                            if !current.noted.contains(id) {
                                txn = txn.then(self.note(id, current.notes, cursor));
                                note = Some(Note(current.notes));
                            }
                            *generation.insert(current.gone)
                        }
                    };
                    let is_at_its_own = change.is_at_its_own(source, stored);
                    let envelope = Envelope::of_gone(change.origin.clone(), writer, is_at_its_own);
                    txn = txn.then(Put::new(gone, encoded(envelope)?).lease(lease));
                }
            }
        }
        Ok((txn, note))
    }

    /// That from this version of the source on all that is gone is known as long as this lease lives: all leases before
    /// it may end earlier, and none behind it.
    fn note(&self, id: &SourceId, lease: LeaseId, cursor: &StoredCursor) -> Op {
        let since = serde_json::to_vec(&cursor.cursor.origin).expect("a text has a form in JSON");
        let key = format!("{}{:016x}", keys::gone_since(&self.resource, id), lease.0);
        Put::new(key, since).lease(lease).into()
    }

    /// A write with a note has happened.
    pub(super) async fn noted(&self, id: &SourceId, note: Option<Note>) {
        let Some(Note(lease)) = note else { return };
        let mut generation = self.generation.lock().await;
        if let Some(current) = generation.as_mut().filter(|current| current.notes == lease) {
            current.noted.insert(id.clone());
        }
    }

    /// The leases of what is gone now.
    async fn gone_now(&self) -> Result<Generation, CollectError> {
        let mut generation = self.generation.lock().await;
        let now = Instant::now();
        if let Some(current) = generation.as_ref().filter(|current| now < current.until) {
            return Ok(current.clone());
        }
        let (gone, notes) = (new_id(), new_id());
        self.client.grant(notes, GONE_FOR).await?;
        self.client.grant(gone, GONE_FOR + LEASE_SHARED_FOR * 2).await?;
        let current = Generation { gone, notes, until: now + LEASE_SHARED_FOR, noted: BTreeSet::new() };
        Ok(generation.insert(current).clone())
    }

    /// Whether a write that was refused may be tried again: its lease may be gone, if a cluster stood still for long.
    pub(super) async fn after_refusal(&self, error: Error) -> Result<(), CollectError> {
        *self.generation.lock().await = None;
        if error.is_refused_with(tonic::Code::NotFound) { Ok(()) } else { Err(error.into()) }
    }

    /// The version up to which a source is collected; `None` before its first list is complete, and when there is no such
    /// source: what a source is resumed from.
    ///
    /// Errors: as [`Client::get`].
    pub async fn origin(&self, id: &SourceId) -> Result<Option<OriginVersion>, CollectError> {
        let read = self.client.get(keys::cursor(&self.resource, id), ReadLevel::Linearizable).await?;
        Ok(StoredCursor::of(read.value.as_ref())?.cursor.origin)
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collection").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// A write that notes, for a source, since when all that is gone is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note(LeaseId);

/// What is stored, and how far its source is collected, as of one revision.
#[derive(Debug)]
pub(super) struct Readings {
    pub(super) cursor: StoredCursor,
    /// One for each change, in their order.
    pub(super) stored: Vec<Stored>,
}

/// What somebody wants to write of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: ObjectName,
    pub(super) origin: OriginVersion,
    pub(super) wish: Wish,
}

impl Change {
    pub(super) fn verdict<S: Source>(&self, source: &S, stored: &Stored, writer: Writer) -> Verdict {
        let known = stored.object.as_ref().or(stored.gone.as_ref());
        let order = known.and_then(|known| self.order(source, &known.origin));
        decide(stored, &self.wish, writer, order)
    }

    fn order<S: Source>(&self, source: &S, known: &OriginVersion) -> Option<Ordering> {
        compare(|a, b| source.compare(a, b), &self.origin, known)
    }

    /// Of a deletion: whether its version is not above that of what is deleted, or was deleted before.
    fn is_at_its_own<S: Source>(&self, source: &S, stored: &Stored) -> bool {
        match (&stored.object, &stored.gone) {
            (Some(object), _) => {
                matches!(self.order(source, &object.origin), Some(Ordering::Less | Ordering::Equal))
            }
            (None, Some(gone)) => gone.is_gone_at_its_own(),
            (None, None) => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let own = match &self.wish {
            Wish::Put(bytes) => bytes.len(),
            Wish::Delete | Wish::Vanish { .. } => 0,
        };
        own + self.origin.as_str().len() + self.name.name().len() + self.name.namespace().len()
    }
}

/// Why a write failed: once there was an attempt of which nobody knows, whatever ends the write says nothing about it.
pub(super) fn failed<E: From<Error>>(unknown: Option<Error>, last: E) -> E {
    unknown.map_or(last, E::from)
}

/// What lies under the key of an object.
pub(super) fn envelope(kv: &KeyValue) -> Result<Envelope, CollectError> {
    Envelope::decode(&kv.value)
        .map_err(|source| CollectError::Object { key: String::from_utf8_lossy(&kv.key).into_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CP11: a write that may have happened is not said to have done nothing, whatever the next attempt comes to.
    #[test]
    fn what_may_have_happened_stays_unknown_whatever_comes_next() {
        let next = || {
            let id = SourceId::new("a").unwrap();
            [
                CollectError::Cluster(Error::Unavailable { attempts: Vec::new() }),
                CollectError::Cluster(Error::Refused {
                    code: tonic::Code::Unavailable,
                    message: String::new(),
                }),
                CollectError::Removing { source_id: id },
                CollectError::Busy { key: String::new() },
                CollectError::Incomparable { key: String::new() },
            ]
        };
        for error in next() {
            let unknown = Some(Error::Unknown { attempts: Vec::new() });
            let told = failed(unknown, error);
            assert_eq!(told.class(), Class::Unknown, "{told}");
        }
        for (error, same) in next().into_iter().zip(next()) {
            assert_eq!(failed(None, error).to_string(), same.to_string());
        }
    }
}
