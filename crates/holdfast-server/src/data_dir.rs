//! The data directory: whose it is, and that no other process uses it.
//!
//! ```text
//! <data-dir>/IDENTITY   format, cluster, member, name: text, written once
//! <data-dir>/LOCK       locked while a process uses the directory
//! <data-dir>/WENT_BACK  empty; there once the log has lost what it had acknowledged: no member may start from it
//! <data-dir>/log/       the Raft log
//! <data-dir>/store/     the stable store and the snapshots
//! <data-dir>/backup/    files on their way to clients that save a snapshot; emptied at a start
//! ```
//!
//! The IDENTITY of a member that was added to a running cluster has format 2 and one more line, `joined`.
//!
//! The checks come in an order that changes nothing in a directory that is refused: first IDENTITY is read and
//! compared, then the lock is taken, and only then is anything written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_env::{Disk, DiskLock, Env, OpenMode, create_dir_synced};
use holdfast_mvcc::types::MemberId;
use sha1::{Digest, Sha1};

use crate::identity::{Identity, Origin};

/// The format this version writes, and the newest it reads.
const FORMAT: u32 = 2;
/// What founders write: older versions can read it.
const FOUNDERS_FORMAT: u32 = 1;
const JOINED: &str = "joined";
const MAGIC: &str = "holdfast data directory";
const IDENTITY: &str = "IDENTITY";
const IDENTITY_NEW: &str = "IDENTITY.new";
const LOCK: &str = "LOCK";
const WENT_BACK: &str = "WENT_BACK";
/// What may lie in a directory that was not ours before: a mount point's own, and what a start that was cut short
/// before it wrote IDENTITY left behind.
const HARMLESS: [&str; 3] = ["lost+found", LOCK, IDENTITY_NEW];
/// An IDENTITY file is a few short lines; anything larger is not one.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// A data directory that is ours, locked until this is dropped.
pub struct DataDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    identity: Identity,
    _lock: Box<dyn DiskLock>,
    known: Known,
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "data directory {}: another process is using it: stop that one first, or give each member its own --data-dir",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// There are files, and they are not ours.
    #[error(
        "data directory {}: it holds {found} but no IDENTITY file, so it was not made by holdfast: give an empty or new \
         directory with --data-dir",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        found: String,
    },
    /// It belongs to another cluster.
    #[error(
        "data directory {}: it belongs to cluster {found:016x} (member \"{name}\"), but --initial-cluster and \
         --initial-cluster-token describe cluster {expected:016x}: start with the flags it was made with, or give another \
         --data-dir",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: u64,
        /// Its member's name.
        name: String,
        /// Our cluster.
        expected: u64,
    },
    /// It belongs to another member of our cluster.
    #[error(
        "data directory {}: it belongs to member \"{found}\", not to \"{expected}\": start with --name {found}, or give \
         this member's own --data-dir",
        path.display()
    )]
    OtherMember {
        /// The directory.
        path: PathBuf,
        /// Its member's name.
        found: String,
        /// Our name.
        expected: String,
    },
    /// It was written by a newer version.
    #[error(
        "data directory {}: it has format {found}, this version reads up to {FORMAT}: use the holdfast version that wrote \
         it, or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// IDENTITY is damaged.
    #[error(
        "data directory {}: its IDENTITY file is damaged ({what}): restore the directory from a backup, or let the member \
         join anew under a new id: holdfast join --replace, with this member's flags",
        path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong in it.
        what: &'static str,
    },
    /// Its log has lost entries that the member had acknowledged.
    #[error(
        "data directory {}: its log has lost entries that the member had acknowledged, so with it acknowledged writes could \
         be lost: check the disk, and let the member take part under a new id: holdfast join --replace, with this member's \
         flags",
        path.display()
    )]
    WentBack {
        /// The directory.
        path: PathBuf,
    },
    /// The disk refused.
    #[error("data directory {}: cannot {action}: {source}{}", path.display(), advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

/// What to do about a disk's refusal, when that is plain; starts with a colon.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run as the user that owns it, or change its owner",
        io::ErrorKind::ReadOnlyFilesystem => {
            ": mount the file system for writing, or give another --data-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free space on that disk, then start again"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => ": give a directory with --data-dir",
        _ => "",
    }
}

impl DataDir {
    /// Whose directory it is; `None` when it is nobody's yet. Changes nothing.
    ///
    /// Errors: files that are not ours, a damaged or newer IDENTITY.
    pub fn owner(env: &Env, path: &Path) -> Result<Option<Identity>, DataDirError> {
        look(env.disk.as_ref(), path)
    }

    /// Checks and locks the directory. In one that is refused, nothing is changed.
    pub fn lock(env: &Env, path: &Path, identity: &Identity) -> Result<Self, DataDirError> {
        let disk = Arc::clone(&env.disk);
        examine(disk.as_ref(), path, identity)?;
        create_dir_synced(disk.as_ref(), path).map_err(io_error(path, "create it"))?;
        let lock = disk.lock(&path.join(LOCK)).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => DataDirError::Locked { path: path.to_owned() },
            _ => DataDirError::Io { path: path.to_owned(), action: "lock it", source },
        })?;
        // Another process may have marked the directory between our first look and our lock.
        let known = examine(disk.as_ref(), path, identity)?;
        Ok(Self { path: path.to_owned(), disk, identity: identity.clone(), _lock: lock, known })
    }

    /// Marks a new directory as this member's. A start does so before it writes anything else; a restore behind all that it
    /// writes, because what has no IDENTITY is refused.
    pub fn mark(&self) -> Result<(), DataDirError> {
        match self.known {
            Known::Nothing => write_identity(self.disk.as_ref(), &self.path, &self.identity),
            Known::Ours => Ok(()),
        }
    }

    /// Takes back what [`DataDir::mark`] did to a new directory, whole or not.
    ///
    /// Errors: the disk refused.
    pub fn unmark(&self) -> std::io::Result<()> {
        let path = self.path.join(IDENTITY);
        if self.known == Known::Nothing && self.disk.exists(&path)? {
            self.disk.remove_file(&path)?;
            self.disk.sync_dir(&self.path)?;
        }
        Ok(())
    }

    /// Notes for good that its log has lost what it had acknowledged: see [`DataDirError::WentBack`].
    ///
    /// Errors: the disk refused; then a later start is not refused.
    pub fn retire(&self) -> Result<(), DataDirError> {
        let path = self.path.join(WENT_BACK);
        if !self.disk.exists(&path).map_err(io_error(&path, "look for it"))? {
            let file = self.disk.open(&path, OpenMode::CreateNew).map_err(io_error(&path, "create it"))?;
            file.sync_all().map_err(io_error(&path, "sync it"))?;
        }
        self.disk.sync_dir(&self.path).map_err(io_error(&self.path, "sync it"))
    }

    /// Where the Raft log is.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the stable store and the snapshots are.
    pub fn store_dir(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where files for clients are written.
    pub fn backup_dir(&self) -> PathBuf {
        self.path.join("backup")
    }

    /// True when this start has made it.
    pub fn is_fresh(&self) -> bool {
        self.known == Known::Nothing
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    Ours,
}

/// Looks, and changes nothing.
fn examine(disk: &dyn Disk, path: &Path, identity: &Identity) -> Result<Known, DataDirError> {
    match look(disk, path)? {
        Some(found) => {
            compare(path, &found, identity)?;
            if disk.exists(&path.join(WENT_BACK)).map_err(io_error(path, "look into it"))? {
                return Err(DataDirError::WentBack { path: path.to_owned() });
            }
            Ok(Known::Ours)
        }
        None => Ok(Known::Nothing),
    }
}

fn look(disk: &dyn Disk, path: &Path) -> Result<Option<Identity>, DataDirError> {
    if !disk.exists(path).map_err(io_error(path, "look for it"))? {
        return Ok(None);
    }
    let entries = disk.read_dir(path).map_err(io_error(path, "list it"))?;
    let names: Vec<String> =
        entries.iter().filter_map(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).collect();
    if !names.iter().any(|name| name == IDENTITY) {
        return match names.into_iter().find(|name| !HARMLESS.contains(&name.as_str())) {
            Some(found) => Err(DataDirError::Foreign { path: path.to_owned(), found }),
            None => Ok(None),
        };
    }
    read_identity(disk, path).map(Some)
}

fn compare(path: &Path, found: &Identity, expected: &Identity) -> Result<(), DataDirError> {
    if found.cluster_id != expected.cluster_id {
        return Err(DataDirError::OtherCluster {
            path: path.to_owned(),
            found: found.cluster_id,
            name: found.name.clone(),
            expected: expected.cluster_id,
        });
    }
    if found.member_id != expected.member_id || found.name != expected.name {
        return Err(DataDirError::OtherMember {
            path: path.to_owned(),
            found: found.name.clone(),
            expected: expected.name.clone(),
        });
    }
    Ok(())
}

fn read_identity(disk: &dyn Disk, dir: &Path) -> Result<Identity, DataDirError> {
    let path = dir.join(IDENTITY);
    let damaged = |what| DataDirError::Damaged { path: dir.to_owned(), what };
    let file = disk.open(&path, OpenMode::Read).map_err(io_error(&path, "open it"))?;
    let bytes = file.len().map_err(io_error(&path, "read its length"))?;
    if bytes > IDENTITY_BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let mut content = vec![0; usize::try_from(bytes).expect("bounded above")];
    file.read_exact_at(&mut content, 0).map_err(io_error(&path, "read it"))?;
    let text = String::from_utf8(content).map_err(|_| damaged("it is not text"))?;
    parse_identity(dir, &text)
}

/// The format is read before the checksum is compared: a newer version may check its file in another way.
fn parse_identity(dir: &Path, text: &str) -> Result<Identity, DataDirError> {
    let damaged = |what| DataDirError::Damaged { path: dir.to_owned(), what };
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(damaged("its first line is wrong"));
    }
    let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    let format =
        field("format").and_then(|f| f.parse::<u32>().ok()).ok_or_else(|| damaged("it has no format"))?;
    if format > FORMAT {
        return Err(DataDirError::NewerFormat { path: dir.to_owned(), found: format });
    }
    let hex = |text: Option<String>| text.and_then(|t| u64::from_str_radix(&t, 16).ok());
    let cluster_id = hex(field("cluster")).ok_or_else(|| damaged("it has no cluster"))?;
    let member_id = hex(field("member")).ok_or_else(|| damaged("it has no member"))?;
    let name = field("name").ok_or_else(|| damaged("it has no name"))?;
    let origin = if lines.next() == Some(JOINED) { Origin::Joined } else { Origin::Founder };
    let identity = Identity { cluster_id, member_id: MemberId(member_id), name, origin };
    if text != encode_identity(&identity) {
        return Err(damaged("its checksum is wrong"));
    }
    Ok(identity)
}

fn encode_identity(identity: &Identity) -> String {
    let (format, joined) = match identity.origin {
        Origin::Founder => (FOUNDERS_FORMAT, String::new()),
        Origin::Joined => (FORMAT, format!("{JOINED}\n")),
    };
    let body = format!(
        "{MAGIC}\nformat {format}\ncluster {:016x}\nmember {:016x}\nname {}\n{joined}",
        identity.cluster_id, identity.member_id.0, identity.name
    );
    let sum = Sha1::digest(body.as_bytes());
    let sum: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{body}sum {sum}\n")
}

/// Written aside, synced, renamed, and the name synced: there is either no IDENTITY or a whole one.
fn write_identity(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let new = dir.join(IDENTITY_NEW);
    if disk.exists(&new).map_err(io_error(&new, "look for it"))? {
        disk.remove_file(&new).map_err(io_error(&new, "remove it"))?;
    }
    let file = disk.open(&new, OpenMode::CreateNew).map_err(io_error(&new, "create it"))?;
    file.write_all_at(encode_identity(identity).as_bytes(), 0).map_err(io_error(&new, "write it"))?;
    file.sync_all().map_err(io_error(&new, "sync it"))?;
    disk.rename(&new, &dir.join(IDENTITY)).map_err(io_error(&new, "rename it"))?;
    disk.sync_dir(dir).map_err(io_error(dir, "sync it"))
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> DataDirError + use<> {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, action, source }
}

#[cfg(test)]
mod tests;
