//! Versions of collected objects: where in the store, and what the source says.

use std::fmt;
use std::str::FromStr;

use super::origin::OriginVersion;

/// Characters of a prefix.
const PREFIX_CHARS: usize = 8;

/// Whose revisions a version counts: eight hexadecimal digits that a cluster keeps, the same on all its members and after
/// each restart, and another after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix(u32);

impl Prefix {
    /// One that nobody else has, most probably.
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Prefix {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != PREFIX_CHARS || !text.bytes().all(is_digit) {
            return Err(BadVersion::Prefix { text: text.to_owned() });
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| BadVersion::Prefix { text: text.to_owned() })
    }
}

/// A text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVersion {
    /// It has another number of parts.
    #[error("{text:?} has {parts} parts, {expected} are expected")]
    Parts {
        /// It.
        text: String,
        /// As many as it has.
        parts: usize,
        /// As many as there should be.
        expected: usize,
    },
    /// Its prefix is none.
    #[error("{text:?} is no prefix: eight hexadecimal digits, in lower case")]
    Prefix {
        /// It.
        text: String,
    },
    /// Its number is none.
    #[error("{text:?} is no revision: a number above zero, without zeros in front")]
    Number {
        /// It.
        text: String,
    },
    /// A percent sign in it is not followed by what it stands for.
    #[error("{text:?} has a percent sign that is followed by neither 25 nor 2E")]
    Escape {
        /// It.
        text: String,
    },
    /// It is of another cluster, or from before a restore: its number means nothing here. List again, or watch from the
    /// versions of the sources.
    #[error("the version is of {given}, and this is {own}")]
    PrefixMismatch {
        /// Its prefix.
        given: Prefix,
        /// That of this cluster.
        own: Prefix,
    },
}

/// The version of an object: `<prefix>.<revision>.<version at its source>`.
///
/// The revision is that of the store, so it orders the objects of all sources, and is the same on all members. The version
/// at the source is kept as it is: a dot is written as `%2E` and a percent sign as `%25`. Each version has one text.
///
/// ```
/// use holdfast_client::collect::{OriginVersion, Version};
///
/// let version: Version = "0012abcd.17.v1%2E5".parse()?;
/// assert_eq!((version.revision, &version.origin), (17, &OriginVersion::from("v1.5")));
/// assert_eq!(version.to_string(), "0012abcd.17.v1%2E5");
/// # Ok::<(), holdfast_client::collect::BadVersion>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// Whose revision it is.
    pub prefix: Prefix,
    /// The revision of the store that has changed the object last. Never 0.
    pub revision: u64,
    /// What the source says.
    pub origin: OriginVersion,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.prefix, self.revision, escaped(self.origin.as_str()))
    }
}

impl FromStr for Version {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let [prefix, revision, origin] = parts(text)?;
        Ok(Self { prefix: prefix.parse()?, revision: number(revision)?, origin: unescaped(origin)?.into() })
    }
}

/// The version of a list: `<prefix>.<revision>`. A watch from it tells each change behind the list, and none in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListVersion {
    /// Whose revision it is.
    pub prefix: Prefix,
    /// The revision of the store that the list shows; not that of its newest object. Never 0.
    pub revision: u64,
}

impl fmt::Display for ListVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.prefix, self.revision)
    }
}

impl FromStr for ListVersion {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let [prefix, revision] = parts(text)?;
        Ok(Self { prefix: prefix.parse()?, revision: number(revision)? })
    }
}

impl ListVersion {
    /// The revision, if it is one of this cluster.
    ///
    /// Errors: [`BadVersion::PrefixMismatch`].
    pub fn revision_of(&self, own: Prefix) -> Result<u64, BadVersion> {
        if self.prefix == own {
            Ok(self.revision)
        } else {
            Err(BadVersion::PrefixMismatch { given: self.prefix, own })
        }
    }
}

impl From<&Version> for ListVersion {
    fn from(version: &Version) -> Self {
        Self { prefix: version.prefix, revision: version.revision }
    }
}

fn parts<const N: usize>(text: &str) -> Result<[&str; N], BadVersion> {
    let parts: Vec<&str> = text.split('.').collect();
    parts.try_into().map_err(|parts: Vec<&str>| BadVersion::Parts {
        text: text.to_owned(),
        parts: parts.len(),
        expected: N,
    })
}

fn number(text: &str) -> Result<u64, BadVersion> {
    let bad = || BadVersion::Number { text: text.to_owned() };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.starts_with('0') {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('.', "%2E")
}

fn unescaped(text: &str) -> Result<String, BadVersion> {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split('%');
    plain.push_str(pieces.next().unwrap_or(""));
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("25"), piece.strip_prefix("2E")) {
            (Some(rest), _) => ('%', rest),
            (_, Some(rest)) => ('.', rest),
            (None, None) => return Err(BadVersion::Escape { text: text.to_owned() }),
        };
        plain.push(character);
        plain.push_str(rest);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// CP1: whatever a source calls its versions, with dots and percent signs and anything else, survives; the text
        /// has three parts.
        #[test]
        fn cp1_a_version_is_read_back_as_it_was(
            prefix in any::<u32>(),
            revision in 1..=u64::MAX,
            origin in "[.%25E0-9a-zA-Z/\\PC]{0,24}",
        ) {
            let version = Version { prefix: Prefix(prefix), revision, origin: origin.as_str().into() };
            let text = version.to_string();
            prop_assert_eq!(text.split('.').count(), 3);
            prop_assert_eq!(text.parse::<Version>().unwrap(), version);
        }

        /// CP1: a text that is a version is the text of that version: no two texts are the same one.
        #[test]
        fn cp1_each_version_has_one_text(text in "([0-9a-f]{8}|[0-9a-fA-F]{7,9})[.][0-9]{1,4}[.][.%25E0a]{0,6}") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }

    /// CP1, CP2: an object's version has three parts and a list's has two.
    #[test]
    fn cp2_a_text_with_another_number_of_parts_is_no_version() {
        for text in ["", "00000001", "00000001.5", "00000001.5.a.b", "00000001.5.1.2"] {
            assert!(matches!(text.parse::<Version>(), Err(BadVersion::Parts { .. })), "{text}");
        }
        for text in ["", "00000001", "00000001.5.", "00000001.5.a"] {
            assert!(matches!(text.parse::<ListVersion>(), Err(BadVersion::Parts { .. })), "{text}");
        }
        let list: ListVersion = "00000001.5".parse().unwrap();
        assert_eq!((list.revision, list.to_string().as_str()), (5, "00000001.5"));
    }

    #[test]
    fn what_is_no_number_prefix_or_escape_is_told_apart() {
        for text in ["0000000g.5.", "0000001.5.", "0000000A.5.", "000000001.5."] {
            assert!(matches!(text.parse::<Version>(), Err(BadVersion::Prefix { .. })), "{text}");
        }
        for text in
            ["00000001..", "00000001.0.", "00000001.05.", "00000001.+5.", "00000001.99999999999999999999."]
        {
            assert!(matches!(text.parse::<Version>(), Err(BadVersion::Number { .. })), "{text}");
        }
        for text in ["00000001.5.%", "00000001.5.%2e", "00000001.5.%41"] {
            assert!(matches!(text.parse::<Version>(), Err(BadVersion::Escape { .. })), "{text}");
        }
    }

    /// CP5: a version of another cluster is no silent wrong place to watch from.
    #[test]
    fn cp5_a_version_of_another_cluster_is_refused() {
        let version: ListVersion = "00000001.5".parse().unwrap();
        assert_eq!(version.revision_of(Prefix(1)), Ok(5));
        let refused = version.revision_of(Prefix(2));
        assert_eq!(refused, Err(BadVersion::PrefixMismatch { given: Prefix(1), own: Prefix(2) }));
    }
}
