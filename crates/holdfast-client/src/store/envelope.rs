//! Objects sealed with keys that are sealed themselves, by a key service.
//!
//! A seed of keys is made here, sealed once by the service, and used for all writes until the service's key changes or a
//! day has passed; each object carries the sealed seed, so that whoever may ask the service can open it.
//!
//! ```text
//!   layout 1 | length of id u16 | id of the service's key | length u16 | sealed seed | as DerivedAesGcm
//! ```

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::aes::{DerivedAesGcm, KEY_BYTES, random};
use super::transform::{Opened, TransformError, Transformer};

/// Bytes of the id of a service's key.
pub const KEY_ID_BYTES_MAX: usize = 1_024;
/// Bytes of a sealed seed.
pub const SEALED_SEED_BYTES_MAX: usize = 16 * 1_024;

/// How long a seed is used for writes, and known without asking the service again.
const SEED_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Opened seeds that are kept. What is one too many is opened again when it is needed.
const SEEDS_MAX: usize = 1_000;

const LAYOUT: u8 = 1;

const LOCK: &str = "nobody panics with this lock";

/// What goes wrong at a key service, in its words.
pub type KmsError = Box<dyn std::error::Error + Send + Sync>;

/// A seed as a service has sealed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SealedSeed {
    /// Which of the service's keys did it. At most [`KEY_ID_BYTES_MAX`] bytes, at least one.
    pub key_id: String,
    /// At most [`SEALED_SEED_BYTES_MAX`] bytes.
    pub bytes: Bytes,
}

/// A key service: it seals and opens small things, and never gives its keys away.
pub trait Kms: Send + Sync + 'static {
    /// The id of the key that it seals with now. What was sealed with another is stale.
    fn key_id(&self) -> String;

    /// Seals a seed.
    ///
    /// Errors: in the service's words.
    fn seal(&self, seed: &[u8]) -> impl Future<Output = Result<SealedSeed, KmsError>> + Send;

    /// Opens a seed, also one that was sealed with an older key.
    ///
    /// Errors: in the service's words.
    fn open(&self, sealed: &SealedSeed) -> impl Future<Output = Result<Vec<u8>, KmsError>> + Send;
}

/// A [`Transformer`] with the keys of a [`Kms`].
pub struct Envelope<K> {
    kms: K,
    seeds: Mutex<Seeds>,
    /// Taken by who asks the service for a new seed, so that of many writers one asks.
    asking: tokio::sync::Mutex<()>,
}

/// What is known of the service. Under a lock that is held for a look only.
#[derive(Default)]
struct Seeds {
    /// Used for writes.
    current: Option<Arc<Seed>>,
    opened: HashMap<SealedSeed, (Arc<DerivedAesGcm>, Instant)>,
}

struct Seed {
    cipher: DerivedAesGcm,
    sealed: SealedSeed,
    made: Instant,
}

impl<K: Kms> Envelope<K> {
    /// With a key service.
    pub fn new(kms: K) -> Self {
        Self { kms, seeds: Mutex::default(), asking: tokio::sync::Mutex::new(()) }
    }

    fn current(&self) -> Option<Arc<Seed>> {
        let key_id = self.kms.key_id();
        let current = self.seeds.lock().expect(LOCK).current.clone();
        current.filter(|seed| seed.sealed.key_id == key_id && seed.made.elapsed() < SEED_AGE_MAX)
    }

    /// The seed for writes; a new one when there is none that may be used.
    async fn seed(&self) -> Result<Arc<Seed>, TransformError> {
        if let Some(seed) = self.current() {
            return Ok(seed);
        }
        let _asking = self.asking.lock().await;
        // Somebody else may have asked meanwhile.
        if let Some(seed) = self.current() {
            return Ok(seed);
        }
        let bytes = random::<KEY_BYTES>()?;
        let sealed = self.kms.seal(&bytes).await.map_err(|source| TransformError::Kms { source })?;
        let is_sound = (1..=KEY_ID_BYTES_MAX).contains(&sealed.key_id.len())
            && (1..=SEALED_SEED_BYTES_MAX).contains(&sealed.bytes.len());
        if !is_sound {
            return Err(TransformError::Malformed {
                reason: "what the key service sealed is too long or empty",
            });
        }
        let seed = Arc::new(Seed { cipher: DerivedAesGcm::new(&bytes), sealed, made: Instant::now() });
        self.seeds.lock().expect(LOCK).current = Some(Arc::clone(&seed));
        Ok(seed)
    }

    /// What opens objects with this seed.
    async fn cipher(&self, sealed: &SealedSeed) -> Result<Arc<DerivedAesGcm>, TransformError> {
        let now = Instant::now();
        let known = self.seeds.lock().expect(LOCK).opened.get(sealed).cloned();
        if let Some((cipher, until)) = known
            && now < until
        {
            return Ok(cipher);
        }
        let bytes = self.kms.open(sealed).await.map_err(|source| TransformError::Kms { source })?;
        let bytes: [u8; KEY_BYTES] = bytes
            .try_into()
            .map_err(|_| TransformError::Malformed { reason: "the seed has another length" })?;
        let cipher = Arc::new(DerivedAesGcm::new(&bytes));
        let mut seeds = self.seeds.lock().expect(LOCK);
        if seeds.opened.len() >= SEEDS_MAX {
            seeds.opened.retain(|_, (_, until)| now < *until);
        }
        if seeds.opened.len() < SEEDS_MAX {
            seeds.opened.insert(sealed.clone(), (Arc::clone(&cipher), now + SEED_AGE_MAX));
        }
        Ok(cipher)
    }
}

impl<K: Kms> Transformer for Envelope<K> {
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        Box::pin(async move {
            let seed = self.seed().await?;
            let sealed = seed.cipher.seal_now(&value, place)?;
            let mut out = BytesMut::new();
            out.put_u8(LAYOUT);
            for part in [seed.sealed.key_id.as_bytes(), &seed.sealed.bytes] {
                out.put_u16(u16::try_from(part.len()).expect("checked when it was sealed"));
                out.put_slice(part);
            }
            out.put_slice(&sealed);
            Ok(out.freeze())
        })
    }

    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        Box::pin(async move {
            let (seed, rest) = split(sealed).ok_or(TransformError::Malformed { reason: "no envelope" })?;
            let own = self.current().filter(|current| current.sealed == seed);
            let value = match own {
                Some(current) => current.cipher.open_now(&rest, place)?,
                None => self.cipher(&seed).await?.open_now(&rest, place)?,
            };
            Ok(Opened { value, is_stale: seed.key_id != self.kms.key_id() })
        })
    }
}

/// What is in front of the object, and the rest.
fn split(mut bytes: Bytes) -> Option<(SealedSeed, Bytes)> {
    if bytes.try_get_u8().ok()? != LAYOUT {
        return None;
    }
    let key_id = part(&mut bytes, KEY_ID_BYTES_MAX)?;
    let seed = part(&mut bytes, SEALED_SEED_BYTES_MAX)?;
    let key_id = String::from_utf8(key_id.to_vec()).ok()?;
    Some((SealedSeed { key_id, bytes: seed }, bytes))
}

fn part(bytes: &mut Bytes, length_max: usize) -> Option<Bytes> {
    let length = usize::from(bytes.try_get_u16().ok()?);
    ((1..=length_max).contains(&length) && length <= bytes.len()).then(|| bytes.split_to(length))
}

impl<K> fmt::Debug for Envelope<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelope")
    }
}
