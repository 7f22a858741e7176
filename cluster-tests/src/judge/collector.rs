//! Judges a collector: what it keeps of other systems, by the versions that these give.
//!
//! Its store is read as it is written down: an object lies under `/c/<resource>/<source>/<namespace>/<name>`, and what is
//! gone under `/c.gone/` with the same rest. Both begin with a byte 1, the layout; a byte that says who wrote it; two bytes
//! with the length of the version at the source, the higher first; that version; then the object itself.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;

use super::sdk::world::Change;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
pub enum Finding {
    /// In the end an object is not what its source has: each as its version, 0 for none.
    NotNewest { object: String, has: i64, newest: i64 },
    /// An object was given a version that it had had already, or one from before it.
    Repeated { object: String, version: i64, before: i64, revision: i64 },
    /// An object was given what its source never had at that version.
    Invented { object: String, version: i64, revision: i64 },
    /// An object went, and nobody said at which version.
    Silent { object: String, revision: i64 },
    /// What lies there cannot be read.
    Unreadable { key: String, revision: i64 },
    /// The collector's memory was more than allowed.
    Memory { bytes: u64, allowed: u64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What the collector wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects set.
    pub puts: u64,
    /// Objects gone.
    pub gone: u64,
    /// Objects in the end.
    pub objects: usize,
}

/// A stored value, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The version at the source.
    pub version: i64,
    /// The object.
    pub bytes: Bytes,
}

impl Envelope {
    /// Reads a value; `None` when it is none.
    pub fn read(value: &Bytes) -> Option<Self> {
        let [1, 0 | 1, high, low, ..] = value[..] else { return None };
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        let version = std::str::from_utf8(value.get(4..end)?).ok()?.parse().ok()?;
        Some(Self { version, bytes: value.slice(end..) })
    }
}

/// Where a key of the collector's store lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    Object(&'a str),
    Gone(&'a str),
}

/// An object's name is its key at the origin.
fn place<'a>(key: &'a [u8], resource: &str) -> Option<Place<'a>> {
    let key = std::str::from_utf8(key).ok()?;
    let under = |root: &str| key.strip_prefix(root)?.strip_prefix(resource)?.strip_prefix('/');
    let is_object = |name: &&str| name.split('/').count() == 3;
    let object = under("/c/").filter(is_object).map(Place::Object);
    object.or_else(|| under("/c.gone/").filter(is_object).map(Place::Gone))
}

/// The history of the origin: what each key was at each revision that has changed it.
type Past<'a> = HashMap<&'a [u8], BTreeMap<i64, Option<&'a Bytes>>>;

/// Judges by all changes of the origin and all of the collector's store, in order.
pub fn judge(origin: &[Change], collected: &[Change], resource: &str) -> (Tally, Vec<Finding>) {
    let mut past: Past<'_> = HashMap::new();
    for change in origin {
        past.entry(&change.key).or_default().insert(change.revision, change.value.as_ref());
    }
    let mut reading = Reading::default();
    for revision in collected.chunk_by(|a, b| a.revision == b.revision) {
        reading.read(revision, resource, &past);
    }
    reading.compare(&past);
    (reading.tally, reading.findings)
}

#[derive(Default)]
struct Reading {
    /// The version of each object that is there.
    there: HashMap<String, i64>,
    /// The newest version of each object that was ever there, or of its absence.
    newest: HashMap<String, i64>,
    tally: Tally,
    findings: Vec<Finding>,
}

impl Reading {
    /// Reads all changes of one revision.
    fn read(&mut self, changes: &[Change], resource: &str, past: &Past<'_>) {
        for Change { revision, key, value } in changes {
            let Some(place) = place(key, resource) else { continue };
            let (revision, unreadable) = (*revision, || String::from_utf8_lossy(key).into_owned());
            match (place, value.as_ref().map(Envelope::read)) {
                (_, Some(None)) => self.findings.push(Finding::Unreadable { key: unreadable(), revision }),
                (Place::Object(name), Some(Some(envelope))) => {
                    let had = past.get(name.as_bytes()).and_then(|past| past.get(&envelope.version));
                    if had != Some(&Some(&envelope.bytes)) {
                        let (object, version) = (name.to_owned(), envelope.version);
                        self.findings.push(Finding::Invented { object, version, revision });
                    }
                    self.moves_on(name, envelope.version, revision);
                    self.there.insert(name.to_owned(), envelope.version);
                    self.tally.puts += 1;
                }
                (Place::Gone(name), Some(Some(envelope))) => self.moves_on(name, envelope.version, revision),
                (Place::Object(name), None) => {
                    self.there.remove(name);
                    self.tally.gone += 1;
                    let says = |change: &Change| {
                        change.value.is_some()
                            && self::place(&change.key, resource) == Some(Place::Gone(name))
                    };
                    if !changes.iter().any(says) {
                        self.findings.push(Finding::Silent { object: name.to_owned(), revision });
                    }
                }
                // It is forgotten after some minutes.
                (Place::Gone(_), None) => {}
            }
        }
    }

    /// Versions of an object only grow, over its absence, too.
    fn moves_on(&mut self, name: &str, version: i64, revision: i64) {
        let before = self.newest.get(name).copied().unwrap_or(0);
        if version <= before {
            self.findings.push(Finding::Repeated { object: name.to_owned(), version, before, revision });
        }
        self.newest.insert(name.to_owned(), version.max(before));
    }

    /// In the end everything is as it is at the origin.
    fn compare(&mut self, past: &Past<'_>) {
        self.tally.objects = self.there.len();
        let newest = past.iter().filter_map(|(key, past)| {
            let (revision, value) = past.last_key_value()?;
            let revision = if value.is_some() { *revision } else { 0 };
            Some((String::from_utf8_lossy(key).into_owned(), revision))
        });
        let mut newest: BTreeMap<String, i64> = newest.collect();
        for name in self.there.keys() {
            newest.entry(name.clone()).or_insert(0);
        }
        for (object, newest) in newest {
            let has = self.there.get(&object).copied().unwrap_or(0);
            if has != newest {
                self.findings.push(Finding::NotNewest { object, has, newest });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: i64, key: &str, value: Option<Vec<u8>>) -> Change {
        Change { revision, key: Bytes::copy_from_slice(key.as_bytes()), value: value.map(Bytes::from) }
    }

    fn sealed(version: i64, bytes: &str) -> Option<Vec<u8>> {
        let version = version.to_string();
        let length = u8::try_from(version.len()).unwrap();
        Some([&[1, 0, 0, length], version.as_bytes(), bytes.as_bytes()].concat())
    }

    /// s/ns/a is set at 2 and 4, deleted at 5 and set at 6; s/ns/b is set at 3.
    fn origin() -> Vec<Change> {
        let set = |revision, key: &str, value: &str| change(revision, key, Some(value.as_bytes().to_vec()));
        vec![
            set(2, "s/ns/a", "1"),
            set(3, "s/ns/b", "1"),
            set(4, "s/ns/a", "2"),
            change(5, "s/ns/a", None),
            set(6, "s/ns/a", "3"),
        ]
    }

    const A: &str = "/c/objects/s/ns/a";
    const GONE: &str = "/c.gone/objects/s/ns/a";

    fn collected() -> Vec<Change> {
        vec![
            change(10, "/c/objects/s", Some(b"{}".to_vec())),
            change(11, A, sealed(2, "1")),
            change(12, "/c/objects/s/ns/b", sealed(3, "1")),
            change(13, A, None),
            change(13, GONE, sealed(5, "")),
            change(14, A, sealed(6, "3")),
            change(14, GONE, None),
        ]
    }

    fn found(collected: &[Change]) -> Vec<Finding> {
        judge(&origin(), collected, "objects").1
    }

    #[test]
    fn what_skips_versions_and_ends_with_the_newest_is_clean() {
        let (tally, findings) = judge(&origin(), &collected(), "objects");
        assert_eq!((tally, findings), (Tally { puts: 3, gone: 1, objects: 2 }, vec![]));
    }

    #[test]
    fn what_is_not_the_newest_is_found() {
        let object = || "s/ns/a".to_owned();
        let not_newest = |has| Finding::NotNewest { object: object(), has, newest: 6 };
        assert_eq!(found(&collected()[..5]), [not_newest(0)]);
        let mut left = collected();
        left.push(change(15, "/c/objects/s/ns/z", sealed(7, "1")));
        let findings = found(&left);
        assert!(matches!(
            &findings[..],
            [Finding::Invented { .. }, Finding::NotNewest { has: 7, newest: 0, .. }]
        ));
    }

    #[test]
    fn a_version_that_comes_again_or_late_is_found() {
        for (version, bytes) in [(2, "1"), (4, "2")] {
            let mut late = collected();
            late.insert(2, change(12, A, sealed(4, "2")));
            late.insert(3, change(12, A, sealed(version, bytes)));
            let findings = found(&late);
            let repeated =
                Finding::Repeated { object: "s/ns/a".to_owned(), version, before: 4, revision: 12 };
            assert_eq!(findings, [repeated]);
        }
        let mut risen = collected();
        risen.insert(5, change(13, A, sealed(4, "2")));
        assert!(matches!(&found(&risen)[..], [Finding::Repeated { version: 4, before: 5, .. }]));
    }

    #[test]
    fn what_the_source_never_had_is_found() {
        let mut lies = collected();
        lies[1] = change(11, A, sealed(2, "x"));
        assert!(matches!(&found(&lies)[..], [Finding::Invented { version: 2, .. }]));
        lies[1] = change(11, A, sealed(5, ""));
        assert!(found(&lies).contains(&Finding::Invented {
            object: "s/ns/a".to_owned(),
            version: 5,
            revision: 11
        }));
        lies[1] = change(11, A, Some(b"\x02\0\0\0".to_vec()));
        assert!(matches!(&found(&lies)[..], [Finding::Unreadable { .. }]));
    }

    #[test]
    fn what_goes_without_a_word_is_found() {
        let mut silent = collected();
        silent.remove(4);
        assert_eq!(found(&silent), [Finding::Silent { object: "s/ns/a".to_owned(), revision: 13 }]);
    }
}
