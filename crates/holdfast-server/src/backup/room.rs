//! Where snapshots for clients are written, and how many at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_env::{Disk, DiskFile, OpenMode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// Why there is no snapshot for a client.
#[derive(Debug)]
pub enum NoSnapshot {
    /// As many are on their way as may be.
    TooMany,
    /// The disk has not enough room for the file.
    NoSpace {
        /// What is free.
        free_bytes: u64,
        /// What has to be.
        needed_bytes: u64,
    },
    /// The disk refused.
    Disk(io::Error),
    /// A snapshot from the leader has replaced the state meanwhile.
    Replaced,
}

/// The directory of the files, and the places.
pub struct Room {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    places: Arc<Semaphore>,
    number: AtomicU64,
}

impl Room {
    /// In this directory, which is made when it is needed.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, streams_max: usize) -> Self {
        Self { disk, dir, places: Arc::new(Semaphore::new(streams_max)), number: AtomicU64::new(0) }
    }

    /// Removes what an earlier process has left behind.
    ///
    /// # Errors
    /// The disk refused.
    pub fn clean_up(&self) -> io::Result<()> {
        if self.disk.exists(&self.dir)? {
            for path in self.disk.read_dir(&self.dir)? {
                tracing::info!(path = %path.display(), "removing the snapshot file of a process that ended");
                self.disk.remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Takes a place, if there is one, and room for a state of so many bytes.
    ///
    /// # Errors
    /// As the variants say; nothing was written.
    pub fn enter(&self, logical_bytes: u64) -> Result<OwnedSemaphorePermit, NoSnapshot> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| NoSnapshot::TooMany)?;
        let needed = logical_bytes.saturating_mul(limits::SNAPSHOT_FREE_FACTOR);
        self.check_free(needed.saturating_add(limits::SNAPSHOT_FREE_BYTES))?;
        Ok(place)
    }

    /// Refuses to go on when there is not so much free.
    ///
    /// # Errors
    /// There is less, or the disk does not tell.
    pub fn check_free(&self, needed_bytes: u64) -> Result<(), NoSnapshot> {
        let dir = self.dir.parent().unwrap_or(&self.dir);
        let free_bytes = self.disk.free_bytes(dir).map_err(NoSnapshot::Disk)?;
        if free_bytes < needed_bytes {
            return Err(NoSnapshot::NoSpace { free_bytes, needed_bytes });
        }
        Ok(())
    }

    /// A new, empty file.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(&self) -> Result<TemporaryFile, NoSnapshot> {
        self.disk.create_dir_all(&self.dir).map_err(NoSnapshot::Disk)?;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("snapshot-{number}.tmp"));
        let file = self.disk.open(&path, OpenMode::CreateNew).map_err(NoSnapshot::Disk)?;
        Ok(TemporaryFile { disk: Arc::clone(&self.disk), path, file })
    }
}

/// A file that is removed when it is dropped.
pub struct TemporaryFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// What is in it.
    pub file: Box<dyn DiskFile>,
}

impl TemporaryFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a snapshot file stays until the next start");
        }
    }
}
