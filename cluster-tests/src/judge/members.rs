//! Judges whether members agree: their hashes at one revision, and all that they hold.

use std::fmt;

use crate::client::Contents;

/// A member's answer to HashKV.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashed {
    /// Who.
    pub member: String,
    /// The revision that was asked for.
    pub revision: i64,
    /// The hash.
    pub hash: u32,
    /// The compaction it was taken under.
    pub compact_revision: i64,
}

/// Members that differ.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disagreement {
    /// Two hashes at one revision and one compaction differ.
    Hash { one: Hashed, other: Hashed },
    /// Hashes that were not taken at one revision and one compaction cannot be compared.
    NotComparable { one: Hashed, other: Hashed },
    /// Fewer than two members answered.
    TooFew { answers: usize },
    /// Two members hold different pairs at one revision; the first key that differs.
    Pairs { one: String, other: String, revision: i64, key: String },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash { one, other } => write!(
                f,
                "at revision {} {} has hash {} and {} has {}",
                one.revision, one.member, one.hash, other.member, other.hash
            ),
            Self::NotComparable { one, other } => write!(f, "not comparable: {one:?} and {other:?}"),
            Self::TooFew { answers } => {
                write!(f, "{answers} members told their hash; it takes two to compare")
            }
            Self::Pairs { one, other, revision, key } => {
                write!(f, "at revision {revision} {one} and {other} differ in {key:?}")
            }
        }
    }
}

/// Compares the hashes that members gave for one revision.
pub fn hashes(answers: &[Hashed]) -> Vec<Disagreement> {
    let Some((first, rest)) = answers.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return vec![Disagreement::TooFew { answers: answers.len() }];
    };
    let mut found = Vec::new();
    for other in rest {
        let same_state = (first.revision, first.compact_revision) == (other.revision, other.compact_revision);
        if !same_state {
            found.push(Disagreement::NotComparable { one: first.clone(), other: other.clone() });
        } else if first.hash != other.hash {
            found.push(Disagreement::Hash { one: first.clone(), other: other.clone() });
        }
    }
    found
}

/// Compares all pairs that members hold at one revision, by name.
pub fn pairs(all: &[(String, Contents)]) -> Vec<Disagreement> {
    let Some(((one, first), rest)) = all.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return vec![Disagreement::TooFew { answers: all.len() }];
    };
    let mut found = Vec::new();
    for (other, contents) in rest {
        if let Some(key) = first_difference(first, contents) {
            let (one, other, revision) = (one.clone(), other.clone(), first.revision);
            found.push(Disagreement::Pairs { one, other, revision, key });
        }
    }
    found
}

fn first_difference(one: &Contents, other: &Contents) -> Option<String> {
    if one == other {
        return None;
    }
    let keys = one.pairs.keys().chain(other.pairs.keys());
    let key = keys.filter(|key| one.pairs.get(*key) != other.pairs.get(*key)).min();
    Some(key.map_or_else(|| "(the revision)".to_owned(), |key| String::from_utf8_lossy(key).into_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::client::Stored;

    fn hashed(member: &str, hash: u32) -> Hashed {
        Hashed { member: member.to_owned(), revision: 9, hash, compact_revision: -1 }
    }

    #[test]
    fn equal_hashes_agree_and_one_other_is_found() {
        assert_eq!(hashes(&[hashed("n1", 7), hashed("n2", 7), hashed("n3", 7)]), vec![]);
        let found = hashes(&[hashed("n1", 7), hashed("n2", 7), hashed("n3", 8)]);
        assert_eq!(found, vec![Disagreement::Hash { one: hashed("n1", 7), other: hashed("n3", 8) }]);
    }

    #[test]
    fn hashes_of_different_states_are_not_compared() {
        let other = Hashed { compact_revision: 4, ..hashed("n2", 7) };
        assert!(matches!(hashes(&[hashed("n1", 7), other])[..], [Disagreement::NotComparable { .. }]));
        assert_eq!(hashes(&[hashed("n1", 7)]), vec![Disagreement::TooFew { answers: 1 }]);
    }

    #[test]
    fn a_pair_that_differs_is_named() {
        let stored = |value: &'static str| Stored {
            value: Bytes::from_static(value.as_bytes()),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
        };
        let contents =
            |value| Contents { revision: 2, pairs: BTreeMap::from([(Bytes::from("k"), stored(value))]) };
        let (one, two) = (("n1".to_owned(), contents("a")), ("n2".to_owned(), contents("b")));
        assert_eq!(pairs(&[one.clone(), ("n2".to_owned(), contents("a"))]), vec![]);
        assert!(matches!(&pairs(&[one, two])[..], [Disagreement::Pairs { key, .. }] if key == "k"));
    }
}
