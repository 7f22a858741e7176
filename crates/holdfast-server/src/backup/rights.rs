//! Users, roles and whether they count, in the file.
//!
//! etcd keeps some that mean nothing: permissions on ranges that can hold no key, and roles that are granted and not there.
//! They permit nothing there, and are left out here. What counts passwords and switches is not in the file: all of it is
//! as of its auth revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_bolt::{WriteError, Writer};
use holdfast_mvcc::auth::{Auth, AuthRevision, AuthSwitch, Permission, ROOT, Role, User};
use holdfast_mvcc::types::RangeEnd;
use holdfast_proto::authpb;
use prost::Message;

use super::file::{Database, FileError};
use super::schema::{self, bucket, name};
use crate::codec::auth as codec;

/// Far above what changes come to.
const AUTH_REVISION_MAX: u64 = 1 << 48;

/// Writes the three buckets.
///
/// # Errors
/// As the writer: a name that is too long.
pub fn write(writer: &mut Writer, auth: &Auth) -> Result<(), WriteError> {
    writer.bucket(bucket::AUTH)?;
    writer.put(name::AUTH_ENABLED, &[u8::from(auth.is_enabled())])?;
    writer.put(name::AUTH_REVISION, &auth.revision().get().to_be_bytes())?;
    writer.bucket(bucket::AUTH_ROLES)?;
    for (name, role) in auth.roles() {
        let message = authpb::Role {
            name: Bytes::copy_from_slice(name.as_bytes()),
            key_permission: codec::permissions(role),
        };
        writer.put(name.as_bytes(), &message.encode_to_vec())?;
    }
    writer.bucket(bucket::AUTH_USERS)?;
    for (name, user) in auth.users() {
        let password = user.password_hash.as_deref().unwrap_or_default();
        let message = authpb::User {
            name: Bytes::copy_from_slice(name.as_bytes()),
            password: Bytes::copy_from_slice(password.as_bytes()),
            roles: user.roles.clone(),
            options: Some(authpb::UserAddOptions { no_password: user.password_hash.is_none() }),
        };
        writer.put(name.as_bytes(), &message.encode_to_vec())?;
    }
    Ok(())
}

/// Reads them.
///
/// # Errors
/// The file cannot be read, or says what cannot be.
pub fn read(database: &Database) -> Result<Auth, FileError> {
    let revision = database.value(bucket::AUTH, name::AUTH_REVISION)?;
    let revision = revision.and_then(|value| schema::number(&value)).unwrap_or(AuthRevision::FRESH.get());
    if revision > AUTH_REVISION_MAX {
        return Err(database.impossible("an auth revision that leaves no room for changes"));
    }
    let revision = AuthRevision::new(revision);
    let mut roles = BTreeMap::new();
    database.each(bucket::AUTH_ROLES, |key, value| {
        let bad = || database.impossible("a role is none");
        let message = authpb::Role::decode(value).map_err(|_| bad())?;
        let permissions = message.key_permission.into_iter().map(codec::permission);
        let permissions: Option<Vec<Permission>> = permissions.collect();
        roles.insert(text(key).ok_or_else(bad)?, role(permissions.ok_or_else(bad)?));
        Ok::<_, FileError>(())
    })?;
    let mut users = BTreeMap::new();
    database.each(bucket::AUTH_USERS, |key, value| {
        let bad = || database.impossible("a user is none");
        let mut message = authpb::User::decode(value).map_err(|_| bad())?;
        message.roles.retain(|role| role == ROOT || roles.contains_key(role));
        message.roles.sort_unstable();
        message.roles.dedup();
        let has_password = !message.options.is_some_and(|options| options.no_password);
        let password_hash = has_password.then(|| text(&message.password)).map(|hash| hash.ok_or_else(bad));
        let user = User { password_hash: password_hash.transpose()?, roles: message.roles, since: revision };
        users.insert(text(key).ok_or_else(bad)?, user);
        Ok::<_, FileError>(())
    })?;
    let is_enabled = super::look::is_auth_enabled(database)?;
    let switch = if is_enabled { AuthSwitch::On(revision) } else { AuthSwitch::Off };
    Auth::restore(switch, revision, users, roles).ok_or_else(|| {
        database
            .impossible("users and roles that no sequence of commands leads to, or names above 1024 bytes")
    })
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Without what permits nothing.
fn role(mut permissions: Vec<Permission>) -> Role {
    for permission in &mut permissions {
        // No key is empty: from the first one on.
        if permission.range.start.is_empty() && permission.range.end != RangeEnd::Single {
            permission.range.start = Bytes::from_static(b"\0");
        }
    }
    permissions.retain(Permission::is_valid);
    permissions.sort_by(|one, other| one.place().cmp(&other.place()));
    permissions.dedup_by(|one, other| one.place() == other.place());
    Role { permissions }
}
