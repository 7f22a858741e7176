//! Which keys: one, those of a prefix, those between two, all.

use bytes::Bytes;

/// A set of keys that lie side by side, in the order of their bytes.
///
/// ```
/// use holdfast_client::KeyRange;
///
/// let folder = KeyRange::prefix("services/");
/// assert!(folder.contains(b"services/web/1"));
/// assert!(!folder.contains(b"services"));
/// assert!(KeyRange::between("a", "c").contains(b"b"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRange {
    start: Bytes,
    end: End,
}

/// Where a range ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum End {
    /// With its first key.
    Same,
    /// Before this key.
    Before(Bytes),
    /// Nowhere.
    Open,
}

impl KeyRange {
    /// One key. No key is empty: servers refuse this range then.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: End::Same }
    }

    /// All keys that begin so; all there are when it is empty.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start).map_or(End::Open, End::Before);
        Self { start, end }
    }

    /// From `start`, inclusive, to `end`, exclusive. Without a key when `end` is not behind `start`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: End::Before(end.into()) }
    }

    /// From `start`, inclusive, to the last there is.
    pub fn from(start: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: End::Open }
    }

    /// All keys.
    pub fn all() -> Self {
        Self::from(Bytes::new())
    }

    /// What is left of this range behind `key`, which is in it.
    #[must_use]
    pub fn behind(&self, key: &[u8]) -> Self {
        // The next key there can be.
        let start = Bytes::from([key, b"\0"].concat());
        let end = match &self.end {
            // Nothing is behind the only key.
            End::Same => End::Before(start.clone()),
            end => end.clone(),
        };
        Self { start, end }
    }

    /// Whether the key is one of these.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Same => self.start == key,
            End::Before(end) => self.start <= key && key < end.as_ref(),
            End::Open => self.start <= key,
        }
    }

    /// Whether it has all keys that there can be in another, which may have keys behind its first.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let ends_behind = match (&self.end, &other.end) {
            (End::Open, _) => true,
            (_, End::Open) => false,
            (End::Before(own), End::Before(end)) => end <= own,
            (End::Before(own), End::Same) => other.start < *own,
            (End::Same, End::Same) => self.start == other.start,
            (End::Same, End::Before(_)) => false,
        };
        self.start <= other.start && ends_behind
    }

    /// `key` and `range_end` as requests have them, for keys that all begin with `namespace`. Without one, the lowest key
    /// is a zero byte; with one it is the namespace and a zero byte, so that no key is empty there either.
    pub(crate) fn wire(&self, namespace: &[u8]) -> (Bytes, Bytes) {
        /// The range behind the last key, on the wire.
        const OPEN: Bytes = Bytes::from_static(b"\0");
        let within = |key: &Bytes| prefixed(namespace, key);
        match &self.end {
            // The server says that there is none.
            End::Same if self.start.is_empty() => (Bytes::new(), Bytes::new()),
            End::Same => (within(&self.start), Bytes::new()),
            // An end that is empty, or a zero byte, has a meaning of its own on the wire.
            End::Before(end) if *end <= self.start || end.as_ref() == b"\0" => {
                let empty = prefixed(namespace, &Bytes::from_static(b"\x01"));
                (empty.clone(), empty)
            }
            End::Before(end) => (within(self.lowest()), within(end)),
            End::Open => (within(self.lowest()), prefix_end(namespace).unwrap_or(OPEN)),
        }
    }

    /// The lowest key that there can be in it.
    pub(crate) fn lowest(&self) -> &Bytes {
        static LOWEST: Bytes = Bytes::from_static(b"\0");
        if self.start.is_empty() { &LOWEST } else { &self.start }
    }
}

/// Without a copy when there is no prefix.
pub(crate) fn prefixed(prefix: &[u8], key: &Bytes) -> Bytes {
    if prefix.is_empty() { key.clone() } else { [prefix, key.as_ref()].concat().into() }
}

/// The first key behind all that begin so; `None` when there is none.
fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(range: &KeyRange, namespace: &'static str) -> (Vec<u8>, Vec<u8>) {
        let (key, end) = range.wire(namespace.as_bytes());
        (key.to_vec(), end.to_vec())
    }

    fn pair(key: &[u8], end: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (key.to_vec(), end.to_vec())
    }

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_behind_it() {
        let cases: [(&[u8], Option<&[u8]>); 4] =
            [(b"aa", Some(b"ab")), (b"a\xff", Some(b"b")), (b"\xff\xff", None), (b"", None)];
        for (prefix, end) in cases {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
    }

    #[test]
    fn ranges_are_on_the_wire_as_etcd_reads_them() {
        let cases = [
            (KeyRange::key("a"), pair(b"a", b""), pair(b"n/a", b"")),
            (KeyRange::key(""), pair(b"", b""), pair(b"", b"")),
            (KeyRange::prefix("aa"), pair(b"aa", b"ab"), pair(b"n/aa", b"n/ab")),
            (KeyRange::prefix(b"\xff".as_ref()), pair(b"\xff", b"\0"), pair(b"n/\xff", b"n0")),
            (KeyRange::prefix(""), pair(b"\0", b"\0"), pair(b"n/\0", b"n0")),
            (KeyRange::between("a", "c"), pair(b"a", b"c"), pair(b"n/a", b"n/c")),
            (KeyRange::between("", "c"), pair(b"\0", b"c"), pair(b"n/\0", b"n/c")),
            (KeyRange::from("a"), pair(b"a", b"\0"), pair(b"n/a", b"n0")),
            (KeyRange::all(), pair(b"\0", b"\0"), pair(b"n/\0", b"n0")),
        ];
        for (range, bare, within) in cases {
            assert_eq!(wire(&range, ""), bare, "{range:?}");
            assert_eq!(wire(&range, "n/"), within, "{range:?}");
        }
    }

    #[test]
    fn a_range_without_a_key_is_no_other_range_on_the_wire() {
        for range in [
            KeyRange::between("c", "a"),
            KeyRange::between("a", "a"),
            KeyRange::between("a", ""),
            KeyRange::between("", b"\0".as_ref()),
            KeyRange::key("a").behind(b"a"),
        ] {
            let (key, end) = range.wire(b"");
            let is_empty = !end.is_empty() && end.as_ref() != b"\0" && key >= end;
            let nothing_between = end == [key.as_ref(), b"\0"].concat() && !range.contains(&key);
            assert!(is_empty || nothing_between, "{range:?}: {key:?} {end:?}");
        }
    }

    #[test]
    fn a_range_contains_what_the_wire_asks_for() {
        let ranges = [
            KeyRange::key("b"),
            KeyRange::prefix("b"),
            KeyRange::between("a", "b"),
            KeyRange::between("b", "a"),
            KeyRange::from("b"),
            KeyRange::all(),
            KeyRange::prefix("b").behind(b"b"),
            KeyRange::all().behind(b"b"),
        ];
        let keys: [&[u8]; 8] = [b"\0", b"a", b"a\xff", b"b", b"b\0", b"ba", b"c", b"\xff\xff"];
        for range in &ranges {
            let (start, end) = range.wire(b"");
            for key in keys {
                let asked = match end.as_ref() {
                    b"" => start == key,
                    b"\0" => start <= key,
                    end => start <= key && key < end,
                };
                assert_eq!(range.contains(key), asked, "{range:?} {key:?}");
            }
        }
    }

    #[test]
    fn a_range_covers_another_when_it_has_all_of_its_keys() {
        let prefix = KeyRange::prefix("b");
        for whole in [KeyRange::all(), KeyRange::from("b"), KeyRange::between("a", "c"), prefix.clone()] {
            assert!(whole.covers(&prefix) && whole.covers(&KeyRange::key("b")), "{whole:?}");
        }
        for part in [KeyRange::from("ba"), KeyRange::between("a", "bm"), KeyRange::key("b")] {
            assert!(!part.covers(&prefix), "{part:?}");
        }
        assert!(KeyRange::key("b").covers(&KeyRange::key("b")));
        assert!(!KeyRange::between("a", "b").covers(&KeyRange::key("b")));
        assert!(!prefix.covers(&KeyRange::all()) && KeyRange::all().covers(&KeyRange::all()));
    }

    #[test]
    fn what_is_behind_a_key_begins_with_the_next_there_can_be() {
        let rest = KeyRange::prefix("a/").behind(b"a/1");
        assert!(!rest.contains(b"a/1") && rest.contains(b"a/1\0") && !rest.contains(b"a0"));
        assert!(!KeyRange::key("a").behind(b"a").contains(b"a\0"));
    }
}
