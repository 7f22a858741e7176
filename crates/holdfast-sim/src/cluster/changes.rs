//! Changes of who takes part: members come on machines that were vacant, are promoted and removed, and lose their whole
//! disk, whereupon another one takes their machine.

use std::time::Duration;

use holdfast_env::Rng;
use holdfast_mvcc::types::MemberId;
use holdfast_raft::{ChangeError, ChangeRules, Member, MemberChange, NodeError};

use super::history::Violation;
use super::life::Life;
use super::member::{Crash, Machines};
use super::places::Place;
use crate::world::SimRng;

/// The budget of one change.
const BUDGET: Duration = Duration::from_secs(2);
/// How long the member that leads is left alone by a fault in the middle of a change, in milliseconds.
const FAULT_MS_MAX: u64 = 150;
/// What the members are asked with: what an operator's mistake would be is left to the nemesis to avoid.
const RULES: ChangeRules = ChangeRules { strict: false, learners_max: u32::MAX };

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It is committed.
    Done,
    /// Certainly nothing happened.
    Refused,
    /// It may have happened, or may still.
    Unsure,
}

/// Changes who takes part, one step at a time.
pub(super) struct Changer {
    rng: SimRng,
    machines: Machines,
}

impl Changer {
    /// With its own random source.
    pub(super) fn new(seed: u64, machines: Machines) -> Self {
        Self { rng: SimRng::new(seed), machines }
    }

    /// One change, chosen at random among those that leave a cluster that can go on.
    pub(super) async fn step(&self) -> Result<(), Violation> {
        if let Some((machine, id)) = self.machines.places().lost() {
            self.replace(machine, id).await;
        } else {
            match self.rng.below(6) {
                0 | 1 => self.add().await,
                2 => self.promote().await,
                3 => self.remove().await,
                _ => self.lose_and_replace().await,
            }
        }
        self.machines.retire_departed()
    }

    async fn add(&self) {
        let Some(machine) = self.machines.places().vacant() else { return };
        self.add_on(machine, self.rng.one_in(2)).await;
    }

    /// Adds a member under a new id, and starts it with an empty disk. Gives whether it is certain that it was added.
    async fn add_on(&self, machine: usize, is_learner: bool) -> bool {
        let id = self.machines.places().fresh_id();
        let member = Machines::newcomer(machine, id, is_learner);
        let changed = self.change(MemberChange::Add(member)).await;
        if changed == Changed::Refused {
            return false;
        }
        self.machines.places().set(machine, Place::Taken { id, is_founder: false });
        self.machines.history().count(|report| match (changed, is_learner) {
            (Changed::Done, true) => report.learners_added += 1,
            (Changed::Done, false) => report.voters_added += 1,
            (Changed::Refused | Changed::Unsure, _) => report.changes_unsure += 1,
        });
        // It may be stopped on the way; then it is started as any other.
        if let Err(violation) = self.machines.start(machine).await {
            self.machines.history().violate(violation.to_string());
        }
        changed == Changed::Done
    }

    async fn promote(&self) {
        let Some(members) = self.machines.confirmed_members().await else { return };
        let learner = members.iter().find(|member| member.is_learner);
        if let Some(Member { id, .. }) = learner
            && self.change(MemberChange::Promote(*id)).await == Changed::Done
        {
            self.machines.history().count(|report| report.promoted += 1);
        }
    }

    async fn remove(&self) {
        let Some(members) = self.machines.confirmed_members().await else { return };
        let member = &members[usize::try_from(self.rng.below(members.len() as u64)).unwrap_or_default()];
        if !member.is_learner && !self.machines.are_enough(&members) {
            return;
        }
        if self.ask_removal(member.id.0).await == Changed::Done {
            self.machines.history().count(|report| report.removed += 1);
        }
    }

    /// The member itself stays until it hears of it.
    async fn ask_removal(&self, id: u64) -> Changed {
        self.machines.places().leaves(id);
        self.change(MemberChange::Remove(MemberId(id))).await
    }

    async fn lose_and_replace(&self) {
        if !self.machines.may_lose_a_disk().await {
            return;
        }
        let taken: Vec<(usize, u64)> = self.machines.places().taken().into_iter().collect();
        let (machine, id) = self.rng.pick(&taken);
        self.machines.lose_all(machine);
        self.replace(machine, id).await;
    }

    /// Removes the member whose disk is lost, and has another one take its machine.
    async fn replace(&self, machine: usize, id: u64) {
        if self.ask_removal(id).await != Changed::Done {
            return;
        }
        self.machines.places().set(machine, Place::Vacant);
        if self.add_on(machine, false).await {
            self.machines.history().count(|report| report.replaced += 1);
        }
    }

    /// Asks for a change through any member that runs; sometimes the leader, or another one, crashes meanwhile.
    async fn change(&self, change: MemberChange) -> Changed {
        let lives = self.machines.lives();
        if lives.is_empty() {
            return Changed::Refused;
        }
        let life = lives[usize::try_from(self.rng.below(lives.len() as u64)).unwrap_or_default()].clone();
        drop(lives);
        let asked = tokio::spawn(ask(self.machines.clone(), life, change));
        if self.rng.one_in(4) {
            tokio::time::sleep(Duration::from_millis(self.rng.below(FAULT_MS_MAX))).await;
            if let Some((leader, _)) = self.machines.leader() {
                self.machines.crash(
                    leader,
                    if self.rng.next_u64().is_multiple_of(2) { Crash::Kill } else { Crash::Power },
                );
            }
        }
        asked.await.unwrap_or(Changed::Unsure)
    }
}

/// Asks one member for a change.
pub(super) async fn ask(machines: Machines, life: Life, change: MemberChange) -> Changed {
    let answer = life.until_crash(life.node.change_members(&change, RULES, BUDGET)).await;
    let changed = match &answer {
        Some(Ok(_)) => Changed::Done,
        Some(Err(ChangeError::Node(NodeError::NoLeader))) => Changed::Refused,
        // A refusal may follow on a try that was carried out.
        Some(Err(_)) | None => Changed::Unsure,
    };
    machines.history().trace(("change", &change, &answer));
    if changed == Changed::Unsure {
        machines.places().unsure();
    }
    changed
}
