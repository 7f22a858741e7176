//! Random users, roles and permissions, and who makes which call.
//!
//! The author keeps account of whether auth is on, and of who has logged in with which password. Only the user root switches
//! it, and nobody takes root's rights away while it is off, so that the account of that is right. What users without the role
//! root are allowed by etcd 3.5.1 and refused by us (docs/auth.md has the list) only root asks for here.

use std::collections::BTreeMap;

use rand::RngExt;

use super::{Calls, KEYS};
use crate::conformance::script::ROOT_PASSWORD;

/// Users beside root.
const USERS: [&str; 4] = ["u1", "u2", "u3", "u4"];

/// Roles beside root.
const ROLES: [&str; 3] = ["r1", "r2", "r3"];

/// Calls for users and roles, of a hundred.
pub(super) const AUTH_PERCENT: u32 = 10;

/// Whether scripts have users and roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Auth stays off, and nobody asks about it.
    Off,
    /// Users and roles come and go, and auth is switched on and off.
    Switched,
}

/// Who makes a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Auth is off: anybody.
    Anybody,
    /// The user root.
    Root,
    /// Another user, who may not have logged in.
    User(&'static str),
    /// Somebody without a token, while auth is on.
    Nameless,
}

impl Who {
    /// What stands before the call.
    pub(super) fn prefix(self) -> String {
        match self {
            Self::Anybody | Self::Nameless => String::new(),
            Self::Root => "as(root) ".to_owned(),
            Self::User(name) => format!("as({name}) "),
        }
    }

    /// Whether nothing is forbidden.
    pub(super) fn may_all(self) -> bool {
        matches!(self, Self::Anybody | Self::Root)
    }
}

/// The author's account.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) is_on: bool,
    /// The newest password of each user that is there.
    passwords: BTreeMap<&'static str, u32>,
    given: u32,
}

impl Calls {
    /// What every script with auth begins with: root, roles with permissions, users who have them.
    pub(super) fn begin_auth(&mut self) {
        self.line(format!("UserAdd name: \"root\" password: \"{ROOT_PASSWORD}\""));
        self.line("RoleAdd name: \"root\"".to_owned());
        self.line("UserGrantRole user: \"root\" role: \"root\"".to_owned());
        for role in ROLES {
            self.line(format!("RoleAdd name: \"{role}\""));
            for _ in 0..2 {
                let grant = self.grant_permission(role);
                self.line(grant);
            }
        }
        for (user, role) in USERS.into_iter().zip(ROLES) {
            let add = self.user_add(user);
            self.line(add);
            self.line(format!("UserGrantRole user: \"{user}\" role: \"{role}\""));
        }
        self.enable();
    }

    /// Switches it on, and has everybody log in.
    fn enable(&mut self) {
        self.line("AuthEnable".to_owned());
        self.accounts.is_on = true;
        self.line(self.login("root"));
        for user in USERS {
            self.line(self.login(user));
        }
    }

    /// Who makes the next call.
    pub(super) fn someone(&mut self) -> Who {
        if !self.accounts.is_on {
            return Who::Anybody;
        }
        match self.rng.random_range(0..100) {
            0..45 => Who::Root,
            45..93 => Who::User(self.user()),
            93..96 => Who::User("ghost"),
            _ => Who::Nameless,
        }
    }

    /// Who works with users and roles, or tries to.
    fn administrator(&mut self) -> Who {
        let tries = self.chance(20);
        match self.accounts.is_on {
            true if tries => self.someone(),
            true => Who::Root,
            false => Who::Anybody,
        }
    }

    /// Adds one call for users and roles, and what belongs to it.
    pub(super) fn auth_call(&mut self) {
        if !self.accounts.is_on && self.chance(15) {
            return self.enable();
        }
        if self.chance(3) && self.accounts.is_on {
            self.accounts.is_on = false;
            return self.line("as(root) AuthDisable".to_owned());
        }
        if self.chance(30) {
            let user = if self.chance(10) { "root" } else { self.user() };
            let line = if self.chance(85) {
                self.login(user)
            } else {
                format!("Authenticate@{user} name: \"{user}\" password: \"wrong\"")
            };
            return self.line(line);
        }
        let who = self.administrator();
        let call = self.administration(who);
        self.line(format!("{}{call}", who.prefix()));
    }

    fn administration(&mut self, who: Who) -> String {
        let (user, role) = (self.user_or_ghost(), self.role_or_ghost());
        match self.rng.random_range(0..100) {
            // Who may not does not change a password, so the account stays right.
            0..9 if who.may_all() => {
                let user = self.user();
                self.user_add(user)
            }
            9..13 if who.may_all() => {
                let user = self.user();
                self.accounts.passwords.remove(user);
                format!("UserDelete name: \"{user}\"")
            }
            13..19 if who.may_all() => {
                let user = self.user();
                let password = self.password(user);
                format!("UserChangePassword name: \"{user}\" password: \"{password}\"")
            }
            19..34 => format!("UserGrantRole user: \"{user}\" role: \"{role}\""),
            34..42 => format!("UserRevokeRole name: \"{user}\" role: \"{role}\""),
            42..48 => format!("RoleAdd name: \"{role}\""),
            48..51 => format!("RoleDelete role: \"{role}\""),
            51..69 => self.grant_permission(role),
            69..77 => self.revoke_permission(role),
            77..83 => format!("UserGet name: \"{user}\""),
            83..89 => format!("RoleGet role: \"{role}\""),
            89..92 => "UserList".to_owned(),
            92..95 => "RoleList".to_owned(),
            // Who is not root is told by us, and not by etcd 3.5.1.
            95..98 if who.may_all() => "AuthStatus".to_owned(),
            98 if self.accounts.is_on => "UserDelete name: \"root\"".to_owned(),
            99 if self.accounts.is_on => "UserRevokeRole name: \"root\" role: \"root\"".to_owned(),
            _ => format!("UserGet name: \"{user}\""),
        }
    }

    fn user(&mut self) -> &'static str {
        USERS[self.rng.random_range(0..USERS.len())]
    }

    fn user_or_ghost(&mut self) -> &'static str {
        if self.chance(4) { "ghost" } else { self.user() }
    }

    fn role_or_ghost(&mut self) -> &'static str {
        if self.chance(4) { "none" } else { ROLES[self.rng.random_range(0..ROLES.len())] }
    }

    fn user_add(&mut self, user: &'static str) -> String {
        if self.chance(5) {
            return format!("UserAdd name: \"{user}\" options {{ no_password: true }}");
        }
        // Who is there already keeps the password.
        let password = match self.accounts.passwords.get(user) {
            Some(_) => "refused".to_owned(),
            None => self.password(user),
        };
        format!("UserAdd name: \"{user}\" password: \"{password}\"")
    }

    /// A new password.
    fn password(&mut self, user: &'static str) -> String {
        self.accounts.given += 1;
        self.accounts.passwords.insert(user, self.accounts.given);
        format!("p{}", self.accounts.given)
    }

    fn login(&self, user: &str) -> String {
        let password = match self.accounts.passwords.get(user) {
            _ if user == "root" => ROOT_PASSWORD.to_owned(),
            Some(number) => format!("p{number}"),
            None => "none".to_owned(),
        };
        format!("Authenticate@{user} name: \"{user}\" password: \"{password}\"")
    }

    /// A range that holds something: others are refused by us, and by etcd since 3.5.8. Of those that begin at one key a role has
    /// always the same: with another between them etcd 3.5.1 does not find the one that is to be replaced, and adds it.
    fn permitted(&mut self, role: &str) -> String {
        let from = self.rng.random_range(0..KEYS.len());
        let key = KEYS[from];
        match from + usize::from(role.as_bytes().last().copied().unwrap_or(0)) % 5 {
            0 | 5 => format!("key: \"{key}\""),
            3 => format!("key: \"{key}\" range_end: \"\\x00\""),
            far => {
                let end = KEYS.get(from + 1 + far % 3).copied().unwrap_or("z");
                format!("key: \"{key}\" range_end: \"{end}\"")
            }
        }
    }

    fn grant_permission(&mut self, role: &str) -> String {
        let kind = ["READ", "WRITE", "READWRITE", "READWRITE"][self.rng.random_range(0..4)];
        format!("RoleGrantPermission name: \"{role}\" perm {{ {} permType: {kind} }}", self.permitted(role))
    }

    fn revoke_permission(&mut self, role: &str) -> String {
        format!("RoleRevokePermission role: \"{role}\" {}", self.permitted(role))
    }
}
