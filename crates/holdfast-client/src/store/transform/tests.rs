//! What bytes at rest look like, and what opens them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::executor::block_on;

use super::*;
use crate::store::{AesGcm, DerivedAesGcm, Envelope, KEY_ID_BYTES_MAX, Kms, KmsError, SealedSeed};

const VALUE: &[u8] = b"{\"name\":\"a\"}";

fn seal(transformer: &impl Transformer, place: &str) -> Result<Bytes, TransformError> {
    block_on(transformer.seal(Bytes::from_static(VALUE), place.as_bytes()))
}

fn open(transformer: &impl Transformer, sealed: &Bytes, place: &str) -> Result<Opened, TransformError> {
    block_on(transformer.open(sealed.clone(), place.as_bytes()))
}

fn fresh() -> Opened {
    Opened { value: Bytes::from_static(VALUE), is_stale: false }
}

fn stale() -> Opened {
    Opened { is_stale: true, ..fresh() }
}

/// A key service in memory: it seals by changing each byte, and counts how often it is asked.
#[derive(Default)]
struct TestKms {
    key: Mutex<u8>,
    seals: AtomicU32,
    opens: AtomicU32,
    is_gone: Mutex<bool>,
}

impl TestKms {
    fn check(&self) -> Result<(), KmsError> {
        if *self.is_gone.lock().unwrap() { Err("gone".into()) } else { Ok(()) }
    }
}

impl Kms for Arc<TestKms> {
    fn key_id(&self) -> String {
        format!("key-{}", self.key.lock().unwrap())
    }

    async fn seal(&self, seed: &[u8]) -> Result<SealedSeed, KmsError> {
        self.check()?;
        self.seals.fetch_add(1, Ordering::Relaxed);
        let key = *self.key.lock().unwrap();
        let bytes = seed.iter().map(|byte| byte ^ key.wrapping_add(1)).collect();
        Ok(SealedSeed { key_id: self.key_id(), bytes })
    }

    async fn open(&self, sealed: &SealedSeed) -> Result<Vec<u8>, KmsError> {
        self.check()?;
        self.opens.fetch_add(1, Ordering::Relaxed);
        let key: u8 = sealed.key_id.strip_prefix("key-").ok_or("no key of mine")?.parse()?;
        Ok(sealed.bytes.iter().map(|byte| byte ^ key.wrapping_add(1)).collect())
    }
}

fn all() -> Vec<(&'static str, Box<dyn Transformer>)> {
    vec![
        ("aes", Box::new(AesGcm::new(&[1; 32]))),
        ("derived", Box::new(DerivedAesGcm::new(&[1; 32]))),
        ("envelope", Box::new(Envelope::new(Arc::new(TestKms::default())))),
        ("chain", Box::new(PrefixChain::new("x:", Arc::new(AesGcm::new(&[1; 32]))))),
    ]
}

/// AW6: what was sealed opens, is not readable, and no two are alike.
#[test]
fn aw6_what_was_sealed_opens_again() {
    for (name, transformer) in all() {
        let (one, other) = (seal(&transformer, "k").unwrap(), seal(&transformer, "k").unwrap());
        assert_ne!(one, other, "{name}: a nonce of its own");
        assert!(!one.windows(VALUE.len()).any(|part| part == VALUE), "{name}");
        assert_eq!(open(&transformer, &one, "k").unwrap(), fresh(), "{name}");
        let empty = block_on(transformer.seal(Bytes::new(), b"k")).unwrap();
        assert_eq!(open(&transformer, &empty, "k").unwrap().value, Bytes::new(), "{name}");
    }
}

/// AW4: the place is the whole key: what is moved to another one does not open.
#[test]
fn aw4_what_is_moved_to_another_key_does_not_open() {
    for (name, transformer) in all() {
        let sealed = seal(&transformer, "/r/g/secrets/n/a").unwrap();
        for place in ["/r/g/secrets/n/b", "/r/g/secrets/n/a/", "", "a"] {
            let moved = open(&transformer, &sealed, place);
            assert!(matches!(moved, Err(TransformError::Forged)), "{name} {place}: {moved:?}");
        }
    }
}

#[test]
fn what_was_changed_or_cut_does_not_open() {
    for (name, transformer) in all() {
        let sealed = seal(&transformer, "k").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert!(open(&transformer, &changed.into(), "k").is_err(), "{name}: byte {at} changed");
            assert!(open(&transformer, &sealed.slice(..at), "k").is_err(), "{name}: cut to {at} bytes");
        }
    }
}

#[test]
fn another_key_does_not_open() {
    let sealed = seal(&AesGcm::new(&[1; 32]), "k").unwrap();
    assert!(matches!(open(&AesGcm::new(&[2; 32]), &sealed, "k"), Err(TransformError::Forged)));
    let sealed = seal(&DerivedAesGcm::new(&[1; 32]), "k").unwrap();
    assert!(matches!(open(&DerivedAesGcm::new(&[2; 32]), &sealed, "k"), Err(TransformError::Forged)));
}

/// AW5: bytes that somebody sealed are not read as they are, nor written so.
#[test]
fn aw5_what_is_sealed_is_not_an_object_as_it_is() {
    for sealed in ["k8s:enc:aescbc:v1:key1:x", "holdfast:enc:aesgcm:1:x"] {
        let sealed = Bytes::from(sealed);
        assert!(matches!(open(&Identity, &sealed, "k"), Err(TransformError::UnknownSeal)));
        let written = block_on(Identity.seal(sealed, b"k"));
        assert!(matches!(written, Err(TransformError::LooksSealed)));
    }
    let plain = seal(&Identity, "k").unwrap();
    assert_eq!((plain.as_ref(), open(&Identity, &plain, "k").unwrap()), (VALUE, fresh()));
}

/// AW6: the first one writes, any reads, and what another than the first one wrote is stale.
#[test]
fn aw6_a_chain_writes_with_its_first_and_reads_with_any() {
    let (old, new) = (Arc::new(AesGcm::new(&[1; 32])), Arc::new(AesGcm::new(&[2; 32])));
    let before = PrefixChain::new("holdfast:enc:1:", Arc::clone(&old) as _);
    let sealed = seal(&before, "k").unwrap();
    assert!(sealed.starts_with(b"holdfast:enc:1:"));
    let after = PrefixChain::new("holdfast:enc:2:", Arc::clone(&new) as _)
        .and("holdfast:enc:1:", Arc::clone(&old) as _)
        .and("", Arc::new(Identity));
    assert_eq!(open(&after, &sealed, "k").unwrap(), stale());
    assert_eq!(open(&after, &Bytes::from_static(VALUE), "k").unwrap(), stale(), "what was never sealed");
    let again = seal(&after, "k").unwrap();
    assert!(again.starts_with(b"holdfast:enc:2:"));
    assert_eq!(open(&after, &again, "k").unwrap(), fresh());
    // The old key is left out too early.
    let without = PrefixChain::new("holdfast:enc:2:", new).and("", Arc::new(Identity));
    assert!(matches!(open(&without, &sealed, "k"), Err(TransformError::UnknownSeal)));
    // AW5: each that could have sealed it is tried.
    let same = PrefixChain::new("holdfast:enc:1:", Arc::new(AesGcm::new(&[9; 32])))
        .and("holdfast:enc:1:", old)
        .and("", Arc::new(Identity));
    assert_eq!(open(&same, &sealed, "k").unwrap(), stale());
    let forged = open(&same, &sealed, "elsewhere");
    assert!(matches!(forged, Err(TransformError::Forged)), "the error of the key, not of the catch-all");
}

/// AW6: the service is asked once for a seed, and once for each seed that is opened.
#[test]
fn aw6_an_envelope_asks_its_key_service_once_for_many_objects() {
    let kms = Arc::new(TestKms::default());
    let writer = Envelope::new(Arc::clone(&kms));
    let sealed: Vec<_> = (0..100).map(|n| seal(&writer, &n.to_string()).unwrap()).collect();
    for (n, sealed) in sealed.iter().enumerate() {
        assert_eq!(open(&writer, sealed, &n.to_string()).unwrap(), fresh());
    }
    let asked = || (kms.seals.load(Ordering::Relaxed), kms.opens.load(Ordering::Relaxed));
    assert_eq!(asked(), (1, 0), "its own seed is known");
    let reader = Envelope::new(Arc::clone(&kms));
    for (n, sealed) in sealed.iter().enumerate() {
        assert_eq!(open(&reader, sealed, &n.to_string()).unwrap(), fresh());
    }
    assert_eq!(asked(), (1, 1));
    *kms.is_gone.lock().unwrap() = true;
    assert_eq!(open(&reader, &sealed[0], "0").unwrap(), fresh(), "what is known needs no service");
    let unknown = open(&Envelope::new(Arc::clone(&kms)), &sealed[0], "0");
    assert!(matches!(unknown, Err(TransformError::Kms { .. })));
    assert!(matches!(seal(&Envelope::new(kms), "0"), Err(TransformError::Kms { .. })));
}

/// AW6: when the service's key changes, writes take a new seed, and what was sealed before is stale.
#[test]
fn aw6_a_new_key_of_the_service_makes_the_old_envelopes_stale() {
    let kms = Arc::new(TestKms::default());
    let envelope = Envelope::new(Arc::clone(&kms));
    let old = seal(&envelope, "k").unwrap();
    *kms.key.lock().unwrap() = 1;
    assert_eq!(open(&envelope, &old, "k").unwrap(), stale());
    let new = seal(&envelope, "k").unwrap();
    assert_eq!(open(&envelope, &new, "k").unwrap(), fresh());
    assert_eq!(kms.seals.load(Ordering::Relaxed), 2);
    assert_eq!(open(&envelope, &old, "k").unwrap(), stale());
}

/// AW6: what a key service says is bounded.
#[test]
fn aw6_a_key_id_that_is_too_long_is_refused_before_anything_is_sealed() {
    struct Wordy;
    impl Kms for Wordy {
        fn key_id(&self) -> String {
            "x".repeat(KEY_ID_BYTES_MAX + 1)
        }
        async fn seal(&self, seed: &[u8]) -> Result<SealedSeed, KmsError> {
            Ok(SealedSeed { key_id: self.key_id(), bytes: Bytes::copy_from_slice(seed) })
        }
        async fn open(&self, sealed: &SealedSeed) -> Result<Vec<u8>, KmsError> {
            Ok(sealed.bytes.to_vec())
        }
    }
    assert!(matches!(seal(&Envelope::new(Wordy), "k"), Err(TransformError::Malformed { .. })));
}

/// AW5: what those with its prefix cannot open is an error, and never an object, whatever other links would say of it.
#[test]
fn aw5_what_has_a_known_prefix_is_opened_by_nobody_else() {
    let right = || Arc::new(AesGcm::new(&[1; 32])) as Arc<dyn Transformer>;
    let wrong = || Arc::new(AesGcm::new(&[2; 32])) as Arc<dyn Transformer>;
    let plain = || Arc::new(Identity) as Arc<dyn Transformer>;
    let sealed = seal(&PrefixChain::new("own:1:", right()), "k").unwrap();
    for chain in [
        PrefixChain::new("own:1:", wrong()).and("", plain()),
        PrefixChain::new("own:1:", wrong()).and("own:", plain()),
        PrefixChain::new("", plain()).and("own:1:", wrong()),
    ] {
        let opened = open(&chain, &sealed, "k");
        assert!(matches!(opened, Err(TransformError::Forged)), "{chain:?}: {opened:?}");
    }
    // Sealing is given up: what was sealed still opens, and what would look so is not written.
    let chain = PrefixChain::new("", plain()).and("own:1:", right());
    assert_eq!(open(&chain, &sealed, "k").unwrap(), stale());
    let written = block_on(chain.seal(sealed, b"k"));
    assert!(matches!(written, Err(TransformError::LooksSealed)));
}

/// AW6: when one of the keys is at a service that does not answer, it may be the one: try again.
#[test]
fn aw6_a_key_service_that_does_not_answer_is_told_rather_than_a_wrong_key() {
    let kms = Arc::new(TestKms::default());
    let sealed = seal(&PrefixChain::new("own:", Arc::new(Envelope::new(Arc::clone(&kms)))), "k").unwrap();
    *kms.is_gone.lock().unwrap() = true;
    let chain = PrefixChain::new("own:", Arc::new(AesGcm::new(&[2; 32])))
        .and("own:", Arc::new(Envelope::new(kms)))
        .and("own:", Arc::new(AesGcm::new(&[3; 32])));
    assert!(matches!(open(&chain, &sealed, "k"), Err(TransformError::Kms { .. })));
}

#[test]
fn what_was_opened_does_not_show_itself() {
    assert_eq!(format!("{:?}", fresh()), "Opened { value_bytes: 12, is_stale: false }");
}
