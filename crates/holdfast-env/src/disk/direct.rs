//! Durable writes past the system's cache, in one call each.
//!
//! A write and an `fdatasync` go through the cache: the copy, the page's way to the disk, the wait for it and the flush
//! are steps of their own. A direct write that is synchronous by itself takes a fifth less CPU time, and one wait less.
//! Not every file system takes such writes; the first refusal is the last attempt.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::PAGE_BYTES;

/// What the address must be a multiple of: no disk in use asks for more.
const ALIGNMENT: usize = 4096;

/// The smallest unit of a disk. Some file systems take less; a disk does not.
const SECTOR_BYTES: u64 = 512;

/// Larger writes go through the cache: they are copied here, and what is saved is the same for every size.
const BYTES_MAX: usize = 256 << 10;

/// A second handle of a file.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: File,
    /// What offset and length must be multiples of.
    unit_bytes: u64,
    /// Where what is written is aligned; as large as the largest write so far, and a block.
    scratch: Mutex<Vec<u8>>,
    refused: AtomicBool,
}

impl DirectFile {
    /// True for writes that may go this way.
    pub(super) fn takes(&self, data: &[u8], offset: u64) -> bool {
        !data.is_empty()
            && data.len() <= BYTES_MAX
            && (data.len() as u64).is_multiple_of(self.unit_bytes)
            && offset.is_multiple_of(self.unit_bytes)
    }

    /// What offset and length of a write must be multiples of; that of the cache once writes were refused.
    pub(super) fn unit_bytes(&self) -> u64 {
        if self.refused.load(Ordering::Relaxed) { PAGE_BYTES } else { self.unit_bytes }
    }

    /// The same file, wherever its name may be by now; nothing when the file system has no such writes.
    pub(super) fn open(file: &File) -> Option<Self> {
        let flags = OFlags::DIRECT | OFlags::DSYNC;
        let flags = i32::try_from(flags.bits()).ok()?;
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        match OpenOptions::new().write(true).custom_flags(flags).open(same) {
            Ok(file) => {
                let unit_bytes = unit_bytes(&file)?;
                Some(Self { file, unit_bytes, scratch: Mutex::default(), refused: AtomicBool::new(false) })
            }
            Err(error) => {
                tracing::debug!(%error, "no direct writes here");
                None
            }
        }
    }

    /// Writes `data`, which this takes, and makes it durable. False, with nothing promised, when the file system refuses
    /// such writes.
    pub(super) fn write_durably_at(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        if self.refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if scratch.len() < data.len() + ALIGNMENT {
            *scratch = vec![0; data.len() + ALIGNMENT];
        }
        let start = scratch.as_ptr().align_offset(ALIGNMENT);
        let aligned = &mut scratch[start..start + data.len()];
        aligned.copy_from_slice(data);
        match self.file.write_all_at(aligned, offset) {
            Ok(()) => Ok(true),
            // Also what the rest of a short write gives, which is not aligned any more.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tracing::debug!(%error, "direct writes are refused");
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the file system says that direct writes must be multiples of; nothing when it takes none, and a whole page when
/// it does not say, as before Linux 6.1.
fn unit_bytes(file: &File) -> Option<u64> {
    let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Some(PAGE_BYTES);
    };
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Some(PAGE_BYTES);
    }
    match u64::from(stat.stx_dio_offset_align).max(SECTOR_BYTES) {
        _ if stat.stx_dio_offset_align == 0 => None,
        unit if unit <= PAGE_BYTES && unit.is_power_of_two() => Some(unit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OpenMode, RealDisk};

    #[test]
    fn what_is_written_durably_is_what_others_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        // Through the cache before, beside and after, as the log does it; aligned and not; small and large.
        file.write_all_at(&vec![1; 3 * BYTES_MAX], 0).unwrap();
        let mut wanted = vec![1; 3 * BYTES_MAX];
        let writes = [
            (ALIGNMENT, ALIGNMENT, 2),
            (0, BYTES_MAX, 3),
            (BYTES_MAX, BYTES_MAX + ALIGNMENT, 4),
            (ALIGNMENT / 2, ALIGNMENT, 5),
            (ALIGNMENT, 100, 6),
            (8 * ALIGNMENT, 2 * ALIGNMENT, 7),
            (ALIGNMENT + 512, 512, 8),
            (8 * ALIGNMENT - 512, 1024, 9),
        ];
        for (offset, bytes, with) in writes {
            file.write_durably_at(&vec![with; bytes], offset as u64).unwrap();
            wanted[offset..offset + bytes].fill(with);
            let mut found = vec![0; wanted.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == wanted, "after {bytes} bytes at {offset}");
        }
    }

    #[test]
    fn the_file_is_the_same_when_its_name_has_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (before, after) = (dir.path().join("before"), dir.path().join("after"));
        let file = RealDisk.open(&before, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[0; ALIGNMENT], 0).unwrap();
        RealDisk.rename(&before, &after).unwrap();
        std::fs::write(&before, b"another").unwrap();
        file.write_durably_at(&[9; ALIGNMENT], 0).unwrap();
        assert_eq!(std::fs::read(&after).unwrap(), [9; ALIGNMENT]);
        assert_eq!(std::fs::read(&before).unwrap(), b"another");
    }

    #[test]
    fn a_file_that_was_opened_for_reads_only_takes_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; ALIGNMENT]).unwrap();
        let file = RealDisk.open(&path, OpenMode::Read).unwrap();
        file.write_durably_at(&[1; ALIGNMENT], 0).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), [0; ALIGNMENT]);
    }
}
