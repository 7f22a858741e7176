//! The written form of users, roles and permissions, and what is told of them.
//!
//! ```text
//! content  codec StoredAuth, cut into pieces
//! frame    a piece                          of a snapshot
//! row      a piece                          of the stable store, under the number of its content
//! ```
//! A change writes all of it anew, under the next number, and the last batch of its commit names the number that counts:
//! so a commit may take several batches, and none of them leaves half of a change.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use holdfast_env::{LogIndex, Monotonic};
use holdfast_mvcc::auth::{
    Access, Auth, AuthRevision, AuthSwitch, Permission, Role, Session, TokenDigest, User,
};
use holdfast_mvcc::types::{KeyRange, RangeEnd};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecKind, Cold};
use crate::error::StoreError;
use crate::limits::TOKENS_WAITING_MAX;

/// [`Auth`] as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredAuth {
    enabled_since: Option<u64>,
    revision: u64,
    users: Vec<StoredUser>,
    roles: Vec<StoredRole>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredUser {
    name: String,
    password_hash: Option<String>,
    roles: Vec<String>,
    since: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredRole {
    name: String,
    permissions: Vec<StoredPermission>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredPermission {
    access: StoredAccess,
    start: Bytes,
    end: StoredEnd,
}

/// Written as 0, 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StoredAccess {
    Read,
    Write,
    ReadWrite,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum StoredEnd {
    Single,
    Before(Bytes),
    Unbounded,
}

/// Which content in the stable store counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredAuthAt {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// In how many pieces it lies.
    pub(crate) pieces: u32,
}

impl Cold for StoredAuth {
    const KIND: CodecKind = CodecKind::Auth;
}
impl Cold for StoredAuthAt {
    const KIND: CodecKind = CodecKind::AuthAt;
}

/// The content.
pub(crate) fn encode(auth: &Auth) -> Vec<u8> {
    codec::encode(&StoredAuth::from(auth))
}

/// What the content holds.
///
/// # Errors
/// No state is like that.
pub(crate) fn decode(content: &[u8]) -> Result<Arc<Auth>, StoreError> {
    Ok(Arc::new(codec::decode::<StoredAuth>(content)?.try_into()?))
}

impl From<&Auth> for StoredAuth {
    fn from(auth: &Auth) -> Self {
        let permission = |permission: &Permission| StoredPermission {
            access: match permission.access {
                Access::Read => StoredAccess::Read,
                Access::Write => StoredAccess::Write,
                Access::ReadWrite => StoredAccess::ReadWrite,
            },
            start: permission.range.start.clone(),
            end: match &permission.range.end {
                RangeEnd::Single => StoredEnd::Single,
                RangeEnd::Before(end) => StoredEnd::Before(end.clone()),
                RangeEnd::Unbounded => StoredEnd::Unbounded,
            },
        };
        let user = |(name, user): (&str, &User)| StoredUser {
            name: name.to_owned(),
            password_hash: user.password_hash.clone(),
            roles: user.roles.clone(),
            since: user.since.get(),
        };
        let role = |(name, role): (&str, &Role)| StoredRole {
            name: name.to_owned(),
            permissions: role.permissions.iter().map(permission).collect(),
        };
        Self {
            enabled_since: match auth.switch() {
                AuthSwitch::Off => None,
                AuthSwitch::On(since) => Some(since.get()),
            },
            revision: auth.revision().get(),
            users: auth.users().map(user).collect(),
            roles: auth.roles().map(role).collect(),
        }
    }
}

impl TryFrom<StoredAuth> for Auth {
    type Error = StoreError;

    fn try_from(stored: StoredAuth) -> Result<Self, StoreError> {
        let permission = |permission: StoredPermission| Permission {
            access: match permission.access {
                StoredAccess::Read => Access::Read,
                StoredAccess::Write => Access::Write,
                StoredAccess::ReadWrite => Access::ReadWrite,
            },
            range: KeyRange {
                start: permission.start,
                end: match permission.end {
                    StoredEnd::Single => RangeEnd::Single,
                    StoredEnd::Before(end) => RangeEnd::Before(end),
                    StoredEnd::Unbounded => RangeEnd::Unbounded,
                },
            },
        };
        let user = |user: StoredUser| {
            let since = AuthRevision::new(user.since);
            (user.name, User { password_hash: user.password_hash, roles: user.roles, since })
        };
        let role = |role: StoredRole| {
            let permissions = role.permissions.into_iter().map(permission).collect();
            (role.name, Role { permissions })
        };
        let switch =
            stored.enabled_since.map_or(AuthSwitch::Off, |since| AuthSwitch::On(AuthRevision::new(since)));
        let (users, roles) = (stored.users.into_iter().map(user), stored.roles.into_iter().map(role));
        Self::restore(switch, AuthRevision::new(stored.revision), users, roles)
            .ok_or_else(|| StoreError::damaged("users and roles contradict themselves"))
    }
}

/// A token that a command has brought, as it reached this member.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    /// Its secret part.
    pub digest: TokenDigest,
    /// Its other part: where in the log the command is.
    pub index: LogIndex,
    /// What it stands for.
    pub session: Session,
    /// When the command was evaluated here.
    pub at: Monotonic,
}

/// Users and roles as readers see them, and the tokens that have come by.
#[derive(Debug, Default)]
pub(crate) struct AuthView {
    /// Written with `current`, before what it is part of becomes visible.
    enabled: AtomicBool,
    /// Written by the sequencer, and by the dispatcher in an install.
    current: ArcSwap<Auth>,
    /// Put in by the dispatcher; taken by whoever keeps tokens. When nobody does, the oldest are dropped.
    tokens: Mutex<VecDeque<IssuedToken>>,
}

impl AuthView {
    /// Shows this from here on.
    pub(crate) fn show(&self, auth: &Arc<Auth>) {
        if !Arc::ptr_eq(&self.current.load(), auth) {
            self.current.store(Arc::clone(auth));
            self.enabled.store(auth.is_enabled(), Ordering::Relaxed);
        }
    }

    /// True when permissions are checked. Relaxed: whoever has seen an answer, or a visible position, sees what belongs
    /// to it.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn current(&self) -> Arc<Auth> {
        self.current.load_full()
    }

    pub(crate) fn issued(&self, token: IssuedToken) {
        let mut tokens = self.tokens.lock();
        if tokens.len() == TOKENS_WAITING_MAX {
            tokens.pop_front();
        }
        tokens.push_back(token);
    }

    pub(crate) fn take_tokens(&self) -> VecDeque<IssuedToken> {
        std::mem::take(&mut self.tokens.lock())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Auth is on; one role, two users.
    pub(crate) fn some() -> Arc<Auth> {
        let range =
            KeyRange { start: Bytes::from_static(b"k"), end: RangeEnd::Before(Bytes::from_static(b"l")) };
        let role = Role { permissions: vec![Permission { access: Access::ReadWrite, range }] };
        let user = |password_hash: Option<&str>, role: &str| User {
            password_hash: password_hash.map(str::to_owned),
            roles: vec![role.to_owned()],
            since: AuthRevision::new(2),
        };
        let users = [("bob".to_owned(), user(None, "r")), ("root".to_owned(), user(Some("h"), "root"))];
        let roles = [("r".to_owned(), role)];
        let on = AuthSwitch::On(AuthRevision::new(3));
        Arc::new(Auth::restore(on, AuthRevision::new(4), users, roles).unwrap())
    }

    /// The bytes on disk; a change here needs a new version.
    #[test]
    fn golden_bytes() {
        let mut want = vec![b'H', b'F', 1, 6, 1, 3, 4, 2];
        want.extend([3, b'b', b'o', b'b', 0, 1, 1, b'r', 2]);
        want.extend([4, b'r', b'o', b'o', b't', 1, 1, b'h', 1, 4, b'r', b'o', b'o', b't', 2]);
        want.extend([1, 1, b'r', 1, 2, 1, b'k', 1, 1, b'l']);
        assert_eq!(encode(&some()), want);
        assert_eq!(decode(&want).unwrap(), some());
        let at = StoredAuthAt { number: 3, pieces: 1 };
        assert_eq!(codec::encode(&at), [b'H', b'F', 1, 7, 3, 1]);
    }

    #[test]
    fn what_no_commands_lead_to_is_damage() {
        let good = StoredAuth::from(&*some());
        let revision = StoredAuth { revision: 2, ..good.clone() };
        let rootless = StoredAuth { users: Vec::new(), ..good };
        for bad in [revision, rootless] {
            assert!(matches!(decode(&codec::encode(&bad)), Err(StoreError::Damaged(_))));
        }
    }

    #[test]
    fn tokens_wait_up_to_a_bound() {
        let view = AuthView::default();
        let session = some().session("bob").unwrap();
        for at in 0..=TOKENS_WAITING_MAX as u64 {
            let (digest, index) = (TokenDigest([0; 32]), LogIndex::new(at));
            view.issued(IssuedToken { digest, index, session: session.clone(), at: Monotonic::default() });
        }
        let taken = view.take_tokens();
        assert_eq!((taken.len(), taken[0].index), (TOKENS_WAITING_MAX, LogIndex::new(1)));
        assert!(view.take_tokens().is_empty());
    }
}
