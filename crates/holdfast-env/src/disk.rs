//! Files and directories, with every durability step visible.
//!
//! What is written is durable only after [`DiskFile::sync_data`] or [`DiskFile::sync_all`]; a created, renamed or
//! removed name only after [`Disk::sync_dir`] of its directory. The simulated disk loses, tears and reorders all
//! that was not synced, so code that forgets a step fails its tests.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use direct::DirectFile;

mod direct;

/// What the system's cache reads and writes at once.
pub const PAGE_BYTES: u64 = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    ReadWrite,
    /// Must not exist; created for reads and writes.
    CreateNew,
}

/// Files and directories.
pub trait Disk: Send + Sync + 'static {
    /// Creates the directory and its parents; fine when they exist.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file or directory over whatever is there. Durable after `sync_dir` of the parent.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir` of the parent.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and what is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The paths in a directory, sorted.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// True when the path exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file, creating it when missing. Fails with `WouldBlock` while another process
    /// holds it; released on drop and when the process dies.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
    /// Bytes that may still be written on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An exclusive lock, released on drop.
pub trait DiskLock: Send + Sync {}

/// An open file. Positioned reads and writes; no cursor.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; fails with `UnexpectedEof` when the file is shorter.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`, growing the file when needed.
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`, and makes it durable. What was written before by other calls may stay as it
    /// was. After an error nobody knows how much of it is on disk.
    fn write_durably_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)?;
        self.sync_data()
    }
    /// What a durable write should begin and end at a multiple of: then nothing has to be read for it. A power of two,
    /// at most [`PAGE_BYTES`]; may change from one write to the next.
    fn write_unit_bytes(&self) -> u64 {
        PAGE_BYTES
    }
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True when the file holds no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes written data durable, and the length when it changed.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes data and metadata durable.
    fn sync_all(&self) -> io::Result<()>;
}

/// Creates the directory and its missing parents, durably: a crash does not lose it any more.
pub fn create_dir_synced(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for dir in path.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        if disk.exists(dir)? {
            break;
        }
        missing.push(dir);
    }
    disk.create_dir_all(path)?;
    // A start that was interrupted before may have left the directory without making it durable.
    missing.extend(missing.is_empty().then_some(path));
    for dir in missing.into_iter().rev() {
        if let Some(parent) = dir.parent() {
            disk.sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        }
    }
    Ok(())
}

/// What may be done with what we create: everything by its owner, nothing by anybody else. The data is whatever the
/// clients store, secrets among it.
const DIRECTORY_MODE: u32 = 0o700;
/// As [`DIRECTORY_MODE`], for files.
const FILE_MODE: u32 = 0o600;

/// The machine's file system. Directories and files that it creates are their owner's alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile {
    file: std::fs::File,
    /// For durable writes past the system's cache; decided at the first one.
    direct: OnceLock<Option<DirectFile>>,
    may_write: bool,
}

struct RealLock(
    #[expect(dead_code, reason = "held for its lock, which the kernel ties to the open file")] std::fs::File,
);

impl DiskLock for RealLock {}

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew);
        options.mode(FILE_MODE);
        let file = options.open(path)?;
        Ok(Box::new(RealFile { file, direct: OnceLock::new(), may_write: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths =
            std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock(file)))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl RealFile {
    /// The way past the cache, where there is one.
    fn direct(&self) -> Option<&DirectFile> {
        if !self.may_write {
            return None;
        }
        self.direct.get_or_init(|| DirectFile::open(&self.file)).as_ref()
    }
}

impl DiskFile for RealFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, data, offset)
    }

    fn write_durably_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = self.direct()
            && direct.takes(data, offset)
            && direct.write_durably_at(data, offset)?
        {
            return Ok(());
        }
        self.write_all_at(data, offset)?;
        self.sync_data()
    }

    fn write_unit_bytes(&self) -> u64 {
        self.direct().map_or(PAGE_BYTES, DirectFile::unit_bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
