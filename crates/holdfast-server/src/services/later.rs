//! The services that later work fills. Every method answers Unimplemented, which clients take as "this server does not
//! have it" and act on: they fall back or report it, and never retry.

use holdfast_proto::etcdserverpb::*;
use tonic::{Request, Response, Status};

use crate::status::Failure;

/// Implements a generated service trait with methods that all answer Unimplemented.
macro_rules! later {
    ($(#[$doc:meta])* $name:ident: $service:path;
     $(fn $method:ident($request:ty) -> $response:ty, $text:literal;)*) => {
        $(#[$doc])*
        pub struct $name;

        #[tonic::async_trait]
        impl $service for $name {
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
