//! Judges the positions that members tell of themselves, and that a member's own readers never see it step back.
//!
//! `purged <= snapshot <= durable <= stable <= applied`: the log lets go only of what a snapshot holds, a snapshot holds
//! only what the stable store has synced, and the stable store is never ahead of what readers see. A member that is
//! killed keeps the first two over its restart, because all three of their positions are on disk.

use std::fmt;
use std::time::Duration;

/// Log positions of one member at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// The last entry that readers see.
    pub applied: u64,
    /// The last entry in the stable store.
    pub stable: u64,
    /// The last entry in the stable store that is synced.
    pub durable: u64,
    /// The last entry in the newest verified snapshot; 0 for none.
    pub snapshot: u64,
    /// The last entry that the log has let go of; 0 for none.
    pub purged: u64,
}

/// What a member told, from one page. Pages that are asked for side by side may mix moments: ask one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The member's place.
    pub member: usize,
    /// How often the member in this place, or its stable store, had been replaced before it was asked: a new one owes nothing
    /// to the old one.
    pub replaced: u64,
    /// When, since the run began.
    pub at: Duration,
    /// The positions.
    pub positions: Positions,
}

/// The revision that a read served by a member alone showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalRead {
    /// The member's place.
    pub member: usize,
    /// How often the member in this place had been replaced before it was asked.
    pub replaced: u64,
    /// When it was answered, since the run began. The next read of this member began later.
    pub at: Duration,
    /// The revision.
    pub revision: i64,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A position that is beyond one that the member named afterwards and that may not be behind it.
    OutOfOrder { law: &'static str, earlier: Sample, later: Sample },
    /// A member showed its readers an older state than before.
    StepBack { earlier: LocalRead, later: LocalRead },
    /// A member that nobody looked at proves nothing.
    NotSeen { member: usize, what: &'static str },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfOrder { law, earlier, later } => {
                write!(f, "positions: not {law}: {earlier:?}, then {later:?}")
            }
            Self::StepBack { earlier, later } => {
                write!(f, "step back: member {} showed {earlier:?}, then {later:?}", earlier.member)
            }
            Self::NotSeen { member, what } => write!(f, "member {member} told no {what}"),
        }
    }
}

/// Everything that is wrong with what `members` members told. Samples and reads of one member are in their order.
pub fn judge(members: usize, samples: &[Sample], reads: &[LocalRead]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in 0..members {
        let told: Vec<&Sample> = samples.iter().filter(|sample| sample.member == member).collect();
        if told.len() < 2 {
            findings.push(Finding::NotSeen { member, what: "positions" });
        }
        findings.extend(
            told.windows(2)
                .filter(|two| two[0].replaced == two[1].replaced)
                .filter_map(|two| out_of_order(*two[0], *two[1])),
        );
        let seen: Vec<&LocalRead> = reads.iter().filter(|read| read.member == member).collect();
        if seen.is_empty() {
            findings.push(Finding::NotSeen { member, what: "revision to a local reader" });
        }
        let back = seen
            .windows(2)
            .filter(|two| two[0].replaced == two[1].replaced && two[0].revision > two[1].revision);
        findings.extend(back.map(|two| Finding::StepBack { earlier: *two[0], later: *two[1] }));
    }
    findings
}

/// A page is put together from several readings, the lower position not always before the higher one. But positions only
/// go up, so that the lower one of a page may never be beyond the higher one of the next page: not over a restart
/// either, except for what is in memory alone.
fn out_of_order(earlier: Sample, later: Sample) -> Option<Finding> {
    let (one, other) = (earlier.positions, later.positions);
    let laws = [
        (one.purged <= other.snapshot, "purged <= snapshot"),
        (one.snapshot <= other.durable, "snapshot <= durable"),
        (one.durable <= other.stable, "durable <= stable"),
        (other.stable <= other.applied, "stable <= applied"),
    ];
    let broken = laws.into_iter().find(|(holds, _)| !holds);
    broken.map(|(_, law)| Finding::OutOfOrder { law, earlier, later })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(purged: u64, snapshot: u64, durable: u64, stable: u64, applied: u64) -> Sample {
        let positions = Positions { applied, stable, durable, snapshot, purged };
        Sample { member: 0, replaced: 0, at: Duration::ZERO, positions }
    }

    fn read(revision: i64) -> LocalRead {
        LocalRead { member: 0, replaced: 0, at: Duration::ZERO, revision }
    }

    /// The law that these two pages break.
    fn law_of(earlier: Sample, later: Sample) -> Option<&'static str> {
        match judge(1, &[earlier, later], &[read(1)]).as_slice() {
            [Finding::OutOfOrder { law, .. }] => Some(law),
            [] => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn positions_in_order_pass_and_each_other_order_is_found() {
        let honest = sample(10, 20, 30, 40, 50);
        assert_eq!(law_of(honest, honest), None);
        assert_eq!(law_of(sample(5, 5, 5, 5, 5), sample(5, 5, 5, 5, 5)), None);
        assert_eq!(law_of(honest, sample(11, 21, 31, 41, 51)), None);
        assert_eq!(law_of(sample(21, 20, 30, 40, 50), honest), Some("purged <= snapshot"));
        assert_eq!(law_of(sample(10, 31, 30, 40, 50), honest), Some("snapshot <= durable"));
        assert_eq!(law_of(sample(10, 20, 41, 40, 50), honest), Some("durable <= stable"));
        assert_eq!(law_of(honest, sample(10, 20, 30, 51, 50)), Some("stable <= applied"));
    }

    #[test]
    fn a_snapshot_that_is_published_between_two_readings_of_one_page_is_not_held_against_it() {
        assert_eq!(law_of(sample(10, 45, 30, 40, 50), sample(10, 45, 45, 50, 60)), None);
    }

    #[test]
    fn a_member_that_steps_back_is_found() {
        let samples = [sample(1, 2, 3, 4, 5); 2];
        assert_eq!(judge(1, &samples, &[read(4), read(4), read(6)]), []);
        let found = judge(1, &samples, &[read(4), read(6), read(5)]);
        assert_eq!(found, [Finding::StepBack { earlier: read(6), later: read(5) }]);
    }

    #[test]
    fn a_member_in_the_place_of_another_begins_anew() {
        let new = |sample: Sample| Sample { replaced: 1, ..sample };
        let read_new = LocalRead { replaced: 1, ..read(1) };
        let samples = [sample(10, 20, 30, 40, 50), new(sample(0, 0, 0, 0, 0)), new(sample(0, 0, 0, 0, 1))];
        assert_eq!(judge(1, &samples, &[read(6), read_new]), []);
        let samples = [sample(10, 20, 30, 40, 50), new(sample(3, 3, 3, 3, 3)), new(sample(0, 0, 0, 0, 1))];
        assert_eq!(judge(1, &samples, &[read(6), read_new]).len(), 1);
    }

    #[test]
    fn a_member_that_was_not_looked_at_does_not_pass() {
        let found = judge(2, &[sample(1, 2, 3, 4, 5); 2], &[read(4)]);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|finding| matches!(finding, Finding::NotSeen { member: 1, .. })));
    }
}
