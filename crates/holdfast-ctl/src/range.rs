//! Keys and ranges of keys, from words of the command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;

use crate::error::CtlError;

/// The end of a range that has none, and the least key.
pub(crate) const ZERO: &[u8] = b"\0";

/// Keys from `key` up to `end`, exclusive: an empty end is the one key, a zero byte is no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The first one.
    pub(crate) key: Bytes,
    /// Behind the last one.
    pub(crate) end: Bytes,
}

/// Which keys a command is about: flags beside its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The words: a key, or a key and an end.
    Words,
    /// All that begin so.
    Prefix,
    /// All that are not less.
    FromKey,
}

impl Reach {
    /// Of two flags.
    ///
    /// Errors: both.
    pub(crate) fn of_flags(prefix: bool, from_key: bool) -> Result<Self, CtlError> {
        match (prefix, from_key) {
            (true, true) => Err(CtlError::Arguments(
                "--prefix and --from-key mean different ranges: give one of them".to_owned(),
            )),
            (true, false) => Ok(Self::Prefix),
            (false, true) => Ok(Self::FromKey),
            (false, false) => Ok(Self::Words),
        }
    }
}

impl Keys {
    /// Of the words of get, del and watch; more than two are left alone.
    ///
    /// Errors: no word, or an end beside a flag that gives one.
    pub(crate) fn of_words(words: &[OsString], reach: Reach) -> Result<Self, CtlError> {
        let key = words.first().ok_or_else(|| CtlError::Arguments("a key is missing".to_owned()))?;
        let key = bytes(key);
        match (reach, words.get(1)) {
            (Reach::Words, end) => Ok(Self { key, end: end.map(|end| bytes(end)).unwrap_or_default() }),
            (_, Some(_)) => Err(CtlError::Arguments(
                "--prefix and --from-key say where the range ends: leave the second word out".to_owned(),
            )),
            (Reach::Prefix, None) => Ok(Self::with_prefix(key)),
            (Reach::FromKey, None) => Ok(Self { key: or_least(key), end: Bytes::from_static(ZERO) }),
        }
    }

    /// All keys that begin so.
    pub(crate) fn with_prefix(prefix: Bytes) -> Self {
        let end = prefix_end(&prefix);
        Self { key: or_least(prefix), end }
    }
}

/// Words are bytes here, of any kind.
pub(crate) fn bytes(word: &OsStr) -> Bytes {
    Bytes::copy_from_slice(word.as_bytes())
}

/// There is no empty key.
fn or_least(key: Bytes) -> Bytes {
    if key.is_empty() { Bytes::from_static(ZERO) } else { key }
}

/// The least key behind all with this prefix; a zero byte when there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(at) => {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            end.into()
        }
        None => Bytes::from_static(ZERO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(words: &[&str], reach: Reach) -> (Vec<u8>, Vec<u8>) {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let keys = Keys::of_words(&words, reach).unwrap();
        (keys.key.to_vec(), keys.end.to_vec())
    }

    #[test]
    fn words_and_flags_make_ranges() {
        let pair = |key: &[u8], end: &[u8]| (key.to_vec(), end.to_vec());
        assert_eq!(keys(&["a"], Reach::Words), pair(b"a", b""));
        assert_eq!(keys(&["a", "b", "c"], Reach::Words), pair(b"a", b"b"));
        assert_eq!(keys(&["a"], Reach::Prefix), pair(b"a", b"b"));
        assert_eq!(keys(&[""], Reach::Prefix), pair(b"\0", b"\0"));
        assert_eq!(keys(&["a"], Reach::FromKey), pair(b"a", b"\0"));
        assert_eq!(keys(&[""], Reach::FromKey), pair(b"\0", b"\0"));
        assert!(Keys::of_words(&[], Reach::Words).is_err());
        assert!(Keys::of_words(&["a".into(), "b".into()], Reach::Prefix).is_err());
        assert!(Reach::of_flags(true, true).is_err());
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(prefix_end(b"a\xff\xff")[..], b"b"[..]);
        assert_eq!(prefix_end(b"\xff")[..], b"\0"[..]);
    }
}
