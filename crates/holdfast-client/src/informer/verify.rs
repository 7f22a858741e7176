//! Whether a cache shows what the server has.

use super::digest::Digest;
use super::health::RelistReason;
use super::object::Entry;
use super::reader::Reader;
use super::snapshot::Snapshot;
use crate::codec::KeyValue;
use crate::error::Error;
use crate::read::ReadLevel;

/// How many keys a difference names.
const NAMED_MAX: usize = 16;
/// How often another revision is compared when the one that was taken is compacted meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// What a comparison has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// The informer shows what the server has.
    Same {
        /// At this revision.
        revision: u64,
        /// Of both.
        digest: Digest,
    },
    /// It does not. It lists again, and tells its subscribers what is different.
    Differs {
        /// At this revision.
        revision: u64,
        /// Of what the informer shows.
        cached: Digest,
        /// Of what the server has.
        stored: Digest,
        /// Some of the keys: at most 16 that the server has, and the informer has not or otherwise. None when the
        /// informer has only more.
        keys: Vec<Box<[u8]>>,
    },
}

impl<T> Reader<T> {
    /// Compares the newest state, by a digest, with what the server has at the same revision. Reads the whole range, in
    /// pages, and keeps none of it.
    ///
    /// Errors: as [`ReadLevel::Exact`]; [`Error::FutureRevision`] before the first list is complete.
    pub async fn verify(&self) -> Result<Verified, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let snapshot = self.snapshot();
            if snapshot.revision() == 0 {
                return Err(Error::FutureRevision { current: None });
            }
            let mut comparison = Comparison::new(&snapshot);
            match self.compare(&mut comparison).await {
                // A newer state can be compared.
                Err(Error::Compacted { .. })
                    if attempts < ATTEMPTS_MAX && self.snapshot().revision() > snapshot.revision() => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let verified = comparison.finish();
                    if let Verified::Differs { revision, cached, stored, .. } = &verified {
                        tracing::warn!(revision, %cached, %stored, "a cache differs from the server");
                        self.wish(RelistReason::Mismatch);
                    }
                    return Ok(verified);
                }
            }
        }
    }

    async fn compare(&self, comparison: &mut Comparison<'_, T>) -> Result<(), Error> {
        let level = ReadLevel::Exact(comparison.snapshot.revision());
        let mut pages = self.client.pages(self.range.clone(), level);
        while let Some(page) = pages.next().await? {
            page.iter().for_each(|kv| comparison.add(kv));
        }
        Ok(())
    }
}

/// A comparison, key by key of the server.
struct Comparison<'a, T> {
    snapshot: &'a Snapshot<T>,
    stored: Digest,
    keys: Vec<Box<[u8]>>,
}

impl<'a, T> Comparison<'a, T> {
    fn new(snapshot: &'a Snapshot<T>) -> Self {
        Self { snapshot, stored: Digest::default(), keys: Vec::new() }
    }

    fn add(&mut self, kv: &KeyValue) {
        self.stored.add(kv);
        let is_same = self.snapshot.entry(&kv.key).is_some_and(|entry: &Entry<T>| entry.is_of(kv));
        if !is_same && self.keys.len() < NAMED_MAX {
            self.keys.push(kv.key.as_ref().into());
        }
    }

    fn finish(self) -> Verified {
        let (revision, cached) = (self.snapshot.revision(), self.snapshot.digest());
        if cached == self.stored {
            Verified::Same { revision, digest: cached }
        } else {
            Verified::Differs { revision, cached, stored: self.stored, keys: self.keys }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::{Cache, Update};
    use super::super::object::DecodeError;
    use super::*;

    fn kv(key: &'static str, value: &'static str, mod_revision: u64) -> KeyValue {
        let (key, value) = (key.into(), value.into());
        KeyValue { key, value, create_revision: 1, mod_revision, version: 1, lease: None }
    }

    fn cache(kvs: &[KeyValue]) -> Cache<()> {
        let mut cache = Cache::new([].into());
        let nothing = |_: &KeyValue| Ok::<(), DecodeError>(());
        cache.load(9, kvs.iter().map(|kv| Entry::decode(kv, &nothing)).collect());
        cache
    }

    fn compared(cache: &Cache<()>, stored: &[KeyValue]) -> Verified {
        let mut comparison = Comparison::new(cache.snapshot());
        stored.iter().for_each(|kv| comparison.add(kv));
        comparison.finish()
    }

    /// AW37: each way to differ is seen, and the keys are named.
    #[test]
    fn aw37_a_difference_of_any_kind_is_seen() {
        let kvs = [kv("a", "1", 2), kv("b", "1", 3), kv("c", "1", 4)];
        let known = cache(&kvs);
        assert!(matches!(compared(&known, &kvs), Verified::Same { revision: 9, .. }));
        let named = |stored: &[KeyValue]| match compared(&known, stored) {
            Verified::Same { .. } => panic!("{stored:?} is not the same"),
            Verified::Differs { keys, .. } => keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>(),
        };
        assert_eq!(named(&[kv("a", "1", 2), kv("b", "2", 3), kv("c", "1", 4)]), [b"b"], "another value");
        assert_eq!(named(&[kv("a", "1", 2), kv("b", "1", 5), kv("c", "1", 4)]), [b"b"], "another revision");
        assert_eq!(named(&[kv("a", "1", 2), kv("b", "1", 3), kv("bb", "1", 4), kv("c", "1", 4)]), [b"bb"]);
        assert_eq!(named(&kvs[..2]), Vec::<Vec<u8>>::new(), "the cache has one more");
        let mut smaller = cache(&kvs);
        smaller.apply(10, vec![Update::Delete("c".into())]).unwrap();
        assert!(matches!(compared(&smaller, &kvs), Verified::Differs { .. }));
        assert!(matches!(compared(&smaller, &kvs[..2]), Verified::Same { revision: 10, .. }));
    }
}
