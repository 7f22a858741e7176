//! Who lives where: which machine holds which member, and which ids are used up.
//!
//! A member that loses its disk never comes back under its id; its machine gets another member. So there is at most one
//! lost disk at a time, and only while it is certain who takes part: with two of three voters left, every committed entry
//! is on a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_mvcc::types::MemberId;
use holdfast_raft::{Departure, Member};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::history::Violation;
use super::member::{Crash, Machines, address, founder_id};

/// How long a change whose outcome is not known may still be carried out: a frame's patience, and the change's budget.
const UNSURE: Duration = Duration::from_secs(5);
/// The fewest voters that a change leaves.
const VOTERS_MIN: usize = 3;

/// What a machine is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nobody lives there, and the disk is empty.
    Vacant,
    /// A member lives there.
    Taken {
        /// Its id.
        id: u64,
        /// It is one of those that form the cluster.
        is_founder: bool,
    },
    /// The disk is lost, and the cluster still counts with the member.
    Lost {
        /// Its id.
        id: u64,
    },
}

/// Ids and places.
#[derive(Debug)]
pub(super) struct Places {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    by_machine: Vec<Place>,
    id_next: u64,
    /// Members whose removal was asked for.
    leaving: BTreeSet<u64>,
    /// Until then, something that was asked for may still happen.
    unsure_until: Option<Instant>,
}

impl Places {
    /// Founders on the first machines, nobody on the others.
    pub(super) fn new(founders: usize, machines: usize) -> Self {
        let place = |machine| match machine < founders {
            true => Place::Taken { id: founder_id(machine).0, is_founder: true },
            false => Place::Vacant,
        };
        let by_machine = (0..machines).map(place).collect();
        let (id_next, leaving) = (founder_id(founders).0, BTreeSet::new());
        Self { inner: Mutex::new(Inner { by_machine, id_next, leaving, unsure_until: None }) }
    }

    /// What a machine is.
    pub(super) fn at(&self, machine: usize) -> Place {
        self.inner.lock().by_machine[machine]
    }

    /// The machines that hold a member, with its id.
    pub(super) fn taken(&self) -> BTreeMap<usize, u64> {
        let inner = self.inner.lock();
        let taken = inner.by_machine.iter().enumerate().filter_map(|(machine, place)| match place {
            Place::Taken { id, .. } => Some((machine, *id)),
            Place::Vacant | Place::Lost { .. } => None,
        });
        taken.collect()
    }

    /// The machine whose disk is lost, and whom it held.
    pub(super) fn lost(&self) -> Option<(usize, u64)> {
        let inner = self.inner.lock();
        inner.by_machine.iter().enumerate().find_map(|(machine, place)| match place {
            Place::Lost { id } => Some((machine, *id)),
            Place::Vacant | Place::Taken { .. } => None,
        })
    }

    /// A machine that nobody lives on.
    pub(super) fn vacant(&self) -> Option<usize> {
        self.inner.lock().by_machine.iter().position(|place| *place == Place::Vacant)
    }

    /// An id that nobody has had.
    pub(super) fn fresh_id(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.id_next += 1;
        inner.id_next - 1
    }

    /// Changes what a machine is.
    pub(super) fn set(&self, machine: usize, place: Place) {
        self.inner.lock().by_machine[machine] = place;
    }

    /// A removal is about to be asked for.
    pub(super) fn leaves(&self, id: u64) {
        self.inner.lock().leaving.insert(id);
    }

    /// Something was asked for whose outcome is not known.
    pub(super) fn unsure(&self) {
        self.inner.lock().unsure_until = Some(Instant::now() + UNSURE);
    }

    /// True while something that was asked for may still happen.
    pub(super) fn is_unsure(&self) -> bool {
        self.inner.lock().unsure_until.is_some_and(|until| Instant::now() < until)
    }

    fn is_leaving(&self, id: u64) -> bool {
        self.inner.lock().leaving.contains(&id)
    }
}

impl Machines {
    /// Takes the machines of members that have heard that they were removed.
    pub(super) fn retire_departed(&self) -> Result<(), Violation> {
        for (machine, id) in self.places().taken() {
            let Some(life) = self.life(machine) else { continue };
            let departed = *life.node.departed().borrow();
            match departed {
                None => {}
                Some(Departure::Removed) if self.places().is_leaving(id) => {
                    self.history().count(|report| report.departures += 1);
                    self.vacate(machine);
                }
                Some(why) => {
                    return Err(Violation::new(format!(
                        "member {id} is told that it is {why:?}, which nobody asked for"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Ends whoever lives on a machine, and empties its disk.
    pub(super) fn vacate(&self, machine: usize) {
        self.history().trace(("vacate", machine, self.places().at(machine)));
        self.crash(machine, Crash::Kill);
        self.disk(machine).wipe();
        self.forget(machine);
        self.places().set(machine, Place::Vacant);
    }

    /// Loses the whole disk of a member.
    pub(super) fn lose_all(&self, machine: usize) {
        let Place::Taken { id, .. } = self.places().at(machine) else { return };
        self.history().trace(("all is lost", machine, id));
        self.history().count(|report| report.lost_disks += 1);
        self.crash(machine, Crash::Power);
        self.disk(machine).wipe();
        self.forget(machine);
        self.places().set(machine, Place::Lost { id });
    }

    /// Whom the leader counts with, when it has confirmed that it leads.
    pub(super) async fn confirmed_members(&self) -> Option<Vec<Member>> {
        let (_, leader) = self.leader()?;
        let confirmed = leader.until_crash(leader.node.linearize(Duration::from_secs(1))).await;
        let is_confirmed = matches!(confirmed, Some(Ok(_))) && leader.node.health().is_leader;
        is_confirmed.then(|| leader.node.members())
    }

    /// True when a disk may be lost, for good: it is certain who takes part, and the others are enough.
    pub(super) async fn may_lose_a_disk(&self) -> bool {
        let Some(members) = self.confirmed_members().await else { return false };
        let ids: BTreeSet<u64> = members.iter().map(|member| member.id.0).collect();
        let here: BTreeSet<u64> = self.places().taken().into_values().collect();
        !self.places().is_unsure() && ids == here && self.are_enough(&members)
    }

    /// True when a voter may go.
    pub(super) fn are_enough(&self, members: &[Member]) -> bool {
        let later = |member: &&Member| !self.votes(member.id);
        let voters = members.iter().filter(|member| !member.is_learner).count();
        // Those that are to vote later count with nobody yet.
        let later = members.iter().filter(|member| !member.is_learner).filter(later).count();
        voters - later >= VOTERS_MIN
    }

    /// True when this one votes, before and behind a change that may be under way.
    pub(super) fn votes(&self, id: MemberId) -> bool {
        let taken = self.places().taken();
        let machine = taken.iter().find(|(_, taken)| **taken == id.0).map(|(machine, _)| *machine);
        let life = machine.and_then(|machine| self.life(machine));
        // One that is down cannot say so: it is not counted.
        life.is_some_and(|life| life.node.health().votes)
    }

    /// The member on a machine, as the cluster is told of it.
    pub(super) fn newcomer(machine: usize, id: u64, is_learner: bool) -> Member {
        Member { id: MemberId(id), peer_urls: vec![address(machine)], is_learner }
    }
}
