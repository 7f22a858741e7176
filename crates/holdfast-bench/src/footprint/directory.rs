//! What a data directory holds, by part, in bytes that the disk has given to it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// `st_blocks` counts these, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

/// Bytes on disk of one member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sizes {
    /// The Raft log: ours, or etcd's write-ahead log.
    pub(crate) log: u64,
    /// The stable store, or etcd's database.
    pub(crate) store: u64,
    /// Snapshots.
    pub(crate) snapshots: u64,
    /// Everything else.
    pub(crate) other: u64,
}

impl Sizes {
    /// All parts together.
    pub(crate) fn total(self) -> u64 {
        self.log + self.store + self.snapshots + self.other
    }

    /// Reads them. Files that go meanwhile are not counted.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let mut sizes = Self::default();
        sizes.add(directory, Path::new(""))?;
        Ok(sizes)
    }

    fn add(&mut self, directory: &Path, within: &Path) -> io::Result<()> {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let name = within.join(entry.file_name());
            if metadata.is_dir() {
                self.add(&entry.path(), &name)?;
            } else {
                *self.part(&name) += metadata.blocks() * BLOCK_BYTES;
            }
        }
        Ok(())
    }

    /// Where a file belongs, by its path within the data directory.
    fn part(&mut self, file: &Path) -> &mut u64 {
        let has = |name: &str| file.components().any(|component| component.as_os_str() == name);
        let is_database = file.ends_with("db") || file.extension().is_some_and(|extension| extension == "db");
        if has("log") || has("wal") {
            &mut self.log
        } else if has("snapshots") || (has("snap") && !is_database) {
            &mut self.snapshots
        } else if has("store") || is_database {
            &mut self.store
        } else {
            &mut self.other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_systems_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            "log/0000000000000001.seg",
            "store/gen-1/db",
            "store/snapshots/1-2-ab.snap",
            "member/wal/0-0.wal",
            "member/snap/db",
            "member/snap/1-2.snap",
            "identity",
        ];
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![1; 5000]).unwrap();
        }
        let sizes = Sizes::of(directory.path()).unwrap();
        let one = sizes.other;
        assert!(one >= 5000);
        assert_eq!(sizes, Sizes { log: 2 * one, store: 2 * one, snapshots: 2 * one, other: one });
        assert_eq!(sizes.total(), 7 * one);
        assert_eq!(Sizes::of(&directory.path().join("gone")).unwrap(), Sizes::default());
    }
}
