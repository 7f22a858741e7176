//! What is collected, as it is.

use std::fmt;

use bytes::Bytes;

use super::collection::{Collection, envelope};
use super::envelope::Writer;
use super::error::CollectError;
use super::keys::{self, Place};
use super::origin::{ObjectName, SourceId};
use super::version::{ListVersion, Version};
use crate::codec::KeyValue;
use crate::range::KeyRange;
use crate::read::ReadLevel;

/// Which objects are wanted: all of all sources, unless set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    pub(super) source: Option<SourceId>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
}

impl Scope {
    /// All objects of all sources.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of this source.
    #[must_use]
    pub fn source(mut self, source: SourceId) -> Self {
        self.source = Some(source);
        self
    }

    /// Those in this namespace; in none when it is empty.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Those of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    pub(super) fn has(&self, source: &SourceId, name: &ObjectName) -> bool {
        self.has_source(source)
            && self.namespace.as_ref().is_none_or(|wanted| wanted == name.namespace())
            && self.name.as_ref().is_none_or(|wanted| wanted == name.name())
    }

    pub(super) fn is_one_object(&self) -> bool {
        self.source.is_some() && self.namespace.is_some() && self.name.is_some()
    }

    pub(super) fn has_source(&self, source: &SourceId) -> bool {
        self.source.as_ref().is_none_or(|wanted| wanted == source)
    }
}

/// An object that was collected.
#[derive(Clone, PartialEq, Eq)]
pub struct Collected {
    /// Where it comes from.
    pub source: SourceId,
    /// Its name there.
    pub name: ObjectName,
    /// Its version, here and there.
    pub version: Version,
    /// Who has written it here.
    pub writer: Writer,
    /// Itself.
    pub bytes: Bytes,
}

/// Without the object's bytes, which may be secret.
impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collected")
            .field("source", &self.source)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("writer", &self.writer)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// Objects as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// In the order of their keys: by source, then namespace, then name, each as if a slash followed.
    pub objects: Vec<Collected>,
    /// The version of the whole list: where a watch goes on.
    pub version: ListVersion,
}

impl Collection {
    /// An object; `None` when there is none.
    ///
    /// Errors: as [`crate::Client::get`]; what is stored is no object.
    pub async fn get(
        &self,
        source: &SourceId,
        name: &ObjectName,
        level: ReadLevel,
    ) -> Result<Option<Collected>, CollectError> {
        let read = self.client.get(keys::object(&self.resource, source, name), level).await?;
        read.value.map(|kv| self.collected(source.clone(), name.clone(), &kv)).transpose()
    }

    /// The objects of a scope, all of one revision. Read in pages; the answer has the size that they have. A namespace or
    /// name of all sources looks at all objects.
    ///
    /// Errors: as [`crate::Client::list_all`]; the first that is stored and is no object.
    pub async fn list(&self, scope: &Scope, level: ReadLevel) -> Result<Listed, CollectError> {
        let read = self.client.list_all(self.objects_of(scope), level).await?;
        let mut objects = Vec::new();
        for kv in &read.value {
            if let Some(Place::Object(source, name)) = keys::place(&self.resource, &kv.key)
                && scope.has(&source, &name)
            {
                objects.push(self.collected(source, name, kv)?);
            }
        }
        Ok(Listed { objects, version: self.list_version(read.revision) })
    }

    pub(super) fn list_version(&self, revision: u64) -> ListVersion {
        ListVersion { prefix: self.prefix, revision }
    }

    pub(super) fn collected(
        &self,
        source: SourceId,
        name: ObjectName,
        kv: &KeyValue,
    ) -> Result<Collected, CollectError> {
        let envelope = envelope(kv)?;
        let version = Version { prefix: self.prefix, revision: kv.mod_revision, origin: envelope.origin };
        Ok(Collected { source, name, version, writer: envelope.writer, bytes: envelope.bytes })
    }

    /// The keys of a scope, and perhaps others.
    pub(super) fn objects_of(&self, scope: &Scope) -> KeyRange {
        let Some(source) = &scope.source else { return KeyRange::prefix(keys::resource(&self.resource)) };
        let of_source = keys::objects(&self.resource, source);
        match (&scope.namespace, &scope.name) {
            (Some(namespace), Some(name)) => KeyRange::key(format!("{of_source}{namespace}/{name}")),
            (Some(namespace), None) => KeyRange::prefix(format!("{of_source}{namespace}/")),
            (None, _) => KeyRange::prefix(of_source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::Envelope;
    use super::super::guard::Wish;
    use super::super::origin::OriginObject;
    use super::super::source::{SourceEvent, SourcePage};
    use super::super::watch::CollectEvent;
    use super::*;

    #[test]
    fn the_bytes_of_an_object_are_in_no_debug_text() {
        let bytes = Bytes::from_static(b"hunter2");
        let (source, name) = (SourceId::new("a").unwrap(), ObjectName::new("x", "o").unwrap());
        let object = OriginObject { name: name.clone(), origin: "7".into(), bytes: bytes.clone() };
        let envelope = Envelope { origin: "7".into(), writer: Writer::Sync, bytes: bytes.clone() };
        let version = Version { prefix: "0000000a".parse().unwrap(), revision: 9, origin: "7".into() };
        let list = ListVersion::from(&version);
        let writer = Writer::Sync;
        let collected = Collected { source, name, version, writer, bytes: bytes.clone() };
        for text in [
            format!("{object:?}"),
            format!("{envelope:?}"),
            format!("{collected:?}"),
            format!("{:?}", Wish::Put(bytes)),
            format!("{:?}", SourceEvent::Put(object.clone())),
            format!("{:?}", SourcePage { objects: vec![object], next: None, version: "7".into() }),
            format!("{:?}", CollectEvent::Put(collected.clone())),
            format!("{:?}", Listed { objects: vec![collected], version: list }),
        ] {
            assert!(text.contains('7') && !text.contains("hunter2"), "{text}");
        }
    }
}
