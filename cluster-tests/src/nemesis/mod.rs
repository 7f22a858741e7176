//! What is done to a cluster while clients use it: one fault after the other, each with a name.
//!
//! A fault strikes, lasts, and is mended; then everybody has to serve again before the next one comes. So never more than a
//! minority is down, cut off or damaged at a time, unless the fault says so itself, and what the cluster promises holds.
//!
//! Module map: [`stage`] (strike, hold, mend), `files` (what rots or is torn), `membership` (members that come, go and
//! come back under a new id), `recovery` (everybody serves again), [`probe`] (how long nobody could write).

mod files;
mod membership;
pub mod probe;
mod recovery;
pub mod stage;

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table of names says what each of them is")]
pub enum Fault {
    KillLeader,
    KillFollower,
    KillAny,
    KillAll,
    PauseLeader,
    PauseFollower,
    Restart,
    RollingRestart,
    CutLeader,
    CutFollower,
    CutAll,
    Bridge,
    OneWay,
    Flap,
    Slow,
    Reset,
    DiskFull,
    TornTail,
    RotLog,
    RotStore,
    RotSnapshot,
    LostDir,
    InstallCut,
    Membership,
    Dump,
}

/// Every fault: its group, its name, and what it is.
pub const FAULTS: [(Fault, &str, &str, &str); 25] = [
    (Fault::KillLeader, "kill", "kill-leader", "SIGKILL to the leader, started again after a while"),
    (Fault::KillFollower, "kill", "kill-follower", "SIGKILL to as many followers as a quorum can miss"),
    (Fault::KillAny, "kill", "kill-any", "SIGKILL to any as many as a quorum can miss"),
    (Fault::KillAll, "kill", "kill-all", "SIGKILL to all members at once"),
    (Fault::PauseLeader, "pause", "pause-leader", "SIGSTOP to the leader, for longer than an election takes"),
    (Fault::PauseFollower, "pause", "pause-follower", "SIGSTOP to as many followers as a quorum can miss"),
    (Fault::Restart, "restart", "restart", "SIGTERM to any member, started again at once"),
    (Fault::RollingRestart, "restart", "rolling-restart", "each member in turn, as an upgrade does it"),
    (Fault::CutLeader, "partition", "cut-leader", "the leader is in the smaller part of the network"),
    (Fault::CutFollower, "partition", "cut-follower", "the smaller part of the network has followers alone"),
    (Fault::CutAll, "partition", "cut-all", "no member reaches another one"),
    (Fault::Bridge, "partition", "bridge", "two halves that reach each other through one member alone"),
    (Fault::OneWay, "partition", "one-way", "what one member sends, or is sent, does not arrive"),
    (Fault::Flap, "partition", "flap", "a member is cut off and back many times a second"),
    (Fault::Slow, "link", "slow", "every byte from and to a member takes 75 to 150 ms"),
    (Fault::Reset, "link", "reset", "connections between members break again and again"),
    (Fault::DiskFull, "disk", "disk-full", "no space on a member's disk"),
    (
        Fault::TornTail,
        "disk",
        "torn-tail",
        "a follower dies, and the end of what it wrote and did not acknowledge is not there",
    ),
    (Fault::RotLog, "disk", "rot-log", "a bit of a follower's log changes while it is down"),
    (Fault::RotStore, "disk", "rot-store", "4 KiB of a follower's store are overwritten while it is down"),
    (Fault::RotSnapshot, "disk", "rot-snapshot", "a bit of a follower's snapshot changes while it is down"),
    (Fault::LostDir, "member", "lost-dir", "a follower loses its directory and comes back under a new id"),
    (
        Fault::InstallCut,
        "member",
        "install-cut",
        "the same, and its connections break while it is sent everything",
    ),
    (Fault::Membership, "member", "membership", "one more member joins, votes, and is removed"),
    (Fault::Dump, "dump", "dump", "a member is told to take a snapshot now, several times"),
];

/// What cannot be done here, and why.
pub const NOT_HERE: [(&str, &str); 4] = [
    ("slow-disk", "this kernel has no device mapper, and a file system in memory cannot be slowed down"),
    ("io-error", "the same; the simulation and the crash points fail each write and fsync"),
    (
        "clock-jump",
        "a time namespace moves the monotonic clock alone, once, before a process starts; the simulation moves both",
    ),
    ("power-loss", "SIGKILL leaves the page cache; the simulation loses what was not synced"),
];

impl Fault {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, &'static str) {
        FAULTS.iter().find(|(fault, ..)| *fault == self).expect("every fault has a row")
    }

    /// The faults of these names, of whole groups, or `all`; each once.
    pub fn named(names: &[String]) -> Result<Vec<Self>> {
        let mut faults = Vec::new();
        for wanted in names {
            if let Some((name, why)) = NOT_HERE.iter().find(|(name, _)| name == wanted) {
                bail!("{name} cannot be done on this machine: {why}");
            }
            let fits = |(_, group, name, _): &&(Self, &str, &str, &str)| {
                wanted == "all" || wanted == group || wanted == name
            };
            let found: Vec<Self> = FAULTS.iter().filter(fits).map(|(fault, ..)| *fault).collect();
            if found.is_empty() {
                let all: Vec<&str> = FAULTS.iter().map(|(_, _, name, _)| *name).collect();
                bail!(
                    "no fault is named {wanted}; there are all, the groups kill, pause, restart, partition, link, disk, \
                       member, dump, and {}",
                    all.join(", ")
                );
            }
            faults.extend(found.into_iter().filter(|fault| !faults.contains(fault)).collect::<Vec<_>>());
        }
        Ok(faults)
    }

    /// Whether a member may refuse to start, or end by itself, because of it.
    pub fn may_end_members(self) -> bool {
        matches!(self, Self::DiskFull | Self::TornTail | Self::RotLog | Self::RotStore | Self::RotSnapshot)
    }

    /// Whether it needs what only holdfast has.
    pub fn is_for_holdfast_alone(self) -> bool {
        self == Self::Dump
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault that was there. All times are since the run began.
#[derive(Debug, Clone)]
pub struct Incident {
    /// Which.
    pub fault: Fault,
    /// The members that it struck.
    pub victims: Vec<usize>,
    /// When it struck.
    pub began: Duration,
    /// When it was mended.
    pub mended: Duration,
    /// When all members served again.
    pub served: Duration,
    /// From its begin to the acknowledgement of the first write that was called after it.
    pub first_ack: Option<Duration>,
    /// What else is worth knowing.
    pub notes: Notes,
}

/// What members did whose files were damaged, and what else is worth knowing of a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// How often a damaged member ended and said why.
    pub refused: usize,
    /// How often one ran, and did not serve.
    pub silent: usize,
    /// How often one had to come back under a new id.
    pub rejoined: usize,
    /// Anything else.
    pub lines: Vec<String>,
}

impl Notes {
    fn push(&mut self, line: String) {
        self.lines.push(line);
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, victims, began, mended, served, first_ack, notes } = self;
        let who: Vec<String> = victims.iter().map(|victim| format!("n{}", victim + 1)).collect();
        let ack = first_ack.map_or_else(|| "no".to_owned(), |ack| format!("{} ms to the", ack.as_millis()));
        write!(
            f,
            "{:>7.1} s  {fault} {} for {} ms; {ack} first write; all serve {} ms after it was mended",
            began.as_secs_f64(),
            who.join(" "),
            (*mended - *began).as_millis(),
            (*served - *mended).as_millis(),
        )?;
        notes.lines.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

/// A member that did what no fault explains.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
pub enum Broken {
    /// It ended by itself.
    Ended { member: usize, fault: Fault, said: String },
    /// It did not serve for a long time after the fault was mended.
    Silent { member: usize, fault: Fault, said: String },
    /// What it holds could not be read.
    Unreadable { member: usize, fault: Fault, said: String },
}

impl Broken {
    /// After which fault.
    fn fault(&self) -> Fault {
        match self {
            Self::Ended { fault, .. } | Self::Silent { fault, .. } | Self::Unreadable { fault, .. } => *fault,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, member, fault, said) = match self {
            Self::Ended { member, fault, said } => ("ended by itself", member, fault, said),
            Self::Silent { member, fault, said } => ("does not serve", member, fault, said),
            Self::Unreadable { member, fault, said } => ("cannot be read", member, fault, said),
        };
        write!(f, "n{} {what} after {fault}: {said}", member + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_groups_and_all_are_understood() {
        let of =
            |names: &[&str]| Fault::named(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["all"]).unwrap().len(), FAULTS.len());
        assert_eq!(of(&["pause", "pause-leader"]).unwrap(), [Fault::PauseLeader, Fault::PauseFollower]);
        assert!(of(&["slow-disk"]).unwrap_err().to_string().contains("device mapper"));
        assert!(of(&["lightning"]).unwrap_err().to_string().contains("no fault is named lightning"));
    }
}
