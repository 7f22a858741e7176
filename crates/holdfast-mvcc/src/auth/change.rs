//! How commands change users, roles and permissions. The checks and their order are etcd's: a request that breaks
//! several rules gets the refusal of the first.

use super::permissions::Permission;
use super::{Auth, AuthRevision, AuthSwitch, ROOT, Role, User, has_root};
use crate::types::KeyRange;

/// What the name of a new user or role has at most: it is a key in the files that are made of the state.
pub const NAME_BYTES_MAX: usize = 1024;

/// Names, hashes and ranges of all users and roles in bytes, with what each costs beside them. They are kept in memory
/// and copied when they change; some ten thousand users fit.
pub const AUTH_BYTES_MAX: usize = 8 << 20;

/// A digest of the secret part of a token: enough to know it again, and of no use to who reads the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenDigest(pub [u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest")
    }
}

/// A change of users, roles or permissions, or of what follows from them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthChange {
    /// Permissions are checked from here on.
    Enable,
    /// They are not any more.
    Disable,
    /// A user with this password, or none, and no roles.
    UserAdd {
        /// Its name.
        name: String,
        /// See [`User::password_hash`].
        password_hash: Option<String>,
    },
    /// No such user any more.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Another password. A user without one stays without one.
    UserChangePassword {
        /// Its name.
        name: String,
        /// See [`User::password_hash`].
        password_hash: String,
    },
    /// One role more for a user.
    UserGrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// One role less for a user.
    UserRevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// A role without permissions.
    RoleAdd {
        /// Its name.
        name: String,
    },
    /// No such role any more, for no user.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// One permission more for a role, or another kind of access to the same range.
    RoleGrantPermission {
        /// The role.
        role: String,
        /// The permission.
        permission: Permission,
    },
    /// One permission less for a role.
    RoleRevokePermission {
        /// The role.
        role: String,
        /// Exactly the range that was granted.
        range: KeyRange,
    },
    /// A user has logged in. Changes nothing here: the members keep tokens.
    Authenticate(Authenticate),
}

/// A user has given its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticate {
    /// Who.
    pub user: String,
    /// The auth revision at which the password was compared.
    pub at: AuthRevision,
    /// The token that it gets.
    pub token: TokenDigest,
}

/// Why a change, a read or a write is refused. Every member reaches the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthRefusal {
    /// Auth cannot be on without the user root.
    #[error("root user does not exist")]
    RootUserMissing,
    /// Auth cannot be on unless the user root has the role root.
    #[error("root user does not have root role")]
    RootRoleMissing,
    /// There is a user with that name.
    #[error("user exists already")]
    UserExists,
    /// Nobody has no name.
    #[error("user name is empty")]
    UserNameEmpty,
    /// There is no user with that name.
    #[error("user not found")]
    UserNotFound,
    /// There is a role with that name.
    #[error("role exists already")]
    RoleExists,
    /// There is no role with that name.
    #[error("role not found")]
    RoleNotFound,
    /// A role has a name.
    #[error("role name is empty")]
    RoleNameEmpty,
    /// The user is not there, or cannot log in.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// The user may not do that.
    #[error("permission denied")]
    PermissionDenied,
    /// The user does not have that role.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have that permission.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// Nobody logs in while auth is off.
    #[error("authentication is not enabled")]
    NotEnabled,
    /// The user has changed since it was checked or its password compared, or auth was off in between.
    #[error("the user has changed since it was checked")]
    OldRevision,
    /// What must not be while auth is on, or a range that covers nothing.
    #[error("invalid auth management")]
    InvalidManagement,
    /// A name has more than [`NAME_BYTES_MAX`].
    #[error("a name has more than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// Users and roles would take more than [`AUTH_BYTES_MAX`].
    #[error("users and roles would take more than {AUTH_BYTES_MAX} bytes")]
    TooMuch,
}

/// What a change that is not refused has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It was so before, or it is none that counts.
    Nothing,
    /// Something: the auth revision moves.
    Changed,
}

impl Auth {
    /// Carries a change out. On a refusal this must be thrown away.
    pub(crate) fn apply(&mut self, change: &AuthChange) -> Result<(), AuthRefusal> {
        let done = match change {
            AuthChange::Enable => self.enable(),
            AuthChange::Disable => Ok(self.disable()),
            AuthChange::UserAdd { name, password_hash } => self.add_user(name, password_hash.as_ref()),
            AuthChange::UserDelete { name } => self.delete_user(name),
            AuthChange::UserChangePassword { name, password_hash } => {
                self.change_password(name, password_hash)
            }
            AuthChange::UserGrantRole { user, role } => self.grant_role(user, role),
            AuthChange::UserRevokeRole { user, role } => self.revoke_role(user, role),
            AuthChange::RoleAdd { name } => self.add_role(name),
            AuthChange::RoleDelete { name } => self.delete_role(name),
            AuthChange::RoleGrantPermission { role, permission } => self.grant_permission(role, permission),
            AuthChange::RoleRevokePermission { role, range } => self.revoke_permission(role, range),
            AuthChange::Authenticate(authenticate) => self.authenticate(authenticate).map(|()| Done::Nothing),
        }?;
        if done == Done::Changed {
            self.revision = self.revision.next();
        }
        Ok(())
    }

    fn enable(&mut self) -> Result<Done, AuthRefusal> {
        if self.is_enabled() {
            return Ok(Done::Nothing);
        }
        let root = self.user(ROOT).ok_or(AuthRefusal::RootUserMissing)?;
        if !has_root(root) {
            return Err(AuthRefusal::RootRoleMissing);
        }
        // It moved when auth was switched off the last time: no two spans of being on share their beginning.
        self.switch = AuthSwitch::On(self.revision);
        Ok(Done::Nothing)
    }

    fn disable(&mut self) -> Done {
        if !self.is_enabled() {
            return Done::Nothing;
        }
        self.switch = AuthSwitch::Off;
        Done::Changed
    }

    fn add_user(&mut self, name: &str, password_hash: Option<&String>) -> Result<Done, AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::UserNameEmpty);
        }
        check_name(name)?;
        if self.users.contains_key(name) {
            return Err(AuthRefusal::UserExists);
        }
        let user =
            User { password_hash: password_hash.cloned(), roles: Vec::new(), since: self.revision.next() };
        self.check_room(name.len() + user.bytes())?;
        self.set_user(name, user);
        Ok(Done::Changed)
    }

    fn delete_user(&mut self, name: &str) -> Result<Done, AuthRefusal> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthRefusal::InvalidManagement);
        }
        let entry = self.users.remove(name).ok_or(AuthRefusal::UserNotFound)?;
        self.bytes -= name.len() + entry.user.bytes();
        Ok(Done::Changed)
    }

    fn change_password(&mut self, name: &str, password_hash: &str) -> Result<Done, AuthRefusal> {
        let mut user = self.user(name).ok_or(AuthRefusal::UserNotFound)?.clone();
        self.check_room(password_hash.len())?;
        user.password_hash = user.password_hash.map(|_| password_hash.to_owned());
        user.since = self.revision.next();
        self.set_user(name, user);
        Ok(Done::Changed)
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<Done, AuthRefusal> {
        let mut user = self.user(name).ok_or(AuthRefusal::UserNotFound)?.clone();
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(AuthRefusal::RoleNotFound);
        }
        let Err(place) = user.roles.binary_search_by(|granted| granted.as_str().cmp(role)) else {
            return Ok(Done::Nothing);
        };
        self.check_room(role.len() + super::PART_BYTES)?;
        user.roles.insert(place, role.to_owned());
        self.set_user(name, user);
        Ok(Done::Changed)
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<Done, AuthRefusal> {
        if self.is_enabled() && name == ROOT && role == ROOT {
            return Err(AuthRefusal::InvalidManagement);
        }
        let mut user = self.user(name).ok_or(AuthRefusal::UserNotFound)?.clone();
        let place = user.roles.binary_search_by(|granted| granted.as_str().cmp(role));
        user.roles.remove(place.map_err(|_| AuthRefusal::RoleNotGranted)?);
        self.set_user(name, user);
        Ok(Done::Changed)
    }

    fn add_role(&mut self, name: &str) -> Result<Done, AuthRefusal> {
        if name.is_empty() {
            return Err(AuthRefusal::RoleNameEmpty);
        }
        check_name(name)?;
        if self.roles.contains_key(name) {
            return Err(AuthRefusal::RoleExists);
        }
        self.check_room(name.len() + Role::default().bytes())?;
        self.set_role(name, Role::default());
        Ok(Done::Changed)
    }

    fn delete_role(&mut self, name: &str) -> Result<Done, AuthRefusal> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthRefusal::InvalidManagement);
        }
        let role = self.roles.remove(name).ok_or(AuthRefusal::RoleNotFound)?;
        self.bytes -= name.len() + role.bytes();
        for (user, mut changed) in self.users_with(name) {
            changed.roles.retain(|granted| granted != name);
            self.set_user(&user, changed);
        }
        Ok(Done::Changed)
    }

    fn grant_permission(&mut self, name: &str, permission: &Permission) -> Result<Done, AuthRefusal> {
        if !permission.is_valid() {
            return Err(AuthRefusal::InvalidManagement);
        }
        let mut role = self.role(name).ok_or(AuthRefusal::RoleNotFound)?.clone();
        match role.permissions.binary_search_by(|granted| granted.place().cmp(&permission.place())) {
            Ok(place) => role.permissions[place].access = permission.access,
            Err(place) => role.permissions.insert(place, permission.clone()),
        }
        let bytes = permission.range.start.len() + permission.raw_end().len() + super::PART_BYTES;
        self.check_room(bytes)?;
        self.change_role(name, role);
        Ok(Done::Changed)
    }

    fn revoke_permission(&mut self, name: &str, range: &KeyRange) -> Result<Done, AuthRefusal> {
        let mut role = self.role(name).ok_or(AuthRefusal::RoleNotFound)?.clone();
        let before = role.permissions.len();
        role.permissions.retain(|permission| permission.range != *range);
        if role.permissions.len() == before {
            return Err(AuthRefusal::PermissionNotGranted);
        }
        self.change_role(name, role);
        Ok(Done::Changed)
    }

    /// The password was compared outside, with what the user had at `at`.
    pub(crate) fn authenticate(&self, authenticate: &Authenticate) -> Result<(), AuthRefusal> {
        if !self.is_enabled() {
            return Err(AuthRefusal::NotEnabled);
        }
        let user = self.user(&authenticate.user).ok_or(AuthRefusal::AuthenticationFailed)?;
        if user.password_hash.is_none() {
            return Err(AuthRefusal::AuthenticationFailed);
        }
        self.check_since(user, authenticate.at)
    }

    /// Sets a role, and forgets what its users may touch.
    fn change_role(&mut self, name: &str, role: Role) {
        self.set_role(name, role);
        for (user, unchanged) in self.users_with(name) {
            self.set_user(&user, unchanged);
        }
    }

    fn users_with(&self, role: &str) -> Vec<(String, User)> {
        let has = self.users().filter(|(_, user)| user.has(role));
        has.map(|(name, user)| (name.to_owned(), user.clone())).collect()
    }

    fn check_room(&self, more: usize) -> Result<(), AuthRefusal> {
        if self.bytes + more > AUTH_BYTES_MAX { Err(AuthRefusal::TooMuch) } else { Ok(()) }
    }
}

fn check_name(name: &str) -> Result<(), AuthRefusal> {
    if name.len() > NAME_BYTES_MAX { Err(AuthRefusal::NameTooLong) } else { Ok(()) }
}
