//! The demo's temporary directory. A lock in it says that its demo is alive, whatever its process id is.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use holdfast_env::{Disk, DiskLock, OsRng, RealDisk, Rng};

/// A random number follows.
const PREFIX: &str = "holdfast-demo-";
/// Locked as long as the demo runs.
const LOCK: &str = "lock";
/// A name is tried again when it is taken, or when another demo mistook the new directory for an old one.
const ATTEMPTS: usize = 8;

/// The directory of a running demo. It is removed with this value.
pub(super) struct Directory {
    path: PathBuf,
    // Behind the removal, so that nobody else removes it at the same time.
    _lock: Box<dyn DiskLock>,
}

impl Directory {
    /// Makes a new one in `parent`, for its owner alone: data of a demo is nobody else's business.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let path = parent.join(format!("{PREFIX}{:016x}", OsRng.next_u64()));
            match Self::create_at(path) {
                Ok(directory) => return Ok(directory),
                Err(error) if is_passing(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    fn create_at(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = RealDisk.lock(&path.join(LOCK))?;
        // Between the two lines, one that cleans up may have found a lock that nobody holds.
        if !path.join(LOCK).try_exists()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, directory = %self.path.display(), "cannot remove the demo's directory");
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, NotFound, WouldBlock};
    matches!(error.kind(), AlreadyExists | NotFound | WouldBlock)
}

/// Removes what demos left behind that were killed: a directory whose lock nobody holds. What cannot be looked at or
/// removed is another user's, and stays.
pub(super) fn remove_orphans(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Of the entry itself: what a link points at is not ours to remove.
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let lock = path.join(LOCK);
        if lock.is_file()
            && let Ok(_held) = RealDisk.lock(&lock)
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::debug!(%error, directory = %path.display(), "cannot remove an old demo's directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_demo_left_is_removed_and_what_lives_stays() {
        let parent = tempfile::tempdir().unwrap();
        let alive = Directory::create(parent.path()).unwrap();
        let second = Directory::create(parent.path()).unwrap();
        assert_ne!(alive.path(), second.path());
        // The number of our own process, as a demo in a container always has the same one.
        let killed = parent.path().join(format!("{PREFIX}{}", std::process::id()));
        let stranger = parent.path().join(format!("{PREFIX}without-a-lock"));
        for directory in [&killed, &stranger] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(killed.join(LOCK), "").unwrap();
        std::os::unix::fs::symlink(&killed, parent.path().join(format!("{PREFIX}link"))).unwrap();
        remove_orphans(parent.path());
        assert!(!killed.exists());
        assert!(stranger.exists() && alive.path().exists() && second.path().exists());
        let gone = alive.path().to_owned();
        drop(alive);
        assert!(!gone.exists());
    }
}
