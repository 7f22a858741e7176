//! Tests of signed tokens, with keys that openssl has made.

use super::*;

/// Seconds of a token's life.
const TTL: Duration = Duration::from_secs(60);

/// Where the test keys are.
fn keys() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys")
}

fn config(method: &str) -> SignedConfig {
    let method = Method::named(method).unwrap();
    let name = match method.0 {
        Algorithm::ES256 => "es256",
        Algorithm::ES384 => "es384",
        Algorithm::EdDSA => "ed25519",
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => "secret",
        _ => "rsa",
    };
    let public = keys().join(format!("{name}.pub"));
    let private_key = Some(keys().join(format!("{name}.key")));
    SignedConfig { method, public_key: (name != "secret").then_some(public), private_key, ttl: TTL }
}

const NOW: UnixMillis = UnixMillis(1_700_000_000_500);

#[test]
fn every_method_signs_and_checks_and_takes_no_other_ones_tokens() {
    let signers: Vec<Signer> = METHODS.iter().map(|(name, _)| Signer::load(&config(name)).unwrap()).collect();
    for signer in &signers {
        let token = signer.sign("alice", AuthRevision::new(7), NOW).unwrap();
        let signed = signer.check(&token, NOW).unwrap();
        assert_eq!((&*signed.user, signed.given_out), ("alice", AuthRevision::new(7)));
        // Whole seconds.
        assert_eq!(signed.left, TTL - Duration::from_millis(500));
        for other in signers.iter().filter(|other| other.method != signer.method) {
            assert_eq!(other.check(&token, NOW), None, "{:?} by {:?}", signer.method, other.method);
        }
    }
}

#[test]
fn a_token_ends_at_its_time() {
    let signer = Signer::load(&config("ES256")).unwrap();
    let token = signer.sign("alice", AuthRevision::FRESH, UnixMillis(5_000)).unwrap();
    assert!(signer.check(&token, UnixMillis(64_999)).is_some());
    assert!(signer.check(&token, UnixMillis(65_000)).is_none());
    assert!(signer.check(&token, UnixMillis(u64::MAX)).is_none());
}

/// The header alone says "none", or a method whose key anybody has.
#[test]
fn what_is_not_signed_is_no_token() {
    let signer = Signer::load(&config("RS256")).unwrap();
    let token = signer.sign("alice", AuthRevision::FRESH, NOW).unwrap();
    let (_, rest) = token.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    // {"alg":"none","typ":"JWT"}
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let mut by_public_key = config("HS256");
    by_public_key.private_key = Some(keys().join("rsa.pub"));
    let forged = Signer::load(&by_public_key).unwrap().sign("root", AuthRevision::FRESH, NOW).unwrap();
    for bad in [
        format!("{unsigned}.{claims}."),
        format!("{unsigned}.{claims}.{signature}"),
        token.replacen(&claims[..8], "AAAAAAAA", 1),
        format!("{token}a"),
        forged,
        "gDtrBgkYklWTIzRH.9".to_owned(),
        String::new(),
    ] {
        assert_eq!(signer.check(&bad, NOW), None, "{bad}");
    }
}

#[test]
fn keys_that_cannot_work_are_refused_with_their_file() {
    let said = |config: &SignedConfig| Signer::load(config).unwrap_err().to_string();
    let mut mixed = config("ES256");
    mixed.public_key = Some(keys().join("other.pub"));
    assert_eq!(said(&mixed), "--auth-token: pub-key and priv-key do not belong together");
    let mut wrong = config("RS256");
    wrong.private_key = Some(keys().join("es256.key"));
    assert!(said(&wrong).contains("es256.key holds no key for this sign-method"), "{}", said(&wrong));
    let mut missing = config("EdDSA");
    missing.public_key = Some(keys().join("none.pub"));
    assert!(said(&missing).contains("cannot read"), "{}", said(&missing));
    let mut short = config("HS256");
    short.private_key = Some(keys().join("short.key"));
    assert!(said(&short).contains("at least 32 bytes"), "{}", said(&short));
}

#[test]
fn without_a_private_key_tokens_are_checked_alone() {
    let signs = Signer::load(&config("PS512")).unwrap();
    let checks = Signer::load(&SignedConfig { private_key: None, ..config("PS512") }).unwrap();
    let token = signs.sign("alice", AuthRevision::FRESH, NOW).unwrap();
    assert!(checks.check(&token, NOW).is_some());
    assert_eq!(checks.sign("alice", AuthRevision::FRESH, NOW), None);
    assert!(!format!("{signs:?}").contains("BEGIN"));
}
