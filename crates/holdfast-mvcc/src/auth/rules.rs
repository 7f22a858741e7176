//! What each command and each read needs.
//!
//! The rules are etcd's, with the holes closed that its later releases have closed: transactions inside transactions,
//! `prev_kv` and leases of puts inside transactions, compactions, alarms, and leases that others see or renew.

use super::change::{AuthChange, AuthRefusal};
use super::permissions::Permissions;
use super::{Auth, AuthRevision, AuthSwitch, Caller, Checked, User, has_root};
use crate::command::{Command, DeleteRange, Op, Put, Txn};
use crate::state::State;
use crate::types::{KeyRange, LeaseId};

/// What a caller may touch.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a>(Reach<'a>);

#[derive(Debug, Clone, Copy)]
enum Reach<'a> {
    All,
    Only(&'a Permissions),
}

/// How the keys that are attached to a lease are looked at: each is handed to the closure, until one is refused.
type Attached<'a> =
    dyn Fn(LeaseId, &mut dyn FnMut(&[u8]) -> Result<(), AuthRefusal>) -> Result<(), AuthRefusal> + 'a;

impl Auth {
    /// What a caller may touch.
    ///
    /// # Errors
    /// Auth is on, and the caller is nobody, is not there, or was checked before auth was switched on or the user became
    /// who it is: its token may not hold any more. etcd refuses who was checked before any change.
    pub fn granted(&self, caller: &Caller) -> Result<Granted<'_>, AuthRefusal> {
        if !self.is_enabled() {
            return Ok(Granted(Reach::All));
        }
        let Checked { user, at } = match caller {
            Caller::Server => return Ok(Granted(Reach::All)),
            Caller::Nobody => return Err(AuthRefusal::UserNameEmpty),
            Caller::User(checked) => checked,
        };
        let entry = self.users.get(&**user).ok_or(AuthRefusal::PermissionDenied)?;
        // Other changes since do not matter: what the user may do is judged as of now.
        self.check_since(&entry.user, *at)?;
        let reach = if has_root(&entry.user) { Reach::All } else { Reach::Only(self.merged(entry)) };
        Ok(Granted(reach))
    }

    /// Whether a caller may do what only root may.
    ///
    /// # Errors
    /// Auth is on, and the caller is nobody, is not there, has not the role, or was checked before it became who it is.
    pub fn may_manage(&self, caller: &Caller) -> Result<(), AuthRefusal> {
        if !self.is_enabled() {
            return Ok(());
        }
        match caller {
            Caller::Server => Ok(()),
            Caller::Nobody => Err(AuthRefusal::UserNameEmpty),
            Caller::User(checked) => {
                let user = self.user(&checked.user).ok_or(AuthRefusal::UserNotFound)?;
                self.check_since(user, checked.at)?;
                if has_root(user) { Ok(()) } else { Err(AuthRefusal::PermissionDenied) }
            }
        }
    }

    /// That a user is who it was at an auth revision, with the same password, and that auth was on since.
    pub(super) fn check_since(&self, user: &User, at: AuthRevision) -> Result<(), AuthRefusal> {
        let was_off = matches!(self.switch, AuthSwitch::On(since) if since > at);
        if user.since > at || was_off { Err(AuthRefusal::OldRevision) } else { Ok(()) }
    }

    /// Whether a caller may have a command carried out, as far as that can be said without the keys of leases: for who
    /// is about to propose it. When it is evaluated, all is judged.
    ///
    /// # Errors
    /// Why not.
    pub fn may_propose(&self, caller: &Caller, command: &Command) -> Result<(), AuthRefusal> {
        self.may(caller, command, &|_, _| Ok(()))
    }

    fn may(&self, caller: &Caller, command: &Command, attached: &Attached<'_>) -> Result<(), AuthRefusal> {
        match command {
            // Who has no right yet asks for one.
            Command::Auth(AuthChange::Authenticate(_)) => Ok(()),
            Command::Auth(_) | Command::Compact(_) | Command::RaiseAlarm(_) | Command::ClearAlarm(_) => {
                self.may_manage(caller)
            }
            Command::PublishMember(_) | Command::LeaseExpire(_) | Command::LeaseCheckpoint(_) => match caller
            {
                Caller::Nobody | Caller::User(_) if self.is_enabled() => Err(AuthRefusal::PermissionDenied),
                Caller::Server | Caller::Nobody | Caller::User(_) => Ok(()),
            },
            Command::LeaseGrant(_) => self.granted(caller).map(drop),
            Command::LeaseRevoke(lease) => self.granted(caller)?.write_attached(*lease, attached),
            Command::Put(put) => self.granted(caller)?.put(put, attached),
            Command::DeleteRange(delete) => self.granted(caller)?.delete(delete),
            Command::Txn(txn) => self.granted(caller)?.txn_with(txn, attached),
        }
    }
}

impl State {
    /// Whether a caller may have a command carried out now.
    pub(crate) fn permits(&self, caller: &Caller, command: &Command) -> Result<(), AuthRefusal> {
        let auth = &self.head().auth;
        // Most stores have it off; all else is behind this.
        if !auth.is_enabled() || *caller == Caller::Server {
            return Ok(());
        }
        auth.may(caller, command, &|lease, look| self.attached_keys(lease).try_for_each(look))
    }
}

impl Granted<'_> {
    /// True for who may do everything.
    pub fn is_all(&self) -> bool {
        matches!(self.0, Reach::All)
    }

    /// Whether a range may be read, counted or watched.
    ///
    /// # Errors
    /// Some of it may not.
    pub fn read(&self, range: &KeyRange) -> Result<(), AuthRefusal> {
        self.holds(|permissions| permissions.read.cover(range))
    }

    /// Whether a key may be read.
    ///
    /// # Errors
    /// It may not.
    pub fn read_key(&self, key: &[u8]) -> Result<(), AuthRefusal> {
        self.holds(|permissions| permissions.read.cover_key(key))
    }

    /// Whether a key may be put or deleted.
    ///
    /// # Errors
    /// It may not.
    pub fn write_key(&self, key: &[u8]) -> Result<(), AuthRefusal> {
        self.holds(|permissions| permissions.write.cover_key(key))
    }

    /// Whether a transaction may run, whichever way its compares go, as far as that can be said without the keys of
    /// leases: all of a transaction that only reads.
    ///
    /// # Errors
    /// Some of it may not.
    pub fn txn(&self, txn: &Txn) -> Result<(), AuthRefusal> {
        self.txn_with(txn, &|_, _| Ok(()))
    }

    fn holds(&self, is_covered: impl FnOnce(&Permissions) -> bool) -> Result<(), AuthRefusal> {
        match self.0 {
            Reach::All => Ok(()),
            Reach::Only(permissions) if is_covered(permissions) => Ok(()),
            Reach::Only(_) => Err(AuthRefusal::PermissionDenied),
        }
    }

    fn put(&self, put: &Put, attached: &Attached<'_>) -> Result<(), AuthRefusal> {
        self.write_key(&put.key)?;
        if let Some(lease) = put.lease {
            // Who may not revoke a lease, because of the keys that are attached to it, must not attach more.
            self.write_attached(lease, attached)?;
        }
        if put.prev_kv { self.read_key(&put.key) } else { Ok(()) }
    }

    fn delete(&self, delete: &DeleteRange) -> Result<(), AuthRefusal> {
        self.holds(|permissions| permissions.write.cover(&delete.range))?;
        if delete.prev_kv { self.read(&delete.range) } else { Ok(()) }
    }

    fn write_attached(&self, lease: LeaseId, attached: &Attached<'_>) -> Result<(), AuthRefusal> {
        if self.is_all() { Ok(()) } else { attached(lease, &mut |key| self.write_key(key)) }
    }

    /// As deep as the transaction, which validation has bounded.
    fn txn_with(&self, txn: &Txn, attached: &Attached<'_>) -> Result<(), AuthRefusal> {
        txn.compares.iter().try_for_each(|compare| self.read(&compare.range))?;
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Range(read) => self.read(&read.range)?,
                Op::Put(put) => self.put(put, attached)?,
                Op::DeleteRange(delete) => self.delete(delete)?,
                Op::Txn(nested) => self.txn_with(nested, attached)?,
                Op::Unset => {}
            }
        }
        Ok(())
    }
}
