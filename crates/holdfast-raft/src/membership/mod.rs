//! Who takes part: adding, removing, promoting and moving members, one change at a time, on the leader.
//!
//! openraft changes voters in two steps, through a joint membership; nobody outside of here sees the joint one. A
//! change that stopped in between (its leader did) is finished by [`keeper`].
//!
//! A member that is added as a voter begins as a learner that `votes_later`: a voter without a log would count against
//! the quorum, and a cluster of one could not commit anything until the new one is up. The leader makes it a voter
//! once it has caught up; to clients it is a voter from the start.
//!
//! Module map: `plan` what a change means and what forbids it, pure; `change` carrying it out here or asking the
//! leader; `keeper` what the leader does by itself; `transfer` moving leadership, `unfit` away from a leader that should not.

mod change;
pub(crate) mod keeper;
mod plan;
mod transfer;
pub(crate) mod unfit;

use holdfast_mvcc::types::MemberId;

pub(crate) use change::Changes;
pub(crate) use transfer::{best_successor, transfer_to};

use crate::config::Member;
use crate::error::NodeError;
use crate::types::{Membership, PeerNode};

/// A change of who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberChange {
    /// Adds a member under an id that was never used.
    Add(Member),
    /// Removes a member, for good.
    Remove(MemberId),
    /// Makes a learner a voter.
    Promote(MemberId),
    /// Changes where a member's peers reach it.
    Move {
        /// Which member.
        id: MemberId,
        /// Its new peer URLs, at least one.
        peer_urls: Vec<String>,
    },
}

/// What a change must not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRules {
    /// Refuse what would leave the cluster without a quorum of members that have started and are connected.
    pub strict: bool,
    /// The most learners, those that are to vote later not counted.
    pub learners_max: u32,
}

/// Why a change was not carried out; nothing happened, except that a [`NodeError`] may say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such member.
    #[error("there is no member with this id")]
    NotFound,
    /// The id is, or was, a member's.
    #[error("the id is in use, or was")]
    IdTaken,
    /// Another member has one of the peer URLs.
    #[error("another member has one of these peer URLs")]
    UrlsTaken,
    /// There are as many learners as allowed.
    #[error("there are as many learners as allowed")]
    TooManyLearners,
    /// Only learners can be promoted.
    #[error("the member is no learner")]
    NotLearner,
    /// The learner's log is too far behind.
    #[error("the learner has not caught up yet")]
    NotReady,
    /// Too few voters would have started.
    #[error("too few of the voters have ever started")]
    NotEnoughStarted,
    /// Too few voters are connected.
    #[error("too few of the voters are connected")]
    Unhealthy,
    /// Consensus gave no answer.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Why leadership was not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This member does not lead.
    #[error("this member does not lead")]
    NotLeader,
    /// There is no such voter.
    #[error("there is no voter with this id")]
    NoSuchVoter,
    /// It was not taken over in time; this member may lead on.
    #[error("leadership was not taken over in time")]
    TimedOut,
}

/// The members of a membership, ascending by id.
pub(crate) fn members_of(membership: &Membership) -> Vec<Member> {
    let voters: std::collections::BTreeSet<u64> = membership.voter_ids().collect();
    membership
        .nodes()
        .map(|(id, node)| Member {
            id: MemberId(*id),
            peer_urls: node.peer_urls.to_vec(),
            is_learner: is_learner(node, voters.contains(id)),
        })
        .collect()
}

/// True when a member of this membership is a learner in it. Asked with each call: it copies nothing.
pub(crate) fn is_learner_in(membership: &Membership, id: MemberId) -> bool {
    let node = membership.get_node(&id.0);
    node.is_some_and(|node| is_learner(node, membership.voter_ids().any(|voter| voter == id.0)))
}

/// True for what clients call a learner: one that is not to vote either.
pub(crate) fn is_learner(node: &PeerNode, votes: bool) -> bool {
    !votes && !node.votes_later
}
