//! The Auth service: users, roles, permissions and logins.

use std::sync::Arc;

use holdfast_mvcc::auth::{Auth, AuthChange, AuthRefusal, Authenticate, Caller, User};
use holdfast_mvcc::command::{Command, Refusal};
use holdfast_proto::etcdserverpb as pb;
use pb::auth_server;
use tonic::{Request, Response, Status};

use crate::auth::Asking;
use crate::auth::rules::{self, Rpc};
use crate::auth::tokens;
use crate::codec::auth as codec;
use crate::codec::request::key_range;
use crate::frontend::{Call, Frontend, Service};
use crate::status::{AuthFailure, Failure};

/// Serves [`auth_server::Auth`].
pub struct AuthService {
    frontend: Arc<Frontend>,
}

impl AuthService {
    /// Serves through `frontend`.
    pub fn new(frontend: Arc<Frontend>) -> Self {
        Self { frontend }
    }

    /// Has a change carried out; the header of the answer.
    async fn change(
        &self,
        asking: Asking<'_>,
        rpc: Rpc,
        change: AuthChange,
    ) -> Result<Option<pb::ResponseHeader>, Failure> {
        let call = self.frontend.admit(asking, rpc, Service::Voters).await?;
        self.propose(change, call).await
    }

    async fn propose(&self, change: AuthChange, call: Call) -> Result<Option<pb::ResponseHeader>, Failure> {
        let answer = self.frontend.propose(Command::Auth(change), call).await?;
        answer.outcome.response?;
        Ok(Some(self.frontend.header(answer.outcome.revision)))
    }

    /// Users and roles as of now, and who asks.
    async fn look(
        &self,
        asking: Asking<'_>,
        rpc: Rpc,
    ) -> Result<(Arc<Auth>, Caller, Option<pb::ResponseHeader>), Failure> {
        let call = self.frontend.admit(asking, rpc, Service::Voters).await?;
        self.frontend.linearize(call).await?;
        let auth = self.frontend.storage.auth();
        let caller = self.frontend.caller(&auth, call)?;
        Ok((auth, caller, Some(self.frontend.header(self.frontend.current_revision()))))
    }

    async fn do_user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<pb::AuthUserAddResponse, Failure> {
        let call = self.frontend.admit(Asking::of(&request), rules::USER_ADD, Service::Voters).await?;
        let inner = request.into_inner();
        let has_password = !inner.options.is_some_and(|options| options.no_password);
        let password_hash =
            if has_password { Some(self.frontend.hash_password(inner.password, call).await?) } else { None };
        let header = self.propose(AuthChange::UserAdd { name: inner.name, password_hash }, call).await?;
        Ok(pb::AuthUserAddResponse { header })
    }

    async fn do_user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<pb::AuthUserChangePasswordResponse, Failure> {
        let rpc = rules::USER_CHANGE_PASSWORD;
        let call = self.frontend.admit(Asking::of(&request), rpc, Service::Voters).await?;
        let inner = request.into_inner();
        let password_hash = if inner.password.is_empty() {
            // As in etcd, which hashes an empty password of a new user, but not this one: nothing fits it.
            String::new()
        } else {
            self.frontend.hash_password(inner.password, call).await?
        };
        let change = AuthChange::UserChangePassword { name: inner.name, password_hash };
        Ok(pb::AuthUserChangePasswordResponse { header: self.propose(change, call).await? })
    }

    async fn do_authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<pb::AuthenticateResponse, Failure> {
        let call = self.frontend.admit(Asking::of(&request), rules::AUTHENTICATE, Service::Voters).await?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        self.frontend.linearize(call).await?;
        loop {
            let auth = self.frontend.storage.auth();
            if !auth.is_enabled() {
                return Err(Refusal::Auth(AuthRefusal::NotEnabled).into());
            }
            let user = auth.user(&name).ok_or(Refusal::Auth(AuthRefusal::AuthenticationFailed))?;
            let stored = user.password_hash.clone().ok_or(Failure::Auth(AuthFailure::NoPasswordUser))?;
            if !self.frontend.password_fits(password.clone(), stored, call).await? {
                tracing::info!(user = name, "a login with a wrong password");
                return Err(Refusal::Auth(AuthRefusal::AuthenticationFailed).into());
            }
            if let Some(signer) = &self.frontend.signer {
                // Nothing is written: what has changed since the password was compared ends the token that is given out here.
                let token = signer.sign(&name, auth.revision(), self.frontend.wall());
                let token = token.ok_or(Failure::Auth(AuthFailure::NoSigningKey))?;
                let header = Some(self.frontend.header(self.frontend.current_revision()));
                return Ok(pb::AuthenticateResponse { header, token });
            }
            let letters = tokens::letters(&*self.frontend.rng);
            let token = tokens::digest(&letters);
            let login = Authenticate { user: name.clone(), at: auth.revision(), token };
            let command = Command::Auth(AuthChange::Authenticate(login));
            let answer = self.frontend.propose(command, call).await?;
            match answer.outcome.response {
                // Something has changed since the password was compared; perhaps that.
                Err(Refusal::Auth(AuthRefusal::OldRevision)) => {}
                Err(refusal) => return Err(refusal.into()),
                Ok(_) => {
                    let header = Some(self.frontend.header(answer.outcome.revision));
                    let token = format!("{letters}.{}", answer.log_id.index().get());
                    return Ok(pb::AuthenticateResponse { header, token });
                }
            }
        }
    }
}

fn names<'a, T: 'a>(named: impl Iterator<Item = (&'a str, &'a T)>) -> Vec<String> {
    named.map(|(name, _)| name.to_owned()).collect()
}

/// What only root may look at, unless it is the caller's own.
fn check_look(auth: &Auth, caller: &Caller, is_own: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let is_own = matches!(caller, Caller::User(checked) if is_own(&checked.user));
    match auth.may_manage(caller) {
        Err(refusal) if !is_own => Err(Refusal::Auth(refusal).into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[tonic::async_trait]
impl auth_server::Auth for AuthService {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let header = self.change(Asking::of(&request), rules::AUTH_ENABLE, AuthChange::Enable).await?;
        tracing::info!("auth is on");
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(Asking::of(&request), rules::AUTH_DISABLE, AuthChange::Disable).await?;
        tracing::info!("auth is off");
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::AUTH_STATUS, Service::Voters).await?;
        self.frontend.linearize(call).await?;
        let auth = self.frontend.storage.auth();
        let header = Some(self.frontend.header(self.frontend.current_revision()));
        let auth_revision = auth.revision().get();
        Ok(Response::new(pb::AuthStatusResponse { header, enabled: auth.is_enabled(), auth_revision }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Ok(Response::new(self.do_authenticate(request).await?))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        Ok(Response::new(self.do_user_add(request).await?))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (auth, caller, header) = self.look(Asking::of(&request), rules::USER_GET).await?;
        let name = request.into_inner().name;
        check_look(&auth, &caller, |user| user == name)?;
        let user: &User = auth.user(&name).ok_or(Failure::from(Refusal::Auth(AuthRefusal::UserNotFound)))?;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles: user.roles.clone() }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (auth, caller, header) = self.look(Asking::of(&request), rules::USER_LIST).await?;
        check_look(&auth, &caller, |_| false)?;
        Ok(Response::new(pb::AuthUserListResponse { header, users: names(auth.users()) }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let change = AuthChange::UserDelete { name: request.get_ref().name.clone() };
        let header = self.change(Asking::of(&request), rules::USER_DELETE, change).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        Ok(Response::new(self.do_user_change_password(request).await?))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let pb::AuthUserGrantRoleRequest { user, role } = request.get_ref().clone();
        let change = AuthChange::UserGrantRole { user, role };
        let header = self.change(Asking::of(&request), rules::USER_GRANT_ROLE, change).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let pb::AuthUserRevokeRoleRequest { name, role } = request.get_ref().clone();
        let change = AuthChange::UserRevokeRole { user: name, role };
        let header = self.change(Asking::of(&request), rules::USER_REVOKE_ROLE, change).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let change = AuthChange::RoleAdd { name: request.get_ref().name.clone() };
        let header = self.change(Asking::of(&request), rules::ROLE_ADD, change).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (auth, caller, header) = self.look(Asking::of(&request), rules::ROLE_GET).await?;
        let name = request.into_inner().role;
        check_look(&auth, &caller, |user| auth.has_role(user, &name))?;
        let role = auth.role(&name).ok_or(Failure::from(Refusal::Auth(AuthRefusal::RoleNotFound)))?;
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm: codec::permissions(role) }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (auth, caller, header) = self.look(Asking::of(&request), rules::ROLE_LIST).await?;
        check_look(&auth, &caller, |_| false)?;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles: names(auth.roles()) }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let change = AuthChange::RoleDelete { name: request.get_ref().role.clone() };
        let header = self.change(Asking::of(&request), rules::ROLE_DELETE, change).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let pb::AuthRoleGrantPermissionRequest { name, perm } = request.get_ref().clone();
        let rpc = rules::ROLE_GRANT_PERMISSION;
        let call = self.frontend.admit(Asking::of(&request), rpc, Service::Voters).await?;
        // etcd stores one of another kind, and panics when it is used.
        let permission =
            perm.and_then(codec::permission).ok_or(Failure::Auth(AuthFailure::PermissionNotGiven))?;
        let change = AuthChange::RoleGrantPermission { role: name, permission };
        let header = self.propose(change, call).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let pb::AuthRoleRevokePermissionRequest { role, key, range_end } = request.get_ref().clone();
        let change = AuthChange::RoleRevokePermission { role, range: key_range(key, range_end) };
        let header = self.change(Asking::of(&request), rules::ROLE_REVOKE_PERMISSION, change).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
