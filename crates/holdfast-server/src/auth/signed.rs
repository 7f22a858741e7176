//! Signed tokens: JSON Web Tokens (RFC 7519) as etcd's `--auth-token jwt` makes them.
//!
//! A token says whose it is (`username`), as of which auth revision it was given out (`revision`), and when it ends (`exp`).
//! No member keeps it: whoever has the public key can check it, so that a restart forgets nobody, and a login writes
//! nothing to the log. It ends by its time, however much it is used, and before that as other tokens do: with the user, its
//! password, and auth. etcd also ends it with any other change of users or roles; here that is not needed, as
//! permissions are judged as of now.
//!
//! What it leaves out: ES512, which the cryptography of this build (ring) does not have; keys that are replaced without
//! a restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_env::UnixMillis;
use holdfast_mvcc::auth::AuthRevision;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// How tokens are signed: `--auth-token jwt,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedConfig {
    /// The algorithm.
    pub method: Method,
    /// The public key, PEM; without one for a shared secret.
    pub public_key: Option<PathBuf>,
    /// The private key, PEM, or the shared secret. A member without it checks tokens, and gives out none.
    pub private_key: Option<PathBuf>,
    /// How long a token lives.
    pub ttl: Duration,
}

/// An algorithm, by the name that RFC 7518 gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method(Algorithm);

/// The algorithms there are.
const METHODS: [(&str, Algorithm); 12] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("EdDSA", Algorithm::EdDSA),
];

impl Method {
    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| Self(*method))
    }

    /// All names, for messages.
    pub fn names() -> String {
        METHODS.map(|(name, _)| name).join(", ")
    }

    /// Whether the same secret signs and checks.
    pub fn is_shared_secret(self) -> bool {
        matches!(self.0, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
    }

    fn decoding_key(self, pem: &[u8]) -> jsonwebtoken::errors::Result<DecodingKey> {
        match self.0 {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Ok(DecodingKey::from_secret(pem)),
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
            _ => DecodingKey::from_rsa_pem(pem),
        }
    }

    fn encoding_key(self, pem: &[u8]) -> jsonwebtoken::errors::Result<EncodingKey> {
        match self.0 {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Ok(EncodingKey::from_secret(pem)),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
            _ => EncodingKey::from_rsa_pem(pem),
        }
    }
}

/// Why tokens cannot be signed, or checked.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A file cannot be read.
    #[error("--auth-token: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold such a key.
    #[error(
        "--auth-token: {} holds no key for this sign-method ({source}); private keys have to be PKCS#8, or PKCS#1 for RSA: \
         openssl pkcs8 -topk8 -nocrypt writes one",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What the library said.
        source: jsonwebtoken::errors::Error,
    },
    /// A shared secret that anybody can guess.
    #[error("--auth-token: {} is too short for a secret: it needs at least {SECRET_BYTES_MIN} bytes", path.display())]
    ShortSecret {
        /// The file.
        path: PathBuf,
    },
    /// What the private key signs the public key does not accept.
    #[error("--auth-token: pub-key and priv-key do not belong together")]
    Pair,
}

/// The shortest shared secret: as long as the shortest of the hashes (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    username: String,
    revision: u64,
    /// Seconds since 1970.
    exp: u64,
}

/// What a token that was checked says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Whose it is.
    pub user: String,
    /// As of when it was given out.
    pub given_out: AuthRevision,
    /// How long it lives from now on.
    pub left: Duration,
}

/// Signs and checks tokens.
pub struct Signer {
    method: Method,
    checks: DecodingKey,
    signs: Option<EncodingKey>,
    ttl: Duration,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys stay out of logs.
        f.debug_struct("Signer").field("method", &self.method).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the keys.
    ///
    /// # Errors
    /// A file that cannot be read or holds no such key, or keys that do not belong together.
    pub fn load(config: &SignedConfig) -> Result<Self, SigningError> {
        let method = config.method;
        let private = config.private_key.as_deref().map(read).transpose()?;
        let public = config.public_key.as_deref().map(read).transpose()?;
        if let (true, Some((secret, path))) = (method.is_shared_secret(), &private)
            && secret.len() < SECRET_BYTES_MIN
        {
            return Err(SigningError::ShortSecret { path: path.clone() });
        }
        let key = |(path, source)| SigningError::Key { path, source };
        // The configuration has seen to it that one of them is there.
        let (bytes, path) =
            public.as_ref().or(private.as_ref()).expect("a checked configuration names a key");
        let checks = method.decoding_key(bytes).map_err(|source| key((path.clone(), source)))?;
        let signs = private
            .map(|(bytes, path)| method.encoding_key(&bytes).map_err(|source| key((path, source))))
            .transpose()?;
        let signer = Self { method, checks, signs, ttl: config.ttl };
        if signer.signs.is_some() {
            let now = UnixMillis(0);
            let token = signer.sign("", AuthRevision::FRESH, now).ok_or(SigningError::Pair)?;
            signer.check(&token, now).ok_or(SigningError::Pair)?;
        }
        Ok(signer)
    }

    /// A token for the user; none when this member has no key to sign it with.
    pub fn sign(&self, user: &str, as_of: AuthRevision, now: UnixMillis) -> Option<String> {
        let exp = now.0 / 1000 + self.ttl.as_secs();
        let claims = Claims { username: user.to_owned(), revision: as_of.get(), exp };
        let key = self.signs.as_ref()?;
        let signed = jsonwebtoken::encode(&Header::new(self.method.0), &claims, key);
        signed.inspect_err(|error| tracing::error!(%error, "a token could not be signed")).ok()
    }

    /// What a token says; none when it was not signed with our key by our algorithm, or has ended.
    pub fn check(&self, token: &str, now: UnixMillis) -> Option<Signed> {
        let mut rules = Validation::new(self.method.0);
        // By our own clock, below.
        rules.validate_exp = false;
        rules.validate_aud = false;
        rules.required_spec_claims.clear();
        let Claims { username, revision, exp } =
            jsonwebtoken::decode::<Claims>(token, &self.checks, &rules).ok()?.claims;
        let left = exp.checked_mul(1000)?.checked_sub(now.0).filter(|left| *left > 0)?;
        let (given_out, left) = (AuthRevision::new(revision), Duration::from_millis(left));
        Some(Signed { user: username, given_out, left })
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, PathBuf), SigningError> {
    let bytes =
        std::fs::read(path).map_err(|source| SigningError::Unreadable { path: path.to_owned(), source })?;
    Ok((bytes, path.to_owned()))
}

#[cfg(test)]
mod tests;
