//! `role`.

use std::ffi::{OsStr, OsString};

use clap::{Args, Subcommand};
use holdfast_proto::authpb::{Permission, permission::Type};
use holdfast_proto::etcdserverpb as pb;
use prost::Message;

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::output::answer::{self, Said};
use crate::output::quote::quoted;
use crate::output::{Format, Look, NO_TABLE, Out, View, json, push};
use crate::range::{Keys, Reach, ZERO, prefix_end};
use crate::user::NoWords;

/// The commands of `role`.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Makes a role
    Add {
        /// The role
        #[arg(value_name = "ROLE")]
        words: Vec<String>,
    },
    /// Removes a role
    Delete {
        /// The role
        #[arg(value_name = "ROLE")]
        words: Vec<String>,
    },
    /// What a role allows
    Get {
        /// The role
        #[arg(value_name = "ROLE")]
        words: Vec<String>,
    },
    /// All roles
    List(NoWords),
    /// Lets a role read, write or readwrite a key or a range
    GrantPermission(Grant),
    /// Takes that back
    RevokePermission(Revoke),
}

/// Flags of `role grant-permission`.
#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// The role; read, write or readwrite; a key, and the end of a range, exclusive
    #[arg(value_name = "ROLE KIND KEY [END]")]
    words: Vec<OsString>,
    #[command(flatten)]
    reach: ReachFlags,
}

/// Flags of `role revoke-permission`.
#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The role; a key, and the end of a range, exclusive
    #[arg(value_name = "ROLE KEY [END]")]
    words: Vec<OsString>,
    #[command(flatten)]
    reach: ReachFlags,
}

/// Which keys are meant.
#[derive(Debug, Args)]
struct ReachFlags {
    /// All keys that begin so
    #[arg(long)]
    prefix: bool,
    /// All keys that are not less
    #[arg(long)]
    from_key: bool,
}

impl ReachFlags {
    /// Of permissions the empty key is the least one, also by itself.
    fn keys(&self, words: &[OsString]) -> Result<Keys, CtlError> {
        let reach = Reach::of_flags(self.prefix, self.from_key)?;
        if words.first().is_some_and(|key| key.is_empty()) {
            let end = if reach == Reach::Words { &b""[..] } else { ZERO };
            return Ok(Keys { key: ZERO.into(), end: bytes::Bytes::from_static(end) });
        }
        Keys::of_words(words, reach)
    }
}

/// `role`.
pub(crate) async fn role(client: &Client, out: Out, command: &RoleCommand) -> Done {
    match command {
        RoleCommand::Add { words } => {
            let name = one(words)?;
            out.has::<Said<pb::AuthRoleAddResponse>>()?;
            let request = pb::AuthRoleAddRequest { name: name.clone() };
            let answer =
                client.write(async |conn| service::auth(conn).role_add(request.clone()).await).await?;
            out.show(&Said { text: format!("Role {name} created\n"), answer })
        }
        RoleCommand::Delete { words } => {
            let role = one(words)?;
            out.has::<Said<pb::AuthRoleDeleteResponse>>()?;
            let request = pb::AuthRoleDeleteRequest { role: role.clone() };
            let answer =
                client.write(async |conn| service::auth(conn).role_delete(request.clone()).await).await?;
            out.show(&Said { text: format!("Role {role} deleted\n"), answer })
        }
        RoleCommand::Get { words } => {
            out.has::<Allowed>()?;
            show(client, out, one(words)?.clone()).await
        }
        RoleCommand::List(words) => {
            words.check()?;
            out.has::<pb::AuthRoleListResponse>()?;
            let ask = async |conn| service::auth(conn).role_list(pb::AuthRoleListRequest {}).await;
            out.show(&client.read(ask).await?)
        }
        RoleCommand::GrantPermission(flags) => grant(client, out, flags).await,
        RoleCommand::RevokePermission(flags) => revoke(client, out, flags).await,
    }
}

fn one(words: &[String]) -> Result<&String, CtlError> {
    match words {
        [role] => Ok(role),
        _ => Err(CtlError::Arguments("this takes the name of one role".to_owned())),
    }
}

/// Shows what a role allows.
pub(crate) async fn show(client: &Client, out: Out, role: String) -> Done {
    let request = pb::AuthRoleGetRequest { role: role.clone() };
    let answer = client.read(async |conn| service::auth(conn).role_get(request.clone()).await).await?;
    out.show(&Allowed { role, answer })
}

async fn grant(client: &Client, out: Out, flags: &Grant) -> Done {
    let [role, kind, keys @ ..] = &flags.words[..] else { return Err(too_few()) };
    if keys.is_empty() {
        return Err(too_few());
    }
    let kind = match kind.to_string_lossy().to_uppercase().as_str() {
        "READ" => Type::Read,
        "WRITE" => Type::Write,
        "READWRITE" => Type::Readwrite,
        other => {
            return Err(CtlError::Arguments(format!(
                "a permission is read, write or readwrite, and not {other}"
            )));
        }
    };
    let name = text(role)?;
    let Keys { key, end } = flags.reach.keys(keys)?;
    out.has::<Said<pb::AuthRoleGrantPermissionResponse>>()?;
    let perm = Some(Permission { perm_type: kind.into(), key, range_end: end });
    let request = pb::AuthRoleGrantPermissionRequest { name: name.clone(), perm };
    let ask = async |conn| service::auth(conn).role_grant_permission(request.clone()).await;
    let answer = client.write(ask).await?;
    out.show(&Said { text: format!("Role {name} updated\n"), answer })
}

async fn revoke(client: &Client, out: Out, flags: &Revoke) -> Done {
    let [role, keys @ ..] = &flags.words[..] else { return Err(too_few()) };
    let Some(word) = keys.first() else { return Err(too_few()) };
    let role = text(role)?;
    let Keys { key, end } = flags.reach.keys(keys)?;
    out.has::<Said<pb::AuthRoleRevokePermissionResponse>>()?;
    let request = pb::AuthRoleRevokePermissionRequest { role: role.clone(), key, range_end: end.clone() };
    let ask = async |conn| service::auth(conn).role_revoke_permission(request.clone()).await;
    let answer = client.write(ask).await?;
    let key = word.to_string_lossy();
    let what = match &end[..] {
        [] => format!("key {key}"),
        ZERO => format!("range [{key}, <open ended>"),
        end => format!("range [{key}, {})", String::from_utf8_lossy(end)),
    };
    out.show(&Said { text: format!("Permission of {what} is revoked from role {role}\n"), answer })
}

fn too_few() -> CtlError {
    CtlError::Arguments("a role, a kind where one is granted, and a key are wanted".to_owned())
}

fn text(word: &OsStr) -> Result<String, CtlError> {
    let text = word.to_str().ok_or_else(|| CtlError::Arguments("a role's name is text".to_owned()))?;
    Ok(text.to_owned())
}

/// What a role allows.
struct Allowed {
    role: String,
    answer: pb::AuthRoleGetResponse,
}

impl View for Allowed {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        push(text, &format!("Role {}", self.role));
        for (title, other) in [("KV Read:", Type::Write), ("KV Write:", Type::Read)] {
            push(text, title);
            self.answer
                .perm
                .iter()
                .filter(|perm| perm.perm_type() != other)
                .for_each(|perm| range(text, perm));
        }
    }

    fn fields(&self, text: &mut Vec<u8>) {
        answer::header(text, self.answer.header.as_ref());
        for perm in &self.answer.perm {
            push(text, &format!("\"PermType\" :  {}", perm.perm_type().as_str_name()));
            push(text, &format!("\"Key\" : {}", quoted(&perm.key)));
            push(text, &format!("\"RangeEnd\" : {}", quoted(&perm.range_end)));
        }
    }

    fn json(&self, _: Look) -> String {
        json::message(&self.answer)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.answer.encode_to_vec()
    }
}

fn range(text: &mut Vec<u8>, perm: &Permission) {
    let (key, end) = (&perm.key[..], &perm.range_end[..]);
    let mut add = |pieces: &[&[u8]]| pieces.iter().for_each(|piece| text.extend_from_slice(piece));
    match end {
        [] => add(&[b"\t", key]),
        ZERO => add(&[b"\t[", key, b", <open ended>"]),
        end => add(&[b"\t[", key, b", ", end, b")"]),
    }
    if !end.is_empty() && prefix_end(key) == end {
        add(&[b" (prefix ", key, b")"]);
    }
    add(&[b"\n"]);
}

impl View for pb::AuthRoleListResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        self.roles.iter().for_each(|role| push(text, role));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        answer::header(text, self.header.as_ref());
        let roles: String = self.roles.iter().map(|role| format!(" {}", quoted(role.as_bytes()))).collect();
        push(text, &format!("\"Roles\" :{roles}"));
    }

    fn json(&self, _: Look) -> String {
        json::message(self)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
