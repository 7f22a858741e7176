//! Who calls, and whether they may: tokens, passwords and the rule of each RPC.
//!
//! Users, roles and permissions are replicated, and so is the judgement of a command, which comes when it is evaluated:
//! see `holdfast_mvcc::auth`. Here is what belongs to one member. A call names a token in its metadata; with auth off
//! nobody looks at it, and a check costs one relaxed load.
//!
//! # Tokens
//! `<16 random letters>.<log index>`, as etcd's. A login is replicated, so that a token is good on every member, as in
//! etcd; the log has a digest of the letters only, so that who reads a disk cannot use what is there. The index tells a
//! member that is behind how long to wait before it says that it does not know the token. Each member lets a token end
//! when it was not used there for `--auth-token-ttl`. What else ends it (the password, the user, auth) is looked up
//! with each use, so that nothing has to be told to anyone. A restart forgets
//! tokens, but for those whose entries it replays.
//!
//! With `--auth-token jwt` tokens are signed instead, say themselves whose they are, and are kept nowhere: [`signed`].
//!
//! # Certificates
//! With `--client-cert-auth`, a call without a token is its certificate's common name's, as in etcd. Nothing has to be
//! looked up: whoever the name is may do is judged with each use.
//!
//! # Invariants
//! - A call is judged by what its member has applied when it is judged, never by what its token once was good for.
//! - What was read is told only to who may still read it when it has been read.
//! - A write that is refused because of what this member knows is refused only after a confirmation by the leader: it
//!   may have been permitted elsewhere a moment ago.
//!
//! Module map: [`rules`] the rule of each RPC, [`tokens`] those that are good here, [`signed`] JSON Web Tokens, [`certificates`] names in clients'
//! certificates, [`password`] hashes.

pub mod certificates;
pub mod password;
pub mod rules;
pub mod signed;
pub mod tokens;

use holdfast_mvcc::auth::TokenDigest;
use tonic::Request;
use tonic::metadata::MetadataMap;

use certificates::CertificateId;
use signed::SignedConfig;

/// How members check who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// How tokens are signed; without it they are random, and kept by the members.
    pub signed: Option<SignedConfig>,
    /// A token ends when it was not used for so long.
    pub token_ttl: std::time::Duration,
    /// How costly a password is to compare: twice as much for each one more.
    pub bcrypt_cost: u32,
}

/// Who a call is from, as far as its metadata says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The member itself.
    Server,
    /// A client that names no token, or one whose token does not matter.
    Nobody,
    /// A client with this token.
    Token(TokenDigest),
    /// A client without a token, whose connection has shown this certificate.
    Certificate(CertificateId),
}

/// What a request says beside its message.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Its headers.
    pub metadata: &'a MetadataMap,
    /// What its connection has shown.
    pub certificate: Option<CertificateId>,
}

impl<'a> Asking<'a> {
    /// Of a request.
    pub fn of<T>(request: &'a Request<T>) -> Self {
        Self { metadata: request.metadata(), certificate: request.extensions().get().copied() }
    }
}

/// The token that a call names, if it names one.
pub fn named(metadata: &MetadataMap) -> Option<&str> {
    // The gateway's name for it counts only when the other one is not there.
    let value = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    let text = value.to_str().unwrap_or_default();
    Some(text.strip_prefix("Bearer ").unwrap_or(text))
}
