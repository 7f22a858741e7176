//! Where a watch goes on: at a version, or at a version of each source.

use std::collections::BTreeMap;

use super::origin::{OriginVersion, SourceId};
use super::version::{BadVersion, ListVersion, Version};

/// The longest text that is read.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Where a watch goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumePoint {
    /// Behind a version of this cluster: that of an object or of a list.
    Version(ListVersion),
    /// Behind the versions of the sources: what another cluster that collects them has told, or this one before a
    /// restore. A source that is not named begins with all its objects.
    Sources(ResumeMap),
}

/// A version of each source.
pub type ResumeMap = BTreeMap<SourceId, OriginVersion>;

/// A text that says no place to go on at.
#[derive(Debug, thiserror::Error)]
pub enum BadResume {
    /// It looks like a version, and is none.
    #[error(transparent)]
    Version(#[from] BadVersion),
    /// It looks like JSON of a source's versions, and is none.
    #[error("the versions of the sources cannot be read")]
    Json(#[source] serde_json::Error),
    /// It looks like base64, and is none.
    #[error("{byte} in it is no base64")]
    Base64 {
        /// What does not belong there.
        byte: char,
    },
    /// It is longer than 1 MiB.
    #[error("it has {bytes} bytes")]
    TooLong {
        /// As many.
        bytes: usize,
    },
}

impl ResumePoint {
    /// Reads one of the forms, told apart by how they begin:
    ///
    /// | form | means |
    /// | --- | --- |
    /// | `<prefix>.<revision>` or `<prefix>.<revision>.<origin>` | behind that revision |
    /// | `{"<source>": "<origin>", ..}` | behind these versions of the sources |
    /// | base64 of the latter | the same; Clusterpedia's version 1 writes so. It is read, and never written |
    ///
    /// Errors: it is none of them.
    pub fn parse(text: &str) -> Result<Self, BadResume> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(BadResume::TooLong { bytes: text.len() });
        }
        if text.starts_with('{') {
            return Ok(Self::Sources(map(text.as_bytes())?));
        }
        if text.contains('.') {
            return Ok(Self::Version(match text.split('.').count() {
                2 => text.parse()?,
                _ => ListVersion::from(&text.parse::<Version>()?),
            }));
        }
        Ok(Self::Sources(map(&from_base64(text)?)?))
    }

    /// The text of it, in the form that is not base64.
    pub fn to_text(&self) -> String {
        match self {
            Self::Version(version) => version.to_string(),
            Self::Sources(map) => serde_json::to_string(map).expect("texts by texts have a form in JSON"),
        }
    }
}

fn map(json: &[u8]) -> Result<ResumeMap, BadResume> {
    serde_json::from_slice(json).map_err(BadResume::Json)
}

/// In either alphabet, with or without what fills it up.
fn from_base64(text: &str) -> Result<Vec<u8>, BadResume> {
    let (mut bits, mut count) = (0_u32, 0);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return Err(BadResume::Base64 { byte: char::from(byte) }),
        };
        bits = (bits << 6 | u32::from(value)) & 0xff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).expect("eight bits"));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to_base64(bytes: &[u8], alphabet: &[u8; 64], is_filled: bool) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group =
                u32::from_be_bytes([0, chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)]);
            for at in 0..=chunk.len() {
                let index = usize::try_from(group >> (18 - 6 * at) & 0x3f).unwrap();
                text.push(char::from(alphabet[index]));
            }
            if is_filled {
                text.push_str(&"="[..1].repeat(3 - chunk.len()));
            }
        }
        text
    }

    const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    fn sources() -> impl Strategy<Value = ResumeMap> {
        let name = "[a-z0-9.-]{1,8}".prop_map(|name| SourceId::new(&name).unwrap());
        let origin = "\\PC{0,12}".prop_map(OriginVersion::from);
        proptest::collection::btree_map(name, origin, 0..5)
    }

    proptest! {
        /// CP6, CP8: the versions of the sources are read back as they were.
        #[test]
        fn cp6_the_versions_of_the_sources_are_read_back_as_they_were(map in sources()) {
            let point = ResumePoint::Sources(map);
            prop_assert_eq!(ResumePoint::parse(&point.to_text()).unwrap(), point);
        }

        /// CP7: the form of version 1 is read, in each way in which base64 is written.
        #[test]
        fn cp7_the_form_of_version_1_is_read(map in sources(), is_filled in any::<bool>(), is_for_urls in any::<bool>()) {
            let json = serde_json::to_vec(&map).unwrap();
            let text = to_base64(&json, if is_for_urls { FOR_URLS } else { STANDARD }, is_filled);
            prop_assert_eq!(ResumePoint::parse(&text).unwrap(), ResumePoint::Sources(map));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            drop(ResumePoint::parse(&text));
        }
    }

    /// CP8: the three forms are told apart, and what is written is never base64.
    #[test]
    fn cp8_all_forms_are_understood() {
        let map = |text: &str| match ResumePoint::parse(text).unwrap() {
            ResumePoint::Sources(map) => {
                map.into_iter().map(|(id, origin)| format!("{id}={origin}")).collect()
            }
            ResumePoint::Version(version) => vec![version.to_string()],
        };
        assert_eq!(map(r#"{"a": "5", "b": "v1.7"}"#), ["a=5", "b=v1.7"]);
        assert_eq!(map("eyJhIjogIjUifQ=="), ["a=5"]);
        assert_eq!(map("0000000a.7"), ["0000000a.7"]);
        assert_eq!(map("0000000a.7.99"), ["0000000a.7"]);
        let written = ResumePoint::parse("eyJhIjogIjUifQ==").unwrap().to_text();
        assert_eq!(written, r#"{"a":"5"}"#);
        for text in ["", "?", "{", r#"{"a/b": "5"}"#, r#"{"a": 5}"#, "a.b", "eyJh*"] {
            assert!(ResumePoint::parse(text).is_err(), "{text}");
        }
    }
}
