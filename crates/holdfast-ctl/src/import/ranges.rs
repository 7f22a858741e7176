//! Which keys are imported.

use anyhow::bail;
use bytes::Bytes;

/// Keys of the import itself, in the target: its position, and the key that raises revisions. They are never imported.
pub(crate) const RESERVED: &str = "_holdfast/import/";

/// Some keys: from `start`, inclusive, to `end`, exclusive; an `end` of one zero byte is that of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Bytes,
    pub(crate) end: Bytes,
}

/// All keys that are imported: ranges that ascend and do not overlap.
#[derive(Debug, Clone)]
pub(crate) struct Ranges {
    /// None of them is the beginning of another one; empty for all keys.
    prefixes: Vec<String>,
}

impl Ranges {
    /// The keys that begin with one of these; all keys when there are none.
    pub(crate) fn new(prefixes: &[String]) -> anyhow::Result<Self> {
        if let Some(prefix) = prefixes.iter().find(|prefix| prefix.starts_with(RESERVED)) {
            bail!("--prefix={prefix}: keys below {RESERVED} are those of imports themselves");
        }
        let mut sorted = prefixes.to_vec();
        sorted.sort_unstable();
        let mut kept: Vec<String> = Vec::new();
        for prefix in sorted {
            // What comes behind its own beginning in this order is part of it.
            if !kept.last().is_some_and(|before| prefix.starts_with(before.as_str())) {
                kept.push(prefix);
            }
        }
        if kept.first().is_some_and(String::is_empty) {
            kept.clear();
        }
        Ok(Self { prefixes: kept })
    }

    /// Whether these are all keys.
    pub(crate) fn is_everything(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Whether the keys of imports themselves are within.
    pub(crate) fn have_reserved(&self) -> bool {
        self.is_everything() || self.prefixes.iter().any(|prefix| RESERVED.starts_with(prefix.as_str()))
    }

    /// The prefixes; none for all keys.
    pub(crate) fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether a key is imported.
    pub(crate) fn cover(&self, key: &[u8]) -> bool {
        let is_within = |prefix: &String| key.starts_with(prefix.as_bytes());
        (self.is_everything() || self.prefixes.iter().any(is_within)) && !key.starts_with(RESERVED.as_bytes())
    }

    /// As ranges, ascending. The reserved keys are in them where they are in between.
    pub(crate) fn list(&self) -> Vec<KeyRange> {
        if self.is_everything() {
            return vec![KeyRange { start: Bytes::from_static(b"\0"), end: Bytes::from_static(b"\0") }];
        }
        let range = |prefix: &String| KeyRange {
            start: Bytes::copy_from_slice(prefix.as_bytes()),
            end: prefix_end(prefix.as_bytes()),
        };
        self.prefixes.iter().map(range).collect()
    }
}

/// The first key behind all that begin with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|byte| *byte != u8::MAX);
    let Some(last) = kept else { return Bytes::from_static(b"\0") };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(prefixes: &[&str]) -> Ranges {
        Ranges::new(&prefixes.iter().map(|prefix| (*prefix).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn prefixes_become_ranges_that_do_not_overlap() {
        let some = ranges(&["b/", "a/x", "a/", "b/c/d", "a/"]);
        assert_eq!(some.prefixes(), ["a/", "b/"]);
        let wire: Vec<_> = some.list().into_iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(wire, [("a/".into(), "a0".into()), ("b/".into(), "b0".into())]);
        assert!(some.cover(b"a/1") && some.cover(b"b/") && !some.cover(b"a") && !some.cover(b"c"));
        assert!(!some.is_everything() && !some.have_reserved() && ranges(&["_", "x"]).have_reserved());
    }

    #[test]
    fn all_keys_but_those_of_imports() {
        for all in [ranges(&[]), ranges(&["x", ""])] {
            assert!(all.is_everything());
            assert_eq!(all.list(), [KeyRange { start: "\0".into(), end: "\0".into() }]);
            assert!(all.cover(b"\0") && all.cover(b"\xff") && !all.cover(b"_holdfast/import/position"));
        }
        assert!(Ranges::new(&["_holdfast/import/x".to_owned()]).is_err());
    }

    #[test]
    fn the_end_of_a_prefix_of_the_last_bytes_is_that_of_all_keys() {
        assert_eq!(prefix_end(b"a\xff\xff"), "b");
        assert_eq!(prefix_end(b"\xff"), "\0");
    }
}
