//! What tells two states apart without comparing them: a sum over all keys.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

use crate::codec::KeyValue;

/// A sum over the key, mod revision and value of all objects of a range, whatever their order. Two states with the same
/// digest are the same, but for an accident of one in 2^64; nobody who wants to deceive is kept from it.
///
/// It can be compared with one that the same build of this crate has made, and is not to be stored.
///
/// ```
/// use holdfast_client::informer::Digest;
///
/// let mut digest = Digest::default();
/// assert_eq!(digest.objects(), 0);
/// # let kv = holdfast_client::KeyValue { key: "a".into(), value: "1".into(), create_revision: 2, mod_revision: 2, version: 1, lease: None };
/// digest.add(&kv);
/// assert_ne!(digest, Digest::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    objects: u64,
    sum: u64,
}

impl Digest {
    /// Of these keys; each must be there once.
    pub fn of<'a>(keys: impl IntoIterator<Item = &'a KeyValue>) -> Self {
        let mut digest = Self::default();
        for kv in keys {
            digest.add(kv);
        }
        digest
    }

    /// With one more key.
    pub fn add(&mut self, kv: &KeyValue) {
        self.add_hashed(&kv.key, kv.mod_revision, value_hash(&kv.value));
    }

    /// How many keys it is of.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    pub(super) fn add_hashed(&mut self, key: &[u8], mod_revision: u64, value_hash: u64) {
        self.objects += 1;
        self.sum = self.sum.wrapping_add(entry_hash(key, mod_revision, value_hash));
    }

    pub(super) fn take_hashed(&mut self, key: &[u8], mod_revision: u64, value_hash: u64) {
        self.objects -= 1;
        self.sum = self.sum.wrapping_sub(entry_hash(key, mod_revision, value_hash));
    }
}

/// As it is told to people: the number of objects and the sum.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.objects, self.sum)
    }
}

/// SipHash with fixed keys.
pub(super) fn value_hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value);
    hasher.finish()
}

fn entry_hash(key: &[u8], mod_revision: u64, value_hash: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(mod_revision);
    hasher.write_u64(value_hash);
    hasher.write(key);
    hasher.finish()
}
