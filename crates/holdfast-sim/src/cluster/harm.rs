//! Damage to disks beside what crashes do to them.

use std::path::{Path, PathBuf};

use holdfast_env::Disk;

use super::member::Machines;
use crate::world::SimRng;

/// What a member has not made up for yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Harmed {
    /// The index at which the snapshot ends that has rotted; a newer one makes up for it. `None` when it is the store that
    /// was harmed: that is rebuilt by the next start.
    pub snapshot: Option<u64>,
}

/// Damage to a disk that a member makes up for by itself. Two at once it could not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    /// A bit of a snapshot has changed.
    RottenSnapshot,
    /// A bit of the stable store has changed.
    RottenStore,
    /// The stable store is gone.
    LostStore,
}

impl Machines {
    /// Damages a disk, unless it has been damaged before and the member has not made up for it since. A stable store is
    /// damaged only while its member is down.
    pub(super) fn harm(&self, index: usize, harm: Harm, rng: &SimRng) {
        let machine = self.machine(index);
        let mut harmed = machine.harm.lock();
        if harmed.is_some() || (harm != Harm::RottenSnapshot && machine.life.lock().is_some()) {
            return;
        }
        let under = |part: &str, end: &str| -> Vec<(PathBuf, u64)> {
            let files = machine.disk.files().into_iter();
            files
                .filter(|(path, len)| {
                    let path = path.to_string_lossy();
                    *len > 0 && path.contains(part) && path.ends_with(end)
                })
                .collect()
        };
        let files = match harm {
            Harm::RottenSnapshot => under("/snapshots/", ".snap"),
            Harm::RottenStore | Harm::LostStore => under("/store/gen-", ".journal"),
        };
        if files.is_empty() {
            return;
        }
        let (path, len) = &files[usize::try_from(rng.below(files.len() as u64)).unwrap_or_default()];
        let done = if harm == Harm::LostStore {
            machine.disk.restart();
            machine.disk.remove_dir_all(path.parent().unwrap_or(path))
        } else {
            machine.disk.flip(path, rng.below(*len), 1 << rng.below(8))
        };
        self.history().trace(("harm", index, harm, path, done.is_ok()));
        self.history().count(|report| match harm {
            Harm::RottenSnapshot => report.rotten_snapshots += 1,
            Harm::RottenStore => report.rotten_stores += 1,
            Harm::LostStore => report.lost_stores += 1,
        });
        *harmed = Some(Harmed { snapshot: (harm == Harm::RottenSnapshot).then(|| index_of(path)) });
    }
}

/// The index in the name of a snapshot's file.
fn index_of(path: &Path) -> u64 {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name.split('-').nth(1).and_then(|index| index.parse().ok()).unwrap_or_default()
}
