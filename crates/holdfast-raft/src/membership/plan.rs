//! What a change means in openraft's terms, and what forbids it: etcd's checks in etcd's order. Pure.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;

use super::{ChangeError, ChangeRules, MemberChange};
use crate::limits::LEARNER_READY_PERCENT;
use crate::types::{Membership, PeerNode};

/// What the leader knows when it decides.
pub(super) struct View<'a> {
    /// Who takes part.
    pub(super) membership: &'a Membership,
    /// Ids that are used up.
    pub(super) removed: &'a dyn Fn(u64) -> bool,
    /// Members that have published their name.
    pub(super) started: BTreeSet<u64>,
    /// Members that are connected, the leader among them.
    pub(super) connected: BTreeSet<u64>,
    /// How far each member's log matches the leader's.
    pub(super) matching: BTreeMap<u64, u64>,
    /// The leader.
    pub(super) here: u64,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// It is done already, by an earlier try.
    Done,
    Change(ChangeMembers<u64, PeerNode>),
}

impl View<'_> {
    fn node(&self, id: u64) -> Option<&PeerNode> {
        self.membership.get_node(&id)
    }

    fn votes(&self, id: u64) -> bool {
        self.membership.voter_ids().any(|voter| voter == id)
    }

    fn is_learner(&self, id: u64) -> bool {
        self.node(id).is_some_and(|node| super::is_learner(node, self.votes(id)))
    }

    /// Those that vote, or are to.
    fn voting(&self) -> Vec<u64> {
        self.membership.nodes().map(|(id, _)| *id).filter(|id| !self.is_learner(*id)).collect()
    }

    fn are_urls_taken(&self, by_others_than: u64, urls: &[String]) -> bool {
        let mut others = self.membership.nodes().filter(|(id, _)| **id != by_others_than);
        others.any(|(_, node)| node.peer_urls.iter().any(|url| urls.contains(url)))
    }

    /// The change as openraft's, or why it must not be. `again`: an earlier try may have been carried out.
    pub(super) fn plan(
        &self,
        change: &MemberChange,
        rules: ChangeRules,
        again: bool,
    ) -> Result<Plan, ChangeError> {
        match change {
            MemberChange::Add(member) => self.plan_add(member, rules, again),
            MemberChange::Remove(id) => self.plan_remove(id.0, rules, again),
            MemberChange::Promote(id) => self.plan_promote(id.0, rules, again),
            MemberChange::Move { id, peer_urls } => {
                let node = self.node(id.0).ok_or(ChangeError::NotFound)?;
                if self.are_urls_taken(id.0, peer_urls) {
                    return Err(ChangeError::UrlsTaken);
                }
                let moved = PeerNode { peer_urls: peer_urls.clone().into(), ..node.clone() };
                Ok(Plan::Change(ChangeMembers::SetNodes([(id.0, moved)].into())))
            }
        }
    }

    fn plan_add(
        &self,
        member: &crate::config::Member,
        rules: ChangeRules,
        again: bool,
    ) -> Result<Plan, ChangeError> {
        let id = member.id.0;
        if again && self.node(id).is_some_and(|node| *node.peer_urls == *member.peer_urls) {
            return Ok(Plan::Done);
        }
        if rules.strict {
            let voting = self.voting();
            if !member.is_learner && !self.may_add_voter(&voting) {
                return Err(ChangeError::NotEnoughStarted);
            }
            if !voting.iter().all(|id| self.connected.contains(id)) {
                return Err(ChangeError::Unhealthy);
            }
        }
        if self.node(id).is_some() || (self.removed)(id) {
            return Err(ChangeError::IdTaken);
        }
        if self.are_urls_taken(id, &member.peer_urls) {
            return Err(ChangeError::UrlsTaken);
        }
        let learners = self.membership.nodes().filter(|(id, _)| self.is_learner(**id)).count();
        if member.is_learner && learners >= rules.learners_max as usize {
            return Err(ChangeError::TooManyLearners);
        }
        let node = PeerNode { peer_urls: member.peer_urls.clone().into(), votes_later: !member.is_learner };
        Ok(Plan::Change(ChangeMembers::AddNodes([(id, node)].into())))
    }

    /// Counting the new one as not started. A cluster of one may always grow.
    fn may_add_voter(&self, voting: &[u64]) -> bool {
        let started = voting.iter().filter(|id| self.started.contains(id)).count();
        (started == 1 && voting.len() == 1) || started >= quorum(voting.len() + 1)
    }

    fn plan_remove(&self, id: u64, rules: ChangeRules, again: bool) -> Result<Plan, ChangeError> {
        if self.node(id).is_none() {
            return if again && (self.removed)(id) { Ok(Plan::Done) } else { Err(ChangeError::NotFound) };
        }
        if rules.strict && !self.is_learner(id) {
            self.check_removal(id)?;
        }
        Ok(Plan::Change(if self.votes(id) {
            ChangeMembers::RemoveVoters([id].into())
        } else {
            ChangeMembers::RemoveNodes([id].into())
        }))
    }

    fn check_removal(&self, id: u64) -> Result<(), ChangeError> {
        let voting = self.voting();
        let others: Vec<u64> = voting.iter().copied().filter(|other| *other != id).collect();
        let started = others.iter().filter(|other| self.started.contains(other)).count();
        if started < quorum(others.len()) {
            return Err(ChangeError::NotEnoughStarted);
        }
        // One that is down is not part of the quorum that works.
        if id != self.here && !self.connected.contains(&id) {
            return Ok(());
        }
        let active = voting.iter().filter(|voter| self.connected.contains(voter)).count();
        if active - 1 < quorum(voting.len() - 1) {
            return Err(ChangeError::Unhealthy);
        }
        Ok(())
    }

    fn plan_promote(&self, id: u64, rules: ChangeRules, again: bool) -> Result<Plan, ChangeError> {
        if self.node(id).is_none() {
            return Err(ChangeError::NotFound);
        }
        if !self.is_learner(id) {
            return if again { Ok(Plan::Done) } else { Err(ChangeError::NotLearner) };
        }
        let matching = |id: &u64| self.matching.get(id).copied().unwrap_or(0);
        if matching(&id) * 100 < matching(&self.here) * LEARNER_READY_PERCENT {
            return Err(ChangeError::NotReady);
        }
        if rules.strict {
            let voting = self.voting();
            let started = 1 + voting.iter().filter(|id| self.started.contains(id)).count();
            if started < quorum(voting.len() + 1) {
                return Err(ChangeError::NotEnoughStarted);
            }
        }
        Ok(Plan::Change(ChangeMembers::AddVoterIds([id].into())))
    }
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests;
