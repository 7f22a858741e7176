//! AES-256-GCM at rest, with a key that is given, or with one that is derived for each write.
//!
//! Layouts; the place is the additional data of each:
//!
//! ```text
//!   AesGcm         nonce 12 | ciphertext | tag 16
//!   DerivedAesGcm  info 32  | ciphertext | tag 16     key = HKDF-SHA256(seed, info), nonce of zeros
//! ```

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};

use super::transform::{Opened, TransformError, Transformer};

/// The bytes of a key, or of a seed of keys.
pub const KEY_BYTES: usize = 32;

/// What a derived key is made of, beside the seed.
const INFO_BYTES: usize = 32;

/// Fills with random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], TransformError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| TransformError::NoRandomness)?;
    Ok(bytes)
}

fn key(bytes: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("a key of this length is one"))
}

/// `head`, then the sealed value.
fn seal(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    head: &[u8],
    value: &[u8],
    place: &[u8],
) -> Result<Bytes, TransformError> {
    let mut out = Vec::with_capacity(head.len() + value.len() + AES_256_GCM.tag_len());
    out.extend_from_slice(head);
    out.extend_from_slice(value);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(place), &mut out[head.len()..]);
    // Only what is longer than 64 GiB cannot be sealed.
    let tag = tag.map_err(|_| TransformError::Malformed { reason: "too long" })?;
    out.extend_from_slice(tag.as_ref());
    Ok(out.into())
}

fn open(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    sealed: &[u8],
    place: &[u8],
) -> Result<Bytes, TransformError> {
    let mut value = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let opened =
        key.open_in_place(nonce, Aad::from(place), &mut value).map_err(|_| TransformError::Forged)?;
    let length = opened.len();
    value.truncate(length);
    Ok(value.into())
}

fn split<const N: usize>(sealed: &Bytes) -> Result<([u8; N], &[u8]), TransformError> {
    let malformed = TransformError::Malformed { reason: "shorter than what is in front of each object" };
    sealed.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(malformed)
}

/// Seals with one key and a random nonce. Replace the key before it has sealed 2^32 objects: from there on, two of them
/// may have the same nonce. [`DerivedAesGcm`] has no such bound.
pub struct AesGcm {
    key: LessSafeKey,
}

impl AesGcm {
    /// With a key.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self { key: key(bytes) }
    }
}

impl Transformer for AesGcm {
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        let sealed = random().and_then(|nonce| seal(&self.key, nonce, &nonce, &value, place));
        Box::pin(std::future::ready(sealed))
    }

    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        let value = split(&sealed).and_then(|(nonce, rest)| open(&self.key, nonce, rest, place));
        Box::pin(std::future::ready(value.map(|value| Opened { value, is_stale: false })))
    }
}

impl fmt::Debug for AesGcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AesGcm")
    }
}

/// Seals each object with a key of its own, derived from a seed and 32 random bytes that go with the object: as many
/// objects as one likes. A derived key seals once, so its nonce is always the same.
pub struct DerivedAesGcm {
    seed: hkdf::Prk,
}

/// The length of what HKDF gives.
struct KeyBytes;

impl hkdf::KeyType for KeyBytes {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl DerivedAesGcm {
    /// With a seed of 32 random bytes.
    pub fn new(seed: &[u8; KEY_BYTES]) -> Self {
        // The seed is as random as what extraction would give, so keys are expanded from it at once.
        Self { seed: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, seed) }
    }

    fn key(&self, info: &[u8; INFO_BYTES]) -> LessSafeKey {
        let mut bytes = [0; KEY_BYTES];
        let info = [info.as_slice()];
        let okm = self.seed.expand(&info, KeyBytes).expect("HKDF gives so many bytes");
        okm.fill(&mut bytes).expect("as many as were asked for");
        key(&bytes)
    }

    pub(super) fn seal_now(&self, value: &[u8], place: &[u8]) -> Result<Bytes, TransformError> {
        let info = random()?;
        seal(&self.key(&info), [0; NONCE_LEN], &info, value, place)
    }

    pub(super) fn open_now(&self, sealed: &Bytes, place: &[u8]) -> Result<Bytes, TransformError> {
        let (info, rest) = split(sealed)?;
        open(&self.key(&info), [0; NONCE_LEN], rest, place)
    }
}

impl Transformer for DerivedAesGcm {
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        Box::pin(std::future::ready(self.seal_now(&value, place)))
    }

    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        let value = self.open_now(&sealed, place);
        Box::pin(std::future::ready(value.map(|value| Opened { value, is_stale: false })))
    }
}

impl fmt::Debug for DerivedAesGcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedAesGcm")
    }
}
