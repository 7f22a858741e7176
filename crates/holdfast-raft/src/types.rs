//! openraft's type parameters, filled in for holdfast, and the conversions of log positions.
//!
//! The leader id is the classic one, with a single leader per term, so that a term means what clients expect.
//! A normal entry's payload is opaque here: the encoded bytes that are on disk and on the wire.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{LogId, LogIndex, Term};
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;

use crate::runtime::Runtime;
use crate::state_machine::StateMachine;

/// A proposal as it is written to the log: a format byte and an encoded entry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Payload(pub(crate) Bytes);

/// Where a member's peers reach it, and what it is to become.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PeerNode {
    /// Its peer URLs; tried in this order.
    pub(crate) peer_urls: Arc<[String]>,
    /// A learner that is to vote as soon as it has caught up. Means nothing for a voter.
    pub(crate) votes_later: bool,
}

openraft::declare_raft_types!(
    /// openraft's type parameters.
    pub(crate) TypeConfig:
        D = Payload,
        R = (),
        NodeId = u64,
        Node = PeerNode,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
pub(crate) type RaftLogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type RaftVote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type RaftEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
type CommittedLeaderId = <leader_id_std::LeaderId<u64, u64> as RaftLeaderId>::Committed;

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Our log id as openraft's.
pub(crate) fn to_raft(id: LogId) -> RaftLogId {
    RaftLogId { leader_id: CommittedLeaderId::new(id.term().get()), index: id.index().get() }
}

/// openraft's log id as ours.
pub(crate) fn from_raft(id: &RaftLogId) -> LogId {
    LogId::new(Term::new(id.leader_id.term), LogIndex::new(id.index))
}

/// A vote for `voted_for` in `term`.
pub(crate) fn vote(term: u64, voted_for: u64, committed: bool) -> RaftVote {
    if committed { RaftVote::new_committed(term, voted_for) } else { RaftVote::new(term, voted_for) }
}
