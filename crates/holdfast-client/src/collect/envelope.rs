//! What is stored of an object.
//!
//! ```text
//!   byte 0            1, the layout
//!   byte 1            writer: 0 the collector, 1 somebody else, by a direct write
//!   bytes 2, 3        length of the origin version, big-endian
//!   ..                the origin version, UTF-8
//!   ..                the object's bytes; for what is gone none, or '=' if it went at no version above its own
//! ```

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::origin::OriginVersion;

const LAYOUT: u8 = 1;
const HEAD_BYTES: usize = 4;

/// Who has written an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The collector, from what its source told.
    Sync,
    /// Somebody who has written to the source, and here at once.
    Direct,
}

/// An object with the version that its source gives it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) origin: OriginVersion,
    pub(super) writer: Writer,
    pub(super) bytes: Bytes,
}

/// Without the object's bytes, which may be secret.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("origin", &self.origin)
            .field("writer", &self.writer)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// Bytes that are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadEnvelope {
    /// What is wrong with them.
    what: &'static str,
}

/// What stands for the bytes of what is gone, when its deletion has no version above that of what was deleted.
const AT_ITS_OWN: &[u8] = b"=";

impl Envelope {
    /// Of what is gone.
    pub(super) fn of_gone(origin: OriginVersion, writer: Writer, is_at_its_own: bool) -> Self {
        let bytes = if is_at_its_own { Bytes::from_static(AT_ITS_OWN) } else { Bytes::new() };
        Self { origin, writer, bytes }
    }

    /// Of what is gone: whether it went at no version above its own. Who has that version, or a later one, may not know.
    pub(super) fn is_gone_at_its_own(&self) -> bool {
        self.bytes == AT_ITS_OWN
    }

    /// Errors: the origin version is longer than can be written down.
    pub(super) fn encode(&self) -> Result<Bytes, BadEnvelope> {
        let origin = self.origin.as_str().as_bytes();
        let length = u16::try_from(origin.len())
            .map_err(|_| BadEnvelope { what: "the origin version has more than 65,535 bytes" })?;
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + origin.len() + self.bytes.len());
        bytes.put_u8(LAYOUT);
        bytes.put_u8(match self.writer {
            Writer::Sync => 0,
            Writer::Direct => 1,
        });
        bytes.put_u16(length);
        bytes.put_slice(origin);
        bytes.put_slice(&self.bytes);
        Ok(bytes.freeze())
    }

    /// Errors: they are none.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, BadEnvelope> {
        let bad = |what| BadEnvelope { what };
        let [layout, writer, high, low, ..] = **bytes else { return Err(bad("it is too short")) };
        if layout != LAYOUT {
            return Err(bad("its layout is not known"));
        }
        let writer = match writer {
            0 => Writer::Sync,
            1 => Writer::Direct,
            _ => return Err(bad("its writer is not known")),
        };
        let end = HEAD_BYTES + usize::from(u16::from_be_bytes([high, low]));
        let origin = bytes.get(HEAD_BYTES..end).ok_or_else(|| bad("its origin version is cut off"))?;
        let origin = std::str::from_utf8(origin).map_err(|_| bad("its origin version is no text"))?;
        Ok(Self { origin: origin.into(), writer, bytes: bytes.slice(end..) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// CP4: the version at the source is kept as it is.
        #[test]
        fn cp4_the_version_at_the_source_is_kept_as_it_is(
            origin in "\\PC{0,30}",
            is_direct in any::<bool>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let writer = if is_direct { Writer::Direct } else { Writer::Sync };
            let envelope = Envelope { origin: origin.into(), writer, bytes: bytes.into() };
            prop_assert_eq!(Envelope::decode(&envelope.encode().unwrap()).unwrap(), envelope);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            drop(Envelope::decode(&Bytes::from(bytes)));
        }
    }

    #[test]
    fn the_layout_is_what_is_written_down() {
        let envelope =
            Envelope { origin: "v7".into(), writer: Writer::Direct, bytes: Bytes::from_static(b"{}") };
        assert_eq!(envelope.encode().unwrap().as_ref(), b"\x01\x01\x00\x02v7{}");
        for bad in [&b""[..], b"\x01\x00\x00", b"\x02\x00\x00\x00", b"\x01\x02\x00\x00", b"\x01\x00\x00\x02v"]
        {
            assert!(Envelope::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        let long = Envelope { origin: "x".repeat(70_000).into(), ..envelope };
        assert!(long.encode().is_err());
    }
}
