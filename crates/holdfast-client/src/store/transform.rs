//! What bytes look like at rest: as they are, or sealed.
//!
//! A transformer is bound to the whole key of what it seals: what somebody moves to another key does not open there.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

/// Bytes that begin so were sealed by somebody, so they are not an object as it is.
const SEALED: [&[u8]; 2] = [b"k8s:enc:", b"holdfast:enc:"];

/// Why bytes could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// They are sealed in a way that none of the transformers knows.
    #[error("sealed in an unknown way")]
    UnknownSeal,
    /// They would be taken for sealed, though they are not.
    #[error("it begins as sealed objects do")]
    LooksSealed,
    /// They are cut, or of another layout.
    #[error("malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// They were sealed with another key or for another place, or changed since.
    #[error("sealed with another key, for another place, or changed since")]
    Forged,
    /// The system gives no random numbers.
    #[error("no random numbers")]
    NoRandomness,
    /// The key service does not answer, or refuses.
    #[error("the key service: {source}")]
    Kms {
        /// In its words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What was sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The bytes as they were.
    pub value: Bytes,
    /// Whether they would be sealed in another way now.
    pub is_stale: bool,
}

/// Without the bytes: they are secret.
impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("value_bytes", &self.value.len())
            .field("is_stale", &self.is_stale)
            .finish()
    }
}

/// A way to keep bytes at rest. Futures are boxed, so that several ways can stand in one [`PrefixChain`]: what they cost
/// beside the sealing does not show.
pub trait Transformer: Send + Sync + 'static {
    /// Seals an object for a place: its whole key.
    ///
    /// Errors: see [`TransformError`].
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>>;

    /// Opens what was sealed for this place.
    ///
    /// Errors: see [`TransformError`].
    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>>;
}

impl<X: Transformer + ?Sized> Transformer for Arc<X> {
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        (**self).seal(value, place)
    }

    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        (**self).open(sealed, place)
    }
}

impl<X: Transformer + ?Sized> Transformer for Box<X> {
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        (**self).seal(value, place)
    }

    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        (**self).open(sealed, place)
    }
}

/// Bytes as they are. It refuses what begins as sealed objects do, those of Kubernetes among them: read as an object, that
/// would be nonsense, and written, it could not be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity;

fn looks_sealed(bytes: &[u8]) -> bool {
    SEALED.iter().any(|prefix| bytes.starts_with(prefix))
}

impl Transformer for Identity {
    fn seal<'a>(&'a self, value: Bytes, _place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        let result = if looks_sealed(&value) { Err(TransformError::LooksSealed) } else { Ok(value) };
        Box::pin(std::future::ready(result))
    }

    fn open<'a>(&'a self, sealed: Bytes, _place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        let result = if looks_sealed(&sealed) {
            Err(TransformError::UnknownSeal)
        } else {
            Ok(Opened { value: sealed, is_stale: false })
        };
        Box::pin(std::future::ready(result))
    }
}

/// Several ways, told apart by what sealed bytes begin with. The first one seals; each opens what begins with its prefix
/// and with no longer one of the others, and what another than the first one opened is stale. Of several with the same
/// prefix each is tried, so that keys can be replaced: put the new one in front, write again what is stale, then leave
/// the old one out. What those with the prefix cannot open is an error: it is never passed on to one that would take
/// any bytes, sealed ones too, for an object.
///
/// ```
/// use std::sync::Arc;
/// use holdfast_client::store::{AesGcm, Identity, PrefixChain};
///
/// // Writes are sealed from now on; what is not yet can still be read.
/// let chain = PrefixChain::new("holdfast:enc:aesgcm:2:", Arc::new(AesGcm::new(&[7; 32])))
///     .and("holdfast:enc:aesgcm:1:", Arc::new(AesGcm::new(&[6; 32])))
///     .and("", Arc::new(Identity));
/// ```
#[derive(Clone)]
pub struct PrefixChain {
    links: Vec<(Bytes, Arc<dyn Transformer>)>,
}

impl PrefixChain {
    /// With the one that seals.
    pub fn new(prefix: impl Into<Bytes>, transformer: Arc<dyn Transformer>) -> Self {
        Self { links: vec![(prefix.into(), transformer)] }
    }

    /// And one more that opens, tried after those that are there.
    #[must_use]
    pub fn and(mut self, prefix: impl Into<Bytes>, transformer: Arc<dyn Transformer>) -> Self {
        self.links.push((prefix.into(), transformer));
        self
    }

    /// Length of the longest prefix that these bytes begin with.
    fn longest(&self, bytes: &[u8]) -> Option<usize> {
        self.links
            .iter()
            .filter(|(prefix, _)| bytes.starts_with(prefix))
            .map(|(prefix, _)| prefix.len())
            .max()
    }
}

impl Transformer for PrefixChain {
    fn seal<'a>(&'a self, value: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Bytes, TransformError>> {
        Box::pin(async move {
            let (prefix, transformer) = self.links.first().ok_or(TransformError::UnknownSeal)?;
            let sealed = transformer.seal(value, place).await?;
            let sealed: Bytes =
                if prefix.is_empty() { sealed } else { [prefix.as_ref(), &sealed].concat().into() };
            // Another one would be asked to open it.
            if self.longest(&sealed) != Some(prefix.len()) {
                return Err(TransformError::LooksSealed);
            }
            Ok(sealed)
        })
    }

    fn open<'a>(&'a self, sealed: Bytes, place: &'a [u8]) -> BoxFuture<'a, Result<Opened, TransformError>> {
        Box::pin(async move {
            let length = self.longest(&sealed).ok_or(TransformError::UnknownSeal)?;
            let mut kept = None;
            for (at, (prefix, transformer)) in self.links.iter().enumerate() {
                if prefix.len() != length || !sealed.starts_with(prefix) {
                    continue;
                }
                match transformer.open(sealed.slice(length..), place).await {
                    Ok(opened) => return Ok(Opened { is_stale: opened.is_stale || at > 0, ..opened }),
                    // The first error, unless a service that does not answer may know the key.
                    Err(error @ TransformError::Kms { .. }) => kept = Some(error),
                    Err(error) => kept = kept.or(Some(error)),
                }
            }
            Err(kept.unwrap_or(TransformError::UnknownSeal))
        })
    }
}

impl std::fmt::Debug for PrefixChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.links.iter().map(|(prefix, _)| prefix)).finish()
    }
}

#[cfg(test)]
mod tests;
