//! What the cache keeps of a key.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::digest::value_hash;
use crate::codec::KeyValue;
use crate::store::JsonError;

/// Why bytes are no object. Its text is shown, so it should not quote the object; of an error of serde_json only what is
/// wrong and where is kept.
pub type DecodeError = Box<dyn std::error::Error + Send + Sync>;

/// Turns what is stored into an object.
pub(super) type Decode<T> = dyn Fn(&KeyValue) -> Result<T, DecodeError> + Send + Sync;

/// An object with the key it is under.
#[derive(Clone)]
pub struct Object<T> {
    key: Box<[u8]>,
    value: T,
    facts: Facts,
}

/// What the server says of a key, beside its value: as little as will do, since there is one for each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    create_revision: u64,
    mod_revision: u64,
    value_hash: u64,
}

impl Facts {
    fn of(kv: &KeyValue) -> Self {
        Self {
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            value_hash: value_hash(&kv.value),
        }
    }
}

impl<T> Object<T> {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The object itself.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The revision at which the key last came into being.
    pub fn create_revision(&self) -> u64 {
        self.facts.create_revision
    }

    /// The revision of its latest change: what a write compares with that must not overwrite somebody else's.
    pub fn mod_revision(&self) -> u64 {
        self.facts.mod_revision
    }
}

/// Without the value: it may be large, or secret.
impl<T> fmt::Debug for Object<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.key.escape_ascii(), self.facts.mod_revision)
    }
}

/// A key that is there, and whose bytes are no object.
pub struct Unreadable {
    key: Box<[u8]>,
    error: DecodeError,
    facts: Facts,
}

impl Unreadable {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// What is wrong with its bytes.
    pub fn error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.error
    }

    /// The revision that wrote them.
    pub fn mod_revision(&self) -> u64 {
        self.facts.mod_revision
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, error, facts } = self;
        write!(f, "{} at {} cannot be decoded: {error}", key.escape_ascii(), facts.mod_revision)
    }
}

impl fmt::Debug for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}

/// An error that can be shown: what serde_json says quotes the object.
fn quoting_nothing(error: DecodeError) -> DecodeError {
    match error.downcast::<serde_json::Error>() {
        Ok(error) => Box::new(JsonError::of(&error)),
        Err(error) => error,
    }
}

/// A key as the cache keeps it, ordered by the key alone. Two are the same object only if [`Entry::is`] says so.
pub(super) enum Entry<T> {
    Object(Arc<Object<T>>),
    Unreadable(Arc<Unreadable>),
}

impl<T> Entry<T> {
    /// Decodes a key. Its bytes are copied: what the server sent is one buffer for many keys, and would stay as a whole.
    pub(super) fn decode(kv: &KeyValue, decode: &Decode<T>) -> Self {
        let (key, facts) = (kv.key.as_ref().into(), Facts::of(kv));
        match decode(kv) {
            Ok(value) => Self::Object(Arc::new(Object { key, value, facts })),
            Err(error) => {
                Self::Unreadable(Arc::new(Unreadable { key, error: quoting_nothing(error), facts }))
            }
        }
    }

    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Object(object) => &object.key,
            Self::Unreadable(unreadable) => &unreadable.key,
        }
    }

    fn facts(&self) -> &Facts {
        match self {
            Self::Object(object) => &object.facts,
            Self::Unreadable(unreadable) => &unreadable.facts,
        }
    }

    pub(super) fn mod_revision(&self) -> u64 {
        self.facts().mod_revision
    }

    pub(super) fn value_hash(&self) -> u64 {
        self.facts().value_hash
    }

    pub(super) fn object(&self) -> Option<&Arc<Object<T>>> {
        match self {
            Self::Object(object) => Some(object),
            Self::Unreadable(_) => None,
        }
    }

    /// Whether it was made of what the server has, so that nothing has to be decoded. Revisions alone do not tell: a
    /// cluster that was restored from a backup gives them to other values.
    pub(super) fn is_of(&self, kv: &KeyValue) -> bool {
        let facts = self.facts();
        facts.mod_revision == kv.mod_revision && *facts == Facts::of(kv)
    }

    /// Whether both, of one key, are of the same change of it.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.facts() == other.facts()
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Object(object) => Self::Object(Arc::clone(object)),
            Self::Unreadable(unreadable) => Self::Unreadable(Arc::clone(unreadable)),
        }
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_object_is_told_without_quoting_it() {
        let value = "\"pass-word\"".into();
        let kv =
            KeyValue { key: "k".into(), value, create_revision: 1, mod_revision: 2, version: 2, lease: None };
        let decode = |kv: &KeyValue| Ok(serde_json::from_slice::<u32>(&kv.value)?);
        let Entry::Unreadable(unreadable) = Entry::decode(&kv, &decode) else { panic!("no number") };
        let told = format!("{unreadable} {unreadable:?} {:?}", unreadable.error());
        assert!(told.contains("line 1") && !told.contains("pass-word"), "{told}");
    }
}
