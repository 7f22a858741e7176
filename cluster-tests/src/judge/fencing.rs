//! Judges locks: a key with a lease that one client at a time creates; the revision of its creation is the token.
//!
//! A holder may believe too long that it holds the lock; no lock service can prevent that. So what it writes under the lock
//! carries its token, and takes effect only while the lock is still that one. That must hold of every such write in the
//! history, and tokens must rise in the order in which locks were taken.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::watch::history::{Applied, Step};

/// A lock that was taken, as its client saw it. Times are since the run began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The lock's key.
    pub lock: Bytes,
    /// Its token.
    pub token: i64,
    /// When it was asked for.
    pub began: Duration,
    /// When it was granted.
    pub ended: Duration,
}

/// Which key is written under which lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    /// The lock's key.
    pub lock: Bytes,
    /// The key that is written under it; its values begin with the token and a stroke.
    pub key: Bytes,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A write under a lock that was not, or no longer, that one.
    Unfenced { key: Bytes, revision: i64, token: i64, held: i64 },
    /// A lock taken after another one had been has a smaller token.
    Falls { lock: Bytes, token: i64, after: i64 },
    /// Two clients have one token.
    Shared { lock: Bytes, token: i64 },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        match self {
            Self::Unfenced { key, revision, token, held } => {
                write!(
                    f,
                    "{} was written at {revision} with token {token} while {held} held the lock",
                    name(key)
                )
            }
            Self::Falls { lock, token, after } => write!(f, "{}: token {token} after {after}", name(lock)),
            Self::Shared { lock, token } => write!(f, "{}: two clients have token {token}", name(lock)),
        }
    }
}

/// Judges all locks of a run by its commands, in any order.
pub fn judge(guarded: &[Guarded], applied: &[Applied], taken: &[Taken]) -> Vec<Finding> {
    let mut order: Vec<&Applied> = applied.iter().collect();
    order.sort_by_key(|command| command.revision);
    let locks: HashMap<&Bytes, &Bytes> = guarded.iter().map(|pair| (&pair.key, &pair.lock)).collect();
    let mut held: HashMap<&Bytes, i64> = HashMap::new();
    let mut findings = Vec::new();
    for Applied { revision, steps } in order {
        for step in steps {
            match step {
                Step::Put { key, value, .. } => {
                    if let Some(lock) = locks.get(key) {
                        let (token, held) = (token(value), held.get(*lock).copied().unwrap_or(0));
                        if token != held {
                            let (key, revision) = (key.clone(), *revision);
                            findings.push(Finding::Unfenced { key, revision, token, held });
                        }
                    }
                    held.entry(key).or_insert(*revision);
                }
                Step::Delete { key, .. } => drop(held.remove(key)),
            }
        }
    }
    findings.extend(tokens(taken));
    findings
}

fn token(value: &Bytes) -> i64 {
    let text = String::from_utf8_lossy(value);
    text.split('/').next().and_then(|token| token.parse().ok()).unwrap_or(-1)
}

fn tokens(taken: &[Taken]) -> Vec<Finding> {
    let mut order: Vec<&Taken> = taken.iter().collect();
    order.sort_by_key(|taken| (taken.lock.clone(), taken.token));
    let mut findings = Vec::new();
    for pair in order.windows(2).filter(|pair| pair[0].lock == pair[1].lock) {
        let (lock, token) = (pair[0].lock.clone(), pair[0].token);
        if token == pair[1].token {
            findings.push(Finding::Shared { lock, token });
        } else if pair[1].ended < pair[0].began {
            findings.push(Finding::Falls { lock, token, after: pair[1].token });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn put(revision: i64, key: &str, value: &str) -> Applied {
        Applied { revision, steps: vec![Step::Put { key: bytes(key), value: bytes(value), lease: 1 }] }
    }

    fn end(revision: i64) -> Applied {
        Applied { revision, steps: vec![Step::Delete { key: bytes("lock"), range_end: Bytes::new() }] }
    }

    fn of(applied: &[Applied]) -> Vec<Finding> {
        judge(&[Guarded { lock: bytes("lock"), key: bytes("x") }], applied, &[])
    }

    #[test]
    fn writes_under_the_lock_pass_and_others_are_found() {
        let clean =
            [put(2, "lock", "a"), put(3, "x", "2/1"), end(4), put(5, "lock", "b"), put(6, "x", "5/1")];
        assert_eq!(of(&clean), []);
        let unfenced =
            |revision, token, held| vec![Finding::Unfenced { key: bytes("x"), revision, token, held }];
        // After the lock was lost, and after another one has taken it.
        assert_eq!(of(&[put(2, "lock", "a"), end(3), put(4, "x", "2/1")]), unfenced(4, 2, 0));
        assert_eq!(of(&[clean.as_slice(), &[put(7, "x", "2/2")]].concat()), unfenced(7, 2, 5));
    }

    #[test]
    fn tokens_that_fall_or_are_shared_are_found() {
        let taken = |token, began| {
            let (began, ended) = (Duration::from_secs(began), Duration::from_secs(began + 1));
            Taken { lock: bytes("lock"), token, began, ended }
        };
        let of = |taken: &[Taken]| judge(&[], &[], taken);
        assert_eq!(of(&[taken(2, 0), taken(5, 3), taken(9, 6)]), []);
        // At the same time any order will do.
        assert_eq!(of(&[taken(5, 0), taken(2, 1)]), []);
        assert_eq!(
            of(&[taken(5, 0), taken(2, 3)]),
            [Finding::Falls { lock: bytes("lock"), token: 2, after: 5 }]
        );
        assert_eq!(of(&[taken(5, 0), taken(5, 3)]), [Finding::Shared { lock: bytes("lock"), token: 5 }]);
    }
}
