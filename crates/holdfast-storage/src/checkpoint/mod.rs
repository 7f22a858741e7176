//! Checkpoints of the key index: a start reads the newest one, and of the stable store only the metadata behind it.
//!
//! One file `index.checkpoint` in the directory of its generation, with which it goes. It is worth nothing by itself:
//! what it says can be built from the store, so whatever is wrong with it ends in the full load, and nothing else. What
//! it consists of, and why it need not be as of one revision, is told in [`holdfast_mvcc::checkpoint`].
//!
//! It is written beside the one before, made durable, and renamed over it only when the store is durable up to
//! everything that is in it: after a crash a store that stands behind its checkpoint would have to load in full.

pub(crate) mod format;
mod load;

pub(crate) use format::Writer;
pub(crate) use load::{Found, load};

use std::path::{Path, PathBuf};

use holdfast_env::{Disk, Failpoint, Faults};

use crate::error::StorageError;

/// The checkpoint of the generation in a directory.
pub(crate) fn path(generation: &Path) -> PathBuf {
    generation.join("index.checkpoint")
}

/// The one that is being written.
pub(crate) fn tmp_path(generation: &Path) -> PathBuf {
    generation.join("index.checkpoint.tmp")
}

/// Makes the written one the checkpoint of its generation, durably.
pub(crate) fn publish(disk: &dyn Disk, faults: &Faults, generation: &Path) -> Result<(), StorageError> {
    let tmp = tmp_path(generation);
    disk.rename(&tmp, &path(generation)).map_err(StorageError::io(&tmp, "rename"))?;
    faults.hit(Failpoint::CheckpointRenamed);
    disk.sync_dir(generation).map_err(StorageError::io(generation, "sync"))
}

/// Removes a file that is of no use any more. Failing is harmless: it is looked at again by the next start.
pub(crate) fn discard(disk: &dyn Disk, path: &Path) {
    let removed = disk.exists(path).and_then(|exists| if exists { disk.remove_file(path) } else { Ok(()) });
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "a checkpoint of no use stays");
    }
}
