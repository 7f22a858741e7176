//! A repository written down: all objects of one version, with a checksum.
//!
//! ```text
//!   "HFREPO" | layout 1 | version u64 | objects u64 | object* | CRC-32C of all before it, u32
//!   object: length u32 | path | version u64 | created u64 | length u32 | encoded object
//! ```
//!
//! Numbers are big-endian. A path is `namespace/name` or `name`.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;

use super::object::{BadName, Object};
use crate::store::{Codec, CodecError, Item, TooLarge};

const MAGIC: &[u8; 6] = b"HFREPO";
const LAYOUT: u8 = 1;

/// No path is longer than two names and a slash, and no object than this; a damaged length asks for no more memory.
const PART_BYTES_MAX: u32 = 1 << 30;

/// No version is greater: there have to be some behind it, and on a cluster it is the greatest revision there can be.
const VERSION_MAX: u64 = u64::MAX >> 1;

/// Room that is made for objects before they are seen.
const RESERVED_MAX: u64 = 1 << 16;

/// What is in a snapshot, or was restored from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many objects.
    pub objects: u64,
    /// The version of which it is true; after a restore the version that the repository has now.
    pub version: u64,
}

/// Why a snapshot was not written or not restored. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Reading or writing failed; what is cut ends unexpectedly.
    #[error("the snapshot cannot be read or written")]
    Io {
        /// In the system's words.
        #[source]
        source: io::Error,
    },
    /// It is no snapshot of a repository, or of a layout that is not known here.
    #[error("no snapshot of a repository")]
    Malformed,
    /// It is damaged.
    #[error("the snapshot is damaged: its checksum is {found:08x} and should be {expected:08x}")]
    Checksum {
        /// Of what was read.
        found: u32,
        /// As written.
        expected: u32,
    },
    /// An object cannot be encoded or decoded.
    #[error("an object of the snapshot")]
    Codec {
        /// Why.
        #[source]
        source: CodecError,
    },
    /// An object has no place in this repository.
    #[error("an object of the snapshot: {0}")]
    Name(BadName),
    /// Its objects have no room.
    #[error(transparent)]
    TooLarge(TooLarge),
}

/// An object as it is written down.
pub(super) struct Saved<T> {
    pub(super) path: Bytes,
    pub(super) object: T,
    pub(super) version: u64,
    pub(super) created: u64,
    pub(super) bytes: u64,
}

fn io(source: io::Error) -> SnapshotError {
    SnapshotError::Io { source }
}

/// Passes bytes on, and sums them up.
struct Summed<I> {
    inner: I,
    sum: u32,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.inner.write_all(bytes).map_err(io)
    }

    fn put_part(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= PART_BYTES_MAX);
        self.put(&length.ok_or(SnapshotError::Malformed)?.to_be_bytes())?;
        self.put(bytes)
    }
}

impl<R: Read> Summed<R> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(io)?;
        self.sum = crc32c::crc32c_append(self.sum, &bytes);
        Ok(bytes)
    }

    fn take_u64(&mut self) -> Result<u64, SnapshotError> {
        self.take().map(u64::from_be_bytes)
    }

    fn take_part(&mut self) -> Result<Bytes, SnapshotError> {
        let length = u32::from_be_bytes(self.take()?);
        if length > PART_BYTES_MAX {
            return Err(SnapshotError::Malformed);
        }
        // Grows with what is really there.
        let mut bytes = Vec::new();
        let length = u64::from(length);
        let read = self.inner.by_ref().take(length).read_to_end(&mut bytes).map_err(io)?;
        if u64::try_from(read).ok() != Some(length) {
            return Err(io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.sum = crc32c::crc32c_append(self.sum, &bytes);
        Ok(bytes.into())
    }
}

/// Writes objects down; `prefix` bytes in front of each key are left out.
pub(super) fn write<'a, T: Object>(
    to: impl Write,
    version: u64,
    items: impl Iterator<Item = &'a Item<Arc<T>>>,
    prefix: usize,
    codec: &impl Codec<T>,
) -> Result<Summary, SnapshotError> {
    let items: Vec<_> = items.collect();
    let objects = u64::try_from(items.len()).unwrap_or(u64::MAX);
    let mut out = Summed { inner: io::BufWriter::new(to), sum: 0 };
    out.put(MAGIC)?;
    out.put(&[LAYOUT])?;
    out.put(&version.to_be_bytes())?;
    out.put(&objects.to_be_bytes())?;
    for item in items {
        out.put_part(item.key.get(prefix..).ok_or(SnapshotError::Malformed)?)?;
        out.put(&item.version.to_be_bytes())?;
        out.put(&item.created.to_be_bytes())?;
        let encoded = codec.encode(&item.value).map_err(|source| SnapshotError::Codec { source })?;
        out.put_part(&encoded)?;
    }
    let sum = out.sum;
    out.put(&sum.to_be_bytes())?;
    out.inner.flush().map_err(io)?;
    Ok(Summary { objects, version })
}

/// Reads what was written down, and its version.
pub(super) fn read<T: Object, C: Codec<T>>(
    from: impl Read,
    codec: &C,
) -> Result<(u64, Vec<Saved<T>>), SnapshotError> {
    let mut from = Summed { inner: io::BufReader::new(from), sum: 0 };
    if from.take()? != *MAGIC || from.take()? != [LAYOUT] {
        return Err(SnapshotError::Malformed);
    }
    let version = from.take_u64()?;
    let objects = from.take_u64()?;
    let mut items = Vec::with_capacity(usize::try_from(objects.min(RESERVED_MAX)).unwrap_or(0));
    for _ in 0..objects {
        let path = from.take_part()?;
        let (version, created) = (from.take_u64()?, from.take_u64()?);
        items.push((path, version, created, from.take_part()?));
    }
    let found = from.sum;
    let expected = u32::from_be_bytes(from.take()?);
    if found != expected {
        return Err(SnapshotError::Checksum { found, expected });
    }
    if version > VERSION_MAX || items.iter().any(|(_, own, created, _)| *own > version || created > own) {
        return Err(SnapshotError::Malformed);
    }
    let decode = |(path, version, created, encoded): (Bytes, u64, u64, Bytes)| {
        let object = codec.decode(&encoded).map_err(|source| SnapshotError::Codec { source })?;
        let bytes = u64::try_from(encoded.len()).unwrap_or(u64::MAX);
        Ok(Saved { path, object, version, created, bytes })
    };
    let items = items.into_iter().map(decode).collect::<Result<_, _>>()?;
    Ok((version, items))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Json;

    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Nothing;

    impl Object for Nothing {
        fn name(&self) -> &str {
            ""
        }
    }

    /// RS17: a version behind which there is no other would end the repository that takes it.
    #[test]
    fn rs17_a_version_without_a_next_one_is_malformed() {
        let restored = |version| {
            let mut bytes = Vec::new();
            write::<Nothing>(&mut bytes, version, [].iter(), 0, &Json).unwrap();
            read::<Nothing, _>(bytes.as_slice(), &Json).map(|(version, _)| version)
        };
        assert_eq!(restored(VERSION_MAX).unwrap(), VERSION_MAX);
        assert!(matches!(restored(u64::MAX), Err(SnapshotError::Malformed)));
    }
}
