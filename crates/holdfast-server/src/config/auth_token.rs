//! `--auth-token`: which tokens there are, in etcd's form.

use std::time::Duration;

use super::ConfigError;
use super::flags::value::duration;
use crate::auth::signed::{Method, SignedConfig};

/// How long a signed token lives when the flag does not say it. etcd's default.
const TTL: Duration = Duration::from_secs(5 * 60);

/// How tokens are signed; none for random ones.
///
/// Errors: no form of etcd's, or one that cannot work.
pub(super) fn signed(text: &str) -> Result<Option<SignedConfig>, ConfigError> {
    let refused = |rule: String| super::value("auth-token", text, rule);
    let (kind, options) = text.split_once(',').unwrap_or((text, ""));
    match kind {
        "" | "simple" => return Ok(None),
        "jwt" => {}
        _ => return Err(refused("it must be simple, or jwt with its keys".to_owned())),
    }
    let (mut method, mut public_key, mut private_key, mut ttl) = (None, None, None, TTL);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) =
            option.split_once('=').ok_or_else(|| refused(format!("{option} is no name=value")))?;
        match name {
            "sign-method" => {
                let named = Method::named(value);
                method = Some(
                    named
                        .ok_or_else(|| refused(format!("sign-method must be one of {}", Method::names())))?,
                );
            }
            "pub-key" => public_key = Some(value.into()),
            "priv-key" => private_key = Some(value.into()),
            "ttl" => {
                let time = duration(value).map_err(|rule| refused(format!("ttl: {rule}")))?;
                ttl = Some(time)
                    .filter(|time| time.as_secs() > 0)
                    .ok_or_else(|| refused("ttl must be at least a second".to_owned()))?;
            }
            _ => return Err(refused(format!("{name} is none of sign-method, pub-key, priv-key, ttl"))),
        }
    }
    let method = method.ok_or_else(|| refused("sign-method is missing".to_owned()))?;
    if method.is_shared_secret() {
        if private_key.is_none() {
            return Err(refused("priv-key, with the secret, is missing".to_owned()));
        }
        public_key = None;
    } else if public_key.is_none() {
        return Err(refused(
            "pub-key is missing; of a private key it is written by: openssl pkey -pubout".to_owned(),
        ));
    }
    Ok(Some(SignedConfig { method, public_key, private_key, ttl }))
}
