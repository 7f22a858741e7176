//! Permissions, between the wire and the state.

use bytes::Bytes;
use holdfast_mvcc::auth::{Access, Permission, Role};
use holdfast_proto::authpb;

use super::request::key_range;

/// A permission that was given; `None` when its kind is none.
pub fn permission(given: authpb::Permission) -> Option<Permission> {
    let access = match authpb::permission::Type::try_from(given.perm_type) {
        Ok(authpb::permission::Type::Read) => Access::Read,
        Ok(authpb::permission::Type::Write) => Access::Write,
        Ok(authpb::permission::Type::Readwrite) => Access::ReadWrite,
        Err(_) => return None,
    };
    Some(Permission { access, range: key_range(given.key, given.range_end) })
}

/// What a role permits.
pub fn permissions(role: &Role) -> Vec<authpb::Permission> {
    let permission = |permission: &Permission| {
        let kind = match permission.access {
            Access::Read => authpb::permission::Type::Read,
            Access::Write => authpb::permission::Type::Write,
            Access::ReadWrite => authpb::permission::Type::Readwrite,
        };
        authpb::Permission {
            perm_type: kind.into(),
            key: permission.range.start.clone(),
            range_end: Bytes::copy_from_slice(permission.raw_end()),
        }
    };
    role.permissions.iter().map(permission).collect()
}
