//! The points at which a member can be made to die, with their places in the table of crash points, and what it takes
//! to get a member there. The names are the program's; a test holds this table against the list that the program gives.

use std::ops::RangeInclusive;

/// What brings a member to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Writes alone.
    Writes,
    /// A dump, from its request to its merge.
    Dump,
    /// A purge of the log behind a dump; how much is kept follows from how much makes a dump due.
    Purge,
    /// A snapshot from the leader: the member is away until the others have purged what it needs.
    Install,
    /// Writes, with a checkpoint of the index after few of them.
    Checkpoints,
    /// A dump while more is written than the overlay may hold.
    FullOverlay,
    /// No point: a bit of the snapshot changes.
    Rot,
    /// No point: the stable store is damaged, or gone.
    BrokenStore,
    /// No point: the disk is gone; another member takes the place.
    LostDisk,
    /// No point: another leader comes while it dumps.
    LeaderChange,
}

impl Way {
    /// Whether it is a disaster that comes over a member, rather than a point that it comes to.
    pub fn is_disaster(self) -> bool {
        matches!(self, Self::Rot | Self::BrokenStore | Self::LostDisk | Self::LeaderChange)
    }
}

/// A point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Its name, as the program spells it.
    pub name: &'static str,
    /// Its row in the table of crash points.
    pub row: &'static str,
    /// How a member gets there.
    pub way: Way,
    /// The member dies there for the n-th time; n is drawn from here.
    pub hits: (u64, u64),
}

impl Point {
    const fn new(name: &'static str, row: &'static str, way: Way, hits_max: u64) -> Self {
        Self { name, row, way, hits: (1, hits_max) }
    }

    /// The hits to draw from when the member is to lead before it dies: it passes points of writes
    /// and of purges on its way.
    pub fn hits(&self, leads: bool) -> RangeInclusive<u64> {
        let (first, last) = self.hits;
        match self.way {
            Way::Writes if leads => last..=last * 4,
            Way::Purge if leads => last + 1..=last * 2 + 1,
            _ => first..=last,
        }
    }

    /// Whether a leader can die there: a member that takes a snapshot follows.
    pub fn is_for_leaders(&self) -> bool {
        self.way != Way::Install && !self.way.is_disaster()
    }

    /// The point, or the disaster, of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|point| point.name == name)
    }

    /// All points, and all disasters.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        POINTS.iter().chain(DISASTERS)
    }
}

/// What happens to a member without a point in the program. A full disk (K24) has a test of its own.
pub const DISASTERS: &[Point] = &[
    Point::new("snapshot-rots", "K21", Way::Rot, 1),
    Point::new("store-damaged", "K22", Way::BrokenStore, 1),
    Point::new("disk-lost", "K23", Way::LostDisk, 1),
    Point::new("leader-changes", "K25", Way::LeaderChange, 1),
];

/// All points.
pub const POINTS: &[Point] = &[
    Point::new("apply.after_commit", "K1", Way::Writes, 200),
    Point::new("commit.mid_batch", "K2", Way::Dump, 3),
    Point::new("commit.before_flush", "K3", Way::Dump, 3),
    Point::new("dump.start.queued", "K4", Way::Dump, 3),
    Point::new("dump.start.fenced", "K5", Way::Dump, 3),
    Point::new("dump.start.sealed", "K5", Way::Dump, 3),
    Point::new("dump.start.drained", "K6", Way::Dump, 3),
    Point::new("dump.read.block_n", "K7", Way::Dump, 6),
    Point::new("dump.write.block_n", "K7", Way::Dump, 6),
    Point::new("dump.file.synced", "K8", Way::Dump, 3),
    Point::new("dump.file.renamed", "K9", Way::Dump, 3),
    Point::new("dump.current.updated", "K10", Way::Dump, 3),
    Point::new("dump.finish.fenced", "K11", Way::Dump, 3),
    Point::new("merge.mid", "K12", Way::Dump, 3),
    Point::new("merge.done", "K13", Way::Dump, 3),
    Point::new("purge.marked", "K14", Way::Purge, 2),
    Point::new("purge.segment_n", "K14", Way::Purge, 2),
    Point::new("cleanup.in_snapshot", "K15", Way::Purge, 2),
    Point::new("install.recv_n", "K16", Way::Install, 3),
    Point::new("install.verified", "K17", Way::Install, 1),
    Point::new("install.gen_written", "K17", Way::Install, 1),
    Point::new("install.switched", "K18", Way::Install, 1),
    Point::new("install.cleanup", "K19", Way::Install, 1),
    Point::new("drain_under_dump.mid", "K20", Way::FullOverlay, 2),
    Point::new("checkpoint.write.block_n", "K26", Way::Checkpoints, 6),
    Point::new("checkpoint.synced", "K27", Way::Checkpoints, 3),
    Point::new("checkpoint.renamed", "K28", Way::Checkpoints, 3),
];

/// The names in what the program says about a point that it does not have.
pub fn names_in(refusal: &str) -> Vec<&str> {
    let Some((_, list)) = refusal.split_once("there are ") else { return Vec::new() };
    let list = list.split(['\n', '"']).next().unwrap_or_default();
    list.split(", ").map(|name| name.trim_end_matches(['.', ';', ' '])).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::harness::binary;

    #[test]
    fn the_program_has_these_points_and_no_others() {
        let program = binary::holdfast().expect("a binary to test");
        let refused = Command::new(program).args(["--failpoint", "nonsense"]).output().expect("it runs");
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr);
        if said.contains("this build has no failpoints") {
            return crate::skip::skipped(
                "the table of failpoints",
                "HOLDFAST_BIN was built without them; leave it out in a debug build",
            );
        }
        let ours: Vec<&str> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names_in(&said), ours, "{said}");
    }

    #[test]
    fn names_are_found_in_a_refusal() {
        let said = "error: no failpoint is named \"x\"; there are merge.mid, merge.done\nnext line";
        assert_eq!(names_in(said), ["merge.mid", "merge.done"]);
        assert!(names_in("something else").is_empty());
    }
}
