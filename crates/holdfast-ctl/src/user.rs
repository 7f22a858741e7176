//! `auth` and `user`.

use clap::{Args, Subcommand};
use holdfast_proto::{authpb, etcdserverpb as pb};

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::global::truth;
use crate::output::answer::{Said, SaidWithoutFields};
use crate::output::{self, Out};
use crate::{role, terminal};

/// What a server says to `auth enable` before there is the role root.
const NO_ROOT_ROLE: &str = "etcdserver: root user does not have root role";

/// The role, and its only possible holder.
const ROOT: &str = "root";

/// The commands of `auth`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Switches authentication on; the user root has to be there
    Enable(NoWords),
    /// Switches it off
    Disable(NoWords),
    /// Whether it is on
    Status(NoWords),
}

/// For commands that take no words.
#[derive(Debug, Args)]
pub(crate) struct NoWords {
    #[arg(hide = true)]
    words: Vec<String>,
}

impl NoWords {
    /// Errors: when there are some.
    pub(crate) fn check(&self) -> Done {
        match self.words.first() {
            Some(word) => Err(CtlError::Arguments(format!("this takes no words, such as {word}"))),
            None => Ok(()),
        }
    }
}

/// The commands of `user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Makes a user
    Add(Add),
    /// Removes a user
    Delete {
        /// The user
        #[arg(value_name = "USER")]
        words: Vec<String>,
    },
    /// The roles of a user
    Get(Get),
    /// All users
    List(NoWords),
    /// Changes the password of a user
    Passwd(Passwd),
    /// Gives a user a role
    GrantRole {
        /// The user and the role
        #[arg(value_name = "USER ROLE")]
        words: Vec<String>,
    },
    /// Takes a role from a user
    RevokeRole {
        /// The user and the role
        #[arg(value_name = "USER ROLE")]
        words: Vec<String>,
    },
}

/// Flags of `user add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The user, or user:password
    #[arg(value_name = "USER[:PASSWORD]")]
    words: Vec<String>,
    /// Ask for the password on the terminal; with =false its first word is read from standard input
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", value_parser = truth)]
    interactive: bool,
    /// The password
    #[arg(long, default_value = "")]
    new_user_password: String,
    /// Make a user without a password, for the name in a certificate
    #[arg(long)]
    no_password: bool,
}

/// Flags of `user get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The user
    #[arg(value_name = "USER")]
    words: Vec<String>,
    /// What each role allows, too
    #[arg(long)]
    detail: bool,
}

/// Flags of `user passwd`.
#[derive(Debug, Args)]
pub(crate) struct Passwd {
    /// The user
    #[arg(value_name = "USER")]
    words: Vec<String>,
    /// Ask for the password on the terminal; with =false its first word is read from standard input
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", default_value = "true", value_parser = truth)]
    interactive: bool,
}

/// `auth`.
pub(crate) async fn auth(client: &Client, out: Out, command: &AuthCommand) -> Done {
    match command {
        AuthCommand::Enable(words) => {
            words.check()?;
            enable(client).await?;
            output::line("Authentication Enabled")
        }
        AuthCommand::Disable(words) => {
            words.check()?;
            client
                .write(async |conn| service::auth(conn).auth_disable(pb::AuthDisableRequest {}).await)
                .await?;
            output::line("Authentication Disabled")
        }
        AuthCommand::Status(words) => {
            words.check()?;
            out.has::<SaidWithoutFields<pb::AuthStatusResponse>>()?;
            let ask = async |conn| service::auth(conn).auth_status(pb::AuthStatusRequest {}).await;
            let answer = client.read(ask).await?;
            let pb::AuthStatusResponse { enabled, auth_revision, .. } = answer;
            let text = format!("Authentication Status: {enabled}\nAuthRevision: {auth_revision}\n");
            out.show(&SaidWithoutFields(Said { text, answer }))
        }
    }
}

/// Gives root its role where that is missing.
async fn enable(client: &Client) -> Done {
    let enable = async |conn| service::auth(conn).auth_enable(pb::AuthEnableRequest {}).await;
    match client.write(enable).await {
        Err(error) if error.says(NO_ROOT_ROLE) => {
            let role = pb::AuthRoleAddRequest { name: ROOT.to_owned() };
            client.write(async |conn| service::auth(conn).role_add(role.clone()).await).await?;
            let grant = pb::AuthUserGrantRoleRequest { user: ROOT.to_owned(), role: ROOT.to_owned() };
            client.write(async |conn| service::auth(conn).user_grant_role(grant.clone()).await).await?;
            client.write(enable).await.map(drop)
        }
        ended => ended.map(drop),
    }
}

/// `user`.
pub(crate) async fn user(client: &Client, out: Out, command: &UserCommand) -> Done {
    match command {
        UserCommand::Add(flags) => add(client, out, flags).await,
        UserCommand::Delete { words } => {
            let name = one(words)?;
            out.has::<Said<pb::AuthUserDeleteResponse>>()?;
            let request = pb::AuthUserDeleteRequest { name: name.clone() };
            let answer =
                client.write(async |conn| service::auth(conn).user_delete(request.clone()).await).await?;
            out.show(&Said { text: format!("User {name} deleted\n"), answer })
        }
        UserCommand::Get(flags) => get(client, out, flags).await,
        UserCommand::List(words) => {
            words.check()?;
            out.has::<SaidWithoutFields<pb::AuthUserListResponse>>()?;
            let ask = async |conn| service::auth(conn).user_list(pb::AuthUserListRequest {}).await;
            let answer = client.read(ask).await?;
            let text = answer.users.iter().map(|user| format!("{user}\n")).collect();
            out.show(&SaidWithoutFields(Said { text, answer }))
        }
        UserCommand::Passwd(flags) => passwd(client, out, flags).await,
        UserCommand::GrantRole { words } => {
            let [user, role] = two(words)?;
            out.has::<Said<pb::AuthUserGrantRoleResponse>>()?;
            let request = pb::AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
            let ask = async |conn| service::auth(conn).user_grant_role(request.clone()).await;
            let answer = client.write(ask).await?;
            out.show(&Said { text: format!("Role {role} is granted to user {user}\n"), answer })
        }
        UserCommand::RevokeRole { words } => {
            let [name, role] = two(words)?;
            out.has::<Said<pb::AuthUserRevokeRoleResponse>>()?;
            let request = pb::AuthUserRevokeRoleRequest { name: name.clone(), role: role.clone() };
            let ask = async |conn| service::auth(conn).user_revoke_role(request.clone()).await;
            let answer = client.write(ask).await?;
            out.show(&Said { text: format!("Role {role} is revoked from user {name}\n"), answer })
        }
    }
}

fn one(words: &[String]) -> Result<&String, CtlError> {
    match words {
        [user] => Ok(user),
        _ => Err(CtlError::Arguments("this takes the name of one user".to_owned())),
    }
}

fn two(words: &[String]) -> Result<[&String; 2], CtlError> {
    match words {
        [user, role] => Ok([user, role]),
        _ => Err(CtlError::Arguments("this takes the name of a user, and of a role".to_owned())),
    }
}

async fn add(client: &Client, out: Out, flags: &Add) -> Done {
    let word = one(&flags.words)?;
    let (name, password) = if flags.no_password {
        (word.clone(), String::new())
    } else if !flags.new_user_password.is_empty() {
        (word.clone(), flags.new_user_password.clone())
    } else if let Some((name, password)) = word.split_once(':') {
        (name.to_owned(), password.to_owned())
    } else {
        (word.clone(), password(word, flags.interactive).await?)
    };
    if name.is_empty() && !flags.no_password && word.contains(':') {
        return Err(CtlError::Arguments("a user has a name".to_owned()));
    }
    out.has::<Said<pb::AuthUserAddResponse>>()?;
    let options = Some(authpb::UserAddOptions { no_password: flags.no_password });
    let request = pb::AuthUserAddRequest { name: name.clone(), password, options, ..Default::default() };
    let answer = client.write(async |conn| service::auth(conn).user_add(request.clone()).await).await?;
    out.show(&Said { text: format!("User {name} created\n"), answer })
}

async fn password(name: &str, is_interactive: bool) -> Result<String, CtlError> {
    if is_interactive { terminal::new_password(name).await } else { terminal::word().await }
}

async fn get(client: &Client, out: Out, flags: &Get) -> Done {
    let name = one(&flags.words)?;
    out.has::<SaidWithoutFields<pb::AuthUserGetResponse>>()?;
    let request = pb::AuthUserGetRequest { name: name.clone() };
    let answer = client.read(async |conn| service::auth(conn).user_get(request.clone()).await).await?;
    if !flags.detail {
        let roles: String = answer.roles.iter().map(|role| format!(" {role}")).collect();
        let text = format!("User: {name}\nRoles:{roles}\n");
        return out.show(&SaidWithoutFields(Said { text, answer }));
    }
    output::line(&format!("User: {name}"))?;
    for role in answer.roles {
        output::line("")?;
        role::show(client, out, role).await?;
    }
    Ok(())
}

async fn passwd(client: &Client, out: Out, flags: &Passwd) -> Done {
    let name = one(&flags.words)?;
    let password = password(name, flags.interactive).await?;
    out.has::<Said<pb::AuthUserChangePasswordResponse>>()?;
    let request = pb::AuthUserChangePasswordRequest { name: name.clone(), password, ..Default::default() };
    let ask = async |conn| service::auth(conn).user_change_password(request.clone()).await;
    out.show(&Said { text: "Password updated\n".to_owned(), answer: client.write(ask).await? })
}
