//! Users, roles and permissions: who there is, and what whom is granted.
//!
//! # The model
//! A *role* holds *permissions*, each for reading or writing (or both) a range of keys. A *user* is granted roles, and may
//! touch what the union of their ranges covers. The role `root` is special: it needs no entry, and who has it may do
//! everything. As long as auth is off everybody may do everything, and all of this can be prepared.
//!
//! The *auth revision* counts the changes of all this, apart from the store's revision. A command carries the user and
//! the auth revision at which its member had checked the token ([`Caller`]); it is judged again when it is evaluated, so
//! that a permission that was revoked in front of it in the log is gone for it. When the user got another password since it
//! was checked, or is another one with the same name, or auth was off in between, the command is refused: its token may not
//! hold any more. Nothing has happened then, and its client is told so.
//!
//! # What it is not
//! Passwords are not here, only what was made of them, and no comparison: that costs time on purpose and belongs to the
//! member that has the client. Tokens are not here either: they live on members and end by themselves. What ends them
//! beside time is in [`Session`].
//!
//! # Invariants
//! - The auth revision moves by one with each change, and with no other; switching auth on is none, for compatibility.
//! - The roles of a user ascend, and so do the permissions of a role, by key and then by end.
//! - What a user may touch is a function of the state: it is merged when it is first asked for and kept until one of
//!   the user's roles changes.
//!
//! # Module map
//! `change` how commands change it; `permissions` merged ranges; `rules` what each command and read needs.

mod change;
mod permissions;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

pub use change::{AUTH_BYTES_MAX, AuthChange, AuthRefusal, Authenticate, NAME_BYTES_MAX, TokenDigest};
pub use permissions::{Access, Permission};
pub use rules::Granted;

use crate::hash::Mixer;
use crate::types::RangeEnd;
use permissions::Permissions;

/// The user that must be there to switch auth on, and the role that may do everything.
pub const ROOT: &str = "root";

/// Counts changes of users, roles and permissions. A fresh store is at 1; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AuthRevision(u64);

impl AuthRevision {
    /// That of a fresh store.
    pub const FRESH: Self = Self(1);

    /// The revision with this number.
    pub const fn new(revision: u64) -> Self {
        Self(revision)
    }
    /// The number of this revision.
    pub const fn get(self) -> u64 {
        self.0
    }
    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// For whom a command is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The members themselves: permitted everything.
    Server,
    /// A client that has not said who it is.
    Nobody,
    /// A client with a token.
    User(Checked),
}

/// A user whose token was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The user's name.
    pub user: Arc<str>,
    /// The auth revision at which that was so.
    pub at: AuthRevision,
}

/// Who may log in, and with which roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What a password is compared with. `None`: this user cannot log in with a password. Empty: no password fits.
    pub password_hash: Option<String>,
    /// Names of roles, ascending.
    pub roles: Vec<String>,
    /// The auth revision at which the user was added or got another password: tokens from before do not hold.
    pub since: AuthRevision,
}

/// A named set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Role {
    /// Ascending by key and end; no two have both in common.
    pub permissions: Vec<Permission>,
}

/// What a token stands for. It holds as long as auth stays on, and the user stays the same with the same password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    user: Arc<str>,
    user_since: AuthRevision,
    enabled_since: AuthRevision,
}

impl Session {
    /// Whose it is.
    pub fn user(&self) -> &Arc<str> {
        &self.user
    }
}

/// Whether auth is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthSwitch {
    /// Everybody may do everything.
    Off,
    /// Since this auth revision.
    On(AuthRevision),
}

/// Users and roles. Cheap to clone beside what it holds: users and roles are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    switch: AuthSwitch,
    revision: AuthRevision,
    users: BTreeMap<String, Arc<Entry>>,
    roles: BTreeMap<String, Arc<Role>>,
    /// Of all names, hashes and ranges.
    bytes: usize,
}

/// A user, and what it may touch.
#[derive(Debug)]
struct Entry {
    user: User,
    /// Filled by whoever asks first; gone with the entry, which is replaced when one of the roles changes.
    merged: OnceLock<Permissions>,
}

impl Entry {
    fn new(user: User) -> Arc<Self> {
        Arc::new(Self { user, merged: OnceLock::new() })
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user
    }
}

impl Eq for Entry {}

impl Default for Auth {
    fn default() -> Self {
        Self {
            switch: AuthSwitch::Off,
            revision: AuthRevision::FRESH,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl Auth {
    /// Puts together what [`Auth::switch`], [`Auth::revision`], [`Auth::users`] and [`Auth::roles`] gave; `None` when no
    /// sequence of commands leads there.
    pub fn restore(
        switch: AuthSwitch,
        revision: AuthRevision,
        users: impl IntoIterator<Item = (String, User)>,
        roles: impl IntoIterator<Item = (String, Role)>,
    ) -> Option<Self> {
        let mut auth = Self { switch, revision, ..Self::default() };
        let is_past = |at: AuthRevision| at <= revision;
        let mut is_sound = revision >= AuthRevision::FRESH;
        for (name, role) in roles {
            let has_unset = role.permissions.iter().any(|permission| !permission.is_valid());
            is_sound &= is_name(&name) && !has_unset;
            is_sound &= role.permissions.is_sorted_by(|one, next| one.place() < next.place());
            is_sound &= auth.set_role(&name, role).is_none();
        }
        for (name, user) in users {
            is_sound &= is_name(&name) && is_past(user.since);
            is_sound &= user.roles.is_sorted_by(|one, next| one < next);
            is_sound &= user.roles.iter().all(|role| role == ROOT || auth.roles.contains_key(role));
            is_sound &= auth.set_user(&name, user).is_none();
        }
        if let AuthSwitch::On(since) = switch {
            is_sound &= is_past(since) && auth.user(ROOT).is_some_and(has_root);
        }
        (is_sound && auth.bytes <= AUTH_BYTES_MAX).then_some(auth)
    }

    /// True when permissions are checked.
    pub fn is_enabled(&self) -> bool {
        matches!(self.switch, AuthSwitch::On(_))
    }

    /// Whether auth is on.
    pub fn switch(&self) -> AuthSwitch {
        self.switch
    }

    /// How many changes there were.
    pub fn revision(&self) -> AuthRevision {
        self.revision
    }

    /// A user, if there is one with this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|entry| &entry.user)
    }

    /// All users, ascending by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, entry)| (name.as_str(), &entry.user))
    }

    /// A role, if there is one with this name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(|role| &**role)
    }

    /// All roles, ascending by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles.iter().map(|(name, role)| (name.as_str(), &**role))
    }

    /// True when the user is there and has the role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.user(user).is_some_and(|user| user.has(role))
    }

    /// What a token that is given to this user now stands for; `None` when nobody gets one.
    pub fn session(&self, name: &str) -> Option<Session> {
        let AuthSwitch::On(enabled_since) = self.switch else { return None };
        let user_since = self.user(name)?.since;
        Some(Session { user: name.into(), user_since, enabled_since })
    }

    /// The user of a token, as of now; `None` when the token does not hold any more.
    pub fn check(&self, session: &Session) -> Option<Checked> {
        let is_on = self.switch == AuthSwitch::On(session.enabled_since);
        let holds = is_on && self.user(&session.user).is_some_and(|user| user.since == session.user_since);
        holds.then(|| Checked { user: Arc::clone(&session.user), at: self.revision })
    }

    /// The user of a token that says of itself whose it is, and as of which auth revision it was given out; `None` when it does
    /// not hold any more. It holds as long as [`Auth::check`] would let one hold that was given out then.
    pub fn check_signed(&self, name: &str, given_out: AuthRevision) -> Option<Checked> {
        let AuthSwitch::On(enabled_since) = self.switch else { return None };
        let user_since = self.user(name)?.since;
        let holds = enabled_since <= given_out && user_since <= given_out;
        holds.then(|| Checked { user: name.into(), at: self.revision })
    }

    pub(crate) fn digest(&self, mixer: &mut Mixer) {
        let since = match self.switch {
            AuthSwitch::Off => 0,
            AuthSwitch::On(since) => since.0 + 1,
        };
        mixer.number(since);
        mixer.number(self.revision.0);
        mixer.number(self.users.len() as u64);
        for (name, user) in self.users() {
            mixer.bytes(name.as_bytes());
            mixer.number(user.since.0);
            mixer.number(u64::from(user.password_hash.is_some()));
            mixer.bytes(user.password_hash.as_deref().unwrap_or_default().as_bytes());
            mixer.number(user.roles.len() as u64);
            user.roles.iter().for_each(|role| mixer.bytes(role.as_bytes()));
        }
        mixer.number(self.roles.len() as u64);
        for (name, role) in self.roles() {
            mixer.bytes(name.as_bytes());
            mixer.number(role.permissions.len() as u64);
            for permission in &role.permissions {
                mixer.number(permission.access as u64);
                mixer.bytes(&permission.range.start);
                mixer.bytes(permission.raw_end());
            }
        }
    }

    /// Sets a user; answers the one before.
    fn set_user(&mut self, name: &str, user: User) -> Option<Arc<Entry>> {
        self.bytes += name.len() + user.bytes();
        let before = self.users.insert(name.to_owned(), Entry::new(user));
        if let Some(before) = &before {
            self.bytes -= name.len() + before.user.bytes();
        }
        before
    }

    /// Sets a role; answers the one before. What users may touch is not told.
    fn set_role(&mut self, name: &str, role: Role) -> Option<Arc<Role>> {
        self.bytes += name.len() + role.bytes();
        let before = self.roles.insert(name.to_owned(), Arc::new(role));
        if let Some(before) = &before {
            self.bytes -= name.len() + before.bytes();
        }
        before
    }

    /// What a user may touch, merged once.
    fn merged<'a>(&'a self, entry: &'a Entry) -> &'a Permissions {
        entry.merged.get_or_init(|| {
            let roles = entry.user.roles.iter().filter_map(|role| self.role(role));
            Permissions::merge(roles.flat_map(|role| &role.permissions))
        })
    }
}

/// Whether a user or a role may be called so.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}

fn has_root(user: &User) -> bool {
    user.has(ROOT)
}

/// What a name, a hash or a range costs beside its bytes.
const PART_BYTES: usize = 32;

impl User {
    fn has(&self, role: &str) -> bool {
        self.roles.binary_search_by(|granted| granted.as_str().cmp(role)).is_ok()
    }

    fn bytes(&self) -> usize {
        let hash = self.password_hash.as_ref().map_or(0, String::len);
        self.roles.iter().map(|role| role.len() + PART_BYTES).sum::<usize>() + hash + PART_BYTES
    }
}

impl Role {
    fn bytes(&self) -> usize {
        let range = |permission: &Permission| permission.range.start.len() + permission.raw_end().len();
        self.permissions.iter().map(|permission| range(permission) + PART_BYTES).sum::<usize>() + PART_BYTES
    }
}

impl Permission {
    /// What the permissions of a role are ordered by.
    pub fn place(&self) -> (&[u8], &[u8]) {
        (&self.range.start, self.raw_end())
    }

    /// The end as it is on the wire: empty for one key, one zero byte for all keys from the start on.
    pub fn raw_end(&self) -> &[u8] {
        match &self.range.end {
            RangeEnd::Single => b"",
            RangeEnd::Unbounded => b"\0",
            RangeEnd::Before(end) => end,
        }
    }
}
