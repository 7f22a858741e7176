//! Who the client is: a name and a password, and the token that a server gives for them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_proto::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

use crate::client::{Client, Repeat};
use crate::error::Error;

/// What servers say of a token that they do not know, of one from before a change of users and roles, and of none.
const TOKEN_FAILURES: [&str; 3] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
    "etcdserver: user name is empty",
];
/// What they say to a name and a password when they ask for none.
const NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

/// A name and a password. Its debug text has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// Those of a user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What a call shows.
#[derive(Debug, Clone)]
pub(crate) enum Token {
    /// This, marked as sensitive. The number tells it from later ones.
    Some(MetadataValue<Ascii>, u64),
    /// Nothing: the server asks for none.
    Unneeded(u64),
}

impl Token {
    fn number(&self) -> u64 {
        match self {
            Self::Some(_, number) | Self::Unneeded(number) => *number,
        }
    }
}

/// The token of a client that has credentials.
#[derive(Debug)]
pub(crate) struct Tokens {
    credentials: Credentials,
    current: Mutex<Current>,
    /// Held by the one call that asks for a new token; the others wait for it.
    asking: tokio::sync::Mutex<()>,
}

/// Written by who holds `asking`, and by whoever finds a token to be invalid.
#[derive(Debug, Default)]
struct Current {
    token: Option<Token>,
    number_last: u64,
}

impl Tokens {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials, current: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This token is of no use; another may have been got meanwhile, and is.
    pub(crate) fn forget(&self, token: &Token) {
        let mut current = self.lock();
        if current.token.as_ref().is_some_and(|held| held.number() == token.number()) {
            current.token = None;
        }
    }

    fn keep(&self, token: Option<MetadataValue<Ascii>>) -> Token {
        let mut current = self.lock();
        current.number_last += 1;
        let number = current.number_last;
        let token = token.map_or(Token::Unneeded(number), |token| Token::Some(token, number));
        current.token = Some(token.clone());
        token
    }
}

/// A token that is being asked for; `None` when the server asks for none.
type Asked<'a> = Pin<Box<dyn Future<Output = Result<Option<MetadataValue<Ascii>>, Error>> + Send + 'a>>;

impl Client {
    /// The token to show, got now if there is none; `None` for a client without credentials.
    ///
    /// Errors: as [`Error`] says; a wrong name or password is refused.
    pub(crate) async fn token(&self) -> Result<Option<Token>, Error> {
        let Some(tokens) = self.tokens() else { return Ok(None) };
        let held = |tokens: &Tokens| tokens.lock().token.clone();
        if let Some(token) = held(tokens) {
            return Ok(Some(token));
        }
        let _asking = tokens.asking.lock().await;
        if let Some(token) = held(tokens) {
            return Ok(Some(token));
        }
        let token = self.authenticate(&tokens.credentials).await?;
        Ok(Some(tokens.keep(token)))
    }

    /// Asks for a token. Boxed, because it is a call itself, and each call may ask for one.
    fn authenticate<'a>(&'a self, credentials: &'a Credentials) -> Asked<'a> {
        let request = pb::AuthenticateRequest {
            name: credentials.user.clone(),
            password: credentials.password.clone(),
        };
        Box::pin(async move {
            let ask = async |channel, request| AuthClient::new(channel).authenticate(request).await;
            let answer = self.call_without_token(Repeat::Harmless, request, ask, |answer| {
                let mut token: MetadataValue<Ascii> = answer
                    .token
                    .parse()
                    .map_err(|_| Status::internal("the answer has a token that is none"))?;
                token.set_sensitive(true);
                Ok(token)
            });
            match answer.await {
                Ok(token) => Ok(Some(token)),
                Err(Error::Refused { code: Code::FailedPrecondition, message }) if message == NOT_ENABLED => {
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })
    }
}

/// Shows it.
pub(crate) fn show<T>(request: &mut Request<T>, token: Option<&Token>) {
    if let Some(Token::Some(token, _)) = token {
        request.metadata_mut().insert("token", token.clone());
    }
}

/// Whether another token may help. Nothing happened then.
pub(crate) fn is_token_failure(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::InvalidArgument)
        && TOKEN_FAILURES.contains(&status.message())
}

/// Whether a watch was refused for its token, by the words that refuse it.
pub(crate) fn token_failure_in(reason: &str) -> Option<Status> {
    let text = TOKEN_FAILURES.into_iter().find(|text| reason.contains(text))?;
    Some(Status::unauthenticated(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_and_no_token_is_in_a_debug_text() {
        let tokens = Tokens::new(Credentials::new("alice", "pass-1234"));
        let mut token: MetadataValue<Ascii> = "token-5678.9".parse().unwrap();
        token.set_sensitive(true);
        tokens.keep(Some(token));
        let text = format!("{tokens:?}");
        assert!(text.contains("alice") && !text.contains("1234") && !text.contains("5678"), "{text}");
    }

    #[test]
    fn a_token_that_was_replaced_is_not_forgotten_twice() {
        let tokens = Tokens::new(Credentials::new("alice", ""));
        let first = tokens.keep(None);
        tokens.forget(&first);
        let second = tokens.keep(None);
        tokens.forget(&first);
        assert!(tokens.lock().token.is_some());
        tokens.forget(&second);
        assert!(tokens.lock().token.is_none());
    }

    #[test]
    fn what_a_watch_is_refused_for_is_told_from_its_words() {
        let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
        assert!(is_token_failure(&token_failure_in(reason).unwrap()));
        assert!(
            token_failure_in("rpc error: code = PermissionDenied desc = etcdserver: permission denied")
                .is_none()
        );
        assert!(is_token_failure(&Status::invalid_argument("etcdserver: user name is empty")));
        assert!(!is_token_failure(&Status::invalid_argument("etcdserver: key is not provided")));
    }
}
