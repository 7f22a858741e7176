//! The services that later work fills. Every method answers Unimplemented, which clients take as "this server does not
//! have it" and act on: they fall back or report it, and never retry.

use holdfast_proto::etcdserverpb::*;
use holdfast_proto::{v3electionpb as election, v3lockpb as lock};
use tonic::{Request, Response, Status};

use super::NoStream;
use crate::status::Failure;

/// Implements a generated service trait with methods that all answer Unimplemented.
macro_rules! later {
    ($(#[$doc:meta])* $name:ident: $service:path; $(type $stream:ident = $item:ty;)*
     $(fn $method:ident($request:ty) -> $response:ty, $text:literal;)*) => {
        $(#[$doc])*
        pub struct $name;

        #[tonic::async_trait]
        impl $service for $name {
            $(type $stream = NoStream<$item>;)*
            $(async fn $method(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Failure::Unimplemented($text).into())
            })*
        }
    };
}

later! {
    /// Users, roles and tokens.
    AuthLater: auth_server::Auth;
    fn auth_enable(AuthEnableRequest) -> AuthEnableResponse, "AuthEnable";
    fn auth_disable(AuthDisableRequest) -> AuthDisableResponse, "AuthDisable";
    fn auth_status(AuthStatusRequest) -> AuthStatusResponse, "AuthStatus";
    fn authenticate(AuthenticateRequest) -> AuthenticateResponse, "Authenticate";
    fn user_add(AuthUserAddRequest) -> AuthUserAddResponse, "UserAdd";
    fn user_get(AuthUserGetRequest) -> AuthUserGetResponse, "UserGet";
    fn user_list(AuthUserListRequest) -> AuthUserListResponse, "UserList";
    fn user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse, "UserDelete";
    fn user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse, "UserChangePassword";
    fn user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse, "UserGrantRole";
    fn user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse, "UserRevokeRole";
    fn role_add(AuthRoleAddRequest) -> AuthRoleAddResponse, "RoleAdd";
    fn role_get(AuthRoleGetRequest) -> AuthRoleGetResponse, "RoleGet";
    fn role_list(AuthRoleListRequest) -> AuthRoleListResponse, "RoleList";
    fn role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse, "RoleDelete";
    fn role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse, "RoleGrantPermission";
    fn role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse, "RoleRevokePermission";
}

later! {
    /// Locks.
    LockLater: lock::lock_server::Lock;
    fn lock(lock::LockRequest) -> lock::LockResponse, "Lock";
    fn unlock(lock::UnlockRequest) -> lock::UnlockResponse, "Unlock";
}

later! {
    /// Elections.
    ElectionLater: election::election_server::Election;
    type ObserveStream = election::LeaderResponse;
    fn campaign(election::CampaignRequest) -> election::CampaignResponse, "Campaign";
    fn proclaim(election::ProclaimRequest) -> election::ProclaimResponse, "Proclaim";
    fn leader(election::LeaderRequest) -> election::LeaderResponse, "Leader";
    fn observe(election::LeaderRequest) -> NoStream<election::LeaderResponse>, "Observe";
    fn resign(election::ResignRequest) -> election::ResignResponse, "Resign";
}
