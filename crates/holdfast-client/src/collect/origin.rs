//! Sources, their objects, and what they call their versions.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::repo::{NAME_BYTES_MAX, check_name};

/// What a source calls a version. Only the source knows which of two is newer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OriginVersion(Box<str>);

impl OriginVersion {
    /// As the source writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For sources that count: both as numbers; `None` when one is no number.
    pub fn compare_numbers(&self, other: &Self) -> Option<Ordering> {
        let number = |version: &Self| version.0.parse::<u64>().ok();
        Some(number(self)?.cmp(&number(other)?))
    }
}

impl From<&str> for OriginVersion {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for OriginVersion {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for OriginVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot be part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no {what}: it must have no slash and no control character, and at most {NAME_BYTES_MAX} bytes"
)]
pub struct BadPart {
    /// What it was to be.
    pub what: &'static str,
    /// It.
    pub text: String,
}

fn part(what: &'static str, text: &str) -> Result<Box<str>, BadPart> {
    match check_name(text) {
        Ok(()) => Ok(text.into()),
        Err(_) => Err(BadPart { what, text: text.to_owned() }),
    }
}

/// The name of a source. Not empty, without a slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceId(Box<str>);

impl SourceId {
    /// A name.
    ///
    /// Errors: it cannot be part of a key.
    pub fn new(name: &str) -> Result<Self, BadPart> {
        part("source", name).map(Self)
    }

    /// It as a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SourceId {
    type Error = BadPart;

    fn try_from(text: String) -> Result<Self, BadPart> {
        Self::new(&text)
    }
}

impl From<SourceId> for String {
    fn from(id: SourceId) -> Self {
        id.0.into()
    }
}

/// An object's name within its source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    namespace: Box<str>,
    name: Box<str>,
}

impl ObjectName {
    /// In a namespace; in none when that is empty.
    ///
    /// Errors: one of them cannot be part of a key, or the name is empty.
    pub fn new(namespace: &str, name: &str) -> Result<Self, BadPart> {
        let namespace = if namespace.is_empty() { "".into() } else { part("namespace", namespace)? };
        Ok(Self { namespace, name: part("name", name)? })
    }

    /// The namespace; empty for none.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An object as its source has it.
#[derive(Clone, PartialEq, Eq)]
pub struct OriginObject {
    /// Its name.
    pub name: ObjectName,
    /// Its version there.
    pub origin: OriginVersion,
    /// Itself.
    pub bytes: Bytes,
}

/// Without the object's bytes, which may be secret.
impl fmt::Debug for OriginObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginObject")
            .field("name", &self.name)
            .field("origin", &self.origin)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// A kind of objects: what is collected together, such as `pods`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(Box<str>);

impl Resource {
    /// A kind with this name. Not empty, without a slash.
    ///
    /// Errors: it cannot be part of a key.
    pub fn new(name: &str) -> Result<Self, BadPart> {
        part("resource", name).map(Self)
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
