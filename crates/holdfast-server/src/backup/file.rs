//! A snapshot's file on a disk: with the SHA-256 of its content at its end, or a bare database.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_bolt::{ReadError, Reader, Source};
use holdfast_env::{Disk, DiskFile, OpenMode};
use sha2::{Digest, Sha256};

/// What a checksum takes at the end of a file. A database is a multiple of the sector's size, so that it can be told.
const CHECKSUM_BYTES: u64 = 32;
const SECTOR_BYTES: u64 = 512;
/// Bytes that are hashed at once.
const HASH_BYTES: u64 = 1 << 20;

/// Whether a checksum is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It must be there, and right.
    Required,
    /// When it is there it must be right.
    IfThere,
    /// It does not matter, as for a file that was copied out of a data directory.
    Ignored,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// There is no checksum at its end.
    #[error(
        "{}: there is no checksum at its end: a file that was copied out of a data directory has none, and is taken with \
         --skip-hash-check; one that was saved with snapshot save is not whole",
        path.display()
    )]
    NoChecksum {
        /// The file.
        path: PathBuf,
    },
    /// The checksum is another one.
    #[error("{}: its content does not match the checksum at its end: it is damaged, take another copy", path.display())]
    WrongChecksum {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or a damaged one.
    #[error("{}: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: ReadError,
    },
    /// The database is whole, and what is in it cannot be.
    #[error("{}: {what}", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The content of a file, without a checksum.
pub struct Content {
    file: Box<dyn DiskFile>,
    bytes: u64,
}

impl Source for Content {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }
}

/// An open database, and its name for errors.
pub struct Database {
    /// The file.
    pub path: PathBuf,
    /// The buckets.
    pub reader: Reader<Content>,
    /// True when a checksum was there.
    pub has_checksum: bool,
}

impl Database {
    /// Opens a file, and checks its checksum and that its pages are whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path, checksum: Checksum) -> Result<Self, FileError> {
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let file = disk.open(path, OpenMode::Read).map_err(io)?;
        let length = file.len().map_err(io)?;
        let has_checksum = length % SECTOR_BYTES == CHECKSUM_BYTES;
        let bytes = if has_checksum { length - CHECKSUM_BYTES } else { length };
        match checksum {
            Checksum::Required if !has_checksum => {
                return Err(FileError::NoChecksum { path: path.to_owned() });
            }
            Checksum::Required | Checksum::IfThere if has_checksum => {
                if !is_right(&*file, bytes).map_err(io)? {
                    return Err(FileError::WrongChecksum { path: path.to_owned() });
                }
            }
            Checksum::Required | Checksum::IfThere | Checksum::Ignored => {}
        }
        let damaged = |source| FileError::Damaged { path: path.to_owned(), source };
        let reader = Reader::open(Content { file, bytes }).map_err(damaged)?;
        reader.check().map_err(damaged)?;
        Ok(Self { path: path.to_owned(), reader, has_checksum })
    }

    /// An error of the reader as one of this file.
    pub fn damaged(&self, source: ReadError) -> FileError {
        FileError::Damaged { path: self.path.clone(), source }
    }

    /// What is in the file and cannot be.
    pub fn impossible(&self, what: impl Into<String>) -> FileError {
        FileError::Impossible { path: self.path.clone(), what: what.into() }
    }

    /// The value of a key; `None` when there is no such key or bucket.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn value(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, FileError> {
        let Some(bucket) = self.reader.bucket(bucket).map_err(|e| self.damaged(e))? else { return Ok(None) };
        self.reader.value(&bucket, key).map_err(|e| self.damaged(e))
    }

    /// Goes through a bucket; nothing when there is none.
    ///
    /// # Errors
    /// The file cannot be read, or what `each` says.
    pub fn each<E: From<FileError>>(
        &self,
        bucket: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(bucket) = self.reader.bucket(bucket).map_err(|e| self.damaged(e))? else { return Ok(()) };
        let mut scan = self.reader.scan(&bucket);
        while let Some(pair) = scan.next().map_err(|e| self.damaged(e))? {
            each(pair.key, pair.value)?;
        }
        Ok(())
    }
}

fn is_right(file: &dyn DiskFile, bytes: u64) -> io::Result<bool> {
    let mut sha = Sha256::new();
    let mut at = 0;
    while at < bytes {
        let part = usize::try_from((bytes - at).min(HASH_BYTES)).unwrap_or(usize::MAX);
        let mut part = vec![0; part];
        file.read_exact_at(&mut part, at)?;
        sha.update(&part);
        at += part.len() as u64;
    }
    let mut found = [0; 32];
    file.read_exact_at(&mut found, bytes)?;
    Ok(sha.finalize()[..] == found)
}
