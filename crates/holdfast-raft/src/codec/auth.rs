//! Changes of users and roles, and callers, as protobuf messages, and back.

use holdfast_mvcc::auth::{
    Access, AuthChange, AuthRevision, Authenticate, Caller, Checked, Permission, TokenDigest,
};
use holdfast_mvcc::types::KeyRange;
use holdfast_proto::internal as pb;

use super::CodecError;
use super::command::{range_from_proto, range_to_proto};

pub(super) fn caller_to_proto(caller: Caller) -> Option<pb::Caller> {
    use pb::caller::Who;
    let who = match caller {
        Caller::Nobody => return None,
        Caller::Server => Who::Server(pb::Blank {}),
        Caller::User(checked) => Who::User(pb::CheckedUser {
            name: checked.user.as_ref().to_owned(),
            auth_revision: checked.at.get(),
        }),
    };
    Some(pb::Caller { who: Some(who) })
}

pub(super) fn caller_from_proto(proto: Option<pb::Caller>) -> Result<Caller, CodecError> {
    use pb::caller::Who;
    let Some(proto) = proto else { return Ok(Caller::Nobody) };
    Ok(match proto.who.ok_or(CodecError::Missing("caller"))? {
        Who::Server(_) => Caller::Server,
        Who::User(user) => {
            Caller::User(Checked { user: user.name.into(), at: AuthRevision::new(user.auth_revision) })
        }
    })
}

pub(super) fn to_proto(change: AuthChange) -> pb::AuthChange {
    use pb::auth_change::Kind;
    let kind = match change {
        AuthChange::Enable => Kind::Enable(pb::Blank {}),
        AuthChange::Disable => Kind::Disable(pb::Blank {}),
        AuthChange::UserAdd { name, password_hash } => {
            Kind::UserAdd(pb::UserPassword { name, hash: password_hash })
        }
        AuthChange::UserDelete { name } => Kind::UserDelete(name),
        AuthChange::UserChangePassword { name, password_hash } => {
            Kind::UserChangePassword(pb::UserPassword { name, hash: Some(password_hash) })
        }
        AuthChange::UserGrantRole { user, role } => Kind::UserGrantRole(pb::UserRole { user, role }),
        AuthChange::UserRevokeRole { user, role } => Kind::UserRevokeRole(pb::UserRole { user, role }),
        AuthChange::RoleAdd { name } => Kind::RoleAdd(name),
        AuthChange::RoleDelete { name } => Kind::RoleDelete(name),
        AuthChange::RoleGrantPermission { role, permission } => {
            let access = match permission.access {
                Access::Read => pb::Access::Read,
                Access::Write => pb::Access::Write,
                Access::ReadWrite => pb::Access::ReadWrite,
            };
            Kind::RoleGrantPermission(role_permission(role, access, permission.range))
        }
        AuthChange::RoleRevokePermission { role, range } => {
            Kind::RoleRevokePermission(role_permission(role, pb::Access::Read, range))
        }
        AuthChange::Authenticate(Authenticate { user, at, token }) => Kind::Authenticate(pb::Authenticate {
            user,
            auth_revision: at.get(),
            token_digest: token.0.to_vec().into(),
        }),
    };
    pb::AuthChange { kind: Some(kind) }
}

fn role_permission(role: String, access: pb::Access, range: KeyRange) -> pb::RolePermission {
    pb::RolePermission { role, access: access.into(), range: Some(range_to_proto(range)) }
}

pub(super) fn from_proto(proto: pb::AuthChange) -> Result<AuthChange, CodecError> {
    use pb::auth_change::Kind;
    Ok(match proto.kind.ok_or(CodecError::Missing("kind of a change of users and roles"))? {
        Kind::Enable(_) => AuthChange::Enable,
        Kind::Disable(_) => AuthChange::Disable,
        Kind::UserAdd(user) => AuthChange::UserAdd { name: user.name, password_hash: user.hash },
        Kind::UserDelete(name) => AuthChange::UserDelete { name },
        Kind::UserChangePassword(user) => {
            let password_hash = user.hash.ok_or(CodecError::Missing("password hash"))?;
            AuthChange::UserChangePassword { name: user.name, password_hash }
        }
        Kind::UserGrantRole(pb::UserRole { user, role }) => AuthChange::UserGrantRole { user, role },
        Kind::UserRevokeRole(pb::UserRole { user, role }) => AuthChange::UserRevokeRole { user, role },
        Kind::RoleAdd(name) => AuthChange::RoleAdd { name },
        Kind::RoleDelete(name) => AuthChange::RoleDelete { name },
        Kind::RoleGrantPermission(granted) => {
            let access =
                pb::Access::try_from(granted.access).map_err(|_| CodecError::Missing("kind of access"))?;
            let access = match access {
                pb::Access::Read => Access::Read,
                pb::Access::Write => Access::Write,
                pb::Access::ReadWrite => Access::ReadWrite,
            };
            let range = range_from_proto(granted.range)?;
            AuthChange::RoleGrantPermission { role: granted.role, permission: Permission { access, range } }
        }
        Kind::RoleRevokePermission(revoked) => {
            AuthChange::RoleRevokePermission { role: revoked.role, range: range_from_proto(revoked.range)? }
        }
        Kind::Authenticate(authenticate) => {
            let digest = authenticate.token_digest.as_ref().try_into();
            AuthChange::Authenticate(Authenticate {
                user: authenticate.user,
                at: AuthRevision::new(authenticate.auth_revision),
                token: TokenDigest(digest.map_err(|_| CodecError::Missing("digest of a token"))?),
            })
        }
    })
}
